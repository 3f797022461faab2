//! The statements that make the tables, on one server or on every server of a cluster.
//!
//! **Invariant:** every statement can be run again: what is there already stays as it is.

use super::{
    Column, DEDUPLICATION_WINDOW, Index, LEASE, MARKS, Projection, Table, WIDE_PART_BYTES, view,
};
use crate::catalog::{Catalog, Environment, Topic};

/// A statement, and what it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The table, view or database.
    pub object: String,
    /// Its text, without a semicolon.
    pub sql: String,
}

/// The statements for a whole catalog, in an order in which they can be run. With a cluster's name the tables are
/// replicated ones.
pub fn statements(
    catalog: &Catalog,
    database_name: &str,
    environment: Environment,
    cluster: Option<&str>,
) -> Vec<Statement> {
    let mut all = vec![database(database_name, cluster), marks(database_name, cluster)];
    for topic in &catalog.topics {
        all.extend(of_topic(topic, database_name, environment, cluster));
    }
    all
}

/// The statements for one topic: its table, and the view over it where it has one.
pub fn of_topic(
    topic: &Topic,
    database: &str,
    environment: Environment,
    cluster: Option<&str>,
) -> Vec<Statement> {
    let table = Table::of(topic, environment).create(database, cluster);
    let view = view::task_latency(&topic.table, &topic.schema, database, cluster);
    std::iter::once(table).chain(view).collect()
}

/// Makes the database.
pub fn database(name: &str, cluster: Option<&str>) -> Statement {
    let sql = format!("CREATE DATABASE IF NOT EXISTS {name}{}", on(cluster));
    Statement { object: name.to_owned(), sql }
}

/// Makes the table beside those of the topics. Of two rows of a kind the one further on holds.
pub fn marks(database: &str, cluster: Option<&str>) -> Statement {
    let columns = [
        "table_name LowCardinality(String) COMMENT 'The table that has it.'",
        "topic_id String COMMENT 'Id of the topic''s incarnation.'",
        "partition Int32 COMMENT 'Kafka partition.'",
        "kind LowCardinality(String) COMMENT 'opened: where the first batch begins; reached: how far it is; \
         repair/OFFSET: the break from there on is to be filled; repairing: who repairs.'",
        "chain_end Int64 COMMENT 'The offset after the last batch that was seen stored.'",
        "next UInt64 COMMENT 'The next wanted offset; there are no rows from chain_end up to it.'",
        "epoch Int32 COMMENT 'Leader epoch of the last record below it; -1 where it is not known; -(E + 2) where that is \
         a record of epoch E before offsets without one.'",
        "day Date COMMENT 'The table partition that the next batch goes to; 1970-01-01 before the first.'",
        "noted_at DateTime('UTC') DEFAULT now() COMMENT 'When this was noted.'",
    ];
    let engine = match cluster {
        None => "ReplacingMergeTree(next)".to_owned(),
        Some(_) => format!("ReplicatedReplacingMergeTree({}, next)", replica()),
    };
    let lines = [
        create("TABLE", database, MARKS, cluster),
        listed(&columns.map(str::to_owned)),
        format!("ENGINE = {engine}"),
        "ORDER BY (table_name, topic_id, partition, kind)".to_owned(),
        settings(cluster, &FSYNC),
        "COMMENT 'How far each table has each Kafka partition, where its rows can''t tell.'"
            .to_owned(),
    ];
    Statement { object: MARKS.to_owned(), sql: lines.join("\n") }
}

const FSYNC: [&str; 2] = ["fsync_after_insert = 1", "fsync_part_directory = 1"];

impl Table {
    /// Makes the table.
    pub fn create(&self, database: &str, cluster: Option<&str>) -> Statement {
        let mut parts: Vec<String> = self.columns.iter().map(Column::definition).collect();
        parts.extend(self.indexes.iter().map(Index::definition));
        parts.push(Table::lease());
        parts.extend(self.projections.iter().map(Projection::definition));
        let engine = match cluster {
            None => "MergeTree".to_owned(),
            Some(_) => format!("ReplicatedMergeTree({})", replica()),
        };
        let mut lines = vec![
            create("TABLE", database, &self.name, cluster),
            listed(&parts),
            format!("ENGINE = {engine}"),
            "PARTITION BY _batch_day".to_owned(),
            match self.order.as_slice() {
                [one] => format!("ORDER BY {one}"),
                several => format!("ORDER BY ({})", several.join(", ")),
            },
        ];
        lines.extend(self.ttl().map(|ttl| format!("TTL {ttl}")));
        let erasable = "lightweight_mutation_projection_mode = 'rebuild'";
        let wide = format!("min_bytes_for_wide_part = {WIDE_PART_BYTES}");
        let more = [FSYNC[0], FSYNC[1], "ttl_only_drop_parts = 1", &*wide, erasable];
        lines.push(settings(cluster, &more));
        lines.push(format!("COMMENT {}", quoted(&self.doc)));
        Statement { object: self.name.clone(), sql: lines.join("\n") }
    }

    /// When rows go, as an expression.
    pub fn ttl(&self) -> Option<String> {
        let days = self.keep_days?;
        Some(format!("toDateTime(_append_time) + toIntervalDay({days})"))
    }

    /// The constraint, as it stands in a table.
    pub fn lease() -> String {
        format!("CONSTRAINT {LEASE} CHECK _lease > now()")
    }
}

impl Column {
    /// The column as it stands in a table.
    pub fn definition(&self) -> String {
        let Column { name, kind, codec, .. } = self;
        let computed = self.materialized.as_ref().map(|from| format!(" MATERIALIZED {from}"));
        let computed = computed.unwrap_or_default();
        format!("{name} {kind}{computed} COMMENT {} CODEC({codec})", quoted(&self.doc))
    }
}

impl Index {
    /// The index as it stands in a table.
    pub fn definition(&self) -> String {
        format!("INDEX {} {}", self.name, self.definition)
    }
}

impl Projection {
    /// The projection as it stands in a table.
    pub fn definition(&self) -> String {
        format!("PROJECTION {} ({})", self.name, self.query)
    }
}

pub(super) fn create(what: &str, database: &str, name: &str, cluster: Option<&str>) -> String {
    format!("CREATE {what} IF NOT EXISTS {database}.{name}{}", on(cluster))
}

fn listed(parts: &[String]) -> String {
    format!("(\n    {}\n)", parts.join(",\n    "))
}

fn on(cluster: Option<&str>) -> String {
    cluster.map(|name| format!(" ON CLUSTER {name}")).unwrap_or_default()
}

/// The path in Keeper, and the replica's name, in the server's own macros.
fn replica() -> &'static str {
    "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
}

fn settings(cluster: Option<&str>, more: &[&str]) -> String {
    let window = if cluster.is_some() { "replicated" } else { "non_replicated" };
    let window = format!("{window}_deduplication_window = {DEDUPLICATION_WINDOW}");
    let all: Vec<&str> = std::iter::once(window.as_str()).chain(more.iter().copied()).collect();
    format!("SETTINGS {}", all.join(",\n    "))
}

pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
