//! All ways in which a reader's two looks can fall among the steps of a writer: what each reader sees.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use aion_sinks::{
    budget::Budget,
    conformance::Log,
    memory::{Fault, MemorySink, Settings, Store},
};
use arrow::array::{AsArray, types::Int64Type};

use super::*;

/// A step of the writer.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The next two offsets of partitions 0 and 1, maybe read before.
    Read,
    /// Lands and is told at once.
    Flush,
    /// Lands, and is told only by the next flush.
    LandUntold,
    Fail,
    /// Another process commits partition 0, all but the last row.
    Rival,
    /// The next record that the store wants of partition 0 lands by a retry; the flush that comes to it leaves it out.
    Retry,
    /// Both partitions are assigned anew, and read from the store's marks on.
    StartOver,
    /// The store doesn't say its marks.
    AssignFails,
}

/// What a reader saw: the offsets of each partition.
type View = BTreeMap<Partition, Vec<i64>>;

/// A version: its rows and marks, and what it has of partition 0 by retries.
type Version = (View, Marks, BTreeSet<Offset>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The tail, then the version.
    Right,
    /// The version, then the tail.
    Wrong,
    /// The right one, without dropping what the version has.
    Unfiltered,
    /// The right one, without keeping what a sink forgets when it is assigned anew.
    Forgetful,
    /// The right one, without dropping what the version has by a retry.
    Doubling,
}

struct World {
    log: Log,
    store: Store,
    tail: Tail,
    sink: Tailed,
    order: Order,
    /// The next offset of each partition.
    next: [i64; 2],
    /// How far both were read at any time.
    written: i64,
    /// The records of partition 0 that landed by a retry.
    retried: BTreeSet<Offset>,
}

impl World {
    async fn new(order: Order) -> World {
        let (store, tail, log) = (Store::new(), Tail::default(), Log::new());
        let sink = MemorySink::open(&store, Settings::default());
        let mut sink = tail.of(&"orders".into(), Box::new(sink));
        sink.assign(&[log.partition(0), log.partition(1)]).await.unwrap();
        let (next, written, retried) = ([0; 2], 0, BTreeSet::new());
        World { log, store, tail, sink, order, next, written, retried }
    }

    async fn step(&mut self, step: Step) {
        let why = Flush::Now { deadline: Instant::now() + Duration::from_secs(9) };
        match step {
            Step::Read => self.read().await,
            Step::Flush => drop(self.sink.flush(Instant::now(), why).await.unwrap()),
            Step::LandUntold | Step::Fail => {
                let fault = [Fault::Unacknowledged, Fault::Retry];
                self.store.script(fault[usize::from(matches!(step, Step::Fail))]);
                self.sink.flush(Instant::now(), why).await.ok();
            }
            Step::Rival => self.rival(why).await,
            Step::Retry => {
                let mark = self.store.marks().get(&self.log.partition(0)).map(|mark| mark.offset);
                self.retried.insert(mark.unwrap_or(Offset::ZERO));
            }
            Step::StartOver => self.start_over().await,
            Step::AssignFails => {
                self.store.script(Fault::RetryAssign);
                self.sink.assign(&self.partitions()).await.unwrap_err();
            }
        }
    }

    async fn read(&mut self) {
        for (partition, next) in [0, 1].into_iter().zip(&mut self.next) {
            self.sink.write(self.log.batch(partition, *next, *next + 2)).await.unwrap();
            *next += 2;
        }
        self.written = self.written.max(self.next[0].min(self.next[1]));
    }

    async fn rival(&self, why: Flush) {
        let mut rival = MemorySink::open(&self.store, Settings::default());
        let partition = self.log.partition(0);
        let marks = rival.assign(std::slice::from_ref(&partition)).await.unwrap();
        let first = marks.get(&partition).map_or(0, |mark| mark.offset.get());
        if first < self.written - 1 {
            rival.write(self.log.batch(0, first, self.written - 1)).await.unwrap();
            rival.flush(Instant::now(), why).await.unwrap();
        }
    }

