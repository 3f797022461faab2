#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::catalog::Catalog;

fn table(name: &str) -> Table {
    Table::of(Catalog::builtin().table(name).unwrap(), Environment::Prod)
}

fn kind(table: &Table, column: &str) -> String {
    table.columns.iter().find(|c| c.name == column).unwrap().kind.clone()
}

#[test]
fn kinds_become_native_types() {
    let decisions = table("decisions");
    assert_eq!(kind(&decisions, "task_id"), "String");
    assert_eq!(kind(&decisions, "event_id"), "Nullable(String)");
    assert_eq!(kind(&decisions, "route"), "LowCardinality(String)");
    assert_eq!(kind(&decisions, "tenant_id"), "LowCardinality(Nullable(String))");
    assert_eq!(kind(&decisions, "timestamp"), "DateTime64(6, 'UTC')");
    assert_eq!(kind(&decisions, "size"), "Nullable(Int64)");
    assert_eq!(kind(&decisions, "policy_overrides_map"), "Map(LowCardinality(String), String)");
}

#[test]
fn every_table_ends_in_position_and_ledger() {
    for topic in &Catalog::builtin().topics {
        let table = Table::of(topic, Environment::Prod);
        let names: Vec<&str> = table.columns.iter().map(|column| &*column.name).collect();
        let tail = crate::schema::POSITION_COLUMNS.into_iter().chain(LEDGER_COLUMNS);
        assert!(names.ends_with(&tail.collect::<Vec<_>>()), "{names:?}");
        assert_eq!(table.projections[0].name, CHAIN);
        let sql = table.create("aion", None).sql;
        assert!(sql.contains("PARTITION BY _batch_day"), "{sql}");
        assert!(sql.contains("CONSTRAINT lease CHECK _lease > now()"), "{sql}");
    }
}

#[test]
fn rows_are_sorted_by_what_has_few_values_then_by_time() {
    assert_eq!(table("decisions").order, ["intent", "route", "timestamp"]);
    assert_eq!(table("metrics").order, ["component", "metric", "timestamp"]);
    assert_eq!(table("audit").order, ["action", "timestamp"]);
}

#[test]
fn rows_are_kept_as_long_as_messages() {
    assert_eq!(table("decisions").keep_days, Some(30));
    assert_eq!(table("dead_letters").keep_days, None);
    let dev = Table::of(Catalog::builtin().table("audit").unwrap(), Environment::Dev);
    assert_eq!(dev.ttl().unwrap(), "toDateTime(_append_time) + toIntervalDay(7)");
}

#[test]
fn a_cluster_has_replicated_tables_everywhere() {
    let all = statements(&Catalog::builtin(), "aion", Environment::Prod, Some("main"));
    for Statement { object, sql } in &all {
        assert!(sql.contains(" ON CLUSTER main"), "{object}");
        assert!(!sql.contains("non_replicated"), "{object}");
    }
    let tables = all.iter().filter(|statement| statement.sql.starts_with("CREATE TABLE"));
    assert!(tables.clone().count() > 4);
    assert!(tables.clone().all(|statement| statement.sql.contains("ENGINE = Replicated")));
}

#[test]
fn quotes_in_docs_are_escaped() {
    assert_eq!(sql::quoted("it's a \\"), "'it\\'s a \\\\'");
}
