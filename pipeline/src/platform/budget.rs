//! How the memory budget is shared out: rows, queues of the client, and what a table may hold.

use std::collections::{BTreeMap, BTreeSet};

use aion_kafka::Limits;
use aion_schemas::catalog::Topic;
use aion_sinks::{
    budget::Budget,
    clickhouse,
    lake::{Settings, upkeep::Compaction},
    prometheus,
};

use crate::{
    config::{ClickHouseConfig, Config, JobConfig, MetricsConfig},
    exit::{Exit, Failure},
    preflight::Partitions,
};

/// The sixteenths of the memory budget for decoded rows, and for the messages in librdkafka's queues.
/// The rest is for what nobody counts: librdkafka's own record of each message, which is as large as
/// a small message, files being encoded, the allocator's free pages, the code.
const ROWS_SIXTEENTHS: usize = 3;
const QUEUES_SIXTEENTHS: usize = 1;
/// What a partition's queue and its fetch may take: with less it gets nowhere, more is of no use.
const LEAST_SHARE_BYTES: usize = 64 << 10;
const MOST_SHARE_BYTES: usize = 16 << 20;

/// Refuses a budget that rows and the least queues of all partitions would pass, and says which is enough.
///
/// A warning would be read after the process was killed for its memory, in its first backlog. Several processes share
/// the partitions, but one may be left with all of them.
pub(crate) fn refuse_too_small(config: &Config, found: &Partitions) -> Result<(), Failure> {
    let partitions = partitions_read(&config.jobs, found);
    let queues_bytes = partitions * LEAST_SHARE_BYTES;
    if rows_bytes(config) + queues_bytes <= config.memory_bytes {
        return Ok(());
    }
    let topics = config.jobs.iter().flat_map(JobConfig::topics);
    let most = topics.map(|topic| (partitions_of(topic, found), &topic.name)).max();
    let most = most.map(|(count, topic)| format!(", {count} of them of {topic}"));
    let wanted_mib = queues_bytes.div_ceil((1 << 20) / 16 * (16 - ROWS_SIXTEENTHS));
    let what = format!(
        "memory.budget_mib is {}, too small for the {partitions} partitions that jobs read{}; at least {wanted_mib} is \
         wanted (a partition that two jobs read counts twice; for `aion dev` it is --memory-mib)",
        config.memory_bytes >> 20,
        most.unwrap_or_default(),
    );
    Err(Failure::new(Exit::Usage, what))
}

/// How many partitions a topic has. One that could not be looked at counts as the catalog has it.
fn partitions_of(topic: &Topic, found: &Partitions) -> usize {
    found.get(&topic.name).copied().unwrap_or(topic.partitions.max(1) as usize)
}

/// How many partitions are read, each by a consumer for each job.
fn partitions_read(jobs: &[JobConfig], found: &Partitions) -> usize {
    jobs.iter().flat_map(JobConfig::topics).map(|topic| partitions_of(topic, found)).sum()
}

/// Shares the bytes of the client's queues among all partitions. A queue may pass its bound by one
/// fetch, so that fetch is part of the share.
pub(super) fn queue_limits(jobs: &[JobConfig], found: &Partitions, queues_bytes: usize) -> Limits {
    let partitions = partitions_read(jobs, found).max(1);
    let share = (queues_bytes / partitions).clamp(LEAST_SHARE_BYTES, MOST_SHARE_BYTES);
    let partition_fetch_bytes = (share / 2).min(1 << 20);
    Limits {
        queued_bytes: share - partition_fetch_bytes,
        partition_fetch_bytes,
        ..Limits::default()
    }
}

/// A table may hold half of these jobs' rows: a server that is slow for one is slow for the others.
pub(crate) fn house_settings(config: &ClickHouseConfig, rows_bytes: usize) -> clickhouse::Settings {
    let flush_bytes = config.flush_bytes.min(rows_bytes / 8);
    clickhouse::Settings {
        flush_bytes,
        flush_age: config.flush_age,
        hold_bytes: (4 * flush_bytes).min(rows_bytes / 2),
        ..clickhouse::Settings::default()
    }
}

/// Series hold their rows for seconds only.
pub(super) fn series_settings(config: &MetricsConfig, rows_bytes: usize) -> prometheus::Settings {
    let usual = prometheus::Settings::default();
    let flush_bytes = usual.flush_bytes.min(rows_bytes / 8);
    prometheus::Settings {
        flush_bytes,
        hold_bytes: 3 * flush_bytes,
        flush_age: config.flush_age,
        max_series_per_metric: config.max_series_per_metric,
        max_series: config.max_series,
        stale_after: config.stale_after,
        buckets: config.buckets.clone(),
        preset: config.preset.clone(),
        ..usual
    }
}

