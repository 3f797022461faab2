//! What the server had acknowledged and its disk lost: filled while it is young, reported when it is old.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::log::{Mark, Marks, Offset, Partition};
use aion_sinks::{
    batch::Batch,
    clickhouse::{ClickHouseSink, Settings, testing::Protection},
    conformance::{Log, ROW_BYTES, marks, settle, take},
    sink::{Accepted, Flush, Sink, SinkError},
};
use arrow::{array::Int32Array, record_batch::RecordBatch};
use serde_json::json;

use crate::{
    engine,
    shared::{Of, Place, once, orders, range, settings, settle_slowly, spec},
};

/// A table of four batches of ten, and a writer that has noted how far it is.
async fn four_batches() -> (Place, Log, Partition) {
    four_batches_kept(None).await
}

/// The same in a table whose TTL takes rows after so many days.
async fn four_batches_kept(days: Option<u32>) -> (Place, Log, Partition) {
    let place = Place::on(Of::Shared(engine::shared()), orders(days)).await;
    let (log, p0) = four_batches_in(&place).await;
    (place, log, p0)
}

async fn four_batches_in(place: &Place) -> (Log, Partition) {
    let log = Log::new();
    let p0 = log.partition(0);
    let mut writer =
        place.house.sink(spec(), Settings { note_every: Duration::ZERO, ..settings() });
    writer.assign(std::slice::from_ref(&p0)).await.unwrap();
    for first in [0, 10, 20, 30] {
        take(&mut writer, log.batch(0, first, first + 10)).await;
        settle(&mut writer).await;
    }
    assert_eq!(place.batches().await, [(0, 9), (10, 19), (20, 29), (30, 39)]);
    (log, p0)
}

/// Takes batches away and leaves their tokens, as a disk does that loses a part.
async fn lose(place: &Place, firsts: &str) {
    let sql = format!("DELETE FROM {} WHERE _batch_first IN ({firsts})", place.table());
    place.engine.run(&sql).await;
}

/// What a disk does: the folders of the parts that have these batches are gone, and the engine finds the others.
async fn lose_folders(place: &Place, firsts: &str) {
    let (database, table) = (&place.database, place.table());
    let sql = format!(
        "SELECT path FROM system.parts WHERE database = '{database}' AND table = 'orders' AND active \
         AND name IN (SELECT _part FROM {table} WHERE _batch_first IN ({firsts}))"
    );
    let folders = place.engine.rows(&sql).await;
    place.engine.kill();
    for folder in &folders {
        std::fs::remove_dir_all(folder[0].as_str().unwrap()).unwrap();
    }
    place.engine.start_again();
}

/// A writer for which what was stored within `window` is young.
async fn writer(place: &Place, p0: &Partition, window: Duration) -> (ClickHouseSink, i64) {
    let settings = Settings { repair_window: window, ..settings() };
    let mut sink = place.house.sink(spec(), settings);
    let found = sink.assign(std::slice::from_ref(p0)).await.unwrap();
    let first = found[p0].offset.get();
    (sink, first)
}

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_young_break_is_filled_and_what_follows_isnt_doubled() {
    let (place, log, p0) = four_batches().await;
    lose(&place, "10").await;
    let (mut sink, first) = writer(&place, &p0, HOUR).await;
    assert_eq!(first, 10);
    // It reads on as ever, over what is stored further on.
    for first in [10, 17, 24, 31, 38] {
        take(&mut sink, log.batch(0, first, first + 7)).await;
    }
    assert_eq!(settle_slowly(&mut sink).await.marks, marks([(&p0, 45)]));
    assert_eq!(place.offsets(&p0).await, range(0, 45));
    assert_eq!(place.batches().await, [(0, 9), (10, 19), (20, 29), (30, 39), (40, 44)]);
}

/// Negative control: a filling that goes on beyond the break doubles what is stored behind it.
#[tokio::test]
async fn without_the_cut_a_filling_doubles() {
    let (place, log, p0) = four_batches().await;
    lose(&place, "10").await;
    let (mut sink, _) = writer(&place, &p0, HOUR).await;
    sink.rig().turn_off(Protection::Cut);
    sink.rig().turn_off(Protection::Verify);
    // Under a token of its own: that of offset 10 is known.
    sink.rig().turn_off(Protection::Token);
    take(&mut sink, log.batch(0, 10, 25)).await;
    settle(&mut sink).await;
    let doubled: Vec<i64> = (0..20).chain((20..25).flat_map(|n| [n, n])).chain(25..40).collect();
    assert_eq!(place.offsets(&p0).await, doubled);
}

