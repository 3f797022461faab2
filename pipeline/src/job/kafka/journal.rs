//! The journal at Kafka: an idempotent producer that waits for every acknowledgement.

use std::{sync::Arc, time::Duration};

use aion_kafka::{Connection, Error, Outgoing, Placed, Producer};
use aion_sinks::fault;
use tokio::sync::mpsc;

use crate::job::{
    journal::{Entry, Journal, Ledger, NotAcknowledged, Recorded},
    rules::{Rule, Rules},
};

/// How long to wait for room in the producer's queue before looking again.
const FULL: Duration = Duration::from_millis(10);

/// Writes entries to the internal topics of a cluster.
pub(in crate::job) struct KafkaJournal {
    connection: Connection,
    name: String,
    producer: Option<Arc<Producer>>,
    rules: Rules,
}

impl KafkaJournal {
    /// A journal whose producer goes by `name`; it is opened when the first entry comes.
    pub(in crate::job) fn new(connection: &Connection, name: &str) -> KafkaJournal {
        KafkaJournal {
            connection: connection.clone(),
            name: name.to_owned(),
            producer: None,
            rules: Rules::default(),
        }
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

impl Journal for KafkaJournal {
    fn record(&mut self, entries: Vec<Entry>) -> Recorded {
        let (producer, cuts) = (self.producer(), self.rules.hold(Rule::TooLargeIsCut));
        Box::pin(async move {
            match producer {
                Ok(producer) => record(&producer, entries, cuts).await,
                Err(error) => Err(not_acknowledged(entries, Some(error))),
            }
        })
    }

    fn complaint(&self) -> Option<String> {
        Some(self.producer.as_ref()?.complaint()?.to_string())
    }
}

/// Sends all entries, then waits until each has its answer; the client gives one within its delivery
/// timeout. Those that failed are handed back.
async fn record(
    producer: &Producer,
    entries: Vec<Entry>,
    cuts: bool,
) -> Result<(), NotAcknowledged> {
    let (answers_in, mut answers) = mpsc::channel(entries.len().max(1));
    let mut failure = None;
    let mut is_too_large = vec![false; entries.len()];
    for (number, entry) in entries.iter().enumerate() {
        loop {
            let answers = answers_in.clone();
            let done = move |placed: Result<Placed, Error>| {
                // There is room for every answer; nobody may listen any more.
                drop(answers.try_send((number, placed)));
            };
            match send(producer, entry, done) {
                Ok(()) => break,
                Err(Error::Full { .. }) => tokio::time::sleep(FULL).await,
                Err(error) => {
                    is_too_large[number] = matches!(error, Error::TooLarge { .. });
                    failure.get_or_insert(error);
                    break;
                }
            }
        }
    }
    drop(answers_in);
    let ledger = entries.first().map(|entry| entry.ledger);
    fault::point(match ledger {
        Some(Ledger::Gaps) => "job.gap_sent",
        _ => "job.dead_letter_sent",
    });
    let mut is_there = vec![false; entries.len()];
    while let Some((number, placed)) = answers.recv().await {
        match placed {
            Ok(_) => is_there[number] = true,
            Err(error) => {
                is_too_large[number] |= matches!(error, Error::TooLarge { .. });
                failure.get_or_insert(error);
            }
        }
    }
    let left = entries.into_iter().zip(is_there).zip(is_too_large);
    let left: Vec<Entry> = left
        .filter(|((_, is_there), _)| !is_there)
        .map(|((entry, _), too_large)| if too_large && cuts { entry.shortened() } else { entry })
        .collect();
    fault::point(match ledger {
        Some(Ledger::Gaps) => "job.gap_acknowledged",
        _ => "job.dead_letter_acknowledged",
    });
    if left.is_empty() {
        return Ok(());
    }
    Err(not_acknowledged(left, producer.complaint().or(failure)))
}

fn not_acknowledged(entries: Vec<Entry>, error: Option<Error>) -> NotAcknowledged {
    let topic = entries.first().map_or(Ledger::DeadLetters, |entry| entry.ledger).topic();
    let cause = error.map_or_else(|| "no acknowledgement".to_owned(), |error| error.to_string());
    NotAcknowledged { topic, cause, entries }
}

fn send(
    producer: &Producer,
    entry: &Entry,
    done: impl FnOnce(Result<Placed, Error>) + Send + 'static,
) -> Result<(), Error> {
    let headers: Vec<(&str, Option<&[u8]>)> =
        entry.headers.iter().map(|(name, value)| (*name, Some(&value[..]))).collect();
    let message = Outgoing {
        topic: entry.ledger.topic(),
        key: Some(entry.key.as_bytes()),
        value: entry.value.as_deref(),
        headers: &headers,
        ..Outgoing::default()
    };
    producer.send(&message, done)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use aion_embedded::{Broker, Fsync, Settings};
    use aion_kafka::{Admin, NewTopic};

    use super::*;

    /// Writes a letter down that is greater than its topic takes; how often until it is there, within three times.
    async fn tries(without: Option<Rule>) -> Option<usize> {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(folder.path().join("kafka"));
        settings.fsync = Fsync::Never;
        let broker = Broker::start(settings).await.unwrap();
        let mut connection = Connection::to(broker.address().to_string());
        connection.properties.insert("compression.type".into(), "none".into());
        let admin = Admin::open(&connection, Duration::from_secs(10)).unwrap();
        let topic = Ledger::DeadLetters.topic();
        admin
            .create_topics(&[NewTopic { topic, partitions: 1, replication: 1, configs: &[] }])
            .unwrap();
        let mut journal = KafkaJournal::new(&connection, "test");
        journal.rules = Rules { without };
        let mut entries = vec![Entry {
            ledger: Ledger::DeadLetters,
            key: "test:0:0:0".to_owned(),
            value: Some(vec![b'x'; 2 << 20].into()),
            headers: Vec::new(),
        }];
        let mut done = None;
        for number in 1..=3 {
            match journal.record(entries).await {
                Ok(()) => {
                    done = Some(number);
                    break;
                }
                Err(failed) => entries = failed.entries,
            }
        }
        broker.stop().await.unwrap();
        done
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_letter_that_the_topic_does_not_take_is_written_down_cut() {
        assert_eq!(tries(None).await, Some(2));
    }

    /// Negative control: its partition would stand still for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn without_the_cut_it_is_never_written_down() {
        assert_eq!(tries(Some(Rule::TooLargeIsCut)).await, None);
    }
}
