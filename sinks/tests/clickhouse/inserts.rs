//! What a writer sends: the INSERT and its settings, how much in one of them, how many at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use aion_schemas::{clickhouse::LEDGER_COLUMNS, log::Partition};
use aion_sinks::{
    clickhouse::{ClickHouse, Server, Settings},
    conformance::{Log, ROW_BYTES, marks, schema, settle, take},
    sink::{Flush, Sink},
};
use url::Url;

use crate::{
    relay::Relay,
    shared::{Place, range, server, settings, spec},
};

/// A relay before the engine that says nothing of replicas, and the place's database by its address.
pub(crate) async fn plain(place: &Place) -> (Arc<Relay>, ClickHouse) {
    let relay = Relay::start(&place.engine, "plain").await;
    relay.is_plain.store(true, SeqCst);
    let urls = vec![relay.address.parse().unwrap()];
    let server = Server { urls, ..server(&place.engine, &place.database) };
    (relay, ClickHouse::new(server).unwrap())
}

/// Stores ten rows of a partition through such a relay.
async fn ten_stored(place: &Place) -> (Partition, Arc<Relay>, ClickHouse) {
    let log = Log::new();
    let p0 = log.partition(0);
    let (relay, house) = plain(place).await;
    let mut sink = house.sink(spec(), settings());
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut sink, log.batch(0, 0, 10)).await;
    settle(&mut sink).await;
    (p0, relay, house)
}

/// What an INSERT said in its address.
pub(crate) fn said(path: &str) -> BTreeMap<String, String> {
    let url = Url::parse(&format!("http://relay{path}")).unwrap();
    url.query_pairs().into_owned().collect()
}

/// All of it: what isn't sent is what the account or the server has set.
#[tokio::test]
async fn an_insert_brings_along_each_setting_that_the_guarantee_rests_on() {
    let place = Place::new().await;
    let (p0, relay, _) = ten_stored(&place).await;
    let inserts = relay.inserts("orders");
    assert_eq!(inserts.len(), 1, "{inserts:?}");
    let (schema, table, token) = (schema(), place.table(), format!("{}/0", p0.key()));
    let columns = schema.fields().iter().map(|field| field.name().as_str()).chain(LEDGER_COLUMNS);
    let columns = columns.collect::<Vec<_>>().join(", ");
    let query = format!("INSERT INTO {table} ({columns}) FORMAT ArrowStream");
    let query_id = format!("aion/{table}/{token}");
    let wanted = [
        ("query", &*query),
        ("query_id", &*query_id),
        ("insert_deduplication_token", &*token),
        ("insert_deduplicate", "1"),
        ("deduplicate_blocks_in_dependent_materialized_views", "1"),
        ("async_insert", "0"),
        ("max_execution_time", "1"),
        ("max_insert_block_size", "1048576"),
        ("min_insert_block_size_rows", "1048576"),
        ("min_insert_block_size_bytes", "268435456"),
        ("max_partitions_per_insert_block", "1"),
        ("throw_on_max_partitions_per_insert_block", "1"),
        ("wait_end_of_query", "1"),
    ];
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(said(&inserts[0]), BTreeMap::from(wanted));
}

/// Whatever the account's profile has: what an answer lacks would be taken for missing.
#[tokio::test]
async fn a_question_brings_along_each_setting_that_has_its_answer_be_whole() {
    let place = Place::new().await;
    let (_, relay, house) = ten_stored(&place).await;
    let within = Duration::from_secs(10);
    house.query("SELECT 1", within).await.unwrap();
    drop(house.stream("SELECT 1", within).await.unwrap());
    let throws = [
        "read_overflow_mode",
        "read_overflow_mode_leaf",
        "timeout_overflow_mode",
        "timeout_overflow_mode_leaf",
        "result_overflow_mode",
        "group_by_overflow_mode",
        "sort_overflow_mode",
        "distinct_overflow_mode",
        "set_overflow_mode",
        "join_overflow_mode",
    ];
    let others = [
        ("limit", "0"),
        ("offset", "0"),
        ("additional_table_filters", "{}"),
        ("additional_result_filter", ""),
        ("use_query_cache", "0"),
    ];
    let wanted: Vec<_> = throws.map(|name| (name, "throw")).into_iter().chain(others).collect();
    let mut formats = BTreeMap::<String, usize>::new();
    for path in relay.questions() {
        let said = said(&path);
        for (name, value) in &wanted {
            assert_eq!(said.get(*name).map(String::as_str), Some(*value), "{name} of {path}");
        }
        *formats.entry(said["default_format"].clone()).or_default() += 1;
    }
    assert!(formats.keys().eq(["ArrowStream", "JSONCompactEachRow"]), "{formats:?}");
    assert_eq!(formats["ArrowStream"], 2);
}

/// However much waits: more than 256 MiB of rows would be several blocks to a server, and so several tokens.
#[tokio::test]
async fn no_insert_has_more_bytes_than_it_may() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let settings = Settings { max_bytes: 25 * ROW_BYTES, ..settings() };
    let mut sink = place.house.sink(spec(), settings);
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    for first in [0, 10, 20, 30, 40] {
        take(&mut sink, log.batch(0, first, first + 10)).await;
    }
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 50)]));
    assert_eq!(place.batches().await, [(0, 19), (20, 39), (40, 49)]);
    // A batch that is more by itself is cut.
    take(&mut sink, log.batch(0, 50, 80)).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 80)]));
    assert_eq!(place.batches().await[3], (50, 74));
    assert_eq!(place.offsets(&p0).await, range(0, 80));
}

/// Batches come faster than the server takes them: how many INSERTs of so many partitions are on their way at once.
async fn most_at_once(partitions: i32) -> usize {
    let (place, log) = (Place::new().await, Log::new());
    let (relay, house) = plain(&place).await;
    let mut sink = house.sink(spec(), settings());
    let all: Vec<_> = (0..partitions).map(|number| log.partition(number)).collect();
    sink.assign(&all).await.unwrap();
    relay.pause_ms.store(300, SeqCst);
    for first in [0, 10, 20, 30] {
        for number in 0..partitions {
            take(&mut sink, log.batch(number, first, first + 10)).await;
        }
        sink.flush(Instant::now(), Flush::Due).await.unwrap();
    }
    settle(&mut sink).await;
    for partition in &all {
        assert_eq!(place.offsets(partition).await, range(0, 40));
    }
    let sent = relay.inserts("orders").len();
    assert!(sent > all.len(), "each partition has several: {sent}");
    relay.most_at_once("orders")
}

#[tokio::test]
async fn one_insert_is_on_its_way_for_each_partition_and_many_at_once() {
    assert_eq!(most_at_once(1).await, 1);
    let of_four = most_at_once(4).await;
    assert!((2..=4).contains(&of_four), "{of_four}");
}
