//! Consumer groups: librdkafka's members, and zombies by hand.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
        OffsetCommitRequest, SyncGroupRequest, TopicName,
        join_group_request::JoinGroupRequestProtocol,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::AdminOptions,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use crate::rig::{PATIENCE, Rig, Wire, name, poll};

fn assigned(consumer: &BaseConsumer) -> BTreeSet<i32> {
    let assignment = consumer.assignment().unwrap();
    assignment
        .elements()
        .iter()
        .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
        .collect()
}

/// Polls all until each has `count` partitions and together they have all of `total`.
fn settle(consumers: &[&BaseConsumer], count: usize, total: i32) {
    let until = Instant::now() + PATIENCE;
    loop {
        for consumer in consumers {
            if let Some(message) = consumer.poll(Duration::from_millis(20)) {
                message.unwrap();
            }
        }
        let held: Vec<_> = consumers.iter().map(|consumer| assigned(consumer)).collect();
        let all: BTreeSet<i32> = held.iter().flatten().copied().collect();
        if held.iter().all(|own| own.len() == count) && all == (0..total).collect() {
            return;
        }
        assert!(Instant::now() < until, "no rebalance to {count} each: {held:?}");
    }
}

#[test]
fn two_members_share_and_the_last_one_takes_all() {
    let rig = Rig::new();
    rig.create("t", 4, &[]);
    for strategy in ["range", "roundrobin", "cooperative-sticky"] {
        let set = [("partition.assignment.strategy", strategy)];
        let first = rig.consumer(strategy, &set);
        first.subscribe(&["t"]).unwrap();
        settle(&[&first], 4, 4);
        let second = rig.consumer(strategy, &set);
        second.subscribe(&["t"]).unwrap();
        settle(&[&first, &second], 2, 4);
        drop(first);
        settle(&[&second], 4, 4);
    }
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let rig = Rig::new();
    rig.create("t", 4, &[]);
    let member = |instance| rig.consumer("static", &[("group.instance.id", instance)]);
    let (first, second) = (member("one"), member("two"));
    first.subscribe(&["t"]).unwrap();
    second.subscribe(&["t"]).unwrap();
    settle(&[&first, &second], 2, 4);
    let (kept, other) = (assigned(&first), assigned(&second));
    // Closing a static member doesn't leave the group.
    drop(first);
    let again = member("one");
    again.subscribe(&["t"]).unwrap();
    settle(&[&again, &second], 2, 4);
    assert_eq!((assigned(&again), assigned(&second)), (kept, other));
}

#[test]
fn a_member_that_falls_silent_loses_its_partitions() {
    let rig = Rig::new();
    rig.create("t", 2, &[]);
    let mut silent = Member::join(&rig, "g", "", 300);
    silent.sync(&rig);
    let alive = rig.consumer("g", &[]);
    alive.subscribe(&["t"]).unwrap();
    settle(&[&alive], 2, 2);
    assert_eq!(silent.heartbeat(&rig), ResponseError::UnknownMemberId.code());
}

#[test]
fn commits_come_back_with_their_metadata_after_a_restart() {
    let mut rig = Rig::new();
    rig.create("t", 2, &[]);
    rig.send("t", &["a", "b", "c"]);
    let consumer = rig.consumer("g", &[]);
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&consumer).payload(), Some(&b"a"[..]));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(2)).unwrap();
    list.elements()[0].set_metadata("mark 2 \u{1f980} \"quoted\"");
    consumer.commit(&list, CommitMode::Sync).unwrap();
    drop(consumer);
    rig.restart();
    let consumer = rig.consumer("g", &[]);
    let mut asked = TopicPartitionList::new();
    asked.add_partition("t", 0);
    asked.add_partition("t", 1);
    let found = consumer.committed_offsets(asked, PATIENCE).unwrap();
    assert_eq!(found.elements()[0].offset(), Offset::Offset(2));
    assert_eq!(found.elements()[0].metadata(), "mark 2 \u{1f980} \"quoted\"");
    assert_eq!(found.elements()[1].offset(), Offset::Invalid);
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&consumer).payload(), Some(&b"c"[..]));
}

#[test]
fn groups_are_listed_and_deleted_when_empty() {
    let rig = Rig::new();
    rig.create("t", 1, &[]);
    let consumer = rig.consumer("busy", &[("client.id", "me")]);
    consumer.subscribe(&["t"]).unwrap();
    settle(&[&consumer], 1, 1);
    let groups = consumer.fetch_group_list(None, PATIENCE).unwrap();
    let group = groups.groups().iter().find(|group| group.name() == "busy").unwrap();
    assert_eq!((group.state(), group.protocol_type()), ("Stable", "consumer"));
    assert_eq!(group.members()[0].client_id(), "me");
    let delete = |name: &str| {
        let (admin, options) = (rig.admin(), AdminOptions::new());
        let mut deleted = rig.runtime.block_on(admin.delete_groups(&[name], &options)).unwrap();
        let deleted = deleted.remove(0);
        deleted.map_err(|(_, code)| code.to_string())
    };
    assert!(delete("busy").unwrap_err().contains("NonEmptyGroup"));
    assert!(delete("absent").unwrap_err().contains("GroupIdNotFound"));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(0)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
    drop(consumer);
    let until = Instant::now() + PATIENCE;
    while delete("busy").is_err() {
        assert!(Instant::now() < until, "the member never left");
    }
    let groups = rig.consumer("x", &[]).fetch_group_list(None, PATIENCE).unwrap();
    assert!(groups.groups().iter().all(|group| group.name() != "busy"));
}

