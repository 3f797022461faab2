use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    Outgoing, Producer, TimeKind,
    testing::{Cluster, Injected, Request},
};

const TOPIC: &str = "events";
/// Far above what anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);

fn cluster(partitions: i32) -> Cluster {
    let cluster = Cluster::start(1).unwrap();
    cluster.create_topic(TOPIC, partitions).unwrap();
    cluster
}

fn open(cluster: &Cluster, group: &str) -> Consumer {
    open_within(cluster, group, "3000")
}

/// A member that the cluster, while others join, waits for so many milliseconds less a second.
fn open_within(cluster: &Cluster, group: &str, session_ms: &str) -> Consumer {
    let mut connection = cluster.connection();
    let fast = [("heartbeat.interval.ms", "100"), ("session.timeout.ms", session_ms)];
    connection.properties.extend(fast.map(|(name, value)| (name.into(), value.into())));
    Consumer::open(&connection, group, &[TOPIC], Limits::default()).unwrap()
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, number)
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|number| number.to_string().into_bytes()).collect()
}

fn write(cluster: &Cluster, partition: i32, range: std::ops::Range<u32>) {
    let values = numbers(range);
    cluster.write(TOPIC, partition, values.iter().map(Vec::as_slice)).unwrap();
}

/// Polls until the event that `wanted` picks; fails on another one, except passing errors.
fn event<T>(consumer: &mut Consumer, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(event) = consumer.poll(STEP) {
            if let Some(found) = wanted(&event) {
                return found;
            }
            assert!(matches!(event, Event::Failed(_)), "another event came: {event:?}");
        }
    }
    panic!("the event didn't come");
}

/// Polls, without an event but passing errors, until something is there.
fn until<T>(consumer: &mut Consumer, mut there: impl FnMut(&mut Consumer) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = there(consumer) {
            return found;
        }
        assert!(Instant::now() < deadline, "it didn't come");
        let event = consumer.poll(STEP);
        assert!(matches!(event, None | Some(Event::Failed(_))), "an event came: {event:?}");
    }
}

/// Waits until so many messages are queued for partition 0.
fn queued(consumer: &mut Consumer, count: usize) {
    until(consumer, |consumer| (consumer.held[&partition(0)].queue.len() >= count).then_some(()));
}

fn assigned(event: &Event) -> Option<Vec<TopicPartition>> {
    match event {
        Event::Assigned(partitions) => Some(partitions.clone()),
        _ => None,
    }
}

/// A consumer that has started all partitions at the given offset.
fn started(cluster: &Cluster, group: &str, at: i64) -> Consumer {
    start(open(cluster, group), at)
}

fn start(mut consumer: Consumer, at: i64) -> Consumer {
    for partition in event(&mut consumer, assigned) {
        consumer.start(&partition, Offset(at), -1).unwrap();
    }
    consumer
}

type Read = BTreeMap<i32, Vec<(i64, String)>>;

fn fetch_into(consumer: &mut Consumer, read: &mut Read) {
    let started: Vec<_> = consumer.held.keys().cloned().collect();
    for partition in started {
        let rows = read.entry(partition.partition).or_default();
        let before = rows.len();
        let fetched = consumer.fetch(&partition, 1000, |record| {
            let value = String::from_utf8_lossy(record.value.unwrap_or(b"none")).into_owned();
            rows.push((record.offset.get(), value));
        });
        assert_eq!(fetched.count, rows.len() - before);
        if let (Some((last, _)), true) = (rows.last(), fetched.count > 0) {
            assert!(fetched.next.get() > *last);
        }
    }
}

/// Reads until `count` records are there.
fn read(consumer: &mut Consumer, count: usize) -> Read {
    let (mut read, deadline) = (Read::new(), Instant::now() + PATIENCE);
    while read.values().map(Vec::len).sum::<usize>() < count {
        assert!(Instant::now() < deadline, "{read:?} is all that came");
        if let Some(event) = consumer.poll(STEP) {
            assert!(matches!(event, Event::Failed(_)), "an event came: {event:?}");
        }
        fetch_into(consumer, &mut read);
    }
    read
}

fn rows(range: std::ops::Range<u32>) -> Vec<(i64, String)> {
    range.map(|number| (i64::from(number), number.to_string())).collect()
}

