//! A lake that tests write with the sink itself, and an engine that reads it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_analytics::{Answer, Engine, Error, Settings};
use aion_schemas::{
    catalog::{Catalog, Topic},
    log::{Offset, Partition, Stream, Timestamp},
};
use aion_sinks::{
    batch::Batch,
    budget::Reservation,
    lake::{Lake, StoreOptions, TableSpec},
    sink::{Accepted, Flush, Sink},
};
use arrow::{array::RecordBatch, datatypes::SchemaRef, util::pretty::pretty_format_batches};
use futures::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

/// The topic's id in all tests.
pub(crate) const TOPIC_ID: Uuid = Uuid::from_u128(7);

pub(crate) struct TestLake {
    folder: tempfile::TempDir,
    pub(crate) catalog: Arc<Catalog>,
}

impl TestLake {
    pub(crate) fn new() -> TestLake {
        TestLake { folder: tempfile::tempdir().unwrap(), catalog: Arc::new(Catalog::builtin()) }
    }

    fn url(&self) -> url::Url {
        url::Url::from_directory_path(self.folder.path().join("lake")).unwrap()
    }

    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.url(), Arc::clone(&self.catalog));
        settings.threads = 2;
        settings
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::open(self.settings()).unwrap()
    }

    fn topic(&self, table: &str) -> &Topic {
        self.catalog.table(table).unwrap()
    }

    pub(crate) fn partition(&self, table: &str) -> Partition {
        let stream = Stream { topic: Arc::clone(&self.topic(table).name), id: TOPIC_ID };
        Partition { stream, number: 0 }
    }

    /// The lake, for writers.
    pub(crate) fn open(&self) -> Lake {
        Lake::open(&self.url(), &StoreOptions::default()).unwrap()
    }

    pub(crate) fn spec(&self, table: &str) -> TableSpec {
        let schema = &self.topic(table).schema;
        TableSpec {
            name: table.to_owned(),
            schema: schema.arrow(),
            event_time: schema.fields[schema.event_time].name.to_string(),
        }
    }

    /// Rows as the decoder makes them, at offsets from `first`.
    pub(crate) fn rows(&self, table: &str, first: i64, rows: &[Value]) -> RecordBatch {
        batch(self.topic(table).schema.arrow(), first, rows)
    }

    /// Commits one flush: the rows, at offsets from `first`, and the mark behind them.
    pub(crate) async fn append(&self, table: &str, first: i64, rows: &[Value]) {
        let settings = aion_sinks::lake::Settings::default();
        let mut sink = self.open().sink(self.spec(table), settings).await.unwrap();
        let partition = self.partition(table);
        sink.assign(std::slice::from_ref(&partition)).await.unwrap();
        let appended = Timestamp(1_764_072_000_000_000);
        let batch = Batch {
            partition: partition.clone(),
            range: Offset(first)..Offset(first + rows.len() as i64),
            epoch: 0,
            appended: Some((appended, appended)),
            rows: self.rows(table, first, rows),
            memory: Reservation::none(),
        };
        assert!(matches!(sink.write(batch).await.unwrap(), Accepted::Taken));
        let now = Instant::now();
        let why = Flush::Now { deadline: now + Duration::from_mins(1) };
        let flushed = sink.flush(now, why).await.unwrap();
        assert_eq!(flushed.marks[&partition].offset, Offset(first + rows.len() as i64));
    }
}

fn batch(schema: SchemaRef, first: i64, rows: &[Value]) -> RecordBatch {
    let line = |(row, offset): (&Value, i64)| {
        let mut row = row.clone();
        if row["_topic_id"].is_null() {
            row["_topic_id"] = json!(TOPIC_ID);
        }
        row["_leader_epoch"] = json!(0);
        row["_partition"] = json!(0);
        row["_offset"] = json!(offset);
        row["_append_time"] = json!("2026-11-25T12:00:00Z");
        row.to_string()
    };
    let lines: String = rows.iter().zip(first..).map(line).collect();
    let reader = arrow::json::ReaderBuilder::new(schema).build(lines.as_bytes()).unwrap();
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// A decision at a time of day on 2026-11-25, or at a full RFC 3339 time.
pub(crate) fn decision(task: &str, route: &str, time: &str) -> Value {
    let time = if time.contains('T') { time.to_owned() } else { format!("2026-11-25T{time}Z") };
    json!({"task_id": task, "intent": "chat", "route": route, "reason": "policy",
           "tier": "internal", "timestamp": time})
}

/// Runs a query to its end.
pub(crate) async fn ask(engine: &Engine, sql: &str) -> Result<Vec<RecordBatch>, Error> {
    collect(engine.query(sql).await?).await
}

pub(crate) async fn collect(answer: Answer) -> Result<Vec<RecordBatch>, Error> {
    answer.try_collect().await
}

/// The answer as a table of text.
pub(crate) async fn shown(engine: &Engine, sql: &str) -> String {
    let rows = ask(engine, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    pretty_format_batches(&rows).unwrap().to_string()
}

/// The single number that a query gives.
pub(crate) async fn number(engine: &Engine, sql: &str) -> i64 {
    use arrow::array::AsArray;
    let rows = ask(engine, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let column =
        arrow::compute::cast(rows[0].column(0), &arrow::datatypes::DataType::Int64).unwrap();
    column.as_primitive::<arrow::datatypes::Int64Type>().value(0)
}
