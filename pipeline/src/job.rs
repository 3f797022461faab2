//! The job: one topic, read once, written to one or more sinks, exactly once per offset.
//!
//! ```text
//! poll -> decode -> gate -> dead letters acknowledged -> every sink -> flush -> Kafka commit
//! '---- source ---'  '----------------------- event_loop ------------------------------'
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`source`] | where batches come from, as the loop sees it |
//! | `event_loop` | the loop: events, time, status |
//! | `assign` | from given to read: marks, bounds, gaps; and back |
//! | `bounds` | what a log's bounds mean for what sinks have |
//! | `advance` | from read to written |
//! | `durable` | from written to committed |
//! | `troubles` | what fails and is tried again |
//! | `stop` | the end, as asked |
//! | `reader`, `marks` | one partition; one sink's progress in it |
//! | `kafka` | the source and the journal at a cluster |
//! | `gate` | is the topic still the one that was read? |
//! | [`retries`] | dead letters that are sent again |
//! | [`journal`], `recorder`, [`gaps`], [`dead_letters`] | what could not be stored is written down |
//! | `recreated` | the topic is gone, and another has its name |
//! | `departed` | the group took partitions away, maybe with their topic |
//! | [`schemas`] | which schemas framed records were written with |
//! | `reject_share`, [`appeal`], `backoff`, `waits` | when to stop, who lets it go on, when to try again, and for how long |
//! | [`status`] | what the outside sees |
//!
//! **Invariant:** a sink's own store is the truth about what is durable; a start asks the stores, never
//! Kafka's committed offset, which is a report.
//! **Invariant:** when anything fails for good, nothing is cleaned up that a crash would not leave: the
//! way to go on is the same after both.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use aion_kafka::{Connection, Limits};
use aion_schemas::{catalog::Topic, log::Timestamp};
use aion_sinks::{
    budget::Budget,
    sink::{Sink, SinkError},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::{
    event_loop::{Clock, Job, Plan},
    kafka::{KafkaSource, Opening, journal::KafkaJournal, rows},
    rules::Rules,
    schemas::Registry,
    status::StatusReader,
};

mod advance;
pub mod appeal;
mod assign;
mod backoff;
mod bounds;
pub mod dead_letters;
mod departed;
mod durable;
mod event_loop;
pub mod gaps;
mod gate;
pub mod journal;
mod kafka;
mod marks;
#[cfg(test)]
mod model;
mod reader;
mod recorder;
mod recreated;
mod reject_share;
pub mod retries;
mod rules;
pub mod schemas;
pub mod source;
pub mod status;
mod stop;
pub(crate) mod times;
mod troubles;
mod waits;

/// What a job reads, and how.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Its name; the consumer group is `aion-<name>-<8 hex digits>`, see [`JobSpec::group`].
    pub name: String,
    /// The topic, from the catalog, or its topic of retries: that is read under the same name, by a
    /// reader and a group of its own, so that neither waits for the other.
    pub topic: Arc<Topic>,
    /// Where the schemas of framed payloads are looked up; without it, such payloads are rejected.
    pub registry: Option<Registry>,
    /// Above this share of rejected records, of the last 1,000 at least, a partition stops; 1 allows all.
    pub max_reject_share: f64,
    /// How long a stop may take: flush, commit, leave.
    pub stop_within: Duration,
    /// What the Kafka client may hold of each partition before it is decoded.
    pub limits: Limits,
}

impl JobSpec {
    /// The consumer group: of the job and of the stores that it writes to. Processes that write to other
    /// stores share no partitions with it, or each store would lack what the other one has.
    pub fn group(&self, sinks: &[Box<dyn Sink>]) -> String {
        let mut stores: Vec<String> = sinks.iter().map(|sink| sink.store_id()).collect();
        stores.sort_unstable();
        let retries = if self.topic.is_retries() { "-retries" } else { "" };
        let stores = crc32c::crc32c(stores.join(",").as_bytes());
        format!("aion-{}{retries}-{stores:08x}", self.name)
    }
}

/// A running job.
#[derive(Debug)]
pub struct JobHandle {
    /// The consumer group that it is a member of.
    pub group: String,
    /// What it is doing.
    pub status: StatusReader,
    /// Ends when the job does: as asked by the token, or because a person has to act.
    pub done: JoinHandle<Result<(), JobError>>,
}

/// How long a flush may hold up a rebalance: well below the time that the group waits for a member.
const REVOKE_FLUSH: Duration = Duration::from_secs(20);
/// How long a row waits in vain for what others have to store first: what is behind it waits as long.
const WAIT_AT_MOST: Duration = Duration::from_mins(10);

/// Starts a job. It ends when `shutdown` is cancelled, with everything durable that could be made so in
/// time, or when something failed for good; other jobs of the process are not touched by that.
///
/// Must be called within a tokio runtime. Brokers may be down: the job waits for them and says so.
pub fn run(
    spec: JobSpec,
    connection: &Connection,
    sinks: Vec<Box<dyn Sink>>,
    budget: Budget,
    shutdown: CancellationToken,
) -> Result<JobHandle, JobError> {
    let job: Arc<str> = spec.name.as_str().into();
    let group = spec.group(&sinks);
    let opening = Opening {
        connection,
        group: &group,
        topic: &spec.topic,
        rows: rows::maker(&spec.name, &spec.topic),
        registry: spec.registry,
        budget: budget.clone(),
        shutdown,
        stop_within: spec.stop_within,
        limits: spec.limits,
    };
    let source = KafkaSource::open(opening).map_err(|cause| JobError::Source {
        job: Arc::clone(&job),
        cause,
        hint: "look at the connection's settings".to_owned(),
    })?;
    let journal = KafkaJournal::new(connection, &spec.name);
    let plan = Plan {
        job,
        topic: Arc::clone(&spec.topic.name),
        columns: spec.topic.schema.arrow(),
        compacted: spec.topic.compacted,
        max_reject_share: spec.max_reject_share,
        revoke_flush: REVOKE_FLUSH.min(spec.stop_within),
        wait_at_most: WAIT_AT_MOST,
        rules: Rules::default(),
    };
    let (job, status) = Job::new(plan, source, journal, sinks, (Box::new(SystemClock), budget));
    Ok(JobHandle { group, status, done: tokio::spawn(job.run()) })
}

/// The machine's clocks.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp(since.map_or(0, |since| since.as_micros() as i64))
    }
}

/// Why a job ended otherwise than it should; a person has to act, [`JobError::Unwritten`] apart.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A sink can't give its guarantee.
    #[error("job {job}: {sink}: {source}")]
    Sink {
        /// The job's name.
        job: Arc<str>,
        /// The sink's name.
        sink: &'static str,
        /// What the sink said, with a hint.
        source: SinkError,
    },
    /// The topic can't be read.
    #[error("job {job}: {cause}; {hint}")]
    Source {
        /// The job's name.
        job: Arc<str>,
        /// What was being done and why it failed.
        cause: String,
        /// What to change.
        hint: String,
    },
    /// It was asked to stop, and not all that sinks had taken became durable in time. Nothing is lost:
    /// the next start reads it again. Or it could not be written down in time what was lost with a topic.
    #[error("job {job}: stopped with {what}")]
    Unwritten {
        /// The job's name.
        job: Arc<str>,
        /// Sinks, partitions and offsets, and what becomes of them.
        what: String,
    },
    /// It broke, by a fault of the program.
    #[error("job {job}: broke: {cause}; this is a fault of the program, please report it")]
    Broke {
        /// The job's name.
        job: Arc<str>,
        /// Its last words.
        cause: String,
    },
}

#[cfg(test)]
mod tests;
