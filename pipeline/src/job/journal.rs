//! Where the job writes down what it could not store: dead letters and gaps, in topics of their own.
//!
//! **Invariant:** what is written here is acknowledged before any mark passes the offsets that it speaks
//! of. It may be written twice (the job died in between), never not at all; the key says which are one.

use aion_schemas::catalog;
use async_trait::async_trait;
use bytes::Bytes;

/// The internal topics that a job writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ledger {
    /// `aion.dead-letters`: records that can't become rows.
    DeadLetters,
    /// `aion.gaps`: offsets that can't be had any more.
    Gaps,
}

impl Ledger {
    /// The topic's name.
    pub const fn topic(self) -> &'static str {
        match self {
            Ledger::DeadLetters => catalog::DEAD_LETTERS,
            Ledger::Gaps => catalog::GAPS,
        }
    }
}

/// One record for an internal topic.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which topic.
    pub ledger: Ledger,
    /// Tells this from all other entries, and is the same when it is written again.
    pub key: String,
    /// The record's value.
    pub value: Option<Bytes>,
    /// The record's headers.
    pub headers: Vec<(&'static str, Bytes)>,
}

/// Writes entries down.
#[async_trait]
pub trait Journal: Send {
    /// Returns once all entries are acknowledged by all in-sync replicas. After an error some may be
    /// there already; the job writes all of them again.
    async fn record(&mut self, entries: &[Entry]) -> Result<(), NotAcknowledged>;
}

/// The journal can't be written now; the partition waits and tries again.
#[derive(Debug, thiserror::Error)]
#[error("write to {topic}: {cause}")]
pub struct NotAcknowledged {
    /// The topic.
    pub topic: &'static str,
    /// Why.
    pub cause: String,
}