#[test]
fn records_arrive_in_order_with_keys_headers_times_and_tombstones() {
    let cluster = cluster(1);
    let producer = Producer::open(&cluster.connection(), "test").unwrap();
    let headers: &[(&str, Option<&[u8]>)] =
        &[("trace", Some(b"a")), ("none", None), ("trace", Some(b"b")), ("empty", Some(b""))];
    let time = Some(aion_schemas::log::Timestamp(1_700_000_000_123_000));
    let full = Outgoing {
        topic: TOPIC,
        partition: Some(0),
        key: Some(b"k"),
        value: Some(b"v"),
        headers,
        timestamp: time,
    };
    producer.send(&full, drop).unwrap();
    producer.send(&Outgoing { value: None, headers: &[], ..full }, drop).unwrap();
    producer.send(&Outgoing { key: None, value: Some(b""), ..full }, drop).unwrap();
    producer.flush(PATIENCE).unwrap();

    let mut consumer = started(&cluster, "g", 0);
    let (mut seen, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while seen.len() < 3 && Instant::now() < deadline {
        assert_eq!(consumer.poll(STEP), None);
        consumer.fetch(&partition(0), 10, |record| {
            assert_eq!(record.offset.get(), seen.len() as i64);
            assert_eq!(Some(record.append_time), time);
            assert_eq!(record.time_kind, TimeKind::Create);
            assert!(record.epoch >= 0);
            let headers = record.headers.iter().map(|(n, v)| (n.to_owned(), v.map(<[u8]>::to_vec)));
            seen.push((
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                headers.collect::<Vec<_>>(),
                record.headers.get("trace").flatten().map(<[u8]>::to_vec),
            ));
        });
    }
    let all: Vec<_> =
        headers.iter().map(|(n, v)| ((*n).to_owned(), v.map(<[u8]>::to_vec))).collect();
    let (k, v, b) = (Some(b"k".to_vec()), Some(b"v".to_vec()), Some(b"b".to_vec()));
    assert_eq!(
        seen,
        [
            (k.clone(), v, all.clone(), b.clone()),
            (k, None, vec![], None),
            (None, Some(vec![]), all, b)
        ]
    );
}

#[test]
fn reading_starts_at_the_given_offset_and_ends_are_told() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..20);
    let mut consumer = started(&cluster, "g", 15);
    assert_eq!(read(&mut consumer, 5)[&0], rows(0..20)[15..]);
    let (mut end, deadline) = (None, Instant::now() + PATIENCE);
    while end.is_none() && Instant::now() < deadline {
        consumer.poll(STEP);
        let fetched = consumer.fetch(&partition(0), 10, |_| panic!("no more records"));
        assert_eq!(fetched.next, Offset(20));
        end = fetched.end;
    }
    assert_eq!(end, Some(Offset(20)));
    let first_and_next = consumer.watermarks(&partition(0), PATIENCE).unwrap();
    assert_eq!(first_and_next, (Offset(0), Offset(20)));
}

#[test]
fn max_bounds_a_fetch_and_the_rest_stays() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..10);
    let mut consumer = started(&cluster, "g", 0);
    queued(&mut consumer, 10);
    let mut seen = Vec::new();
    let fetched = consumer.fetch(&partition(0), 3, |record| seen.push(record.offset));
    assert_eq!((fetched.count, fetched.next), (3, Offset(3)));
    // What is left wakes nobody by itself, yet poll must not sleep on it.
    let began = Instant::now();
    assert_eq!(consumer.poll(PATIENCE), None);
    assert!(began.elapsed() < PATIENCE / 2);
    assert_eq!(read(&mut consumer, 7)[&0], rows(0..10)[3..]);
}

#[test]
fn injected_errors_are_ridden_through() {
    let cluster = cluster(1);
    cluster.fail(Request::Produce, &[Injected::NotLeader, Injected::TimedOut]);
    write(&cluster, 0, 0..10);
    let mut consumer = started(&cluster, "g", 0);
    assert_eq!(read(&mut consumer, 10)[&0], rows(0..10));
    cluster.fail(Request::Fetch, &[Injected::NotLeader, Injected::Transport, Injected::TimedOut]);
    write(&cluster, 0, 10..20);
    assert_eq!(read(&mut consumer, 10)[&0], rows(0..20)[10..]);
}

