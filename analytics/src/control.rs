//! Tables that no topic fills: their columns are stated here, and their rows are made while they are read.
//!
//! | module | its rows come from |
//! |---|---|
//! | `batches` | the logs of the lake's tables |
//! | [`exports`] | whoever keeps the exports, by [`Told`] |
//! | [`schemas`] | the contract, and a registry by [`Told`] |
//!
//! **Invariant:** rows are made some at a time and passed on, never held together: however long a log is, reading it
//! takes no more memory than a short one.

pub(crate) mod batches;
pub mod exports;
pub mod schemas;

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableType},
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use self::{exports::Export, schemas::SchemaText};
use crate::{
    lag::LogEnds,
    tables::{ColumnInfo, TableInfo, sql_type},
};

/// Rows in a batch.
const ROWS: usize = 1024;
/// Of a batch's rows; the last may go beyond.
const BYTES: usize = 1 << 20;

/// Rows that somebody else has, read anew by each query; an error says why they can't be had.
pub struct Told<R>(Arc<Tell<R>>);

type Tell<R> = dyn Fn() -> BoxStream<'static, Result<R, String>> + Send + Sync;

impl<R> Told<R> {
    /// Rows by a function that begins to read them.
    pub fn new(
        tell: impl Fn() -> BoxStream<'static, Result<R, String>> + Send + Sync + 'static,
    ) -> Told<R> {
        Told(Arc::new(tell))
    }

    /// Begins to read them.
    pub fn rows(&self) -> BoxStream<'static, Result<R, String>> {
        (self.0)()
    }
}

impl<R> Clone for Told<R> {
    fn clone(&self) -> Told<R> {
        Told(Arc::clone(&self.0))
    }
}

impl<R> fmt::Debug for Told<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

/// Whom to ask for what isn't in the lake.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside {
    /// For the ends of the logs.
    pub(crate) ends: Option<LogEnds>,
    /// For the exports; there is no such table without.
    pub(crate) exports: Option<Told<Export>>,
    /// For registered schemas.
    pub(crate) registered: Option<Told<SchemaText>>,
}

/// A column: name, type, whether it can be null, one sentence for people.
pub(crate) type Column = (&'static str, DataType, bool, &'static str);

/// What people see of a table with these columns.
pub(crate) fn info(name: &str, doc: &str, columns: &[Column]) -> TableInfo {
    let columns = columns.iter().map(|(name, data_type, nullable, doc)| ColumnInfo {
        name: (*name).to_owned(),
        sql_type: sql_type(data_type).to_owned(),
        nullable: *nullable,
        doc: (*doc).to_owned(),
    });
    TableInfo { name: name.to_owned(), doc: doc.to_owned(), columns: columns.collect() }
}

/// The same for the engine.
pub(crate) fn schema(columns: &[Column]) -> SchemaRef {
    let field = |(name, kind, nullable, _): &Column| Field::new(*name, kind.clone(), *nullable);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// Times in microseconds since 1970.
fn times(times: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let times: TimestampMicrosecondArray = times.collect();
    Arc::new(times.with_timezone("UTC"))
}

/// A table whose rows are made anew for each scan.
#[derive(Debug)]
pub(crate) struct Streamed(Arc<dyn PartitionStream>);

type Make<R> = dyn Fn() -> BoxStream<'static, Result<R>> + Send + Sync;

/// How rows are made, and turned into columns.
struct Source<R> {
    schema: SchemaRef,
    rows: Box<Make<R>>,
    bytes: fn(&R) -> usize,
    arrays: fn(&[R]) -> Vec<ArrayRef>,
}

impl Streamed {
    /// A table of these columns, which `arrays` makes of rows, in their order. `bytes` says how much of a row isn't
    /// bounded by its columns' types.
    pub(crate) fn new<R: Send + 'static>(
        columns: &[Column],
        rows: impl Fn() -> BoxStream<'static, Result<R>> + Send + Sync + 'static,
        bytes: fn(&R) -> usize,
        arrays: fn(&[R]) -> Vec<ArrayRef>,
    ) -> Streamed {
        let rows = Box::new(rows);
        Streamed(Arc::new(Source { schema: schema(columns), rows, bytes, arrays }))
    }
}

impl<R> fmt::Debug for Source<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl<R: Send + 'static> PartitionStream for Source<R> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, arrays) = (Arc::clone(&self.schema), self.arrays);
        let batches = batched((self.rows)(), self.bytes).map(move |rows| -> Result<RecordBatch> {
            Ok(RecordBatch::try_new(Arc::clone(&schema), arrays(&rows?))?)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// The rows of each batch. An error ends them at once: what would be read behind it takes its time to fail, too.
fn batched<R: Send + 'static>(
    rows: BoxStream<'static, Result<R>>,
    bytes: fn(&R) -> usize,
) -> impl Stream<Item = Result<Vec<R>>> + Send {
    stream::try_unfold(rows.fuse(), move |mut rows| async move {
        let (mut batch, mut held) = (Vec::new(), 0);
        while batch.len() < ROWS && held < BYTES {
            let Some(row) = rows.try_next().await? else { break };
            held += bytes(&row);
            batch.push(row);
        }
        Ok::<_, DataFusionError>((!batch.is_empty()).then_some((batch, rows)))
    })
}

#[async_trait]
impl TableProvider for Streamed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let parts = vec![Arc::clone(&self.0)];
        let plan =
            StreamingTableExec::try_new(self.schema(), parts, projection, None, false, limit)?;
        Ok(Arc::new(plan))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn rows_come_in_batches_of_some() {
        for (bytes, lengths) in [(0, vec![ROWS, ROWS, 1]), (BYTES / 800, vec![801, 801, 447])] {
            let rows = stream::iter((0..=2 * ROWS).map(move |_| Ok(bytes))).boxed();
            let batches: Vec<_> = batched(rows, |bytes| *bytes).try_collect().await.unwrap();
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "{bytes}");
        }
    }

    #[tokio::test]
    async fn an_error_ends_them_and_nothing_is_read_beyond() {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let rows = stream::repeat_with(move || match counted.fetch_add(1, Ordering::Relaxed) {
            2 => Err(DataFusionError::Execution("gone".to_owned())),
            number => Ok(number),
        });
        let batches: Vec<_> = batched(rows.boxed(), |_| 0).collect().await;
        assert!(matches!(batches[..], [Err(_)]), "{batches:?}");
        assert_eq!(read.load(Ordering::Relaxed), 3);
    }
}
