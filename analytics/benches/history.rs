//! Whether a table stays as fast as it was while its history grows: the time of a commit, of opening the table
//! for writing, and of a query, after thousands of small commits with upkeep in between.
//!
//! `cargo bench --workspace --bench history -- [COMMITS]` (10,000). A commit here is 20 rows; every 200 commits come
//! a compaction and a vacuum, as the scheduled upkeep does. Nothing is old enough to be removed, as in the first
//! week of a table. Opening and queries are measured 50 commits after a checkpoint, the mean between two of them: each entry
//! that came since is a file more to read. A query asks for the newest rows, as many each time. Shown is CPU time of the
//! process, in milliseconds each.
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
    lake::{
        Lake, LakeSink, StoreOptions, TableSpec,
        upkeep::{Compaction, Upkeep},
    },
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
const SINCE_CHECKPOINT: i64 = 50;
const RUNS: i64 = 40;
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
    let mut done = 0;
    for step in 1..=STEPS {
        let (until, before) = (commits * step / STEPS, done);
        let start = cpu_ms();
        while done < until {
            if done == until - SINCE_CHECKPOINT {
                place.upkeep().await.checkpoint().await.unwrap();
            }
            place.commit(&mut sink, done).await;
            done += 1;
            if done % UPKEEP_EVERY == UPKEEP_EVERY - SINCE_CHECKPOINT {
                place.keep_up().await;
            }
        }
        let commit = (cpu_ms() - start) / (done - before) as f64;
        let open = each(async || drop(place.open().await)).await;
        let query = each(async || place.query(done * ROWS).await).await;
        let table = place.lake.table("decisions").unwrap();
        let files = table.snapshot().await.unwrap().unwrap().files.len();
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

    async fn upkeep(&self) -> Upkeep {
        self.lake.upkeep(self.spec()).await.unwrap().unwrap()
    }

    async fn keep_up(&self) {
        let mut upkeep = self.upkeep().await;
        upkeep.compact(&Compaction::default(), |_, _| ()).await.unwrap();
        upkeep.vacuum(false).await.unwrap();
        upkeep.clean_log(false).await.unwrap();
    }

    /// Of the newest rows, by an engine that has seen nothing yet.
    async fn query(&self, rows: i64) {
        let engine =
            Engine::open(Settings::new(self.url.clone(), Arc::clone(&self.catalog))).unwrap();
        let newest = SINCE_CHECKPOINT * ROWS;
        let sql = format!(
            "select count(*) from decisions where _offset >= {} and route = 'local'",
            rows - newest
        );
        let answer: Vec<RecordBatch> =
            engine.query(&sql).await.unwrap().try_collect().await.unwrap();
        let count = arrow::util::display::array_value_to_string(answer[0].column(0), 0).unwrap();
        assert_eq!(count, newest.to_string());
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

/// CPU time of one of many runs.
async fn each(mut what: impl AsyncFnMut()) -> f64 {
    let start = cpu_ms();
    for _ in 0..RUNS {
        what().await;
    }
    (cpu_ms() - start) / RUNS as f64
}

/// User and system time of this process so far.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 * 10.0
}
