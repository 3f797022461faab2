//! Each row of "killed / the table has / then": the process dies, or the engine, or the answer is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use aion_schemas::log::Partition;
use aion_sinks::{
    clickhouse::{ClickHouseSink, Settings},
    conformance::{Log, marks, settle, take},
    sink::{Sink, SinkError},
};
use serde_json::json;

use crate::{
    inserts::{plain, said},
    relay::Relay,
    shared::{Of, Place, once, orders, range, settings, settle_slowly, spec},
};

#[tokio::test]
async fn killed_before_the_insert_the_successor_reads_on_from_the_chain() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    settle(&mut writer).await;
    take(&mut writer, log.batch(0, 10, 20)).await;
    drop(writer);
    assert_eq!(place.found(&p0).await, marks([(&p0, 10)]));
}

#[tokio::test]
async fn killed_after_the_insert_the_successor_finds_the_batch() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    let insert = format!("INSERT INTO {}", place.table());
    place.engine.fault(&insert, json!({"kind": "drop_after"})).await;
    once(&mut writer).await.unwrap_err();
    drop(writer);
    assert_eq!(place.found(&p0).await, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_the_batch_found() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    let insert = format!("INSERT INTO {}", place.table());
    place.engine.fault(&insert, json!({"kind": "drop_after"})).await;
    let failed = once(&mut writer).await;
    assert!(matches!(failed, Err(SinkError::Retry { .. })), "{failed:?}");
    assert_eq!(settle(&mut writer).await.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// A writer that waits three seconds for an answer, and a batch whose INSERT meets a fault.
async fn hasty(fault: serde_json::Value) -> (Place, Partition, ClickHouseSink) {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let hasty = Settings {
        answer_within: Duration::from_secs(2),
        lease: Duration::from_mins(1),
        ..settings()
    };
    let mut writer = place.house.sink(spec(), hasty);
    writer.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut writer, log.batch(0, 0, 10)).await;
    place.engine.fault(&format!("INSERT INTO {}", place.table()), fault).await;
    let failed = once(&mut writer).await;
    assert!(matches!(failed, Err(SinkError::Retry { .. })), "{failed:?}");
    (place, p0, writer)
}

/// It is applied, and the writer has given up waiting for the answer; the server still has the query.
#[tokio::test]
async fn an_answer_that_comes_too_late_is_looked_for_and_the_batch_found() {
    let (place, p0, mut writer) = hasty(json!({"kind": "sleep_after", "seconds": 6})).await;
    assert_eq!(settle_slowly(&mut writer).await.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// The same before it is applied: it is sent again, and refused while the first may yet land.
#[tokio::test]
async fn while_an_insert_runs_another_of_its_token_is_refused() {
    let (place, p0, mut writer) = hasty(json!({"kind": "sleep_before", "seconds": 8})).await;
    let running = once(&mut writer).await.unwrap_err();
    assert!(matches!(running, SinkError::Retry { .. }), "{running:?}");
    assert!(running.to_string().contains("is already running"), "{running}");
    assert_eq!(place.offsets(&p0).await.len(), 0, "neither has landed");
    assert_eq!(settle_slowly(&mut writer).await.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
    assert_eq!(place.batches().await, [(0, 9)]);
}

#[tokio::test]
async fn an_insert_that_stored_nothing_is_sent_again() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    let insert = format!("INSERT INTO {}", place.table());
    place.engine.fault(&insert, json!({"kind": "drop_before"})).await;
    let failed = once(&mut writer).await;
    assert!(matches!(failed, Err(SinkError::Retry { .. })), "{failed:?}");
    assert_eq!(place.offsets(&p0).await, range(0, 0));
    assert_eq!(settle(&mut writer).await.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// A token whose part is gone: what a crash between the server's two writes leaves.
#[tokio::test]
async fn a_token_without_its_part_is_passed_by_another_token() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    settle(&mut writer).await;
    take(&mut writer, log.batch(0, 10, 20)).await;
    settle(&mut writer).await;
    // A lightweight DELETE takes the rows and leaves the token.
    let sql = format!("DELETE FROM {} WHERE _batch_first = 10", place.table());
    place.engine.run(&sql).await;
    let mut next = place.owner(&p0).await;
    take(&mut next, log.batch(0, 10, 20)).await;
    let waits = once(&mut next).await;
    assert!(
        matches!(&waits, Err(SinkError::Retry { cause, .. }) if cause.contains("another token")),
        "{waits:?}"
    );
    assert_eq!(settle_slowly(&mut next).await.marks, marks([(&p0, 20)]));
    assert_eq!(place.offsets(&p0).await, range(0, 20));
}

/// What a writer says that doesn't go on.
async fn stops(writer: &mut ClickHouseSink) -> String {
    let start = Instant::now();
    let failed = loop {
        match once(writer).await {
            Err(SinkError::Retry { .. }) if start.elapsed() < Duration::from_mins(1) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            ended => break ended.unwrap_err(),
        }
    };
    assert!(matches!(failed, SinkError::Fatal { .. }), "{failed:?}");
    failed.to_string()
}

/// How often rows were sent under each token.
fn tokens(relay: &Relay) -> BTreeMap<String, usize> {
    let mut sent = BTreeMap::new();
    for path in relay.inserts("orders") {
        *sent.entry(said(&path)["insert_deduplication_token"].clone()).or_default() += 1;
    }
    sent
}

/// What takes rows away as they come, such as a TTL of the owner's own: a person is told, and nothing passes for stored.
#[tokio::test]
async fn what_no_token_brings_into_the_table_stops_the_job() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let (relay, house) = plain(&place).await;
    let settings = Settings { lease: Duration::from_secs(1), ..settings() };
    let mut writer = house.sink(spec(), settings);
    writer.assign(std::slice::from_ref(&p0)).await.unwrap();
    relay.loses_rows.store(true, SeqCst);
    take(&mut writer, log.batch(0, 0, 10)).await;
    let text = stops(&mut writer).await;
    assert!(text.contains("acknowledged under three tokens, and not in the table"), "{text}");
    let sent = tokens(&relay);
    let base = format!("{}/0", p0.key());
    let tokens = [base.clone(), format!("{base}#1"), format!("{base}#2")];
    assert!(sent.keys().eq(&tokens), "{sent:?}");
    assert!(sent.values().all(|times| *times == 2), "twice each: {sent:?}");
    let inserts = relay.inserts("orders");
    let ids: BTreeSet<String> = inserts.iter().map(|path| said(path)["query_id"].clone()).collect();
    // While one of them runs, under whichever token, the server refuses the others.
    assert_eq!(ids, BTreeSet::from([format!("aion/{}/{base}", place.table())]));
}

/// A row policy that comes while a job runs hides what landed: under another token it would land again.
#[tokio::test]
async fn what_a_row_policy_hides_goes_under_no_other_token() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let (relay, house) = plain(&place).await;
    let mut writer = house.sink(spec(), settings());
    writer.assign(std::slice::from_ref(&p0)).await.unwrap();
    relay.loses_rows.store(true, SeqCst);
    relay.hides_rows.store(true, SeqCst);
    take(&mut writer, log.batch(0, 0, 10)).await;
    let text = stops(&mut writer).await;
    let policy = format!("a row policy hides rows of {} from the account", place.table());
    assert!(text.contains(&policy), "{text}");
    assert_eq!(tokens(&relay), BTreeMap::from([(format!("{}/0", p0.key()), 2)]));
    let mut writer = house.sink(spec(), settings());
    let refused = writer.assign(std::slice::from_ref(&p0)).await.unwrap_err().to_string();
    assert!(refused.contains(&policy), "nor does another begin: {refused}");
}

#[tokio::test]
async fn rows_older_than_the_table_keeps_count_as_stored() {
    let table = orders(Some(1));
    let (place, log) = (Place::on(Of::Shared(crate::engine::shared()), table).await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    assert_eq!(settle(&mut writer).await.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 0), "they expire as they come");
    assert_eq!(place.found(&p0).await, marks([(&p0, 10)]), "and aren't read again");
    assert_eq!(place.owner(&p0).await.take_lost(), [], "nor missed");
}

/// The engine is killed again and again while a writer goes on; whatever it had said, each row is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_killed_while_it_inserts() {
    let (place, log) = (Place::own().await, Log::new());
    let p0 = log.partition(0);
    let (mut wanted, mut kills) = (0, 0);
    for round in 0..10_u64 {
        let mut writer = place.owner(&p0).await;
        let found = place.found(&p0).await;
        let first = found.get(&p0).map_or(0, |mark| mark.offset.get());
        assert!(first >= wanted, "{first} was acknowledged up to {wanted}");
        take(&mut writer, log.batch(0, first, first + 3000)).await;
        let killer = async {
            tokio::time::sleep(Duration::from_millis(3 * round)).await;
            place.engine.kill();
        };
        let (flushed, ()) = tokio::join!(once(&mut writer), killer);
        kills += 1;
        wanted =
            flushed.ok().and_then(|f| f.marks.get(&p0).map(|m| m.offset.get())).unwrap_or(first);
        drop(writer);
        place.engine.start_again();
    }
    let mut writer = place.owner(&p0).await;
    let found = place.found(&p0).await;
    let first = found.get(&p0).map_or(0, |mark| mark.offset.get());
    take(&mut writer, log.batch(0, first, first + 10)).await;
    assert_eq!(settle_slowly(&mut writer).await.marks, marks([(&p0, first + 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, first + 10), "after {kills} kills");
}
