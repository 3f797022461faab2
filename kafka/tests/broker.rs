//! The client against the embedded broker: topics and their ids, settings, offsets by time, and
//! logs that lose a part.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use aion_embedded::{Broker, Settings};
use aion_kafka::{
    Admin, Connection, Consumer, Event, Isolation, Limits, NewTopic, Outcome, Outgoing, Producer,
    Receipts, Spot, TimeKind, TopicPartition, Wait,
};
use aion_schemas::log::{Mark, Offset, Timestamp};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);

/// A broker with a folder and a runtime of its own.
struct Node {
    broker: Broker,
    connection: Connection,
    _runtime: Runtime,
    _data: TempDir,
}

fn node(segment_bytes: Option<u64>) -> Node {
    let runtime = Runtime::new().unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(data.path());
    settings.fsync = aion_embedded::Fsync::Never;
    settings.segment_bytes = segment_bytes.unwrap_or(settings.segment_bytes);
    let broker = runtime.block_on(Broker::start(settings)).unwrap();
    let connection = Connection::to(broker.address().to_string());
    Node { broker, connection, _runtime: runtime, _data: data }
}

impl Node {
    fn admin(&self) -> Admin {
        Admin::open(&self.connection, PATIENCE).unwrap()
    }

    fn write(&self, topic: &str, values: std::ops::Range<u32>) {
        // The broker looks for times in batches that aren't compressed.
        let mut connection = self.connection.clone();
        connection.properties.insert("compression.type".into(), "none".into());
        let producer = Producer::open(&connection, "test").unwrap();
        let receipts = Receipts::default();
        for number in values {
            let value = number.to_string();
            let message = Outgoing {
                topic,
                partition: Some(0),
                value: Some(value.as_bytes()),
                timestamp: Some(Timestamp(i64::from(number) * 1_000_000)),
                ..Outgoing::default()
            };
            producer.send(&message, receipts.expect(u64::from(number))).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        assert_eq!(receipts.wait(PATIENCE), []);
    }

    fn started(&self, topic: &str, at: i64, epoch: i32) -> Consumer {
        let group = format!("group-{topic}-{at}");
        let mut consumer =
            Consumer::open(&self.connection, &group, &[topic], Limits::default()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(Event::Assigned(partitions)) = consumer.poll(STEP) {
                for partition in &partitions {
                    consumer.start(partition, Offset(at), epoch).unwrap();
                }
                return consumer;
            }
        }
        panic!("no assignment came");
    }
}

fn new_topic(topic: &str) -> NewTopic<'_> {
    NewTopic { topic, partitions: 1, replication: 1, configs: &[] }
}

fn zero(topic: &str) -> TopicPartition {
    TopicPartition::new(topic, 0)
}

/// Reads `count` records of partition 0: offsets, values, epochs.
fn read(consumer: &mut Consumer, topic: &str, count: usize) -> Vec<(i64, String, i32)> {
    let (mut read, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while read.len() < count {
        assert!(Instant::now() < deadline, "{read:?} is all that came");
        if let Some(event) = consumer.poll(STEP) {
            assert!(matches!(event, Event::Failed(_)), "{event:?}");
        }
        consumer.fetch(&zero(topic), 1000, |record| {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            read.push((record.offset.get(), value, record.epoch));
        });
    }
    read
}

fn event<T>(
    consumer: &mut Consumer,
    topic: &str,
    mut wanted: impl FnMut(&Event) -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = consumer.poll(STEP).as_ref().and_then(&mut wanted) {
            return found;
        }
        consumer.fetch(&zero(topic), 1000, |record| panic!("read {}", record.offset));
    }
    panic!("the event didn't come");
}

