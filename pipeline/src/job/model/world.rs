//! What all processes share: the logs with everything that happens to them, and what the journal holds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aion_schemas::log::{Mark, Offset, Partition, Stream, Timestamp};
use aion_sinks::memory::Store;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::seen::Seen;
use crate::job::event_loop::Clock;

pub(super) const TOPIC: &str = "events";
pub(super) const PARTITIONS: i32 = 3;
pub(super) const SINKS: [&str; 2] = ["fast", "slow"];

/// What stands at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Row,
    Poison,
    Tombstone,
    /// A transaction marker, or what compaction took: an offset without a record.
    Hole,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) what: What,
    pub(super) epoch: i32,
    /// Tells the event from all others of the schedule.
    pub(super) uid: i64,
}

/// The log of one partition, with its past.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The first offset that is still there.
    pub(super) start: usize,
    pub(super) slots: Vec<Slot>,
    pub(super) epoch: i32,
    /// What truncation took, with its offset.
    pub(super) cut: Vec<(usize, Slot)>,
    /// Where it was cut.
    pub(super) cuts: Vec<usize>,
    /// By sink: retention passed here before the store had any mark.
    pub(super) excused: [usize; 2],
}

impl Log {
    pub(super) fn end(&self) -> usize {
        self.slots.len()
    }

    /// Where the part ends that was written up to this epoch, as brokers say it.
    fn end_of_epoch(&self, epoch: i32) -> usize {
        self.slots.partition_point(|slot| slot.epoch <= epoch)
    }

    /// Up to where the log is what was read below a mark, if it shows that it isn't all of it. As the client finds it:
    /// by the end of the mark's epoch, and behind a hole by a record between that end and the mark.
    pub(super) fn cut_below(&self, mark: Mark) -> Option<Offset> {
        let (position, epoch) = (mark.offset.get() as usize, mark.record_epoch()?);
        let agreed = self.end_of_epoch(epoch);
        if agreed >= position || self.epoch <= epoch {
            return None;
        }
        let mut below = self.slots.iter().take(position).skip(agreed.max(self.start));
        let is_told = !mark.is_behind_hole() || below.any(|slot| slot.what != What::Hole);
        is_told.then_some(Offset(agreed as i64))
    }
}

/// One life of the topic.
#[derive(Debug)]
pub(super) struct Incarnation {
    pub(super) id: Uuid,
    pub(super) logs: Vec<Log>,
}

/// An entry of the gap topic.
#[derive(Clone, Debug)]
pub(super) struct ToldGap {
    pub(super) partition: Partition,
    pub(super) first: i64,
    pub(super) next: i64,
    pub(super) diverged: bool,
    /// Whether it tells of a topic that was deleted.
    pub(super) deleted: bool,
    pub(super) sinks: Vec<String>,
    /// Whether each of the sinks had a mark when this was written.
    pub(super) had_marks: bool,
}

/// What the next call of the journal runs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum JournalFault {
    Refused,
    /// The first entry is there, the others are not.
    Torn,
    /// All entries are there; the answer says otherwise.
    Unacknowledged,
}

/// The logs and the journal.
#[derive(Debug, Default)]
pub(super) struct World {
    /// The last one is the present one.
    pub(super) incarnations: Vec<Incarnation>,
    /// Key and value of each dead letter.
    pub(super) letters: BTreeMap<String, i64>,
    /// How many were written, each as often as it was.
    pub(super) letters_written: usize,
    pub(super) gaps: Vec<ToldGap>,
    pub(super) journal_fault: Option<JournalFault>,
    /// How long the journal takes: so many turns of its job.
    pub(super) journal_turns: u32,
    /// Whether the next commit fails.
    pub(super) commit_fault: bool,
    /// What a sink was made to forget that nobody has and nobody can read again.
    pub(super) thrown_away: Vec<String>,
    /// What the group was told of, by partition: it knows a topic by its name.
    pub(super) group: BTreeMap<i32, Offset>,
    /// Commits above what some store had.
    pub(super) commits_ahead: Vec<String>,
    /// What processes ran into.
    pub(super) seen: Seen,
    next_uid: i64,
}

