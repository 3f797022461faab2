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
    /// for leaving the group. What is neither stored nor written down by then of a topic that is gone is named by itself.
    pub(super) async fn stop(&mut self, now: Instant, deadline: Instant) -> Result<(), JobError> {
        let until = now + deadline.saturating_duration_since(now) * 4 / 5;
        loop {
            let now = self.clock.now();
            self.advance_draining(now).await?;
            self.flush_now(now, until).await?;
            let is_late = self.clock.until(until);
            tokio::select! {
                biased;
                told = self.tell_departed(now) => told?,
                () = is_late => {}
            }
            let is_done = self.is_written() && !self.owes_entries();
            if is_done || self.clock.now() >= until {
                break;
            }
            self.pause(until.min(now + TRY_AGAIN)).await?;
        }
        self.commit(true).await;
        fault::point("job.stopped");
        let rows = named(&self.unwritten(false)).map(|rows| {
            format!("rows that are not written: {rows}; the next start reads them again")
        });
        let losses = named(&self.untold()).map(|losses| {
            format!(
                "losses that are not written down, of a topic that is gone: {losses}; no later start \
                 can tell them"
            )
        });
        let what: Vec<String> = rows.into_iter().chain(losses).collect();
        if what.is_empty() {
            return Ok(());
        }
        let what = what.join("; and with ");
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

    fn is_written(&self) -> bool {
        self.unwritten(false).is_empty() && self.unwritten(true).is_empty()
    }

    /// What is neither stored nor written down of topics that are gone.
    fn untold(&self) -> Vec<String> {
        let mut all = self.unwritten(true);
        let waits = |reader: &&Reader| reader.is_leaving() && !reader.waiting.is_empty();
        all.extend(self.readers.values().filter(waits).map(|reader| reader.partition.to_string()));
        all.extend(self.departed.owed());
        all
    }

    /// What sinks have taken and not made durable, and what can't be read again: of a topic that `is_gone`, or is there.
    fn unwritten(&self, is_gone: bool) -> Vec<String> {
        let mut all = Vec::new();
        // Where a partition starts over, what was taken of it has been given up.
        let kept = |reader: &&Reader| {
            reader.is_leaving() == is_gone
                && matches!(reader.phase, Phase::Reading | Phase::Leaving | Phase::Stopped(_))
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
                News::Event(Event::Lost(partitions)) => {
                    self.note_departures(&partitions, self.clock.now());
                    self.forget(&partitions);
                }
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

/// The first of them; `None` where there is none.
fn named(all: &[String]) -> Option<String> {
    let (first, more) = all.split_at(all.len().min(MAX_NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    (!first.is_empty()).then(|| first.join(", ") + &more)
}
