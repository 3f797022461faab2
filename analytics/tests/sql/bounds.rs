//! Bounds on memory and time.

use std::time::{Duration, Instant};

use aion_analytics::{Engine, Error};

use crate::lake::{TestLake, ask, decision, number};

#[tokio::test]
async fn a_query_beyond_its_memory_fails_with_advice() {
    let lake = TestLake::new();
    let mut settings = lake.settings();
    settings.memory_bytes = 4 << 20;
    settings.spill_bytes = 1 << 20;
    let engine = Engine::open(settings).unwrap();
    let sql = "select count(*) from (select value, array_agg(value * 2) \
               from range(1, 10000000) group by value)";
    let error = ask(&engine, sql).await.unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error:?}");
    assert!(error.to_string().contains("more than the 4 MiB"), "{error}");
    assert_eq!(number(&engine, "select 1").await, 1, "the next query has its memory back");
}

#[tokio::test]
async fn a_sort_beyond_its_memory_goes_to_disk() {
    let mut settings = TestLake::new().settings();
    settings.memory_bytes = 24 << 20;
    let engine = Engine::open(settings).unwrap();
    let sql = "select count(*) from (select row_number() over (order by value desc) as n, \
               value from range(0, 3000000)) where n + value = 3000000";
    assert_eq!(number(&engine, sql).await, 3_000_000);
}

#[tokio::test]
async fn a_query_beyond_its_time_is_stopped() {
    let mut settings = TestLake::new().settings();
    settings.deadline = Duration::from_millis(200);
    let engine = Engine::open(settings).unwrap();
    let begun = Instant::now();
    let endless = "select count(*) from range(0, 3000000000) a, range(0, 3000000000) b";
    let error = ask(&engine, endless).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_the_query() {
    let mut settings = TestLake::new().settings();
    settings.threads = 1;
    let engine = Engine::open(settings).unwrap();
    let answer = engine.query("select count(*) from range(0, 3000000000000)").await.unwrap();
    drop(answer);
    // The only thread is free again.
    assert_eq!(number(&engine, "select 1").await, 1);
}

#[tokio::test]
async fn queries_run_beside_each_other() {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("a", "small", "10:00:00")]).await;
    let engine = lake.engine();
    let one = || number(&engine, "select count(*) from decisions where route = 'small'");
    let counts = futures::future::join_all((0..16).map(|_| one())).await;
    assert_eq!(counts, [1; 16]);
}
