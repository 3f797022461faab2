//! Two writers on one table, and answers that get lost: nothing missing, nothing twice.

use std::time::{Duration, Instant};

use aion_sinks::{
    conformance::{Log, marks, settle, take},
    lake::{LakeSink, testing::Protection},
    sink::{Flush, Flushed, Sink, SinkError},
};

use crate::shared::{Place, range};

async fn flush_once(sink: &mut LakeSink) -> Result<Flushed, SinkError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    sink.flush(Instant::now(), Flush::Now { deadline }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_recognised_by_the_uuid() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut sink, log.batch(0, 0, 10)).await;
    sink.rig().lose_answers(1);
    assert!(matches!(flush_once(&mut sink).await, Err(SinkError::Retry { .. })));
    let flushed = flush_once(&mut sink).await.unwrap();
    assert_eq!(flushed.marks, marks([(&p0, 10)]));
    assert_eq!(flushed.moved, []);
    assert_eq!(place.snapshot().await.version, 1, "one entry, not two");
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_puts_are_tried_again_and_lose_nothing() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    sink.rig().fail_puts(3);
    take(&mut sink, log.batch(0, 0, 10)).await;
    for _ in 0..3 {
        assert!(matches!(flush_once(&mut sink).await, Err(SinkError::Retry { .. })));
    }
    take(&mut sink, log.batch(0, 10, 20)).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 20)]));
    assert_eq!(place.offsets(&p0).await, range(0, 20));
}

/// A lost answer of a two-partition flush, after which another writer takes one partition over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_and_then_a_new_owner() {
    let (place, log) = (Place::new(), Log::new());
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut one = place.owner(&[p0.clone(), p1.clone()]).await;
    take(&mut one, log.batch(0, 0, 10)).await;
    take(&mut one, log.batch(1, 0, 10)).await;
    one.rig().lose_answers(1);
    assert!(flush_once(&mut one).await.is_err());
    let mut two = place.owner(std::slice::from_ref(&p1)).await;
    take(&mut two, log.batch(1, 10, 15)).await;
    settle(&mut two).await;
    let flushed = settle(&mut one).await;
    assert_eq!(
        flushed.marks,
        marks([(&p0, 10), (&p1, 10)]),
        "its own entry comes first in the log"
    );
    take(&mut one, log.batch(1, 10, 30)).await;
    assert_eq!(settle(&mut one).await.moved, std::slice::from_ref(&p1));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
    assert_eq!(place.offsets(&p1).await, range(0, 15));
}

/// A flush finds p1 moved, and then its put of the rest fails: until the caller was told, batches of p1
/// are still taken, and nothing of them lands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_partition_stays_until_it_is_told() {
    let (place, log) = (Place::new(), Log::new());
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut one = place.owner(&[p0.clone(), p1.clone()]).await;
    take(&mut one, log.batch(0, 0, 10)).await;
    take(&mut one, log.batch(1, 0, 10)).await;
    let mut two = place.owner(std::slice::from_ref(&p1)).await;
    take(&mut two, log.batch(1, 0, 15)).await;
    settle(&mut two).await;
    let rig = one.rig();
    one.rig().before_next_put(move || {
        Box::pin(async move {
            let again = rig.clone();
            rig.before_next_put(move || Box::pin(async move { again.fail_puts(1) }));
        })
    });
    assert!(flush_once(&mut one).await.is_err(), "the second put fails");
    take(&mut one, log.batch(1, 10, 20)).await;
    let flushed = settle(&mut one).await;
    assert_eq!(flushed.moved, std::slice::from_ref(&p1));
    assert_eq!(flushed.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
    assert_eq!(place.offsets(&p1).await, range(0, 15));
}

/// Asks for a due flush of a store that doesn't answer; whether the caller gets on within a second.
async fn gets_on(take_out: Option<Protection>) -> bool {
    let (place, log) = (Place::new(), Log::new());
    let mut sink = place.owner(&[log.partition(0)]).await;
    if let Some(protection) = take_out {
        sink.rig().take_out(protection);
    }
    take(&mut sink, log.batch(0, 0, 10)).await;
    sink.rig().stall(true);
    let due = sink.flush(Instant::now(), Flush::Due);
    tokio::time::timeout(Duration::from_secs(1), due).await.is_ok()
}

/// And its negative control: whoever polls would wait for the store, beyond what the group waits for a poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_task_of_its_own_a_flush_is_waited_for() {
    assert!(gets_on(None).await);
    assert!(!gets_on(Some(Protection::OwnTask)).await);
}

