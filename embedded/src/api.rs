//! Which requests are served in which versions, and by whom.
//!
//! **Invariant:** every version announced here is answered in that version's own shape: a field
//! that it lacks is left at its default, since the encoder refuses it otherwise.

mod admin;
mod describe;
mod fetch;
mod groups;
mod offsets;
pub(crate) mod produce;

use std::{ops::RangeInclusive, sync::Arc};

use bytes::BytesMut;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, ApiVersionsResponse, BrokerId, InitProducerIdRequest, InitProducerIdResponse,
        ProducerId, ResponseHeader, api_versions_response::ApiVersion,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::{
    broker::Node,
    connection::{Call, Closed, garbled},
};

/// The only node's id.
pub(crate) const NODE: BrokerId = BrokerId(1);

/// Served requests and their versions.
const SERVED: &[(ApiKey, RangeInclusive<i16>)] = &[
    (ApiKey::Produce, 3..=13),
    (ApiKey::Fetch, 4..=16),
    (ApiKey::ListOffsets, 1..=7),
    (ApiKey::Metadata, 0..=12),
    (ApiKey::OffsetCommit, 2..=8),
    (ApiKey::OffsetFetch, 1..=8),
    (ApiKey::FindCoordinator, 0..=4),
    (ApiKey::JoinGroup, 0..=9),
    (ApiKey::Heartbeat, 0..=4),
    (ApiKey::LeaveGroup, 0..=5),
    (ApiKey::SyncGroup, 0..=5),
    (ApiKey::DescribeGroups, 0..=5),
    (ApiKey::ListGroups, 0..=4),
    (ApiKey::ApiVersions, 0..=3),
    (ApiKey::CreateTopics, 2..=7),
    (ApiKey::DeleteTopics, 1..=6),
    (ApiKey::DeleteRecords, 0..=2),
    (ApiKey::InitProducerId, 0..=4),
    (ApiKey::OffsetForLeaderEpoch, 2..=4),
    (ApiKey::DescribeConfigs, 1..=4),
    (ApiKey::AlterConfigs, 0..=2),
    (ApiKey::CreatePartitions, 0..=3),
    (ApiKey::DeleteGroups, 0..=2),
    (ApiKey::IncrementalAlterConfigs, 0..=1),
    (ApiKey::DescribeCluster, 0..=1),
];

/// The versions of a request that are served.
pub(crate) fn range(key: ApiKey) -> Option<&'static RangeInclusive<i16>> {
    SERVED.iter().find(|(served, _)| *served == key).map(|(_, range)| range)
}

/// A protocol string from text.
pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// The code of an outcome.
pub(crate) fn code<T>(outcome: &Result<T, ResponseError>) -> i16 {
    outcome.as_ref().err().map_or(0, ResponseError::code)
}

/// Reads a request's body.
pub(crate) fn decode<T: Decodable>(call: &Call) -> Result<T, Closed> {
    let mut body = call.body.clone();
    T::decode(&mut body, call.version).map_err(|error| garbled(call.key, call.version, &error))
}

/// Writes the header of an answer.
pub(crate) fn head(call: &Call, out: &mut BytesMut) -> Result<(), Closed> {
    let header = ResponseHeader::default().with_correlation_id(call.correlation);
    let version = call.key.response_header_version(call.version);
    header.encode(out, version).map_err(|error| unwritable(call, &error))
}

/// Writes an answer.
pub(crate) fn encode(
    call: &Call,
    answer: &impl Encodable,
    out: &mut BytesMut,
) -> Result<(), Closed> {
    head(call, out)?;
    answer.encode(out, call.version).map_err(|error| unwritable(call, &error))
}

fn unwritable(call: &Call, error: &impl std::fmt::Display) -> Closed {
    let (key, version) = (call.key, call.version);
    Closed::Unwritable { key, version, reason: error.to_string() }
}