#[test]
fn commits_read_back_with_their_metadata() {
    let cluster = cluster(2);
    let consumer = started(&cluster, "g", 0);
    let both = [partition(1), partition(0)];
    assert_eq!(consumer.committed(&both, PATIENCE).unwrap(), [None, None]);
    let mark = |number, offset, text: &str| (partition(number), Offset(offset), text.to_owned());
    consumer.commit(&[mark(0, 7, "lake=7 \u{e9}")], Wait::Sync).unwrap();
    consumer.commit(&[mark(1, 9, "")], Wait::UpTo(PATIENCE)).unwrap();
    let expected =
        [Some((Offset(9), String::new())), Some((Offset(7), "lake=7 \u{e9}".to_owned()))];
    assert_eq!(consumer.committed(&both, PATIENCE).unwrap(), expected);
}

#[test]
fn commits_of_a_former_member_are_told_apart() {
    let cluster = cluster(1);
    let mut consumer = started(&cluster, "g", 0);
    let mark = (partition(0), Offset(1), String::new());
    for injected in [Injected::IllegalGeneration, Injected::UnknownMember] {
        cluster.fail(Request::OffsetCommit, &[injected]);
        let failed = consumer.commit(std::slice::from_ref(&mark), Wait::Sync).unwrap_err();
        assert!(matches!(failed, Error::NotMember { .. }), "{failed:?}");
    }
    cluster.fail(Request::OffsetCommit, &[Injected::GroupAuthorizationFailed]);
    consumer.commit(&[mark], Wait::Async).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the failure wasn't told");
        match consumer.poll(STEP) {
            Some(Event::CommitFailed { partitions, error }) => {
                assert_eq!(partitions, [partition(0)]);
                assert!(matches!(error, Error::Forbidden { .. }), "{error:?}");
                return;
            }
            // Being told that it isn't a member, the consumer also loses its partitions.
            Some(Event::Lost(partitions)) => consumer.release(&partitions).unwrap(),
            _ => {}
        }
    }
}

#[test]
fn a_second_member_gets_what_was_released_and_nothing_is_read_twice() {
    assert!((0..3).any(|_| is_handed_over()), "the group went on without the first, each time");
}

/// Has a second member join while the first reads. False where the group went on before the first could commit: on a slow
/// machine the mock's may begin to join again meanwhile, and it waits for a commit no longer than for one who is silent.
fn is_handed_over() -> bool {
    let cluster = cluster(4);
    (0..4).for_each(|number| write(&cluster, number, 0..100));
    // Who is slow to answer is still waited for.
    let mut first = start(open_within(&cluster, "g", "8000"), 0);
    let mut all = read(&mut first, 150); // in mid run
    let mut second = open_within(&cluster, "g", "8000");
    let (mut given, mut moved) = (None, Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while moved.is_empty() {
        assert!(Instant::now() < deadline, "the second member got nothing");
        match first.poll(STEP) {
            Some(Event::Revoked(partitions)) => {
                // The flush of the application: it goes on polling, and may go on reading the
                // others.
                assert_eq!(second.poll(STEP), None, "not released yet");
                fetch_into(&mut first, &mut all);
                let marks: Vec<_> = partitions
                    .iter()
                    .map(|p| (p.clone(), first.position(p).unwrap(), String::new()))
                    .collect();
                // While the others join no commit is taken.
                while let Err(error) = first.commit(&marks, Wait::Sync) {
                    if matches!(error, Error::NotMember { .. }) {
                        return false;
                    }
                    let is_soon = matches!(error, Error::Retriable { .. });
                    assert!(is_soon && Instant::now() < deadline, "{error:?}");
                }
                first.release(&partitions).unwrap();
                given = Some(marks);
            }
            None => fetch_into(&mut first, &mut all),
            other => panic!("{other:?}"),
        }
        if let Some(partitions) = second.poll(Duration::ZERO).as_ref().and_then(assigned) {
            moved = partitions;
        }
    }
    let given = given.unwrap();
    assert_eq!(given.len(), 2);
    assert_eq!(
        given.iter().map(|mark| &mark.0).collect::<Vec<_>>(),
        moved.iter().collect::<Vec<_>>()
    );
    let committed = second.committed(&moved, PATIENCE).unwrap();
    for (partition, mark) in moved.iter().zip(committed) {
        second.start(partition, mark.unwrap().0, -1).unwrap();
    }
    while all.values().map(Vec::len).sum::<usize>() < 400 {
        assert!(Instant::now() < deadline, "{:?}", all.values().map(Vec::len).collect::<Vec<_>>());
        assert_eq!((first.poll(STEP), second.poll(STEP)), (None, None));
        fetch_into(&mut first, &mut all);
        fetch_into(&mut second, &mut all);
    }
    for number in 0..4 {
        assert_eq!(all[&number], rows(0..100), "partition {number}");
    }
    true
}

/// librdkafka takes an end of partition for a record and would resume one too far: the next record
/// is lost, or an empty partition is out of range. Without `Held::go_back` this test fails.
#[test]
fn a_rebalance_after_the_end_of_a_partition_skips_nothing() {
    let cluster = cluster(2);
    (0..2).for_each(|number| write(&cluster, number, 0..5));
    let mut first = started(&cluster, "g", 0);
    // An end is told once: it may come with the last records of its partition.
    for number in 0..2 {
        let ended = |consumer: &mut Consumer| consumer.fetch(&partition(number), 10, |_| ()).end;
        assert_eq!(until(&mut first, ended), Offset(5));
    }
    let mut second = open(&cluster, "g");
    let deadline = Instant::now() + PATIENCE;
    let kept = loop {
        assert!(Instant::now() < deadline);
        if let Some(event) = first.poll(STEP) {
            let Event::Revoked(gone) = event else { panic!("{event:?}") };
            first.release(&gone).unwrap();
        }
        if second.poll(Duration::ZERO).as_ref().and_then(assigned).is_some() {
            break first.held.keys().next().unwrap().partition;
        }
    };
    write(&cluster, kept, 5..8);
    assert_eq!(read(&mut first, 3)[&kept], rows(0..8)[5..]);
}

#[test]
fn a_lost_session_is_lost_and_comes_back_by_a_new_assignment() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..5);
    let mut consumer = started(&cluster, "g", 0);
    read(&mut consumer, 5);
    cluster.fail(Request::Heartbeat, &[Injected::UnknownMember]);
    let lost = event(&mut consumer, |event| match event {
        Event::Lost(partitions) => Some(partitions.clone()),
        _ => None,
    });
    assert_eq!(lost, [partition(0)]);
    let fetched = consumer.fetch(&partition(0), 10, |_| panic!("read from a lost partition"));
    assert_eq!(fetched.count, 0);
    consumer.release(&lost).unwrap();
    assert_eq!(event(&mut consumer, assigned), [partition(0)]);
    consumer.start(&partition(0), Offset(3), -1).unwrap();
    assert_eq!(read(&mut consumer, 2)[&0], rows(0..5)[3..]);
}

