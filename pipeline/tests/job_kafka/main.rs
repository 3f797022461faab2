//! The job over the embedded broker, with a real consumer and sinks in memory: what the model can't show,
//! because it is Kafka's own behaviour.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod deleted;
mod memory;
mod polling;
mod schemas;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aion::job::{self, JobHandle, JobSpec, schemas::Registry, status::JobStatus};
use aion_embedded::{Broker, Fsync, Settings as BrokerSettings};
use aion_kafka::{Admin, Connection, NewTopic, Outcome, Outgoing, Producer};
use aion_schemas::{
    catalog::{Catalog, DEAD_LETTERS, GAPS, Topic},
    log::{Offset, Partition, Stream},
};
use aion_sinks::{
    budget::Budget,
    memory::{MemorySink, Settings, Store},
    sink::Sink,
};
use arrow::array::AsArray;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const EVENTS: &str = "aion.tasks.lifecycle";
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster with the catalog's topics, and clients of it.
struct Cluster {
    broker: Broker,
    connection: Connection,
    admin: Admin,
    /// Replaced when a log loses its end: a producer takes that for lost sequence numbers.
    producer: Mutex<Producer>,
    catalog: Catalog,
    _folder: TempDir,
}

impl Cluster {
    async fn start(partitions: i32) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = BrokerSettings::new(folder.path().join("kafka"));
        settings.fsync = Fsync::Never;
        settings.retention_check = Duration::from_hours(1); // when the test says so, not before
        let broker = Broker::start(settings).await.unwrap();
        let connection = Connection::to(broker.address().to_string());
        let admin = Admin::open(&connection, Duration::from_secs(10)).unwrap();
        let producer = Mutex::new(Producer::open(&connection, "test").unwrap());
        let catalog = Catalog::builtin();
        let cluster = Cluster { broker, connection, admin, producer, catalog, _folder: folder };
        cluster.create(EVENTS, partitions, &[]);
        cluster.create(DEAD_LETTERS, 1, &[]);
        cluster.create(GAPS, 1, &[]);
        cluster
    }

    fn create(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let new = NewTopic { topic, partitions, replication: 1, configs };
        assert_eq!(self.admin.create_topics(&[new]).unwrap(), [Outcome::Done]);
    }

    fn delete(&self, topic: &str) {
        self.new_producer();
        assert_eq!(self.admin.delete_topics(&[topic]).unwrap(), [Outcome::Done]);
    }

    fn id_of(&self, topic: &str) -> Uuid {
        self.admin.topic_ids(&[topic]).unwrap()[0].id.unwrap()
    }

    fn partition(&self, topic: &str, number: i32) -> Partition {
        let stream = Stream { topic: topic.into(), id: self.id_of(topic) };
        Partition { stream, number }
    }

    fn new_producer(&self) {
        *self.producer.lock().unwrap() = Producer::open(&self.connection, "test").unwrap();
    }

    fn send(&self, partition: i32, values: &[Option<&str>]) {
        let values: Vec<_> = values.iter().map(|value| value.map(str::as_bytes)).collect();
        self.send_bytes(partition, &values);
    }

    fn send_bytes(&self, partition: i32, values: &[Option<&[u8]>]) {
        let producer = self.producer.lock().unwrap();
        for value in values {
            let message = Outgoing {
                topic: EVENTS,
                partition: Some(partition),
                key: Some(b"task-1"),
                value: *value,
                ..Outgoing::default()
            };
            producer.send(&message, |placed| assert!(placed.is_ok(), "{placed:?}")).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    fn send_events(&self, partition: i32, count: usize) {
        let event = event();
        self.send(partition, &vec![Some(event.as_str()); count]);
    }

    /// Starts a job of that name for a topic, over a store.
    fn job(&self, name: &str, topic: &str, store: &Store) -> Running {
        self.job_of(name, topic, store, Settings::default())
    }

    fn job_of(&self, name: &str, topic: &str, store: &Store, settings: Settings) -> Running {
        self.job_with(name, topic, (store, settings), None)
    }

    fn job_with(
        &self,
        name: &str,
        topic: &str,
        to: (&Store, Settings),
        registry: Option<Registry>,
    ) -> Running {
        let spec = JobSpec { registry, ..self.spec(name, topic) };
        self.run(spec, to, Budget::new(64 << 20))
    }

    fn spec(&self, name: &str, topic: &str) -> JobSpec {
        let topic: Arc<Topic> = Arc::new(self.catalog.topic(topic).unwrap().clone());
        JobSpec {
            name: name.to_owned(),
            topic,
            registry: None,
            max_reject_share: 0.5,
            stop_within: Duration::from_secs(10),
            limits: aion_kafka::Limits::default(),
        }
    }

    fn run(&self, spec: JobSpec, (store, settings): (&Store, Settings), budget: Budget) -> Running {
        self.run_into(spec, Box::new(MemorySink::open(store, settings)), budget)
    }

    fn run_into(&self, spec: JobSpec, sink: Box<dyn Sink>, budget: Budget) -> Running {
        let stop = CancellationToken::new();
        let handle = job::run(spec, &self.connection, vec![sink], budget, stop.clone()).unwrap();
        Running { handle, stop }
    }
}

struct Running {
    handle: JobHandle,
    stop: CancellationToken,
}

impl Running {
    async fn until(&mut self, what: &str, holds: impl FnMut(&JobStatus) -> bool) -> Arc<JobStatus> {
        let waited = tokio::time::timeout(PATIENCE, self.handle.status.wait_for(holds)).await;
        match waited {
            Ok(Some(status)) => status,
            _ => panic!("{what} did not happen: {:#?}", self.handle.status.now()),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.handle.done.await.unwrap().unwrap();
    }
}

/// An event of the contract, of now.
fn event() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let days = now.as_secs() / 86_400;
    // Any day of the last years will do; the append time decides what is near enough.
    let year = 1970 + days / 366;
    format!(r#"{{"task_id":"task-1","status":"queued","timestamp":"{year}-01-01T00:00:00Z"}}"#)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn stored_up_to(offset: i64) -> impl FnMut(&JobStatus) -> bool {
    move |status| {
        let at = |mark: Option<Offset>| mark == Some(Offset(offset));
        let mut partitions = status.partitions.iter();
        partitions.any(|one| one.partition == 0 && one.marks.iter().all(|(_, mark)| at(*mark)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_stored_poison_is_kept_and_the_group_is_told() {
    let cluster = Cluster::start(1).await;
    let good = event();
    cluster.send(0, &[Some(&good), Some("{not json"), None, Some(&good)]);
    let (rows, letters) = (Store::new(), Store::new());
    let mut job = cluster.job("tasks", EVENTS, &rows);
    job.until("everything stored", stored_up_to(4)).await;
    let partition = cluster.partition(EVENTS, 0);
    assert_eq!(rows.offsets(&partition), [0, 3]);

    let mut reader = cluster.job("letters", DEAD_LETTERS, &letters);
    let status = reader.until("the letter stored", |status| status.rows_stored == 1).await;
    assert_eq!(status.rejected, 0);
    let batch = letters.rows().remove(0);
    let text =
        |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().value(0).to_owned();
    let bytes =
        |name: &str| batch.column_by_name(name).unwrap().as_binary::<i32>().value(0).to_vec();
    assert_eq!((text("job"), text("reason")), ("tasks".to_owned(), "malformed_json".to_owned()));
    assert_eq!(text("topic_id"), partition.stream.id.to_string());
    assert_eq!((bytes("key"), bytes("value")), (b"task-1".to_vec(), b"{not json".to_vec()));

    let group = job.handle.group.clone();
    assert!(group.starts_with("aion-tasks-"), "{group}");
    job.stop().await;
    reader.stop().await;
    let consumer = aion_kafka::Consumer::open(
        &cluster.connection,
        &group,
        &[EVENTS],
        aion_kafka::Limits::default(),
    );
    let partition = aion_kafka::TopicPartition::new(EVENTS, 0);
    let committed = consumer.unwrap().committed(&[partition], PATIENCE).unwrap().remove(0);
    let (offset, metadata) = committed.unwrap();
    assert_eq!(offset, Offset(4));
    assert!(metadata.contains(r#""memory":[4,"#), "{metadata}");
    cluster.broker.stop().await.unwrap();
}

/// With its headers it is greater than the dead-letter topic takes: it must not hold up its partition.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_that_is_too_large_for_a_letter_is_cut() {
    let mut cluster = Cluster::start(1).await;
    // Compressed, both would be small.
    cluster.connection.properties.insert("compression.type".into(), "none".into());
    cluster.new_producer();
    let poison = "x".repeat(1_048_400); // the limit of both topics is 1,048,588 with all around it
    cluster.send(0, &[Some(&poison), Some(&event())]);
    let (rows, letters) = (Store::new(), Store::new());
    let mut job = cluster.job("tasks", EVENTS, &rows);
    job.until("the partition goes on", stored_up_to(2)).await;
    let mut reader = cluster.job("letters", DEAD_LETTERS, &letters);
    reader.until("the letter stored", |status| status.rows_stored == 1).await;
    let batch = letters.rows().remove(0);
    let value = batch.column_by_name("value").unwrap().as_binary::<i32>().value(0);
    assert_eq!(value, &poison.as_bytes()[..256 << 10]);
    let detail = batch.column_by_name("detail").unwrap().as_string::<i32>().value(0);
    assert!(
        detail.ends_with("cut to 262144 of 1048400 bytes, which the topic doesn't take"),
        "{detail}"
    );
    job.stop().await;
    reader.stop().await;
    cluster.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_committed_and_left_at_the_moment_it_is_done() {
    const TOPIC: &str = "aion.audit.activity"; // no other test reads it: its reader's thread is told by it
    let cluster = Cluster::start(1).await;
    cluster.create(TOPIC, 1, &[]);
    let event = r#"{"actor_id":"a","action":"login","timestamp":"2020-01-01T00:00:00Z"}"#;
    let producer = Producer::open(&cluster.connection, "test").unwrap();
    for _ in 0..5 {
        let value = Some(event.as_bytes());
        let message = Outgoing { topic: TOPIC, partition: Some(0), value, ..Outgoing::default() };
        producer.send(&message, |placed| assert!(placed.is_ok(), "{placed:?}")).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let store = Store::new();
    // Nothing is due before the stop: the rows, the commit and the leave all fall into it.
    let settings = Settings { flush_age: Duration::from_hours(1), ..Settings::default() };
    let mut job = cluster.job_of("audit", TOPIC, &store, settings);
    let taken =
        |status: &JobStatus| status.partitions.iter().any(|one| one.position == Some(Offset(5)));
    job.until("all rows taken", taken).await;
    assert!(store.rows().is_empty());
    // Connected already, so that it asks at once.
    let limits = aion_kafka::Limits::default();
    let group = &job.handle.group;
    let watcher = aion_kafka::Consumer::open(&cluster.connection, group, &[GAPS], limits);
    let watcher = watcher.unwrap();
    let name = [aion_kafka::TopicPartition::new(TOPIC, 0)];
    assert_eq!(watcher.committed(&name, PATIENCE).unwrap(), [None]);

    job.stop().await;
    let committed = watcher.committed(&name, PATIENCE).unwrap().remove(0);
    assert_eq!(committed.map(|(offset, _)| offset), Some(Offset(5)));
    assert_eq!(store.offsets(&cluster.partition(TOPIC, 0)), [0, 1, 2, 3, 4]);
    // The reader has closed its client; its thread needs a moment more to be gone for the system.
    let gone = async {
        while threads().iter().any(|thread| thread.starts_with("read aion.audit")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the reader's thread is gone");
}

/// The names of this process's threads, as far as the system keeps them.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_under_a_running_job_is_another_stream() {
    let cluster = Cluster::start(1).await;
    let store = Store::new();
    let mut job = cluster.job("tasks", EVENTS, &store);
    cluster.send_events(0, 3);
    job.until("the first life stored", stored_up_to(3)).await;
    let old = cluster.partition(EVENTS, 0);
    cluster.delete(EVENTS);
    cluster.create(EVENTS, 1, &[]);
    // More than the old one had: an offset alone could not tell them apart.
    cluster.send_events(0, 7);
    let new = cluster.partition(EVENTS, 0);
    let id = new.stream.id;
    let is_new = |status: &JobStatus| status.stream.as_ref().is_some_and(|one| one.id == id);
    job.until("the second life stored", |status| is_new(status) && stored_up_to(7)(status)).await;
    assert_eq!(store.offsets(&old), [0, 1, 2]);
    assert_eq!(store.offsets(&new), [0, 1, 2, 3, 4, 5, 6]);
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_is_a_gap_that_is_written_down() {
    let cluster = Cluster::start(1).await;
    cluster.delete(EVENTS);
    cluster.create(EVENTS, 1, &[("segment.bytes", "1024"), ("retention.bytes", "2048")]);
    let (rows, gaps) = (Store::new(), Store::new());
    let mut job = cluster.job("tasks", EVENTS, &rows);
    cluster.send_events(0, 2);
    job.until("the first rows stored", stored_up_to(2)).await;
    job.stop().await;

    for _ in 0..60 {
        cluster.send_events(0, 1);
    }
    assert!(cluster.broker.apply_retention() > 0);
    let name = aion_kafka::TopicPartition::new(EVENTS, 0);
    let (first, next) = cluster.admin.watermarks(&name).unwrap();
    assert!(first > Offset(2));
    let mut job = cluster.job("tasks", EVENTS, &rows);
    let status = job.until("the rest stored", stored_up_to(next.get())).await;
    assert_eq!(status.gaps, 1);
    let partition = cluster.partition(EVENTS, 0);
    let expected: Vec<i64> = (0..2).chain(first.get()..next.get()).collect();
    assert_eq!(rows.offsets(&partition), expected);

    let mut reader = cluster.job("gaps", GAPS, &gaps);
    reader.until("the gap stored", |status| status.rows_stored == 1).await;
    let batch = gaps.rows().remove(0);
    let number = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        column.as_primitive::<arrow::datatypes::Int64Type>().value(0)
    };
    assert_eq!((number("first"), number("next")), (2, first.get()));
    job.stop().await;
    reader.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_stops_its_partition_alone() {
    let cluster = Cluster::start(2).await;
    let store = Store::new();
    let mut job = cluster.job("tasks", EVENTS, &store);
    for _ in 0..5 {
        cluster.send_events(0, 1);
        cluster.send_events(1, 1);
    }
    let both = |status: &JobStatus| status.rows_stored == 10;
    job.until("both partitions stored", both).await;
    job.stop().await;
    assert_eq!(cluster.broker.truncate(EVENTS, 0, 3).unwrap(), 3);
    cluster.new_producer();
    for _ in 0..4 {
        cluster.send_events(0, 1);
        cluster.send_events(1, 1);
    }
    let mut job = cluster.job("tasks", EVENTS, &store);
    let stopped = |status: &JobStatus| {
        status.stopped().any(|(partition, _)| partition == 0)
            && status.rows_stored == 4
            && status.gaps == 1
    };
    let status = job.until("partition 0 stopped, partition 1 read on", stopped).await;
    assert!(!status.is_well());
    assert_eq!(store.offsets(&cluster.partition(EVENTS, 0)), [0, 1, 2, 3, 4]);
    assert_eq!(store.offsets(&cluster.partition(EVENTS, 1)).len(), 9);
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_partitions_and_nothing_is_doubled() {
    let cluster = Cluster::start(4).await;
    let store = Store::new();
    let one = cluster.job("tasks", EVENTS, &store);
    let send_all = |count| (0..4).for_each(|partition| cluster.send_events(partition, count));
    send_all(50);
    let mut other = cluster.job("tasks", EVENTS, &store);
    other.until("the second process has partitions", |status| !status.partitions.is_empty()).await;
    send_all(50);
    one.stop().await;
    send_all(50);
    other.until("the second process has all", |status| status.partitions.len() == 4).await;
    let partitions: Vec<_> = (0..4).map(|number| cluster.partition(EVENTS, number)).collect();
    let marks = || store.marks();
    until("everything stored", || {
        let marks = marks();
        partitions.iter().all(|one| marks.get(one).is_some_and(|mark| mark.offset == Offset(150)))
    })
    .await;
    other.stop().await;
    for partition in &partitions {
        assert_eq!(store.offsets(partition), (0..150).collect::<Vec<i64>>());
    }
}
