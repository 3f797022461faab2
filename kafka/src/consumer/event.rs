//! What happens to a consumer, and what a fetch returns.

use std::time::Duration;

use aion_schemas::log::Offset;
use rdkafka::bindings as rd;

use super::Consumer;
use crate::{Error, TopicPartition, native};

/// What [`Consumer::poll`](crate::Consumer::poll) reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The group gave these partitions to this member: `start` each, or `release` it to leave it
    /// unread.
    Assigned(Vec<TopicPartition>),
    /// The group takes these partitions back: flush and commit, then `release` them. Until then
    /// they stay this member's, and nobody else reads them.
    Revoked(Vec<TopicPartition>),
    /// These partitions are gone (session over, fenced): others may read them already; or their
    /// topic is. Drop what is buffered, commit nothing, `release` them.
    Lost(Vec<TopicPartition>),
    /// The wanted offset isn't in the partition's log: removed by retention, or past its end. The
    /// partition is stopped until a `seek`.
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset that was wanted.
        wanted: Option<Offset>,
    },
    /// The log below the wanted offset isn't the one that was read: leader epochs tell that it was
    /// cut and written anew. Behind a hole it takes a record below that offset to tell. The partition
    /// is stopped until a `seek`.
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// The offset that was wanted.
        wanted: Offset,
        /// Where the common part of both logs ends, if the broker said so: rows from here on are
        /// diverged.
        end: Option<Offset>,
        /// librdkafka's sentence.
        detail: String,
    },
    /// Something failed. Unless the error is fatal, librdkafka goes on trying; with
    /// [`Error::Authentication`] and [`Error::Forbidden`] it does so in vain.
    Failed(Error),
    /// A commit without waiting failed.
    CommitFailed {
        /// Its partitions.
        partitions: Vec<TopicPartition>,
        /// The reason.
        error: Error,
    },
}

/// What [`Consumer::fetch`](crate::Consumer::fetch) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Records handed over.
    pub count: usize,
    /// The next wanted offset: everything below it (from the start position) was handed over or has
    /// no record, such as transaction markers, aborted transactions and what compaction removed.
    pub next: Offset,
    /// The end of the partition (last stable offset), if it was reached in this fetch.
    pub end: Option<Offset>,
}

impl Consumer {
    /// Takes what waits in the consumer's queue: serves it, and keeps what is meant for the caller.
    pub(super) fn take_events(&mut self) {
        while let Some(native) = self.queue.poll(Duration::ZERO) {
            let event = match native.kind() {
                rd::RD_KAFKA_EVENT_REBALANCE => self.rebalancing(&native),
                rd::RD_KAFKA_EVENT_OFFSET_COMMIT => self.commit_result(&native),
                rd::RD_KAFKA_EVENT_ERROR => Some(self.failure(&native)),
                rd::RD_KAFKA_EVENT_FETCH => Some(self.stray_records()),
                _ => None,
            };
            self.events.extend(event);
        }
    }

    fn commit_result(&self, native: &native::Event) -> Option<Event> {
        let entries = native.partitions();
        let failed = entries.iter().find(|entry| entry.failed()).map(|entry| entry.code);
        let code = if native.code() == 0 { failed? } else { native.code() };
        let doing = format!("commit offsets of group {}", self.group());
        let partitions = entries.into_iter().map(|entry| entry.partition).collect();
        Some(Event::CommitFailed { partitions, error: Error::of(code, doing, "") })
    }

    fn failure(&self, native: &native::Event) -> Event {
        let mut doing = format!("consume as group {}", self.group());
        if let Some(entry) = native.partition() {
            doing = format!("{doing} from {}", entry.partition);
        }
        let detail = native.reason();
        Event::Failed(if native.is_fatal() {
            Error::Fatal { doing, detail }
        } else {
            Error::of(native.code(), doing, detail)
        })
    }

    /// Records reach the consumer's own queue only if a partition's queue was joined to it: never,
    /// by what `Queue::partition` does. If it happens all the same, nothing may be lost: each
    /// partition goes back to its position.
    fn stray_records(&mut self) -> Event {
        for held in self.held.values_mut() {
            held.go_back();
        }
        let doing = format!("consume as group {}", self.group());
        let detail = "records came outside their partition's queue; reading them again".to_owned();
        Event::Failed(Error::Retriable { doing, detail })
    }
}
