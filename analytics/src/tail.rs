//! The tail: rows that this process's jobs have decoded and handed to the lake's sinks, and that are not
//! committed yet.
//!
//! A [`Tailed`] sink keeps a clone of each batch that its sink took, until the sink says that it is durable
//! or that another process has it. Clones share the batches' columns and their share of the byte budget.
//!
//! | step | order | why |
//! |---|---|---|
//! | writing | the sink takes the batch, the tail has it, the entry lands, the tail drops it | a row is always in one of the two, sometimes in both |
//! | reading | clone the tail, read the table's version, keep rows at or above its marks | a row that lands in between is in the version, and its twin in the tail lies below the mark |
//!
//! The other order of reading loses rows: those that land after the version was read, and that the tail
//! dropped before it was cloned.
//!
//! **Invariant:** what the tail has of a partition is contiguous and starts at the table's mark or below it.
//! Deliberately absent: retries. Whether the row of a retry is stored is known only once its entry lands.

#[cfg(test)]
mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aion_schemas::log::{Marks, Offset, Partition, Timestamp};
use aion_sinks::{
    batch::Batch,
    budget::Reservation,
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};
use async_trait::async_trait;

type Batches = BTreeMap<Partition, Vec<Batch>>;
type Seen = dyn Fn(&str, Duration) + Send + Sync;

/// What all tables of this process have in memory; clones are the same tail.
#[derive(Clone, Default)]
pub struct Tail {
    tables: Arc<Mutex<BTreeMap<Arc<str>, Batches>>>,
    seen: Option<Arc<Seen>>,
}

impl Tail {
    /// An empty tail that tells `seen`, of each batch that queries can see from now on, its table and how
    /// long ago the broker appended its oldest row.
    pub fn new(seen: impl Fn(&str, Duration) + Send + Sync + 'static) -> Tail {
        Tail { tables: Arc::default(), seen: Some(Arc::new(seen)) }
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
        let batches = tables.get(table).into_iter().flat_map(BTreeMap::values).flatten();
        batches.map(|batch| Batch { memory: Reservation::none(), ..batch.clone() }).collect()
    }

    fn add(&self, table: &Arc<str>, batch: Batch) {
        if let (Some(seen), Some((oldest, _))) = (&self.seen, batch.appended) {
            seen(table, age(oldest));
        }
        let mut tables = self.lock();
        let partitions = tables.entry(Arc::clone(table)).or_default();
        partitions.entry(batch.partition.clone()).or_default().push(batch);
    }

    /// Drops what became durable.
    fn settle(&self, table: &str, marks: &Marks) {
        let mut tables = self.lock();
        let Some(partitions) = tables.get_mut(table) else { return };
        for (partition, mark) in marks {
            if let Some(batches) = partitions.get_mut(partition) {
                let all = std::mem::take(batches);
                *batches = all.into_iter().filter_map(|batch| batch.since(mark.offset)).collect();
            }
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Batches>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").finish_non_exhaustive()
    }
}

/// Of batches that were cloned before a version was read, the rows which that version doesn't have.
pub(crate) fn beyond(
    batches: Vec<Batch>,
    mark: impl Fn(&Partition) -> Option<Offset>,
) -> Vec<Batch> {
    let rest = |batch: Batch| match mark(&batch.partition) {
        Some(mark) => batch.since(mark),
        None => Some(batch),
    };
    batches.into_iter().filter_map(rest).filter(|batch| batch.rows.num_rows() > 0).collect()
}

fn age(appended: Timestamp) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(appended.0.max(0) as u64))
}

/// A sink whose batches are in the tail until they are durable.
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
        self.tail.forget(&self.table, partitions);
        self.owned.extend(partitions.iter().cloned());
        self.sink.assign(partitions).await
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
        self.tail.forget(&self.table, &flushed.moved);
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
