//! Tables: what is made, what is refused, what `plan` finds and `apply` does.

use aion_schemas::{
    catalog::{Catalog, Environment},
    clickhouse::{Statement, Table, marks, of_topic, statements},
};
use aion_sinks::{
    clickhouse::{Settings, TableSpec, guarantee::Guarantee},
    conformance::{Log, settle, take},
    sink::{Sink, SinkError},
};

use crate::{
    engine,
    inserts::plain,
    shared::{Of, Place, orders, range, settings, spec},
};

fn shared() -> Of {
    Of::Shared(engine::shared())
}

#[tokio::test]
async fn every_statement_of_the_contract_runs_and_runs_again() {
    let place = Place::empty(shared());
    let all = statements(&Catalog::builtin(), &place.database, Environment::Prod, None);
    for _ in 0..2 {
        for statement in &all {
            place.engine.run(&statement.sql).await;
        }
    }
    let sql = format!("SELECT name FROM system.tables WHERE database = '{}'", place.database);
    assert_eq!(place.engine.rows(&sql).await.len(), all.len() - 1, "all but the database");
}

/// No Keeper is at hand, so of what is for a cluster it is only seen that the server reads it as it is meant.
#[tokio::test]
async fn every_statement_for_a_cluster_is_read() {
    let place = Place::empty(shared());
    let all = statements(&Catalog::builtin(), &place.database, Environment::Prod, Some("main"));
    for Statement { object, sql } in &all {
        let quoted = sql.replace('\\', "\\\\").replace('\'', "\\'");
        let read = place.engine.rows(&format!("SELECT formatQuerySingleLine('{quoted}')")).await;
        let read = read[0][0].as_str().unwrap();
        let name = read.split(" ON CLUSTER main").next().unwrap();
        assert!(name != read && name.ends_with(object.as_str()), "{object}: {read}");
        if read.starts_with("CREATE TABLE") {
            let engine = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'";
            assert!(read.contains(engine), "{object}: {read}");
        }
    }
    // The one setting of theirs that no table of one server has.
    let window = "replicated_deduplication_window";
    assert!(all.iter().any(|statement| statement.sql.contains(&format!(" {window} = "))));
    let sql = format!("SELECT count() FROM system.merge_tree_settings WHERE name = '{window}'");
    assert_eq!(place.engine.rows(&sql).await, [serde_json::json!([1])]);
}

#[tokio::test]
async fn a_new_database_has_no_differences() {
    let place = Place::empty(shared());
    let (tables, views) = contract(&place.database);
    let changes = place.house.plan(&tables, &views).await.unwrap();
    assert_eq!(changes.len(), tables.len() + 3, "database, marks, a view: {changes:#?}");
    for change in &changes {
        assert!(change.adds);
        place.house.apply(change).await.unwrap();
    }
    assert_eq!(place.house.plan(&tables, &views).await.unwrap(), []);
}

fn contract(database: &str) -> (Vec<Table>, Vec<Statement>) {
    let catalog = Catalog::builtin();
    let tables = catalog.topics.iter().map(|topic| Table::of(topic, Environment::Prod)).collect();
    let of = |topic| of_topic(topic, database, Environment::Prod, None).into_iter().skip(1);
    (tables, catalog.topics.iter().flat_map(of).collect())
}

