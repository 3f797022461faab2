//! Group fsync: whatever was written while the disk was busy becomes durable by one more fsync.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, JoinHandle},
};

use tokio::sync::Notify;

/// How many files are synced at once: an fsync waits for the disk, not for the processor.
const THREADS: usize = 4;

/// A lock whose holder can't leave the value half changed, so a panic elsewhere doesn't matter.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something with writes to make durable: a partition's log, the committed offsets.
pub(crate) trait Durable: Send + Sync {
    /// Syncs what was written before the call and tells those who wait; true: more was written
    /// meanwhile.
    fn sync(&self) -> bool;
}

/// Threads that sync what is pushed to them.
pub(crate) struct Flusher {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<dyn Durable>>,
    closed: bool,
}

impl Flusher {
    /// Starts the threads; they end after [`Flusher::close`], once the queue is empty.
    pub(crate) fn start() -> std::io::Result<(Arc<Flusher>, Vec<JoinHandle<()>>)> {
        let flusher = Arc::new(Flusher { queue: Mutex::default(), ready: Condvar::new() });
        let spawn = |n: usize| {
            let flusher = Arc::clone(&flusher);
            thread::Builder::new().name(format!("broker-fsync-{n}")).spawn(move || flusher.run())
        };
        let threads = (0..THREADS).map(spawn).collect::<Result<_, _>>()?;
        Ok((flusher, threads))
    }

    /// Asks for a sync. The caller sees to it that nothing is queued twice.
    pub(crate) fn push(&self, item: Arc<dyn Durable>) {
        lock(&self.queue).waiting.push_back(item);
        self.ready.notify_one();
    }

    /// Lets the threads end after what is queued.
    pub(crate) fn close(&self) {
        lock(&self.queue).closed = true;
        self.ready.notify_all();
    }

    fn run(&self) {
        while let Some(item) = self.next() {
            if item.sync() {
                self.push(item);
            }
        }
    }

    fn next(&self) -> Option<Arc<dyn Durable>> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(item) = queue.waiting.pop_front() {
                return Some(item);
            }
            if queue.closed {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Requests that wait until something moves on. One that is over is forgotten at the next call, also where it waited for
/// several things and this one never moves.
#[derive(Default)]
pub(crate) struct Waiters(Vec<Weak<Notify>>);

impl Waiters {
    /// Wakes `waiter` at the next [`Waiters::wake`].
    pub(crate) fn add(&mut self, waiter: &Arc<Notify>) {
        let waiter = Arc::downgrade(waiter);
        self.0.retain(|waiting| waiting.strong_count() > 0 && !waiting.ptr_eq(&waiter));
        self.0.push(waiter);
    }

    /// Wakes all.
    pub(crate) fn wake(&mut self) {
        for waiter in self.0.drain(..).filter_map(|waiter| Weak::upgrade(&waiter)) {
            waiter.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_for_several_things_is_forgotten_by_each() {
        let (mut idle, mut busy) = (Waiters::default(), Waiters::default());
        for _ in 0..1000 {
            let waiter = Arc::new(Notify::new());
            idle.add(&waiter);
            busy.add(&waiter);
            idle.add(&waiter);
            busy.wake();
        }
        assert!(idle.0.len() <= 1, "{} still wait for what never moves", idle.0.len());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let (mut one, mut other) = (Waiters::default(), Waiters::default());
        let waiter = Arc::new(Notify::new());
        one.add(&waiter);
        other.add(&waiter);
        other.wake();
        waiter.notified().await;
        one.wake();
        waiter.notified().await;
    }
}
