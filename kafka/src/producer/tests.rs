use std::sync::mpsc;

use super::*;
use crate::{
    Receipts,
    testing::{Cluster, Injected, Request},
};

const PATIENCE: Duration = Duration::from_secs(30);

fn message(number: u64) -> Outgoing<'static> {
    let value: &'static [u8] = if number == 0 { b"zero" } else { b"more" };
    Outgoing { topic: "events", partition: Some(0), value: Some(value), ..Outgoing::default() }
}

fn cluster() -> Cluster {
    let cluster = Cluster::start(1).unwrap();
    cluster.create_topic("events", 1).unwrap();
    cluster
}

#[test]
fn every_message_is_acknowledged_with_its_place() {
    let cluster = cluster();
    let producer = Producer::open(&cluster.connection(), "test").unwrap();
    let (tell, told) = mpsc::channel();
    for number in 0..100 {
        let tell = tell.clone();
        producer
            .send(&message(number), move |result| tell.send((number, result)).unwrap())
            .unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.outstanding(), 0);
    let placed: Vec<_> = told.try_iter().map(|(n, result)| (n, result.unwrap())).collect();
    let place = |n| (n, Placed { partition: 0, offset: Offset(n as i64) });
    assert_eq!(placed, (0..100).map(place).collect::<Vec<_>>());
}

#[test]
fn retries_keep_order_and_double_nothing() {
    let cluster = cluster();
    let producer = Producer::open(&cluster.connection(), "test").unwrap();
    producer.send(&message(0), drop).unwrap();
    producer.flush(PATIENCE).unwrap();
    cluster.fail(Request::Produce, &[Injected::NotLeader, Injected::Transport, Injected::TimedOut]);
    let (tell, told) = mpsc::channel();
    for number in 1..20 {
        let tell = tell.clone();
        producer.send(&message(number), move |placed| tell.send(placed).unwrap()).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let offsets: Vec<_> = told.try_iter().map(|placed| placed.unwrap().offset.get()).collect();
    assert_eq!(offsets, (1..20).collect::<Vec<_>>());
}

#[test]
fn a_refused_message_tells_its_own_closure_and_the_flush() {
    let cluster = cluster();
    let producer = Producer::open(&cluster.connection(), "test").unwrap();
    cluster.fail(Request::Produce, &[Injected::MessageTooLarge]);
    let receipts = Receipts::default();
    producer.send(&message(0), receipts.expect(7)).unwrap();
    let flushed = producer.flush(PATIENCE).unwrap_err();
    assert!(matches!(flushed, Error::TooLarge { .. }), "{flushed:?}");
    let failed = receipts.wait(PATIENCE);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, 7);
    assert!(matches!(failed[0].1, Error::TooLarge { .. }));
    // Told once: the next flush is about later messages.
    producer.send(&message(1), receipts.expect(8)).unwrap();
    producer.flush(PATIENCE).unwrap();
    assert_eq!(receipts.wait(PATIENCE), []);
}

#[test]
fn a_full_queue_refuses_and_forgets_the_closure() {
    let mut connection = Connection::to("127.0.0.1:1"); // nobody listens
    connection.properties.insert("queue.buffering.max.messages".into(), "3".into());
    let producer = Producer::open(&connection, "test").unwrap();
    let receipts = Receipts::default();
    for number in 0..3 {
        producer.send(&message(number), receipts.expect(number)).unwrap();
    }
    let full = producer.send(&message(3), receipts.expect(3)).unwrap_err();
    assert_eq!(full, Error::Full { topic: "events".into() });
    assert!(full.is_retriable());
    assert_eq!((receipts.open(), producer.outstanding()), (3, 3));
    let late = producer.flush(Duration::from_millis(50)).unwrap_err();
    assert!(late.is_retriable(), "{late:?}");
    // Dropping gives up what is left, and says so.
    drop(producer);
    let failed = receipts.wait(Duration::ZERO);
    assert_eq!(failed.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn receipts_without_an_answer_time_out() {
    let receipts = Receipts::default();
    let kept = receipts.expect(1);
    drop(receipts.expect(2));
    let failed = receipts.wait(Duration::from_millis(1));
    assert_eq!(failed.len(), 1);
    assert!(failed[0].0 == 1 && failed[0].1.is_retriable());
    kept(Ok(Placed { partition: 0, offset: Offset(0) }));
    assert_eq!(receipts.wait(Duration::ZERO), []);
}

#[test]
fn a_closure_that_panics_does_not_stop_the_others() {
    let cluster = cluster();
    let producer = Producer::open(&cluster.connection(), "test").unwrap();
    producer.send(&message(0), |_| panic!("on purpose")).unwrap();
    let receipts = Receipts::default();
    producer.send(&message(1), receipts.expect(1)).unwrap();
    producer.flush(PATIENCE).unwrap();
    assert_eq!(receipts.wait(PATIENCE), []);
}
