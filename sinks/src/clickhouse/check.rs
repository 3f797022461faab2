//! Can this table give the guarantee? Looked at before the first partition is assigned.
//!
//! | looked at | refused when | because |
//! |---|---|---|
//! | engine | not MergeTree | Replacing and its like drop rows when parts merge; Distributed splits an INSERT; a replicated table's tokens live in Keeper, for which nothing is proven |
//! | partition key | not `_batch_day` | a batch would be several parts |
//! | `non_replicated_deduplication_window` | less than the contract's, or than four times the parts that come while an INSERT may be on its way | a token would be forgotten before its writer is refused |
//! | constraint `lease` | missing | a writer that slept would not be refused |
//! | the table `marks` beside it | not ReplacingMergeTree(next), or a window below the contract's | of two writers that open a table each would decide where its first batch begins |
//! | columns | one missing, of another type, or without nulls where there may be some | rows would be stored otherwise than they are |
//! | materialized views that read from it | any | their rows are not counted by anybody: said in a warning |

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aion_schemas::clickhouse::{DEDUPLICATION_WINDOW, LEASE, LEDGER_COLUMNS, MARKS};
use arrow::datatypes::DataType;

use super::{
    ClickHouse, Settings, TableSpec,
    failure::Failure,
    plan::{self, Live, MARKS_ENGINE},
    table::Table,
};
use crate::sink::SinkError;

/// What to do about a table that isn't as it has to be.
const HINT: &str = "run `aion clickhouse plan` to see what differs, and `aion clickhouse apply`";

/// What a table that gives the guarantee is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The server's version.
    pub version: String,
    /// So many tokens the table remembers, and so many it has to.
    pub window: (u64, u64),
    /// After how many days rows go; `None` keeps them.
    pub kept_days: Option<u32>,
    /// Materialized views that read from it: their rows are counted by nobody.
    pub views: Vec<String>,
    /// How far the server's clock is ahead of this machine's. The sink goes by the server's alone.
    pub clock_ahead_s: i64,
}

impl ClickHouse {
    /// Whether a table can give the guarantee: how, or as an error what to change.
    pub async fn fit(&self, spec: TableSpec, settings: Settings) -> Result<Fit, SinkError> {
        let table = self.table(spec, settings);
        let live = self::table(&table).await?;
        let doing = format!("look at {}", table.spec.name);
        let asked = self.client.ask("SELECT version(), toUnixTimestamp(now())").await;
        let rows: Vec<(String, i64)> = asked.map_err(|failure| failure.error(&doing))?;
        let (version, there) = rows.into_iter().next().unwrap_or_default();
        let here = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
        let window = live.setting("non_replicated_deduplication_window").unwrap_or(0);
        Ok(Fit {
            version,
            window: (window, least_window(table.spec.partitions, &table.settings)),
            kept_days: live.kept_days(),
            views: live.readers,
            clock_ahead_s: there - here as i64,
        })
    }
}

/// Refuses a table that can't give the guarantee; learns how long it keeps rows.
pub(super) async fn table(table: &Table) -> Result<Live, SinkError> {
    let client = &table.ledger.client;
    let name = &table.spec.name;
    let database = &client.server().database;
    let doing = format!("look at {database}.{name}");
    let refused =
        |cause: String| SinkError::Fatal { doing: doing.clone(), cause, hint: HINT.to_owned() };
    let failed = |failure: Failure| failure.error(&doing);
    let live = plan::live(client, name).await.map_err(failed)?;
    let Some(live) = live else { return Err(refused("there is no such table".to_owned())) };
    let Some(marks) = plan::live(client, MARKS).await.map_err(failed)? else {
        return Err(refused(format!("there is no table {database}.{MARKS} beside it")));
    };
    if let Some(cause) = unfit_marks(&marks) {
        return Err(refused(format!("the table {database}.{MARKS} beside it: {cause}")));
    }
    if let Some(cause) = unfit(&live, least_window(table.spec.partitions, &table.settings)) {
        return Err(refused(cause));
    }
    if let Some(cause) = unlike(&live, &table.spec) {
        return Err(refused(cause));
    }
    if !live.readers.is_empty() {
        tracing::warn!(
            table = name,
            views = live.readers.join(", "),
            "materialized views read from the table: their rows are exactly once only where the target has a \
             deduplication window too"
        );
    }
    table.kept_days.store(live.kept_days().unwrap_or(0), Relaxed);
    Ok(live)
}