#[tokio::test]
async fn what_adds_is_applied_and_the_rest_explained() {
    let table = orders(Some(30));
    let mut old = table.clone();
    old.columns.retain(|column| column.name != "note");
    old.indexes.clear();
    old.keep_days = Some(7);
    old.columns[0].kind = "Nullable(String)".into();
    let place = Place::on(shared(), old).await;
    let alter = format!("ALTER TABLE {}", place.table());
    place.engine.run(&format!("{alter} DROP CONSTRAINT lease")).await;
    place.engine.run(&format!("{alter} ADD COLUMN mine String")).await;
    let small = "MODIFY SETTING non_replicated_deduplication_window = 5";
    place.engine.run(&format!("{alter} {small}")).await;
    place.engine.run(&format!("{alter} RESET SETTING min_bytes_for_wide_part")).await;
    let plan = || async { place.house.plan(std::slice::from_ref(&table), &[]).await.unwrap() };
    let changes = plan().await;
    let (adds, others): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.adds);
    let words = |changes: &[&aion_sinks::clickhouse::plan::Change]| {
        changes.iter().map(|change| change.what.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        words(&adds),
        [
            "column note is missing",
            "index ix_at is missing",
            "index ix_offset is missing",
            "constraint lease is missing",
            "non_replicated_deduplication_window is 5",
            "min_bytes_for_wide_part isn't set",
        ]
    );
    let explained = [
        "column id is Nullable(String), and would be String in a new table",
        "column mine (String) is not of the contract, and is left alone",
        "rows are kept 7 days, and would be kept 30 days",
    ];
    assert_eq!(words(&others), explained);
    for change in &adds {
        place.house.apply(change).await.unwrap();
    }
    assert!(place.house.apply(others[0]).await.is_err());
    assert_eq!(words(&plan().await.iter().collect::<Vec<_>>()), explained);
    place.engine.run(&format!("{alter} MODIFY SETTING min_bytes_for_wide_part = '20M'")).await;
    assert_eq!(
        words(&plan().await.iter().collect::<Vec<_>>()),
        explained,
        "somebody's own size stays"
    );
}

/// The server adds none of a name that there is; and what hangs on another one is its owner's to know.
#[tokio::test]
async fn another_definition_of_a_name_is_explained_and_not_applied() {
    let place = Place::new().await;
    let other = "SELECT _partition, max(_batch_last) GROUP BY _partition";
    for change in [
        "DROP CONSTRAINT lease, ADD CONSTRAINT lease CHECK _lease > now() - 60",
        &format!("DROP PROJECTION chain, ADD PROJECTION chain ({other})"),
        "DROP INDEX ix_offset, ADD INDEX ix_offset _offset TYPE minmax GRANULARITY 2",
    ] {
        place.engine.run(&format!("ALTER TABLE {} {change}", place.table())).await;
    }
    let contract = [orders(None)];
    let plan = || async { place.house.plan(&contract, &[]).await.unwrap() };
    let changes = plan().await;
    let what: Vec<&str> = changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "index ix_offset is another: INDEX ix_offset _offset TYPE minmax GRANULARITY 2",
            &format!("projection chain is another: PROJECTION chain ({other})"),
            "constraint lease is another: CONSTRAINT lease CHECK _lease > (now() - 60)",
        ]
    );
    for change in &changes {
        assert!(!change.adds && place.house.apply(change).await.is_err(), "{change:?}");
    }
    let text = told(&place).await;
    assert!(text.contains("it has no constraint lease CHECK _lease > now()"), "{text}");
    for change in &changes {
        place.engine.run(change.sql.as_deref().unwrap()).await;
    }
    assert_eq!(plan().await, []);
}

