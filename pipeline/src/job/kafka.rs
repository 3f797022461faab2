//! The Kafka source and journal: a job's two ends at the cluster.
//!
//! ```text
//! reader thread     owns the consumer: rebalances, fetches, decode; never waits for the job
//! look-up threads   ask for topic ids, and for bounds; may wait for brokers
//! KafkaSource       the job's end: events from a bounded channel, commands to another
//! ```
//!
//! **Invariant:** the reader thread polls on whatever the job does. When the budget is spent, or the job
//! doesn't take events, it stops fetching and goes on polling, so that the group keeps this member.

mod book;
mod commands;
mod cutter;
mod decisions;
pub(super) mod journal;
mod locating;
mod lookups;
mod poller;
pub(super) mod rows;
mod schemas;
mod waiting;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aion_kafka::{Connection, Consumer, Limits};
use aion_schemas::catalog::Topic;
use aion_sinks::budget::Budget;
use async_trait::async_trait;
use tokio::{
    sync::{
        mpsc::{self, Receiver, Sender},
        oneshot,
    },
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::{book::Book, lookups::Lookups, poller::Poller, rows::MakeRows, schemas::Schemas};
use super::{
    schemas::Registry,
    source::{Command, Event, Source},
};

/// Events that wait for the job; more wait in the reader, which then stops fetching.
const EVENTS: usize = 16;
/// Commands that wait for the reader, which takes them at every turn.
const COMMANDS: usize = 1024;

/// The job's end of its reader thread.
pub(super) struct KafkaSource {
    events: Receiver<Event>,
    /// `None` once the job has left: the reader then obeys what is queued, leaves the group and ends.
    commands: Option<Sender<Command>>,
    pulse: Pulse,
    /// Tells of the stop, with its deadline: the time runs from the signal, whatever the job does then.
    /// `None` once it was told.
    stop: Option<JoinHandle<Instant>>,
    /// Ends when the reader thread has.
    ended: oneshot::Receiver<()>,
}

/// When the reader thread was last alive, readable from everywhere.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    base: Instant,
    /// Milliseconds since `base`, plus one; 0 is never.
    beat: Arc<AtomicU64>,
}

impl Pulse {
    fn new() -> Pulse {
        Pulse { base: Instant::now(), beat: Arc::default() }
    }

    /// Notes that the reader is alive.
    pub(super) fn beat(&self) {
        self.beat.store(self.base.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    fn last(&self) -> Option<Instant> {
        let ms = self.beat.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.base + Duration::from_millis(ms))
    }
}

/// What the source of a job is made of.
pub(super) struct Opening<'a> {
    pub(super) connection: &'a Connection,
    pub(super) group: &'a str,
    pub(super) topic: &'a Topic,
    pub(super) rows: MakeRows,
    pub(super) registry: Option<Registry>,
    pub(super) budget: Budget,
    pub(super) shutdown: CancellationToken,
    pub(super) stop_within: Duration,
    pub(super) limits: Limits,
}

impl KafkaSource {
    /// Joins the group and starts the threads. Brokers may be down: it connects in the background.
    pub(super) fn open(opening: Opening<'_>) -> Result<KafkaSource, String> {
        let Opening { connection, group, topic, rows, registry, budget, shutdown, .. } = opening;
        let (events_in, events) = mpsc::channel(EVENTS);
        let (commands, commands_out) = mpsc::channel(COMMANDS);
        let pulse = Pulse::new();
        let consumer = Consumer::open(connection, group, &[&topic.name], opening.limits)
            .map_err(|error| error.to_string())?;
        let lookups = Lookups::start(connection, &topic.name)?;
        let client = (connection.clone(), consumer);
        let named = (Arc::clone(&topic.name), pulse.clone());
        let schemas = registry.map(|registry| {
            let book = Book::new(registry.grace);
            Schemas::start(registry.schemas, Arc::clone(&topic.schema), book)
        });
        let poller = Poller::new(client, lookups, (rows, schemas), budget, named);
        let (ended_in, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name(format!("read {}", topic.name))
            .spawn(move || {
                poller.run(&events_in, commands_out);
                drop(ended_in);
            })
            .map_err(|error| format!("start the reader of {}: {error}", topic.name))?;
        let within = opening.stop_within;
        let stop = tokio::spawn(async move {
            shutdown.cancelled().await;
            Instant::now() + within
        });
        let (commands, stop) = (Some(commands), Some(stop));
        Ok(KafkaSource { events, commands, pulse, stop, ended })
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn next(&mut self, until: Instant) -> Option<Event> {
        let stop = async {
            match &mut self.stop {
                Some(stop) => stop.await.unwrap_or_else(|_| Instant::now()),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order: a stop goes before what is queued, and time before silence.
            biased;
            deadline = stop => {
                self.stop = None;
                Some(Event::Stop { deadline })
            }
            event = self.events.recv() => Some(event.unwrap_or_else(|| Event::Failed {
                cause: "the thread that reads the topic has ended".to_owned(),
                hint: "see the log for its last words, and restart".to_owned(),
            })),
            () = tokio::time::sleep_until(until.into()) => None,
        }
    }

    async fn command(&mut self, command: Command) {
        if let Some(commands) = &self.commands {
            // A reader that has ended shows as the end of its events.
            drop(commands.send(command).await);
        }
    }

    async fn leave(&mut self, until: Instant) {
        self.commands = None;
        if tokio::time::timeout_at(until.into(), &mut self.ended).await.is_err() {
            tracing::warn!(
                "no time was left to leave the group: others wait for its session to end"
            );
        }
    }

    fn last_poll(&self) -> Option<Instant> {
        self.pulse.last()
    }
}

#[cfg(test)]
mod tests;