    async fn start_over(&mut self) {
        let partitions = self.partitions();
        if self.order == Order::Forgetful {
            self.sink.revoke(&partitions);
        }
        let marks = self.sink.assign(&partitions).await.unwrap();
        self.next = partitions.map(|one| marks.get(&one).map_or(0, |mark| mark.offset.get()));
    }

    fn partitions(&self) -> [Partition; 2] {
        [0, 1].map(|number| self.log.partition(number))
    }

    fn version(&self) -> Version {
        let mut rows = View::from(self.partitions().map(|one| {
            let offsets = self.store.offsets(&one);
            (one, offsets)
        }));
        let of_first = rows.entry(self.log.partition(0)).or_default();
        of_first.retain(|at| !self.retried.contains(&Offset(*at)));
        of_first.extend(self.retried.iter().copied().map(Offset::get));
        (rows, self.store.marks(), self.retried.clone())
    }
}

fn see(order: Order, tail: Vec<Batch>, (mut view, marks, retried): Version) -> View {
    let mark = |partition: &Partition| marks.get(partition).map(|mark| mark.offset);
    let retried = |partition: &Partition| {
        (order != Order::Doubling && partition.number == 0).then_some(&retried)
    };
    let unfiltered = order == Order::Unfiltered;
    let kept = if unfiltered { tail } else { beyond(tail, mark, retried).unwrap() };
    for batch in kept {
        let offsets = batch.rows.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
        view.entry(batch.partition).or_default().extend(offsets.values());
    }
    view
}

/// Runs the steps with a reader that looks first before step `first` and again before step `second`;
/// returns what it saw, and how much was written when it began.
async fn run(steps: &[Step], order: Order, first: usize, second: usize) -> (View, i64) {
    let mut world = World::new(order).await;
    let (mut tail, mut stored, mut written) = (None, None, 0);
    for at in 0..=steps.len() {
        if at == first {
            written = world.written;
        }
        let (tail_at, stored_at) =
            if order == Order::Wrong { (second, first) } else { (first, second) };
        if at == tail_at {
            tail = Some(world.tail.batches("orders"));
        }
        if at == stored_at {
            stored = Some(world.version());
        }
        if let Some(step) = steps.get(at) {
            world.step(*step).await;
        }
    }
    (see(order, tail.unwrap(), stored.unwrap()), written)
}

/// Whether a view is whole: each partition's offsets once, without a hole, at least what was written.
fn is_whole(view: &View, written: i64) -> bool {
    view.values().all(|offsets| {
        let mut sorted = offsets.clone();
        sorted.sort_unstable();
        sorted.iter().copied().eq(0..sorted.len() as i64) && sorted.len() as i64 >= written
    })
}

const SCRIPTS: [&[Step]; 12] = [
    &[Step::Read, Step::Flush, Step::Read, Step::Flush],
    &[Step::Read, Step::Read, Step::LandUntold, Step::Read, Step::Flush, Step::Flush],
    &[Step::Read, Step::Fail, Step::Read, Step::Flush, Step::Read],
    &[Step::Read, Step::Flush, Step::Read, Step::Rival, Step::Flush],
    &[Step::Read, Step::LandUntold, Step::Rival, Step::Flush, Step::Flush],
    &[Step::Read, Step::Flush, Step::Read, Step::StartOver, Step::Read, Step::Read, Step::Flush],
    &[Step::Read, Step::Read, Step::Fail, Step::StartOver, Step::Read, Step::Flush, Step::Read],
    &[Step::Read, Step::LandUntold, Step::StartOver, Step::Read, Step::Flush],
    &[Step::Read, Step::Flush, Step::Read, Step::Rival, Step::Flush, Step::StartOver, Step::Read],
    &[Step::Read, Step::Read, Step::AssignFails, Step::StartOver, Step::Read, Step::StartOver],
    &[Step::Read, Step::Retry, Step::Read, Step::Flush, Step::Read, Step::Retry, Step::Flush],
    &[Step::Read, Step::LandUntold, Step::Read, Step::Retry, Step::StartOver, Step::Read],
];