/// What is the contract's by name and type can still be something else: an empty map, a question of somebody's own.
#[tokio::test]
async fn what_is_computed_packed_or_asked_otherwise_is_explained_and_not_applied() {
    let place = Place::empty(shared());
    let (tables, views) = contract(&place.database);
    let plan = || async { place.house.plan(&tables, &views).await.unwrap() };
    for change in plan().await {
        place.house.apply(&change).await.unwrap();
    }
    let database = &place.database;
    let tasks = format!("ALTER TABLE {database}.tasks");
    for sql in [
        format!("{tasks} MODIFY COLUMN event_id Nullable(String) MATERIALIZED task_id"),
        format!("{tasks} MODIFY COLUMN metadata_map REMOVE MATERIALIZED"),
        format!("{tasks} MODIFY COLUMN agent_id DEFAULT 'nobody'"),
        format!("{tasks} MODIFY COLUMN _offset CODEC(Delta, LZ4)"),
        format!("{tasks} RESET SETTING lightweight_mutation_projection_mode"),
        format!(
            "CREATE OR REPLACE VIEW {database}.task_latency AS SELECT status FROM {database}.tasks"
        ),
    ] {
        place.engine.run(&sql).await;
    }
    let changes = plan().await;
    let what: Vec<&str> = changes.iter().map(|change| change.what.as_str()).collect();
    let of_tasks = &tables.iter().find(|table| table.name == "tasks").unwrap().columns;
    let map = of_tasks.iter().find(|column| column.name == "metadata_map").unwrap();
    let members = map.materialized.as_deref().unwrap();
    assert_eq!(
        what,
        [
            "column event_id is MATERIALIZED task_id, and would be plain in a new table",
            &format!(
                "column metadata_map is plain, and would be MATERIALIZED {members} in a new table"
            ),
            "the codec of column _offset is Delta, LZ4, and would be Delta, ZSTD(1) in a new table",
            "lightweight_mutation_projection_mode isn't set",
            "the view asks something else",
        ]
    );
    let (adds, others): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.adds);
    assert_eq!(adds.len(), 1, "{adds:?}");
    place.house.apply(adds[0]).await.unwrap();
    for change in others {
        assert!(place.house.apply(change).await.is_err(), "{change:?}");
        place.engine.run(change.sql.as_deref().unwrap()).await;
    }
    assert_eq!(plan().await, []);
    // What somebody has chosen for DELETE FROM, and what isn't a view at all.
    let chosen = "MODIFY SETTING lightweight_mutation_projection_mode = 'drop'";
    place.engine.run(&format!("{tasks} {chosen}")).await;
    place.engine.run(&format!("DROP VIEW {database}.task_latency")).await;
    let own = "(status String) ENGINE = MergeTree ORDER BY status";
    place.engine.run(&format!("CREATE TABLE {database}.task_latency {own}")).await;
    let changes = plan().await;
    let said: Vec<(&str, bool)> =
        changes.iter().map(|change| (change.what.as_str(), change.adds)).collect();
    assert_eq!(
        said,
        [
            ("lightweight_mutation_projection_mode is 'drop'", false),
            ("it is a MergeTree, and no view", false),
        ]
    );
}

#[tokio::test]
async fn a_table_that_keeps_rows_for_another_time_is_explained_and_not_changed() {
    let place = Place::new().await;
    for (days, what, sql) in [
        (
            Some(30),
            "rows are kept for ever, and would be kept 30 days",
            "MODIFY TTL toDateTime(_append_time) + toIntervalDay(30)",
        ),
        (None, "rows are kept 30 days, and would be kept for ever", "REMOVE TTL"),
    ] {
        let contract = [orders(days)];
        let plan = || async { place.house.plan(&contract, &[]).await.unwrap() };
        let changes = plan().await;
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!((changes[0].what.as_str(), changes[0].adds), (what, false));
        assert!(place.house.apply(&changes[0]).await.is_err());
        let sql = format!("ALTER TABLE {} {sql}", place.table());
        assert_eq!(changes[0].sql.as_deref(), Some(&*sql));
        place.engine.run(&sql).await;
        assert_eq!(plan().await, []);
    }
}

#[tokio::test]
async fn old_rows_read_as_null_in_a_new_column() {
    let table = orders(None);
    let mut old = table.clone();
    old.columns.retain(|column| column.name != "note");
    let place = Place::on(shared(), old).await;
    let log = Log::new();
    let row = "INSERT INTO {} (id, at, value, _lease) VALUES ('a', now(), 1, now() + 60)";
    place.engine.run(&row.replace("{}", &place.table())).await;
    for change in place.house.plan(std::slice::from_ref(&table), &[]).await.unwrap() {
        place.house.apply(&change).await.unwrap();
    }
    let mut writer = place.owner(&log.partition(0)).await;
    take(&mut writer, log.batch(0, 0, 1)).await;
    settle(&mut writer).await;
    let sql = format!("SELECT note FROM {} ORDER BY id", place.table());
    let rows = place.engine.rows(&sql).await;
    assert_eq!(rows, [serde_json::json!(["third"]), serde_json::json!([null])]);
}

/// What is asked of a whole table at a start, after each INSERT, and by audit and exports reads batches, and not rows.
#[tokio::test]
async fn what_a_table_has_is_told_by_its_projection() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    settle(&mut writer).await;
    for (what, sql) in place.house.questions(spec(), &p0) {
        let plan = place.engine.run(&format!("EXPLAIN {sql}")).await;
        assert!(plan.contains("ReadFromMergeTree (chain)"), "{what}: {plan}");
        let rows = format!("ReadFromMergeTree ({})", place.table());
        assert!(!plan.contains(&rows), "{what} reads rows: {plan}");
    }
}