#[test]
fn pause_hides_records_and_resume_shows_them() {
    let cluster = cluster(2);
    write(&cluster, 0, 0..5);
    let mut consumer = started(&cluster, "g", 0);
    consumer.pause(&partition(0));
    queued(&mut consumer, 1);
    // Empty the other partition's end-of-partition notice, so that only the paused one has
    // anything.
    until(&mut consumer, |consumer| consumer.fetch(&partition(1), 10, |_| ()).end);
    let began = Instant::now();
    assert_eq!(consumer.poll(STEP * 5), None);
    assert!(began.elapsed() >= STEP * 5, "poll must sleep past a paused partition");
    consumer.resume(&partition(0));
    assert_eq!(read(&mut consumer, 5)[&0], rows(0..5));
}

#[test]
fn seek_forgets_what_was_queued() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..50);
    let mut consumer = started(&cluster, "g", 0);
    queued(&mut consumer, 50);
    consumer.seek(&partition(0), Offset(40), -1).unwrap();
    assert_eq!(read(&mut consumer, 10)[&0], rows(0..50)[40..]);
    consumer.seek(&partition(0), Offset(48), 0).unwrap();
    assert_eq!(read(&mut consumer, 2)[&0], rows(0..50)[48..]);
}

#[test]
fn an_offset_outside_the_log_is_an_event_and_a_seek_goes_on() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..10);
    let mut consumer = started(&cluster, "g", 1000);
    let wanted = stopped(&mut consumer, |event| match event {
        Event::OutOfRange { partition, wanted } => Some((partition.partition, *wanted)),
        _ => None,
    });
    assert_eq!(wanted, (0, Some(Offset(1000))));
    consumer.seek(&partition(0), Offset(5), -1).unwrap();
    assert_eq!(read(&mut consumer, 5)[&0], rows(0..10)[5..]);
}

/// Polls and fetches until the event that `wanted` picks.
fn stopped<T>(consumer: &mut Consumer, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(event) = consumer.poll(STEP) {
            return wanted(&event).unwrap_or_else(|| panic!("another event came: {event:?}"));
        }
        consumer.fetch(&partition(0), 10, |record| panic!("read {}", record.offset));
    }
    panic!("the event didn't come");
}

