//! What fails and is tried again: in the log now and then, in the status until it is well.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_sinks::sink::SinkError;

use super::{JobError, event_loop::Job, journal::Journal, source::Source};

/// How long a failure stays in the status after it happened last; that of a sink also until the sink stores again, or has
/// nothing to store.
const TROUBLE_LASTS: Duration = Duration::from_secs(10);
/// How often the log repeats that a sink fails.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// How a sink failed last.
pub(super) struct SinkTrouble {
    at: Instant,
    cause: String,
    /// Whether it has stored something since: of another partition, maybe.
    stored_since: bool,
}

impl<S: Source, J: Journal> Job<S, J> {
    /// Notes a failure that is tried again, for logs and status.
    pub(super) fn note_trouble(&mut self, cause: String) {
        tracing::warn!(job = %self.plan.job, "{cause}; trying again");
        self.trouble = Some((self.clock.now(), cause));
    }

    /// Notes that sink number `at` failed and is tried again, in the log now and then.
    pub(super) fn sink_troubled(&mut self, at: usize, error: &SinkError) {
        let (place, now) = (&mut self.places[at], self.clock.now());
        let cause = format!("{}: {error}", place.name);
        let recently = |told: Instant| now.saturating_duration_since(told) < TELL_AGAIN;
        if place.told.is_some_and(recently) {
            tracing::debug!(job = %self.plan.job, "{cause}; trying again");
        } else {
            place.told = Some(now);
            tracing::warn!(job = %self.plan.job, "{cause}; trying again");
        }
        place.trouble = Some(SinkTrouble { at: now, cause, stored_since: false });
    }

    /// Notes that sink number `at` stored something.
    pub(super) fn sink_stored(&mut self, at: usize) {
        self.places[at].backoff.succeeded();
        if let Some(trouble) = &mut self.places[at].trouble {
            trouble.stored_since = true;
        }
    }

    /// Takes back what is over. A try of a sink may take minutes, and is no sign that it is well.
    pub(super) fn forget_troubles(&mut self, now: Instant) {
        let is_past = |at: Instant| now.saturating_duration_since(at) >= TROUBLE_LASTS;
        self.trouble.take_if(|(at, _)| is_past(*at));
        for (at, place) in self.places.iter_mut().enumerate() {
            // What waited may be gone: another process has its partition.
            let waits = || self.readers.values().any(|one| one.sinks[at].unwritten().is_some());
            place.trouble.take_if(|last| is_past(last.at) && (last.stored_since || !waits()));
        }
    }

    /// How a sink's failure ends the job.
    pub(super) fn sink_failed(&self, sink: &'static str, source: SinkError) -> JobError {
        JobError::Sink { job: Arc::clone(&self.plan.job), sink, source }
    }

    /// What failed last, and hasn't gone well since.
    pub(super) fn trouble(&self) -> Option<&String> {
        let of_sinks = self.places.iter().filter_map(|place| place.trouble.as_ref());
        let of_sinks = of_sinks.map(|last| (last.at, &last.cause));
        let all = of_sinks.chain(self.trouble.iter().map(|(at, cause)| (*at, cause)));
        all.max_by_key(|(at, _)| *at).map(|(_, cause)| cause)
    }
}
