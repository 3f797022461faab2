//! Series in a temporary folder, events for them, and what a page says.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aion_schemas::{
    log::{Offset, Partition, Stream, Timestamp},
    schema::{position_fields, time_type},
};
use aion_sinks::{
    batch::Batch,
    budget::Reservation,
    lake::Lake,
    prometheus::{PrometheusSink, Series, Settings, board::Board, source::Source},
    sink::Sink,
    store::StoreOptions,
};
use arrow::{
    array::{
        ArrayRef, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use flate2::read::GzDecoder;
use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

/// Time of the record at offset 0, in seconds; the one at each next offset is a second later.
pub(crate) const EPOCH_S: i64 = 1_772_359_200;

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    lake: Lake,
}

pub(crate) fn settings() -> Settings {
    Settings { flush_age: Duration::ZERO, ..Settings::default() }
}

impl Place {
    pub(crate) fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(folder.path()).unwrap();
        Place { lake: Lake::open(&url, &StoreOptions::default()).unwrap(), folder }
    }

    pub(crate) async fn open(
        &self,
        topic: &str,
        source: Source,
        settings: Settings,
        board: &Board,
    ) -> PrometheusSink {
        Series::open(&self.lake).await.unwrap().sink(topic, source, settings, board).unwrap()
    }

    pub(crate) async fn series(&self) -> Series {
        Series::open(&self.lake).await.unwrap()
    }

    /// A process that owns the partition, and its board.
    pub(crate) async fn owner(&self, partition: &Partition, settings: Settings) -> Process {
        let board = Board::default();
        let topic = &partition.stream.topic;
        let mut sink = self.open(topic, Source::Runtime, settings, &board).await;
        sink.assign(std::slice::from_ref(partition)).await.unwrap();
        Process { sink, board }
    }

    /// The checkpoints of a partition, oldest first.
    pub(crate) fn checkpoints(&self, partition: &Partition) -> Vec<PathBuf> {
        let topic = &*partition.stream.topic;
        let folder = self.folder.path().join("_aion/metrics").join(topic).join(partition.key());
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }
}

/// A checkpoint as text.
pub(crate) fn text_of(checkpoint: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(File::open(checkpoint).unwrap()).read_to_string(&mut text).unwrap();
    text
}

pub(crate) struct Process {
    pub(crate) sink: PrometheusSink,
    pub(crate) board: Board,
}

impl Process {
    pub(crate) fn page(&self) -> Page {
        self.page_at(EPOCH_S)
    }

    pub(crate) fn page_at(&self, seconds: i64) -> Page {
        Page::new(&self.board.page(Timestamp(seconds * 1_000_000), Duration::from_mins(5)))
    }
}

/// A page, read as Prometheus reads it.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) text: String,
    samples: BTreeMap<String, f64>,
}

impl Page {
    fn new(text: &str) -> Page {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut samples = BTreeMap::new();
        for line in lines {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let before = samples.insert(series.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{series} is there twice:\n{text}");
        }
        Page { text: text.to_owned(), samples }
    }

    pub(crate) fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// The series whose names begin so.
    pub(crate) fn of<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let all = self.samples.iter();
        all.filter(move |(name, _)| name.starts_with(start)).map(|(name, value)| (&**name, *value))
    }
}

/// An event of the runtime metrics.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) component: &'static str,
    pub(crate) metric: String,
    pub(crate) kind: Option<&'static str>,
    pub(crate) unit: Option<&'static str>,
    pub(crate) labels: Option<String>,
    pub(crate) value: f64,
    /// Seconds after the record was appended.
    pub(crate) ahead_s: i64,
    pub(crate) origin: Option<&'static str>,
}

impl Event {
    pub(crate) fn new(metric: &str, kind: &'static str, value: f64) -> Event {
        Event {
            component: "gateway",
            metric: metric.into(),
            kind: Some(kind),
            unit: None,
            labels: None,
            value,
            ahead_s: 0,
            origin: None,
        }
    }

    pub(crate) fn labels(mut self, json: &str) -> Event {
        self.labels = Some(json.into());
        self
    }
}

pub(crate) fn topic() -> Stream {
    Stream { topic: "aion.metrics.runtime".into(), id: Uuid::new_v4() }
}

pub(crate) fn partition(stream: &Stream, number: i32) -> Partition {
    Partition { stream: stream.clone(), number }
}

/// Events as the batch that begins at an offset.
pub(crate) fn batch(partition: &Partition, first: i64, events: &[Event]) -> Batch {
    let end = first + events.len() as i64;
    let appended = |offset: i64| (EPOCH_S + offset) * 1_000_000;
    let text = |of: fn(&Event) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(events.iter().map(of)))
    };
    let maybe = |of: fn(&Event) -> Option<&str>| -> ArrayRef {
        Arc::new(events.iter().map(of).collect::<StringArray>())
    };
    let times = |of: &dyn Fn((i64, &Event)) -> i64| -> ArrayRef {
        let times = (first..end).zip(events).map(of);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        text(|event| event.component),
        text(|event| &event.metric),
        Arc::new(Float64Array::from_iter_values(events.iter().map(|event| event.value))),
        maybe(|event| event.labels.as_deref()),
        times(&|(offset, event)| appended(offset) + event.ahead_s * 1_000_000),
        maybe(|event| event.kind),
        maybe(|event| event.unit),
        Arc::new(StringArray::from(vec![partition.stream.id.to_string(); events.len()])),
        Arc::new(Int32Array::from(vec![1; events.len()])),
        Arc::new(Int32Array::from(vec![partition.number; events.len()])),
        Arc::new(Int64Array::from_iter_values(first..end)),
        times(&|(offset, _)| appended(offset)),
        maybe(|event| event.origin),
    ];
    let mut fields = vec![
        Field::new("component", DataType::Utf8, false),
        Field::new("metric", DataType::Utf8, false),
        Field::new("value", DataType::Float64, false),
        Field::new("labels", DataType::Utf8, true),
        Field::new("timestamp", time_type(), false),
        Field::new("kind", DataType::Utf8, true),
        Field::new("unit", DataType::Utf8, true),
    ];
    fields.extend(position_fields());
    Batch {
        partition: partition.clone(),
        range: Offset(first)..Offset(end),
        epoch: 1,
        appended: None,
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap(),
        memory: Reservation::none(),
    }
}
