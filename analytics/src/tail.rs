//! The tail: rows that this process's jobs have decoded and handed to the lake's sinks, and that are not
//! committed yet.
//!
//! A [`Tailed`] sink keeps a clone of each batch that its sink took, until it is durable or this process gives its
//! partition up. Clones share the batches' columns and their share of the byte budget.
//!
//! | step | order | why |
//! |---|---|---|
//! | writing | the sink takes the batch, the tail has it, the entry lands, the tail drops it | a row is always in one of the two, sometimes in both |
//! | starting over | the tail keeps what the sink forgets; what is read again takes its place, batch by batch | whoever saw a row sees it on |
//! | reading | clone the tail, read the table's version, keep rows at or above its marks | a row that lands in between is in the version, and its twin in the tail lies below the mark |
//! | | of those, drop what the version has by a retry | it lands by no flush any more: the retry's row is there in its place |
//!
//! The other order of reading loses rows: those that land after the version was read, and that the tail
//! dropped before it was cloned.
//!
//! A record may be retried before the mark has passed it, where a process died between its dead letter and the mark, and a job
//! that knows its schema by then may read it meanwhile.
//!
//! **Invariant:** what the tail has of a partition is contiguous and starts at the table's mark or below it.
//! **Invariant:** what waits to be read again takes half of the budget at most, so that there is room to read it.
//! Deliberately absent: retries. Whether the row of a retry is stored is known only once its entry lands.

#[cfg(test)]
mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aion_schemas::log::{Mark, Marks, Offset, Partition, Timestamp};
use aion_sinks::{
    batch::Batch,
    budget::Reservation,
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};
use arrow::{
    array::{AsArray, BooleanArray},
    compute::filter_record_batch,
    datatypes::Int64Type,
    error::ArrowError,
    record_batch::RecordBatch,
};
use async_trait::async_trait;

type Partitions = BTreeMap<Partition, Shown>;
type Seen = dyn Fn(&str, Duration) + Send + Sync;

/// What all tables of this process have in memory; clones are the same tail.
#[derive(Clone, Default)]
pub struct Tail {
    tables: Arc<Mutex<BTreeMap<Arc<str>, Partitions>>>,
    seen: Option<Arc<Seen>>,
    /// What happens between the two looks of the next query.
    #[cfg(test)]
    pub(crate) between: Arc<Mutex<Option<crate::stored::tests::Between>>>,
}

impl Tail {
    /// An empty tail that tells `seen`, of each batch that queries can see from now on, its table and how
    /// long ago the broker appended its oldest row.
    pub fn new(seen: impl Fn(&str, Duration) + Send + Sync + 'static) -> Tail {
        Tail { seen: Some(Arc::new(seen)), ..Tail::default() }
    }

    /// Shows what a table's sink holds. A sink of retries must not be shown.
    pub fn of(&self, table: &Arc<str>, sink: Box<dyn Sink>) -> Tailed {
        let (tail, table) = (self.clone(), Arc::clone(table));
        Tailed { tail, table, owned: BTreeSet::new(), sink }
    }

    /// What a table has now. These clones hold nothing against the budget: a slow query must not keep
    /// jobs from reading on.
    pub(crate) fn batches(&self, table: &str) -> Vec<Batch> {
        let tables = self.lock();
        let batches =
            tables.get(table).into_iter().flat_map(BTreeMap::values).flat_map(Shown::batches);
        batches.map(|batch| Batch { memory: Reservation::none(), ..batch.clone() }).collect()
    }

    fn add(&self, table: &Arc<str>, batch: Batch) {
        let appended = batch.appended;
        let is_news = self
            .lock()
            .entry(Arc::clone(table))
            .or_default()
            .entry(batch.partition.clone())
            .or_default()
            .add(batch);
        if let (Some(seen), Some((oldest, _)), true) = (&self.seen, appended, is_news) {
            seen(table, age(oldest));
        }
    }