/// What keeps rows from being stored as they are.
fn unlike(live: &Live, spec: &TableSpec) -> Option<String> {
    let fields = spec.schema.fields();
    let names = fields.iter().map(|field| field.name().as_str());
    let mut missing = names.chain(LEDGER_COLUMNS).filter(|name| !live.columns.contains_key(*name));
    if let Some(column) = missing.next() {
        return Some(format!("it has no column {column}"));
    }
    fields.iter().find_map(|field| {
        let theirs = live.columns.get(field.name())?;
        let wanted = wanted(field.data_type())?;
        let plain = theirs.strip_prefix("LowCardinality(").unwrap_or(theirs);
        let (plain, takes_null) = match plain.strip_prefix("Nullable(") {
            Some(inner) => (inner, true),
            None => (plain, false),
        };
        if !plain.starts_with(wanted) {
            return Some(format!("column {} is {theirs}, and takes no {wanted}", field.name()));
        }
        // The server would store an empty text or a zero in its place.
        let loses_null = field.is_nullable() && !takes_null;
        loses_null.then(|| format!("column {} is {theirs}, and has to take nulls", field.name()))
    })
}

/// How the type of a column begins that holds such values as they are.
fn wanted(kind: &DataType) -> Option<&'static str> {
    match kind {
        DataType::Utf8 | DataType::Binary => Some("String"),
        DataType::Int32 => Some("Int32"),
        DataType::Int64 => Some("Int64"),
        DataType::Float64 => Some("Float64"),
        DataType::Boolean => Some("Bool"),
        DataType::Timestamp(..) => Some("DateTime64(6"),
        _ => None,
    }
}

/// So many tokens a table must remember: four times the parts that come by their age while an INSERT may still be on
/// its way, and never fewer than the contract's tables do. Parts that go for their size, or in halves, come faster than
/// can be told beforehand.
pub fn least_window(partitions: usize, settings: &Settings) -> u64 {
    let on_its_way = settings.lease + settings.max_execution;
    let every = settings.flush_age.max(Duration::from_secs(1));
    let by_age = on_its_way.as_secs().div_ceil(every.as_secs()).max(1);
    (4 * partitions.max(1) as u64 * by_age).max(u64::from(DEDUPLICATION_WINDOW))
}

/// What keeps a table from giving the guarantee.
pub(super) fn unfit(live: &Live, least_window: u64) -> Option<String> {
    let window = live.setting("non_replicated_deduplication_window").unwrap_or(0);
    if live.engine != "MergeTree" {
        let engine = &live.engine;
        return Some(format!("its engine is {engine}: exactly once is given into MergeTree only"));
    }
    if live.partition_key != "_batch_day" {
        let key = &live.partition_key;
        return Some(format!("its partition key is {key:?}, where it must be _batch_day"));
    }
    if window < least_window {
        return Some(format!(
            "non_replicated_deduplication_window is {window}, and it must be {least_window} at least with this \
             many partitions and this flush_age_s"
        ));
    }
    (!live.has_lease()).then(|| format!("it has no constraint {LEASE} CHECK _lease > now()"))
}

/// What keeps the table of marks from letting the first of several writers decide.
fn unfit_marks(live: &Live) -> Option<String> {
    if !live.has_engine_of_marks() {
        let engine = &live.engine;
        return Some(format!("its engine is {engine}, where it must be {MARKS_ENGINE}"));
    }
    let window = live.setting("non_replicated_deduplication_window").unwrap_or(0);
    let least = u64::from(DEDUPLICATION_WINDOW);
    (window < least).then(|| {
        format!("non_replicated_deduplication_window is {window}, and must be {least} at least")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_would_store_something_else_is_named() {
        use std::sync::Arc;

        use arrow::datatypes::{Field, Schema};
        let schema = Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("note", DataType::Utf8, true),
            Field::new("value", DataType::Float64, false),
        ]);
        let spec = TableSpec {
            name: "t".into(),
            schema: Arc::new(schema),
            few_values: Vec::new(),
            partitions: 1,
        };
        let live = |columns: [(&str, &str); 3]| {
            let ledger = LEDGER_COLUMNS.map(|name| (name, "Int64"));
            let all = columns.into_iter().chain(ledger);
            let columns = all.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
            Live { columns, ..Live::default() }
        };
        let note = "LowCardinality(Nullable(String))";
        let told = |columns| unlike(&live(columns), &spec).unwrap_or_default();
        assert_eq!(told([("id", "String"), ("note", note), ("value", "Float64")]), "");
        let told_of = told([("id", "String"), ("note", "String"), ("value", "Float64")]);
        assert_eq!(told_of, "column note is String, and has to take nulls");
        let told_of = told([("id", "UUID"), ("note", note), ("value", "Float64")]);
        assert_eq!(told_of, "column id is UUID, and takes no String");
        let told_of = told([("id", "String"), ("note", note), ("x", "Float64")]);
        assert_eq!(told_of, "it has no column value");
    }

    #[test]
    fn the_window_outlasts_whatever_is_on_its_way() {
        let settings = Settings::default();
        assert_eq!(least_window(4, &settings), 10_000, "as the contract's tables have it");
        assert_eq!(least_window(200, &settings), 4 * 200 * 24);
        let quick = Settings { flush_age: Duration::ZERO, ..settings };
        assert_eq!(least_window(64, &quick), 4 * 64 * 120);
    }
}