pub(super) fn queues_bytes(config: &Config) -> usize {
    config.memory_bytes / 16 * QUEUES_SIXTEENTHS
}

fn rows_bytes(config: &Config) -> usize {
    config.memory_bytes / 16 * ROWS_SIXTEENTHS
}

/// Whose part of the memory for rows a job's are in: that of those that write to ClickHouse, or of the others. While
/// ClickHouse is away its rows wait in memory, and must not leave the lake's jobs without any.
pub(super) fn part_of(job: &JobConfig) -> &'static str {
    if job.is_in_clickhouse() { "clickhouse" } else { "others" }
}

/// The bytes of each part.
pub(crate) fn part_bytes(config: &Config) -> usize {
    let parts: BTreeSet<&str> = config.jobs.iter().map(part_of).collect();
    rows_bytes(config) / parts.len().max(1)
}

/// How many jobs share a part; what reads retries is one by itself.
pub(super) fn sharers(jobs: &[JobConfig], part: &str) -> usize {
    jobs.iter().filter(|job| part_of(job) == part).flat_map(JobConfig::topics).count()
}

/// The parts that there are.
pub(super) fn memory(config: &Config) -> BTreeMap<&'static str, Budget> {
    let parts = config.jobs.iter().map(part_of);
    parts.map(|part| (part, Budget::new(part_bytes(config)))).collect()
}

/// A table holds twice what makes a flush: one flush under way, the next filling up.
pub(super) fn lake_settings(config: &Config) -> Settings {
    let flush_bytes = config.lake.flush_bytes.min(part_bytes(config) / 2);
    Settings {
        flush_bytes,
        flush_age: config.lake.flush_age,
        hold_bytes: 2 * flush_bytes,
        ..Settings::default()
    }
}

