//! Generated events on their way to a broker: `aion generate --to` and the feed of `aion dev`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use aion::commands::generate::{self, Encoder, Feed, GenerateArgs, Life, Messages, Share, Topic};
use aion_embedded::{Broker, Settings};
use aion_kafka::{Admin, Connection, Consumer, Event, Limits, NewTopic, TopicPartition};
use aion_schemas::log::{Offset, Timestamp};
use clap::Parser;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: GenerateArgs,
}

async fn run(line: String) -> anyhow::Result<()> {
    let words = std::iter::once("generate").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words)?;
    tokio::task::spawn_blocking(|| generate::run(cli.args)).await?
}

async fn start_broker(data: &tempfile::TempDir) -> (Broker, Connection) {
    let broker = Broker::start(Settings::new(data.path())).await.unwrap();
    let connection = Connection::to(broker.address().to_string());
    (broker, connection)
}

async fn create_topics(connection: &Connection) {
    let connection = connection.clone();
    let create = move || {
        let admin = Admin::open(&connection, PATIENCE).unwrap();
        let topics = Topic::ALL.map(|topic| NewTopic {
            topic: topic.name(),
            partitions: 3,
            replication: 1,
            configs: &[],
        });
        admin.create_topics(&topics).unwrap();
    };
    tokio::task::spawn_blocking(create).await.unwrap();
}

/// Bodies by topic and key, in the order of the log.
type Content = BTreeMap<(String, Vec<u8>), Vec<Vec<u8>>>;

async fn content(connection: &Connection) -> Content {
    let connection = connection.clone();
    tokio::task::spawn_blocking(move || read(&connection)).await.unwrap()
}

/// Reads every topic from its start to its end.
fn read(connection: &Connection) -> Content {
    let topics = Topic::ALL.map(Topic::name);
    let mut consumer = Consumer::open(connection, "reader", &topics, Limits::default()).unwrap();
    let (mut content, mut unread) = (Content::new(), BTreeMap::new());
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "not read to the end: {unread:?}");
        match consumer.poll(Duration::from_millis(50)) {
            Some(Event::Assigned(partitions)) => {
                for partition in partitions {
                    let (_, end) = consumer.watermarks(&partition, PATIENCE).unwrap();
                    consumer.start(&partition, Offset::ZERO, -1).unwrap();
                    unread.insert(partition, end);
                }
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        let partitions: Vec<TopicPartition> = unread.keys().cloned().collect();
        for partition in &partitions {
            let topic = &partition.topic;
            let mut next = Offset::ZERO;
            let fetched = consumer.fetch(partition, 1_000, |record| {
                next = record.offset.next();
                let key = (topic.to_string(), record.key.unwrap().to_vec());
                content.entry(key).or_default().push(record.value.unwrap().to_vec());
            });
            let end = unread[partition];
            if end == Offset::ZERO || (fetched.count > 0 && next >= end) {
                unread.insert(partition.clone(), Offset::ZERO);
            }
        }
        if unread.len() == 12 && unread.values().all(|end| *end == Offset::ZERO) {
            return content;
        }
    }
}

fn total(content: &Content) -> usize {
    content.values().map(Vec::len).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_arrive_as_they_were_made() {
    let data = tempfile::tempdir().unwrap();
    let (broker, connection) = start_broker(&data).await;
    create_topics(&connection).await;
    let to = &connection.brokers;
    let told = "--count 10000 --seed 4 --start 2026-03-01T00:00:00Z --bad-share 0.02";
    run(format!("{told} --to {to}")).await.unwrap();

    let start = Timestamp(1_772_323_200_000_000);
    let life = Life::new(4, start, &Topic::ALL, 200.0);
    let mut messages = Messages::new(life, Encoder::Json, "0.02".parse().unwrap());
    let mut made = Content::new();
    for _ in 0..10_000 {
        let message = messages.make().unwrap();
        let key = (message.topic.name().to_owned(), message.key.to_vec());
        made.entry(key).or_default().push(message.body.to_vec());
    }
    let arrived = content(&connection).await;
    assert_eq!(total(&arrived), 10_000);
    assert!(arrived == made, "keys, bodies or the order within a key differ");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_before_anything_is_sent() {
    let data = tempfile::tempdir().unwrap();
    let (broker, connection) = start_broker(&data).await;
    let to = &connection.brokers;
    let error = run(format!("--topic audit --to {to}")).await.unwrap_err().to_string();
    assert!(error.contains("aion.audit.activity") && error.contains(to.as_str()), "{error}");
    for (line, told) in [
        ("--encoding avro", "--topic"),
        ("--encoding avro --topic audit --bad-share 0.1", "--to"),
        ("--encoding avro --to localhost:1", "--registry"),
        ("--encoding avro --to localhost:1 --registry nowhere", "nowhere"),
        ("--encoding avro --schema-id 7 --topic audit", "--to"),
        ("--encoding avro --schema-id 7 --to localhost:1", "--topic"),
        ("--topic nothing", "aion.router.decisions"),
        ("--bad-share 2", "from 0 to 1"),
        ("--rate 0", "rate"),
        ("--start yesterday", "2026-01-31T12:00:00Z"),
    ] {
        let error = run(line.to_owned()).await.unwrap_err().to_string();
        assert!(error.contains(told), "{line}: {error}");
    }
    broker.stop().await.unwrap();
}

/// Waits until the feed has so many acknowledgements.
async fn acknowledged(feed: &Feed, count: u64) {
    let deadline = Instant::now() + PATIENCE;
    while feed.counters().acked() < count {
        assert!(Instant::now() < deadline, "{:?}", feed.counters());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_outlives_its_broker_and_never_repeats_an_event() {
    let data = tempfile::tempdir().unwrap();
    let (broker, connection) = start_broker(&data).await;
    create_topics(&connection).await;
    let first = Feed::start(&connection, 1_000, Share::default()).unwrap();
    acknowledged(&first, 300).await;

    let settings = Settings { listen: broker.address(), ..Settings::new(data.path()) };
    broker.stop().await.unwrap();
    let broker = Broker::start(settings).await.unwrap();
    let so_far = first.counters().acked();
    acknowledged(&first, so_far + 300).await;
    let counters = first.counters();
    first.stop().await;
    assert_eq!((counters.failed(), counters.acked()), (0, counters.sent()));

    let second = Feed::start(&connection, 1_000, Share::default()).unwrap();
    acknowledged(&second, 300).await;
    let again = second.counters();
    second.stop().await;
    assert_eq!((again.failed(), again.acked()), (0, again.sent()));

    let arrived = content(&connection).await;
    assert_eq!(total(&arrived) as u64, counters.acked() + again.acked());
    let mut ids = HashSet::new();
    for body in arrived.values().flatten() {
        let event: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert!(ids.insert(event["event_id"].as_str().unwrap().to_owned()), "{event} came twice");
    }
    broker.stop().await.unwrap();
}
