//! Produce: append at once, answer when durable.

use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::{
    ResponseError,
    messages::{
        ProduceRequest, ProduceResponse, TopicName,
        produce_request::PartitionProduceData,
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use crate::{
    api,
    broker::Node,
    connection::{Call, Closed},
    log::{Appended, Partition},
    topics::Topic,
};

/// What became of a request's batches, before they are durable.
pub(crate) struct Produced {
    acks: i16,
    topics: Vec<(TopicName, Uuid, Vec<Outcome>)>,
}

struct Outcome {
    index: i32,
    appended: Result<(Arc<Partition>, Appended), ResponseError>,
}

/// Appends a request's batches in order.
pub(crate) fn append(node: &Node, call: &Call) -> Result<Produced, Closed> {
    let request: ProduceRequest = api::decode(call)?;
    let refused = if request.transactional_id.is_some() {
        Some(ResponseError::TransactionalIdAuthorizationFailed)
    } else if !(-1..=1).contains(&request.acks) {
        Some(ResponseError::InvalidRequiredAcks)
    } else {
        None
    };
    let topics = request.topic_data.into_iter().map(|data| {
        let topic = match refused {
            Some(error) => Err(error),
            None if call.version >= 13 => {
                node.topics.by_id(data.topic_id).ok_or(ResponseError::UnknownTopicId)
            }
            None => node.topics.by_name(&data.name).ok_or(ResponseError::UnknownTopicOrPartition),
        };
        let partitions = data.partition_data.iter().map(|data| Outcome {
            index: data.index,
            appended: append_one(topic.as_deref().map_err(|error| *error), data),
        });
        (data.name, data.topic_id, partitions.collect())
    });
    Ok(Produced { acks: request.acks, topics: topics.collect() })
}

fn append_one(
    topic: Result<&Topic, ResponseError>,
    data: &PartitionProduceData,
) -> Result<(Arc<Partition>, Appended), ResponseError> {
    let topic = topic?;
    let partition = topic.partition(data.index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let records = data.records.as_ref().ok_or(ResponseError::InvalidRecord)?;
    let appended = partition.append(records, &topic.rules())?;
    Ok((partition, appended))
}

/// Waits as `acks` says, and answers; not at all with `acks=0`.
pub(crate) async fn answer(call: &Call, done: Produced, out: &mut BytesMut) -> Result<(), Closed> {
    let mut topics = Vec::with_capacity(done.topics.len());
    for (name, id, outcomes) in done.topics {
        let mut partitions = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            partitions.push(wait(outcome, done.acks, call.version).await);
        }
        let topic = TopicProduceResponse::default().with_partition_responses(partitions);
        topics.push(match call.version {
            13.. => topic.with_topic_id(id),
            _ => topic.with_name(name),
        });
    }
    if done.acks == 0 {
        return Ok(());
    }
    api::encode(call, &ProduceResponse::default().with_responses(topics), out)
}

async fn wait(outcome: Outcome, acks: i16, version: i16) -> PartitionProduceResponse {
    let done = match outcome.appended {
        Ok((partition, appended)) if acks == -1 => {
            partition.durable(appended.next).await.map(|()| appended)
        }
        done => done.map(|(_, appended)| appended),
    };
    let answer = PartitionProduceResponse::default().with_index(outcome.index);
    match done {
        Ok(appended) => answer
            .with_base_offset(appended.base)
            .with_log_append_time_ms(appended.append_time)
            .with_log_start_offset(if version >= 5 { appended.start } else { -1 }),
        Err(error) => {
            let words = (version >= 8).then(|| StrBytes::from_string(error.to_string()));
            answer.with_error_code(error.code()).with_base_offset(-1).with_error_message(words)
        }
    }
}
