//! What waits in one job leaves room: for its other partitions, and for the jobs that it shares the memory with.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use aion_sinks::{
    budget::Budget,
    memory::{MemorySink, Settings, Store},
};
use tokio::sync::Semaphore;

use super::{LONG, Open, PATIENCE, Started, chunk, partition, poisoned, start_with, stream};
use crate::job::{
    journal::{Entry, Journal, NotAcknowledged, Recorded},
    rules::{Rule, Rules},
    source::{Command, Event},
};

/// What a chunk takes.
const CHUNK: usize = 1 << 10;
/// What all jobs may hold: less than the chunks after which a partition pauses for their number.
const LIMIT: usize = 16 * CHUNK;
/// Who is to find none any more finds no memory for so long.
const STILL: Duration = Duration::from_secs(2);

/// A journal that gives no answer before this is closed.
struct Late(Arc<Semaphore>);

impl Journal for Late {
    fn record(&mut self, _: Vec<Entry>) -> Recorded {
        let silence = Arc::clone(&self.0);
        Box::pin(async move {
            drop(silence.acquire().await);
            Ok(())
        })
    }
}

/// A journal that takes nothing, and counts how often it was asked.
#[derive(Clone, Default)]
struct Failing(Arc<AtomicUsize>);

impl Journal for Failing {
    fn record(&mut self, entries: Vec<Entry>) -> Recorded {
        self.0.fetch_add(1, SeqCst);
        let topic = entries[0].ledger.topic();
        let failed = NotAcknowledged { topic, cause: "refused".to_owned(), entries };
        Box::pin(async move { Err(failed) })
    }
}

/// A job, and what reads for it.
struct Reads {
    job: Started,
    store: Store,
    budget: Budget,
    /// So long it waits for memory.
    patience: Duration,
    /// What is read next, by partition.
    next: BTreeMap<i32, i64>,
}

/// How far reading got.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// All that was wanted.
    There,
    Paused,
    /// There was no memory any more.
    Stuck,
}

impl Reads {
    fn new(
        budget: Budget,
        without: Option<Rule>,
        partitions: i32,
        journal: impl Journal + 'static,
    ) -> Reads {
        let store = Store::new();
        let settings = Settings { flush_bytes: CHUNK, ..Settings::default() };
        let sink = Box::new(MemorySink::open(&store, settings));
        let job = start_with(budget.clone(), (Rules { without }, 1.0, LONG), sink, journal);
        let partitions = (0..partitions).collect();
        job.script.tell(Event::Assigned { stream: stream(), partitions });
        let patience = if without.is_some() { STILL } else { PATIENCE };
        Reads { job, store, budget, patience, next: BTreeMap::new() }
    }

    /// Reads a partition's first chunk, which has letters.
    async fn poison(&mut self, number: i32) {
        self.read(number, 3).await;
    }

