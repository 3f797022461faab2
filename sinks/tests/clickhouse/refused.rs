//! What the server won't take whole goes in halves; a row that it won't take at all is told, and its neighbours land.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use aion_schemas::log::{Offset, Partition};
use aion_sinks::{
    batch::Batch,
    clickhouse::{ClickHouseSink, Settings, testing::Protection},
    conformance::{Log, marks, settle, take},
    sink::{Flushed, Sink, SinkError},
};
use arrow::{
    array::{AsArray, StringArray},
    record_batch::RecordBatch,
};
use serde_json::{Value, json};

use crate::{
    inserts::plain,
    relay::Relay,
    shared::{Place, once, range, settings, spec},
};

/// A table with something of its owner's, of the row's `value`, which is a quarter of the offset.
async fn owned(add: &str) -> (Place, Log, Partition) {
    let (place, log) = (Place::new().await, Log::new());
    place.engine.run(&format!("ALTER TABLE {} ADD {add}", place.table())).await;
    let p0 = log.partition(0);
    (place, log, p0)
}

/// A table with a constraint of its owner's.
async fn picky(condition: &str) -> (Place, Log, Partition) {
    owned(&format!("CONSTRAINT own CHECK {condition}")).await
}

fn refused(flushed: &Flushed) -> Vec<(&Partition, i64)> {
    flushed.refused.iter().map(|one| (&one.partition, one.offset.get())).collect()
}

/// Of a table that takes any row but that of offset 21: it is told, and all others land. What the server says of it.
async fn only_21_is_refused((place, log, p0): (Place, Log, Partition)) -> String {
    let mut sink = place.owner(&p0).await;
    take(&mut sink, log.batch(0, 0, 30)).await;
    take(&mut sink, log.batch(0, 30, 50)).await;
    let told = settle(&mut sink).await;
    assert_eq!(refused(&told), [(&p0, 21)]);
    assert_eq!(place.offsets(&p0).await, range(0, 21), "what stands before it");
    // The job reads on from there, and the record is a dead letter now.
    assert_eq!(sink.assign(std::slice::from_ref(&p0)).await.unwrap()[&p0].offset, Offset(21));
    take(&mut sink, log.hollow(0, 21, 22)).await;
    take(&mut sink, log.batch(0, 22, 50)).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 50)]));
    assert_eq!(place.offsets(&p0).await, [range(0, 21), range(22, 50)].concat());
    let batches = place.batches().await;
    assert_eq!(batches.last(), Some(&(21, 49)), "the whole range is covered: {batches:?}");
    let follow = batches.windows(2).all(|two| two[0].1 + 1 == two[1].0);
    assert!(follow, "{batches:?}");
    told.refused[0].cause.clone()
}

#[tokio::test]
async fn a_refused_row_is_found_and_told_and_its_neighbours_land() {
    let cause = only_21_is_refused(picky("value != 5.25").await).await;
    assert!(cause.contains("Constraint `own`"), "{cause}");
    assert!(!cause.contains("5.25 ") && !cause.contains("Column values"), "no value: {cause}");
}

/// What the server can't compute of one row, it can't of the batch, as often as it is sent.
#[tokio::test]
async fn a_row_of_which_a_column_cant_be_computed_is_told_and_its_neighbours_land() {
    for (computed, function) in [
        ("Int64 MATERIALIZED intDiv(1, toInt64(value * 4) - 21)", "intDiv"),
        ("Float64 MATERIALIZED toFloat64(if(value = 5.25, id, '1'))", "toFloat64"),
        ("Decimal32(4) MATERIALIZED toDecimal32(if(value = 5.25, 1e9, 1.), 4)", "toDecimal32"),
        ("String MATERIALIZED base64Decode(if(value = 5.25, '!!', ''))", "base64Decode"),
    ] {
        let cause = only_21_is_refused(owned(&format!("COLUMN own {computed}")).await).await;
        let says = format!("while executing 'FUNCTION {function}(");
        assert!(cause.contains(&says), "{computed}: {cause}");
        assert!(!cause.contains("000000000021"), "the id is no number, and in the record: {cause}");
    }
}

/// The same rows with another `id` in one of them.
fn with_id(mut batch: Batch, row: usize, id: &str) -> Batch {
    let schema = batch.rows.schema();
    let at = schema.index_of("id").unwrap();
    let mut columns = batch.rows.columns().to_vec();
    let ids = columns[at].as_string::<i32>().iter().enumerate();
    let ids: StringArray = ids.map(|(n, old)| if n == row { Some(id) } else { old }).collect();
    columns[at] = Arc::new(ids);
    batch.rows = RecordBatch::try_new(schema, columns).unwrap();
    batch
}

/// The server says what stands in the row, and that passes for no word of its own: it would be sent with new leases for ever.
#[tokio::test]
async fn a_refused_row_whose_text_is_that_of_the_lease_is_told() {
    let (place, log, p0) = picky("NOT startsWith(id, 'Constraint')").await;
    let mut sink = place.owner(&p0).await;
    take(&mut sink, with_id(log.batch(0, 0, 4), 2, "Constraint `lease`")).await;
    assert_eq!(refused(&settle(&mut sink).await), [(&p0, 2)]);
    assert_eq!(place.offsets(&p0).await, range(0, 2));
}

