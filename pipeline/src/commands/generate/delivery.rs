//! Messages on their way to Kafka, and the count of what became of them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use aion_kafka::{Connection, Error, Outgoing, Placed, Producer};

use super::messages::Message;

/// How many messages were sent, and what became of them; read while they are on their way.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<Error>>,
}

impl Counters {
    /// Messages handed to the producer.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages that are durable in Kafka.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Messages that were given up.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the first of those that were given up was.
    pub fn first_failure(&self) -> Option<Error> {
        self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, outcome: Result<Placed, Error>) {
        match outcome {
            Ok(_) => self.acked.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
                self.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// An idempotent producer that counts.
pub(super) struct Delivery {
    producer: Producer,
    counters: Arc<Counters>,
}

impl Delivery {
    /// Opens a producer; brokers may be down.
    pub(super) fn open(
        connection: &Connection,
        counters: Arc<Counters>,
    ) -> Result<Delivery, Error> {
        Ok(Delivery { producer: Producer::open(connection, "aion-generate")?, counters })
    }

    /// Queues the message; false if the queue is full, and then it was not taken.
    ///
    /// A message that can't be sent at all is counted as failed, as one that is given up later.
    pub(super) fn offer(&self, message: Message<'_>) -> bool {
        let counters = Arc::clone(&self.counters);
        let outgoing = Outgoing {
            topic: message.topic.name(),
            key: Some(message.key),
            value: Some(message.body),
            ..Outgoing::default()
        };
        match self.producer.send(&outgoing, move |outcome| counters.count(outcome)) {
            Err(Error::Full { .. }) => return false,
            Err(error) => self.counters.count(Err(error)),
            Ok(()) => {}
        }
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        true
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn producer(&self) -> &Producer {
        &self.producer
    }
}