    /// Drops what became durable.
    fn settle(&self, table: &str, marks: &Marks) {
        let mut tables = self.lock();
        let Some(partitions) = tables.get_mut(table) else { return };
        for (partition, mark) in marks {
            if let Some(shown) = partitions.get_mut(partition) {
                shown.settle(mark.offset);
            }
        }
    }

    /// Keeps what the sink has forgotten, for as long as it isn't read again; what finds no room goes.
    fn keep(&self, table: &str, assigned: &[Partition], marks: &Marks) {
        let mut tables = self.lock();
        if let Some(partitions) = tables.get_mut(table) {
            for partition in assigned {
                if let Some(shown) = partitions.get_mut(partition) {
                    shown.assigned(marks.get(partition).map(|mark| mark.offset));
                }
            }
        }
        let kept = || tables.values().flat_map(BTreeMap::values).flat_map(|shown| &shown.kept);
        let mut all: usize = kept().map(Batch::bytes).sum();
        let Some(limit) = kept().find_map(|batch| batch.memory.limit()) else { return };
        let Some(partitions) = tables.get_mut(table) else { return };
        for partition in assigned {
            if let Some(shown) = partitions.get_mut(partition) {
                shown.make_room(&mut all, limit / 2);
            }
        }
    }

    /// Drops what a log that was cut hasn't any more.
    fn cut(&self, table: &str, partition: &Partition, end: Offset) {
        let mut tables = self.lock();
        let shown = tables.get_mut(table).and_then(|partitions| partitions.get_mut(partition));
        if let Some(shown) = shown {
            shown.cut(end);
        }
    }

    /// Drops what is no longer this process's to write.
    fn forget<'a>(&self, table: &str, partitions: impl IntoIterator<Item = &'a Partition>) {
        if let Some(known) = self.lock().get_mut(table) {
            for partition in partitions {
                known.remove(partition);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Partitions>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").finish_non_exhaustive()
    }
}

/// What is shown of a partition, in log order.
#[derive(Debug, Default)]
struct Shown {
    /// What its sink holds.
    held: Vec<Batch>,
    /// What its sink held before it was assigned anew, and the job has not read again so far. It follows `held`.
    kept: Vec<Batch>,
    /// How far it was ever shown; what had to make room is no news when it is read again.
    seen: Option<Offset>,
}

impl Shown {
    fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.held.iter().chain(&self.kept)
    }

    /// Adds what the sink took, in place of what was kept of it; whether it wasn't all shown before.
    fn add(&mut self, batch: Batch) -> bool {
        let end = batch.range.end;
        let is_news = self.seen < Some(end);
        self.seen = self.seen.max(Some(end));
        since(&mut self.kept, end);
        self.held.push(batch);
        is_news
    }

    fn settle(&mut self, mark: Offset) {
        since(&mut self.held, mark);
        since(&mut self.kept, mark);
    }

    /// The sink holds nothing any more, and wants what follows the mark. Where the mark was put back, what stands
    /// between it and the rest isn't here: then all is to be read first.
    fn assigned(&mut self, mark: Option<Offset>) {
        self.held.append(&mut self.kept);
        self.kept = std::mem::take(&mut self.held);
        let Some(mark) = mark else { return };
        if self.kept.first().is_some_and(|first| first.range.start > mark) {
            self.kept.clear();
            self.seen = Some(mark);
        }
        since(&mut self.kept, mark);
    }

    /// Drops what was kept from its end on, while `all` that is kept takes more than `room`. A batch that takes nothing,
    /// such as one without rows, goes with those before it.
    fn make_room(&mut self, all: &mut usize, room: usize) {
        while *all > room
            && let Some(last) = self.kept.pop()
        {
            *all -= last.bytes();
        }
    }

    /// Drops what was kept at `end` of the log or beyond.
    fn cut(&mut self, end: Offset) {
        self.seen = self.seen.min(Some(end));
        self.kept.retain(|batch| batch.range.start < end);
        if let Some(last) = self.kept.pop() {
            self.kept.push(last.before(end));
        }
    }
}

