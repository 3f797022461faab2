//! Retries: rows that name the rejected record that they are. Each record lands once, whoever sends it how often.

use std::{sync::Arc, time::Duration};

use aion_schemas::{
    log::{Offset, Origin},
    schema::ORIGIN_COLUMN,
};
use aion_sinks::{
    batch::Batch,
    clickhouse::{ClickHouseSink, Settings, testing::Protection},
    conformance::{Log, marks, schema, settle, take},
    sink::{Refused, Sink, SinkError},
};
use arrow::{array::StringArray, record_batch::RecordBatch};

use crate::{
    rivals::nap,
    shared::{Place, once, range, settings, settle_slowly, sleeps, spec},
};

/// The record of `log` at this place.
fn record(log: &Log, offset: i64) -> Origin {
    Origin { topic_id: log.partition(0).stream.id, partition: 0, offset: Offset(offset) }
}

/// Retries that stand from `first` on in a topic of retries.
fn sent(retries: &Log, first: i64, origins: &[Origin]) -> Batch {
    let mut batch = retries.batch(0, first, first + origins.len() as i64);
    let texts: StringArray = origins.iter().map(|origin| Some(origin.to_string())).collect();
    let mut columns = batch.rows.columns().to_vec();
    columns[schema().index_of(ORIGIN_COLUMN).unwrap()] = Arc::new(texts);
    batch.rows = RecordBatch::try_new(schema(), columns).unwrap();
    batch
}

/// Batches over `first..end` in which one offset has no row.
async fn take_without(sink: &mut ClickHouseSink, log: &Log, (first, end): (i64, i64), poison: i64) {
    take(sink, log.batch(0, first, poison)).await;
    take(sink, log.hollow(0, poison, poison + 1)).await;
    take(sink, log.batch(0, poison + 1, end)).await;
}

/// How often a record is stored, as itself or by a retry.
async fn times(place: &Place, origin: Origin) -> i64 {
    let Origin { topic_id, partition, offset } = origin;
    let sql = format!(
        "SELECT toInt64(countIf(_origin = '{origin}') + countIf(_topic_id = '{topic_id}' AND \
         _partition = {partition} AND _offset = {offset})) FROM {}",
        place.table()
    );
    place.engine.rows(&sql).await[0][0].as_i64().unwrap()
}

/// A table with ten records but the one at 5, and writers of its topic and of its retries.
async fn ten_but_one() -> (Place, (Log, Log), ClickHouseSink, ClickHouseSink) {
    let (place, log, retries) = (Place::new().await, Log::new(), Log::new());
    let mut main = place.owner(&log.partition(0)).await;
    take_without(&mut main, &log, (0, 10), 5).await;
    settle(&mut main).await;
    let retrying = place.owner(&retries.partition(0)).await;
    (place, (log, retries), main, retrying)
}

/// The same record sent thrice, twice of it at once; and one that is a row.
async fn however_often(off: bool) -> (Vec<i64>, i64, i64) {
    let (place, (log, retries), _main, mut sink) = ten_but_one().await;
    let r0 = retries.partition(0);
    let poison = record(&log, 5);
    if off {
        sink.rig().turn_off(Protection::Origins);
    }
    take(&mut sink, sent(&retries, 0, &[poison, poison])).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&r0, 2)]));
    take(&mut sink, sent(&retries, 2, &[poison])).await;
    assert_eq!(
        settle(&mut sink).await.marks,
        marks([(&r0, 3)]),
        "the mark passes what is left out"
    );
    drop(sink);
    let mut next = place.owner(&r0).await;
    if off {
        next.rig().turn_off(Protection::Origins);
    }
    take(&mut next, sent(&retries, 3, &[poison, record(&log, 4)])).await;
    assert_eq!(settle(&mut next).await.marks, marks([(&r0, 5)]));
    assert_eq!(place.found(&r0).await[&r0].offset, Offset(5));
    (place.offsets(&r0).await, times(&place, poison).await, times(&place, record(&log, 4)).await)
}