/// The rival's entry moves p1 to the very offset that the sleeper's flush would, and the sleeper's put fails.
async fn a_rival_with_an_equal_mark(take_out: Option<Protection>) -> (Place, [Vec<i64>; 2]) {
    let (place, log) = (Place::new(), Log::new());
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut one = place.owner(&[p0.clone(), p1.clone()]).await;
    if let Some(protection) = take_out {
        one.rig().take_out(protection);
    }
    take(&mut one, log.batch(0, 0, 10)).await;
    take(&mut one, log.batch(1, 0, 10)).await;
    let mut two = place.owner(std::slice::from_ref(&p1)).await;
    take(&mut two, log.batch(1, 0, 10)).await;
    one.rig().before_next_put(move || Box::pin(async move { drop(settle(&mut two).await) }));
    let flushed = settle(&mut one).await;
    if take_out.is_none() {
        assert_eq!(flushed.moved, std::slice::from_ref(&p1));
        assert_eq!(flushed.marks, marks([(&p0, 10)]));
    }
    let offsets = [place.offsets(&p0).await, place.offsets(&p1).await];
    (place, offsets)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_equal_mark_of_a_rival_is_not_our_entry() {
    let (_place, offsets) = a_rival_with_an_equal_mark(None).await;
    assert_eq!(offsets, [range(0, 10), range(0, 10)]);
}

/// Negative control: taking an equal mark for an own entry loses the other partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_uuid_a_partition_is_lost() {
    let (_place, offsets) = a_rival_with_an_equal_mark(Some(Protection::OwnEntry)).await;
    assert_eq!(offsets, [vec![], range(0, 10)]);
}

/// The zombie writes p0, which nobody else has, and p1 lower than the winner's mark.
async fn a_zombie(take_out: Option<Protection>) -> [Vec<i64>; 2] {
    let (place, log) = (Place::new(), Log::new());
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut zombie = place.owner(&[p0.clone(), p1.clone()]).await;
    if let Some(protection) = take_out {
        zombie.rig().take_out(protection);
    }
    take(&mut zombie, log.batch(0, 0, 5)).await;
    take(&mut zombie, log.batch(1, 0, 5)).await;
    let mut winner = place.owner(std::slice::from_ref(&p1)).await;
    take(&mut winner, log.batch(1, 0, 20)).await;
    settle(&mut winner).await;
    settle(&mut zombie).await;
    take(&mut winner, log.batch(1, 20, 25)).await;
    settle(&mut winner).await;
    [place.offsets(&p0).await, place.offsets(&p1).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_lands_only_what_nobody_else_has() {
    assert_eq!(a_zombie(None).await, [range(0, 5), range(0, 25)]);
}

/// Negative control: without the check of the marks, the zombie doubles rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_marks_a_zombie_doubles() {
    let [_, p1] = a_zombie(Some(Protection::Marks)).await;
    assert_eq!(p1.iter().filter(|offset| **offset < 5).count(), 10, "{p1:?}");
}

/// Two writers that both believe to own the same partitions, racing; each follows what it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_race_for_the_same_partitions() {
    let (place, log) = (Place::new(), Log::new());
    let partitions = [log.partition(0), log.partition(1)];
    let racer = |mut sink: LakeSink, log: Log, step: i64| {
        let partitions = partitions.clone();
        async move {
            let (mut next, mut moved) = ([0, 0], 0);
            while next.iter().min() < Some(&120) {
                for (at, next) in next.iter_mut().enumerate() {
                    take(&mut sink, log.batch(at as i32, *next, *next + step)).await;
                    *next += step;
                }
                let flushed = settle(&mut sink).await;
                if !flushed.moved.is_empty() {
                    moved += flushed.moved.len();
                    let found = sink.assign(&partitions).await.unwrap();
                    next = [0, 1].map(|at| found.get(&partitions[at]).map_or(0, |m| m.offset.0));
                }
            }
            moved
        }
    };
    let (one, two) = (place.owner(&partitions).await, place.owner(&partitions).await);
    let one = tokio::spawn(racer(one, log.clone(), 5));
    let two = tokio::spawn(racer(two, log.clone(), 7));
    let moved = one.await.unwrap() + two.await.unwrap();
    assert!(moved > 0, "they should have met");
    let snapshot = place.snapshot().await;
    for partition in &partitions {
        let mark = snapshot.mark(partition.stream.id, partition.number).unwrap();
        assert_eq!(place.offsets(partition).await, range(0, mark.offset.0), "after {moved} moves");
    }
}