/// The second batch and the last are gone, and a writer that finds it so.
async fn second_and_last_are_filled(place: &Place, log: &Log, p0: &Partition) {
    assert_eq!(place.batches().await, [(0, 9), (20, 29)]);
    let (mut sink, first) = writer(place, p0, HOUR).await;
    assert_eq!(first, 10);
    take(&mut sink, log.batch(0, 10, 50)).await;
    assert_eq!(settle_slowly(&mut sink).await.marks, marks([(p0, 50)]));
    assert_eq!(place.offsets(p0).await, range(0, 50));
    assert_eq!(place.batches().await, [(0, 9), (10, 19), (20, 29), (30, 39), (40, 49)]);
}

#[tokio::test]
async fn two_lost_batches_one_of_them_the_last() {
    let (place, log, p0) = four_batches().await;
    lose(&place, "10, 30").await;
    second_and_last_are_filled(&place, &log, &p0).await;
}

#[tokio::test]
async fn two_parts_whose_folders_are_gone_one_of_them_the_last() {
    let place = Place::own().await;
    // A part for each batch: merged ones would go together.
    place.engine.run(&format!("SYSTEM STOP MERGES {}", place.table())).await;
    let (log, p0) = four_batches_in(&place).await;
    lose_folders(&place, "10, 30").await;
    second_and_last_are_filled(&place, &log, &p0).await;
}

#[tokio::test]
async fn what_is_old_was_erased_and_does_not_come_back() {
    let (place, log, p0) = four_batches().await;
    lose(&place, "10, 30").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (mut sink, first) = writer(&place, &p0, Duration::from_secs(1)).await;
    assert_eq!(first, 40);
    let lost = [10..20, 30..40]
        .map(|at: std::ops::Range<i64>| (p0.clone(), Offset(at.start)..Offset(at.end)));
    assert_eq!(sink.take_lost(), lost);
    assert_eq!(sink.take_lost(), [], "told once");
    take(&mut sink, log.batch(0, 40, 50)).await;
    settle(&mut sink).await;
    let kept: Vec<i64> = (0..10).chain(20..30).chain(40..50).collect();
    assert_eq!(place.offsets(&p0).await, kept);
}

/// The server drops what has expired part by part, so an older batch may outlive a younger one.
#[tokio::test]
async fn what_the_ttl_may_have_taken_out_of_a_chain_is_neither_lost_nor_to_be_repaired() {
    let (place, _, p0) = four_batches().await;
    lose(&place, "10, 30").await;
    place.engine.run(&format!("SYSTEM STOP TTL MERGES {}", place.table())).await;
    let short = "MODIFY TTL toDateTime(_append_time) + toIntervalDay(1)";
    let sql =
        format!("ALTER TABLE {} {short} SETTINGS materialize_ttl_after_modify = 0", place.table());
    place.engine.run(&sql).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (mut sink, first) = writer(&place, &p0, Duration::from_secs(1)).await;
    assert_eq!((first, sink.take_lost()), (40, vec![]));
    assert_eq!(place.house.breaks(spec()).await.unwrap(), []);
    assert_eq!(place.batches().await, [(0, 9), (20, 29)], "expired, and there still");
}

/// Negative control: whoever fills every break resurrects what was erased.
#[tokio::test]
async fn without_the_age_erased_rows_come_back() {
    let (place, _, p0) = four_batches().await;
    lose(&place, "10").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let settings = Settings { repair_window: Duration::from_secs(1), ..settings() };
    let mut sink = place.house.sink(spec(), settings);
    sink.rig().turn_off(Protection::OldBreaks);
    let found = sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    assert_eq!(found[&p0].offset.get(), 10, "it would read them again");
}

