//! The protocol by hand: shapes of answers, sequence numbers, ids, refusals.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
        DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
        DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest,
        GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
        JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest,
        MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
        ProduceRequest, SyncGroupRequest, TransactionalId,
        alter_configs_request::{AlterConfigsRequest, AlterConfigsResource},
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::CreatableTopic,
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        fetch_request::{FetchPartition, FetchTopic},
        join_group_request::JoinGroupRequestProtocol,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{
            OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
        },
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    protocol::{Request, StrBytes},
};
use uuid::Uuid;

use crate::rig::{Rig, Wire, batch, name};

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

pub fn produce(topic: &str, id: Uuid, version: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_records(Some(records));
    let topic_data = TopicProduceData::default().with_partition_data(vec![data]);
    let topic_data = match version {
        13.. => topic_data.with_topic_id(id),
        _ => topic_data.with_name(name(topic)),
    };
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000);
    request.with_topic_data(vec![topic_data])
}

/// Produces one batch to partition 0 and gives its answer.
pub fn put(rig: &Rig, topic: &str, records: Bytes) -> PartitionProduceResponse {
    let answer = rig.ask(9, &produce(topic, Uuid::nil(), 9, records));
    answer.responses[0].partition_responses[0].clone()
}

pub fn topic_id(rig: &Rig, topic: &str) -> Uuid {
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    rig.ask(12, &request).topics[0].topic_id
}

pub fn fetch(topic: &str, id: Uuid, version: i16, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default().with_partitions(vec![partition]);
    let wanted = match version {
        13.. => wanted.with_topic_id(id),
        _ => wanted.with_topic(name(topic)),
    };
    let request = FetchRequest::default()
        .with_max_wait_ms(10)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![wanted]);
    if version < 15 { request.with_replica_id((-1).into()) } else { request }
}

