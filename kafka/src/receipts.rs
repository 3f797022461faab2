//! Waiting for the acknowledgements of a number of messages.

use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{Error, Placed};

/// Collects the acknowledgements of messages that belong together, such as the dead letters of one
/// batch.
///
/// ```no_run
/// # use aion_kafka::{Connection, Error, Outgoing, Producer, Receipts};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Error> {
/// # let producer = Producer::open(&Connection::to("localhost:9092"), "example")?;
/// let receipts = Receipts::default();
/// for number in 0..10 {
///     let letter = Outgoing { topic: "letters", value: Some(b"text"), ..Outgoing::default() };
///     producer.send(&letter, receipts.expect(number))?;
/// }
/// let failed = receipts.wait(Duration::from_secs(10)); // empty: all ten are durable
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Receipts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: BTreeSet<u64>,
    failed: Vec<(u64, Error)>,
}

impl Receipts {
    /// Registers a message under a number of the caller's, distinct among these receipts; the
    /// result goes to [`crate::Producer::send`]. A closure dropped without a call (the send was
    /// refused) takes the number back.
    pub fn expect(
        &self,
        number: u64,
    ) -> impl FnOnce(Result<Placed, Error>) + Send + 'static + use<> {
        self.state().open.insert(number);
        let ticket = Ticket { shared: Arc::clone(&self.0), number };
        move |result: Result<Placed, Error>| {
            if let Err(error) = result {
                let mut state = ticket.shared.lock();
                state.failed.push((ticket.number, error));
            }
            drop(ticket);
        }
    }

    /// Waits until every message has its acknowledgement, up to `wait`; returns the numbers that
    /// have none, each with the reason, and forgets them.
    pub fn wait(&self, wait: Duration) -> Vec<(u64, Error)> {
        let deadline = Instant::now() + wait;
        let mut state = self.state();
        while !state.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut failed = std::mem::take(&mut state.failed);
        let open = std::mem::take(&mut state.open);
        failed
            .extend(open.into_iter().map(|n| (n, Error::timed_out("wait for an acknowledgement"))));
        failed
    }

    /// How many messages have no acknowledgement yet.
    pub fn open(&self) -> usize {
        self.state().open.len()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Ticket {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.lock().open.remove(&self.number);
        self.shared.changed.notify_all();
    }
}