#[tokio::test]
async fn several_refused_rows_are_told_one_after_the_other() {
    let (place, log, p0) = picky("value NOT IN (0, 1.75, 2)").await; // offsets 0, 7 and 8
    let mut sink = place.owner(&p0).await;
    let (mut told, mut next) = (Vec::new(), 0);
    for _ in 0..4 {
        let mut at = next;
        while at < 10 {
            let batch = if told.contains(&at) {
                log.hollow(0, at, at + 1)
            } else {
                log.batch(0, at, at + 1)
            };
            take(&mut sink, batch).await;
            at += 1;
        }
        let flushed = settle(&mut sink).await;
        told.extend(refused(&flushed).iter().map(|(_, offset)| *offset));
        let found = sink.assign(std::slice::from_ref(&p0)).await.unwrap();
        next = found.get(&p0).map_or(0, |mark| mark.offset.get());
    }
    assert_eq!((told, next), (vec![0, 7, 8], 10));
    assert_eq!(place.offsets(&p0).await, [range(1, 7), range(9, 10)].concat());
}

/// An answer that says that a row is refused, of a batch that has landed: what a view that fails does.
#[tokio::test]
async fn a_refusal_is_not_believed_of_rows_that_are_there() {
    let (place, log, p0) = picky("1").await;
    let mut sink = place.owner(&p0).await;
    take(&mut sink, log.batch(0, 0, 10)).await;
    let fault = json!({"kind": "refuse_after", "code": 395, "status": 500, "text": "a view"});
    place.engine.fault(&format!("INSERT INTO {}", place.table()), fault).await;
    assert_eq!(once(&mut sink).await.unwrap().marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// Negative control: without halves it is the batch's first row that is told, which nothing is wrong with.
#[tokio::test]
async fn without_halves_a_neighbour_is_told_in_its_place() {
    let (place, log, p0) = picky("value != 5.25").await; // offset 21
    let mut sink = place.owner(&p0).await;
    sink.rig().turn_off(Protection::Halves);
    take(&mut sink, log.batch(0, 0, 30)).await;
    assert_eq!(refused(&settle(&mut sink).await), [(&p0, 0)]);
    assert!(place.offsets(&p0).await.is_empty());
}

/// Negative control: what is believed of rows that have landed makes one of them a dead letter too.
#[tokio::test]
async fn without_the_look_a_row_that_is_there_is_told() {
    let (place, log, p0) = picky("1").await;
    let mut sink = place.owner(&p0).await;
    sink.rig().turn_off(Protection::Verify);
    take(&mut sink, log.batch(0, 0, 1)).await;
    let fault = json!({"kind": "refuse_after", "code": 395, "status": 500, "text": "a view"});
    place.engine.fault(&format!("INSERT INTO {}", place.table()), fault).await;
    assert_eq!(refused(&once(&mut sink).await.unwrap()), [(&p0, 0)]);
    assert_eq!(place.offsets(&p0).await, [0], "and a row");
}

/// A column that was changed refuses every row: none of them is rejected for that.
#[tokio::test]
async fn a_table_that_was_changed_stops_the_job_and_rejects_nothing() {
    let (place, log, p0) = picky("1").await;
    let mut sink = place.owner(&p0).await;
    let sql = format!("ALTER TABLE {} MODIFY COLUMN value Int64", place.table());
    place.engine.run(&sql).await;
    take(&mut sink, log.batch(0, 0, 10)).await;
    let fault = json!({"kind": "refuse", "code": 53, "status": 400, "text": "Type mismatch"});
    place.engine.fault(&format!("INSERT INTO {}", place.table()), fault).await;
    let failed = once(&mut sink).await.unwrap_err();
    assert!(matches!(failed, SinkError::Fatal { .. }), "{failed:?}");
    assert!(failed.to_string().contains("column value is Int64"), "{failed}");
}

/// What a server says of a batch that is too large for it.
async fn goes_in_halves(fault: &Value, code: u32) {
    let (place, log, p0) = picky("1").await;
    let mut sink = place.owner(&p0).await;
    take(&mut sink, log.batch(0, 0, 16)).await;
    for _ in 0..2 {
        place.engine.fault(&format!("INSERT INTO {}", place.table()), fault.clone()).await;
    }
    for _ in 0..2 {
        let failed = once(&mut sink).await.unwrap_err();
        assert!(matches!(failed, SinkError::Retry { .. }), "it passes: {failed:?}");
        assert!(failed.to_string().contains(&format!("Code: {code}. ")), "{failed}");
    }
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 16)]));
    assert_eq!(place.batches().await, [(0, 3), (4, 8), (9, 14), (15, 15)]);
    assert_eq!(place.offsets(&p0).await, range(0, 16));
    // The next large one doesn't meet the same: it goes in parts that grow.
    take(&mut sink, log.batch(0, 16, 48)).await;
    assert_eq!(once(&mut sink).await.unwrap().marks, marks([(&p0, 48)]));
    assert_eq!(place.batches().await[4..], [(16, 22), (23, 30), (31, 40), (41, 47)]);
    assert_eq!(place.offsets(&p0).await, range(0, 48));
}