#[tokio::test]
async fn some_rows_of_a_batch_erased_are_no_break() {
    let (place, _, p0) = four_batches().await;
    place.engine.run(&format!("DELETE FROM {} WHERE _offset IN (11, 35)", place.table())).await;
    assert_eq!(place.found(&p0).await, marks([(&p0, 40)]));
}

#[tokio::test]
async fn an_emptied_table_is_not_filled_again() {
    let (place, log, p0) = four_batches().await;
    place.engine.run(&format!("TRUNCATE TABLE {}", place.table())).await;
    assert_eq!(place.found(&p0).await, marks([(&p0, 40)]));
    let mut sink = place.owner(&p0).await;
    assert_eq!(sink.take_lost(), [], "nor recorded as a loss at every start");
    let told = place.house.breaks(spec()).await.unwrap();
    assert_eq!(told[0].range, Offset(0)..Offset(40), "it can be asked for, though");
    take(&mut sink, log.batch(0, 40, 45)).await;
    settle(&mut sink).await;
    assert_eq!(place.batches().await, [(40, 44)]);
    assert_eq!(place.found(&p0).await, marks([(&p0, 45)]), "nor at the next start");
}

/// A head, or all that there is, is told and filled on request only; whether the table's TTL keeps it or there is none.
async fn is_told_and_filled_on_request(days: Option<u32>, gone: &str, end: i64) {
    let (place, log, p0) = four_batches_kept(days).await;
    lose(&place, gone).await;
    let head = Offset(0)..Offset(end);
    let (mut sink, first) = writer(&place, &p0, HOUR).await;
    assert_eq!((first, sink.take_lost()), (40, vec![]));
    let breaks = place.house.breaks(spec()).await.unwrap();
    assert_eq!(breaks.iter().map(|one| &one.range).collect::<Vec<_>>(), [&head]);
    place.house.request_repair(spec(), &breaks[0]).await.unwrap();
    assert_eq!(place.house.breaks(spec()).await.unwrap(), []);
    let (mut sink, first) = writer(&place, &p0, HOUR).await;
    assert_eq!((first, sink.take_lost()), (0, vec![]));
    take(&mut sink, log.batch(0, 0, 50)).await;
    assert_eq!(settle_slowly(&mut sink).await.marks, marks([(&p0, 50)]));
    assert_eq!(place.offsets(&p0).await, range(0, 50));
}

#[tokio::test]
async fn a_lost_head_is_told_and_filled_on_request() {
    for days in [None, Some(3650)] {
        is_told_and_filled_on_request(days, "0, 10", 20).await;
    }
}

#[tokio::test]
async fn a_partition_that_lost_all_rows_is_told_and_filled_on_request() {
    for days in [None, Some(3650)] {
        is_told_and_filled_on_request(days, "0, 10, 20, 30", 40).await;
    }
}

#[tokio::test]
async fn an_old_break_is_filled_when_somebody_asks_for_just_that_one() {
    let (place, log, p0) = four_batches().await;
    lose(&place, "10, 30").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let breaks = place.house.breaks(spec()).await.unwrap();
    let ranges: Vec<_> = breaks.iter().map(|one| one.range.clone()).collect();
    assert_eq!(ranges, [Offset(10)..Offset(20), Offset(30)..Offset(40)]);
    place.house.request_repair(spec(), &breaks[0]).await.unwrap();
    assert_eq!(place.house.breaks(spec()).await.unwrap(), breaks[1..], "asked for already");
    let (mut sink, first) = writer(&place, &p0, Duration::from_secs(1)).await;
    assert_eq!(first, 10);
    take(&mut sink, log.batch(0, 10, 50)).await;
    assert_eq!(settle_slowly(&mut sink).await.marks, marks([(&p0, 50)]));
    assert_eq!(place.offsets(&p0).await, [range(0, 30), range(40, 50)].concat());
}

