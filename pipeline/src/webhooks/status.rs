//! How the endpoints are doing, as the engine says about once a second.

use std::sync::{Arc, Mutex, PoisonError};

use super::cursor::Millis;
use crate::certificates::Certificates;

/// The bounds of the latency histogram, in seconds.
pub const LATENCY_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];

/// How an endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It gets what comes.
    #[default]
    Live,
    /// It is reached, and has more than its window to catch up with.
    Behind,
    /// It fails; one delivery at a time finds out whether it is back.
    Failing,
    /// It gets nothing, because somebody said so.
    Disabled,
    /// Its first record waits for the birth to be written.
    Waiting,
}

impl State {
    /// All of them.
    pub const ALL: [State; 5] =
        [State::Live, State::Behind, State::Failing, State::Disabled, State::Waiting];

    /// The word in cursors and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            State::Live => "live",
            State::Behind => "behind",
            State::Failing => "failing",
            State::Disabled => "disabled",
            State::Waiting => "waiting",
        }
    }
}

/// What was counted of an endpoint since the process started.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Attempts that were answered with success.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Dead letters.
    pub buried: u64,
    /// Offsets that the log lost before they were delivered.
    pub lost: u64,
    /// Attempts by latency, not cumulative; the last is for all above.
    pub latency: [u64; LATENCY_BUCKETS.len() + 1],
    /// The sum of latencies, in seconds.
    pub latency_sum: f64,
}

impl Counters {
    /// Counts an attempt.
    pub fn took(&mut self, seconds: f64) {
        let at = LATENCY_BUCKETS.iter().position(|bound| seconds <= *bound);
        self.latency[at.unwrap_or(LATENCY_BUCKETS.len())] += 1;
        self.latency_sum += seconds;
    }
}

/// One endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointStatus {
    /// Its id.
    pub id: Arc<str>,
    /// How it is.
    pub state: State,
    /// Records that it hasn't got yet, in the partitions of this process.
    pub lag: u64,
    /// Of these, those that were tried in vain.
    pub holes: u64,
    /// When the oldest of them was first tried; `None` if there are none.
    pub oldest: Option<Millis>,
    /// Deliveries under way.
    pub in_flight: u64,
    /// Why the last attempt failed, if it did, or why it gets nothing.
    pub error: Option<String>,
    /// Since the start.
    pub counters: Counters,
}

/// All endpoints, and what troubles the engine.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// In the order of the policy.
    pub endpoints: Vec<EndpointStatus>,
    /// Partitions of this process.
    pub partitions: usize,
    /// What keeps the engine from working.
    pub trouble: Option<String>,
    /// Why the last change of the policy was refused.
    pub policy_error: Option<String>,
    /// The certificates of the policy's entries.
    pub certificates: Certificates,
    /// Attempts that could not be recorded.
    pub unrecorded: u64,
}

/// The newest status, shared.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<Mutex<Status>>);

impl Statuses {
    /// The newest.
    pub fn now(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it.
    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
