//! Writes what has to be known later: commands, outcomes, audit events; each is acknowledged by all in-sync
//! replicas, or said not to be.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aion_kafka::{Error, Outgoing, Producer};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    AUDIT, COMMANDS,
    command::{Command, Id, Outcome},
    log::{Known, Log},
    metrics::Counters,
    trail::{self, Refusal},
};

/// How long to wait where the producer's queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(5);
/// So many audit events of acceptance are written side by side.
const TURNS: usize = 1_024;

/// Why something isn't known to be written.
pub type Unwritten = String;

/// Writes records.
#[derive(Clone)]
pub struct Records {
    producer: Arc<RwLock<Option<Arc<Producer>>>>,
    /// Gateway and dispatcher take turns, so that one of them writes the audit event of a command.
    turns: Arc<[tokio::sync::Mutex<()>]>,
    /// The log of commands.
    pub log: Arc<Log>,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// Somebody waits for the log to show an id. Whoever goes away in the middle, with the client, leaves nothing there.
struct Waiting<'a>(&'a Log, Id);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Records")
    }
}

impl Records {
    /// Writes by `producer`.
    pub fn new(producer: Producer, log: Arc<Log>, counters: Arc<Counters>) -> Records {
        let producer = Arc::new(RwLock::new(Some(Arc::new(producer))));
        let turns = (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect();
        Records { producer, turns, log, counters }
    }

    /// Writes nothing more: the process is stopping, and its connections end with it.
    pub fn close(&self) {
        self.producer.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Writes a command, and waits until the log shows one of its id.
    pub async fn command(&self, command: &Command, until: Instant) -> Result<(), Unwritten> {
        let record = command.record().map_err(|cause| cause.to_string())?;
        let _waiting = Waiting(&self.log, command.id);
        let shown = self.log.wait_for(command.id);
        self.write((COMMANDS, &command.actor), &record, until).await?;
        let shown = timeout_at(until, shown).await;
        shown.map(drop).map_err(|_| "the log doesn't show the command in time".to_owned())
    }

    /// Writes how a command ended, its audit event first, and waits until the log shows it.
    pub async fn outcome(
        &self,
        command: &Command,
        outcome: &Outcome,
        until: Instant,
    ) -> Result<(), Unwritten> {
        let event = trail::ended(command, outcome);
        self.audit(&command.actor, &event, until).await?;
        let record = command.outcome_record(outcome).map_err(|cause| cause.to_string())?;
        self.write((COMMANDS, &command.actor), &record, until).await?;
        let _waiting = Waiting(&self.log, command.id);
        loop {
            let shown = self.log.wait_for(command.id);
            let has_ended = |known: &Known| known.outcome.is_some();
            if self.log.lock().find(command.id).is_none_or(has_ended) {
                return Ok(());
            }
            let waited = timeout_at(until, shown).await;
            waited.map(drop).map_err(|_| "the log doesn't show the outcome in time".to_owned())?;
        }
    }

    /// Makes sure that the audit event of a command that the log has is acknowledged.
    pub async fn accepted(&self, id: Id, until: Instant) -> Result<(), Unwritten> {
        let find = || self.log.lock().find(id).cloned().ok_or("the log has no such command");
        if find()?.is_audited {
            return Ok(());
        }
        let turn = timeout_at(until, self.turns[id.spread() % TURNS].lock()).await;
        let _turn = turn.map_err(|_| "the audit event isn't acknowledged in time")?;
        let known = find()?;
        if known.is_audited {
            return Ok(());
        }
        self.audit(&known.actor, &trail::accepted(id, &known), until).await?;
        self.log.lock().audited(id);
        Ok(())
    }

    /// Writes that an authenticated request was refused.
    pub async fn refused(&self, refusal: &Refusal<'_>, until: Instant) -> Result<(), Unwritten> {
        self.audit(refusal.actor, &trail::refused(refusal), until).await
    }

    /// Writes an audit event.
    pub async fn audit(&self, actor: &str, event: &[u8], until: Instant) -> Result<(), Unwritten> {
        self.write((AUDIT, actor), event, until).await
    }

    async fn write(
        &self,
        (topic, key): (&str, &str),
        value: &[u8],
        until: Instant,
    ) -> Result<(), Unwritten> {
        let outgoing = Outgoing {
            topic,
            key: Some(key.as_bytes()),
            value: Some(value),
            ..Outgoing::default()
        };
        self.send(&outgoing, until).await.map(drop)
    }

    /// Sends a record; where it stands, once it is acknowledged.
    pub async fn send(
        &self,
        outgoing: &Outgoing<'_>,
        until: Instant,
    ) -> Result<aion_kafka::Placed, Unwritten> {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let producer = producer.ok_or("the process is stopping")?;
        loop {
            let (told, placed) = oneshot::channel();
            // Whoever waits may be gone by then.
            match producer.send(outgoing, move |outcome| drop(told.send(outcome))) {
                Ok(()) => {
                    return match timeout_at(until, placed).await {
                        Ok(Ok(Ok(placed))) => Ok(placed),
                        Ok(Ok(Err(error))) => Err(error.to_string()),
                        Ok(Err(_)) => Err("the process is stopping".to_owned()),
                        Err(_) => {
                            let topic = outgoing.topic;
                            let complaint = producer.complaint();
                            Err(complaint.map_or_else(
                                || format!("{topic}: no acknowledgement in time"),
                                |error| error.to_string(),
                            ))
                        }
                    };
                }
                Err(Error::Full { .. }) if Instant::now() < until => {
                    tokio::time::sleep(QUEUE_FULL).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
