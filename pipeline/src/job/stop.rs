//! The end of a job, as asked: what sinks have taken becomes durable, or is named.
//!
//! What was read and no sink has taken so far needs no word, if it can be read again: the marks are below
//! it, and the next start does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::log::show;
use aion_sinks::fault;

use super::{
    JobError,
    event_loop::{Job, News},
    journal::Journal,
    reader::{Phase, Reader},
    source::{Event, Source},
};

/// The pause between tries to write what could not be written.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// How many partitions an error names.
const MAX_NAMED: usize = 10;

impl<S: Source, J: Journal> Job<S, J> {
    /// Tries to have everything written until most of the time is gone; the rest is for the commit and
    /// for leaving the group.
    pub(super) async fn stop(&mut self, now: Instant, deadline: Instant) -> Result<(), JobError> {
        let until = now + deadline.saturating_duration_since(now) * 4 / 5;
        loop {
            let now = self.clock.now();
            self.advance_draining(now).await?;
            self.flush_now(now, until).await?;
            self.tell_departed(now).await?;
            let is_done = self.unwritten().is_empty() && !self.owes_entries();
            if is_done || self.clock.now() >= until {
                break;
            }
            self.pause(until.min(now + TRY_AGAIN)).await?;
        }
        self.commit(true).await;
        fault::point("job.stopped");
        let unwritten = self.unwritten();
        if unwritten.is_empty() {
            return Ok(());
        }
        let mut what = unwritten[..unwritten.len().min(MAX_NAMED)].join(", ");
        if unwritten.len() > MAX_NAMED {
            what = format!("{what} and {} more", unwritten.len() - MAX_NAMED);
        }
        Err(JobError::Unwritten { job: Arc::clone(&self.plan.job), what })
    }

    /// Hands over what waits and can't be read again.
    async fn advance_draining(&mut self, now: Instant) -> Result<(), JobError> {
        let draining = |reader: &&Reader| reader.once_drained.is_some();
        let numbers: Vec<i32> =
            self.readers.values().filter(draining).map(|reader| reader.partition.number).collect();
        for number in numbers {
            self.advance(number, now).await?;
        }
        Ok(())
    }

    /// Whether entries wait to be written down that no later start could make again: their topic, or that part of the
    /// log, is gone.
    fn owes_entries(&self) -> bool {
        let waits = |reader: &Reader| reader.once_drained.is_some() && !reader.waiting.is_empty();
        self.departed.owes() || self.readers.values().any(waits)
    }

    /// What sinks have taken and not made durable, and what can't be read again.
    fn unwritten(&self) -> Vec<String> {
        let mut all = Vec::new();
        // Where a partition starts over, what was taken of it has been given up.
        let kept = |reader: &&Reader| {
            matches!(reader.phase, Phase::Reading | Phase::Leaving | Phase::Stopped(_))
        };
        for reader in self.readers.values().filter(kept) {
            for (sink, place) in reader.sinks.iter().zip(&self.places) {
                let offsets = match reader.once_drained.and(reader.waiting_end()) {
                    Some(end) => sink.has().map(|from| from..end),
                    None => sink.unwritten(),
                };
                let named =
                    |range| format!("{} {} of {}", place.name, show(&range), reader.partition);
                all.extend(offsets.map(named));
            }
        }
        all
    }

    /// Waits, with no more interest in what is read meanwhile.
    async fn pause(&mut self, until: Instant) -> Result<(), JobError> {
        while self.clock.now() < until {
            match self.news(until).await {
                News::Event(Event::Lost(partitions)) => self.forget(&partitions),
                News::Recorded(outcome) => self.recorded(outcome, self.clock.now()).await?,
                // What waits for a look-up may be all that is left of its offsets.
                News::Event(Event::Looked(lookup)) => {
                    self.note_lookup(lookup, self.clock.now()).await;
                }
                News::Event(_) | News::Time => {}
            }
        }
        Ok(())
    }
}
