//! Takes commands in that are verified: once each, whoever repeats them, in whichever process.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aion_schemas::{commands::Commands, log::Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    command::{Command, Id},
    log::{Full, Known, State},
    metrics::Counters,
    records::Records,
    senders::Senders,
    tally::{SUMMED_UP, Tally},
    trail::{self, Refusal},
};
use crate::access::Access;

/// How long an answer waits for acknowledgements.
pub(super) const WAIT: Duration = Duration::from_secs(10);
/// How long an event that nobody waits for may take: longer than the producer tries (`message.timeout.ms`, 5 min), so
/// that it says itself what became of it.
const OUTCOME: Duration = Duration::from_hours(1);

/// What became of a command that was to be taken in.
#[derive(Debug)]
pub enum Taken {
    /// It is recorded, now or before.
    Accepted(Known),
    /// The key stands for another command.
    Other,
    /// The first request of this key is being worked on.
    InProgress,
    /// Whether it is recorded isn't known.
    Unknown(String),
    /// Too much waits for the control plane already.
    Full(Full),
}

/// Takes commands in.
#[derive(Debug)]
pub struct Gateway {
    /// Who may do what.
    pub access: Arc<Access>,
    /// Which commands there are.
    pub commands: Commands,
    /// Where requests come from.
    pub senders: Senders,
    records: Records,
    in_progress: Mutex<HashSet<Id>>,
    tally: Tally,
}

/// An id that is being worked on, until this is dropped.
struct Progress<'a>(&'a Gateway, Id);

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.0.in_progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Gateway {
    /// Takes commands in for whom `access` lets in, and writes them by `records`.
    pub fn new(
        (access, commands): (Arc<Access>, Commands),
        records: Records,
        senders: Senders,
    ) -> Gateway {
        let (in_progress, tally) = (Mutex::default(), Tally::default());
        Gateway { access, commands, senders, records, in_progress, tally }
    }

    /// Takes nothing more in: the process is stopping.
    pub fn close(&self) {
        self.records.close();
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        &self.records.counters
    }

    /// The log of commands, for a moment.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.records.log.lock()
    }

    /// What keeps commands from being taken in, if anything does.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state();
        let trouble = state.trouble().map(str::to_owned);
        trouble.or_else(|| (!state.is_ready()).then(|| "their log is being read".to_owned()))
    }

    /// Takes a command in, if it is a new one.
    pub async fn take(&self, command: Command) -> Taken {
        let (id, until) = (command.id, Instant::now() + WAIT);
        let is_new = self.in_progress.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        if !is_new {
            return Taken::InProgress;
        }
        let _progress = Progress(self, id);
        let known = {
            let state = self.state();
            if !state.is_ready() {
                return Taken::Unknown("the log of commands is being read".to_owned());
            }
            let known = state.find(id).cloned();
            if known.is_none()
                && let Some(full) = state.full_for(&command.actor)
            {
                return Taken::Full(full);
            }
            known
        };
        if known.is_none()
            && let Err(cause) = self.records.command(&command, until).await
        {
            return Taken::Unknown(cause);
        }
        let known = known.or_else(|| self.state().find(id).cloned());
        let Some(known) = known else {
            return Taken::Unknown("the log of commands is being read again".to_owned());
        };
        if known.content != command.content {
            return Taken::Other;
        }
        match self.records.accepted(id, until).await {
            Ok(()) => Taken::Accepted(known),
            Err(cause) => Taken::Unknown(cause),
        }
    }

    /// Writes that an authenticated request was refused.
    pub async fn refused(&self, refusal: &Refusal<'_>) -> Result<(), String> {
        self.records.refused(refusal, Instant::now() + WAIT).await
    }

    /// Notes that a principal's request was one too many: the first of the minute has an event, others are counted.
    /// [`Gateway::sum_up`] writes it.
    pub fn was_too_many(&self, principal: &Arc<str>, refusal: &Refusal<'_>) {
        self.tally.was_too_many(principal, || trail::refused(refusal));
    }

    /// Writes events of requests that were too many, and sums up once a minute what was refused without an event of
    /// its own, until `shutdown`.
    pub async fn sum_up(&self, shutdown: CancellationToken) {
        let write = |actor: Arc<str>, event: Vec<u8>| async move {
            self.records.audit(&actor, &event, Instant::now() + OUTCOME).await
        };
        self.tally.sum_up((self.counters(), SUMMED_UP), write, shutdown).await;
    }
}

/// The clock's time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}

/// The same in milliseconds.
pub fn now_ms() -> i64 {
    now().0 / 1_000
}
