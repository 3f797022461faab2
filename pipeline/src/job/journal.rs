//! Where the job writes down what it could not store: dead letters and gaps, in topics of their own.
//!
//! **Invariant:** what is written here is acknowledged before any mark passes the offsets that it speaks
//! of. It may be written twice (the job died in between), never not at all; the key says which are one.

use aion_schemas::catalog;
use bytes::Bytes;
use futures::future::BoxFuture;

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

/// What is kept of a value, and of a header, that the topic doesn't take whole.
const KEPT_BYTES: usize = 256 << 10;

/// How the word on it ends.
const SHORTENED: &str = "bytes, which the topic doesn't take";

/// Whether an entry with this detail has only the beginning of its record.
pub fn is_shortened(detail: &str) -> bool {
    detail.ends_with(SHORTENED)
}

impl Entry {
    /// The same entry with the beginning of what is long, and a word on it: for one that is greater
    /// than its topic takes. Otherwise it would hold up its partition for ever.
    #[must_use]
    pub fn shortened(mut self) -> Entry {
        let bytes = |bytes: &Bytes| bytes.len();
        let whole = self.value.as_ref().map_or(0, bytes);
        self.value = self.value.map(|value| value.slice(..value.len().min(KEPT_BYTES)));
        for (_, header) in &mut self.headers {
            *header = header.slice(..header.len().min(KEPT_BYTES));
        }
        let note = format!("cut to {KEPT_BYTES} of {whole} {SHORTENED}");
        match self.headers.iter_mut().find(|(name, _)| *name == "detail") {
            Some((_, detail)) => {
                *detail = format!("{}; {note}", String::from_utf8_lossy(detail)).into();
            }
            None => self.headers.push(("detail", note.into())),
        }
        self
    }
}

/// The end of writing entries down, which the job waits for while it does other things.
pub type Recorded = BoxFuture<'static, Result<(), NotAcknowledged>>;

/// Writes entries down.
pub trait Journal: Send {
    /// Begins to write entries down. The result comes once every entry has been acknowledged by all
    /// in-sync replicas, or has failed: an entry without an answer is waited for, and never sent again
    /// behind its first copy. If the result is dropped, entries may have been written.
    fn record(&mut self, entries: Vec<Entry>) -> Recorded;

    /// Why answers are long in coming, as far as known.
    fn complaint(&self) -> Option<String> {
        None
    }
}

/// Entries that are not written down: they are tried again.
#[derive(Debug, thiserror::Error)]
#[error("write to {topic}: {cause}")]
pub struct NotAcknowledged {
    /// The topic.
    pub topic: &'static str,
    /// Why.
    pub cause: String,
    /// Those that failed, and no others; what was too large is shortened.
    pub entries: Vec<Entry>,
}