#[test]
fn topics_are_created_once_and_deleted_once() {
    let node = node(None);
    let admin = node.admin();
    let bad = NewTopic { topic: "no good!", ..new_topic("x") };
    let outcomes = admin.create_topics(&[new_topic("a"), bad, new_topic("b")]).unwrap();
    assert!(matches!(outcomes[..], [Outcome::Done, Outcome::Failed(_), Outcome::Done]));
    let outcomes = admin.create_topics(&[new_topic("b"), new_topic("c")]).unwrap();
    assert_eq!(outcomes, [Outcome::Already, Outcome::Done]);
    assert_eq!(admin.delete_topics(&["c", "d"]).unwrap(), [Outcome::Done, Outcome::Already]);
    assert_eq!(admin.create_partitions("a", 3).unwrap(), Outcome::Done);
    assert_eq!(admin.create_partitions("a", 3).unwrap(), Outcome::Already);
    assert!(matches!(admin.create_partitions("a", 2).unwrap(), Outcome::Failed(_)));
    let known = admin.topic_ids(&["c", "a"]).unwrap();
    assert_eq!((known[0].id, known[0].partitions), (None, 0));
    assert!(known[1].id.is_some() && known[1].partitions == 3);
}

#[test]
fn a_topic_made_anew_has_another_id() {
    let node = node(None);
    let admin = node.admin();
    admin.create_topics(&[new_topic("a")]).unwrap();
    let first = admin.topic_ids(&["a"]).unwrap()[0].id.unwrap();
    assert_eq!(admin.topic_ids(&["a"]).unwrap()[0].id, Some(first));
    admin.delete_topics(&["a"]).unwrap();
    assert_eq!(admin.topic_ids(&["a"]).unwrap()[0].id, None);
    admin.create_topics(&[new_topic("a")]).unwrap();
    let second = admin.topic_ids(&["a"]).unwrap()[0].id.unwrap();
    assert_ne!(first, second);
}

#[test]
fn settings_are_read_and_changed_one_by_one() {
    let node = node(None);
    let admin = node.admin();
    let configs: &[_] = &[("retention.ms", "1000"), ("max.message.bytes", "2000")];
    admin.create_topics(&[NewTopic { configs, ..new_topic("a") }]).unwrap();
    let value = |name: &str| {
        let all = admin.describe_configs("a").unwrap();
        all.into_iter().find(|one| one.0 == name).map(|(_, value, own)| (value.unwrap(), own))
    };
    assert_eq!(value("retention.ms"), Some(("1000".into(), true)));
    let changes = [("retention.ms", Some("5000")), ("max.message.bytes", None)];
    admin.alter_configs("a", &changes).unwrap();
    assert_eq!(value("retention.ms"), Some(("5000".into(), true)));
    assert!(value("max.message.bytes").is_some_and(|(value, own)| value != "2000" && !own));
    assert!(admin.alter_configs("a", &[("retention.ms", Some("x"))]).is_err());
    assert!(admin.describe_configs("missing").is_err());
}

#[test]
fn offsets_are_found_by_time() {
    let node = node(None);
    let admin = node.admin();
    let configs: &[_] = &[("message.timestamp.type", "CreateTime")];
    admin.create_topics(&[NewTopic { configs, ..new_topic("a") }]).unwrap();
    node.write("a", 100..110);
    let at = |spot| admin.offsets(&[(zero("a"), spot)], Isolation::Committed).unwrap()[0];
    assert_eq!((at(Spot::First), at(Spot::Next)), (Offset(0), Offset(10)));
    assert_eq!(at(Spot::At(Timestamp(104 * 1_000_000))), Offset(4));
    assert_eq!(at(Spot::At(Timestamp(104 * 1_000_000 + 500_000))), Offset(5));
    assert_eq!(at(Spot::At(Timestamp(200 * 1_000_000))), Offset(10), "after the last");
    assert_eq!(admin.watermarks(&zero("a")).unwrap(), (Offset(0), Offset(10)));
}

#[test]
fn the_brokers_clock_shows_as_such() {
    let node = node(None);
    let configs: &[_] = &[("message.timestamp.type", "LogAppendTime")];
    node.admin().create_topics(&[NewTopic { configs, ..new_topic("a") }]).unwrap();
    node.write("a", 0..1);
    let mut consumer = node.started("a", 0, -1);
    let (mut seen, deadline) = (None, Instant::now() + PATIENCE);
    while seen.is_none() && Instant::now() < deadline {
        consumer.poll(STEP);
        consumer.fetch(&zero("a"), 1, |record| {
            seen = Some((record.time_kind, record.append_time));
        });
    }
    let (kind, time) = seen.unwrap();
    assert_eq!(kind, TimeKind::LogAppend);
    assert!(time > Timestamp(1_600_000_000_000_000), "the broker's clock, not the producer's");
}

