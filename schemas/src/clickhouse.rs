//! The ClickHouse table of a topic: columns, order, projections, and the SQL that makes it.
//!
//! | module | what it is |
//! |---|---|
//! | `columns` | what becomes of each field, and the ledger columns |
//! | `sql` | the statements, for one server or a cluster |
//! | `view` | `task_latency` |
//!
//! | setting of a table | because |
//! |---|---|
//! | `PARTITION BY _batch_day`, constant for a batch | a batch is one part, and a part is atomic |
//! | `non_replicated_deduplication_window` | a token that is known is refused: of two writers one lands |
//! | `CONSTRAINT lease` | a writer that slept longer than the window lasts is refused |
//! | `fsync_after_insert`, `fsync_part_directory` | what was acknowledged survives a power loss |
//! | `TTL _append_time`, `ttl_only_drop_parts` | whole parts go, so a batch never half |
//! | `min_bytes_for_wide_part` | a batch is one file instead of two for each column |
//! | `lightweight_mutation_projection_mode` | rows can be erased although there are projections |
//!
//! **Invariant:** the partition key is no function of a row, or a batch would be several parts.
//! **Invariant:** TTL follows the rows' own append time. The day of a batch is that of the one before it,
//! which may be weeks old where a topic was quiet.

mod columns;
mod sql;
#[cfg(test)]
mod tests;
mod view;

use crate::{
    catalog::{Environment, Topic},
    schema::{Kind, Schema},
};

pub use columns::{LEDGER_COLUMNS, MAP_SUFFIX};
pub use sql::{Statement, database, marks, of_topic, statements};

/// The database where none is named.
pub const DATABASE: &str = "aion";

/// The table beside those of the topics: how far each has each Kafka partition, where rows can't tell.
pub const MARKS: &str = "marks";

/// The name of the constraint that keeps sleepers out.
pub const LEASE: &str = "lease";

/// The projection that answers which batches a table has.
pub const CHAIN: &str = "chain";

/// How many parts' tokens a table remembers.
pub const DEDUPLICATION_WINDOW: u32 = 10_000;

/// Below this size the columns of a part share a file: two files for each, synced, cost a server a fifth of an insert.
pub const WIDE_PART_BYTES: u64 = 64 << 20;

/// How many fields rows are sorted by before event time: more would scatter what is near in time.
const SORTED_BY: usize = 2;

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its ClickHouse type, as `system.columns` writes it.
    pub kind: String,
    /// The expression that the server computes it from; `None` where writers send it.
    pub materialized: Option<String>,
    /// Its codecs, without `CODEC()`.
    pub codec: &'static str,
    /// One sentence for people.
    pub doc: String,
}

/// An index that lets parts of a table be skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its definition after the name.
    pub definition: String,
}

/// A projection: a second, smaller form of each part, written with it in the same step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// Its name.
    pub name: &'static str,
    /// Its query.
    pub query: String,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name in the database.
    pub name: String,
    /// What a row means.
    pub doc: String,
    /// The columns: the fields of the events, where a row stood in the log, the ledger.
    pub columns: Vec<Column>,
    /// The columns by which rows are sorted.
    pub order: Vec<String>,
    /// The indexes.
    pub indexes: Vec<Index>,
    /// The projections.
    pub projections: Vec<Projection>,
    /// After how many days rows go; `None` keeps them.
    pub keep_days: Option<u32>,
}

impl Table {
    /// The table of a topic, its rows kept as long as the topic's messages.
    pub fn of(topic: &Topic, environment: Environment) -> Table {
        let kept = match environment {
            Environment::Dev => topic.retention.dev,
            Environment::Prod => topic.retention.prod,
        };
        let days = kept.map(|kept| kept.as_secs().div_ceil(24 * 60 * 60).max(1) as u32);
        let mut table = Table::of_schema(&topic.table, &topic.schema, days);
        let key = topic.key_fields().next().and_then(|key| topic.schema.position(key));
        let key = key.map(|at| &topic.schema.fields[at]);
        if let Some(key) = key.filter(|key| key.kind == Kind::Text && !key.few_values) {
            let definition = format!("{} TYPE bloom_filter(0.01) GRANULARITY 4", key.name);
            table.indexes.push(Index { name: format!("ix_{}", key.name), definition });
        }
        table
    }

    /// The table for rows of a schema: sorted by the first required fields of few values, then by event time.
    pub fn of_schema(name: &str, schema: &Schema, keep_days: Option<u32>) -> Table {
        let event_time = &schema.fields[schema.event_time].name;
        let sorting = schema.fields.iter().filter(|field| field.required && field.few_values);
        let mut order: Vec<String> =
            sorting.take(SORTED_BY).map(|field| field.name.to_string()).collect();
        order.push(event_time.to_string());
        let minmax = |name: &str, granularity: u8| Index {
            name: format!("ix_{}", name.trim_start_matches('_')),
            definition: format!("{name} TYPE minmax GRANULARITY {granularity}"),
        };
        let mut projections = vec![Projection { name: CHAIN, query: chain() }];
        projections.extend(view::slots(name, schema));
        Table {
            name: name.to_owned(),
            doc: schema.doc.to_string(),
            columns: columns::all(schema),
            order,
            indexes: vec![minmax(event_time, 1), minmax("_offset", 4)],
            projections,
            keep_days,
        }
    }
}

/// The batches of a table, one row each, however many rows they have.
fn chain() -> String {
    let key = "_topic_id, _partition, _batch_first, _batch_last";
    format!(
        "SELECT {key}, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) \
         GROUP BY {key}"
    )
}
