//! The process's own numbers, read from the jobs' status at each scrape; nothing is counted twice. And those of the
//! platform, as they are checkpointed.

mod host;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aion_schemas::log::Timestamp;
use aion_sinks::{budget::Budget, prometheus::board::Board};
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramVec, IntCounterVec, Opts, TextEncoder, core::Collector,
    proto::MetricFamily,
};

pub use self::host::Host;
use crate::{
    audit::{Audits, Counts, Last, Verdict},
    config::JobConfig,
    health::Health,
    inbound,
    job::status::{JobState, JobStatus, PartitionState, PartitionStatus},
    webhooks,
};

/// What `/metrics` shows. There is no registry: the families are made anew from the jobs' status at
/// each scrape, by crate `prometheus`, which knows the text format.
#[derive(Debug)]
pub struct Metrics {
    health: Arc<Health>,
    memory: BTreeMap<&'static str, Budget>,
    audits: Option<Audits>,
    freshness: HistogramVec,
    host: Host,
    jobs: Vec<JobConfig>,
    platform: Board,
    stale_after: Duration,
}

impl Metrics {
    /// Shows these jobs, the parts of the memory for rows, the last audit of this process where it makes any, and how
    /// soon rows can be seen.
    pub fn new(
        health: Arc<Health>,
        memory: BTreeMap<&'static str, Budget>,
        audits: Option<Audits>,
        freshness: HistogramVec,
    ) -> Metrics {
        let (platform, stale_after) = (Board::default(), Duration::MAX);
        let (host, jobs) = (Host::default(), Vec::new());
        Metrics { health, memory, audits, freshness, host, jobs, platform, stale_after }
    }

    /// Shows these series of the platform too; levels that nobody has reported for so long are left out.
    #[must_use]
    pub fn with_platform(self, platform: Board, stale_after: Duration) -> Metrics {
        Metrics { platform, stale_after, ..self }
    }

    /// Tells of this machine's disks and of certificates too.
    #[must_use]
    pub fn with_host(self, host: Host) -> Metrics {
        Metrics { host, ..self }
    }

    /// Tells what is asked of the sinks of these jobs too.
    #[must_use]
    pub fn with_guarantees(self, jobs: Vec<JobConfig>) -> Metrics {
        Metrics { jobs, ..self }
    }

    /// What the platform's events add up to.
    pub fn platform(&self) -> String {
        self.platform.page(Timestamp((unix_now() * 1e6) as i64), self.stale_after)
    }

    /// The text exposition format, version 0.0.4.
    pub fn encode(&self) -> prometheus::Result<String> {
        let jobs: Vec<Arc<JobStatus>> = self.health.jobs().collect();
        let last = self.audits.as_ref().and_then(Audits::last);
        let webhooks = self.health.webhooks();
        let mut families = self.freshness.collect();
        families.extend(audits_configured(self.audits.is_some())?);
        families.extend(guarantees(&self.jobs)?);
        let of_webhooks = webhooks.iter().flat_map(|status| status.certificates.iter());
        families.extend(self.host.families(of_webhooks)?);
        if let Some(gateway) = self.health.commands() {
            families.extend(inbound::metrics::families(gateway.counters(), &gateway.state())?);
        }
        text(&jobs, &self.memory, families, (last.as_ref(), webhooks.as_ref()))
    }
}