/// What retention took before somebody asked for it: the job hands over what the log has no more without rows, over what
/// is stored between.
#[tokio::test]
async fn a_break_that_the_log_has_no_more_is_passed_over_and_nothing_behind_it_is_missed() {
    let (place, log, p0) = four_batches().await;
    lose(&place, "0, 20").await;
    for one in place.house.breaks(spec()).await.unwrap() {
        place.house.request_repair(spec(), &one).await.unwrap();
    }
    let (mut sink, first) = writer(&place, &p0, HOUR).await;
    let ahead = [10..20, 30..40].map(|at: std::ops::Range<i64>| Offset(at.start)..Offset(at.end));
    assert_eq!((first, sink.stored_ahead(&p0)), (0, ahead.to_vec()));
    // The log begins at 26.
    take(&mut sink, log.hollow(0, 0, 26)).await;
    take(&mut sink, log.batch(0, 26, 50)).await;
    assert_eq!(settle_slowly(&mut sink).await.marks, marks([(&p0, 50)]));
    let stored = [range(10, 20), range(26, 50)].concat();
    assert_eq!(place.offsets(&p0).await, stored);
    assert_eq!(place.batches().await, [(10, 19), (20, 29), (30, 39), (40, 49)]);
    let (mut sink, first) = writer(&place, &p0, HOUR).await;
    assert_eq!((first, sink.take_lost()), (0, vec![]), "what was asked for is tried for a day");
    take(&mut sink, log.hollow(0, 0, 60)).await;
    assert_eq!(settle_slowly(&mut sink).await.marks, marks([(&p0, 60)]));
    assert_eq!(place.offsets(&p0).await, stored);
}