impl World {
    pub(super) fn topic_id(&self) -> Uuid {
        self.incarnations.last().map_or(Uuid::nil(), |incarnation| incarnation.id)
    }

    pub(super) fn stream(&self) -> Stream {
        Stream { topic: TOPIC.into(), id: self.topic_id() }
    }

    pub(super) fn log(&mut self, partition: i32) -> &mut Log {
        let incarnation = self.incarnations.last_mut().unwrap();
        &mut incarnation.logs[partition as usize]
    }

    pub(super) fn create_topic(&mut self) {
        let id = Uuid::from_u128(self.incarnations.len() as u128 + 1);
        let logs = (0..PARTITIONS).map(|_| Log::default()).collect();
        self.incarnations.push(Incarnation { id, logs });
    }

    pub(super) fn produce(&mut self, partition: i32, what: What) {
        self.next_uid += 1;
        let uid = self.next_uid;
        let log = self.log(partition);
        log.slots.push(Slot { what, epoch: log.epoch, uid });
    }

    /// Another leader takes over and nothing is lost; its epoch begins with what is produced next.
    pub(super) fn elect(&mut self, partition: i32) {
        self.log(partition).epoch += 1;
    }

    /// Whether the log still has what stood at the offset. Where it was cut nobody can say.
    pub(super) fn can_be_read(&self, partition: &Partition, offset: i64) -> bool {
        let id = partition.stream.id;
        let Some(of) = self.incarnations.iter().find(|one| one.id == id) else { return false };
        let log = &of.logs[partition.number as usize];
        !log.cut.is_empty() || (id == self.topic_id() && log.start as i64 <= offset)
    }

    /// An id that the topic had before this one.
    pub(super) fn id_before(&self, id: Uuid, back: usize) -> Option<Uuid> {
        let at = self.incarnations.iter().position(|one| one.id == id)?;
        Some(self.incarnations[at.checked_sub(back)?].id)
    }

    /// Retention takes all below `start`; a store that has never seen the partition isn't owed it.
    pub(super) fn retain(&mut self, partition: i32, start: usize, stores: &[Store]) {
        let key = Partition { stream: self.stream(), number: partition };
        let log = self.log(partition);
        log.start = start;
        for (excused, store) in log.excused.iter_mut().zip(stores) {
            if !store.marks().contains_key(&key) {
                *excused = start;
            }
        }
    }

    /// An unclean election: the log is cut at `end`, and goes on under a later epoch.
    pub(super) fn truncate(&mut self, partition: i32, end: usize) {
        let log = self.log(partition);
        log.cuts.push(end);
        let taken: Vec<Slot> = log.slots.drain(end..).collect();
        log.cut.extend((end..).zip(taken));
        log.epoch += 1;
    }

    /// The marks of stores in a partition of the present topic that lie behind a hole.
    pub(super) fn marks_behind_holes(&self, partition: i32, stores: &[Store]) -> Vec<usize> {
        let key = Partition { stream: self.stream(), number: partition };
        let marks = stores.iter().filter_map(|store| store.marks().get(&key).copied());
        let behind = marks.filter(|mark| mark.is_behind_hole());
        behind.map(|mark| mark.offset.get() as usize).collect()
    }
}

/// The world as it is shared.
pub(super) type Shared<T> = Arc<Mutex<T>>;

pub(super) fn share<T>(value: T) -> Shared<T> {
    Arc::new(Mutex::new(value))
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock that the schedule moves.
#[derive(Clone, Debug)]
pub(super) struct ModelClock {
    base: Instant,
    passed_ms: Arc<AtomicU64>,
}

impl ModelClock {
    pub(super) fn new() -> ModelClock {
        ModelClock { base: Instant::now(), passed_ms: Arc::default() }
    }

    pub(super) fn pass(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for ModelClock {
    fn now(&self) -> Instant {
        self.base + Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.passed_ms.load(Ordering::Relaxed) as i64)
    }

    /// What is bounded by it ends within a few turns here.
    fn until(&self, _: Instant) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}