#[tokio::test]
async fn a_retry_lands_once_however_often_it_is_sent() {
    assert_eq!(however_often(false).await, (vec![0], 1, 1));
}

/// Negative control: without the look every one of them lands.
#[tokio::test]
async fn without_the_look_for_origins_each_lands() {
    assert_eq!(however_often(true).await, (range(0, 5), 4, 2));
}

#[tokio::test]
async fn a_retry_whose_answer_was_lost_is_not_taken_for_anothers() {
    let (place, (log, retries), _main, mut sink) = ten_but_one().await;
    let r0 = retries.partition(0);
    take(&mut sink, sent(&retries, 0, &[record(&log, 5)])).await;
    let fault = serde_json::json!({"kind": "drop_after"});
    place.engine.fault(&format!("INSERT INTO {}", place.table()), fault).await;
    let failed = once(&mut sink).await;
    assert!(matches!(failed, Err(SinkError::Retry { .. })), "{failed:?}");
    assert_eq!(settle(&mut sink).await.marks, marks([(&r0, 1)]));
    assert_eq!(times(&place, record(&log, 5)).await, 1);
    assert_eq!(place.batches().await, [(0, 0), (0, 9)]);
}

/// Two owners of the retries hold the same ones, and one lands them after the other has looked for them.
#[tokio::test]
async fn of_two_owners_of_retries_one_lands_them() {
    let (place, (log, retries), _main, mut one) = ten_but_one().await;
    let r0 = retries.partition(0);
    let mut two = place.owner(&r0).await;
    let poison = record(&log, 5);
    take(&mut one, sent(&retries, 0, &[poison])).await;
    take(&mut two, sent(&retries, 0, &[poison, poison])).await;
    two.rig().before_insert(Box::new(move || {
        Box::pin(async move {
            settle(&mut one).await;
        })
    }));
    assert_eq!(once(&mut two).await.unwrap().moved, vec![r0.clone()]);
    assert_eq!(times(&place, poison).await, 1);
}

/// The process died between the dead letter and its mark, and a later build reads the record: the retry waits until it
/// is known which of them lands.
#[tokio::test]
async fn a_retry_waits_until_the_table_is_past_its_record() {
    let (place, (log, retries), mut main, mut sink) = ten_but_one().await;
    let r0 = retries.partition(0);
    take(&mut sink, sent(&retries, 0, &[record(&log, 12)])).await;
    let waits = once(&mut sink).await.unwrap_err();
    assert!(matches!(waits, SinkError::Waits { .. }), "{waits:?}");
    assert!(waits.to_string().contains("waits until the table is past that record"), "{waits}");
    take(&mut main, log.batch(0, 10, 15)).await;
    settle(&mut main).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&r0, 1)]));
    assert_eq!(times(&place, record(&log, 12)).await, 1, "it is a row by now");
    // Rejected once more, it is passed without a row, and its retry lands.
    take(&mut sink, sent(&retries, 1, &[record(&log, 15)])).await;
    assert!(once(&mut sink).await.is_err());
    take(&mut main, log.hollow(0, 15, 16)).await;
    settle(&mut main).await;
    settle(&mut sink).await;
    assert_eq!(times(&place, record(&log, 15)).await, 1);
}

/// The retries that wait, as one try tells them.
async fn waiting(sink: &mut ClickHouseSink) -> Vec<Refused> {
    match once(sink).await {
        Err(SinkError::Waits { rows, .. }) => rows,
        other => panic!("some should wait: {other:?}"),
    }
}

