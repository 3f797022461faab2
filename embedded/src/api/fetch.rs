//! Fetch: batches straight from the segment files into the answer.
//!
//! The answer is encoded here by hand, since the protocol crate would copy the records twice more.
//! There are no fetch sessions: each request names all its partitions, as the session id 0 says.

use std::{os::unix::fs::FileExt, sync::Arc, time::Duration};

use bytes::{BufMut, BytesMut};
use kafka_protocol::{
    ResponseError,
    messages::{
        FetchRequest,
        fetch_request::{FetchPartition, FetchTopic},
    },
};
use tokio::{sync::Notify, time::Instant};

use crate::{
    api,
    broker::Node,
    connection::{Call, Closed},
    log::{Bounds, Partition, Slice},
};

/// The most that one answer carries, whatever the client allows.
const ANSWER_BYTES: usize = 64 << 20;
/// The longest wait for records.
const WAIT: Duration = Duration::from_mins(1);

type Found = Result<Arc<Partition>, ResponseError>;

/// Answers when there are `min_bytes`, an error, or the time is over.
pub(super) async fn answer(node: &Node, call: &Call, out: &mut BytesMut) -> Result<(), Closed> {
    let request: FetchRequest = api::decode(call)?;
    let waiter = Arc::new(Notify::new());
    let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64).min(WAIT);
    let until = Instant::now() + wait;
    loop {
        // Looked up each time: a topic may have been deleted while this waited.
        let found: Vec<Vec<Found>> =
            request.topics.iter().map(|topic| find(node, topic, call.version)).collect();
        // Watched first, so that what comes while the answer is made wakes the next wait.
        for partition in found.iter().flatten().flatten() {
            partition.watch(&waiter);
        }
        let start = out.len();
        api::head(call, out)?;
        let mut answer = Answer { out, version: call.version, bytes: 0, urgent: false };
        answer.body(&request, &found);
        let enough = answer.urgent || answer.bytes >= request.min_bytes.max(0) as usize;
        if enough || Instant::now() >= until {
            return Ok(());
        }
        out.truncate(start);
        // A time-out shows at the next look at the clock.
        let _timeout = tokio::time::timeout_at(until, waiter.notified()).await;
    }
}

fn find(node: &Node, topic: &FetchTopic, version: i16) -> Vec<Found> {
    let (found, missing) = if version >= 13 {
        (node.topics.by_id(topic.topic_id), ResponseError::UnknownTopicId)
    } else {
        (node.topics.by_name(&topic.topic), ResponseError::UnknownTopicOrPartition)
    };
    let partition = |wanted: &FetchPartition| {
        let topic = found.as_ref().ok_or(missing)?;
        topic.partition(wanted.partition).ok_or(ResponseError::UnknownTopicOrPartition)
    };
    topic.partitions.iter().map(partition).collect()
}

struct Answer<'a> {
    out: &'a mut BytesMut,
    version: i16,
    /// Record bytes so far.
    bytes: usize,
    /// Whether to answer at once: an error has to be told.
    urgent: bool,
}

impl Answer<'_> {
    fn body(&mut self, request: &FetchRequest, found: &[Vec<Found>]) {
        self.out.put_i32(0);
        if self.version >= 7 {
            self.out.put_i16(0);
            self.out.put_i32(0);
        }
        self.length(request.topics.len());
        let limit = (request.max_bytes.max(0) as usize).min(ANSWER_BYTES);
        for (topic, found) in request.topics.iter().zip(found) {
            if self.version >= 13 {
                self.out.put_slice(topic.topic_id.as_bytes());
            } else {
                if self.version >= 12 {
                    self.length(topic.topic.len());
                } else {
                    self.out.put_i16(topic.topic.len() as i16);
                }
                self.out.put_slice(topic.topic.as_bytes());
            }
            self.length(topic.partitions.len());
            for (wanted, found) in topic.partitions.iter().zip(found) {
                let max = (wanted.partition_max_bytes.max(0) as usize)
                    .min(limit.saturating_sub(self.bytes));
                self.partition(wanted, found, max);
            }
            self.no_tags();
        }
        self.no_tags();
    }

    /// One partition; at least a batch, however large, if it is the answer's first.
    fn partition(&mut self, wanted: &FetchPartition, found: &Found, max: usize) {
        let start = self.out.len();
        let served = found.as_ref().map_err(|error| *error).and_then(|partition| {
            let bounds = partition.bounds();
            fenced(wanted.current_leader_epoch, bounds)?;
            let slice = partition.slice(wanted.fetch_offset, max, self.bytes == 0)?;
            self.meta(wanted.partition, None, Some(bounds));
            self.records(slice)
        });
        if let Err(error) = served {
            self.out.truncate(start);
            let bounds = found.as_ref().ok().map(|partition| partition.bounds());
            self.meta(wanted.partition, Some(error), bounds);
            self.length(0);
            self.urgent = true;
        }
        self.no_tags();
    }

    fn meta(&mut self, index: i32, error: Option<ResponseError>, bounds: Option<Bounds>) {
        let high = bounds.map_or(-1, |bounds| bounds.high);
        self.out.put_i32(index);
        self.out.put_i16(error.map_or(0, |error| error.code()));
        self.out.put_i64(high);
        self.out.put_i64(high);
        if self.version >= 5 {
            self.out.put_i64(bounds.map_or(-1, |bounds| bounds.start));
        }
        // Aborted transactions: an empty list.
        self.length(0);
        if self.version >= 11 {
            self.out.put_i32(-1);
        }
    }

    fn records(&mut self, slice: Option<Slice>) -> Result<(), ResponseError> {
        let bytes = slice.as_ref().map_or(0, |slice| slice.bytes);
        self.length(bytes);
        if let Some(slice) = slice {
            let start = self.out.len();
            self.out.resize(start + bytes, 0);
            // From the page cache as a rule: what is read was just written.
            let read = slice.file.read_exact_at(&mut self.out[start..], slice.position);
            read.map_err(|error| {
                tracing::error!(%error, "cannot read a log segment");
                ResponseError::KafkaStorageError
            })?;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// The length of an array, string or byte field.
    fn length(&mut self, length: usize) {
        if self.version < 12 {
            return self.out.put_i32(length as i32);
        }
        let mut rest = length + 1;
        while rest > 0x7f {
            self.out.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.out.put_u8(rest as u8);
    }

    fn no_tags(&mut self) {
        if self.version >= 12 {
            self.out.put_u8(0);
        }
    }
}

/// Refuses a client whose view of the leader is outdated, or ahead of this broker's.
pub(super) fn fenced(epoch: i32, bounds: Bounds) -> Result<(), ResponseError> {
    match epoch {
        -1 => Ok(()),
        _ if epoch < bounds.epoch => Err(ResponseError::FencedLeaderEpoch),
        _ if epoch > bounds.epoch => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
