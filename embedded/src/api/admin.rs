//! Requests that change topics.

use std::collections::BTreeMap;

use kafka_protocol::{
    ResponseError,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest,
        CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
        DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        alter_configs_response::AlterConfigsResourceResponse,
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_request::CreatableTopic,
        create_topics_response::CreatableTopicResult,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
        delete_topics_request::DeleteTopicState,
        delete_topics_response::DeletableTopicResult,
        incremental_alter_configs_request::AlterableConfig,
        incremental_alter_configs_response as incremental,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use crate::{
    api::{describe, text},
    broker::Node,
    configs,
    topics::Refusal,
};

type Set = BTreeMap<String, String>;

fn parts<T>(outcome: &Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(_) => (0, None),
        Err((error, words)) => (error.code(), Some(text(words))),
    }
}

pub(super) fn create_topics(
    node: &Node,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let results = request.topics.into_iter().map(|topic| {
        let outcome = create(node, &topic, request.validate_only);
        let (code, words) = parts(&outcome);
        let result = CreatableTopicResult::default()
            .with_name(topic.name)
            .with_error_code(code)
            .with_error_message(words);
        match outcome {
            Ok((id, partitions)) if version >= 5 => result
                .with_topic_id(if version >= 7 { id } else { Uuid::nil() })
                .with_num_partitions(partitions as i32)
                .with_replication_factor(1),
            _ => result,
        }
    });
    CreateTopicsResponse::default().with_topics(results.collect())
}

fn create(node: &Node, topic: &CreatableTopic, only_check: bool) -> Result<(Uuid, usize), Refusal> {
    if !matches!(topic.replication_factor, -1 | 1) {
        let words = format!("this is one node; replication factor {}", topic.replication_factor);
        return Err((ResponseError::InvalidReplicationFactor, words));
    }
    if topic.assignments.iter().any(|assignment| assignment.broker_ids != [super::NODE]) {
        let words = "replicas can be assigned to node 1 only".to_owned();
        return Err((ResponseError::InvalidReplicaAssignment, words));
    }
    let partitions = match topic.assignments.len() {
        0 => topic.num_partitions,
        assigned => assigned as i32,
    };
    let mut set = Set::new();
    for config in &topic.configs {
        if let Some(value) = &config.value {
            set.insert(config.name.to_string(), value.to_string());
        }
    }
    node.topics.create(&topic.name, partitions, set, only_check)
}

pub(super) fn delete_topics(
    node: &Node,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let named = |name| DeleteTopicState::default().with_name(Some(name));
    let wanted = request.topics.into_iter().chain(request.topic_names.into_iter().map(named));
    let results: Vec<_> = wanted.map(|topic| delete(node, topic, version)).collect();
    node.offsets.prune(|id| node.topics.by_id(id).is_some());
    DeleteTopicsResponse::default().with_responses(results)
}

fn delete(node: &Node, wanted: DeleteTopicState, version: i16) -> DeletableTopicResult {
    let (topic, missing) = match &wanted.name {
        Some(name) => (node.topics.by_name(name), ResponseError::UnknownTopicOrPartition),
        None => (node.topics.by_id(wanted.topic_id), ResponseError::UnknownTopicId),
    };
    let id = topic.as_ref().map_or(wanted.topic_id, |topic| topic.id);
    let name = topic.as_ref().map(|topic| text(&topic.name).into()).or(wanted.name);
    let outcome = match topic {
        Some(topic) => node.topics.delete(&topic),
        None => Err((missing, "no such topic".to_owned())),
    };
    let (code, words) = parts(&outcome);
    DeletableTopicResult::default()
        .with_name(name)
        .with_topic_id(if version >= 6 { id } else { Uuid::nil() })
        .with_error_code(code)
        .with_error_message(words.filter(|_| version >= 5))
}

pub(super) fn create_partitions(
    node: &Node,
    request: CreatePartitionsRequest,
    _version: i16,
) -> CreatePartitionsResponse {
    let results = request.topics.into_iter().map(|wanted| {
        let topic = describe::topic_of(node, &wanted.name);
        let outcome =
            topic.and_then(|topic| node.topics.grow(&topic, wanted.count, request.validate_only));
        let (code, words) = parts(&outcome);
        CreatePartitionsTopicResult::default()
            .with_name(wanted.name)
            .with_error_code(code)
            .with_error_message(words)
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

pub(super) fn delete_records(
    node: &Node,
    request: DeleteRecordsRequest,
    _version: i16,
) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|wanted| {
        let topic = node.topics.by_name(&wanted.name);
        let partitions = wanted.partitions.iter().map(|wanted| {
            let partition = topic.as_ref().and_then(|t| t.partition(wanted.partition_index));
            let outcome = partition
                .ok_or(ResponseError::UnknownTopicOrPartition)
                .and_then(|partition| partition.delete_below(wanted.offset));
            DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(super::code(&outcome))
                .with_low_watermark(outcome.unwrap_or(-1))
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(wanted.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// Replaces all configurations of a resource.
pub(super) fn alter_configs(
    node: &Node,
    request: AlterConfigsRequest,
    _version: i16,
) -> AlterConfigsResponse {
    let responses = request.resources.into_iter().map(|resource| {
        let outcome = configure(
            node,
            (resource.resource_type, &resource.resource_name),
            request.validate_only,
            |set| {
                set.clear();
                for config in &resource.configs {
                    if let Some(value) = &config.value {
                        set.insert(config.name.to_string(), value.to_string());
                    }
                }
                Ok(())
            },
        );
        let (code, words) = parts(&outcome);
        AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_code(code)
            .with_error_message(words)
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

/// Changes single configurations of a resource.
pub(super) fn change_configs(
    node: &Node,
    request: IncrementalAlterConfigsRequest,
    _version: i16,
) -> IncrementalAlterConfigsResponse {
    let responses = request.resources.into_iter().map(|resource| {
        let outcome = configure(
            node,
            (resource.resource_type, &resource.resource_name),
            request.validate_only,
            |set| resource.configs.iter().try_for_each(|config| change(set, config)),
        );
        let (code, words) = parts(&outcome);
        incremental::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_code(code)
            .with_error_message(words)
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn configure(
    node: &Node,
    (kind, name): (i8, &str),
    only_check: bool,
    change: impl FnOnce(&mut Set) -> Result<(), String>,
) -> Result<(), Refusal> {
    if kind != describe::TOPIC {
        let words = "only configurations of topics can be changed here".to_owned();
        return Err((ResponseError::InvalidRequest, words));
    }
    let topic = describe::topic_of(node, name)?;
    node.topics.configure(&topic, change, only_check)
}

/// One incremental change: 0 set, 1 delete, 2 append to a list, 3 take from a list.
fn change(set: &mut Set, config: &AlterableConfig) -> Result<(), String> {
    let known = configs::find(&config.name)?;
    let value = config.value.as_ref().map(ToString::to_string);
    let name = known.name.to_owned();
    match (config.config_operation, value) {
        (0, Some(value)) => {
            set.insert(name, value);
        }
        (1, _) => {
            set.remove(&name);
        }
        (operation @ 2..=3, Some(value)) if known.is_list() => {
            let present = set.get(&name).cloned().unwrap_or_else(|| known.default(0));
            let mut items: Vec<&str> = present.split(',').filter(|item| !item.is_empty()).collect();
            items.retain(|item| !value.split(',').any(|other| other == *item));
            if operation == 2 {
                items.extend(value.split(','));
            }
            set.insert(name, items.join(","));
        }
        (operation, _) => {
            return Err(format!("operation {operation} doesn't suit {name:?}, or lacks a value"));
        }
    }
    Ok(())
}