fn text(
    jobs: &[Arc<JobStatus>],
    memory: &BTreeMap<&'static str, Budget>,
    more: Vec<MetricFamily>,
    (last, webhooks): (Option<&Last>, Option<&webhooks::status::Status>),
) -> prometheus::Result<String> {
    let mut families = job_families(jobs)?;
    families.extend(unknown_fields(jobs)?);
    families.extend(process_families(memory)?);
    families.extend(more);
    families.extend(last.map(audit_families).transpose()?.into_iter().flatten());
    families.extend(webhooks.map(webhooks::families).transpose()?.into_iter().flatten());
    // A family without series is refused by the encoder.
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A counter of a job: name, help, value.
type JobCounter = (&'static str, &'static str, fn(&JobStatus) -> u64);

const JOB_COUNTERS: [JobCounter; 4] = [
    ("aion_rows_stored_total", "Rows that became durable, summed over the sinks.", |job| {
        job.rows_stored
    }),
    ("aion_records_rejected_total", "Records that went to the dead letters.", |job| job.rejected),
    ("aion_gaps_total", "Stretches of the log that were lost and recorded.", |job| job.gaps),
    ("aion_rebalances_total", "Times that partitions were given or taken.", |job| job.rebalances),
];

/// A gauge of a job: name, help, value.
type JobGauge = (&'static str, &'static str, fn(&JobStatus) -> Option<f64>);

const JOB_GAUGES: [JobGauge; 4] = [
    ("aion_job_up", "1 while the job works, 0 when a person has to act.", |job| {
        let failed = matches!(job.state, JobState::Failed(_) | JobState::Ended) || !job.is_well();
        Some(if failed { 0.0 } else { 1.0 })
    }),
    ("aion_job_trouble", "1 while something fails that is tried again.", |job| {
        Some(f64::from(u8::from(job.trouble.is_some())))
    }),
    ("aion_job_buffered_bytes", "Bytes of rows read and not yet taken by every sink.", |job| {
        Some(job.buffered_bytes as f64)
    }),
    ("aion_job_poll_age_seconds", "Seconds since the source was last alive.", |job| {
        job.last_poll.map(|at| Instant::now().saturating_duration_since(at).as_secs_f64())
    }),
];

/// A gauge of a partition: name, help, value.
type PartitionGauge = (&'static str, &'static str, fn(&PartitionStatus) -> Option<f64>);

const PARTITION_GAUGES: [PartitionGauge; 9] = [
    ("aion_partition_lag_messages", "Records not yet durable in every sink.", |partition| {
        partition.lag.map(|lag| lag as f64)
    }),
    (
        "aion_partition_lag_seconds",
        "Age of the newest row that every sink has, while records wait behind it, 0 when none do; as long as a sink has \
         stored no row since the partition was assigned, the time since then, or since the marks moved last.",
        |partition| match partition.lag? {
            0 => Some(0.0),
            _ => Some(behind_s(partition)),
        },
    ),
    (
        "aion_partition_stored_timestamp_seconds",
        "Append time of the newest row that is durable in every sink.",
        |partition| partition.newest.map(seconds),
    ),
    (
        "aion_partition_commit_age_seconds",
        "Seconds since the marks were last told to the consumer group.",
        |partition| {
            let age = |at| Instant::now().saturating_duration_since(at).as_secs_f64();
            partition.committed_at.map(age)
        },
    ),
    ("aion_partition_position", "The next offset to be handed to the sinks.", |partition| {
        partition.position.map(|offset| offset.get() as f64)
    }),
    ("aion_partition_end", "The offset that the log's next record gets.", |partition| {
        partition.high.map(|offset| offset.get() as f64)
    }),
    (
        "aion_partition_waits_for_schema",
        "1 while the next record waits for a schema that the registry doesn't give.",
        |partition| Some(f64::from(u8::from(partition.wanted_schema.is_some()))),
    ),
    (
        "aion_partition_sink_lost_offsets",
        "Offsets that sinks had and have no more, summed over the sinks, as found when the partition was assigned.",
        |partition| partition.lost.map(|offsets| offsets as f64),
    ),
    ("aion_partition_stopped", "1 when the partition waits for a person.", |partition| {
        Some(f64::from(u8::from(matches!(partition.state, PartitionState::Stopped(_)))))
    }),
];

fn seconds(time: Timestamp) -> f64 {
    time.0 as f64 / 1e6
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Fields that producers send and the contract doesn't have.
fn unknown_fields(jobs: &[Arc<JobStatus>]) -> prometheus::Result<Vec<MetricFamily>> {
    let help = "Fields met that the contract doesn't have: they were dropped. After the first 64 names: other.";
    let opts = Opts::new("aion_unknown_fields_total", help);
    let family = IntCounterVec::new(opts, &["job", "topic", "field"])?;
    for job in jobs {
        for (field, count) in &*job.unknown_fields {
            family.with_label_values(&[&*job.job, &*job.topic, field]).inc_by(*count);
        }
    }
    Ok(family.collect())
}

fn job_families(jobs: &[Arc<JobStatus>]) -> prometheus::Result<Vec<MetricFamily>> {
    let mut all = Vec::new();
    for (name, help, value) in JOB_COUNTERS {
        let family = IntCounterVec::new(Opts::new(name, help), &["job", "topic"])?;
        for job in jobs {
            family.with_label_values(&[&*job.job, &*job.topic]).inc_by(value(job));
        }
        all.extend(family.collect());
    }
    for (name, help, value) in JOB_GAUGES {
        let family = GaugeVec::new(Opts::new(name, help), &["job", "topic"])?;
        for job in jobs {
            if let Some(value) = value(job) {
                family.with_label_values(&[&*job.job, &*job.topic]).set(value);
            }
        }
        all.extend(family.collect());
    }
    for (name, help, value) in PARTITION_GAUGES {
        let family = GaugeVec::new(Opts::new(name, help), &["job", "topic", "partition"])?;
        for job in jobs {
            for partition in &job.partitions {
                let number = partition.partition.to_string();
                if let Some(value) = value(partition) {
                    family.with_label_values(&[&*job.job, &*job.topic, &number]).set(value);
                }
            }
        }
        all.extend(family.collect());
    }
    Ok(all)
}

/// What is asked of each sink. None gives less: its job would have stopped.
fn guarantees(jobs: &[JobConfig]) -> prometheus::Result<Vec<MetricFamily>> {
    let help = "1, with the guarantee that is asked of a job's sink; a sink that can't give it stops the job.";
    let opts = Opts::new("aion_job_guarantee", help);
    let family = GaugeVec::new(opts, &["job", "topic", "sink", "guarantee"])?;
    for job in jobs {
        for sink in &job.sinks {
            let guarantee = job.guarantee_in(*sink).words().replace(' ', "_");
            for topic in job.topics() {
                let labels = [&*job.name, &*topic.name, sink.name(), &*guarantee];
                family.with_label_values(&labels).set(1.0);
            }
        }
    }
    Ok(family.collect())
}

fn process_families(
    memory: &BTreeMap<&'static str, Budget>,
) -> prometheus::Result<Vec<MetricFamily>> {
    let opts = Opts::new("aion_build_info", "1, with the version of this program.");
    let info = GaugeVec::new(opts, &["version"])?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    let help =
        "Bytes that decoded rows hold: those of jobs that write to ClickHouse, and of the others.";
    let bytes = GaugeVec::new(Opts::new("aion_memory_held_bytes", help), &["part"])?;
    let help = "The bound on those bytes: jobs of one part wait at seven eighths of theirs; of the \
        last one each has a share of its own.";
    let limit = GaugeVec::new(Opts::new("aion_memory_budget_bytes", help), &["part"])?;
    for (part, budget) in memory {
        bytes.with_label_values(&[*part]).set(budget.held() as f64);
        limit.with_label_values(&[*part]).set(budget.limit() as f64);
    }
    Ok([info.collect(), bytes.collect(), limit.collect()].concat())
}

/// How long records have waited for a sink, as far as it can be told.
fn behind_s(partition: &PartitionStatus) -> f64 {
    if let Some(newest) = partition.newest {
        return (unix_now() - seconds(newest)).max(0.0);
    }
    // Marks move without rows too: what was told to the group since is stored, or was nothing to store.
    let moved = partition.committed_at.unwrap_or(partition.assigned_at);
    moved.max(partition.assigned_at).elapsed().as_secs_f64()
}

/// Offsets that an audit counts: outcome, value.
type AuditCount = (&'static str, fn(&Counts) -> u64);

const AUDIT_COUNTS: [AuditCount; 6] = [
    ("exact", |counts| counts.exact),
    ("missing", |counts| counts.missing),
    ("duplicate", |counts| counts.duplicate),
    ("unfounded", |counts| counts.unfounded),
    ("unprovable", |counts| counts.unprovable),
    ("pending", |counts| counts.pending),
];

/// Whether audits are to come at all: there is nothing of them before the first has ended.
fn audits_configured(is_so: bool) -> prometheus::Result<Vec<MetricFamily>> {
    let help = "1 where the configuration has this process audit at intervals, else 0.";
    let configured = Gauge::new("aion_audit_configured", help)?;
    configured.set(f64::from(u8::from(is_so)));
    Ok(configured.collect())
}

/// What the last audit found; there are none before the first.
fn audit_families(last: &Last) -> prometheus::Result<Vec<MetricFamily>> {
    let run = Gauge::new("aion_audit_last_run_timestamp_seconds", "When the last audit ended.")?;
    run.set(seconds(last.at));
    let up = Gauge::new("aion_audit_up", "1 when the last audit could be carried out.")?;
    up.set(f64::from(u8::from(last.succeeded)));
    let mut all = [run.collect(), up.collect()].concat();
    let Some(report) = &last.report else { return Ok(all) };
    let took = Gauge::new("aion_audit_duration_seconds", "How long the last whole audit took.")?;
    took.set(report.seconds);
    let help = "Offsets by what the last whole audit found.";
    let offsets =
        GaugeVec::new(Opts::new("aion_audit_offsets", help), &["topic", "sink", "outcome"])?;
    let help = "1 for the verdict of the last whole audit, 0 for the others.";
    let labels = &["topic", "sink", "verdict"];
    let verdicts = GaugeVec::new(Opts::new("aion_audit_verdict", help), labels)?;
    let help = "Offsets of which two stores say different things.";
    let differing = Gauge::new("aion_audit_differing_offsets", help)?;
    differing.set(report.differing() as f64);
    for topic in &report.topics {
        let counts = topic.counts();
        for (outcome, value) in AUDIT_COUNTS {
            offsets
                .with_label_values(&[&*topic.topic, topic.sink, outcome])
                .set(value(&counts) as f64);
        }
        for verdict in Verdict::ALL {
            let is_it = f64::from(u8::from(topic.verdict == verdict));
            verdicts.with_label_values(&[&*topic.topic, topic.sink, verdict.word()]).set(is_it);
        }
    }
    all.extend(
        [took.collect(), offsets.collect(), verdicts.collect(), differing.collect()].concat(),
    );
    Ok(all)
}

#[cfg(test)]
mod tests;
