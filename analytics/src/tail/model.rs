//! All ways in which a reader's two looks can fall among the steps of a writer: what each reader sees.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use aion_sinks::{
    conformance::Log,
    memory::{Fault, MemorySink, Settings, Store},
};
use arrow::array::{AsArray, types::Int64Type};

use super::*;

/// A step of the writer: rows of partitions 0 and 1; a flush that lands and is told at once; one that lands
/// and is told only by the next; one that fails; a rival's commit, after which the rows are not ours.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write,
    Flush,
    LandUntold,
    Fail,
    Rival,
}

/// What a reader saw: the offsets of each partition.
type View = BTreeMap<Partition, Vec<i64>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The tail, then the version.
    Right,
    /// The version, then the tail.
    Wrong,
    /// The right one, without dropping what the version has.
    Unfiltered,
}

struct World {
    log: Log,
    store: Store,
    tail: Tail,
    sink: Tailed,
    written: i64,
}

impl World {
    async fn new() -> World {
        let (store, tail, log) = (Store::new(), Tail::default(), Log::new());
        let sink = MemorySink::open(&store, Settings::default());
        let mut sink = tail.of(&"orders".into(), Box::new(sink));
        sink.assign(&[log.partition(0), log.partition(1)]).await.unwrap();
        World { log, store, tail, sink, written: 0 }
    }

    async fn step(&mut self, step: Step) {
        let why = Flush::Now { deadline: Instant::now() + Duration::from_secs(9) };
        match step {
            Step::Write => {
                let (first, end) = (self.written, self.written + 2);
                for partition in [0, 1] {
                    let batch = self.log.batch(partition, first, end);
                    self.sink.write(batch).await.unwrap();
                }
                self.written = end;
            }
            Step::Flush => drop(self.sink.flush(Instant::now(), why).await.unwrap()),
            Step::LandUntold | Step::Fail => {
                let fault = [Fault::Unacknowledged, Fault::Retry];
                self.store.script(fault[usize::from(matches!(step, Step::Fail))]);
                self.sink.flush(Instant::now(), why).await.ok();
            }
            Step::Rival => {
                let mut rival = MemorySink::open(&self.store, Settings::default());
                let partition = self.log.partition(0);
                let marks = rival.assign(std::slice::from_ref(&partition)).await.unwrap();
                let first = marks.get(&partition).map_or(0, |mark| mark.offset.get());
                if first < self.written {
                    rival.write(self.log.batch(0, first, self.written)).await.unwrap();
                    rival.flush(Instant::now(), why).await.unwrap();
                }
            }
        }
    }

    fn rows(&self) -> View {
        let partitions = [self.log.partition(0), self.log.partition(1)];
        partitions.map(|one| (one.clone(), self.store.offsets(&one))).into()
    }
}

fn see(order: Order, tail: Vec<Batch>, (mut view, marks): (View, Marks)) -> View {
    let mark = |partition: &Partition| marks.get(partition).map(|mark| mark.offset);
    let kept = if order == Order::Unfiltered { tail } else { beyond(tail, mark) };
    for batch in kept {
        let offsets = batch.rows.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
        view.entry(batch.partition).or_default().extend(offsets.values());
    }
    view
}

/// Runs the steps with a reader that looks first before step `first` and again before step `second`;
/// returns what it saw, and how much was written when it began.
async fn run(steps: &[Step], order: Order, first: usize, second: usize) -> (View, i64) {
    let mut world = World::new().await;
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
            stored = Some((world.rows(), world.store.marks()));
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

const SCRIPTS: [&[Step]; 5] = [
    &[Step::Write, Step::Flush, Step::Write, Step::Flush],
    &[Step::Write, Step::Write, Step::LandUntold, Step::Write, Step::Flush, Step::Flush],
    &[Step::Write, Step::Fail, Step::Write, Step::Flush, Step::Write],
    &[Step::Write, Step::Flush, Step::Write, Step::Rival, Step::Flush],
    &[Step::Write, Step::LandUntold, Step::Rival, Step::Flush, Step::Flush],
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
async fn what_a_job_gives_up_is_gone() {
    let mut world = World::new().await;
    world.step(Step::Write).await;
    world.sink.revoke(&[world.log.partition(0)]);
    assert_eq!(world.tail.batches("orders").len(), 1);
    let held = world.log.held();
    assert!(held > 0);
    let cloned = world.tail.batches("orders");
    drop(world.sink);
    assert!(world.tail.batches("orders").is_empty());
    assert_eq!((world.log.held(), cloned.len()), (0, 1), "a query's clone holds no budget");
}
