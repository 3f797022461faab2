//! How the memory budget is shared out: rows, queues of the client, and what a table may hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
    preflight::Partitions,
};

/// The sixteenths of the memory budget for decoded rows, and for the messages in librdkafka's queues.
/// The rest is for what nobody counts: librdkafka's own record of each message, which is as large as
/// a small message, files being encoded, the allocator's free pages, the code.
const ROWS_SIXTEENTHS: usize = 3;
const QUEUES_SIXTEENTHS: usize = 1;

/// Shares the bytes of the client's queues among all partitions. A queue may pass its bound by one
/// fetch, so that fetch is part of the share. A topic that could not be looked at counts as the
/// catalog has it.
pub(super) fn queue_limits(jobs: &[JobConfig], found: &Partitions, queues_bytes: usize) -> Limits {
    let of = |topic: &Arc<Topic>| {
        found.get(&topic.name).copied().unwrap_or(topic.partitions.max(1) as usize)
    };
    let partitions: usize = jobs.iter().flat_map(JobConfig::topics).map(of).sum();
    let share = (queues_bytes / partitions.max(1)).clamp(64 << 10, 16 << 20);
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

    use aion_schemas::catalog::Catalog;

    use super::*;
    use crate::config::{SinkKind, default_jobs};

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

    #[test]
    fn what_is_counted_takes_a_quarter_of_the_budget_and_never_passes_it() {
        let lake = "kafka.brokers = \"k:1\"\nlake.url = \"/tmp/lake\"\n";
        let house = "[clickhouse]\nurl = \"http://localhost:8123\"\n";
        for text in [lake.to_owned(), format!("{lake}{house}")] {
            let config = Config::parse(&text, std::iter::empty()).unwrap();
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
}
