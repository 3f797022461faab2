//! The journal as the loop uses it: writing down goes on while the job does other things.
//!
//! **Invariant:** an entry that has been handed to the journal is handed to it again only when it failed.
//! **Invariant:** after a failure the journal as a whole is left alone for a while, not one partition.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::{
    backoff::Backoff,
    journal::{Entry, Journal, Ledger, NotAcknowledged},
};

/// After this long without an answer people are told, and again each time.
const SLOW: Duration = Duration::from_secs(5);

/// Entries on their way to the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recording {
    /// Tells it from all others.
    pub(super) ticket: u64,
    pub(super) ledger: Ledger,
    /// How many entries.
    pub(super) count: usize,
    since: Instant,
}

/// What became of them.
pub(super) struct Outcome {
    pub(super) partition: i32,
    pub(super) ticket: u64,
    pub(super) result: Result<(), NotAcknowledged>,
}

/// A journal and what is on its way to it.
pub(super) struct Recorder<J> {
    journal: J,
    under_way: FuturesUnordered<BoxFuture<'static, Outcome>>,
    backoff: Backoff,
    last_ticket: u64,
    told: Option<Instant>,
}

impl<J: Journal> Recorder<J> {
    /// Nothing is on its way.
    pub(super) fn new(journal: J) -> Recorder<J> {
        Recorder {
            journal,
            under_way: FuturesUnordered::new(),
            backoff: Backoff::default(),
            last_ticket: 0,
            told: None,
        }
    }

    /// Begins to write entries of a partition down, and takes them; `None` when there are none, or the
    /// journal is to be left alone.
    pub(super) fn begin(
        &mut self,
        partition: i32,
        entries: &mut Vec<Entry>,
        now: Instant,
    ) -> Option<Recording> {
        let ledger = entries.first()?.ledger;
        if self.backoff.waits(now) {
            return None;
        }
        self.last_ticket += 1;
        let (ticket, count) = (self.last_ticket, entries.len());
        let recorded = self.journal.record(std::mem::take(entries));
        let outcome = async move { Outcome { partition, ticket, result: recorded.await } };
        self.under_way.push(Box::pin(outcome));
        Some(Recording { ticket, ledger, count, since: now })
    }

    /// The next outcome; waits for ever when nothing is on its way. Safe to drop while it waits.
    pub(super) async fn next(&mut self) -> Outcome {
        match self.under_way.next().await {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }

    /// Notes whether the journal works.
    pub(super) fn note(&mut self, works: bool, now: Instant) {
        if works {
            self.backoff.succeeded();
        } else if !self.backoff.waits(now) {
            // Several that fail at once are one failure.
            self.backoff.failed(now);
        }
    }

    /// What to tell people of a recording that takes long; not more often than they can read.
    pub(super) fn slow(&mut self, recording: Recording, now: Instant) -> Option<String> {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.told.is_some_and(|told| since(told) < SLOW) {
            return None;
        }
        self.told = Some(now);
        let (topic, secs) = (recording.ledger.topic(), since(recording.since).as_secs());
        let cause = self.journal.complaint().map(|cause| format!(": {cause}"));
        Some(format!("write to {topic}: no answer for {secs} s{}", cause.unwrap_or_default()))
    }
}

impl Recording {
    /// Whether it takes longer than it should.
    pub(super) fn is_slow(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SLOW
    }
}
