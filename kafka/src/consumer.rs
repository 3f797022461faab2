//! One member of a consumer group.
//!
//! **Invariant:** a partition is read only between [`Consumer::start`] and [`Consumer::release`],
//! from the position that the caller gave, and each record once per start or seek, in order.
//! **Invariant:** the consumer keeps every partition's position itself and goes back to it after
//! each rebalance. librdkafka stops all partitions during one and resumes from a position of its
//! own, which is one record too far when the last thing read was an end of partition.
//! **Invariant:** offsets never go backwards but by a seek: a record below the position isn't
//! handed over. It tells that the log was cut, if that is being looked for; else librdkafka is sent
//! back to the position.
//! **Invariant:** records that can't be read (damaged batches) are never skipped: the position
//! stays before them.

mod event;
mod held;
mod idle;
mod place;
mod rebalance;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::log::Offset;
use rdkafka::bindings as rd;

pub use self::event::{Event, Fetched};
pub(crate) use self::held::{END, NO_OFFSET, TRUNCATED, UNREADABLE};
use self::{held::Held, idle::Idle, rebalance::Ownership};
use crate::{
    Connection, Error, Limits, Record, TopicPartition,
    native::{Buffer, Client, Kind, PartitionList, Queue, first_failure},
};

/// A member of a consumer group that reads from given positions and answers rebalances in its own
/// time.
///
/// Call [`poll`](Consumer::poll) in a loop and often enough for `max.poll.interval.ms` (5 minutes
/// by default), also while a rebalance is being answered. It returns events, or nothing when
/// records wait in some started partition (or time is up); then [`fetch`](Consumer::fetch) from the
/// started partitions.
///
/// | state of a partition | begins with | records are read | ends with |
/// |---|---|---|---|
/// | offered | [`Event::Assigned`] | no | `start`, or `release` to keep it unread |
/// | started | `start` | yes | [`Event::Revoked`] or [`Event::Lost`], or `release` |
/// | stopped | [`Event::OutOfRange`], [`Event::Truncated`] | no | `seek`, or as above |
/// | leaving | [`Event::Revoked`] or [`Event::Lost`] | no | `release` |
///
/// A rebalance is finished, for the whole group, once each of its partitions was answered.
///
/// A member that has nothing, of a group in which nobody has anything of its topics, joins anew by itself within
/// half a minute, a static member (`group.instance.id`) apart.
pub struct Consumer {
    queue: Queue,
    held: BTreeMap<TopicPartition, Held>,
    client: Arc<Client>,
    owned: Ownership,
    events: VecDeque<Event>,
    buffer: Buffer,
    idle: Idle,
    membership: Membership,
}

/// What a member joins its group by.
#[derive(Clone)]
struct Membership {
    connection: Connection,
    group: String,
    topics: Vec<String>,
    limits: Limits,
}

/// Whether [`Consumer::commit`] waits for the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It doesn't; a failure shows as [`Event::CommitFailed`].
    Async,
    /// It waits for the answer, 30 seconds at most.
    Sync,
    /// It waits for the answer, up to this time.
    UpTo(Duration),
}

/// The records of one fetch; more wait for the next.
const MAX_FETCH: usize = 16_384;
/// The longest sleep of `poll` between looks at the queues: a guard, wake-ups come by themselves.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long a seek may take: it is answered by librdkafka's own thread, not by a broker.
const SEEK_WAIT: Duration = Duration::from_secs(5);
/// The pause before a position is tried again that could not be taken up, or before a damaged batch
/// is read again.
const RETRY: Duration = Duration::from_millis(50);

impl Consumer {
    /// Joins `group` for `topics`. Connects in the background: brokers may be down, topics may not
    /// exist yet.
    pub fn open(
        connection: &Connection,
        group: &str,
        topics: &[&str],
        limits: Limits,
    ) -> Result<Consumer, Error> {
        let properties = connection.consumer(group, &limits)?;
        let events = rd::RD_KAFKA_EVENT_REBALANCE
            | rd::RD_KAFKA_EVENT_OFFSET_COMMIT
            | rd::RD_KAFKA_EVENT_ERROR
            | rd::RD_KAFKA_EVENT_FETCH;
        let client = Arc::new(Client::new(Kind::Consumer, &properties, events)?);
        let queue = Queue::consumer(&client)?;
        queue.wake(true);
        let (connection, group) = (connection.clone(), group.to_owned());
        let mut consumer = Consumer {
            queue,
            held: BTreeMap::new(),
            client,
            owned: Ownership::default(),
            events: VecDeque::new(),
            buffer: Buffer::default(),
            idle: Idle::default(),
            membership: Membership { connection, group, topics: Vec::new(), limits },
        };
        consumer.subscribe(topics)?;
        Ok(consumer)
    }

