//! Events that happen now, sent as they happen, until told to stop.
//!
//! **Invariant:** memory is bounded whatever the broker does: by the producer's queue, and by the
//! time that a feed makes up for. What lies further back is left out, as if the producer was down.
//! **Invariant:** a feed never repeats an event: each start is another life.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_kafka::Connection;
use aion_schemas::log::Timestamp;
use anyhow::Context;
use tokio::{task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    broken::Share,
    delivery::{Counters, Delivery},
    event::Topic,
    life::Life,
    messages::{Encoder, Message, Messages},
    now,
};

/// How often the feed looks which events are due.
const TICK: Duration = Duration::from_millis(100);
/// How far a feed may fall behind (a slow broker, a suspended machine) before it leaves events out.
const LONGEST_BACKLOG: Duration = Duration::from_mins(1);
/// The most events sent without a pause: a feed that catches up shares its thread with others.
const AT_ONCE: usize = 2_000;
/// How long stopping waits for acknowledgements.
const DRAIN: Duration = Duration::from_secs(5);
/// How often the log repeats that events were given up.
const COMPLAIN: Duration = Duration::from_mins(1);
/// How often a producer that can't go on is replaced.
const REPLACE: Duration = Duration::from_secs(5);

/// A running feed. Dropping it stops it without waiting for acknowledgements.
#[derive(Debug)]
pub struct Feed {
    counters: Arc<Counters>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Feed {
    /// Starts to send events of all topics, `events_per_second` on average, a share of them broken; needs a tokio
    /// runtime.
    ///
    /// Brokers may be down: the feed waits for them.
    pub fn start(
        connection: &Connection,
        events_per_second: u32,
        broken: Share,
    ) -> anyhow::Result<Feed> {
        let counters = Arc::new(Counters::default());
        let stop = CancellationToken::new();
        let source = Source {
            connection: connection.clone(),
            rate: f64::from(events_per_second.max(1)),
            broken,
            counters: Arc::clone(&counters),
        };
        let delivery = source.open()?;
        let task = tokio::spawn(run(source, delivery, stop.clone()));
        Ok(Feed { counters, stop, task })
    }

    /// What was sent so far.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// A token that stops the feed when it is cancelled; [`Feed::stop`] then waits for its end.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Stops sending, and waits a few seconds at most for the acknowledgements of what was sent.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the feed of events ended badly");
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Where events come from and where they go.
struct Source {
    connection: Connection,
    rate: f64,
    broken: Share,
    counters: Arc<Counters>,
}

impl Source {
    fn open(&self) -> anyhow::Result<Delivery> {
        let delivery = Delivery::open(&self.connection, Arc::clone(&self.counters));
        delivery.with_context(|| format!("open a producer for {}", self.connection.brokers))
    }

    fn messages(&self, start: Timestamp) -> Messages {
        // The start is mixed into the seed, so the same seed does for every start.
        let life = Life::new(1, start, &Topic::ALL, self.rate);
        Messages::new(life, Encoder::Json, self.broken)
    }
}

async fn run(source: Source, mut delivery: Delivery, stop: CancellationToken) {
    let mut backlog = Backlog::new(&source, now());
    let mut trouble = Trouble::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        let now = now();
        if backlog.is_too_old(now) {
            tracing::warn!(
                "the feed of events fell {LONGEST_BACKLOG:?} behind; it goes on from now"
            );
            backlog = Backlog::new(&source, now);
        }
        let goes_on =
            |delivery: &Delivery| !stop.is_cancelled() && delivery.producer().fatal().is_none();
        while backlog.send_due(now, |message| delivery.offer(message)) && goes_on(&delivery) {
            tokio::task::yield_now().await;
        }
        trouble.tell(&source.counters);
        if let Some(anew) = trouble.replacement(&source, &delivery) {
            let broken = std::mem::replace(&mut delivery, anew);
            drop(tokio::task::spawn_blocking(move || drop(broken))); // it may wait for its thread
        }
    }
    let flushed = tokio::task::spawn_blocking(move || delivery.producer().flush(DRAIN)).await;
    if let Ok(Err(error)) = flushed {
        tracing::warn!(%error, "the feed of events stopped before everything was acknowledged");
    }
}

/// The events that are due, and those that will be.
struct Backlog {
    messages: Messages,
}

impl Backlog {
    fn new(source: &Source, start: Timestamp) -> Backlog {
        let mut messages = source.messages(start);
        messages.make();
        Backlog { messages }
    }

    fn next_due(&self) -> Timestamp {
        self.messages.current().map_or(Timestamp(i64::MAX), |message| message.time)
    }

    /// Whether the first event that wasn't sent is too old to be made up for.
    fn is_too_old(&self, now: Timestamp) -> bool {
        now.0.saturating_sub(self.next_due().0) > LONGEST_BACKLOG.as_micros() as i64
    }

    /// Offers what is due, in order, until one isn't taken: that one is offered again next time. Whether more may be
    /// due.
    fn send_due(&mut self, now: Timestamp, mut offer: impl FnMut(Message<'_>) -> bool) -> bool {
        for _ in 0..AT_ONCE {
            match self.messages.current() {
                Some(message) if message.time <= now && offer(message) => self.messages.make(),
                _ => return false,
            };
        }
        true
    }
}

/// What has gone wrong, told to people now and then rather than for every message.
#[derive(Default)]
struct Trouble {
    told_failures: u64,
    told: Option<Instant>,
    replaced: Option<Instant>,
}

impl Trouble {
    fn tell(&mut self, counters: &Counters) {
        let failed = counters.failed();
        if failed > self.told_failures && is_past(self.told, COMPLAIN) {
            let first = counters.first_failure().map(|error| error.to_string());
            tracing::warn!(failed, first, "events were given up");
            (self.told_failures, self.told) = (failed, Some(Instant::now()));
        }
    }

    /// Another producer in place of one that can't go on.
    fn replacement(&mut self, source: &Source, delivery: &Delivery) -> Option<Delivery> {
        let error = delivery.producer().fatal()?;
        if !is_past(self.replaced, REPLACE) {
            return None;
        }
        self.replaced = Some(Instant::now());
        tracing::warn!(%error, "the feed of events opens another producer");
        source.open().inspect_err(|error| tracing::warn!("{error:#}")).ok()
    }
}

fn is_past(last: Option<Instant>, pause: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= pause)
}

#[cfg(test)]
mod tests;
