//! A safe, narrow face of librdkafka: what a stream job, a dead-letter writer and a bootstrap need
//! of Kafka.
//!
//! - [`Consumer`]: one member of a consumer group. Start positions come from the caller, rebalances
//!   are [`Event`]s that the caller answers in its own time, and records are read in batches from
//!   each partition's own queue, borrowed from librdkafka's buffers.
//! - [`Reader`]: reads partitions from a given offset, without any group.
//! - [`Producer`]: idempotent, `acks=all`, non-blocking, with an acknowledgement for every message.
//! - [`Admin`]: topics, their ids and configurations, offsets, access rules, and whether the cluster can be
//!   reached.
//!
//! Everything here is synchronous; nothing needs an async runtime.
//!
//! **Invariant:** this is the only crate of the project that uses `unsafe`, all of it in the module
//! `native`, and each block says why it is sound.
//! **Invariant:** the group's committed offset never decides where reading starts, and nothing is
//! committed that the caller didn't commit: the properties that would change this are refused by
//! name ([`Connection`]).

mod admin;
mod advice;
mod connection;
mod consumer;
mod error;
mod native;
mod producer;
mod reader;
mod receipts;
mod record;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use admin::{
    Acl, Admin, Isolation, NewTopic, Operation, Outcome, Resource, Spot, TopicIdentity,
};
pub use advice::Purpose;
pub use connection::{Connection, Limits, is_secret};
pub use consumer::{Consumer, Event, Fetched, Wait};
pub use error::Error;
pub use native::{bound_arenas, give_way};
pub use producer::{Outgoing, Placed, Producer};
pub use reader::{Reader, Reading, Unread};
pub use receipts::Receipts;
pub use record::{Headers, Record, TimeKind, TopicPartition};
