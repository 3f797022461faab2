//! Messages on their way, and what became of them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use aion_kafka::{Connection, Error, Outgoing, Placed, Producer, Purpose};
use aion_schemas::encode::Message;
use anyhow::{anyhow, bail};

use super::report::Report;

/// How long to wait where the producer's queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(2);
/// Between looks at what came in.
const STEP: Duration = Duration::from_millis(200);

/// An idempotent producer that counts; all in-sync replicas acknowledge.
pub(super) struct Sending {
    connection: Connection,
    producer: Producer,
    topic: String,
    sent: u64,
    outcome: Arc<Outcome>,
}

#[derive(Default)]
struct Outcome {
    acknowledged: AtomicU64,
    first_failure: Mutex<Option<Error>>,
}

impl Sending {
    /// Opens a producer; it connects in the background.
    pub(super) fn open(connection: &Connection, topic: &str) -> anyhow::Result<Sending> {
        let producer = Producer::open(connection, "aion-publish")
            .map_err(|error| anyhow!(connection.explain(&error, Purpose::Produce)))?;
        let (connection, topic) = (connection.clone(), topic.to_owned());
        Ok(Sending { connection, producer, topic, sent: 0, outcome: Arc::default() })
    }

    /// Queues a message; waits while the queue is full.
    pub(super) fn send(&mut self, message: &Message, report: &Report) -> anyhow::Result<()> {
        loop {
            let outcome = Arc::clone(&self.outcome);
            let outgoing = Outgoing {
                topic: &self.topic,
                key: Some(&message.key),
                value: Some(&message.value),
                ..Outgoing::default()
            };
            match self.producer.send(&outgoing, move |placed| outcome.note(placed)) {
                Ok(()) => break,
                Err(Error::Full { .. }) => {
                    thread::sleep(QUEUE_FULL);
                    report.show(self.acknowledged(), self.complaint().as_deref());
                }
                Err(error) => bail!(self.connection.explain(&error, Purpose::Produce)),
            }
            if let Some(error) = self.producer.fatal() {
                bail!(self.connection.explain(&error, Purpose::Produce));
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(256) {
            report.show(self.acknowledged(), None);
        }
        Ok(())
    }

    /// Waits for every acknowledgement; the client gives each message up within its own time-out.
    pub(super) fn finish(&mut self, report: &Report) -> anyhow::Result<()> {
        while self.producer.outstanding() > 0 && self.producer.fatal().is_none() {
            // What failed is noted; here an error only says that some are still on their way.
            let _on_their_way = self.producer.flush(STEP);
            report.show(self.acknowledged(), self.complaint().as_deref());
        }
        let missing = self.sent - self.acknowledged();
        if missing == 0 {
            return Ok(());
        }
        let first = self.outcome.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = first.clone().or_else(|| self.producer.fatal());
        let cause = cause.map(|error| self.connection.explain(&error, Purpose::Produce));
        report.clear();
        bail!(
            "{missing} of {} events were not acknowledged: {}",
            self.sent,
            cause.unwrap_or_else(|| "no answer".to_owned())
        )
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.outcome.acknowledged.load(Ordering::Relaxed)
    }

    fn complaint(&self) -> Option<String> {
        let error = self.producer.complaint()?;
        Some(self.connection.explain(&error, Purpose::Produce))
    }
}

impl Outcome {
    fn note(&self, placed: Result<Placed, Error>) {
        match placed {
            Ok(_) => drop(self.acknowledged.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
            }
        }
    }
}