/// Serves one request.
pub(crate) async fn answer(
    node: &Arc<Node>,
    call: &Call,
    out: &mut BytesMut,
) -> Result<(), Closed> {
    let version = call.version;
    match call.key {
        ApiKey::ApiVersions => versions(call, out),
        ApiKey::Metadata => encode(call, &describe::metadata(node, &decode(call)?, version), out),
        ApiKey::DescribeCluster => encode(call, &describe::cluster(node, version), out),
        ApiKey::DescribeConfigs => {
            encode(call, &describe::configs(node, &decode(call)?, version), out)
        }
        ApiKey::Fetch => fetch::answer(node, call, out).await,
        ApiKey::ListOffsets => encode(call, &offsets::list(node, &decode(call)?, version), out),
        ApiKey::OffsetForLeaderEpoch => {
            encode(call, &offsets::epoch_ends(node, &decode(call)?), out)
        }
        ApiKey::InitProducerId => encode(call, &producer_id(&decode(call)?), out),
        ApiKey::FindCoordinator => {
            encode(call, &groups::coordinator(node, &decode(call)?, version), out)
        }
        ApiKey::JoinGroup => encode(call, &groups::join(node, decode(call)?, call).await, out),
        ApiKey::SyncGroup => encode(call, &groups::sync(node, decode(call)?, version).await, out),
        ApiKey::Heartbeat => encode(call, &groups::heartbeat(node, &decode(call)?), out),
        ApiKey::LeaveGroup => encode(call, &groups::leave(node, &decode(call)?, version), out),
        ApiKey::ListGroups => encode(call, &groups::list(node, &decode(call)?, version), out),
        ApiKey::DescribeGroups => {
            encode(call, &groups::describe(node, &decode(call)?, version), out)
        }
        ApiKey::DeleteGroups => encode(call, &groups::delete(node, &decode(call)?).await, out),
        ApiKey::OffsetCommit => encode(call, &offsets::commit(node, &decode(call)?).await, out),
        ApiKey::OffsetFetch => {
            encode(call, &offsets::committed(node, &decode(call)?, version), out)
        }
        _ => change(node, call, out).await,
    }
}

/// Serves a request that changes topics: these wait for the disk, away from the other connections.
async fn change(node: &Arc<Node>, call: &Call, out: &mut BytesMut) -> Result<(), Closed> {
    macro_rules! apart {
        ($work:path) => {{
            let (node, request, version) = (Arc::clone(node), decode(call)?, call.version);
            let done = spawn_blocking(move || $work(&node, request, version)).await;
            encode(call, &done.map_err(|error| unwritable(call, &error))?, out)
        }};
    }
    match call.key {
        ApiKey::CreateTopics => apart!(admin::create_topics),
        ApiKey::DeleteTopics => apart!(admin::delete_topics),
        ApiKey::CreatePartitions => apart!(admin::create_partitions),
        ApiKey::DeleteRecords => apart!(admin::delete_records),
        ApiKey::AlterConfigs => apart!(admin::alter_configs),
        ApiKey::IncrementalAlterConfigs => apart!(admin::change_configs),
        key => Err(Closed::Unsupported { key: key as i16, version: call.version }),
    }
}

/// What is served. Produce is announced from version 0, although 0 to 2 are refused: librdkafka
/// takes a broker without them for one that can't compress.
fn versions(call: &Call, out: &mut BytesMut) -> Result<(), Closed> {
    let apis = SERVED.iter().map(|(key, range)| {
        let least = if *key == ApiKey::Produce { 0 } else { *range.start() };
        ApiVersion::default()
            .with_api_key(*key as i16)
            .with_min_version(least)
            .with_max_version(*range.end())
    });
    let answer = ApiVersionsResponse::default().with_api_keys(apis.collect());
    if range(call.key).is_some_and(|range| range.contains(&call.version)) {
        return encode(call, &answer, out);
    }
    // By KIP-511 the answer to a version that is too new has the shape of version 0.
    let answer = answer.with_error_code(ResponseError::UnsupportedVersion.code());
    let call = Call { version: 0, client: call.client.clone(), body: call.body.clone(), ..*call };
    encode(&call, &answer, out)
}

/// Gives an idempotent producer its id: random, so none is ever given twice, whatever was lost.
fn producer_id(request: &InitProducerIdRequest) -> InitProducerIdResponse {
    if request.transactional_id.is_some() {
        let refused = ResponseError::TransactionalIdAuthorizationFailed;
        return InitProducerIdResponse::default()
            .with_error_code(refused.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
    }
    let id = (Uuid::new_v4().as_u128() >> 65) as i64;
    InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0)
}
