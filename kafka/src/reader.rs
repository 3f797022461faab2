//! Reading without a group: for an audit, which looks at a log and leaves no trace in the cluster.
//!
//! **Invariant:** a reader has no group, so it can neither commit nor take a partition from anybody.
//! **Invariant:** records that can't be read (damaged batches) are never skipped: they end the
//! reading with an error.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::log::Offset;
use rdkafka::bindings as rd;

use crate::{
    Connection, Error, Fetched, Limits, Record, TopicPartition,
    consumer::{END, NO_OFFSET, TRUNCATED, UNREADABLE},
    native::{Buffer, Client, Kind, Message, Queue, Started},
};

/// The longest sleep between looks at a queue: a guard, wake-ups come by themselves.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// A client that reads partitions from given offsets, committed records only.
pub struct Reader {
    client: Arc<Client>,
    events: Queue,
    name: String,
}

/// One partition being read; dropping it stops that.
pub struct Reading {
    queue: Queue,
    _started: Started,
    client: Arc<Client>,
    partition: TopicPartition,
    position: Offset,
    buffer: Buffer,
}

/// Why a reading can't go on.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unread {
    /// The log doesn't have the offset: retention took it, or the log was cut.
    #[error("offset {0} isn't in the log any more")]
    OutOfRange(Offset),
    /// Something else failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Reader {
    /// Opens a client; `name` is what the brokers' logs call it. Connects in the background.
    pub fn open(connection: &Connection, name: &str, limits: Limits) -> Result<Reader, Error> {
        let properties = connection.reader(name, &limits)?;
        let client = Arc::new(Client::new(Kind::Consumer, &properties, rd::RD_KAFKA_EVENT_ERROR)?);
        let events = Queue::main(&client)?;
        Ok(Reader { client, events, name: name.to_owned() })
    }

    /// Starts reading a partition at the next wanted offset. One reading of a partition at a time.
    pub fn start(&self, partition: &TopicPartition, at: Offset) -> Result<Reading, Error> {
        let queue = Queue::partition(&self.client, partition)?;
        queue.wake(true);
        let started = Started::at(&self.client, partition, at.get())?;
        Ok(Reading {
            queue,
            _started: started,
            client: Arc::clone(&self.client),
            partition: partition.clone(),
            position: at,
            buffer: Buffer::default(),
        })
    }

    /// The newest complaint of the client about its connections, if there is one: why nothing comes.
    pub fn complaint(&self) -> Option<Error> {
        let mut newest = None;
        while let Some(event) = self.events.poll(Duration::ZERO) {
            if event.kind() == rd::RD_KAFKA_EVENT_ERROR {
                let doing = format!("read as {}", self.name);
                newest = Some(Error::of(event.code(), doing, event.reason()));
            }
        }
        newest
    }
}

impl Reading {
    /// Calls `take` for each of up to `max` records, in order; waits up to `wait` for the first, or
    /// for the end of the partition.
    pub fn fetch(
        &mut self,
        max: usize,
        wait: Duration,
        mut take: impl FnMut(Record<'_>),
    ) -> Result<Fetched, Unread> {
        let deadline = Instant::now() + wait;
        loop {
            // Before looking, so that what arrives after the look isn't slept through.
            self.client.waker().clear();
            let fetched = self.take_queued(max, &mut take)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if fetched.count > 0 || fetched.end.is_some() || left.is_zero() {
                return Ok(fetched);
            }
            self.client.waker().wait(left.min(LONGEST_SLEEP));
        }
    }

    fn take_queued(
        &mut self,
        max: usize,
        take: &mut impl FnMut(Record<'_>),
    ) -> Result<Fetched, Unread> {
        let mut fetched = Fetched::default();
        let messages = self.queue.consume(max, &mut self.buffer);
        for message in messages.iter() {
            match message.code() {
                0 => {
                    let record = message.record();
                    self.position = record.offset.next();
                    fetched.count += 1;
                    take(record);
                }
                END => {
                    // Below it nothing is left to read: transaction markers, compacted records.
                    self.position = self.position.max(message.offset());
                    fetched.end = Some(self.position);
                }
                NO_OFFSET | TRUNCATED => return Err(Unread::OutOfRange(self.position)),
                code => failed(code, message, &self.partition, self.position)?,
            }
        }
        fetched.next = self.position;
        Ok(fetched)
    }
}

/// An error in a record's place: one that passes is librdkafka's to overcome.
fn failed(
    code: i32,
    message: Message<'_>,
    partition: &TopicPartition,
    position: Offset,
) -> Result<(), Error> {
    let doing = format!("read {partition} at {position}");
    if UNREADABLE.contains(&code) {
        return Err(Error::Fatal { doing, detail: message.reason() });
    }
    match Error::of(code, doing, message.reason()) {
        error if error.is_retriable() => {
            tracing::debug!(%error, "librdkafka tries again");
            Ok(())
        }
        error => Err(error),
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.queue.wake(false);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::testing::{Cluster, Injected, Request};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn cluster(values: i32) -> Cluster {
        let cluster = Cluster::start(1).unwrap();
        cluster.create_topic("events", 2).unwrap();
        let values: Vec<_> = (0..values).map(|n| n.to_string().into_bytes()).collect();
        cluster.write("events", 1, values.iter().map(Vec::as_slice)).unwrap();
        cluster
    }

    fn open(cluster: &Cluster) -> Reader {
        Reader::open(&cluster.connection(), "test", Limits::default()).unwrap()
    }

    /// The offsets from `at` to the end of the partition.
    fn read(reader: &Reader, at: i64) -> Vec<i64> {
        let mut reading = reader.start(&TopicPartition::new("events", 1), Offset(at)).unwrap();
        let mut offsets = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{offsets:?} is all that came");
            let fetched = reading
                .fetch(7, Duration::from_millis(100), |record| offsets.push(record.offset.get()))
                .unwrap();
            if let Some(end) = fetched.end {
                assert_eq!(fetched.next, end);
                return offsets;
            }
        }
    }

    #[test]
    fn a_partition_is_read_from_an_offset_to_its_end_and_again() {
        let cluster = cluster(20);
        let reader = open(&cluster);
        assert_eq!(read(&reader, 0), (0..20).collect::<Vec<_>>());
        assert_eq!(read(&reader, 15), [15, 16, 17, 18, 19]);
        assert_eq!(read(&reader, 3), (3..20).collect::<Vec<_>>(), "back again");
        assert!(read(&reader, 20).is_empty());
    }

    #[test]
    fn an_offset_that_the_log_does_not_have_ends_the_reading() {
        let cluster = cluster(3);
        let reader = open(&cluster);
        let mut reading = reader.start(&TopicPartition::new("events", 1), Offset(99)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let unread = loop {
            assert!(Instant::now() < deadline);
            let fetched = reading.fetch(9, Duration::from_millis(100), |_| panic!("a record"));
            if let Err(unread) = fetched {
                break unread;
            }
        };
        assert_eq!(unread, Unread::OutOfRange(Offset(99)));
        drop(reading);
        assert_eq!(read(&reader, 1), [1, 2], "and it can be started elsewhere");
    }

    #[test]
    fn passing_failures_are_ridden_through() {
        let cluster = cluster(9);
        cluster.fail(Request::Fetch, &[Injected::NotLeader, Injected::Transport]);
        assert_eq!(read(&open(&cluster), 0).len(), 9);
    }
}