/// Ten records in two batches: a cut takes whole ones.
fn write_to_cut(node: &Node) {
    node.write("a", 0..6);
    node.write("a", 6..10);
}

/// What is told of a cut log: the position, and up to where both logs agree.
fn truncated(consumer: &mut Consumer) -> (Offset, Option<Offset>) {
    event(consumer, "a", |event| match event {
        Event::Truncated { wanted, end, .. } => Some((*wanted, *end)),
        _ => None,
    })
}

/// The position that is told to be outside of the log.
fn out_of_range(consumer: &mut Consumer) -> Offset {
    event(consumer, "a", |event| match event {
        Event::OutOfRange { wanted, .. } => *wanted,
        _ => None,
    })
}

#[test]
fn a_log_that_was_cut_below_the_position_is_told_by_its_epochs() {
    let node = node(None);
    node.admin().create_topics(&[new_topic("a")]).unwrap();
    write_to_cut(&node);
    let mut consumer = node.started("a", 0, -1);
    let epoch = read(&mut consumer, "a", 10)[9].2;
    let mark = (zero("a"), Offset(10), "m".to_owned());
    consumer.commit(&[mark], Wait::Sync).unwrap();
    let committed = consumer.committed(&[zero("a")], PATIENCE).unwrap();
    assert_eq!(committed, [Some((Offset(10), "m".to_owned()))]);
    drop(consumer);
    // An unclean election: 6.. is lost and written anew, past the mark.
    node.broker.truncate("a", 0, 6).unwrap();
    node.write("a", 20..30);
    let mut consumer = node.started("a", 10, epoch);
    assert_eq!(truncated(&mut consumer), (Offset(10), Some(Offset(6))));
    // The operator keeps the log's side.
    consumer.seek(&zero("a"), Offset(6), epoch).unwrap();
    let rows = read(&mut consumer, "a", 10);
    assert_eq!((rows[0].0, &*rows[0].1), (6, "20"));
    assert!(rows[0].2 > epoch);
}

#[test]
fn behind_a_hole_it_takes_a_record_to_tell_that_the_log_was_cut() {
    let node = node(None);
    node.admin().create_topics(&[new_topic("a")]).unwrap();
    write_to_cut(&node);
    let mut consumer = node.started("a", 0, -1);
    let epoch = read(&mut consumer, "a", 10)[9].2;
    drop(consumer);
    let started = || node.started("a", 10, Mark::behind_hole(Offset(10), Some(epoch)).epoch);
    // It wasn't cut.
    let mut consumer = started();
    node.write("a", 10..12);
    assert_eq!(read(&mut consumer, "a", 2)[0].0, 10);
    drop(consumer);
    // It was, and is shorter than what was read. No record says so, but the end does.
    node.broker.truncate("a", 0, 6).unwrap();
    let mut consumer = started();
    assert_eq!(out_of_range(&mut consumer), Offset(10));
    drop(consumer);
    // It grows again, at first not as far. What stands below the position is never handed over.
    for values in [20..22, 22..40] {
        node.write("a", values);
        let mut consumer = started();
        assert_eq!(truncated(&mut consumer), (Offset(10), Some(Offset(6))));
        drop(consumer);
    }
}

#[test]
fn a_log_that_is_cut_while_it_is_read_is_told() {
    let node = node(None);
    node.admin().create_topics(&[new_topic("a")]).unwrap();
    write_to_cut(&node);
    let mut consumer = node.started("a", 0, -1);
    read(&mut consumer, "a", 10);
    node.broker.truncate("a", 0, 6).unwrap();
    node.write("a", 20..22);
    let wanted = event(&mut consumer, "a", |event| match event {
        Event::Truncated { wanted, .. } => Some(*wanted),
        Event::OutOfRange { wanted, .. } => *wanted,
        _ => None,
    });
    assert_eq!(wanted, Offset(10));
}