/// A table altered in one way is refused, and the error says which.
async fn refused(alter: &str, says: &str) {
    let place = Place::new().await;
    place.engine.run(&format!("ALTER TABLE {} {alter}", place.table())).await;
    let failed = place.open().assign(&[Log::new().partition(0)]).await.unwrap_err();
    assert!(matches!(failed, SinkError::Fatal { .. }), "{failed:?}");
    let text = failed.to_string();
    assert!(text.contains(says) && text.contains("aion clickhouse plan"), "{text}");
}

#[tokio::test]
async fn a_table_that_cant_give_the_guarantee_is_refused() {
    refused("DROP CONSTRAINT lease", "no constraint lease").await;
    refused("DROP COLUMN note", "no column note").await;
    // Enough for what comes by its age from two partitions, and not for what comes faster.
    let small = "MODIFY SETTING non_replicated_deduplication_window = 9999";
    refused(small, "non_replicated_deduplication_window is 9999, and it must be 10000").await;
}

/// The contract's tables have what 104 partitions want; more is asked for with the statement that gives it.
#[tokio::test]
async fn a_window_for_many_partitions_is_refused_with_what_widens_it() {
    let place = Place::new().await;
    let fit = || {
        let spec = TableSpec { partitions: 200, ..spec() };
        place.house.fit(spec, Settings::default())
    };
    let text = fit().await.unwrap_err().to_string();
    let says = "non_replicated_deduplication_window is 10000, and it must be 19200 at least";
    assert!(text.contains(says), "{text}");
    assert_eq!(place.house.plan(&[orders(None)], &[]).await.unwrap(), [], "apply sets no more");
    assert!(!text.contains("aion clickhouse"), "so it would not help: {text}");
    let (_, hint) = text.split_once("; ALTER TABLE ").unwrap();
    let alter = hint.split("; ").next().unwrap();
    place.engine.run(&format!("ALTER TABLE {alter}")).await;
    assert_eq!(fit().await.unwrap().window, (19_200, 19_200));
}

#[tokio::test]
async fn another_engine_or_partition_key_is_refused() {
    for (from, to, says) in [
        ("ENGINE = MergeTree", "ENGINE = ReplacingMergeTree", "its engine is ReplacingMergeTree"),
        ("PARTITION BY _batch_day", "PARTITION BY toYYYYMM(at)", "its partition key is"),
    ] {
        let place = Place::new().await;
        place.engine.run(&format!("DROP TABLE {}", place.table())).await;
        let sql = orders(None).create(&place.database, None).sql.replace(from, to);
        let sql = sql.replace(
            "    lightweight_mutation",
            "    deduplicate_merge_projection_mode = 'rebuild', lightweight_mutation",
        );
        place.engine.run(&sql).await;
        let failed = place.open().assign(&[Log::new().partition(0)]).await.unwrap_err();
        assert!(failed.to_string().contains(says), "{failed}");
    }
}

/// What a server says of clusters that has a `Distributed` table, and what is said of the table then.
async fn distributed(head: &str, body: &str) -> SinkError {
    let place = Place::new().await;
    let (relay, house) = plain(&place).await;
    *relay.clusters.lock().unwrap() = Some((head.to_owned(), body.to_owned()));
    house.sink(spec(), settings()).assign(&[Log::new().partition(0)]).await.unwrap_err()
}

#[tokio::test]
async fn a_distributed_table_is_refused_and_the_one_behind_it_named() {
    let denied = "403 Forbidden\r\nX-ClickHouse-Exception-Code: 497";
    for (head, body, says, hint) in [
        (
            "200 OK",
            "[3]\n",
            "it is Distributed over 3 shards: a batch would be split",
            "on one shard",
        ),
        ("200 OK", "[1]\n", "acknowledged before its rows are anywhere", "by the address"),
        (
            denied,
            "Code: 497. No grant",
            "it is Distributed: a batch would be split",
            "on one shard",
        ),
    ] {
        let failed = distributed(head, body).await;
        assert!(matches!(failed, SinkError::Fatal { .. }), "{failed:?}");
        let text = failed.to_string();
        assert!(text.contains(says) && text.contains(hint), "{text}");
        assert!(text.contains("write into aion.orders_local"), "{text}");
        assert!(!text.contains("no constraint lease"), "what is not looked at isn't told: {text}");
    }
    let busy = "503 Service Unavailable\r\nX-ClickHouse-Exception-Code: 202";
    let passes = distributed(busy, "Code: 202. Too many queries").await;
    assert!(matches!(passes, SinkError::Retry { .. }), "it may tell later: {passes:?}");
}

