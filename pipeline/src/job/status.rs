//! What a job tells the outside about itself: one snapshot, made anew at each tick, cheap to read.
//!
//! Readers (HTTP, metrics, the status line) clone an `Arc`; they never wait for the job, nor it for them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::{
    decode::SchemaId,
    log::{Offset, Stream, Timestamp},
};
use tokio::sync::watch;

/// A job at one moment.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// The job's name.
    pub job: Arc<str>,
    /// The topic it reads.
    pub topic: Arc<str>,
    /// The topic's present incarnation, once known.
    pub stream: Option<Stream>,
    /// How it is doing as a whole.
    pub state: JobState,
    /// Its partitions in this process, by number.
    pub partitions: Vec<PartitionStatus>,
    /// Bytes of rows read and not yet taken by every sink; what sinks hold is in the process's budget.
    pub buffered_bytes: usize,
    /// Rows that became durable, summed over the sinks, since the job started.
    pub rows_stored: u64,
    /// Records rejected since the job started; a record read again counts again.
    pub rejected: u64,
    /// How often fields were met that the contract doesn't have, by name, since the job started. After
    /// the first 64 names the others are counted as `other`.
    pub unknown_fields: Arc<BTreeMap<String, u64>>,
    /// Gaps written down since the job started, without what `lost` of partitions has: that is written at each assignment.
    pub gaps: u64,
    /// How often partitions were given or taken.
    pub rebalances: u64,
    /// When the source was last alive.
    pub last_poll: Option<Instant>,
    /// The last failure that is being tried again, in words; `None` when all goes well.
    pub trouble: Option<String>,
}

#[cfg(test)]
impl JobStatus {
    /// One that has something of everything.
    pub(crate) fn sample() -> JobStatus {
        let partition = PartitionStatus {
            partition: 0,
            state: PartitionState::Reading,
            position: Some(Offset(1)),
            high: Some(Offset(2)),
            marks: Vec::new(),
            lag: Some(1),
            newest: Some(Timestamp(1)),
            assigned_at: Instant::now(),
            committed_at: Some(Instant::now()),
            wanted_schema: None,
            lost: Some(0),
        };
        JobStatus {
            partitions: vec![partition],
            unknown_fields: Arc::new(BTreeMap::from([("field".to_owned(), 1)])),
            last_poll: Some(Instant::now()),
            ..JobStatus::starting("job".into(), "topic".into())
        }
    }
}

/// How a job is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Waits for partitions.
    Starting,
    /// Has partitions.
    Running,
    /// Ended as asked, with everything durable that it could finish in time.
    Ended,
    /// Stopped, with the reason and what to change: a person has to act.
    Failed(String),
}

/// One partition of a job.
#[derive(Clone, Debug)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// What it is doing.
    pub state: PartitionState,
    /// The next offset to be handed to the sinks; `None` until it is known.
    pub position: Option<Offset>,
    /// The offset that the log's next record gets, as last seen.
    pub high: Option<Offset>,
    /// For each sink, its name and its durable mark.
    pub marks: Vec<(&'static str, Option<Offset>)>,
    /// Records that are not durable in every sink, as far as known.
    pub lag: Option<i64>,
    /// The append time of the newest row that is durable in every sink, of those stored since the
    /// partition was assigned.
    pub newest: Option<Timestamp>,
    /// When this process was given it.
    pub assigned_at: Instant,
    /// When the marks were last told to the group.
    pub committed_at: Option<Instant>,
    /// The id of the schema that its next record waits for.
    pub wanted_schema: Option<SchemaId>,
    /// So many offsets sinks had and have no more, summed over them, as they said when it was assigned; `None` until then.
    pub lost: Option<i64>,
}

/// What a partition is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionState {
    /// Marks and bounds are being looked up.
    Starting,
    /// Rows flow.
    Reading,
    /// It waits, with the reason: it goes on by itself.
    Paused(&'static str),
    /// It stopped, with the reason: a person has to act. The other partitions go on.
    Stopped(String),
}

impl JobStatus {
    /// A job that has not begun.
    pub(super) fn starting(job: Arc<str>, topic: Arc<str>) -> JobStatus {
        JobStatus {
            job,
            topic,
            stream: None,
            state: JobState::Starting,
            partitions: Vec::new(),
            buffered_bytes: 0,
            rows_stored: 0,
            rejected: 0,
            unknown_fields: Arc::default(),
            gaps: 0,
            rebalances: 0,
            last_poll: None,
            trouble: None,
        }
    }

    /// Whether nothing needs a person: the job did not fail, and none of its partitions stopped.
    pub fn is_well(&self) -> bool {
        !matches!(self.state, JobState::Failed(_)) && self.stopped().next().is_none()
    }

    /// The partitions that stopped, with the reason.
    pub fn stopped(&self) -> impl Iterator<Item = (i32, &str)> {
        self.partitions.iter().filter_map(|partition| match &partition.state {
            PartitionState::Stopped(why) => Some((partition.partition, why.as_str())),
            _ => None,
        })
    }

    /// Whether the source was heard of within `limit` before `now`.
    pub fn is_polling(&self, now: Instant, limit: Duration) -> bool {
        self.last_poll.is_some_and(|at| now.saturating_duration_since(at) <= limit)
    }

    /// Records not durable in every sink, over all partitions whose lag is known.
    pub fn lag(&self) -> i64 {
        self.partitions.iter().filter_map(|partition| partition.lag).sum()
    }
}

/// The reading end of a job's status; clones see the same job.
#[derive(Clone, Debug)]
pub struct StatusReader {
    receiver: watch::Receiver<Arc<JobStatus>>,
}

impl StatusReader {
    /// The newest snapshot.
    pub fn now(&self) -> Arc<JobStatus> {
        Arc::clone(&self.receiver.borrow())
    }

    /// Waits for a snapshot of which `holds` is true; `None` when the job ended before that.
    pub async fn wait_for(
        &mut self,
        mut holds: impl FnMut(&JobStatus) -> bool,
    ) -> Option<Arc<JobStatus>> {
        self.receiver.wait_for(|status| holds(status)).await.ok().map(|status| Arc::clone(&status))
    }
}

/// The writing end, held by the job.
#[derive(Debug)]
pub(super) struct Reporter {
    sender: watch::Sender<Arc<JobStatus>>,
}

impl Reporter {
    /// Both ends, with a first snapshot.
    pub(super) fn new(first: JobStatus) -> (Reporter, StatusReader) {
        let (sender, receiver) = watch::channel(Arc::new(first));
        (Reporter { sender }, StatusReader { receiver })
    }

    /// Puts a new snapshot in the place of the old one.
    pub(super) fn publish(&self, status: JobStatus) {
        self.sender.send_replace(Arc::new(status));
    }
}