/// Reads six partitions on from 10 to 80, ten offsets at a time, as a job does: a batch that has no room is written
/// again after the next flush.
async fn read_on(sink: &mut ClickHouseSink, log: &Log) {
    let (mut next, mut stored) = ([10; 6], Marks::new());
    while stored.values().filter(|mark| mark.offset == Offset(80)).count() < next.len() {
        for (number, next) in (0..).zip(&mut next) {
            if *next < 80
                && let Accepted::Taken =
                    sink.write(log.batch(number, *next, *next + 10)).await.unwrap()
            {
                *next += 10;
            }
        }
        match sink.flush(Instant::now(), Flush::Due).await {
            Ok(flushed) => stored.extend(flushed.marks),
            Err(SinkError::Retry { .. }) => {}
            Err(error) => panic!("it should pass: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A part may have had rows of every partition, and what fills the breaks shares one room: each partition's share of
/// it is less than its break, and less than what is inserted for its size.
#[tokio::test]
async fn breaks_of_many_partitions_are_filled_although_the_room_is_small() {
    let (place, log) = (Place::new().await, Log::new());
    let all: Vec<Partition> = (0..6).map(|number| log.partition(number)).collect();
    let mut writer = place.open();
    writer.assign(&all).await.unwrap();
    for (first, end) in [(0, 10), (10, 70), (70, 80)] {
        for number in 0..6 {
            take(&mut writer, log.batch(number, first, end)).await;
        }
        settle(&mut writer).await;
    }
    lose(&place, "10").await;
    let (flush_bytes, hold_bytes) = (40 * ROW_BYTES, 160 * ROW_BYTES);
    let mut sink = place.house.sink(spec(), Settings { flush_bytes, hold_bytes, ..settings() });
    let found = sink.assign(&all).await.unwrap();
    assert!(found.values().all(|mark| mark.offset == Offset(10)), "{found:?}");
    let filled = tokio::time::timeout(Duration::from_mins(1), read_on(&mut sink, &log)).await;
    assert!(filled.is_ok(), "all wait for room that none of them gives back");
    for partition in &all {
        assert_eq!(place.offsets(partition).await, range(0, 80), "{partition}");
    }
}

/// The same rows as another leader epoch has them.
fn of_epoch(mut batch: Batch, epoch: i32) -> Batch {
    let schema = batch.rows.schema();
    let mut columns = batch.rows.columns().to_vec();
    columns[schema.index_of("_leader_epoch").unwrap()] =
        Arc::new(Int32Array::from(vec![epoch; batch.rows.num_rows()]));
    batch.rows = RecordBatch::try_new(schema, columns).unwrap();
    batch.epoch = epoch;
    batch
}

/// By these a job finds that the log was cut, before the break or behind it. What a job that doesn't look would lose is shown
/// too: the records of a log that was cut at 15 and has grown again, at offsets where others are stored.
#[tokio::test]
async fn a_break_is_told_with_the_epochs_before_it_and_behind_it() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(&p0).await;
    for (first, epoch) in [(0, 3), (10, 4), (20, 5), (30, 7)] {
        take(&mut sink, of_epoch(log.batch(0, first, first + 10), epoch)).await;
        settle(&mut sink).await;
    }
    let at = |offset: i64, epoch: i32| Some(Mark { offset: Offset(offset), epoch });
    assert_eq!(sink.last_ahead(&p0), None);
    lose(&place, "10").await;
    let mut sink = place.open();
    let found = sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    assert_eq!((found.get(&p0).copied(), sink.last_ahead(&p0)), (at(10, 3), at(40, 7)));

    take(&mut sink, log.batch(0, 10, 15)).await;
    take(&mut sink, of_epoch(log.batch(0, 15, 50), 8)).await;
    settle_slowly(&mut sink).await;
    let sql = format!("SELECT _offset FROM {} WHERE _leader_epoch = 8 ORDER BY ALL", place.table());
    let rows = place.engine.rows(&sql).await;
    let landed: Vec<i64> = rows.iter().map(|row| row[0].as_i64().unwrap()).collect();
    assert_eq!(landed, [range(15, 20), range(40, 50)].concat());
}

/// Rows of epoch 3, and behind them offsets without one up to `next`, with the mark that is read there.
fn with_none_behind(rows: Batch, next: i64, epoch: i32) -> Batch {
    let mut batch = of_epoch(rows, 3);
    (batch.range.end, batch.epoch) = (Offset(next), epoch);
    batch
}

fn behind(offset: i64, epoch: i32) -> Mark {
    Mark::behind_hole(Offset(offset), Some(epoch))
}

/// By the rows where those say it, by a note where the last record is of a later leader and has no row.
#[tokio::test]
async fn a_restart_knows_the_epoch_of_the_last_record_below_its_mark() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(&p0).await;
    // A transaction's marker, of whatever leader.
    take(&mut sink, with_none_behind(log.batch(0, 0, 10), 12, behind(12, 3).epoch)).await;
    settle(&mut sink).await;
    assert_eq!(place.found(&p0).await.get(&p0), Some(&behind(12, 3)));
    // A rejected record.
    take(&mut sink, with_none_behind(log.batch(0, 12, 19), 20, 4)).await;
    settle(&mut sink).await;
    let rejected = Mark { offset: Offset(20), epoch: 4 };
    assert_eq!(place.found(&p0).await.get(&p0), Some(&rejected));
    take(&mut sink, of_epoch(log.batch(0, 20, 30), 4)).await;
    settle(&mut sink).await;
    assert_eq!(place.batches().await, [(0, 11), (12, 18), (19, 29)]);
    assert_eq!(place.found(&p0).await.get(&p0), Some(&behind(30, 4)));
    assert_eq!(place.offsets(&p0).await, [range(0, 10), range(12, 19), range(20, 30)].concat());
}

/// What a note is to say is said before the mark passes it: killed in between, the successor reads that again.
#[tokio::test]
async fn killed_before_the_note_the_successor_goes_on_behind_the_last_row() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(&p0).await;
    take(&mut sink, of_epoch(log.batch(0, 0, 5), 3)).await;
    settle(&mut sink).await;
    take(&mut sink, with_none_behind(log.batch(0, 5, 10), 12, 4)).await;
    let note = format!("INSERT INTO {}.marks", place.database);
    place.engine.fault(&note, json!({"kind": "drop_before"})).await;
    let failed = once(&mut sink).await;
    assert!(matches!(failed, Err(SinkError::Retry { .. })), "{failed:?}");
    let at_the_row = Mark { offset: Offset(10), epoch: 3 };
    assert_eq!(
        place.found(&p0).await.get(&p0),
        Some(&at_the_row),
        "what it is if it is killed now"
    );
    // It isn't: the rows are found, and the note is written.
    let stored = Mark { offset: Offset(12), epoch: 4 };
    assert_eq!(settle(&mut sink).await.marks.get(&p0), Some(&stored));
    assert_eq!(place.found(&p0).await.get(&p0), Some(&stored));
    assert_eq!(place.batches().await, [(0, 4), (5, 9)]);
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}
