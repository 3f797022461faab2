//! Taking rows back whose records the log has lost: beside other partitions, beside a compactor, and not at all
//! once the mark has moved.

use aion_schemas::log::{Mark, Offset, Partition};
use aion_sinks::{
    conformance::{Log, schema, settle, take},
    lake::{
        testing::Protection,
        upkeep::{Compaction, TakenBack, Upkeep},
    },
    sink::Sink,
};

use crate::shared::{Place, range, spec};

async fn upkeep(place: &Place) -> Upkeep {
    place.lake.upkeep(spec(schema())).await.unwrap().unwrap()
}

async fn mark(place: &Place, partition: &Partition) -> Option<Mark> {
    let mut sink = place.open().await;
    sink.assign(std::slice::from_ref(partition)).await.unwrap().get(partition).copied()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_above_the_cut_go_with_the_mark_and_the_log_s_new_ones_land() {
    let (place, log) = (Place::new(), Log::new());
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut sink = place.owner(&[p0.clone(), p1.clone()]).await;
    for first in [0, 10, 20] {
        take(&mut sink, log.batch(0, first, first + 10)).await;
        take(&mut sink, log.batch(1, first, first + 10)).await;
        settle(&mut sink).await;
    }
    let mut upkeep = upkeep(&place).await;
    let taken = upkeep.take_back(&p0, Offset(15)..Offset(30)).await.unwrap();
    assert_eq!(taken, TakenBack::Done { rows: 15 });
    assert_eq!(place.offsets(&p0).await, range(0, 15));
    assert_eq!(
        place.offsets(&p1).await,
        range(0, 30),
        "another partition's rows in the same files"
    );
    assert_eq!(mark(&place, &p0).await, Some(Mark { offset: Offset(15), epoch: -1 }));
    assert_eq!(mark(&place, &p1).await.map(|mark| mark.offset), Some(Offset(30)));

    let again = upkeep.take_back(&p0, Offset(15)..Offset(30)).await.unwrap();
    assert_eq!(again, TakenBack::Moved { mark: Some(Offset(15)) }, "twice is once");
    let mut next = place.owner(&[p0.clone(), p1.clone()]).await;
    take(&mut next, log.batch(0, 15, 40)).await;
    settle(&mut next).await;
    assert_eq!(place.offsets(&p0).await, range(0, 40));
    assert_eq!(place.offsets(&p1).await, range(0, 30));
    // What a writer of before still holds doesn't land any more.
    take(&mut sink, log.batch(0, 30, 35)).await;
    assert!(settle(&mut sink).await.moved.contains(&p0), "it is told");
    assert_eq!(place.offsets(&p0).await, range(0, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_nothing_else_goes_whole() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    for first in [0, 10] {
        take(&mut sink, log.batch(0, first, first + 10)).await;
        settle(&mut sink).await;
    }
    let taken = upkeep(&place).await.take_back(&p0, Offset(10)..Offset(20)).await.unwrap();
    assert_eq!(taken, TakenBack::Done { rows: 10 });
    assert_eq!(place.snapshot().await.files.len(), 1);
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// The writer lands five rows more between the last look and the put; then the log is read on from the mark.
async fn a_mark_that_moves_meanwhile(take_out: Option<Protection>) -> (TakenBack, Vec<i64>) {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut sink, log.batch(0, 0, 20)).await;
    settle(&mut sink).await;
    let mut upkeep = upkeep(&place).await;
    if let Some(protection) = take_out {
        upkeep.rig().take_out(protection);
    }
    take(&mut sink, log.batch(0, 20, 25)).await;
    upkeep.rig().before_next_put(move || {
        Box::pin(async move {
            settle(&mut sink).await;
        })
    });
    let taken = upkeep.take_back(&p0, Offset(10)..Offset(20)).await.unwrap();
    let next = mark(&place, &p0).await.unwrap().offset.get();
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut sink, log.batch(0, next, 30)).await;
    settle(&mut sink).await;
    (taken, place.offsets(&p0).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_moves_meanwhile_leaves_everything_as_it_is() {
    let (taken, offsets) = a_mark_that_moves_meanwhile(None).await;
    assert_eq!(taken, TakenBack::Moved { mark: Some(Offset(25)) });
    assert_eq!(offsets, range(0, 30));
}

/// Negative control: the mark of another's flush is set back, and what it stored is read and stored again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_look_at_the_marks_rows_are_doubled() {
    let (_, offsets) = a_mark_that_moves_meanwhile(Some(Protection::Standing)).await;
    assert_eq!(offsets.iter().filter(|offset| (20..25).contains(*offset)).count(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compactor_in_between_makes_it_look_anew() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    for first in [0, 10, 20] {
        take(&mut sink, log.batch(0, first, first + 10)).await;
        settle(&mut sink).await;
    }
    let (mut one, mut other) = (upkeep(&place).await, upkeep(&place).await);
    one.rig().before_next_put(move || {
        Box::pin(async move {
            let worth = Compaction { min_files: 2, ..Compaction::default() };
            other.compact(&worth, |_, _| {}).await.unwrap();
        })
    });
    let taken = one.take_back(&p0, Offset(15)..Offset(30)).await.unwrap();
    assert_eq!(taken, TakenBack::Done { rows: 15 });
    assert_eq!(place.offsets(&p0).await, range(0, 15));
}
