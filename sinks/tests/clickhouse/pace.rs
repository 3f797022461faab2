//! A writer sends no more INSERTs than the table remembers for long enough, and fewer where there are too many parts: what
//! fills faster goes in larger batches.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use aion_sinks::{
    clickhouse::{ClickHouseSink, Settings, testing::Protection},
    conformance::{Log, settle, take},
    sink::{Flush, Sink, SinkError},
};

use serde_json::json;

use crate::{
    inserts::{plain, said},
    shared::{Place, once, range, settings, spec},
};

/// So many batches come.
const BATCHES: i64 = 10;
/// Of 500 partitions each has five of a quarter of the window's 10,000 while an INSERT may be on its way, so for five
/// seconds: one at once, and then four.
const EVERY: Duration = Duration::from_millis(1250);

/// A writer that found two partitions when it was started; by now the topic has more.
async fn one_of_many(place: &Place, log: &Log) -> ClickHouseSink {
    let mut sink = place.house.sink(spec(), settings());
    sink.assign(&[log.partition(0)]).await.unwrap();
    sink.topic_has(500);
    sink
}

/// Has each batch written as it comes; since when.
async fn hurry(sink: &mut ClickHouseSink, log: &Log) -> Instant {
    let since = Instant::now();
    for first in (0..BATCHES).map(|n| 10 * n) {
        take(sink, log.batch(0, first, first + 10)).await;
        once(sink).await.unwrap();
    }
    since
}

/// How many INSERTs may have been sent by now.
fn most(since: Instant) -> usize {
    1 + (since.elapsed().as_millis() / EVERY.as_millis()) as usize
}

#[tokio::test]
async fn what_fills_faster_than_the_window_allows_goes_in_larger_batches() {
    let (place, log) = (Place::new().await, Log::new());
    let mut sink = one_of_many(&place, &log).await;
    let since = hurry(&mut sink, &log).await;
    let p0 = log.partition(0);
    while place.offsets(&p0).await.len() < 10 * BATCHES as usize {
        assert!(since.elapsed() < Duration::from_mins(1), "the rest waits, and goes");
        tokio::time::sleep(Duration::from_millis(100)).await;
        once(&mut sink).await.unwrap();
    }
    let batches = place.batches().await;
    assert!(batches.len() <= most(since), "{batches:?} after {:?}", since.elapsed());
    assert!(batches.len() > 1 && batches.len() < BATCHES as usize, "{batches:?}");
    assert_eq!(place.offsets(&p0).await, range(0, 10 * BATCHES));
}

/// Negative control.
#[tokio::test]
async fn without_the_pace_each_batch_goes_as_it_fills() {
    let (place, log) = (Place::new().await, Log::new());
    let mut sink = one_of_many(&place, &log).await;
    sink.rig().turn_off(Protection::Pace);
    let since = hurry(&mut sink, &log).await;
    let batches = place.batches().await;
    assert_eq!(batches.len(), BATCHES as usize);
    assert!(batches.len() > most(since), "more than may be, after {:?}", since.elapsed());
}

/// A batch was refused so often since there are too many parts, and then taken: after how many times their age the next rows
/// go, which are few.
async fn ages_waited(refusals: usize) -> u32 {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let age = Duration::from_secs(10);
    let mut sink = place.house.sink(spec(), Settings { flush_age: age, ..settings() });
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut sink, log.batch(0, 0, 10)).await;
    for _ in 0..refusals {
        let text = "Too many parts (3000)";
        let fault = json!({"kind": "refuse", "code": 252, "status": 500, "text": text});
        place.engine.fault(&format!("INSERT INTO {}", place.table()), fault).await;
        let failed = once(&mut sink).await.unwrap_err();
        assert!(matches!(failed, SinkError::Retry { .. }), "{failed:?}");
    }
    settle(&mut sink).await;
    take(&mut sink, log.batch(0, 10, 20)).await;
    let came = Instant::now();
    for ages in 0..10 {
        // The caller has the clock: the time is said, and not waited for.
        sink.flush(came + age * ages, Flush::Due).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        if place.batches().await.len() == 2 {
            return ages;
        }
    }
    panic!("the rest waits, and goes");
}

/// Each refusal doubles how long rows wait, and what is taken halves it.
#[tokio::test]
async fn after_too_many_parts_rows_wait_longer() {
    let waited = tokio::join!(ages_waited(0), ages_waited(2), ages_waited(3));
    assert_eq!(waited, (1, 2, 4));
}

/// A batch that is too much for the line gets no answer, twice, each in three seconds. That is no server which doesn't keep
/// up: waiting longer would make the others too much as well.
#[tokio::test]
async fn what_is_not_answered_has_no_rows_wait_longer() {
    let (place, log) = (Place::new().await, Log::new());
    let (p0, p1) = (log.partition(0), log.partition(1));
    let (relay, house) = plain(&place).await;
    let age = Duration::from_secs(1);
    let settings = Settings { flush_age: age, answer_within: Duration::from_secs(2), ..settings() };
    let mut sink = house.sink(spec(), settings);
    sink.assign(&[p0, p1.clone()]).await.unwrap();
    relay.most_bytes.store(0, SeqCst);
    relay.is_silent.store(true, SeqCst);
    take(&mut sink, log.batch(0, 0, 10)).await;
    for _ in 0..2 {
        once(&mut sink).await.unwrap_err();
    }
    take(&mut sink, log.batch(1, 0, 10)).await;
    let came = Instant::now();
    sink.flush(came, Flush::Due).await.unwrap();
    let token = format!("{}/0", p1.key());
    for _ in 0..50 {
        // What becomes of the first partition's is an error of its own.
        drop(sink.flush(came + age, Flush::Due).await);
        let inserts = relay.inserts("orders");
        if inserts.iter().any(|path| said(path)["insert_deduplication_token"] == token) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("its age has come, and it waits");
}