/// Why a writer of the place is refused.
async fn told(place: &Place) -> String {
    place.open().assign(&[Log::new().partition(0)]).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_table_of_marks_that_lets_two_writers_open_a_table_is_refused() {
    let place = Place::new().await;
    let name = format!("{}.marks", place.database);
    let small = "MODIFY SETTING non_replicated_deduplication_window = 5";
    place.engine.run(&format!("ALTER TABLE {name} {small}")).await;
    let text = told(&place).await;
    let says = "marks beside it: non_replicated_deduplication_window is 5, and must be 10000";
    assert!(text.contains(says) && text.contains("aion clickhouse plan"), "{text}");
    for change in place.house.plan(&[], &[]).await.unwrap() {
        assert_eq!(change.what, "non_replicated_deduplication_window is 5");
        place.house.apply(&change).await.unwrap();
    }
    place.found(&Log::new().partition(0)).await;
    for engine in ["ReplacingMergeTree", "MergeTree"] {
        place.engine.run(&format!("DROP TABLE {name}")).await;
        let made = marks(&place.database, None).sql;
        place.engine.run(&made.replace("ReplacingMergeTree(next)", engine)).await;
        let text = told(&place).await;
        let says = format!("its engine is {engine}, where it must be ReplacingMergeTree(next)");
        assert!(text.contains(&says), "{text}");
        let changes = place.house.plan(&[], &[]).await.unwrap();
        let explained = format!("the engine is {engine}: it must be ReplacingMergeTree(next)");
        assert_eq!(changes.iter().map(|one| &one.what).collect::<Vec<_>>(), [&explained]);
        assert!(!changes[0].adds);
    }
}

#[tokio::test]
async fn what_a_power_failure_may_take_is_told_and_set_where_nobody_said_otherwise() {
    let place = Place::new().await;
    let (table, marks) = (place.table(), format!("{}.marks", place.database));
    for (table, change) in [
        (&table, "RESET SETTING fsync_after_insert"),
        (&table, "MODIFY SETTING fsync_part_directory = 0"),
        (&table, "RESET SETTING ttl_only_drop_parts"),
        (&marks, "RESET SETTING fsync_part_directory"),
    ] {
        place.engine.run(&format!("ALTER TABLE {table} {change}")).await;
    }
    let fit = || async { place.house.fit(spec(), settings()).await.unwrap().findings };
    let told: Vec<String> = fit().await.into_iter().map(|one| one.what).collect();
    assert_eq!(told.len(), 2, "it has no TTL: {told:?}");
    let of_table = "orders has no fsync_after_insert and no fsync_part_directory: a power failure";
    assert!(told[0].starts_with(of_table), "{told:?}");
    assert!(told[1].starts_with("marks has no fsync_part_directory: "), "{told:?}");
    let contract = [orders(None)];
    let changes = place.house.plan(&contract, &[]).await.unwrap();
    let said: Vec<(&str, bool)> =
        changes.iter().map(|change| (change.what.as_str(), change.adds)).collect();
    assert_eq!(
        said,
        [
            ("fsync_part_directory isn't set", true),
            ("fsync_after_insert isn't set", true),
            ("fsync_part_directory is off", false),
            ("ttl_only_drop_parts isn't set", true),
        ]
    );
    for change in changes.iter().filter(|change| change.adds) {
        place.house.apply(change).await.unwrap();
    }
    let left = fit().await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].what.starts_with("orders has no fsync_part_directory: "), "{left:?}");
}