#[test]
fn what_retention_took_is_out_of_range() {
    let node = node(Some(1));
    let admin = node.admin();
    let configs: &[_] = &[("retention.bytes", "1")];
    admin.create_topics(&[NewTopic { configs, ..new_topic("a") }]).unwrap();
    for number in 0..5 {
        node.write("a", number..number + 1); // a segment each
    }
    node.broker.apply_retention(); // if it hasn't done so by itself yet
    let (first, next) = admin.watermarks(&zero("a")).unwrap();
    assert!(first > Offset(1) && next == Offset(5), "{first}..{next}");
    node.write("a", 5..7);
    let mut consumer = node.started("a", 1, -1);
    assert_eq!(out_of_range(&mut consumer), Offset(1));
    let (from, _) = consumer.watermarks(&zero("a"), PATIENCE).unwrap();
    consumer.seek(&zero("a"), from, -1).unwrap();
    assert_eq!(from, first);
    let rows = read(&mut consumer, "a", (Offset(7) - from) as usize);
    assert_eq!(rows[0].0, from.get());
}

/// 0..2 is of epoch 0, what follows of epoch 1; then retention takes both but for the last record of epoch 1, and with
/// the log's start the broker forgets epoch 0. A mark below misses records, which is no cut.
#[test]
fn a_mark_whose_epoch_the_broker_has_forgotten_is_out_of_range() {
    let node = node(Some(1));
    let admin = node.admin();
    admin.create_topics(&[new_topic("a")]).unwrap();
    let write = |numbers: std::ops::Range<u32>| {
        numbers.for_each(|number| node.write("a", number..number + 1)); // a segment each
    };
    write(0..3);
    assert_eq!(node.broker.truncate("a", 0, 2).unwrap(), 2);
    write(20..23);
    admin.alter_configs("a", &[("retention.bytes", Some("1"))]).unwrap();
    node.broker.apply_retention(); // if it hasn't done so by itself yet
    let (first, next) = admin.watermarks(&zero("a")).unwrap();
    assert!(first > Offset(2) && next == Offset(5), "{first}..{next}: epoch 1 begins at 2");
    for epoch in [0, Mark::behind_hole(Offset(1), Some(0)).epoch] {
        let mut consumer = node.started("a", 1, epoch);
        assert_eq!(out_of_range(&mut consumer), Offset(1), "epoch {epoch} of the mark");
    }
}

/// Polls until partitions come or go: those that come are left unread, those that go are given back.
fn moved(consumer: &mut Consumer, wait: Duration) -> Option<Vec<TopicPartition>> {
    let deadline = Instant::now() + wait;
    while Instant::now() < deadline {
        let event = consumer.poll(STEP);
        if let Some(Event::Assigned(moved) | Event::Revoked(moved) | Event::Lost(moved)) = event {
            consumer.release(&moved).unwrap();
            return Some(moved);
        }
    }
    None
}

#[test]
fn a_member_of_a_group_that_was_given_nothing_joins_anew() {
    let node = node(None);
    let admin = node.admin();
    admin.create_topics(&[new_topic("a")]).unwrap();
    let mut connection = node.connection.clone();
    let limits = ["session.timeout.ms", "max.poll.interval.ms"].map(|name| (name, "2000"));
    for (name, ms) in limits.into_iter().chain([("heartbeat.interval.ms", "100")]) {
        connection.properties.insert(name.into(), ms.into());
    }
    let mut consumer = Consumer::open(&connection, "g", &["a"], Limits::default()).unwrap();
    // Unread: nobody but the group's leader asks for the topic, when it shares it out.
    let all = Some(vec![zero("a")]);
    assert_eq!(moved(&mut consumer, PATIENCE), all, "given");
    // It leaves the group by not polling, and comes back while there is no such topic.
    std::thread::sleep(Duration::from_secs(3));
    admin.delete_topics(&["a"]).unwrap();
    assert_eq!(moved(&mut consumer, PATIENCE), all, "lost");
    assert_eq!(moved(&mut consumer, Duration::from_secs(2)), None);
    admin.create_topics(&[new_topic("a")]).unwrap();
    let by_itself = moved(&mut consumer, Duration::from_secs(4));
    assert_eq!(by_itself, None, "librdkafka finds out: nothing has to be mended any more");
    assert_eq!(moved(&mut consumer, PATIENCE), all, "given again");
}