/// The topic of one of three records was made anew before the table was past it: nobody goes on with it.
#[tokio::test]
async fn retries_that_wait_are_told_and_those_behind_them_land_once_they_are_taken_back() {
    let (place, (log, retries), mut main, mut sink) = ten_but_one().await;
    let (r0, gone) = (retries.partition(0), Log::new());
    let (never, poison, later) = (record(&gone, 3), record(&log, 5), record(&log, 12));
    take(&mut sink, sent(&retries, 0, &[never, poison, later])).await;
    let told = waiting(&mut sink).await;
    let offsets: Vec<i64> = told.iter().map(|row| row.offset.get()).collect();
    assert_eq!(offsets, [0, 2], "each that waits, and none that doesn't");
    assert!(told.iter().all(|row| row.partition == r0));
    assert!(told[0].cause.contains(&format!("record {never}")), "{told:?}");
    assert!(told[0].cause.ends_with("it has nothing"), "{told:?}");
    assert!(told[1].cause.ends_with("it has what lies below 10"), "{told:?}");
    assert_eq!(waiting(&mut sink).await, told, "in the same words while nothing comes");
    take(&mut main, log.batch(0, 10, 11)).await;
    settle(&mut main).await;
    let nearer = waiting(&mut sink).await;
    assert_eq!(nearer[0], told[0]);
    assert!(nearer[1].cause.ends_with("it has what lies below 11"), "something came: {nearer:?}");
    take(&mut main, log.hollow(0, 11, 13)).await;
    settle(&mut main).await;
    assert_eq!(waiting(&mut sink).await, [told[0].clone()]);
    // As a job does in the end: it has the partition assigned anew, and the record that waits is no row any more.
    sink.assign(std::slice::from_ref(&r0)).await.unwrap();
    let mut left = sent(&retries, 1, &[poison, later]);
    left.range.start = Offset(0);
    take(&mut sink, left).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&r0, 3)]));
    let mut landed = Vec::new();
    for record in [never, poison, later] {
        landed.push(times(&place, record).await);
    }
    assert_eq!(landed, [0, 1, 1]);
}

/// Negative control: one that doesn't wait is there twice once the record itself is read.
#[tokio::test]
async fn without_the_wait_a_record_is_a_row_and_a_retry() {
    let (place, (log, retries), mut main, mut sink) = ten_but_one().await;
    sink.rig().turn_off(Protection::Origins);
    take(&mut sink, sent(&retries, 0, &[record(&log, 12)])).await;
    settle(&mut sink).await;
    take(&mut main, log.batch(0, 10, 15)).await;
    settle(&mut main).await;
    assert_eq!(times(&place, record(&log, 12)).await, 2);
}

/// A table of three batches; in the second the record at 5 was rejected.
async fn three_batches() -> (Place, Log, Log) {
    let (place, log, retries) = (Place::new().await, Log::new(), Log::new());
    let mut main = place.owner(&log.partition(0)).await;
    take(&mut main, log.batch(0, 0, 3)).await;
    settle(&mut main).await;
    take_without(&mut main, &log, (3, 10), 5).await;
    settle(&mut main).await;
    take(&mut main, log.batch(0, 10, 20)).await;
    settle(&mut main).await;
    (place, log, retries)
}

/// A disk loses the second.
async fn lose_second(place: &Place) {
    place.engine.run(&format!("DELETE FROM {} WHERE _batch_first = 3", place.table())).await;
}

/// A disk loses a batch in which a record was rejected and stored by a retry since; a later build reads that record.
async fn a_break_is_filled(off: bool) -> (i64, Vec<i64>) {
    let (place, log, retries) = three_batches().await;
    let p0 = log.partition(0);
    let mut sink = place.owner(&retries.partition(0)).await;
    take(&mut sink, sent(&retries, 0, &[record(&log, 5)])).await;
    settle(&mut sink).await;
    lose_second(&place).await;
    let mut again = place.open();
    if off {
        again.rig().turn_off(Protection::Origins);
    }
    let found = again.assign(std::slice::from_ref(&p0)).await.unwrap();
    assert_eq!(found[&p0].offset, Offset(3));
    take(&mut again, log.batch(0, 3, 25)).await;
    assert_eq!(settle_slowly(&mut again).await.marks, marks([(&p0, 25)]));
    (times(&place, record(&log, 5)).await, place.offsets(&p0).await)
}

