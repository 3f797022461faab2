//! The journal at Kafka: an idempotent producer that waits for every acknowledgement.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_kafka::{Connection, Error, Outgoing, Producer, Receipts};
use async_trait::async_trait;

use crate::job::journal::{Entry, Journal, NotAcknowledged};

/// How long a batch of entries may take before the job does something else and tries again.
const WAIT: Duration = Duration::from_secs(5);
/// How long to wait for room in the producer's queue before looking again.
const FULL: Duration = Duration::from_millis(10);

/// Writes entries to the internal topics of a cluster.
pub(in crate::job) struct KafkaJournal {
    connection: Connection,
    name: String,
    producer: Option<Arc<Producer>>,
}

impl KafkaJournal {
    /// A journal whose producer goes by `name`; it is opened when the first entry comes.
    pub(in crate::job) fn new(connection: &Connection, name: &str) -> KafkaJournal {
        KafkaJournal { connection: connection.clone(), name: name.to_owned(), producer: None }
    }

    /// The producer, a new one if the last can't go on.
    fn producer(&mut self) -> Result<Arc<Producer>, Error> {
        self.producer = self.producer.take().filter(|producer| producer.fatal().is_none());
        if let Some(producer) = &self.producer {
            return Ok(Arc::clone(producer));
        }
        let producer = Arc::new(Producer::open(&self.connection, &self.name)?);
        self.producer = Some(Arc::clone(&producer));
        Ok(producer)
    }
}

#[async_trait]
impl Journal for KafkaJournal {
    async fn record(&mut self, entries: &[Entry]) -> Result<(), NotAcknowledged> {
        let Some(first) = entries.first() else { return Ok(()) };
        let topic = first.ledger.topic();
        let failed = |error: Error| NotAcknowledged { topic, cause: error.to_string() };
        let producer = self.producer().map_err(failed)?;
        let receipts = Receipts::default();
        let deadline = Instant::now() + WAIT;
        for (number, entry) in entries.iter().enumerate() {
            loop {
                match send(&producer, entry, &receipts, number as u64) {
                    Ok(()) => break,
                    Err(Error::Full { .. }) if Instant::now() < deadline => {
                        tokio::time::sleep(FULL).await;
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = tokio::task::spawn_blocking(move || receipts.wait(left)).await;
        match waited.map(|missing| missing.into_iter().next()) {
            Ok(None) => Ok(()),
            Ok(Some((_, error))) => Err(failed(producer.complaint().unwrap_or(error))),
            Err(error) => Err(NotAcknowledged { topic, cause: error.to_string() }),
        }
    }
}

fn send(producer: &Producer, entry: &Entry, receipts: &Receipts, number: u64) -> Result<(), Error> {
    let headers: Vec<(&str, Option<&[u8]>)> =
        entry.headers.iter().map(|(name, value)| (*name, Some(&value[..]))).collect();
    let message = Outgoing {
        topic: entry.ledger.topic(),
        key: Some(entry.key.as_bytes()),
        value: entry.value.as_deref(),
        headers: &headers,
        ..Outgoing::default()
    };
    producer.send(&message, receipts.expect(number))
}