/// The views that are not whole, of all places of both looks.
async fn broken(order: Order) -> usize {
    let mut broken = 0;
    for steps in SCRIPTS {
        // A later reader, one that began when an earlier one had ended, never sees less.
        let mut seen_by: BTreeMap<usize, usize> = BTreeMap::new();
        for first in 0..=steps.len() {
            for second in first..=steps.len() {
                let (view, written) = run(steps, order, first, second).await;
                let count = view.values().map(Vec::len).sum::<usize>();
                let before = seen_by.range(..first).map(|(_, seen)| *seen).max().unwrap_or(0);
                if !is_whole(&view, written) || count < before {
                    broken += 1;
                }
                let seen = seen_by.entry(second).or_default();
                *seen = count.max(*seen);
            }
        }
    }
    broken
}

#[tokio::test]
async fn each_row_is_seen_once_and_counts_grow() {
    assert_eq!(broken(Order::Right).await, 0);
}

#[tokio::test]
async fn control_the_other_order_loses_rows() {
    assert!(broken(Order::Wrong).await > 0);
}

#[tokio::test]
async fn control_without_the_marks_rows_are_doubled() {
    assert!(broken(Order::Unfiltered).await > 0);
}

#[tokio::test]
async fn control_without_what_sinks_forget_counts_fall() {
    assert!(broken(Order::Forgetful).await > 0);
}

#[tokio::test]
async fn control_without_what_is_retried_rows_are_doubled() {
    assert!(broken(Order::Doubling).await > 0);
}

/// The offsets that are shown of a partition, in the order in which they are.
fn offsets(batches: &[Batch]) -> Vec<i64> {
    let of = |batch: &Batch| {
        batch.rows.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().values().to_vec()
    };
    batches.iter().flat_map(of).collect()
}