fn each<R: Request>(rig: &Rig, served: &[(i16, i16, i16)], make: impl Fn(i16) -> R)
where
    R::Response: std::fmt::Debug,
{
    let (_, min, max) = served.iter().find(|(key, ..)| *key == R::KEY).unwrap();
    for version in (*min).max(R::VERSIONS.min)..=*max {
        // Decodes all of the answer, or panics.
        let _answer = rig.ask(version, &make(version));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of the requests, one after another")]
fn every_announced_version_is_answered_in_its_own_shape() {
    let rig = Rig::new();
    rig.create("shapes", 2, &[]);
    rig.send("shapes", &["one"]);
    let id = topic_id(&rig, "shapes");
    let served = rig.ask(3, &ApiVersionsRequest::default().with_client_software_name("w".into()));
    let served: Vec<_> =
        served.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    let group = || GroupId(StrBytes::from_static_str("shapes"));
    let text = StrBytes::from_static_str;

    each(&rig, &served, |_| ApiVersionsRequest::default());
    each(&rig, &served, |v| produce("shapes", id, v, batch(&[now_ms()], (-1, -1, -1))));
    each(&rig, &served, |v| fetch("shapes", id, v, 0));
    each(&rig, &served, |v| fetch("shapes", Uuid::new_v4(), v, 1_000));
    each(&rig, &served, |v| {
        let known = MetadataRequestTopic::default().with_name(Some(name("shapes")));
        let unknown = MetadataRequestTopic::default().with_name(Some(name("absent")));
        let mut topics = vec![known, unknown];
        if v >= 10 {
            topics.push(MetadataRequestTopic::default().with_topic_id(id).with_name(None));
            topics.push(
                MetadataRequestTopic::default().with_topic_id(Uuid::new_v4()).with_name(None),
            );
        }
        // Before version 12 a null name can't be asked for.
        topics.retain(|topic| topic.name.is_some() || v >= 12);
        MetadataRequest::default().with_topics(Some(topics))
    });
    each(&rig, &served, |_| {
        let at = |timestamp| ListOffsetsPartition::default().with_timestamp(timestamp);
        let partitions = [-1, -2, 0, -3, -9].map(at).to_vec();
        let partitions = partitions.into_iter().map(|p| p.with_current_leader_epoch(-1)).collect();
        let topic =
            ListOffsetsTopic::default().with_name(name("shapes")).with_partitions(partitions);
        ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
    });
    each(&rig, &served, |_| {
        let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
        let topic = OffsetForLeaderTopic::default().with_topic(name("shapes"));
        let topic = topic.with_partitions(vec![partition]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
    });
    each(&rig, &served, |v| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
        let topic = OffsetCommitRequestTopic::default().with_name(name("shapes"));
        let topic = topic.with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(group());
        let request = if v < 5 { request.with_retention_time_ms(-1) } else { request };
        request.with_generation_id_or_member_epoch(-1).with_topics(vec![topic])
    });
    each(&rig, &served, |v| {
        let (request, indexes) = (OffsetFetchRequest::default(), vec![0, 1]);
        if v >= 8 {
            let topic = OffsetFetchRequestTopics::default().with_name(name("shapes"));
            let topic = topic.with_partition_indexes(indexes);
            let wanted = OffsetFetchRequestGroup::default().with_group_id(group());
            let all = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(None);
            return request.with_groups(vec![wanted.with_topics(Some(vec![topic])), all]);
        }
        let topic = OffsetFetchRequestTopic::default().with_name(name("shapes"));
        let topic = topic.with_partition_indexes(indexes);
        request.with_group_id(group()).with_topics(Some(vec![topic]))
    });
    each(&rig, &served, |v| match v {
        4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("shapes")]),
        _ => FindCoordinatorRequest::default().with_key(text("shapes")),
    });
    each(&rig, &served, |v| match v {
        4.. => FindCoordinatorRequest::default()
            .with_key_type(1)
            .with_coordinator_keys(vec![text("shapes")]),
        1.. => FindCoordinatorRequest::default().with_key_type(1).with_key(text("shapes")),
        _ => FindCoordinatorRequest::default(),
    });
    each(&rig, &served, |v| {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(format!("join{v}"))))
            .with_session_timeout_ms(200)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        if v >= 5 { request.with_group_instance_id(Some(text("i"))) } else { request }
    });
    each(&rig, &served, |_| SyncGroupRequest::default().with_group_id(group()));
    each(&rig, &served, |_| HeartbeatRequest::default().with_group_id(group()));
    each(&rig, &served, |_| LeaveGroupRequest::default().with_group_id(group()));
    each(&rig, &served, |_| DescribeGroupsRequest::default().with_groups(vec![group()]));
    each(&rig, &served, |_| ListGroupsRequest::default());
    each(&rig, &served, |_| DeleteGroupsRequest::default().with_groups_names(vec![group()]));
    each(&rig, &served, |_| InitProducerIdRequest::default().with_transactional_id(None));
    each(&rig, &served, |v| {
        let topic = CreatableTopic::default().with_num_partitions(1).with_replication_factor(1);
        let topic = topic.with_name(name(&format!("made-{v}")));
        let twice = topic.clone();
        CreateTopicsRequest::default().with_topics(vec![topic, twice])
    });
    each(&rig, &served, |v| {
        let (made, absent) = (name(&format!("made-{}", v + 1)), name("absent"));
        if v < 6 {
            return DeleteTopicsRequest::default().with_topic_names(vec![made, absent]);
        }
        let states = [made, absent].map(|n| DeleteTopicState::default().with_name(Some(n)));
        DeleteTopicsRequest::default().with_topics(states.to_vec())
    });
    each(&rig, &served, |_| DeleteRecordsRequest::default());
    each(&rig, &served, |v| {
        let topic = CreatePartitionsTopic::default().with_name(name("shapes"));
        let topic = topic.with_count(i32::from(v) + 2).with_assignments(None);
        CreatePartitionsRequest::default().with_topics(vec![topic])
    });
    each(&rig, &served, |_| {
        let of = |kind, name| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configuration_keys(None)
        };
        let resources = vec![of(2, "shapes"), of(2, "absent"), of(4, "1"), of(8, "what")];
        DescribeConfigsRequest::default().with_resources(resources)
    });
    each(&rig, &served, |_| {
        let resource = AlterConfigsResource::default().with_resource_type(2);
        let resource = resource.with_resource_name(text("shapes"));
        AlterConfigsRequest::default().with_resources(vec![resource])
    });
    each(&rig, &served, |_| IncrementalAlterConfigsRequest::default());
    each(&rig, &served, |v| {
        let request = DescribeClusterRequest::default();
        if v >= 1 { request.with_endpoint_type(1) } else { request }
    });
    assert_eq!(served.len(), 25, "an API without a test above: {served:?}");
}

