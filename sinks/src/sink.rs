//! The contract of a sink: what the job loop calls, in what order, and what must then be true.
//!
//! One instance serves one job, over all partitions that this process owns. The job owns the clock and
//! calls from one task, so an implementation needs no locks.
//!
//! **Invariant:** the sink's own store is the truth about what is durable. A mark is written in the same
//! atomic step as the rows below it; nothing else (Kafka's committed offset, a local file) is believed.
//! **Invariant:** nobody else's rows can be overwritten or doubled by a sink that slept: a flush that
//! finds a partition's mark moved by another writer drops its own rows of that partition.

use std::{ops::Range, time::Instant};

use aion_schemas::log::{Mark, Marks, Offset, Partition};
use async_trait::async_trait;

use crate::batch::Batch;

/// A place where rows become durable exactly once per offset.
#[async_trait]
pub trait Sink: Send {
    /// A short name for logs and metrics: `lake`, `clickhouse`.
    fn name(&self) -> &'static str;

    /// Names the store itself, the same in every process that writes there and in no other store:
    /// processes that share a store share the work, and those that don't mustn't.
    fn store_id(&self) -> String;

    /// Called when partitions were given to this process, and again after they were
    /// [`Flushed::moved`] or failed. Forgets what was buffered for them, looks into the own store and
    /// returns the mark of each: the first offset still wanted. A partition that the store has never
    /// seen is missing from the answer.
    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError>;

    /// Called for partitions that nobody reads any more, since their topic is gone: forgets them, and returns their marks as
    /// [`assign`](Sink::assign) does. Not to be called for those that are being read. At a stop it may be
    /// dropped while it waits.
    async fn marks_of(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        let marks = self.assign(partitions).await;
        drop(self.take_lost()); // nobody can fill it any more, and it was told before
        self.revoke(partitions);
        marks
    }

    /// Called with each look-up of the topic, so before the batches that wait for it: how many partitions it has, also
    /// those of other processes, which write into the same store.
    fn topic_has(&mut self, _partitions: usize) {}

    /// Called after [`assign`](Sink::assign) and before the first write, once it is known how far the log goes
    /// as it was: up to `end`. What was ever handed over at or above that isn't in the log any more.
    fn log_ends(&mut self, _partition: &Partition, _end: Offset) {}

    /// Takes what the last [`assign`](Sink::assign) found that the store once had, has no more, and won't be given
    /// again by itself.
    fn take_lost(&mut self) -> Vec<(Partition, Range<Offset>)> {
        Vec::new()
    }

    /// What the last [`assign`](Sink::assign) found stored beyond the partition's mark, in order: a sink that fills breaks
    /// begins at the first of them. What lies between the mark and the last of these was stored once.
    fn stored_ahead(&self, _: &Partition) -> Vec<Range<Offset>> {
        Vec::new()
    }

    /// Where what [`stored_ahead`](Sink::stored_ahead) tells ends, with the leader epoch of the last record that is stored
    /// there. A log that was cut behind the partition's mark, and has grown past this again, shows by nothing else: its
    /// records would be left out as stored. `None` where nothing is stored beyond the mark.
    fn last_ahead(&self, _: &Partition) -> Option<Mark> {
        None
    }

    /// Takes a batch that starts at this sink's next wanted offset of its partition, or hands it back
    /// when its buffers are full; the job then pauses the partition and tries again after a flush.
    /// Never waits for the outside. A batch without rows moves the mark only.
    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError>;

    /// Moves rows towards being durable, and says what became durable since the last call.
    /// [`Flush::Due`] starts what is due by size or age at `now`, and returns without waiting;
    /// [`Flush::Now`] writes everything and waits until it is durable, to the deadline at most: what
    /// is not durable by then is left to the next owner, who starts from the store's marks.
    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError>;

    /// Drops the buffers of partitions that this process no longer owns. A flush of theirs that is
    /// already under way may still land; the store's marks make that harmless.
    fn revoke(&mut self, partitions: &[Partition]);
}

/// What became of a written batch.
#[derive(Debug)]
pub enum Accepted {
    /// The sink has it.
    Taken,
    /// No room: here it is back.
    Busy(Batch),
}

/// Why a flush was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// The job's regular tick.
    Due,
    /// Partitions are about to leave, or the process is.
    Now {
        /// When waiting ends.
        deadline: Instant,
    },
}

/// What a flush brought.
#[derive(Debug, Default)]
pub struct Flushed {
    /// The new marks of partitions where something became durable.
    pub marks: Marks,
    /// Partitions whose mark another writer moved: their rows were dropped, they want
    /// [`Sink::assign`] anew. Expected after a pause of this process, never an error.
    pub moved: Vec<Partition>,
    /// Rows that the store itself refuses, whatever is tried. Nothing from there on was stored: their partitions
    /// want [`Sink::assign`] anew, and are to be read again without them.
    pub refused: Vec<Refused>,
}

/// A row that a store refuses for what it holds, or that waits for what others have to store first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// Where it stands.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// What the store says of it, or what it waits for, and never a value of it: it is logged.
    pub cause: String,
}

/// Why a sink could not go on, by who can act.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The outside failed in a way that passes: the job calls again after a back-off.
    #[error("{doing}: {cause}")]
    Retry {
        /// What was being done, to which object.
        doing: String,
        /// Why it failed.
        cause: String,
    },
    /// Rows wait for what others have to store first, and what is behind them waits with them. The job calls again after a
    /// back-off; where nothing comes for long, it has their records read again as rejected ones.
    #[error("{doing}: {cause}")]
    Waits {
        /// What was being done, to which object.
        doing: String,
        /// What is waited for.
        cause: String,
        /// The rows. What each waits for, and how far that is, is said in the same words until something comes.
        rows: Vec<Refused>,
    },
    /// The guarantee can't be given: the job stops and the operator has to act.
    #[error("{doing}: {cause}; {hint}")]
    Fatal {
        /// What was being done, to which object.
        doing: String,
        /// Why it failed.
        cause: String,
        /// What to change.
        hint: String,
    },
}

impl SinkError {
    /// Whether the same call may go well later, without a person.
    pub fn passes(&self) -> bool {
        !matches!(self, SinkError::Fatal { .. })
    }
}
