//! Where a job's batches come from, as the loop sees it: events in, commands out.
//!
//! Two implementers: Kafka, and the scripted log of the model test. A source reads on its own, decodes,
//! and never waits for the job: what the job doesn't take in time is not fetched.
//!
//! **Invariant:** every reading of a partition has a number of its own, its *run*. Whatever was under way
//! from an earlier run is recognised by it and dropped, so a restart needs no handshake.

use std::{ops::Range, sync::Arc, time::Instant};

use aion_schemas::{
    decode::{Retry, SchemaId},
    log::{Mark, Offset, Partition, Stream, Timestamp},
};
use aion_sinks::batch::Batch;
use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::appeal::Decision;

/// Reads one topic for one job.
#[async_trait]
pub trait Source: Send {
    /// The next event, or `None` once `until` has come. Safe to drop while it waits.
    async fn next(&mut self, until: Instant) -> Option<Event>;

    /// Passes a command on; commands are obeyed in order.
    async fn command(&mut self, command: Command);

    /// Obeys the commands given so far, leaves the group and ends. Returns when that is done, or `until`
    /// has come; nothing is commanded afterwards.
    async fn leave(&mut self, until: Instant);

    /// When the source was last alive: it asked its cluster for news then.
    fn last_poll(&self) -> Option<Instant>;
}

/// What a source tells its job.
#[derive(Debug)]
pub enum Event {
    /// This process was given partitions of the topic, which has this id now.
    Assigned {
        /// The topic's present incarnation.
        stream: Stream,
        /// The partitions' numbers.
        partitions: Vec<i32>,
    },
    /// Partitions are about to go to another process; it waits until they are [`Command::Release`]d.
    Revoked(Vec<i32>),
    /// Partitions went to another process already.
    Lost(Vec<i32>),
    /// Answers [`Command::Locate`].
    Located(Located),
    /// Decoded records, contiguous with those before them in the same run.
    Chunk(Chunk),
    /// A look-up of the topic's id came back.
    Looked(Lookup),
    /// The log no longer has the offset that a run wants next.
    OutOfRange {
        /// The partition's number.
        partition: i32,
        /// The run that met it.
        run: u64,
    },
    /// The log was cut below what a run has read, and may have grown again with other records.
    Truncated {
        /// The partition's number.
        partition: i32,
        /// The run that met it.
        run: u64,
        /// Up to here the log is what it was.
        agreed: Offset,
    },
    /// A run waits at a record for its schema, or goes on.
    WaitsForSchema {
        /// The partition's number.
        partition: i32,
        /// The run that waits.
        run: u64,
        /// The schema's id; `None` when it goes on.
        id: Option<SchemaId>,
    },
    /// Answers [`Command::Consult`] where somebody has decided.
    Decided {
        /// The partition that was asked about.
        partition: Partition,
        /// What.
        decision: Decision,
    },
    /// A report of marks did not reach Kafka, for these partitions.
    CommitFailed(Vec<i32>),
    /// Something failed that the source itself tries again.
    Trouble(String),
    /// The source can't go on.
    Failed {
        /// What was being done and why it failed.
        cause: String,
        /// What to change.
        hint: String,
    },
    /// The process is asked to end: flush, commit and leave until then.
    Stop {
        /// When waiting ends.
        deadline: Instant,
    },
}

/// Which offsets a partition has.
#[derive(Clone, Debug)]
pub struct Located {
    /// The partition's number.
    pub partition: i32,
    /// The run that asked.
    pub run: u64,
    /// The topic's id, looked up *after* the bounds: they are those of this incarnation or an older one.
    pub topic_id: Option<Uuid>,
    /// The first offset that the log still has, and the one its next record will get.
    pub bounds: Range<Offset>,
}

/// The topic's id as a look-up found it.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    /// Everything polled with a number up to this was polled before the look-up started.
    pub after_poll: u64,
    /// The id; `None` when there is no such topic.
    pub topic_id: Option<Uuid>,
    /// How many partitions the topic has.
    pub partitions: usize,
}

/// A decoded range of one partition.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The run that read it.
    pub run: u64,
    /// Number of the last poll that went into it; polls count up over all partitions of the source.
    pub polled: u64,
    /// The rows. Its partition carries the stream that the run was started with.
    pub batch: Batch,
    /// Where a record's leader epoch differs from the one before it: the record's offset, its epoch.
    /// The first record has an entry always.
    pub epochs: Vec<(Offset, i32)>,
    /// How many records were read: rows, tombstones and rejected ones.
    pub records: u64,
    /// Records that can't become rows.
    pub rejected: Vec<Rejected>,
    /// How often fields were met that the contract doesn't have, by name; they are dropped.
    pub unknown_fields: Vec<(String, u64)>,
    /// The offset that the log's next record would have got at that time.
    pub high: Offset,
}

/// A record that can't become a row, with all that is needed to look into it and to try it again.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Where it stands.
    pub offset: Offset,
    /// When the log took it.
    pub append_time: Timestamp,
    /// Its key, untouched.
    pub key: Option<Bytes>,
    /// Its value, untouched.
    pub value: Option<Bytes>,
    /// Why, as a short word: `missing_field`.
    pub reason: &'static str,
    /// The field at fault, where it is one.
    pub field: Option<Arc<str>>,
    /// What exactly was wrong, for people; may be empty.
    pub detail: String,
    /// The id of the writer's schema, where the value is framed with one.
    pub schema_id: Option<u32>,
    /// What it is a retry of, where it is one.
    pub retry: Option<Retry>,
}

/// What a job tells its source. A run that isn't the partition's present one is ignored.
#[derive(Clone, Debug)]
pub enum Command {
    /// Look which offsets the partition has, until there is an answer, or another run or something else is
    /// wanted of it. Said again for the same run it is the same question.
    Locate {
        /// The partition's number.
        partition: i32,
        /// The run that asks.
        run: u64,
    },
    /// Read from a mark on, with nothing left of what was read before.
    Start {
        /// The partition; its stream goes into the batches.
        partition: Partition,
        /// The run that begins.
        run: u64,
        /// The first offset wanted, and the epoch before it: the log must still have both.
        at: Mark,
    },
    /// From the next start on, take the record at this offset for a rejected one: a sink refuses its row.
    Refuse {
        /// The partition.
        partition: Partition,
        /// The record's offset.
        offset: Offset,
        /// What the sink says of it.
        cause: String,
    },
    /// Stop reading; the partition stays owned.
    Halt(i32),
    /// Fetch no more until [`Command::Resume`].
    Pause(i32),
    /// Fetch again.
    Resume(i32),
    /// Look whether a person has decided about a partition that stopped.
    Consult {
        /// The partition.
        partition: Partition,
        /// The key of decisions about it.
        key: String,
    },
    /// Look up the topic's id as soon as possible: batches wait for it.
    Look,
    /// Report marks to Kafka, where tools show them as the group's offsets.
    Commit {
        /// Partition, offset, metadata.
        marks: Vec<(i32, Offset, String)>,
        /// Whether the commands behind this one wait for the answer: partitions are leaving.
        wait: bool,
    },
    /// The job is done with these partitions: they may go to others.
    Release(Vec<i32>),
}