#[test]
fn a_client_of_the_future_is_told_the_versions() {
    let rig = Rig::new();
    let mut wire = Wire::connect(rig.address());
    let mut frame = Vec::new();
    frame.extend((ApiKey::ApiVersions as i16).to_be_bytes());
    frame.extend(99_i16.to_be_bytes());
    frame.extend(77_i32.to_be_bytes());
    frame.extend(b"whatever the future brings");
    wire.frame(&frame);
    let answer = wire.receive::<ApiVersionsRequest>(0);
    assert_eq!(answer.error_code, ResponseError::UnsupportedVersion.code());
    assert!(answer.api_keys.len() > 20);
}

#[test]
fn garbage_closes_the_connection_and_nothing_else() {
    let rig = Rig::new();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 9]] {
        let mut wire = Wire::connect(rig.address());
        wire.frame(garbage);
        assert!(wire.answer().is_none());
    }
    assert_eq!(rig.ask(0, &ApiVersionsRequest::default()).error_code, 0);
}

#[test]
fn batches_of_an_idempotent_producer_are_stored_once_and_in_order() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    let id = rig.ask(4, &InitProducerIdRequest::default().with_transactional_id(None));
    let id = id.producer_id.0;
    let other = rig.ask(4, &InitProducerIdRequest::default().with_transactional_id(None));
    assert_ne!(id, other.producer_id.0);
    let send = |rig: &Rig, epoch, sequence, count| {
        let answer = put(rig, "t", batch(&vec![now_ms(); count], (id, epoch, sequence)));
        (answer.error_code, answer.base_offset)
    };
    let out_of_order = (ResponseError::OutOfOrderSequenceNumber.code(), -1);
    assert_eq!(send(&rig, 0, 5, 1), out_of_order, "its first batch is lost");
    assert_eq!(send(&rig, 0, 0, 3), (0, 0));
    assert_eq!(send(&rig, 0, 3, 2), (0, 3));
    assert_eq!(send(&rig, 0, 0, 3), (0, 0), "a duplicate is answered as then");
    assert_eq!(send(&rig, 0, 6, 1), out_of_order, "one is missing");
    rig.restart();
    assert_eq!(send(&rig, 0, 3, 2), (0, 3), "the log knows, not the memory");
    assert_eq!(send(&rig, 0, 5, 1), (0, 5));
    assert_eq!(send(&rig, 1, 6, 1), out_of_order, "a new epoch starts at 0");
    assert_eq!(send(&rig, 1, 0, 1), (0, 6));
    assert_eq!(send(&rig, 0, 6, 1).0, ResponseError::InvalidProducerEpoch.code());
    assert_eq!(rig.watermarks("t"), (0, 7));
}

#[test]
fn what_cant_be_stored_is_refused_by_its_own_code() {
    let rig = Rig::new();
    rig.create("t", 1, &[("max.message.bytes", "200")]);
    let good = || batch(&[now_ms()], (-1, -1, -1)).to_vec();
    let code = |bytes: Vec<u8>| put(&rig, "t", bytes.into()).error_code;
    let mut flipped = good();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(code(flipped), ResponseError::CorruptMessage.code());
    assert_eq!(code(good()[..70].to_vec()), ResponseError::CorruptMessage.code());
    assert_eq!(code(Vec::new()), ResponseError::CorruptMessage.code());
    assert_eq!(code([good(), good()].concat()), ResponseError::InvalidRecord.code());
    let large = batch(&[now_ms(); 50], (-1, -1, -1));
    assert_eq!(code(large.to_vec()), ResponseError::MessageTooLarge.code());
    let far = batch(&[now_ms() + 86_400_000], (-1, -1, -1));
    assert_eq!(code(far.to_vec()), ResponseError::InvalidTimestamp.code());
    let mut old_format = good();
    old_format[16] = 1;
    assert_eq!(code(old_format), ResponseError::UnsupportedForMessageFormat.code());
    let absent = put(&rig, "absent", good().into()).error_code;
    assert_eq!(absent, ResponseError::UnknownTopicOrPartition.code());
    assert_eq!(code(good()), 0, "the topic still takes what is right");
    assert_eq!(rig.watermarks("t"), (0, 1));
}

#[test]
fn transactions_are_refused_clearly() {
    let rig = Rig::new();
    let refused = ResponseError::TransactionalIdAuthorizationFailed.code();
    let name = StrBytes::from_static_str("t");
    let id = Some(TransactionalId(name.clone()));
    let request = InitProducerIdRequest::default().with_transactional_id(id);
    assert_eq!(rig.ask(4, &request).error_code, refused);
    let request = FindCoordinatorRequest::default().with_key_type(1).with_key(name);
    let answer = rig.ask(2, &request);
    assert_eq!(answer.error_code, refused);
    assert!(answer.error_message.unwrap().contains("no transactions"));
}

