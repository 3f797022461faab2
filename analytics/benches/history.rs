//! Whether a table stays as fast as it was while its history grows: the time of a commit, of opening the table
//! for writing, and of a query, after thousands of small commits with upkeep in between.
//!
//! `cargo bench --workspace --bench history -- [COMMITS]` (10,000). A commit here is 20 rows; every 200 commits come
//! a compaction, a vacuum and a clean-up of the log, as the scheduled upkeep does. Nothing is old enough to be removed,
//! as in the first week of a table. After each fifth the table is set aside, 50 commits after a checkpoint, the mean
//! between two of them: each entry that came since is a file more to read. What was set aside is measured at the end,
//! one age after the other, over and over, so that a machine that is busy for a while is so for all of them. A query
//! asks for the newest rows, as many each time, by an engine that has seen nothing yet.
//!
//! Shown is CPU time of the process, in milliseconds each: the median of the rounds, and how it compares with that of
//! the first age in the same round, in the median too. Commits are measured by the hundred, with the checkpoint that falls due
//! among them; upkeep, a round at a time, while the table grows.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::{
    path::Path,
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
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

const ROWS: i64 = 20;
const UPKEEP_EVERY: i64 = 200;
const STEPS: i64 = 5;
const SINCE_CHECKPOINT: i64 = 50;
/// After so many entries a writer makes a checkpoint by itself.
const CHECKPOINT_EVERY: i64 = 100;
/// Of an age, how often it is looked at, and how many times in a row then.
const ROUNDS: usize = 21;
const OPENS: usize = 25;
const QUERIES: usize = 10;
const TOPIC_ID: Uuid = Uuid::from_u128(7);

#[tokio::main]
async fn main() {
    let asked = std::env::args().find_map(|argument| argument.parse().ok());
    let folder = tempfile::tempdir().unwrap();
    let mut ages = grow(folder.path(), asked.unwrap_or(10_000)).await;
    for _ in 0..ROUNDS {
        for age in &mut ages {
            let (place, rows) = (&age.place, age.commits * ROWS);
            age.open.push(each(OPENS, async || drop(place.open().await)).await);
            age.query.push(each(QUERIES, async || place.query(rows).await).await);
        }
    }
    // At last, since that changes the tables.
    let mut sinks = Vec::new();
    for age in &ages {
        sinks.push(age.place.open().await);
    }
    for round in 0..ROUNDS as i64 {
        for (age, sink) in ages.iter_mut().zip(&mut sinks) {
            let first = age.commits + round * CHECKPOINT_EVERY;
            age.commit.push(age.place.commits_and_checkpoint(sink, first).await);
        }
    }
    report(&ages);
}

fn report(ages: &[Age]) {
    println!(
        "{:>8} {:>11} {:>11} {:>11} {:>10} {:>6} {:>8} {:>8}",
        "commits", "commit ms", "open ms", "query ms", "upkeep ms", "files", "actions", "bytes"
    );
    for age in ages {
        let timed = |of: fn(&Age) -> &[f64]| {
            let pairs = of(age).iter().zip(of(&ages[0]));
            let ratio = median(pairs.map(|(this, first)| this / first));
            format!("{:.1} {ratio:.2}x", median(of(age).iter().copied()))
        };
        println!(
            "{:>8} {:>11} {:>11} {:>11} {:>10.0} {:>6} {:>8} {:>8}",
            age.commits,
            timed(|age| &age.commit),
            timed(|age| &age.open),
            timed(|age| &age.query),
            median(age.upkeep.iter().copied()),
            age.files,
            age.checkpoint["size"],
            age.checkpoint["sizeInBytes"],
        );
    }
}

/// A table as it was after so many commits, and what was measured of it, in milliseconds.
struct Age {
    commits: i64,
    place: Place,
    files: usize,
    checkpoint: Value,
    commit: Vec<f64>,
    open: Vec<f64>,
    query: Vec<f64>,
    upkeep: Vec<f64>,
}

impl Age {
    /// Sets a table aside.
    async fn of(table: &Path, commits: i64, upkeep: Vec<f64>) -> Age {
        let aside = table.with_file_name(commits.to_string());
        link_all(table, &aside);
        let place = Place::new(&aside);
        let snapshot = place.lake.table("decisions").unwrap().snapshot().await.unwrap().unwrap();
        let (files, checkpoint) = (snapshot.files.len(), place.last_checkpoint());
        assert_eq!(Some(snapshot.version - SINCE_CHECKPOINT), checkpoint["version"].as_i64());
        let [commit, open, query] = [Vec::new(), Vec::new(), Vec::new()];
        Age { commits, place, files, checkpoint, commit, open, query, upkeep }
    }
}

/// Lets a table grow, and sets it aside after each fifth of its commits.
async fn grow(folder: &Path, commits: i64) -> Vec<Age> {
    let place = Place::new(&folder.join("lake"));
    let mut sink = place.open().await;
    let (mut ages, mut done) = (Vec::new(), 0);
    for step in 1..=STEPS {
        let until = commits * step / STEPS;
        let mut upkeep = Vec::new();
        while done < until {
            if done == until - SINCE_CHECKPOINT {
                place.upkeep().await.checkpoint().await.unwrap();
                // Else it goes on counting from a checkpoint of its own, and makes another one in between.
                sink = place.open().await;
            }
            place.commit(&mut sink, done).await;
            done += 1;
            if done % UPKEEP_EVERY == UPKEEP_EVERY - SINCE_CHECKPOINT {
                upkeep.push(each(1, async || place.keep_up().await).await);
            }
        }
        ages.push(Age::of(&folder.join("lake"), until, upkeep).await);
    }
    ages
}

/// A second name for everything in a folder: no file of a lake is ever changed, only replaced.
fn link_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            link_all(&from, &to);
        } else {
            std::fs::hard_link(from, to).unwrap();
        }
    }
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut of: Vec<f64> = of.collect();
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

struct Place {
    lake: Lake,
    url: Url,
    catalog: Arc<Catalog>,
}

impl Place {
    fn new(folder: &Path) -> Place {
        let url = Url::from_directory_path(folder).unwrap();
        let lake = Lake::open(&url, &StoreOptions::default()).unwrap();
        Place { lake, url, catalog: Arc::new(Catalog::builtin()) }
    }

    /// What the log says of its newest checkpoint.
    fn last_checkpoint(&self) -> Value {
        let log = self.url.to_file_path().unwrap().join("decisions/_delta_log/_last_checkpoint");
        serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap()
    }

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

    /// So many commits that one checkpoint falls due, until it is there; the time of each.
    async fn commits_and_checkpoint(&self, sink: &mut LakeSink, first: i64) -> f64 {
        let (before, start) = (self.last_checkpoint(), cpu_ms());
        for number in first..first + CHECKPOINT_EVERY {
            self.commit(sink, number).await;
        }
        while self.last_checkpoint() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (cpu_ms() - start) / CHECKPOINT_EVERY as f64
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
async fn each(runs: usize, mut what: impl AsyncFnMut()) -> f64 {
    let start = cpu_ms();
    for _ in 0..runs {
        what().await;
    }
    (cpu_ms() - start) / runs as f64
}

/// User and system time of this process so far.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 * 10.0
}
