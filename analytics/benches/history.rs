//! Whether a table stays as fast as it was while its history grows: the time of a commit, of opening the table
//! for writing, and of a query, after thousands of small commits with upkeep in between.
//!
//! `cargo bench --workspace --bench history -- [COMMITS]` (10,000). A commit here is 20 rows; every 200 commits come
//! a compaction and a vacuum, as the scheduled upkeep does. Nothing is old enough to be removed, as in the first
//! week of a table. Shown are medians, in milliseconds of wall time.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports and fails by panic")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_analytics::{Engine, Settings};
use aion_schemas::{
    catalog::{Catalog, Topic},
    log::{Offset, Partition, Stream},
};
use aion_sinks::{
    batch::Batch,
    budget::Reservation,
    lake::{Lake, LakeSink, StoreOptions, TableSpec, upkeep::Compaction},
    sink::{Accepted, Flush, Sink},
};
use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef};
use futures::TryStreamExt;
use serde_json::json;
use url::Url;
use uuid::Uuid;

const ROWS: i64 = 20;
const UPKEEP_EVERY: i64 = 200;
const STEPS: i64 = 5;
const TOPIC_ID: Uuid = Uuid::from_u128(7);

#[tokio::main]
async fn main() {
    let asked = std::env::args().find_map(|argument| argument.parse().ok());
    let commits: i64 = asked.unwrap_or(10_000);
    let folder = tempfile::tempdir().unwrap();
    let url = Url::from_directory_path(folder.path().join("lake")).unwrap();
    let catalog = Arc::new(Catalog::builtin());
    let place = Place { lake: Lake::open(&url, &StoreOptions::default()).unwrap(), url, catalog };
    println!(
        "{:>8} {:>10} {:>8} {:>9} {:>8}",
        "commits", "commit ms", "open ms", "query ms", "files"
    );
    let mut sink = place.open().await;
    let (mut done, mut times) = (0, Vec::new());
    for step in 1..=STEPS {
        while done < commits * step / STEPS {
            let start = Instant::now();
            place.commit(&mut sink, done).await;
            times.push(start.elapsed());
            done += 1;
            if done % UPKEEP_EVERY == 0 {
                place.upkeep().await;
            }
        }
        let open = median(async || drop(place.open().await)).await;
        let query = median(async || place.query(done * ROWS).await).await;
        let table = place.lake.table("decisions").unwrap();
        let files = table.snapshot().await.unwrap().unwrap().files.len();
        let commit = middle(std::mem::take(&mut times));
        println!("{done:>8} {commit:>10.2} {open:>8.2} {query:>9.2} {files:>8}");
    }
}

struct Place {
    lake: Lake,
    url: Url,
    catalog: Arc<Catalog>,
}

impl Place {
    fn topic(&self) -> &Topic {
        self.catalog.table("decisions").unwrap()
    }

    fn spec(&self) -> TableSpec {
        let schema = &self.topic().schema;
        let event_time = schema.fields[schema.event_time].name.to_string();
        TableSpec { name: "decisions".to_owned(), schema: schema.arrow(), event_time }
    }

    fn partition(&self) -> Partition {
        let stream = Stream { topic: Arc::clone(&self.topic().name), id: TOPIC_ID };
        Partition { stream, number: 0 }
    }

    async fn open(&self) -> LakeSink {
        let settings = aion_sinks::lake::Settings::default();
        let mut sink = self.lake.sink(self.spec(), settings).await.unwrap();
        sink.assign(&[self.partition()]).await.unwrap();
        sink
    }

    async fn commit(&self, sink: &mut LakeSink, number: i64) {
        let (first, next) = (number * ROWS, (number + 1) * ROWS);
        let batch = Batch {
            partition: self.partition(),
            range: Offset(first)..Offset(next),
            epoch: 0,
            appended: None,
            rows: rows(self.topic().schema.arrow(), first..next),
            memory: Reservation::none(),
        };
        assert!(matches!(sink.write(batch).await.unwrap(), Accepted::Taken));
        let now = Instant::now();
        let why = Flush::Now { deadline: now + Duration::from_mins(1) };
        let flushed = sink.flush(now, why).await.unwrap();
        assert_eq!(flushed.marks[&self.partition()].offset, Offset(next));
    }

    async fn upkeep(&self) {
        let mut upkeep = self.lake.upkeep(self.spec()).await.unwrap().unwrap();
        upkeep.compact(&Compaction::default(), |_, _| ()).await.unwrap();
        upkeep.vacuum(false).await.unwrap();
        upkeep.clean_log(false).await.unwrap();
    }

    /// By an engine that has seen nothing yet.
    async fn query(&self, rows: i64) {
        let engine =
            Engine::open(Settings::new(self.url.clone(), Arc::clone(&self.catalog))).unwrap();
        let sql = "select count(*) from decisions where _offset % 2 = 0 or route = 'local'";
        let answer: Vec<RecordBatch> =
            engine.query(sql).await.unwrap().try_collect().await.unwrap();
        let count = arrow::util::display::array_value_to_string(answer[0].column(0), 0).unwrap();
        assert_eq!(count, rows.to_string());
    }
}

fn rows(schema: SchemaRef, offsets: std::ops::Range<i64>) -> RecordBatch {
    let line = |offset: i64| {
        json!({"task_id": format!("task-{offset}"), "intent": "chat", "route": "local",
               "reason": "policy", "tier": "internal", "timestamp": "2026-11-25T12:00:00Z",
               "_topic_id": TOPIC_ID, "_leader_epoch": 0, "_partition": 0, "_offset": offset,
               "_append_time": "2026-11-25T12:00:00Z"})
        .to_string()
    };
    let lines: String = offsets.map(line).collect();
    let reader = arrow::json::ReaderBuilder::new(schema).build(lines.as_bytes()).unwrap();
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// Of five runs, in milliseconds.
async fn median(mut what: impl AsyncFnMut()) -> f64 {
    let mut taken = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        what().await;
        taken.push(start.elapsed());
    }
    middle(taken)
}

/// The middle one, in milliseconds.
fn middle(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}
