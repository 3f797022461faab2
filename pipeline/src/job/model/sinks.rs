//! Sinks of the model: those in memory, with a place to stop before and after each call. A process that is
//! dropped or frozen there has done the work and doesn't know it, or was about to.

use std::{
    future::poll_fn,
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

/// Gives the schedule a chance to do something else first.
pub(super) async fn pause() {
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

pub(super) struct Seam {
    name: &'static str,
    inner: MemorySink,
}

impl Seam {
    /// The sink of that name: `slow` flushes rarely, and what it flushes lands later.
    pub(super) fn open(name: &'static str, store: &Store, fenced: bool) -> Seam {
        let slow = name == "slow";
        let settings = Settings {
            flush_bytes: if slow { 4000 } else { 400 },
            flush_age: Duration::from_millis(if slow { 900 } else { 150 }),
            hold_bytes: 6000,
            delay: if slow { 2 } else { 0 },
            fenced,
        };
        Seam { name, inner: MemorySink::open(store, settings) }
    }
}

#[async_trait]
impl Sink for Seam {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        pause().await;
        let marks = self.inner.assign(partitions).await;
        pause().await;
        marks
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        self.inner.write(batch).await
    }

    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError> {
        pause().await;
        let flushed = self.inner.flush(now, why).await;
        pause().await;
        flushed
    }

    fn revoke(&mut self, partitions: &[Partition]) {
        self.inner.revoke(partitions);
    }
}
