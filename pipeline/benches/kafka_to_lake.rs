//! What a job costs, from Kafka to the lake, beside reading the same records and doing nothing.
//!
//! The broker runs in a process of its own, so this process' CPU time is the pipeline's: librdkafka,
//! decode, Parquet, commits. Rounds of both take turns over the same log, so that a machine whose
//! speed drifts drifts for both. `AION_EVENTS` sets the number of events (1,000,000 by default),
//! `AION_ROUNDS` the rounds (3). Prints nanoseconds of CPU per event, and the job's share of the raw
//! rate: medians.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports and fails by panic")]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use aion::{
    commands::{
        bootstrap,
        generate::{Encoder, Life, Messages, Share, Topic},
    },
    job::{
        self, JobSpec,
        schemas::{Found, Registry, WriterSchemas},
    },
};
use aion_embedded::{Broker, Fsync};
use aion_kafka::{Connection, Consumer, Error, Event, Limits, Outgoing, Producer, TopicPartition};
use aion_schemas::{
    catalog::{Catalog, Environment},
    decode::SchemaId,
    log::{Offset, Timestamp},
};
use aion_sinks::{
    budget::Budget,
    lake::{Lake, Settings, StoreOptions, TableSpec},
    sink::Sink,
};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use url::Url;

const TOPIC: Topic = Topic::Decisions;
const SCHEMA_ID: u32 = 1;
const WAIT: Duration = Duration::from_mins(2);
const BUDGET_BYTES: usize = 384 << 20;

fn main() {
    aion_kafka::bound_arenas();
    if std::env::args().any(|argument| argument == "broker") {
        return serve();
    }
    let setting = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap())
    };
    let (events, rounds) = (setting("AION_EVENTS", 1_000_000), setting("AION_ROUNDS", 3));
    println!("encoding  bytes/event  raw ns/event  job ns/event  job/raw rate");
    let catalog = Catalog::builtin();
    let schema = &catalog.topic(TOPIC.name()).unwrap().schema;
    for (name, encoder) in [
        ("json", Encoder::Json),
        ("avro", Encoder::avro([(TOPIC, &**schema, SchemaId(SCHEMA_ID))])),
    ] {
        let (mut child, connection) = start_broker();
        bootstrap::create_topics(&connection, &catalog, Environment::Dev).unwrap();
        let bytes = fill(&connection, encoder, events);
        let (mut raw, mut full) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            raw.push(cpu_per_event(events, || read_raw(&connection, round, events)));
            full.push(cpu_per_event(events, || run_job(&connection, &catalog, events)));
        }
        let (raw, full) = (median(raw), median(full));
        println!(
            "{name:8}  {:11}  {raw:12}  {full:12}  {:12.2}",
            bytes / events,
            raw as f64 / full as f64
        );
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    println!("peak memory: {} MiB", peak_mib());
}

/// Runs the broker until the parent closes the pipe.
fn serve() {
    let data = tempfile::tempdir().unwrap();
    let mut settings = aion_embedded::Settings::new(data.path());
    settings.fsync = Fsync::Never;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(settings)).unwrap();
    println!("{}", broker.address());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    runtime.block_on(broker.stop()).unwrap();
}

fn start_broker() -> (Child, Connection) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("broker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    (child, Connection::to(address.trim()))
}

/// Produces the events; answers how many bytes their values have.
fn fill(connection: &Connection, encoder: Encoder, events: u64) -> u64 {
    let producer = Producer::open(connection, "bench").unwrap();
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let start = Timestamp(since_1970.as_micros() as i64 - 3_600_000_000);
    let life = Life::new(1, start, &[TOPIC], 1000.0);
    let mut messages = Messages::new(life, encoder, Share::default());
    let mut bytes = 0;
    for _ in 0..events {
        let message = messages.make().unwrap();
        bytes += message.body.len() as u64;
        let outgoing = Outgoing {
            topic: TOPIC.name(),
            key: Some(message.key),
            value: Some(message.body),
            ..Outgoing::default()
        };
        while let Err(error) = producer.send(&outgoing, |placed| assert!(placed.is_ok())) {
            assert!(matches!(error, Error::Full { .. }), "{error}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(WAIT).unwrap();
    bytes
}

fn read_raw(connection: &Connection, round: u64, events: u64) {
    let group = format!("raw-{round}");
    let mut consumer =
        Consumer::open(connection, &group, &[TOPIC.name()], Limits::default()).unwrap();
    let started: Vec<TopicPartition> = loop {
        if let Some(Event::Assigned(partitions)) = consumer.poll(WAIT) {
            break partitions;
        }
    };
    for partition in &started {
        consumer.start(partition, Offset::ZERO, -1).unwrap();
    }
    let mut count = 0;
    while count < events as usize {
        assert_eq!(consumer.poll(WAIT), None);
        for partition in &started {
            count += consumer.fetch(partition, 4096, |_| ()).count;
        }
    }
}

/// A registry where every id is the contract's own schema, of this text.
#[derive(Debug)]
struct Contract(String);

#[async_trait]
impl WriterSchemas for Contract {
    async fn look_up(&self, _: SchemaId) -> Found {
        Found::Schema { text: self.0.clone(), references: Vec::new() }
    }
}

fn run_job(connection: &Connection, catalog: &Catalog, events: u64) {
    let folder = tempfile::tempdir().unwrap();
    let lake =
        Lake::open(&Url::from_directory_path(folder.path()).unwrap(), &StoreOptions::default());
    let lake = lake.unwrap();
    let topic = catalog.topic(TOPIC.name()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let schema = &topic.schema;
        let spec = TableSpec {
            name: topic.table.to_string(),
            schema: schema.arrow(),
            event_time: schema.fields[schema.event_time].name.to_string(),
        };
        let settings = Settings { flush_age: Duration::from_secs(5), ..Settings::default() };
        let sinks: Vec<Box<dyn Sink>> = vec![Box::new(lake.sink(spec, settings).await.unwrap())];
        let text = topic.schema.avro_text("aion.events");
        let spec = JobSpec {
            name: "bench".to_owned(),
            topic: Arc::new(topic.clone()),
            registry: Some(Registry { schemas: Arc::new(Contract(text)), grace: WAIT }),
            max_reject_share: 0.0,
            stop_within: WAIT,
            limits: Limits::default(),
        };
        let stop = CancellationToken::new();
        let budget = Budget::new(BUDGET_BYTES);
        let mut handle = job::run(spec, connection, sinks, budget, stop.clone()).unwrap();
        let all = handle.status.wait_for(|status| status.rows_stored >= events);
        let status = tokio::time::timeout(WAIT * 5, all).await.unwrap().unwrap();
        assert_eq!((status.rows_stored, status.rejected), (events, 0));
        stop.cancel();
        handle.done.await.unwrap().unwrap();
    });
}

fn cpu_per_event(events: u64, work: impl FnOnce()) -> u64 {
    let (before, began) = (process_ms(), Instant::now());
    work();
    let ns = (process_ms() - before) * 1_000_000 / events;
    eprintln!("{ns} ns/event, {:.1} s", began.elapsed().as_secs_f64());
    ns
}

fn median(mut figures: Vec<u64>) -> u64 {
    figures.sort_unstable();
    figures[figures.len() / 2]
}

/// CPU time of this process; the kernel counts in steps of 10 ms.
fn process_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>() * 10
}

/// The most memory that this process has held.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