    /// Reads so many chunks more, as the thread does that polls: where there is memory, and no pause is asked for.
    async fn chunks(&mut self, number: i32, count: usize) -> Got {
        for _ in 0..count {
            let since = Instant::now();
            while self.budget.is_spent() && !self.is_paused(number) {
                if since.elapsed() > self.patience {
                    return Got::Stuck;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if self.is_paused(number) {
                return Got::Paused;
            }
            self.read(number, 0).await;
        }
        Got::There
    }

    async fn read(&mut self, number: i32, letters: i64) {
        let (next, run) = (self.next.entry(number).or_default(), number as u64 + 1);
        let mut read = match letters {
            0 => chunk(number, run, *next..*next + 5),
            count => poisoned(number, run, count),
        };
        read.batch.memory = self.budget.take(CHUNK);
        *next = read.batch.range.end.get();
        self.job.script.tell(Event::Chunk(read));
        while !self.job.script.events.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn is_paused(&self, number: i32) -> bool {
        let said = self.job.script.said.lock().unwrap();
        let last = said.iter().rev().find_map(|command| match command {
            Command::Pause(one) if *one == number => Some(true),
            Command::Resume(one) if *one == number => Some(false),
            _ => None,
        });
        last.unwrap_or(false)
    }

    /// Waits until all that was read of a partition is stored.
    async fn stored(&self, number: i32) {
        let next = self.next[&number];
        let last = || self.store.offsets(&partition(number)).last().copied();
        self.until("all of it is stored", || last() == Some(next - 1)).await;
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "not so: {what}: {:#?}", self.job.status.now());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.job.script.stop(Duration::from_secs(10));
        self.job.end().await.unwrap();
    }
}

#[tokio::test]
async fn what_waits_for_a_silent_journal_leaves_room_for_others() {
    let (budget, silence) = (Budget::new(LIMIT), Arc::new(Semaphore::new(0)));
    let mut one = Reads::new(budget.share(2), None, 9, Late(Arc::clone(&silence)));
    let mut other = Reads::new(budget.share(2), None, 1, Open);
    one.poison(0).await;
    assert_eq!(one.chunks(0, 40).await, Got::Paused);
    assert_eq!(one.chunks(8, 40).await, Got::There, "another partition of the job");
    assert_eq!(other.chunks(0, 40).await, Got::There, "another job");
    one.stored(8).await;
    other.stored(0).await;
    assert!(budget.held() <= LIMIT / 8 + CHUNK, "{} bytes wait", budget.held());

    // However many partitions have such records: each has the one chunk that it waits with.
    for number in 1..8 {
        one.poison(number).await;
        assert_eq!(one.chunks(number, 40).await, Got::Paused, "partition {number}");
    }
    assert!(budget.held() <= LIMIT / 8 + 8 * CHUNK, "{} bytes wait", budget.held());
    assert_eq!(one.chunks(8, 40).await, Got::There);
    assert_eq!(other.chunks(0, 40).await, Got::There);

    silence.close();
    for number in 0..8 {
        one.until("it reads on", || !one.is_paused(number)).await;
        assert_eq!(one.chunks(number, 9).await, Got::There, "partition {number}");
    }
    for number in 0..9 {
        one.stored(number).await;
    }
    other.stored(0).await;
    one.end().await;
    other.end().await;
    assert_eq!(budget.held(), 0);
}

/// A journal that failed is left alone for a while: what finds it so waits as well, though nothing of it is being written.
#[tokio::test]
async fn what_waits_while_the_journal_is_left_alone_leaves_room_for_others() {
    let (budget, journal) = (Budget::new(LIMIT), Failing::default());
    let asked = Arc::clone(&journal.0);
    let mut one = Reads::new(budget.share(2), None, 3, journal);
    one.poison(0).await;
    // The sixth time it is left alone for longer than it takes to read what there is memory for.
    one.until("it failed again and again", || asked.load(SeqCst) >= 6).await;
    assert_eq!(one.chunks(0, 40).await, Got::Paused);
    one.poison(1).await;
    assert_eq!(one.chunks(1, 40).await, Got::Paused);
    assert!(budget.held() <= LIMIT / 8 + 2 * CHUNK, "{} bytes wait", budget.held());
    assert_eq!(one.chunks(2, 40).await, Got::There, "another partition of the job");
    one.stored(2).await;
}

/// Negative control.
#[tokio::test]
async fn without_a_bound_what_waits_for_a_silent_journal_takes_what_is_for_all() {
    let (budget, silence) = (Budget::new(LIMIT), Arc::new(Semaphore::new(0)));
    let rule = Some(Rule::WaitingIsBounded);
    let mut one = Reads::new(budget.share(2), rule, 1, Late(silence));
    one.poison(0).await;
    // Whether it stands still, or the journal's silence has lasted so long that it pauses.
    one.chunks(0, 40).await;
    assert!(budget.held() >= LIMIT / 8 * 7, "{} bytes wait", budget.held());
}