/// In the engine's own words.
#[tokio::test]
async fn a_batch_that_is_too_large_for_the_servers_memory_goes_in_halves() {
    let little = json!({"max_memory_usage": "1", "max_untracked_memory": "1"});
    goes_in_halves(&json!({"kind": "set", "settings": little}), 241).await;
}

/// Sent again as it is, it would take too long for ever.
#[tokio::test]
async fn a_batch_that_takes_the_server_too_long_goes_in_halves() {
    let text = "Timeout exceeded: elapsed 60 s, maximum: 60";
    let fault = json!({"kind": "refuse", "code": 159, "status": 500, "text": text});
    goes_in_halves(&fault, 159).await;
}

/// A writer behind a proxy that lets no more bytes through than half-way between those of a batch of 100 rows and of one of
/// 400, which it has stored; it waits three seconds for an answer.
async fn behind_a_proxy(place: &Place, log: &Log) -> (Arc<Relay>, ClickHouseSink) {
    let (relay, house) = plain(place).await;
    let settings = Settings { answer_within: Duration::from_secs(2), ..settings() };
    let mut sink = house.sink(spec(), settings);
    sink.assign(&[log.partition(0)]).await.unwrap();
    let mut bytes = 0;
    for (first, end) in [(0, 100), (100, 500)] {
        take(&mut sink, log.batch(0, first, end)).await;
        settle(&mut sink).await;
        bytes += relay.last_bytes();
    }
    relay.most_bytes.store(bytes / 2, SeqCst);
    (relay, sink)
}

/// What one try to write everything says that is to be made again.
async fn says(sink: &mut ClickHouseSink) -> String {
    let failed = once(sink).await.unwrap_err();
    assert!(matches!(failed, SinkError::Retry { .. }), "it passes: {failed:?}");
    failed.to_string()
}

/// The rest of what was too large whole lands in halves.
async fn halves_land(place: &Place, log: &Log, sink: &mut ClickHouseSink) {
    let p0 = log.partition(0);
    assert_eq!(settle(sink).await.marks, marks([(&p0, 900)]));
    assert_eq!(place.batches().await, [(0, 99), (100, 499), (500, 699), (700, 899)]);
    assert_eq!(place.offsets(&p0).await, range(0, 900));
}

#[tokio::test]
async fn what_is_too_large_for_a_proxy_goes_in_halves_and_it_is_said_what_to_raise() {
    let (place, log) = (Place::new().await, Log::new());
    let (_relay, mut sink) = behind_a_proxy(&place, &log).await;
    take(&mut sink, log.batch(0, 500, 900)).await;
    let said = says(&mut sink).await;
    assert!(said.contains("HTTP 413") && said.contains("client_max_body_size"), "{said}");
    halves_land(&place, &log, &mut sink).await;
}

#[tokio::test]
async fn what_is_not_answered_twice_goes_in_halves() {
    let (place, log) = (Place::new().await, Log::new());
    let (relay, mut sink) = behind_a_proxy(&place, &log).await;
    relay.is_silent.store(true, SeqCst);
    take(&mut sink, log.batch(0, 500, 900)).await;
    for _ in 0..2 {
        let said = says(&mut sink).await;
        assert!(!said.contains("the line may be too slow"), "once may be chance: {said}");
    }
    let said = says(&mut sink).await;
    let why = "sent 2 times and not answered, where questions are: the line may be too slow";
    assert!(said.contains(why) && said.contains("client_max_body_size"), "{said}");
    halves_land(&place, &log, &mut sink).await;
}

/// Nothing is wrong with it, and a limit can be raised.
#[tokio::test]
async fn a_single_row_that_is_too_large_is_no_dead_letter_and_waits() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let (relay, mut sink) = behind_a_proxy(&place, &log).await;
    relay.most_bytes.store(0, SeqCst);
    take(&mut sink, log.batch(0, 500, 502)).await;
    assert!(!says(&mut sink).await.contains("a single row"), "there are two");
    for _ in 0..3 {
        let said = says(&mut sink).await;
        assert!(
            said.contains("insert into orders, offsets 500..501 of orders/0: HTTP 413"),
            "{said}"
        );
        assert!(said.contains("client_max_body_size") && said.contains("a single row"), "{said}");
    }
    relay.most_bytes.store(usize::MAX, SeqCst);
    let told = settle(&mut sink).await;
    assert!(told.refused.is_empty(), "{told:?}");
    assert_eq!(told.marks, marks([(&p0, 502)]));
    assert_eq!(place.offsets(&p0).await, range(0, 502));
}
