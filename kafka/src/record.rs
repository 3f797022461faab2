//! A record as it is handed to the decoder: borrowed from librdkafka's buffer, for the length of
//! one call.

use std::{fmt, sync::Arc};

use aion_schemas::log::{Offset, Timestamp};

use crate::native;

/// A partition of a topic, by the topic's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Whose clock set a record's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeKind {
    /// The broker's, when it appended the record (`message.timestamp.type=LogAppendTime`).
    LogAppend,
    /// The producer's.
    Create,
    /// The record has no time (message format of before Kafka 0.10); it reads as 0.
    Unknown,
}

/// One record of a partition, borrowed from the batch that [`crate::Consumer::fetch`] is handing
/// over.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The record's place in the log.
    pub offset: Offset,
    /// The leader epoch it was written in; -1 where it is not known.
    pub epoch: i32,
    /// When it was appended, or created: see `time_kind`.
    pub append_time: Timestamp,
    /// Whose clock `append_time` is.
    pub time_kind: TimeKind,
    /// The headers, parsed when first iterated.
    pub headers: Headers<'a>,
}

/// The headers of a record: names and values, in the producer's order.
///
/// Nothing is parsed until the first is asked for. A name that isn't UTF-8 ends before its first
/// bad byte.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    source: Option<native::HeaderSource<'a>>,
}

impl<'a> Headers<'a> {
    /// No headers.
    pub const NONE: Headers<'static> = Headers { source: None };

    pub(crate) fn of(source: native::HeaderSource<'a>) -> Headers<'a> {
        Headers { source: Some(source) }
    }

    /// The headers, one by one.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        (0..).map_while(move |index| self.source?.get(index))
    }

    /// The value of the last header with this name: none if there is no such header, `Some(None)`
    /// if its value is null.
    pub fn get(self, name: &str) -> Option<Option<&'a [u8]>> {
        self.iter().filter(|(found, _)| *found == name).last().map(|(_, value)| value)
    }
}