/// Reads eight offsets of partition 0, of which each two take a fifth of the budget.
async fn read_within(world: &mut World, budget: &Budget) {
    for first in [0, 2, 4, 6] {
        let memory = budget.take(budget.limit() / 5);
        world.sink.write(Batch { memory, ..world.log.batch(0, first, first + 2) }).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_to_be_read_again_leaves_half_of_the_budget() {
    let mut world = World::new(Order::Right).await;
    let budget = Budget::new(1000);
    read_within(&mut world, &budget).await;
    assert_eq!(budget.held(), 800);
    world.sink.assign(&[world.log.partition(0)]).await.unwrap();
    assert_eq!(budget.held(), 400);
    assert_eq!(offsets(&world.tail.batches("orders")), [0, 1, 2, 3]);
    read_within(&mut world, &budget).await;
    assert_eq!((budget.held(), world.tail.batches("orders").len()), (800, 4));
}

/// Which is what a job writes where the log itself has a gap.
#[tokio::test]
async fn a_batch_that_takes_nothing_is_in_nobodys_way() {
    let mut world = World::new(Order::Right).await;
    let budget = Budget::new(1000);
    read_within(&mut world, &budget).await;
    let memory = Reservation::none();
    world.sink.write(Batch { memory, ..world.log.hollow(0, 8, 9) }).await.unwrap();
    world.sink.assign(&[world.log.partition(0)]).await.unwrap();
    assert_eq!((budget.held(), world.tail.batches("orders").len()), (400, 2));
}

#[tokio::test]
async fn a_store_that_is_away_holds_half_of_the_budget_at_most() {
    let mut world = World::new(Order::Right).await;
    let budget = Budget::new(1000);
    read_within(&mut world, &budget).await;
    for _ in 0..2 {
        world.store.script(Fault::RetryAssign);
        world.sink.assign(&[world.log.partition(0)]).await.unwrap_err();
        assert_eq!(budget.held(), 400);
        assert_eq!(offsets(&world.tail.batches("orders")), [0, 1, 2, 3]);
    }
}

#[tokio::test]
async fn what_a_cut_log_has_lost_is_gone() {
    let mut world = World::new(Order::Right).await;
    world.step(Step::Read).await;
    world.step(Step::Read).await;
    world.step(Step::StartOver).await;
    world.sink.log_ends(&world.log.partition(1), Offset(4));
    assert_eq!(offsets(&world.tail.batches("orders")), [0, 1, 2, 3, 0, 1, 2, 3]);
    world.sink.log_ends(&world.log.partition(1), Offset(1));
    assert_eq!(offsets(&world.tail.batches("orders")), [0, 1, 2, 3, 0]);
}

#[test]
fn a_mark_that_was_put_back_leaves_no_hole() {
    let mut shown = Shown::default();
    assert!(shown.add(Log::new().batch(0, 4, 6)));
    shown.assigned(Some(Offset(4)));
    assert_eq!(shown.batches().count(), 1);
    shown.assigned(Some(Offset(3)));
    assert_eq!(shown.batches().count(), 0);
    assert!(shown.add(Log::new().batch(0, 3, 5)), "it is to be seen anew");
}

#[tokio::test]
async fn rows_are_news_once() {
    let (news, log) = (Arc::new(Mutex::new(0)), Log::new());
    let counted = Arc::clone(&news);
    let tail = Tail::new(move |_, _| *counted.lock().unwrap() += 1);
    let sink = MemorySink::open(&Store::new(), Settings::default());
    let mut sink = tail.of(&"orders".into(), Box::new(sink));
    let partition = [log.partition(0)];
    for (end, known) in [(4, 1), (3, 1), (5, 2)] {
        sink.assign(&partition).await.unwrap();
        sink.write(log.batch(0, 0, end)).await.unwrap();
        assert_eq!(*news.lock().unwrap(), known, "up to {end}");
    }
}

#[tokio::test]
async fn news_is_as_old_as_its_oldest_row() {
    let (told, log) = (Arc::new(Mutex::new(Vec::new())), Log::new());
    let told_of = Arc::clone(&told);
    let tail = Tail::new(move |table, age| told_of.lock().unwrap().push((table.to_owned(), age)));
    let sink = MemorySink::open(&Store::new(), Settings::default());
    let mut sink = tail.of(&"orders".into(), Box::new(sink));
    sink.assign(&[log.partition(0)]).await.unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now_us = now.as_micros() as i64;
    let appended = Some((Timestamp(now_us - 10_000_000), Timestamp(now_us)));
    sink.write(Batch { appended, ..log.batch(0, 0, 2) }).await.unwrap();
    // Without rows there is nothing to see.
    sink.write(log.hollow(0, 2, 4)).await.unwrap();
    let told = told.lock().unwrap();
    let [(table, age)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(table, "orders");
    let (least, most) = (Duration::from_secs(10), Duration::from_secs(20));
    assert!((least..most).contains(age), "{age:?}");
}

#[test]
fn what_had_to_make_room_is_no_news_and_what_a_cut_log_has_instead_is() {
    let (mut shown, log) = (Shown::default(), Log::new());
    assert!(shown.add(log.batch(0, 0, 2)) && shown.add(log.batch(0, 2, 4)));
    shown.assigned(None);
    shown.make_room(&mut log.held(), log.held() / 2);
    assert_eq!(offsets(&shown.kept), [0, 1]);
    assert!(!shown.add(log.batch(0, 0, 2)) && !shown.add(log.batch(0, 2, 4)));
    assert!(shown.add(log.batch(0, 4, 6)));
    shown.assigned(None);
    shown.cut(Offset(3));
    assert!(!shown.add(log.batch(0, 0, 3)) && shown.add(log.batch(0, 3, 5)));
}

#[tokio::test]
async fn what_a_job_gives_up_is_gone() {
    let mut world = World::new(Order::Right).await;
    world.step(Step::Read).await;
    world.sink.revoke(&[world.log.partition(0)]);
    assert_eq!(world.tail.batches("orders").len(), 1);
    let held = world.log.held();
    assert!(held > 0);
    let cloned = world.tail.batches("orders");
    drop(world.sink);
    assert!(world.tail.batches("orders").is_empty());
    assert_eq!((world.log.held(), cloned.len()), (0, 1), "a query's clone holds no budget");
}
