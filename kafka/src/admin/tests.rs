//! What the mock cluster can answer. It has no controller, so nothing about topics, their ids and
//! configurations, nor offsets by time: those are tested where the embedded broker runs.

use super::*;
use crate::testing::Cluster;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_first_and_next_offsets_are_asked_of_the_leader() {
    let cluster = Cluster::start(1).unwrap();
    cluster.create_topic("a", 2).unwrap();
    cluster.write("a", 1, [&b"x"[..], b"y"]).unwrap();
    let admin = Admin::open(&cluster.connection(), PATIENCE).unwrap();
    let one = TopicPartition::new("a", 1);
    assert_eq!(admin.watermarks(&one).unwrap(), (Offset(0), Offset(2)));
    let zero = TopicPartition::new("a", 0);
    let spots = [(one.clone(), Spot::Next), (zero, Spot::Next)];
    for isolation in [Isolation::Committed, Isolation::Uncommitted] {
        assert_eq!(admin.offsets(&spots, isolation).unwrap(), [Offset(2), Offset(0)]);
    }
    let first = admin.offsets(&[(one, Spot::First)], Isolation::Committed).unwrap();
    assert_eq!(first, [Offset(0)]);
}

#[test]
fn a_cluster_that_answers_is_reached() {
    let cluster = Cluster::start(2).unwrap();
    let admin = Admin::open(&cluster.connection(), PATIENCE).unwrap();
    assert_eq!(admin.reach().unwrap(), 2);
}

#[test]
fn a_cluster_that_does_not_answer_is_named_with_advice() {
    let admin = Admin::open(&Connection::to("127.0.0.1:1"), Duration::from_millis(300)).unwrap();
    let error = admin.reach().unwrap_err();
    let text = error.to_string();
    assert!(error.is_retriable(), "{error:?}");
    assert!(text.starts_with("connect to Kafka at 127.0.0.1:1: "), "{text}");
    assert!(text.contains("security.protocol"), "{text}");
}

#[test]
fn requests_without_an_answer_end_in_time() {
    let admin = Admin::open(&Connection::to("127.0.0.1:1"), Duration::from_millis(100)).unwrap();
    let began = Instant::now();
    let new = NewTopic { topic: "a", partitions: 1, replication: 1, configs: &[] };
    assert!(admin.create_topics(&[new]).unwrap_err().is_retriable());
    assert!(admin.topic_ids(&["a"]).unwrap_err().is_retriable());
    assert!(began.elapsed() < Duration::from_secs(10));
}