#[tokio::test]
async fn what_fills_a_break_leaves_out_what_a_retry_has_stored() {
    let (times, offsets) = a_break_is_filled(false).await;
    assert_eq!((times, offsets), (1, [range(0, 5), range(6, 25)].concat()));
}

/// Negative control.
#[tokio::test]
async fn without_the_look_a_filled_break_doubles_a_retry() {
    assert_eq!(a_break_is_filled(true).await, (2, range(0, 25)));
}

/// A writer sleeps with a retry that it has looked at. Meanwhile a disk loses the batch in which its record was rejected, a
/// later build fills the break with the record, and the next owner of the retries passes them: it takes no token for that.
/// How often the record is there once the sleeper has woken.
async fn a_sleeper_with_a_retry(off: Option<Protection>) -> i64 {
    let (place, log, retries) = three_batches().await;
    let (p0, r0, rejected) = (log.partition(0), retries.partition(0), record(&log, 5));
    let mut sleeper = place.owner(&r0).await;
    if let Some(protection) = off {
        sleeper.rig().turn_off(protection);
    }
    take(&mut sleeper, sent(&retries, 0, &[rejected])).await;
    let (nap, asleep, wake) = nap();
    sleeper.rig().before_insert(Box::new(nap));
    let others_go_on = async {
        asleep.notified().await;
        lose_second(&place).await;
        // This takes longer than the sleeper's lease.
        let mut filler = place.owner(&p0).await;
        take(&mut filler, log.batch(0, 3, 20)).await;
        assert_eq!(settle_slowly(&mut filler).await.marks, marks([(&p0, 20)]));
        let mut next = place.owner(&r0).await;
        take(&mut next, sent(&retries, 0, &[rejected])).await;
        assert_eq!(settle(&mut next).await.marks, marks([(&r0, 1)]));
        assert_eq!(place.offsets(&r0).await, [0; 0], "the record is there");
        wake.notify_one();
    };
    let (woken, ()) = tokio::join!(sleeps(&mut sleeper), others_go_on);
    assert_eq!(woken.unwrap().marks, marks([(&r0, 1)]));
    assert_eq!(place.offsets(&p0).await, range(0, 20));
    times(&place, rejected).await
}

#[tokio::test]
async fn a_sleeper_looks_again_whether_its_retry_is_stored() {
    assert_eq!(a_sleeper_with_a_retry(None).await, 1);
}

/// Negative control.
#[tokio::test]
async fn without_another_look_a_sleeper_lands_its_retry_beside_the_record() {
    assert_eq!(a_sleeper_with_a_retry(Some(Protection::OriginsAgain)).await, 2);
}

/// The same, and the sleeper wakes within its lease, when the break was found and what fills it is about to be sent.
async fn a_retry_on_its_way(off: Option<Protection>) -> (i64, Vec<i64>) {
    let (place, log, retries) = three_batches().await;
    let (p0, r0, rejected) = (log.partition(0), retries.partition(0), record(&log, 5));
    // It must not run out on a busy machine.
    let lease = Duration::from_mins(1);
    let mut sleeper = place.house.sink(spec(), Settings { lease, ..settings() });
    sleeper.assign(std::slice::from_ref(&r0)).await.unwrap();
    take(&mut sleeper, sent(&retries, 0, &[rejected])).await;
    let (nap, asleep, wake) = nap();
    sleeper.rig().before_insert(Box::new(nap));
    let break_is_found = async {
        asleep.notified().await;
        lose_second(&place).await;
        // It waits for so long, and that must not be over by its first try.
        let lease = Duration::from_secs(20);
        let mut filler = place.house.sink(spec(), Settings { lease, ..settings() });
        filler.assign(std::slice::from_ref(&p0)).await.unwrap();
        if let Some(protection) = off {
            filler.rig().turn_off(protection);
        }
        take(&mut filler, log.batch(0, 3, 20)).await;
        if off.is_some() {
            assert_eq!(settle_slowly(&mut filler).await.marks, marks([(&p0, 20)]));
        } else {
            let waits = once(&mut filler).await.unwrap_err().to_string();
            assert!(waits.contains("retries of its records may be on their way"), "{waits}");
        }
        wake.notify_one();
        filler
    };
    let (woken, mut filler) = tokio::join!(sleeps(&mut sleeper), break_is_found);
    assert_eq!(woken.unwrap().marks, marks([(&r0, 1)]));
    settle_slowly(&mut filler).await;
    (times(&place, rejected).await, place.offsets(&p0).await)
}

