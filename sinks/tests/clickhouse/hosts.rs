//! Several addresses: the next is asked when one fails. That they are replicas can't be had here, where no Keeper is, so
//! one engine stands for all of them.

use aion_schemas::clickhouse::{database, marks as table_of_marks};
use aion_sinks::{
    clickhouse::{ClickHouse, Server, guarantee::Guarantee, testing::Protection},
    conformance::{Log, settle, take},
    sink::{Sink, SinkError},
};
use serde_json::json;
use url::Url;

use crate::{
    engine::Engine,
    failures::stranger,
    shared::{Place, once, orders, range, server, settings, spec},
};

/// Nobody listens there.
const DEAD: &str = "http://127.0.0.1:9";
const WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

/// The place's database behind these addresses, then its own.
fn behind(place: &Place, addresses: &[&str]) -> ClickHouse {
    let own = server(&place.engine, &place.database);
    let before = addresses.iter().map(|address| address.parse::<Url>().unwrap());
    let urls = before.chain(own.urls.clone()).collect();
    let guarantee = Guarantee::AtLeastOnce;
    ClickHouse::new(Server { urls, guarantee, ..own }).unwrap()
}

#[tokio::test]
async fn addresses_of_a_table_that_is_not_replicated_are_refused() {
    let place = Place::new().await;
    let mut sink = behind(&place, &[DEAD]).sink(spec(), settings());
    let failed = sink.assign(&[Log::new().partition(0)]).await.unwrap_err();
    assert!(matches!(failed, SinkError::Fatal { .. }), "{failed:?}");
    let text = failed.to_string();
    assert!(text.contains("orders is not replicated at http://127.0.0.1"), "{text}");
    assert!(text.contains("marks is not replicated"), "the table beside it neither: {text}");
    assert!(text.contains("replicated.sql") && !text.contains("at_least_once"), "{text}");
}

#[tokio::test]
async fn a_dead_address_is_passed_over_and_tables_are_not_made_on_one_server() {
    let place = Place::empty(crate::shared::Of::Shared(crate::engine::shared()));
    let house = behind(&place, &[DEAD, DEAD]);
    let changes = house.plan(&[orders(None)], &[]).await.unwrap();
    assert_eq!(changes.len(), 3, "{changes:?}");
    for change in &changes {
        assert!(!change.adds && change.what.contains("replicated.sql"), "{change:?}");
    }
    let none = Server { urls: vec![DEAD.parse().unwrap(); 2], ..server(&place.engine, "d") };
    let failed = ClickHouse::new(none).unwrap().query("SELECT 1", WITHIN).await.unwrap_err();
    assert!(matches!(failed, SinkError::Retry { .. }), "none is left: {failed:?}");
}

/// Another engine with the place's tables, and its address.
async fn like(place: &Place) -> (Engine, String) {
    let (name, other) = (&place.database, Engine::own());
    let tables = [table_of_marks(name, None), orders(None).create(name, None)];
    for made in [database(name, None)].into_iter().chain(tables) {
        other.run(&made.sql).await;
    }
    let address = format!("http://127.0.0.1:{}", other.port);
    (other, address)
}

#[tokio::test]
async fn settings_are_looked_at_and_set_at_each_address() {
    let place = Place::new().await;
    let (_other, address) = like(&place).await;
    let house = behind(&place, &[&address]);
    let plan = || async { house.plan(&[orders(None)], &[]).await.unwrap() };
    assert_eq!(plan().await, []);
    // The other is asked first, and has it as it should be.
    let small = "MODIFY SETTING non_replicated_deduplication_window = 5";
    place.engine.run(&format!("ALTER TABLE {} {small}", place.table())).await;
    let changes = plan().await;
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].what, "non_replicated_deduplication_window is 5");
    house.apply(&changes[0]).await.unwrap();
    assert_eq!(plan().await, []);
}

/// What the look at addresses keeps out: rows that are at one of them, and are looked for at another.
#[tokio::test]
async fn without_the_look_at_addresses_rows_are_scattered() {
    let (place, log) = (Place::new().await, Log::new());
    let (other, address) = like(&place).await;
    let p0 = log.partition(0);
    let mut sink = behind(&place, &[&address]).sink(spec(), settings());
    sink.rig().turn_off(Protection::Replicas);
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut sink, log.batch(0, 0, 10)).await;
    let lost = json!({"kind": "drop_after"});
    other.fault(&format!("INSERT INTO {}", place.table()), lost).await;
    once(&mut sink).await.unwrap_err();
    settle(&mut sink).await;
    take(&mut sink, log.batch(0, 10, 20)).await;
    settle(&mut sink).await;
    let count = other.rows(&format!("SELECT count() FROM {}", place.table())).await;
    assert_eq!(count, [json!([10])], "these are at both, and the next at one");
    assert_eq!(place.offsets(&p0).await, range(0, 20));
}

#[tokio::test]
async fn an_address_that_fails_in_a_way_that_passes_is_not_asked_next() {
    let place = Place::new().await;
    let (busy, asked) = stranger("503 Service Unavailable", "Code: 202. Too many queries").await;
    let house = behind(&place, &[&busy]);
    let failed = house.query("SELECT 1", WITHIN).await.unwrap_err();
    assert!(matches!(failed, SinkError::Retry { .. }), "it may have run there: {failed:?}");
    for _ in 0..3 {
        house.query("SELECT 1", WITHIN).await.unwrap();
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn replicas_are_asked_for_the_order_that_they_agree_on() {
    for (guarantee, is_sent) in [(Guarantee::AtLeastOnce, true), (Guarantee::ExactlyOnce, false)] {
        let (address, asked) = stranger("200 OK", "").await;
        let urls = vec![address.parse().unwrap()];
        let server = Server { urls, guarantee, ..server(crate::engine::shared(), "d") };
        let mut sink = ClickHouse::new(server).unwrap().sink(spec(), settings());
        sink.assign(&[Log::new().partition(0)]).await.unwrap_err();
        let asked = asked.lock().unwrap();
        for setting in [
            "insert_quorum=auto",
            "insert_quorum_parallel=0",
            "insert_quorum_timeout=20000",
            "select_sequential_consistency=1",
        ] {
            assert_eq!(asked[0].contains(setting), is_sent, "{setting}: {}", asked[0]);
        }
    }
}
