//! The suite of all sinks. Rows aren't stored here, so each is a series of its own, which counts how often it came.

use std::sync::{Arc, Mutex};

use aion_sinks::{
    conformance::Subject,
    lake::testing::Rig,
    prometheus::{
        Kind, PrometheusSink, Settings,
        board::Board,
        source::{Listed, Source},
    },
};
use async_trait::async_trait;

use crate::shared::{Place, settings, text_of};

const ROWS: &[Listed] = &[Listed {
    name: "rows_total",
    help: "Each row.",
    kind: Kind::Counter,
    value: None,
    labels: &["id"],
    unit: None,
    known: &[],
}];

struct Prometheus {
    place: Place,
    rigs: Mutex<Vec<Arc<Rig>>>,
}

impl Prometheus {
    fn new() -> Prometheus {
        Prometheus { place: Place::new(), rigs: Mutex::default() }
    }
}

#[async_trait]
impl Subject for Prometheus {
    type Sink = PrometheusSink;

    async fn open(&self, hold_bytes: usize) -> PrometheusSink {
        let settings = Settings { hold_bytes, ..settings() };
        let (source, board) = (Source::Listed(ROWS), Board::default());
        let sink = self.place.open("orders", source, settings, &board).await;
        self.rigs.lock().unwrap().push(sink.rig());
        sink
    }

    async fn rows(&self) -> Vec<(String, i32, i64)> {
        let mut all = Vec::new();
        let root = self.place.folder.path().join("_aion/metrics/orders");
        for topic in std::fs::read_dir(root).into_iter().flatten().map(Result::unwrap) {
            for partition in std::fs::read_dir(topic.path()).unwrap().map(Result::unwrap) {
                let files = std::fs::read_dir(partition.path()).unwrap();
                let Some(newest) = files.map(|file| file.unwrap().path()).max() else { continue };
                let text = text_of(&newest);
                let id = topic.file_name().into_string().unwrap();
                all.extend(rows_of(&text).into_iter().map(|(number, at)| (id.clone(), number, at)));
            }
        }
        all
    }

    fn stall(&self, stalled: bool) {
        self.rigs.lock().unwrap().iter().for_each(|rig| rig.stall(stalled));
    }
}

/// (partition, offset), as often as it was counted.
fn rows_of(checkpoint: &str) -> Vec<(i32, i64)> {
    let whole: serde_json::Value = serde_json::from_str(checkpoint).unwrap();
    let mut rows = Vec::new();
    for family in whole["state"]["families"].as_array().unwrap() {
        for series in family["series"].as_array().unwrap() {
            let labels = series["labels"].as_str().unwrap();
            let id = labels.strip_prefix("id=\"").unwrap().strip_suffix('"').unwrap();
            let (partition, offset) = id.split_once('-').unwrap();
            let row = (partition.parse().unwrap(), offset.parse().unwrap());
            let count = series["value"]["counter"].as_f64().unwrap() as usize;
            rows.extend(std::iter::repeat_n(row, count));
        }
    }
    rows
}

aion_sinks::conformance_tests!(Prometheus::new());