/// Drops what lies below `wanted`.
fn since(batches: &mut Vec<Batch>, wanted: Offset) {
    let all = std::mem::take(batches);
    *batches = all.into_iter().filter_map(|batch| batch.since(wanted)).collect();
}

/// Of batches that were cloned before a version was read, the rows which that version doesn't have: those at or above its
/// mark, but for the records that it has by a retry.
pub(crate) fn beyond<'a>(
    batches: Vec<Batch>,
    mark: impl Fn(&Partition) -> Option<Offset>,
    retried: impl Fn(&Partition) -> Option<&'a BTreeSet<Offset>>,
) -> Result<Vec<Batch>, ArrowError> {
    let mut rest = Vec::with_capacity(batches.len());
    for batch in batches {
        let above = match mark(&batch.partition) {
            Some(mark) => batch.since(mark),
            None => Some(batch),
        };
        let Some(mut batch) = above else { continue };
        if let Some(retried) = retried(&batch.partition) {
            batch.rows = without(&batch, retried)?;
        }
        if batch.rows.num_rows() > 0 {
            rest.push(batch);
        }
    }
    Ok(rest)
}

/// The rows but those at these offsets, of which there are none as a rule.
fn without(batch: &Batch, retried: &BTreeSet<Offset>) -> Result<RecordBatch, ArrowError> {
    let offsets = batch.rows.column_by_name("_offset");
    let offsets = offsets.and_then(|offsets| offsets.as_primitive_opt::<Int64Type>());
    let (Some(offsets), Some(_)) = (offsets, retried.range(batch.range.clone()).next()) else {
        return Ok(batch.rows.clone());
    };
    let is_kept = |at: &i64| Some(!retried.contains(&Offset(*at)));
    let kept: BooleanArray = offsets.values().iter().map(is_kept).collect();
    filter_record_batch(&batch.rows, &kept)
}

fn age(appended: Timestamp) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(appended.0.max(0) as u64))
}

/// A sink whose batches are in the tail until they are durable, or its partition is given up.
pub struct Tailed {
    tail: Tail,
    table: Arc<str>,
    owned: BTreeSet<Partition>,
    sink: Box<dyn Sink>,
}

#[async_trait]
impl Sink for Tailed {
    fn name(&self) -> &'static str {
        self.sink.name()
    }

    fn store_id(&self) -> String {
        self.sink.store_id()
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        self.owned.extend(partitions.iter().cloned());
        let assigned = self.sink.assign(partitions).await;
        // A sink that can't say its marks has forgotten what it held all the same.
        self.tail.keep(&self.table, partitions, assigned.as_ref().unwrap_or(&Marks::new()));
        assigned
    }

    fn topic_has(&mut self, partitions: usize) {
        self.sink.topic_has(partitions);
    }

    fn log_ends(&mut self, partition: &Partition, end: Offset) {
        self.tail.cut(&self.table, partition, end);
        self.sink.log_ends(partition, end);
    }

    fn take_lost(&mut self) -> Vec<(Partition, Range<Offset>)> {
        self.sink.take_lost()
    }

    fn stored_ahead(&self, partition: &Partition) -> Vec<Range<Offset>> {
        self.sink.stored_ahead(partition)
    }

    fn last_ahead(&self, partition: &Partition) -> Option<Mark> {
        self.sink.last_ahead(partition)
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        let shown = batch.clone();
        let accepted = self.sink.write(batch).await?;
        // Before the next flush, so before it can be durable.
        if matches!(accepted, Accepted::Taken) {
            self.tail.add(&self.table, shown);
        }
        Ok(accepted)
    }

    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError> {
        let flushed = self.sink.flush(now, why).await?;
        self.tail.settle(&self.table, &flushed.marks);
        Ok(flushed)
    }

    fn revoke(&mut self, partitions: &[Partition]) {
        self.tail.forget(&self.table, partitions);
        for partition in partitions {
            self.owned.remove(partition);
        }
        self.sink.revoke(partitions);
    }
}

/// A job that ended writes nothing any more.
impl Drop for Tailed {
    fn drop(&mut self) {
        self.tail.forget(&self.table, &self.owned);
    }
}
