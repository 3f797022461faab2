//! What can't be had is refused, unless less is asked for; and what less means.

use aion_schemas::log::{Mark, Offset};
use aion_sinks::{
    clickhouse::{
        ClickHouse, ClickHouseSink, Server,
        guarantee::{Guarantee, Weight},
    },
    conformance::{Log, marks, settle, take},
    sink::{Sink, SinkError},
};

use crate::{
    engine,
    shared::{Place, once, range, server, settings, spec},
};

const BOTH: [Guarantee; 2] = [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce];

/// The place's database, with so much asked of its tables.
fn asking(place: &Place, guarantee: Guarantee) -> ClickHouse {
    let server = Server { guarantee, ..server(&place.engine, &place.database) };
    ClickHouse::new(server).unwrap()
}

fn open(place: &Place, guarantee: Guarantee) -> ClickHouseSink {
    asking(place, guarantee).sink(spec(), settings())
}

#[tokio::test]
async fn a_table_without_protections_is_taken_where_at_least_once_is_asked_for() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let alter = format!("ALTER TABLE {}", place.table());
    place.engine.run(&format!("{alter} DROP CONSTRAINT lease")).await;
    let none = "MODIFY SETTING non_replicated_deduplication_window = 0";
    place.engine.run(&format!("{alter} {none}")).await;
    let refused = place.open().assign(std::slice::from_ref(&p0)).await.unwrap_err().to_string();
    for says in ["window is 0", "no constraint lease", "plan", "guarantee = \"at_least_once\""] {
        assert!(refused.contains(says), "all that is to be changed: {refused}");
    }
    let fit = asking(&place, Guarantee::AtLeastOnce).fit(spec(), settings()).await.unwrap();
    let doubles = fit.findings.iter().filter(|one| one.weight == Weight::Doubles).count();
    assert_eq!((doubles, fit.best()), (2, Guarantee::AtLeastOnce), "{:?}", fit.findings);
    let mut sink = open(&place, Guarantee::AtLeastOnce);
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut sink, log.batch(0, 0, 10)).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

#[tokio::test]
async fn what_would_lose_rows_is_refused_whatever_is_asked_for() {
    let place = Place::new().await;
    let marks = format!("{}.marks", place.database);
    let small = "MODIFY SETTING non_replicated_deduplication_window = 5";
    place.engine.run(&format!("ALTER TABLE {marks} {small}")).await;
    for guarantee in BOTH {
        let mut sink = open(&place, guarantee);
        let failed = sink.assign(&[Log::new().partition(0)]).await.unwrap_err();
        assert!(matches!(failed, SinkError::Fatal { .. }), "{failed:?}");
        assert!(!failed.to_string().contains("at_least_once"), "no help: {failed}");
    }
}

/// What an INSERT does that was sent again after its token was forgotten.
fn again(place: &Place) -> [String; 2] {
    let table = place.table();
    [
        format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS lease"),
        format!("INSERT INTO {table} SELECT * FROM {table}"),
    ]
}

#[tokio::test]
async fn a_batch_that_is_there_twice_stops_a_job_unless_that_is_allowed() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut first = place.owner(&p0).await;
    take(&mut first, log.batch(0, 0, 10)).await;
    settle(&mut first).await;
    for sql in again(&place) {
        place.engine.run(&sql).await;
    }
    let table = place.table();
    let lease = "ADD CONSTRAINT lease CHECK _lease > now()";
    place.engine.run(&format!("ALTER TABLE {table} {lease}")).await;
    let failed = place.open().assign(std::slice::from_ref(&p0)).await.unwrap_err();
    assert!(failed.to_string().contains("0..10 are there more than once"), "{failed}");
    let mut sink = open(&place, Guarantee::AtLeastOnce);
    let found = sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    assert_eq!(found, marks([(&p0, 10)]));
    take(&mut sink, log.batch(0, 10, 20)).await;
    settle(&mut sink).await;
    let twice = (0..10).flat_map(|offset| [offset, offset]);
    assert_eq!(place.offsets(&p0).await, twice.chain(10..20).collect::<Vec<i64>>());
}

/// The same while it is on its way: its writer sees it twice when it looks.
#[tokio::test]
async fn a_batch_that_lands_twice_is_stored_where_that_is_allowed() {
    for guarantee in BOTH {
        let (place, log) = (Place::new().await, Log::new());
        let p0 = log.partition(0);
        let mut sink = open(&place, guarantee);
        sink.assign(std::slice::from_ref(&p0)).await.unwrap();
        let statements = again(&place);
        sink.rig().after_insert(Box::new(move || {
            Box::pin(async move {
                for sql in statements {
                    engine::shared().run(&sql).await;
                }
            })
        }));
        take(&mut sink, log.batch(0, 0, 10)).await;
        let ended = once(&mut sink).await;
        if guarantee == Guarantee::AtLeastOnce {
            assert_eq!(ended.unwrap().marks, marks([(&p0, 10)]));
        } else {
            let failed = ended.unwrap_err();
            assert!(matches!(failed, SinkError::Fatal { .. }), "{failed:?}");
            assert!(failed.to_string().contains("more than once"), "{failed}");
        }
        assert_eq!(place.offsets(&p0).await.len(), 20);
    }
}

/// A zombie's batch that lies over one's own, and goes beyond: nothing is written behind one's own end.
#[tokio::test]
async fn who_finds_anothers_batch_over_its_own_looks_before_the_next() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut sink = open(&place, Guarantee::AtLeastOnce);
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    let table = place.table();
    let beyond = format!(
        "INSERT INTO {table} SELECT * REPLACE (toInt64(14) AS _batch_last,
            toDateTime('2100-01-01 00:00:00') AS _lease) FROM {table} SETTINGS insert_deduplicate = 0"
    );
    sink.rig().after_insert(Box::new(move || {
        Box::pin(async move {
            engine::shared().run(&beyond).await;
        })
    }));
    take(&mut sink, log.batch(0, 0, 10)).await;
    assert_eq!(once(&mut sink).await.unwrap().marks, marks([(&p0, 10)]));
    take(&mut sink, log.batch(0, 10, 20)).await;
    let flushed = once(&mut sink).await.unwrap();
    assert_eq!((flushed.marks, flushed.moved), (marks([]), vec![p0.clone()]));
    assert_eq!(place.batches().await, [(0, 9), (0, 14)]);
    let found = sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    let behind = Mark::behind_hole(Offset(15), Some(1));
    assert_eq!(
        found.get(&p0),
        Some(&behind),
        "behind the furthest, which has no row for each offset"
    );
}