    /// Changes the topics that this member wants; the group then finds out who gets what.
    pub fn subscribe(&mut self, topics: &[&str]) -> Result<(), Error> {
        self.client.subscribe(&PartitionList::of_topics(topics)?).map_err(|code| {
            let doing = format!("subscribe group {} to {}", self.group(), topics.join(", "));
            Error::of(code, doing, "")
        })?;
        self.membership.topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Ok(())
    }

    fn group(&self) -> &str {
        &self.membership.group
    }

    /// Waits for an event, for records in some started partition that isn't paused (then it returns
    /// none), or for `wait` to pass.
    pub fn poll(&mut self, wait: Duration) -> Option<Event> {
        let deadline = Instant::now() + wait;
        loop {
            // Before looking, so that what arrives after the look isn't slept through.
            self.client.waker().clear();
            self.take_events();
            let mended = self.reconcile().and_then(|()| self.mend_idleness(Instant::now()));
            if let Err(error) = mended {
                self.events.push_back(Event::Failed(error));
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let now = Instant::now();
            self.settle(now);
            if now >= deadline || self.held.values().any(Held::has_records) {
                return None;
            }
            let due = self.held.values().filter_map(Held::due).min().unwrap_or(deadline);
            let until = due.min(deadline).saturating_duration_since(now);
            self.client.waker().wait(until.min(LONGEST_SLEEP));
        }
    }

    /// Takes up to `max` queued records of a started partition without waiting and calls `take` for
    /// each, in order.
    ///
    /// Errors of the partition come as events of the next [`poll`](Consumer::poll).
    pub fn fetch(
        &mut self,
        partition: &TopicPartition,
        max: usize,
        mut take: impl FnMut(Record<'_>),
    ) -> Fetched {
        let Some(held) = self.held.get_mut(partition) else {
            return Fetched::default();
        };
        if !held.is_reading() {
            return held.nothing();
        }
        let mut fetched = held.nothing();
        let messages = held.queue.consume(max.min(MAX_FETCH), &mut self.buffer);
        for message in messages.iter() {
            if message.code() == 0 {
                let record = message.record();
                if record.offset < held.position() {
                    self.events.extend(held.below(partition, record.offset, record.epoch));
                    if held.is_reading() {
                        continue;
                    }
                    break;
                }
                held.passed(record.offset.next(), record.epoch);
                fetched.count += 1;
                take(record);
            } else if let Some(end) = held.end_of_partition(message) {
                fetched.end = Some(end);
            } else {
                self.events.extend(held.error(partition, message));
                if !held.is_reading() {
                    break;
                }
            }
        }
        fetched.next = held.position();
        fetched
    }

    /// Moves a started partition to another position, with the leader epoch of the last record before
    /// it, as a [`Mark`](aion_schemas::log::Mark) has it.
    ///
    /// Nothing of the old position is seen afterwards. It also wakes a partition that
    /// [`Event::OutOfRange`] or [`Event::Truncated`] stopped.
    pub fn seek(
        &mut self,
        partition: &TopicPartition,
        at: Offset,
        epoch: i32,
    ) -> Result<(), Error> {
        let doing = || format!("seek {partition} to {at}");
        check_position(at, doing)?;
        let Some(held) = self.held.get_mut(partition) else {
            return Err(Error::configuration(doing(), "the partition isn't started"));
        };
        held.go_to(at, epoch);
        self.reconcile()?;
        self.settle(Instant::now());
        Ok(())
    }

    /// Stops reporting a partition's records: they stay queued, within the limits, and `poll`
    /// sleeps past them.
    pub fn pause(&mut self, partition: &TopicPartition) {
        if let Some(held) = self.held.get_mut(partition) {
            held.paused = true;
        }
    }

    /// Ends a pause.
    pub fn resume(&mut self, partition: &TopicPartition) {
        if let Some(held) = self.held.get_mut(partition) {
            held.paused = false;
        }
    }

    /// The next offset that a started partition will hand over.
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.held.get(partition).map(Held::position)
    }

    /// Asks the group's coordinator for committed offsets and their metadata, in the order asked.
    pub fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Result<Vec<Option<(Offset, String)>>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let doing = format!("read the committed offsets of group {}, partition", self.group());
        let list = PartitionList::of(partitions)?;
        self.client.committed(&list, timeout).map_err(|code| Error::of(code, &*doing, ""))?;
        let entries = list.entries();
        first_failure(&entries, &doing)?;
        let committed = |partition: &TopicPartition| {
            let entry = entries.iter().find(|entry| entry.partition == *partition)?;
            (entry.offset >= 0).then(|| (Offset(entry.offset), entry.metadata.clone()))
        };
        Ok(partitions.iter().map(committed).collect())
    }

