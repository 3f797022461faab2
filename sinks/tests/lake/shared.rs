//! A lake in a temporary folder, and reading it back as a user would.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use aion_schemas::log::Partition;
use aion_sinks::{
    conformance::schema,
    lake::{Lake, LakeSink, Settings, StoreOptions, TableSpec, read::Snapshot},
    sink::Sink,
};
use arrow::{
    array::{AsArray, types},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use url::Url;

pub(crate) struct Place {
    folder: TempDir,
    pub(crate) lake: Lake,
}

pub(crate) fn settings() -> Settings {
    Settings { flush_age: Duration::ZERO, ..Settings::default() }
}

pub(crate) fn spec(schema: SchemaRef) -> TableSpec {
    TableSpec { name: "orders".into(), schema, event_time: "at".into() }
}

impl Place {
    pub(crate) fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(folder.path()).unwrap();
        Place { lake: Lake::open(&url, &StoreOptions::default()).unwrap(), folder }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.table().join("_delta_log")
    }

    pub(crate) fn table(&self) -> PathBuf {
        self.folder.path().join("orders")
    }

    pub(crate) async fn open(&self) -> LakeSink {
        self.open_with(settings()).await
    }

    pub(crate) async fn open_with(&self, settings: Settings) -> LakeSink {
        self.lake.sink(spec(schema()), settings).await.unwrap()
    }

    /// A writer that owns these partitions.
    pub(crate) async fn owner(&self, partitions: &[Partition]) -> LakeSink {
        let mut sink = self.open().await;
        sink.assign(partitions).await.unwrap();
        sink
    }

    pub(crate) async fn snapshot(&self) -> Arc<Snapshot> {
        self.lake.table("orders").unwrap().snapshot().await.unwrap().unwrap()
    }

    /// Entries of the log, as text, by version.
    pub(crate) fn entry(&self, version: i64) -> String {
        std::fs::read_to_string(self.log().join(format!("{version:020}.json"))).unwrap()
    }

    pub(crate) fn put_entry(&self, version: i64, text: &str) {
        std::fs::write(self.log().join(format!("{version:020}.json")), text).unwrap();
    }

    pub(crate) async fn rows(&self) -> Vec<(String, i32, i64)> {
        rows(&self.lake).await
    }

    /// Stored offsets of a partition, sorted; doubles show.
    pub(crate) async fn offsets(&self, partition: &Partition) -> Vec<i64> {
        let id = partition.stream.id.to_string();
        let rows = self.rows().await.into_iter();
        let mut offsets: Vec<i64> = rows
            .filter(|(topic, number, _)| *topic == id && *number == partition.number)
            .map(|(_, _, offset)| offset)
            .collect();
        offsets.sort_unstable();
        offsets
    }
}

/// The batches of every live file.
pub(crate) async fn batches(lake: &Lake) -> Vec<RecordBatch> {
    let table = lake.table("orders").unwrap();
    let Some(snapshot) = table.snapshot().await.unwrap() else { return Vec::new() };
    let mut all = Vec::new();
    for file in &snapshot.files {
        let bytes = table.objects().get(&file.location).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes.len() as u64, file.size);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(Some(count as u64), file.rows);
        all.extend(batches);
    }
    all
}

/// Topic id, partition, offset of every row.
pub(crate) async fn rows(lake: &Lake) -> Vec<(String, i32, i64)> {
    let mut all = Vec::new();
    for rows in batches(lake).await {
        let topics = rows.column_by_name("_topic_id").unwrap().as_string::<i32>();
        let partitions = rows.column_by_name("_partition").unwrap();
        let partitions = partitions.as_primitive::<types::Int32Type>();
        let offsets = rows.column_by_name("_offset").unwrap();
        let offsets = offsets.as_primitive::<types::Int64Type>();
        all.extend(
            (0..rows.num_rows()).map(|row| {
                (topics.value(row).to_owned(), partitions.value(row), offsets.value(row))
            }),
        );
    }
    all
}

/// `first..end` as a list.
pub(crate) fn range(first: i64, end: i64) -> Vec<i64> {
    (first..end).collect()
}

/// Makes a file, or all in a folder, look older.
pub(crate) fn age(path: &Path, by: Duration) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            age(&entry.unwrap().path(), by);
        }
    } else {
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(SystemTime::now() - by)
            .unwrap();
    }
}