/// Views are the owner's, and stop nobody: what is said of each.
#[tokio::test]
async fn what_is_behind_materialized_views_is_told_with_what_to_do() {
    let place = Place::new().await;
    let database = &place.database;
    let window = "SETTINGS non_replicated_deduplication_window = 10000";
    for sql in [
        format!(
            "CREATE TABLE {database}.exact (id String) ENGINE = MergeTree ORDER BY id {window}"
        ),
        format!("CREATE TABLE {database}.bare (id String) ENGINE = MergeTree ORDER BY id"),
        format!(
            "CREATE MATERIALIZED VIEW {database}.a TO {database}.exact AS SELECT id FROM {}",
            place.table()
        ),
        format!(
            "CREATE MATERIALIZED VIEW {database}.b TO {database}.bare AS SELECT id FROM {}",
            place.table()
        ),
        format!(
            "CREATE MATERIALIZED VIEW {database}.own ENGINE = MergeTree ORDER BY id AS SELECT id FROM {}",
            place.table()
        ),
        // Behind another one, and one that reads what is stored.
        format!(
            "CREATE MATERIALIZED VIEW {database}.c TO {database}.exact AS SELECT id FROM {database}.bare"
        ),
        format!("CREATE VIEW {database}.asked AS SELECT id FROM {}", place.table()),
    ] {
        place.engine.run(&sql).await;
    }
    let fit = place.house.fit(spec(), settings()).await.unwrap();
    assert_eq!(fit.best(), Guarantee::ExactlyOnce, "the table's own rows are");
    let of = |view: &str| {
        let start = format!("the materialized view {database}.{view} ");
        let found: Vec<_> =
            fit.findings.iter().filter(|one| one.what.starts_with(&start)).collect();
        assert_eq!(found.len(), 1, "{view}: {:?}", fit.findings);
        (found[0].what.clone(), found[0].hint.clone())
    };
    assert_eq!(fit.findings.len(), 4, "{:?}", fit.findings);
    for view in ["a", "c"] {
        assert!(of(view).0.contains("has no batch twice, and misses one"), "{:?}", of(view));
    }
    let (what, hint) = of("b");
    let says = format!(
        "may have a batch twice, since non_replicated_deduplication_window of {database}.`bare` is 0"
    );
    assert!(what.contains(&says), "{what}");
    place.engine.run(&hint).await;
    let (what, hint) = of("own");
    assert!(what.contains(&format!("of {database}.`.inner_id.")), "{what}");
    place.engine.run(&hint).await;
    let fit = place.house.fit(spec(), settings()).await.unwrap();
    let once = fit.findings.iter().filter(|one| one.what.contains("has no batch twice"));
    assert_eq!(once.count(), 4, "the hints were followed: {:?}", fit.findings);
}

/// What is said of views, in the engine: the table has the batch, so it isn't sent again, and the view misses it.
#[tokio::test]
async fn a_view_misses_the_batch_that_it_failed_for_and_the_table_does_not() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let (database, table) = (&place.database, place.table());
    let window = "SETTINGS non_replicated_deduplication_window = 10000";
    let picky = "value Float64, CONSTRAINT own CHECK value < 2.5"; // offset 10 on
    for sql in [
        format!(
            "CREATE TABLE {database}.target ({picky}) ENGINE = MergeTree ORDER BY value {window}"
        ),
        format!(
            "CREATE MATERIALIZED VIEW {database}.v TO {database}.target AS SELECT value FROM {table}"
        ),
    ] {
        place.engine.run(&sql).await;
    }
    let mut sink = place.owner(&p0).await;
    for first in [0, 10] {
        take(&mut sink, log.batch(0, first, first + 10)).await;
        settle(&mut sink).await;
    }
    let count = format!("SELECT count() FROM {database}.target");
    assert_eq!(place.offsets(&p0).await, range(0, 20));
    assert_eq!(place.engine.rows(&count).await, [serde_json::json!([10])]);
}

#[tokio::test]
async fn a_missing_table_says_what_makes_it() {
    let place = Place::empty(shared());
    let failed = place.open().assign(&[Log::new().partition(0)]).await.unwrap_err();
    assert!(failed.to_string().contains("there is no such table"), "{failed}");
    assert!(failed.to_string().contains("aion clickhouse apply"), "{failed}");
}