#[test]
fn leader_epochs_tell_that_the_log_was_cut() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..10);
    let mut consumer = started(&cluster, "g", 0);
    let epoch = until(&mut consumer, |consumer| {
        let mut epoch = None;
        consumer.fetch(&partition(0), 1, |record| epoch = Some(record.epoch));
        epoch
    });
    // The mark says that records up to 20 were read in this epoch, but the log of this epoch ends
    // at 10.
    consumer.seek(&partition(0), Offset(20), epoch).unwrap();
    let truncated = stopped(&mut consumer, |event| match event {
        Event::Truncated { wanted, end, .. } => Some((*wanted, *end)),
        _ => None,
    });
    assert_eq!(truncated, (Offset(20), Some(Offset(10))));
    consumer.seek(&partition(0), Offset(7), epoch).unwrap();
    assert_eq!(read(&mut consumer, 3)[&0], rows(0..10)[7..]);
    drop(consumer);

    // The same at the start of an assignment.
    let mut consumer = open(&cluster, "g2");
    event(&mut consumer, assigned);
    consumer.start(&partition(0), Offset(20), epoch).unwrap();
    let wanted = stopped(&mut consumer, |event| match event {
        Event::Truncated { wanted, .. } => Some(*wanted),
        _ => None,
    });
    assert_eq!(wanted, Offset(20));
}

#[test]
fn an_assignment_can_be_declined_and_started_later() {
    let cluster = cluster(2);
    (0..2).for_each(|number| write(&cluster, number, 0..3));
    let mut consumer = open(&cluster, "g");
    assert_eq!(event(&mut consumer, assigned), [partition(0), partition(1)]);
    let unknown = consumer.start(&partition(7), Offset(0), -1).unwrap_err();
    assert!(matches!(unknown, Error::NotMember { .. }), "{unknown:?}");
    assert!(consumer.start(&partition(0), Offset(-1), -1).is_err());
    consumer.start(&partition(0), Offset(0), -1).unwrap();
    consumer.release(&[partition(1)]).unwrap();
    assert_eq!(read(&mut consumer, 3).keys().collect::<Vec<_>>(), [&0]);
    assert!(consumer.start(&partition(0), Offset(0), -1).is_err(), "it is started");
    consumer.start(&partition(1), Offset(1), -1).unwrap();
    assert_eq!(read(&mut consumer, 2)[&1], rows(0..3)[1..]);
    // And the other way: held back again, and then taken up anew.
    consumer.release(&[partition(0)]).unwrap();
    consumer.start(&partition(0), Offset(2), -1).unwrap();
    assert_eq!(read(&mut consumer, 1)[&0], rows(0..3)[2..]);
}

#[test]
fn a_member_that_leaves_hands_over_at_once() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..3);
    let mut first = started(&cluster, "g", 0);
    read(&mut first, 3);
    first.close(PATIENCE);
    // Had it not left, the mock would wait for it as the group's leader.
    let mut second = started(&cluster, "g", 1);
    assert_eq!(read(&mut second, 2)[&0], rows(0..3)[1..]);
}

#[test]
fn a_broker_that_is_away_fails_softly_and_reading_goes_on() {
    let cluster = cluster(1);
    write(&cluster, 0, 0..3);
    let mut consumer = started(&cluster, "g", 0);
    read(&mut consumer, 3);
    cluster.down();
    let failed = event(&mut consumer, |event| match event {
        Event::Failed(error) => Some(error.clone()),
        _ => None,
    });
    assert!(failed.is_retriable() && !failed.is_fatal(), "{failed:?}");
    cluster.up();
    write(&cluster, 0, 3..6);
    assert_eq!(read(&mut consumer, 3)[&0], rows(0..6)[3..]);
}

#[test]
fn refused_settings_fail_before_anything_is_opened() {
    let mut connection = Connection::to("localhost:1");
    connection.properties.insert("auto.offset.reset".into(), "earliest".into());
    let refused = Consumer::open(&connection, "g", &[TOPIC], Limits::default()).map(drop);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let mut connection = Connection::to("localhost:1");
    connection.properties.insert("no.such.thing".into(), "1".into());
    let unknown = Consumer::open(&connection, "g", &[TOPIC], Limits::default()).map(drop);
    assert!(unknown.unwrap_err().to_string().contains("no.such.thing"));
}
