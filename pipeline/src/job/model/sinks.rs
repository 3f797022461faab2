//! Sinks of the model: those in memory, with a place to stop before and after each call. A process that is
//! dropped or frozen there has done the work and doesn't know it, or was about to.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    ops::Range,
    task::Poll,
    time::{Duration, Instant},
};

use aion_schemas::log::{Marks, Partition};
use aion_sinks::{
    batch::Batch,
    memory::{MemorySink, Settings, Store},
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};
use async_trait::async_trait;

use super::{
    schedule::Options,
    seen::Thing,
    source::Consumer,
    world::{Shared, World, lock},
};

/// Gives the schedule a chance to do something else first.
pub(super) async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(super) struct Seam {
    name: &'static str,
    inner: MemorySink,
    consumer: Shared<Consumer>,
    world: Shared<World>,
    /// What it has taken and not told to be durable.
    held: BTreeMap<Partition, Range<i64>>,
}

impl Seam {
    /// The sink of that name: `slow` flushes rarely, and what it flushes lands later.
    pub(super) fn open(
        name: &'static str,
        store: &Store,
        options: Options,
        (consumer, world): (Shared<Consumer>, Shared<World>),
    ) -> Seam {
        let slow = name == "slow";
        let settings = Settings {
            flush_bytes: if slow { 4000 } else { 400 },
            flush_age: Duration::from_millis(if slow { 900 } else { 150 }),
            hold_bytes: 6000,
            delay: if slow { 2 } else { 0 },
            fenced: options.fenced,
            forgets: options.forgets,
        };
        let inner = MemorySink::open(store, settings);
        Seam { name, inner, consumer, world, held: BTreeMap::new() }
    }

    /// The job has the sink forget what it holds of a partition. Where nobody else can have it, and it
    /// can't be read again, it is thrown away.
    fn forgets(&mut self, partition: &Partition) {
        let Some(held) = self.held.remove(partition) else { return };
        let consumer = lock(&self.consumer);
        if consumer.is_stopping || consumer.shared.contains(&partition.number) {
            return;
        }
        let mut world = lock(&self.world);
        if !world.can_be_read(partition, held.start) {
            let what = format!("{}: {held:?} of {}", self.name, partition.key());
            world.thrown_away.push(what);
        }
    }
}

#[async_trait]
impl Sink for Seam {
    fn name(&self) -> &'static str {
        self.name
    }

    fn store_id(&self) -> String {
        self.name.to_owned()
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        pause().await;
        for partition in partitions {
            self.forgets(partition);
        }
        let marks = self.inner.assign(partitions).await;
        pause().await;
        marks
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        let (partition, range) = (batch.partition.clone(), batch.range.clone());
        let is_empty = batch.rows.num_rows() == 0;
        let accepted = self.inner.write(batch).await?;
        let mut world = lock(&self.world);
        if matches!(accepted, Accepted::Taken) {
            let (first, next) = (range.start.get(), range.end.get());
            self.held.entry(partition).or_insert(first..next).end = next;
            world.seen.note(Thing::MarkWithoutRows, usize::from(is_empty));
        } else {
            world.seen.note(Thing::HandedBack, 1);
        }
        Ok(accepted)
    }

    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError> {
        pause().await;
        let flushed = self.inner.flush(now, why).await;
        if let Ok(flushed) = &flushed {
            for (partition, mark) in &flushed.marks {
                if let Some(held) = self.held.get_mut(partition) {
                    held.start = mark.offset.get();
                }
            }
            self.held.retain(|_, held| !held.is_empty());
            // Who moved it has read the partition, for all its sinks.
            let moved = flushed.moved.iter().map(|partition| partition.number);
            lock(&self.consumer).shared.extend(moved);
        }
        pause().await;
        flushed
    }

    fn revoke(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.forgets(partition);
        }
        self.inner.revoke(partitions);
    }
}