/// Compacting holds a file that is read and the new one, both outside the budget for rows.
pub(super) fn worth(config: &Config) -> Compaction {
    let most = (config.memory_bytes / 16) as u64;
    let worth = Compaction::default();
    Compaction { target_bytes: worth.target_bytes.min(most), ..worth }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use aion_schemas::catalog::Catalog;

    use super::*;
    use crate::{
        config::{SinkKind, default_jobs},
        exit::code_of,
    };

    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;

    /// What each partition may have queued, and in one fetch, when these jobs share `bytes`.
    fn shares(jobs: &[JobConfig], found: &Partitions, bytes: usize) -> (usize, usize) {
        let limits = queue_limits(jobs, found, bytes);
        (limits.queued_bytes, limits.partition_fetch_bytes)
    }

    #[test]
    fn the_queues_of_all_partitions_share_their_memory() {
        let mut jobs = default_jobs(&Catalog::builtin(), SinkKind::Lake);
        jobs.truncate(1);
        jobs[0].retries = None;
        let topic = Arc::clone(&jobs[0].topic);
        let found = |partitions| Partitions::from([(Arc::clone(&topic.name), partitions)]);
        assert_eq!(shares(&jobs, &found(8), 8 * MIB), (512 * KIB, 512 * KIB));
        assert_eq!(shares(&jobs, &found(16), 8 * MIB), (256 * KIB, 256 * KIB));
        // A topic that could not be looked at has as many as the catalog says.
        let known = topic.partitions as usize;
        let by_catalog = shares(&jobs, &Partitions::new(), known * MIB);
        assert_eq!(by_catalog, (512 * KIB, 512 * KIB));
        // Each job reads by a consumer of its own, and so does what reads its retries.
        jobs.push(jobs[0].clone());
        assert_eq!(shares(&jobs, &found(8), 8 * MIB), (256 * KIB, 256 * KIB));
        jobs[0].retries = Some(Arc::clone(&topic));
        assert_eq!(shares(&jobs, &found(8), 24 * MIB), (512 * KIB, 512 * KIB));
    }

    #[test]
    fn a_partition_has_neither_too_little_to_go_on_nor_all_there_is() {
        let jobs = default_jobs(&Catalog::builtin(), SinkKind::Lake);
        assert_eq!(shares(&jobs, &Partitions::new(), 1), (32 * KIB, 32 * KIB));
        // Of a great share one fetch takes 1 MiB, and the rest waits in the queue.
        assert_eq!(shares(&jobs, &Partitions::new(), 64 << 30), (15 * MIB, MIB));
        assert_eq!(shares(&[], &Partitions::new(), 2 * MIB), (MIB, MIB));
    }

    /// The bytes of the budget, and of it what is counted where everything is full: rows, and of each partition a queue
    /// and a fetch.
    fn counted(config: &Config, partitions: usize) -> (usize, usize) {
        let topics = || config.jobs.iter().flat_map(JobConfig::topics);
        let found = topics().map(|topic| (Arc::clone(&topic.name), partitions)).collect();
        let (queue, fetch) = shares(&config.jobs, &found, queues_bytes(config));
        let rows: usize = memory(config).values().map(Budget::limit).sum();
        (config.memory_bytes, rows + topics().count() * partitions * (queue + fetch))
    }

    const LAKE: &str = "kafka.brokers = \"k:1\"\nlake.url = \"/tmp/lake\"\n";
    const HOUSE: &str = "[clickhouse]\nurl = \"http://localhost:8123\"\n";

    fn parsed(text: &str) -> Config {
        Config::parse(text, std::iter::empty()).unwrap()
    }

    #[test]
    fn what_is_counted_takes_a_quarter_of_the_budget_and_never_passes_it() {
        for text in [LAKE.to_owned(), format!("{LAKE}{HOUSE}")] {
            let config = parsed(&text);
            for partitions in [1, 2, 8] {
                let (budget, counted) = counted(&config, partitions);
                assert!(counted <= budget / 4, "{counted} bytes with {partitions} partitions");
            }
            // The least share of a partition, 64 KiB, adds up to more than the sixteenth, and has room in the rest.
            for partitions in [64, 128] {
                let (budget, counted) = counted(&config, partitions);
                assert!(counted <= budget, "{counted} bytes with {partitions} partitions");
            }
        }
    }

    /// Of one topic that has so many partitions, or what is said instead.
    fn refused(config: &Config, partitions: usize) -> Option<Failure> {
        let found = Partitions::from([(Arc::clone(&config.jobs[0].topic.name), partitions)]);
        refuse_too_small(config, &found).err()
    }

    #[test]
    fn a_budget_that_the_queues_would_pass_is_refused_with_the_one_that_is_enough() {
        let mut config = parsed(&format!("{LAKE}memory.budget_mib = 64\n"));
        config.jobs.truncate(1);
        config.jobs[0].retries = None;
        // Thirteen sixteenths of the budget are not the rows': so many times 64 KiB.
        assert!(refused(&config, 832).is_none());
        for (partitions, wanted_mib) in [(833, 65), (845, 65), (846, 66), (10_000, 770)] {
            let failure = refused(&config, partitions).unwrap();
            let told = failure.to_string();
            assert!(told.contains("memory.budget_mib is 64, too small"), "{told}");
            let topic = &config.jobs[0].topic.name;
            assert!(told.contains(&format!("{partitions} of them of {topic}")), "{told}");
            assert!(told.contains(&format!("at least {wanted_mib} is wanted")), "{told}");
            assert_eq!(code_of(&failure.into()), Exit::Usage);
        }
        for (mib, is_enough) in [(65, false), (66, true), (1_000, true)] {
            config.memory_bytes = mib * MIB;
            assert_eq!(refused(&config, 846).is_none(), is_enough, "{mib} MiB");
        }
        config.memory_bytes = 64 * MIB;
        // Each job reads by a consumer of its own.
        config.jobs.push(config.jobs[0].clone());
        assert!(refused(&config, 416).is_none() && refused(&config, 417).is_some());
    }

    #[test]
    fn each_job_that_reads_has_a_share_of_its_part() {
        let config = parsed(&format!("{LAKE}{HOUSE}"));
        let parts = memory(&config);
        let readers: usize = parts.keys().map(|part| sharers(&config.jobs, part)).sum();
        assert_eq!(readers, config.jobs.iter().flat_map(JobConfig::topics).count());
        for (part, budget) in &parts {
            let jobs = sharers(&config.jobs, part);
            assert!(jobs > 1, "{part}");
            let shares: Vec<Budget> = (0..jobs).map(|_| budget.share(jobs)).collect();
            let all = shares[0].take(part_bytes(&config));
            assert!(shares[0].is_spent(), "{part}");
            assert!(!shares[1..].iter().any(Budget::is_spent), "{part}: one holds up the others");
            drop(all);
        }
    }

    #[test]
    fn the_least_budget_that_may_be_given_is_enough_for_the_catalog_in_every_place() {
        let text = format!("{LAKE}memory.budget_mib = 16\n{HOUSE}[metrics]\n");
        refuse_too_small(&parsed(&text), &Partitions::new()).unwrap();
    }
}
