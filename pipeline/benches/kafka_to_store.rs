//! What `aion run` costs with one job, from Kafka to the lake or to ClickHouse, beside reading the same records and doing
//! nothing.
//!
//! The platform is started as `aion run` starts it, from a configuration that says only where things are: bounds on
//! memory, queues, the age of a flush and all else are those of the product, and so is what runs beside a job (HTTP,
//! what SQL sees of rows that aren't written). What starting and stopping take is in the figures.
//!
//! The broker and the registry run in a process of their own, so this process' CPU time is the pipeline's:
//! librdkafka, decode, Parquet or Arrow streams, commits or looks. In ClickHouse's stead a server takes the rows that counts
//! them and keeps none (`sinks/benches/clickhouse/counter.rs`), with the tests' engine behind it (`scripts/setup test`), which
//! has the tables and answers all else that is asked of them; each is a process of its own too.
//!
//! Rounds of all take turns over the same log, so that a machine whose speed drifts drifts for all.
//! `cargo bench --workspace --bench kafka_to_store -- [lake] [clickhouse]`, both where none is named. `AION_EVENTS` sets
//! the number of events (1,000,000 by default), `AION_ROUNDS` the rounds (3). Prints nanoseconds of CPU per event, and
//! the job's share of the raw rate: medians.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "../../sinks/benches/clickhouse/counter.rs"]
mod counter;
#[path = "../../sinks/benches/clickhouse/engine.rs"]
mod engine;

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use aion::{
    commands::{
        bootstrap,
        generate::{Encoder, Life, Messages, Share, Topic},
    },
    config::{Config, RegistryConfig},
    health::Health,
    http,
    job::status::JobStatus,
    platform::Platform,
    registry::{self, Schema},
};
use aion_embedded::{Broker, Fsync, Registry};
use aion_kafka::{Connection, Consumer, Error, Event, Limits, Outgoing, Producer, TopicPartition};
use aion_schemas::{
    catalog::{self, Catalog, Environment},
    clickhouse::Table,
    decode::SchemaId,
    log::{Offset, Timestamp},
    schema::NAMESPACE,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use counter::Counter;
use engine::Engine;

const TOPIC: Topic = Topic::Decisions;
const WAIT: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn main() {
    aion_kafka::bound_arenas();
    if std::env::args().any(|argument| argument == "broker") {
        return serve();
    }
    if let Some(engine) = counter::engine_port() {
        return counter::serve(engine).unwrap();
    }
    let setting = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap())
    };
    let (events, rounds) = (setting("AION_EVENTS", 1_000_000), setting("AION_ROUNDS", 3));
    let stores = Store::asked();
    println!("store       encoding  bytes/event  raw ns/event  job ns/event  job/raw rate");
    let catalog = Catalog::builtin();
    let topic = catalog.topic(TOPIC.name()).unwrap();
    for encoding in ["json", "avro"] {
        let (mut child, sources) = Sources::start();
        let connection = Connection::to(&sources.kafka);
        bootstrap::create_topics(&connection, &catalog, Environment::Dev).unwrap();
        let id = sources.register(topic);
        let encoder = if encoding == "avro" {
            Encoder::avro([(TOPIC, &*topic.schema, id)])
        } else {
            Encoder::Json
        };
        let bytes = fill(&connection, encoder, events);
        let (mut raw, mut full) = (Vec::new(), vec![Vec::new(); stores.len()]);
        for round in 0..rounds {
            raw.push(cpu_per_event(events, || read_raw(&connection, round, events)));
            for (store, full) in stores.iter().zip(&mut full) {
                let place = store.place(topic, &format!("{encoding}_{round}"));
                full.push(cpu_per_event(events, || run(&sources, &place, events)));
                place.check(events);
            }
        }
        let raw = median(raw);
        for (store, full) in stores.iter().zip(full) {
            let full = median(full);
            println!(
                "{:10}  {encoding:8}  {:11}  {raw:12}  {full:12}  {:12.2}",
                store.name(),
                bytes / events,
                raw as f64 / full as f64
            );
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    println!("peak memory: {} MiB", peak_mib());
    aion_analytics::engine::clear_temporary_files();
}

/// Runs the broker and the registry until the parent closes the pipe.
fn serve() {
    let data = tempfile::tempdir().unwrap();
    let mut settings = aion_embedded::Settings::new(data.path().join("kafka"));
    settings.fsync = Fsync::Never;
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let runtime = Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(settings)).unwrap();
    let registry = Registry::start(any_port, data.path().join("registry"));
    let registry = runtime.block_on(registry).unwrap();
    println!("{}\n{}", broker.address(), registry.address());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    runtime.block_on(registry.stop());
    runtime.block_on(broker.stop()).unwrap();
}

