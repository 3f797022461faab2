//! `lag`: how far the lake is behind the logs, per partition.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use aion_schemas::log::{Offset, Partition};
use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, StringViewArray},
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::MemTable,
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};
use uuid::Uuid;

use crate::{
    control::{self, Column},
    stored::Stored,
    tables::TableInfo,
};

/// The table's name.
pub(crate) const TABLE: &str = "lag";

/// For each partition of the topics, the offsets that its log holds: from the first still there to
/// the next one to be written.
pub type Ends = BTreeMap<Partition, Range<Offset>>;

type Ask = dyn Fn(&[Arc<str>]) -> Result<Ends, String> + Send + Sync;

/// Asks the broker what its logs hold now. It may block; it is called on a thread for that.
#[derive(Clone)]
pub struct LogEnds(Arc<Ask>);

impl LogEnds {
    /// Asks by a function of the topics' names; its error says why the broker can't be asked.
    pub fn new(
        ask: impl Fn(&[Arc<str>]) -> Result<Ends, String> + Send + Sync + 'static,
    ) -> LogEnds {
        LogEnds(Arc::new(ask))
    }
}

impl fmt::Debug for LogEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogEnds")
    }
}

const COLUMNS: [Column; 6] = [
    ("topic", DataType::Utf8View, false, "Name of the topic."),
    ("topic_id", DataType::Utf8View, false, "Id of the topic's incarnation."),
    ("partition", DataType::Int32, false, "Kafka partition."),
    ("mark", DataType::Int64, true, "Next offset that the lake wants; null where it has none yet."),
    (
        "end_offset",
        DataType::Int64,
        true,
        "Next offset of the log; null where no broker was asked.",
    ),
    ("lag", DataType::Int64, true, "Offsets in the log that the lake does not have yet."),
];

/// What people see of the table.
pub(crate) fn info() -> TableInfo {
    control::info(TABLE, "How far the lake is behind the logs, per partition.", &COLUMNS)
}

/// The table: marks from the query's own snapshots, ends from the broker where there is one to ask.
#[derive(Debug)]
pub(crate) struct Lag {
    stored: Vec<Arc<Stored>>,
    ends: Option<LogEnds>,
    schema: SchemaRef,
}

impl Lag {
    /// The lag of these tables.
    pub(crate) fn new(stored: Vec<Arc<Stored>>, ends: Option<LogEnds>) -> Lag {
        Lag { stored, ends, schema: control::schema(&COLUMNS) }
    }

    /// One row per partition that the lake or the broker knows, by topic. Marks are read before
    /// ends, so that the lag is never negative.
    async fn rows(&self) -> Result<Vec<Row>> {
        let mut rows: BTreeMap<(Uuid, i32), Row> = BTreeMap::new();
        for table in &self.stored {
            for (partition, mark) in table.marks().await? {
                let key = (partition.stream.id, partition.number);
                rows.insert(key, Row { partition, mark: Some(mark), log: None });
            }
        }
        for (partition, log) in self.ask().await {
            let key = (partition.stream.id, partition.number);
            let mark = rows.get(&key).and_then(|row| row.mark);
            // The broker's name for the id is the better one: a table may be fed by several topics.
            rows.insert(key, Row { partition, mark, log: Some(log) });
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(rows)
    }

    /// What the broker says; nothing when it can't be asked, which the log tells.
    async fn ask(&self) -> Ends {
        let Some(LogEnds(ask)) = self.ends.clone() else { return Ends::new() };
        let definitions = self.stored.iter().map(|table| table.definition());
        let topics = definitions.flat_map(|one| [&one.topic].into_iter().chain(&one.retries));
        let topics: Vec<_> = topics.map(Arc::clone).collect();
        let answer = tokio::task::spawn_blocking(move || ask(&topics)).await;
        match answer.unwrap_or_else(|cause| Err(cause.to_string())) {
            Ok(ends) => ends,
            Err(cause) => {
                tracing::warn!(%cause, "lag: the broker can't be asked for its end offsets");
                Ends::new()
            }
        }
    }

    fn batch(&self, rows: &[Row]) -> Result<RecordBatch> {
        let streams = || rows.iter().map(|row| &row.partition.stream);
        let topics = streams().map(|stream| &*stream.topic);
        let ids = streams().map(|stream| stream.id.to_string());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(topics)),
            Arc::new(StringViewArray::from_iter_values(ids)),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.partition.number))),
            Arc::new(rows.iter().map(|row| row.mark.map(Offset::get)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(Row::end).collect::<Int64Array>()),
            Arc::new(rows.iter().map(Row::lag).collect::<Int64Array>()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// What is known of a partition.
#[derive(Debug)]
struct Row {
    partition: Partition,
    mark: Option<Offset>,
    log: Option<Range<Offset>>,
}

impl Row {
    fn end(&self) -> Option<i64> {
        self.log.as_ref().map(|log| log.end.get())
    }

    /// What retention has taken isn't waited for.
    fn lag(&self) -> Option<i64> {
        let log = self.log.as_ref()?;
        let next = self.mark.map_or(log.start, |mark| mark.max(log.start));
        Some((log.end - next).max(0))
    }
}

#[async_trait]
impl TableProvider for Lag {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let batch = self.batch(&self.rows().await?)?;
        let table = MemTable::try_new(self.schema(), vec![vec![batch]])?;
        table.scan(state, projection, filters, limit).await
    }
}

#[cfg(test)]
mod tests {
    use aion_schemas::log::{Partition, Stream};
    use uuid::Uuid;

    use super::{Offset, Row};

    #[test]
    fn lag_counts_what_can_still_be_read() {
        let stream = Stream { topic: "t".into(), id: Uuid::nil() };
        let row = |mark: Option<i64>, log: Option<(i64, i64)>| Row {
            partition: Partition { stream: stream.clone(), number: 0 },
            mark: mark.map(Offset),
            log: log.map(|(start, end)| Offset(start)..Offset(end)),
        };
        assert_eq!(row(Some(40), Some((0, 100))).lag(), Some(60));
        assert_eq!(row(None, Some((30, 100))).lag(), Some(70), "never read");
        assert_eq!(row(Some(10), Some((30, 100))).lag(), Some(70), "retention took 10..30");
        assert_eq!(row(Some(100), Some((0, 90))).lag(), Some(0), "mark and end are read apart");
        assert_eq!(row(Some(40), None).lag(), None, "no broker");
    }
}