#[test]
fn a_topic_made_anew_has_another_id_and_none_of_the_old_one() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    rig.send("t", &["old", "old"]);
    let old = topic_id(&rig, "t");
    let commit = || {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(2);
        let topic = OffsetCommitRequestTopic::default().with_name(name("t"));
        OffsetCommitRequest::default()
            .with_group_id(GroupId("g".into()))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic.with_partitions(vec![partition])])
    };
    let committed = |rig: &Rig| {
        let topic = OffsetFetchRequestTopic::default().with_name(name("t"));
        let topic = topic.with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default().with_group_id(GroupId("g".into()));
        let answer = rig.ask(5, &request.with_topics(Some(vec![topic])));
        answer.topics[0].partitions[0].committed_offset
    };
    assert_eq!(rig.ask(5, &commit()).topics[0].partitions[0].error_code, 0);
    assert_eq!(committed(&rig), 2);
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    assert_eq!(rig.ask(5, &request).responses[0].error_code, 0);
    rig.create("t", 1, &[]);
    let new = topic_id(&rig, "t");
    assert_ne!(old, new);
    let answer = rig.ask(13, &fetch("t", old, 13, 0));
    let code = answer.responses[0].partitions[0].error_code;
    assert_eq!(code, ResponseError::UnknownTopicId.code());
    assert_eq!(committed(&rig), -1);
    assert_eq!(rig.watermarks("t"), (0, 0));
    rig.restart();
    assert_eq!(topic_id(&rig, "t"), new);
    assert_eq!(committed(&rig), -1);
}

#[test]
fn a_waiting_reader_hears_of_new_records_and_of_the_topic_s_end() {
    let rig = Rig::new();
    rig.create("t", 1, &[]);
    let mut wire = Wire::connect(rig.address());
    // The wire's own patience is shorter: an answer at the end of the wait would fail.
    let long = |offset| fetch("t", Uuid::nil(), 12, offset).with_max_wait_ms(50_000);
    wire.send(12, &long(0));
    put(&rig, "t", batch(&[now_ms()], (-1, -1, -1)));
    let answer = wire.receive::<FetchRequest>(12).responses[0].partitions[0].clone();
    assert_eq!((answer.error_code, answer.high_watermark), (0, 1));
    assert_eq!(answer.records.unwrap()[..8], [0; 8]);
    wire.send(12, &long(1));
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    assert_eq!(rig.ask(5, &request).responses[0].error_code, 0);
    let answer = wire.receive::<FetchRequest>(12).responses[0].partitions[0].clone();
    assert_eq!(answer.error_code, ResponseError::UnknownTopicOrPartition.code());
}

/// Where a leader epoch of partition 0 ended, asked with the present one: (error, epoch, offset).
pub fn epoch_end(rig: &Rig, topic: &str, current: i32, epoch: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default()
        .with_current_leader_epoch(current)
        .with_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default().with_topic(name(topic));
    let topic = topic.with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let answer = rig.ask(3, &request).topics[0].partitions[0].clone();
    (answer.error_code, answer.leader_epoch, answer.end_offset)
}

#[test]
fn a_truncated_log_shows_in_the_leader_epochs() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    for _ in 0..4 {
        put(&rig, "t", batch(&[now_ms(); 5], (-1, -1, -1)));
    }
    let end = |rig: &Rig, current, epoch| epoch_end(rig, "t", current, epoch);
    assert_eq!(end(&rig, 0, 0), (0, 0, 20));
    assert_eq!(rig.broker().truncate("t", 0, 12).unwrap(), 10, "batches go as a whole");
    assert_eq!(end(&rig, 0, 0).0, ResponseError::FencedLeaderEpoch.code());
    assert_eq!(end(&rig, 1, 0), (0, 0, 10));
    let fetched = rig.ask(12, &fetch("t", Uuid::nil(), 12, 20));
    let code = fetched.responses[0].partitions[0].error_code;
    assert_eq!(code, ResponseError::OffsetOutOfRange.code());
    assert_eq!(put(&rig, "t", batch(&[now_ms(); 5], (-1, -1, -1))).base_offset, 10);
    rig.restart();
    assert_eq!(end(&rig, 1, 0), (0, 0, 10));
    assert_eq!(end(&rig, 1, 1), (0, 1, 15));
}
