//! Offsets: where logs begin and end, and where groups are.

use std::sync::Arc;

use kafka_protocol::{
    ResponseError,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse,
        OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse, TopicName,
        list_offsets_request::ListOffsetsPartition,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        offset_commit_request::OffsetCommitRequestPartition,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};

use crate::{
    api::{code, fetch::fenced, text},
    broker::Node,
    groups::Who,
    log::Partition,
    offsets::Committed,
};

/// Greatest metadata of a commit, as Kafka's `offset.metadata.max.bytes`.
const METADATA_BYTES: usize = 4_096;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const NEWEST: i64 = -3;

fn partition(node: &Node, topic: &str, index: i32) -> Result<Arc<Partition>, ResponseError> {
    let topic = node.topics.by_name(topic);
    let found = topic.and_then(|topic| topic.partition(index));
    found.ok_or(ResponseError::UnknownTopicOrPartition)
}

/// Offsets by time, or the log's first or last.
pub(super) fn list(node: &Node, request: &ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|wanted| {
        let partitions = wanted.partitions.iter().map(|asked| {
            let found = partition(node, &wanted.name, asked.partition_index)
                .and_then(|partition| seek(&partition, asked));
            let (offset, timestamp, epoch) = *found.as_ref().unwrap_or(&(-1, -1, -1));
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(code(&found))
                .with_offset(offset)
                .with_timestamp(timestamp);
            if version >= 4 { answer.with_leader_epoch(epoch) } else { answer }
        });
        ListOffsetsTopicResponse::default()
            .with_name(wanted.name.clone())
            .with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// An offset with its timestamp and leader epoch; -1 for what isn't there.
fn seek(
    partition: &Partition,
    asked: &ListOffsetsPartition,
) -> Result<(i64, i64, i32), ResponseError> {
    let bounds = partition.bounds();
    fenced(asked.current_leader_epoch, bounds)?;
    let found = match asked.timestamp {
        LATEST => Some((bounds.high, -1)),
        EARLIEST => Some((bounds.start, -1)),
        NEWEST => partition.newest()?,
        from if from >= 0 => partition.first_at(from)?,
        _ => return Err(ResponseError::UnsupportedVersion),
    };
    Ok(found.map_or((-1, -1, -1), |(offset, timestamp)| (offset, timestamp, bounds.epoch)))
}

/// Where leader epochs ended.
pub(super) fn epoch_ends(
    node: &Node,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|wanted| {
        let partitions = wanted.partitions.iter().map(|asked| {
            let found = partition(node, &wanted.topic, asked.partition).and_then(|partition| {
                fenced(asked.current_leader_epoch, partition.bounds())?;
                Ok(partition.epoch_end(asked.leader_epoch))
            });
            let (epoch, end) = *found.as_ref().unwrap_or(&(-1, -1));
            EpochEndOffset::default()
                .with_partition(asked.partition)
                .with_error_code(code(&found))
                .with_leader_epoch(epoch)
                .with_end_offset(end)
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(wanted.topic.clone())
            .with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// Commits a group's offsets, if the committer is still a member; durable when it returns.
pub(super) async fn commit(node: &Node, request: &OffsetCommitRequest) -> OffsetCommitResponse {
    let mut places = Vec::new();
    let mut codes = Vec::new();
    for topic in &request.topics {
        let id = node.topics.by_name(&topic.name);
        for asked in &topic.partitions {
            let place = id
                .as_ref()
                .filter(|topic| topic.partition(asked.partition_index).is_some())
                .ok_or(ResponseError::UnknownTopicOrPartition)
                .and_then(|topic| Ok(((topic.id, asked.partition_index), place(asked)?)));
            codes.push(code(&place));
            places.extend(place);
        }
    }
    let who = Who {
        member: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let written = node.groups.commit(&request.group_id, &who, places);
    let durable = match written {
        Ok(commit) => node.offsets.durable(commit).await,
        Err(error) => Err(error),
    };
    let mut codes = codes.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let own = codes.next().filter(|code| *code != 0);
            OffsetCommitResponsePartition::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(own.unwrap_or(code(&durable)))
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn place(asked: &OffsetCommitRequestPartition) -> Result<Committed, ResponseError> {
    let metadata = asked.committed_metadata.as_deref().unwrap_or_default().to_owned();
    if metadata.len() > METADATA_BYTES {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    let (offset, epoch) = (asked.committed_offset, asked.committed_leader_epoch);
    Ok(Committed { offset, epoch, metadata })
}

type Asked = Option<Vec<(TopicName, Vec<i32>)>>;

/// A group's committed offsets: of what is asked for, or all.
pub(super) fn committed(
    node: &Node,
    request: &OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version >= 8 {
        let groups = request.groups.iter().map(|group| {
            let asked = group.topics.as_ref().map(|topics| {
                topics.iter().map(|t| (t.name.clone(), t.partition_indexes.clone())).collect()
            });
            let topics = of_group(node, &group.group_id, asked).into_iter().map(in_group);
            OffsetFetchResponseGroup::default()
                .with_group_id(group.group_id.clone())
                .with_topics(topics.collect())
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let asked = request.topics.as_ref().map(|topics| {
        topics.iter().map(|t| (t.name.clone(), t.partition_indexes.clone())).collect()
    });
    let topics = of_group(node, &request.group_id, asked).into_iter();
    let topics = topics.map(|(name, places)| alone(name, places, version));
    OffsetFetchResponse::default().with_topics(topics.collect())
}

type Places = Vec<(i32, Option<Committed>)>;

fn of_group(node: &Node, group: &str, asked: Asked) -> Vec<(TopicName, Places)> {
    let asked = asked.unwrap_or_else(|| {
        let mut all: Vec<(TopicName, Vec<i32>)> = Vec::new();
        for (id, index) in node.offsets.places(group) {
            let Some(topic) = node.topics.by_id(id) else {
                continue;
            };
            match all.last_mut() {
                Some((name, indexes)) if name.0.as_str() == topic.name => indexes.push(index),
                _ => all.push((TopicName(text(&topic.name)), vec![index])),
            }
        }
        all
    });
    let places = asked.into_iter().map(|(name, indexes)| {
        let topic = node.topics.by_name(&name);
        let get = |index| topic.as_ref().and_then(|t| node.offsets.get(group, (t.id, index)));
        let places = indexes.into_iter().map(|index| (index, get(index))).collect();
        (name, places)
    });
    places.collect()
}

fn in_group((name, places): (TopicName, Places)) -> OffsetFetchResponseTopics {
    let partitions = places.into_iter().map(|(index, place)| {
        let answer = OffsetFetchResponsePartitions::default().with_partition_index(index);
        match place {
            Some(place) => answer
                .with_committed_offset(place.offset)
                .with_committed_leader_epoch(place.epoch)
                .with_metadata(Some(text(&place.metadata))),
            None => answer.with_committed_offset(-1).with_metadata(Some(text(""))),
        }
    });
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
}

fn alone(name: TopicName, places: Places, version: i16) -> OffsetFetchResponseTopic {
    let partitions = places.into_iter().map(|(index, place)| {
        let answer = OffsetFetchResponsePartition::default().with_partition_index(index);
        let (offset, epoch, metadata) =
            place.map_or((-1, -1, String::new()), |p| (p.offset, p.epoch, p.metadata));
        let answer = answer.with_committed_offset(offset).with_metadata(Some(text(&metadata)));
        if version >= 5 { answer.with_committed_leader_epoch(epoch) } else { answer }
    });
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
}
