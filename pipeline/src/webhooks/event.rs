//! A record on its way: copied once out of Kafka's buffers and shared by all endpoints that get it.

use std::sync::{Arc, OnceLock};

use aion_kafka::Record;
use aion_schemas::log::{Stream, Timestamp};
use bytes::Bytes;
use ring::digest;
use tokio::sync::OnceCell;

use super::wire::Place;

/// A record, and the body that its deliveries have.
#[derive(Debug)]
pub struct Event {
    /// The topic, by name and id.
    pub stream: Stream,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When it was appended.
    pub time: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// The body, once somebody has made it.
    pub body: OnceCell<Bytes>,
    /// Its id, likewise.
    pub id: OnceLock<Box<str>>,
}

impl Event {
    /// Copies a record.
    pub fn of(stream: &Stream, partition: i32, record: &Record<'_>) -> Event {
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        // One allocation for both.
        let mut both = Vec::with_capacity(key.len() + value.len());
        both.extend_from_slice(key);
        both.extend_from_slice(value);
        let both = Bytes::from(both);
        Event {
            stream: stream.clone(),
            partition,
            offset: record.offset.get(),
            time: record.append_time,
            key: record.key.map(|key| both.slice(..key.len())),
            value: record.value.map(|_| both.slice(key.len()..)),
            body: OnceCell::new(),
            id: OnceLock::new(),
        }
    }

    /// What the event's id is made of.
    pub fn place(&self) -> Place {
        Place { topic_id: self.stream.id, partition: self.partition, offset: self.offset }
    }

    /// Its id, for whoever gets it, however often.
    pub fn id(&self) -> &str {
        self.id.get_or_init(|| self.place().event_id().into())
    }

    /// What it takes in memory, about; the body comes to as much again.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        2 * (length(&self.key) + length(&self.value)) + 512
    }

    /// What orders it: a hash of its key that stays the same over time. Records without a key have one in
    /// common, as they have a partition.
    pub fn key_hash(&self) -> u64 {
        let hash = digest::digest(&digest::SHA256, self.key.as_deref().unwrap_or_default());
        hash.as_ref()[..8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }
}

/// Records of one partition in the order of their offsets.
pub type Events = Vec<Arc<Event>>;
