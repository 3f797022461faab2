//! Topics and configurations through librdkafka's admin client.

use std::collections::HashMap;

use kafka_protocol::{
    ResponseError,
    messages::{
        AlterConfigsRequest, IncrementalAlterConfigsRequest,
        alter_configs_request::{AlterConfigsResource, AlterableConfig},
        incremental_alter_configs_request as incremental,
    },
    protocol::StrBytes,
};
use rdkafka::{
    admin::{
        AdminOptions, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
    },
    consumer::Consumer,
    error::RDKafkaErrorCode,
};

use crate::rig::{PATIENCE, Rig};

fn described(rig: &Rig, topic: &str) -> HashMap<String, (Option<String>, ConfigSource)> {
    let of = [ResourceSpecifier::Topic(topic)];
    let admin = rig.admin();
    let found = rig.runtime.block_on(admin.describe_configs(&of, &AdminOptions::new())).unwrap();
    let found = found.into_iter().next().unwrap().unwrap();
    let entries = found.entries.into_iter();
    entries.map(|entry| (entry.name, (entry.value, entry.source))).collect()
}

fn partitions(rig: &Rig, topic: &str) -> usize {
    let metadata = rig.consumer("m", &[]).fetch_metadata(Some(topic), PATIENCE).unwrap();
    metadata.topics()[0].partitions().len()
}

#[test]
fn topics_are_made_grown_and_deleted() {
    let mut rig = Rig::new();
    rig.create("t", 2, &[]);
    assert_eq!(partitions(&rig, "t"), 2);
    let admin = rig.admin();
    let options = AdminOptions::new();
    let make = |name: &str, partitions, replicas| {
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        let made = rig.runtime.block_on(admin.create_topics(&[new], &options)).unwrap();
        made[0].clone().map_err(|(_, code)| code)
    };
    assert_eq!(make("t", 1, 1), Err(RDKafkaErrorCode::TopicAlreadyExists));
    assert_eq!(make("bad name", 1, 1), Err(RDKafkaErrorCode::InvalidTopic));
    assert_eq!(make("three", 1, 3), Err(RDKafkaErrorCode::InvalidReplicationFactor));
    let grow = |count| {
        let new = NewPartitions::new("t", count);
        let grown = rig.runtime.block_on(admin.create_partitions(&[new], &options)).unwrap();
        grown[0].clone().map_err(|(_, code)| code)
    };
    assert_eq!(grow(5), Ok("t".to_owned()));
    assert_eq!(grow(3), Err(RDKafkaErrorCode::InvalidPartitions));
    assert_eq!(partitions(&rig, "t"), 5);
    let delete = |name: &str| {
        let gone = rig.runtime.block_on(admin.delete_topics(&[name], &options)).unwrap();
        gone[0].clone().map_err(|(_, code)| code)
    };
    rig.create("gone", 1, &[]);
    assert_eq!(delete("gone"), Ok("gone".to_owned()));
    assert_eq!(delete("gone"), Err(RDKafkaErrorCode::UnknownTopicOrPartition));
    rig.restart();
    assert_eq!(partitions(&rig, "t"), 5);
    assert_eq!(partitions(&rig, "gone"), 0);
    let left = std::fs::read_dir(rig.data().join("topics")).unwrap().count();
    assert_eq!(left, 5, "folders of the deleted topic are gone");
}

/// By hand, since rust-rdkafka doesn't look at what became of each resource.
fn alter(rig: &Rig, name: &str, value: &str) -> i16 {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_string(name.to_owned()))
        .with_value(Some(StrBytes::from_string(value.to_owned())));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("t"))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    rig.ask(1, &request).responses[0].error_code
}

fn change(rig: &Rig, operation: i8, name: &str, value: Option<&str>) -> i16 {
    let config = incremental::AlterableConfig::default()
        .with_name(StrBytes::from_string(name.to_owned()))
        .with_config_operation(operation)
        .with_value(value.map(|value| StrBytes::from_string(value.to_owned())));
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("t"))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    rig.ask(1, &request).responses[0].error_code
}

#[test]
fn single_configurations_are_set_deleted_and_extended() {
    let rig = Rig::new();
    rig.create("t", 1, &[("retention.ms", "5"), ("segment.ms", "6")]);
    let (set, delete, append, subtract) = (0, 1, 2, 3);
    assert_eq!(change(&rig, set, "retention.ms", Some("7")), 0);
    assert_eq!(change(&rig, delete, "segment.ms", None), 0);
    assert_eq!(change(&rig, append, "cleanup.policy", Some("compact")), 0);
    let config = described(&rig, "t");
    assert_eq!(config["retention.ms"], (Some("7".into()), ConfigSource::DynamicTopic));
    assert_eq!(config["segment.ms"].1, ConfigSource::Default);
    assert_eq!(config["cleanup.policy"].0.as_deref(), Some("delete,compact"));
    assert_eq!(change(&rig, subtract, "cleanup.policy", Some("delete")), 0);
    assert_eq!(described(&rig, "t")["cleanup.policy"].0.as_deref(), Some("compact"));
    let invalid = ResponseError::InvalidConfig.code();
    assert_eq!(change(&rig, append, "retention.ms", Some("7")), invalid);
    assert_eq!(change(&rig, set, "no.such.thing", Some("7")), invalid);
    assert_eq!(change(&rig, subtract, "cleanup.policy", Some("compact")), invalid, "none is left");
}

#[test]
fn known_configurations_are_kept_and_described_and_others_refused() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[("retention.ms", "1234567"), ("min.insync.replicas", "2")]);
    let config = described(&rig, "t");
    assert_eq!(config["retention.ms"], (Some("1234567".into()), ConfigSource::DynamicTopic));
    assert_eq!(config["min.insync.replicas"].0.as_deref(), Some("2"));
    assert_eq!(config["cleanup.policy"], (Some("delete".into()), ConfigSource::Default));
    let invalid = ResponseError::InvalidConfig.code();
    assert_eq!(alter(&rig, "no.such.thing", "1"), invalid);
    assert_eq!(alter(&rig, "retention.ms", "soon"), invalid);
    assert_eq!(alter(&rig, "cleanup.policy", "burn"), invalid);
    assert_eq!(alter(&rig, "cleanup.policy", "compact,delete"), 0);
    rig.restart();
    let config = described(&rig, "t");
    assert_eq!(config["cleanup.policy"].0.as_deref(), Some("compact,delete"));
    assert_eq!(config["retention.ms"].1, ConfigSource::Default, "the full call replaces all");
    let new = NewTopic::new("u", 1, TopicReplication::Fixed(1)).set("no.such.thing", "1");
    let admin = rig.admin();
    let made = rig.runtime.block_on(admin.create_topics(&[new], &AdminOptions::new())).unwrap();
    assert_eq!(made[0].as_ref().unwrap_err().1, RDKafkaErrorCode::InvalidConfig);
    assert_eq!(partitions(&rig, "u"), 0);
}