    /// Commits offsets (the next wanted ones) with their metadata to the group.
    ///
    /// [`Error::NotMember`] says that the partitions may have another owner by now; the commit had
    /// no effect.
    pub fn commit(
        &self,
        marks: &[(TopicPartition, Offset, String)],
        wait: Wait,
    ) -> Result<(), Error> {
        if marks.is_empty() {
            return Ok(());
        }
        let doing = format!("commit offsets of group {}, partition", self.group());
        let mut list = PartitionList::with_capacity(marks.len());
        for (partition, offset, metadata) in marks {
            list.push_mark(&self.client, partition, *offset, metadata)?;
        }
        let wait = match wait {
            Wait::Async => {
                let sent = self.client.commit(&list, &self.queue);
                return sent.map_err(|code| Error::of(code, doing, ""));
            }
            Wait::Sync => Duration::from_secs(30),
            Wait::UpTo(wait) => wait,
        };
        let reply = Queue::reply(&self.client)?;
        self.client.commit(&list, &reply).map_err(|code| Error::of(code, &*doing, ""))?;
        let Some(event) = reply.poll(wait) else {
            return Err(Error::timed_out(doing));
        };
        first_failure(&event.partitions(), &doing)?;
        match event.code() {
            0 => Ok(()),
            code => Err(Error::of(code, doing, event.reason())),
        }
    }

    /// Asks a partition's leader for its first and its last stable offset.
    pub fn watermarks(
        &self,
        partition: &TopicPartition,
        timeout: Duration,
    ) -> Result<(Offset, Offset), Error> {
        let (first, next) = self.client.watermarks(partition, timeout)?;
        Ok((Offset(first), Offset(next)))
    }

    /// Leaves the group, so that others get the partitions at once; waits up to `wait` for it.
    ///
    /// Flush and commit before: what a rebalance would ask for isn't asked any more. Dropping does
    /// the same.
    pub fn close(mut self, wait: Duration) {
        self.leave(wait);
    }

    /// Brings librdkafka to the positions of partitions that wait for it.
    fn settle(&mut self, now: Instant) {
        for (partition, held) in &mut self.held {
            if held.due().is_some_and(|due| due <= now) {
                let outcome = seek(&self.client, partition, held);
                held.sought(outcome.is_ok(), now + RETRY);
                if let Err(error) = outcome {
                    tracing::debug!(%error, "will be tried again");
                }
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.leave(Duration::from_secs(5));
    }
}

fn seek(client: &Client, partition: &TopicPartition, held: &Held) -> Result<(), Error> {
    let (at, epoch) = held.target();
    let doing = format!("seek {partition} to {at}");
    let mut list = PartitionList::with_capacity(1);
    list.push(partition, at.get(), epoch)?;
    client.seek(&list, SEEK_WAIT).map_err(|(code, reason)| Error::of(code, &*doing, reason))?;
    first_failure(&list.entries(), &doing)?;
    if held.gated {
        client.hold_back(&list, false).map_err(|code| Error::of(code, &*doing, ""))?;
        first_failure(&list.entries(), &doing)?;
    }
    Ok(())
}

fn check_position(at: Offset, doing: impl FnOnce() -> String) -> Result<(), Error> {
    if at < Offset::ZERO {
        return Err(Error::configuration(doing(), "an offset is never negative"));
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
