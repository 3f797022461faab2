//! What there is: brokers, topics, configurations.

use kafka_protocol::{
    ResponseError,
    messages::{
        DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest,
        MetadataResponse, TopicName,
        describe_cluster_response::DescribeClusterBroker,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        metadata_request::MetadataRequestTopic,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    },
};

use crate::{
    api::{NODE, text},
    broker::Node,
    configs,
    topics::{Refusal, Topic},
};

/// The number of the resource type "topic".
pub(super) const TOPIC: i8 = 2;
/// The number of the resource type "broker".
const BROKER: i8 = 4;
/// The numbers of where a value comes from.
const SET_ON_TOPIC: i8 = 1;
const SET_ON_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// The broker and the topics asked for, with their ids.
pub(super) fn metadata(node: &Node, request: &MetadataRequest, version: i16) -> MetadataResponse {
    let topics = match &request.topics {
        Some(wanted) if version > 0 || !wanted.is_empty() => {
            wanted.iter().map(|wanted| topic(node, wanted, version)).collect()
        }
        _ => node.topics.all().iter().map(|topic| found(topic, version)).collect(),
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(NODE)
        .with_host(text(&node.address.ip().to_string()))
        .with_port(i32::from(node.address.port()));
    let answer = MetadataResponse::default().with_brokers(vec![broker]).with_topics(topics);
    let answer = if version >= 1 { answer.with_controller_id(NODE) } else { answer };
    match version {
        2.. => answer.with_cluster_id(Some(text(&node.cluster_id.simple().to_string()))),
        _ => answer,
    }
}

fn topic(node: &Node, wanted: &MetadataRequestTopic, version: i16) -> MetadataResponseTopic {
    let by_id = wanted.name.is_none();
    let topic = match &wanted.name {
        Some(name) => node.topics.by_name(name),
        None => node.topics.by_id(wanted.topic_id),
    };
    let missing = || {
        let (id, name) = (ResponseError::UnknownTopicId, ResponseError::UnknownTopicOrPartition);
        // The name may be null only from version 12 on.
        let named = wanted.name.clone().or((version < 12).then(TopicName::default));
        MetadataResponseTopic::default()
            .with_error_code(if by_id { id } else { name }.code())
            .with_name(named)
            .with_topic_id(wanted.topic_id)
    };
    topic.map_or_else(missing, |topic| found(&topic, version))
}

fn found(topic: &Topic, version: i16) -> MetadataResponseTopic {
    let partition = |(index, epoch)| {
        let partition = MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(NODE)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE]);
        if version >= 7 { partition.with_leader_epoch(epoch) } else { partition }
    };
    let partitions = topic.partitions();
    let epochs = partitions.iter().map(|partition| partition.bounds().epoch);
    let answer = MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(&topic.name))))
        .with_partitions((0..).zip(epochs).map(partition).collect());
    if version >= 10 { answer.with_topic_id(topic.id) } else { answer }
}

/// The cluster: this node.
pub(super) fn cluster(node: &Node, version: i16) -> DescribeClusterResponse {
    let broker = DescribeClusterBroker::default()
        .with_broker_id(NODE)
        .with_host(text(&node.address.ip().to_string()))
        .with_port(i32::from(node.address.port()));
    let answer = DescribeClusterResponse::default()
        .with_cluster_id(text(&node.cluster_id.simple().to_string()))
        .with_controller_id(NODE)
        .with_brokers(vec![broker]);
    if version >= 1 { answer.with_endpoint_type(1) } else { answer }
}

/// Configurations of topics, and the few of the broker.
pub(super) fn configs(
    node: &Node,
    request: &DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|wanted| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(wanted.resource_type)
            .with_resource_name(wanted.resource_name.clone());
        match resource(node, wanted, version) {
            Ok(configs) => result.with_configs(configs),
            Err((error, words)) => {
                result.with_error_code(error.code()).with_error_message(Some(text(&words)))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

type Described = Vec<DescribeConfigsResourceResult>;

fn resource(
    node: &Node,
    wanted: &DescribeConfigsResource,
    version: i16,
) -> Result<Described, Refusal> {
    let asked = |name: &str| {
        let keys = wanted.configuration_keys.as_ref();
        keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
    };
    match wanted.resource_type {
        TOPIC => {
            let topic = topic_of(node, &wanted.resource_name)?;
            let mut described = of_topic(&topic, node.topics.segment_bytes, version);
            described.retain(|config| asked(&config.name));
            Ok(described)
        }
        BROKER => {
            let segment_bytes = node.topics.segment_bytes.to_string();
            let all = [
                ("auto.create.topics.enable", "false", 1),
                ("broker.id", "1", 3),
                ("default.replication.factor", "1", 3),
                ("log.segment.bytes", segment_bytes.as_str(), 3),
                ("num.partitions", "1", 3),
            ];
            let asked = all.iter().filter(|(name, ..)| asked(name));
            let describe = |(name, value, kind): &(&str, &str, i8)| {
                described(name, value, SET_ON_BROKER, *kind, version).with_read_only(true)
            };
            Ok(asked.map(describe).collect())
        }
        other => {
            let words = format!("configurations of resource type {other} are not known here");
            Err((ResponseError::InvalidRequest, words))
        }
    }
}

/// A topic by name, or the refusal.
pub(super) fn topic_of(node: &Node, name: &str) -> Result<std::sync::Arc<Topic>, Refusal> {
    let missing = || (ResponseError::UnknownTopicOrPartition, format!("no topic {name:?}"));
    node.topics.by_name(name).ok_or_else(missing)
}

fn of_topic(topic: &Topic, segment_bytes: u64, version: i16) -> Described {
    let set = topic.set();
    let all = configs::KNOWN.iter().map(|known| {
        let (value, source) = match set.get(known.name) {
            Some(value) => (value.clone(), SET_ON_TOPIC),
            None => (known.default(segment_bytes), DEFAULT),
        };
        described(known.name, &value, source, known.wire_type(), version)
    });
    all.collect()
}

fn described(
    name: &str,
    value: &str,
    source: i8,
    kind: i8,
    version: i16,
) -> DescribeConfigsResourceResult {
    let answer = DescribeConfigsResourceResult::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_config_source(source);
    if version >= 3 { answer.with_config_type(kind) } else { answer }
}