/// Where the other process listens.
struct Sources {
    kafka: String,
    registry: SocketAddr,
}

impl Sources {
    fn start() -> (Child, Sources) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("broker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().unwrap().unwrap();
        let sources = Sources { kafka: line(), registry: line().parse().unwrap() };
        (child, sources)
    }

    /// Registers the topic's schema, as `aion bootstrap` does; answers its id.
    fn register(&self, topic: &catalog::Topic) -> SchemaId {
        let registry = registry::Registry::open(&RegistryConfig::at(self.registry).settings);
        let (registry, subject) = (registry.unwrap(), topic.subject());
        let schema = Schema::avro(topic.schema.avro_text(NAMESPACE));
        Runtime::new().unwrap().block_on(registry.register(&subject, &schema, false)).unwrap()
    }
}

/// Where rows go.
enum Store {
    Lake,
    /// The engine, and what its client runs on.
    ClickHouse(Engine, Runtime),
}

/// Where those of a round go, in which there is nothing yet.
struct Place {
    folder: TempDir,
    counter: Option<Counter>,
    /// What the configuration says of it.
    config: String,
}

impl Store {
    /// Those that the command line names; all where it names none.
    fn asked() -> Vec<Store> {
        let names: Vec<String> = std::env::args().collect();
        let is_named = |name: &str| names.iter().any(|one| one == name);
        let is_all = !is_named("lake") && !is_named("clickhouse");
        let mut stores = Vec::new();
        if is_all || is_named("lake") {
            stores.push(Store::Lake);
        }
        if is_all || is_named("clickhouse") {
            stores.push(Store::ClickHouse(Engine::start().unwrap(), Runtime::new().unwrap()));
        }
        stores
    }

    fn name(&self) -> &'static str {
        match self {
            Store::Lake => "lake",
            Store::ClickHouse(..) => "clickhouse",
        }
    }

    /// A new folder, or a new database of that name and a server of its own before it.
    fn place(&self, topic: &catalog::Topic, name: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let (counter, server) = match self {
            Store::Lake => (None, String::new()),
            Store::ClickHouse(engine, runtime) => {
                let table = Table::of(topic, Environment::Prod);
                runtime.block_on(engine.make(name, &table)).unwrap();
                let counter = Counter::start(engine.port).unwrap();
                let url = format!("http://127.0.0.1:{}", counter.port);
                (Some(counter), format!("[clickhouse]\nurl = '{url}'\ndatabase = '{name}'\n"))
            }
        };
        let config = format!(
            "[lake]\nurl = '{}'\n{server}[[job]]\ntopic = '{}'\nsinks = ['{}']\n",
            folder.path().display(),
            TOPIC.name(),
            self.name()
        );
        Place { folder, counter, config }
    }
}

impl Place {
    /// What was stored is what came, where that can be asked; the job has looked itself.
    fn check(self, events: u64) {
        if let Some(counter) = self.counter {
            let (rows, _) = counter.counted().unwrap();
            assert_eq!(rows as u64, events);
        }
        self.folder.close().unwrap();
    }
}

/// `aion run` into a place, until every event is there.
fn run(sources: &Sources, place: &Place, events: u64) {
    // What an operator writes who leaves all else to the product.
    let text = format!(
        "[kafka]\nbrokers = '{}'\n[registry]\nurls = ['http://{}']\n[http]\nlisten = '127.0.0.1:0'\n{}",
        sources.kafka, sources.registry, place.config
    );
    let config = Config::parse(&text, std::iter::empty()).unwrap();
    Runtime::new().unwrap().block_on(async {
        let stop = CancellationToken::new();
        let listener = http::bind(config.http).await.unwrap();
        let platform = Platform::start(config, listener, &stop, None).await.unwrap();
        let health = Arc::clone(&platform.health);
        tokio::time::timeout(WAIT * 5, all_taken(&health, events)).await.unwrap();
        // What waits is written at the stop, sooner than its age would have it.
        stop.cancel();
        platform.ended().await.unwrap();
        let job = status(&health);
        assert_eq!((job.rows_stored, job.rejected), (events, 0));
    });
}

/// How the job is doing; another one of its name reads the topic's retries.
fn status(health: &Health) -> Arc<JobStatus> {
    health.jobs().find(|job| &*job.topic == TOPIC.name()).unwrap()
}

/// Waits until the sink has taken all.
async fn all_taken(health: &Health, events: u64) {
    loop {
        let job = status(health);
        assert!(job.is_well(), "{job:?}");
        let positions = job.partitions.iter().filter_map(|partition| partition.position);
        if positions.map(Offset::get).sum::<i64>() >= events as i64 {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
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