/// What a member of a free object is as text: a text itself, nothing of null, else its JSON.
fn as_text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn the_map_of_an_object_has_its_members_as_text() {
    let place = Place::empty(shared());
    for statement in statements(&Catalog::builtin(), &place.database, Environment::Prod, None) {
        place.engine.run(&statement.sql).await;
    }
    let objects = [
        serde_json::json!({
            "bool": true, "deep": {"a": null, "b": [1, 2.5, "x"]}, "int": -7, "list": [1, "a"], "none": null,
            "number": 0.25, "text": "say \"ä\"\n", "": "no name", "big": 9_007_199_254_740_993_i64
        }),
        serde_json::json!({}),
    ];
    let tasks = format!("{}.tasks", place.database);
    let insert = format!(
        "INSERT INTO {tasks} (task_id, status, metadata, timestamp, _append_time, _lease) SELECT 'a', 'done'"
    );
    let times = "now64(6), now64(6), now() + 60";
    for object in &objects {
        let text = object.to_string().replace('\\', "\\\\");
        place.engine.run(&format!("{insert}, '{text}', {times}")).await;
        let sql = format!("SELECT metadata, metadata_map FROM {tasks} WHERE metadata = '{text}'");
        let rows = place.engine.rows(&sql).await;
        let members = object.as_object().unwrap().iter();
        let map: serde_json::Map<_, _> =
            members.map(|(name, value)| (name.clone(), as_text(value).into())).collect();
        assert_eq!(rows, [serde_json::json!([object.to_string(), map])]);
    }
    place.engine.run(&format!("{insert}, NULL, {times}")).await;
    let sql = format!("SELECT metadata_map FROM {tasks} WHERE metadata IS NULL");
    assert_eq!(place.engine.rows(&sql).await, [serde_json::json!([{}])]);
}

#[tokio::test]
async fn latencies_are_seen_through_the_view() {
    let place = Place::empty(shared());
    for statement in statements(&Catalog::builtin(), &place.database, Environment::Prod, None) {
        place.engine.run(&statement.sql).await;
    }
    let database = &place.database;
    let insert = format!(
        "INSERT INTO {database}.tasks (task_id, status, latency_ms, retries, timestamp, _append_time, _lease)
        SELECT toString(number), 'done', number, 1, toDateTime64('2026-11-28 10:00:10', 6, 'UTC') + number, now64(6), now() + 60
        FROM numbers(60)"
    );
    place.engine.run(&insert).await;
    let sql = format!(
        "SELECT toString(window_start), latency_avg_ms, events, retries FROM {database}.task_latency ORDER BY window_start"
    );
    let rows = place.engine.rows(&sql).await;
    // 20 events in the slot of 10:00:00, 30 in that of 10:00:30, 10 in that of 10:01:00.
    assert_eq!(
        rows,
        [
            serde_json::json!(["2026-11-28 09:59:30", 9.5, 20, 20]),
            serde_json::json!(["2026-11-28 10:00:00", 24.5, 50, 50]),
            serde_json::json!(["2026-11-28 10:00:30", 39.5, 40, 40]),
            serde_json::json!(["2026-11-28 10:01:00", 54.5, 10, 10]),
        ]
    );
    let sql = format!("SELECT latency_p95_ms FROM {database}.task_latency ORDER BY window_start");
    let told = place.engine.rows(&sql).await;
    // Of n events in order the least that 95 % of them don't exceed; the server's digest may be a neighbour off.
    let least =
        |window: std::ops::Range<usize>| window.start + (window.len() * 95).div_ceil(100) - 1;
    let least = [0..20, 0..50, 20..60, 50..60].map(least);
    for (told, least) in told.iter().zip(least) {
        let told = told[0].as_f64().unwrap();
        assert!((told - least as f64).abs() <= 1.0, "{told}, where it is {least}");
    }
    let plan = place.engine.run(&format!("EXPLAIN SELECT * FROM {database}.task_latency")).await;
    assert!(plan.contains("ReadFromMergeTree (slots)"), "the projection answers: {plan}");
    let rows = format!("ReadFromMergeTree ({database}.tasks)");
    assert!(!plan.contains(&rows), "and the events aren't read: {plan}");
}