/// A group member by hand.
struct Member {
    wire: Wire,
    group: GroupId,
    id: StrBytes,
    generation: i32,
}

fn request(group: &GroupId, id: &StrBytes, session_ms: i32) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
    // An empty subscription of version 0: no topics, no user data.
    let protocol = protocol.with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    JoinGroupRequest::default()
        .with_group_id(group.clone())
        .with_session_timeout_ms(session_ms)
        .with_rebalance_timeout_ms(2_000)
        .with_member_id(id.clone())
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol])
}

impl Member {
    fn join(rig: &Rig, group: &str, id: &str, session_ms: i32) -> Member {
        let mut wire = Wire::connect(rig.address());
        let group = GroupId(StrBytes::from_string(group.to_owned()));
        let mut id = StrBytes::from_string(id.to_owned());
        let mut joined: JoinGroupResponse = wire.ask(5, &request(&group, &id, session_ms));
        if joined.error_code == ResponseError::MemberIdRequired.code() {
            id = joined.member_id;
            joined = wire.ask(5, &request(&group, &id, session_ms));
        }
        assert_eq!(joined.error_code, 0);
        Member { wire, group, id, generation: joined.generation_id }
    }

    fn sync(&mut self, _rig: &Rig) -> i16 {
        let own = SyncGroupRequestAssignment::default().with_member_id(self.id.clone());
        let request = SyncGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_assignments(vec![own]);
        self.wire.ask(3, &request).error_code
    }

    fn heartbeat(&mut self, rig: &Rig) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        rig.ask(3, &request).error_code
    }

    fn commit(&self, rig: &Rig, offset: i64) -> i16 {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic: TopicName = name("t");
        let topic = OffsetCommitRequestTopic::default().with_name(topic);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![topic.with_partitions(vec![partition])]);
        rig.ask(7, &request).topics[0].partitions[0].error_code
    }
}

#[test]
fn a_member_of_an_earlier_generation_cant_commit() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    let mut zombie = Member::join(&rig, "g", "", 10_000);
    let between = ResponseError::RebalanceInProgress.code();
    assert_eq!(zombie.commit(&rig, 1), between, "no assignment yet");
    assert_eq!(zombie.sync(&rig), 0);
    assert_eq!(zombie.commit(&rig, 1), 0);
    // A second member asks to join: the rebalance waits for the first one, which may still commit.
    let mut second = Wire::connect(rig.address());
    let nobody = StrBytes::default();
    let answer = second.ask(5, &request(&zombie.group, &nobody, 10_000));
    let id = answer.member_id;
    second.send(5, &request(&zombie.group, &id, 10_000));
    let until = Instant::now() + PATIENCE;
    while zombie.heartbeat(&rig) != between {
        assert!(Instant::now() < until);
    }
    assert_eq!(zombie.commit(&rig, 2), 0);
    // It doesn't join in time: the generation goes on without it.
    assert_eq!(second.receive::<JoinGroupRequest>(5).generation_id, 2);
    assert_eq!(zombie.commit(&rig, 3), ResponseError::UnknownMemberId.code());
    let stale = Member {
        wire: Wire::connect(rig.address()),
        group: zombie.group.clone(),
        id,
        generation: 1,
    };
    assert_eq!(stale.commit(&rig, 3), ResponseError::IllegalGeneration.code());
    let outsider = Member { id: nobody, generation: -1, ..stale };
    assert_eq!(outsider.commit(&rig, 3), ResponseError::UnknownMemberId.code());
    rig.restart();
    assert_eq!(zombie.commit(&rig, 3), ResponseError::UnknownMemberId.code());
    assert_eq!(outsider.commit(&rig, 2), 0, "nobody's commit is fine while there are no members");
}

#[test]
fn a_rebalance_ends_when_the_last_one_leaves_instead_of_joining() {
    let rig = Rig::new();
    let mut first = Member::join(&rig, "g", "", 10_000);
    assert_eq!(first.sync(&rig), 0);
    let mut second = Wire::connect(rig.address());
    let answer = second.ask(5, &request(&first.group, &StrBytes::default(), 10_000));
    second.send(5, &request(&first.group, &answer.member_id, 10_000));
    let leave = LeaveGroupRequest::default()
        .with_group_id(first.group.clone())
        .with_member_id(first.id.clone());
    assert_eq!(first.wire.ask(2, &leave).error_code, 0);
    let joined = second.receive::<JoinGroupRequest>(5);
    assert_eq!((joined.error_code, joined.members.len()), (0, 1));
    assert_eq!(joined.leader, answer.member_id);
}