#[tokio::test]
async fn what_fills_a_break_waits_for_retries_that_do_not_know_of_it() {
    let (times, offsets) = a_retry_on_its_way(None).await;
    assert_eq!((times, offsets), (1, [range(0, 5), range(6, 20)].concat()));
}

/// Negative control.
#[tokio::test]
async fn without_waiting_for_it_a_retry_lands_beside_the_record() {
    let (times, offsets) = a_retry_on_its_way(Some(Protection::RetriesOnTheirWay)).await;
    assert_eq!((times, offsets), (2, range(0, 20)));
}

/// One try, in which a question of the table isn't answered.
async fn unanswered(place: &Place, sink: &mut ClickHouseSink, question: &str) {
    let question = format!("{question} FROM {}", place.table());
    place.engine.fault(&question, serde_json::json!({"kind": "drop_before"})).await;
    let failed = once(sink).await;
    assert!(matches!(failed, Err(SinkError::Retry { .. })), "{question}: {failed:?}");
}

/// A writer has looked at its retry, and can't look what the table has where it goes. Before its next try a disk loses the batch
/// in which the record was rejected, and a later build fills the break with the record. At that try a lease begins, and it isn't
/// answered whether the record is stored. How often it is there after the third.
async fn a_retry_that_is_not_looked_at_again(off: Option<Protection>) -> i64 {
    let (place, log, retries) = three_batches().await;
    let (p0, r0, rejected) = (log.partition(0), retries.partition(0), record(&log, 5));
    // The control's must not run out on a busy machine before it is used.
    let lease = if off.is_some() { Duration::from_secs(20) } else { settings().lease };
    let mut sink = place.house.sink(spec(), Settings { lease, ..settings() });
    sink.assign(std::slice::from_ref(&r0)).await.unwrap();
    if let Some(protection) = off {
        sink.rig().turn_off(protection);
    }
    take(&mut sink, sent(&retries, 0, &[rejected])).await;
    // Then it looks before it sends.
    tokio::time::sleep(lease / 2).await;
    unanswered(&place, &mut sink, "AS c").await;
    lose_second(&place).await;
    let mut filler = place.owner(&p0).await;
    take(&mut filler, log.batch(0, 3, 20)).await;
    assert_eq!(settle_slowly(&mut filler).await.marks, marks([(&p0, 20)]));
    unanswered(&place, &mut sink, r"assumeNotNull\(_origin\)").await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&r0, 1)]));
    assert_eq!(place.offsets(&p0).await, range(0, 20));
    times(&place, rejected).await
}

#[tokio::test]
async fn a_retry_that_could_not_be_looked_at_is_looked_at_before_it_is_sent() {
    assert_eq!(a_retry_that_is_not_looked_at_again(None).await, 1);
}

/// Negative control: it goes under the lease that had begun.
#[tokio::test]
async fn under_a_lease_without_a_look_a_retry_lands_beside_the_record() {
    let off = Some(Protection::LeaseOfOrigins);
    assert_eq!(a_retry_that_is_not_looked_at_again(off).await, 2);
}
