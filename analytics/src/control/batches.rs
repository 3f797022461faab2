//! `batches`: what each commit of the lake covered of each partition.
//!
//! Rows come from the logs of the tables, up to the version that the query sees of each. Logs of tables that a filter
//! leaves out aren't read.

use std::sync::Arc;

use aion_schemas::{log::Offset, schema::time_type};
use aion_sinks::lake::history::{Commit, Move};
use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, StringViewArray},
    datatypes::{DataType, Field, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_plan::ExecutionPlan,
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use super::{Column, Streamed, times};
use crate::{
    stored::{Stored, prune},
    tables::{Definition, TableInfo},
};

/// The table's name.
pub(crate) const TABLE: &str = "batches";

/// The column that filters are looked at for.
const TABLE_NAME: &str = "table_name";

fn columns() -> [Column; 13] {
    use DataType::{Int32, Int64, Utf8View};
    [
        (TABLE_NAME, Utf8View, false, "Table of the lake."),
        ("version", Int64, false, "Version of the table that the commit made."),
        ("committed_at", time_type(), true, "When it was put, by its writer's clock."),
        (
            "operation",
            Utf8View,
            true,
            "What was done, in Delta's words: STREAMING UPDATE = a job's flush, DELETE = rows taken back.",
        ),
        (
            "topic",
            Utf8View,
            false,
            "Topic that fills the table; its retries, which have an id of their own, stand under this name too.",
        ),
        ("topic_id", Utf8View, false, "Id of the topic's incarnation."),
        ("partition", Int32, false, "Kafka partition."),
        (
            "first_offset",
            Int64,
            true,
            "First offset that is covered; null where the log doesn't say it. Above next_offset, the mark was set back.",
        ),
        (
            "next_offset",
            Int64,
            false,
            "The offset after the last that is covered: the mark that the commit left.",
        ),
        (
            "rows",
            Int64,
            true,
            "Rows of this partition; fewer than offsets where records made none. Null where the writer didn't say.",
        ),
        ("commit_rows", Int64, true, "Rows of the commit's files, of all its partitions."),
        ("commit_files", Int64, false, "Files of the commit, of all its partitions."),
        ("commit_bytes", Int64, false, "Bytes of those files."),
    ]
}

/// What people see of the table.
pub(crate) fn info() -> TableInfo {
    let doc = "What each commit of the lake covered of each partition, as far back as the logs of its tables go.";
    super::info(TABLE, doc, &columns())
}

/// The batches of tables.
#[derive(Debug)]
pub(crate) struct Batches(Vec<Arc<Stored>>);

impl Batches {
    /// The batches of these tables.
    pub(crate) fn new(stored: Vec<Arc<Stored>>) -> Batches {
        Batches(stored)
    }

    /// The tables that the filters leave.
    fn kept(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<Arc<Stored>>> {
        let mut kept = self.0.clone();
        let by_name = filters.iter().filter(|filter| prune::is_by(TABLE_NAME, filter)).cloned();
        let Some(filter) = conjunction(by_name) else { return Ok(kept) };
        let names = kept.iter().map(|one| one.definition().table.as_str());
        let names = Arc::new(StringViewArray::from_iter_values(names));
        let column = Field::new(TABLE_NAME, DataType::Utf8View, false);
        let mask = prune::by_values(state, column, names, filter)?;
        let mut passed = mask.iter();
        kept.retain(|_| passed.next() == Some(Some(true)));
        Ok(kept)
    }
}

#[async_trait]
impl TableProvider for Batches {
    fn schema(&self) -> SchemaRef {
        super::schema(&columns())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let looked_at = |filter: &&Expr| {
            if prune::is_by(TABLE_NAME, filter) {
                TableProviderFilterPushDown::Inexact
            } else {
                TableProviderFilterPushDown::Unsupported
            }
        };
        Ok(filters.iter().map(looked_at).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let stored = self.kept(state, filters)?;
        let rows = move || stream::iter(stored.clone()).then(rows_of).try_flatten().boxed();
        Streamed::new(&columns(), rows, |_| 0, arrays).scan(state, projection, &[], limit).await
    }
}

/// What one commit covered of one partition.
#[derive(Debug)]
struct Row {
    definition: Arc<Definition>,
    commit: Arc<Commit>,
    covered: Move,
}

async fn rows_of(stored: Arc<Stored>) -> Result<BoxStream<'static, Result<Row>>> {
    let definition = Arc::clone(stored.definition());
    let commits = stored.commits().await?;
    let rows = commits.map_ok(move |commit| {
        let rows = rows_in(&definition, commit);
        stream::iter(rows.into_iter().map(Ok::<_, DataFusionError>))
    });
    Ok(rows.try_flatten().boxed())
}

fn rows_in(definition: &Arc<Definition>, commit: Commit) -> Vec<Row> {
    let commit = Arc::new(commit);
    let row = |covered: &Move| Row {
        definition: Arc::clone(definition),
        commit: Arc::clone(&commit),
        covered: *covered,
    };
    commit.moves.iter().map(row).collect()
}

fn arrays(rows: &[Row]) -> Vec<ArrayRef> {
    let definitions = || rows.iter().map(|row| &row.definition);
    let commits = || rows.iter().map(|row| &row.commit);
    let covered = || rows.iter().map(|row| &row.covered);
    let tables = definitions().map(|one| one.table.as_str());
    let committed = commits().map(|one| one.committed_ms.map(|ms| ms.saturating_mul(1000)));
    let operations = commits().map(|one| one.operation.as_deref());
    let ids = covered().map(|one| one.topic_id.to_string());
    let rows_of_partition = covered().map(|one| one.rows.map(number));
    let rows_of_commit = commits().map(|one| one.rows.map(number));
    vec![
        Arc::new(StringViewArray::from_iter_values(tables)),
        Arc::new(Int64Array::from_iter_values(commits().map(|one| one.version))),
        times(committed),
        Arc::new(operations.collect::<StringViewArray>()),
        Arc::new(StringViewArray::from_iter_values(definitions().map(|one| &*one.topic))),
        Arc::new(StringViewArray::from_iter_values(ids)),
        Arc::new(Int32Array::from_iter_values(covered().map(|one| one.partition))),
        Arc::new(covered().map(|one| one.first.map(Offset::get)).collect::<Int64Array>()),
        Arc::new(Int64Array::from_iter_values(covered().map(|one| one.next.get()))),
        Arc::new(rows_of_partition.collect::<Int64Array>()),
        Arc::new(rows_of_commit.collect::<Int64Array>()),
        Arc::new(Int64Array::from_iter_values(commits().map(|one| number(one.files)))),
        Arc::new(Int64Array::from_iter_values(commits().map(|one| number(one.bytes)))),
    ]
}

/// What an entry says may be beyond any number of SQL's.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
