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
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::{collections::BTreeMap, sync::Barrier};

    use tokio::task::JoinSet;

    use super::*;
    use crate::{
        batch::HEADER_BYTES,
        log::Partition,
        steps::{self, Step},
        topics::Rules,
    };

    /// Keeps a thread until all have come and the test too, as a disk does that is busy.
    struct Busy(Arc<Barrier>);

    impl Durable for Busy {
        fn sync(&self) -> bool {
            self.0.wait();
            false
        }
    }

    /// A batch of one record of eight bytes, without times, of a producer that doesn't count.
    fn batch() -> Vec<u8> {
        let mut batch = vec![0; HEADER_BYTES + 8];
        let length = batch.len() as i32 - 12;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[16] = 2;
        batch[27..57].fill(0xff);
        batch[60] = 1;
        let checksum = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&checksum.to_be_bytes());
        batch
    }

    #[tokio::test]
    async fn what_is_written_while_the_disk_is_busy_is_synced_by_one_fsync() {
        steps::record();
        let folder = tempfile::tempdir().unwrap();
        let (flusher, threads) = Flusher::start().unwrap();
        let disk = Arc::new(Barrier::new(THREADS + 1));
        for _ in 0..THREADS {
            flusher.push(Arc::new(Busy(Arc::clone(&disk))));
        }
        let home = folder.path().join("partition");
        let partition = Partition::open(home.clone(), Some(Arc::clone(&flusher))).unwrap();
        let rules = Rules::new(&BTreeMap::new(), 1 << 20).unwrap();
        let mut produced = JoinSet::new();
        for _ in 0..50 {
            let next = partition.append(&batch(), &rules).unwrap().next;
            let partition = Arc::clone(&partition);
            produced.spawn(async move { partition.durable(next).await });
        }
        assert_eq!(partition.bounds().high, 0, "nothing is told before it is synced");
        disk.wait();
        let answers = produced.join_all().await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(partition.bounds().high, 50);
        let of_records = |step: &&Step| matches!(step, Step::Synced { bytes: 1.., .. });
        assert_eq!(steps::within(&home).iter().filter(of_records).count(), 1);
        flusher.close();
        for thread in threads {
            thread.join().unwrap();
        }
    }

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
