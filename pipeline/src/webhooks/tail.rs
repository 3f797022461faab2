//! The thread of the group's member: who owns which partition, and what is new in them.
//!
//! A partition gives one chunk of records for each [`Order::More`], so what is on its way to the engine is
//! bounded by the partitions, however slow the engine is; and polling never waits for it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, mpsc as channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aion_kafka::{Connection, Consumer, Error, Event as Happened, Limits, TopicPartition};
use aion_schemas::log::{Offset, Stream};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    event::{Event, Events},
    topics::CONTROL,
};

/// The longest an order waits for the thread's attention.
const POLL: Duration = Duration::from_millis(5);
/// The most records of a chunk.
const CHUNK: usize = 512;
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(5);
/// How often the topics are looked at that the member asks for: five minutes by default, and only what is found
/// then counts for the group. A topic that was deleted and made anew could be nobody's until then.
const REFRESH: (&str, &str) = ("topic.metadata.refresh.interval.ms", "5000");
/// The same trouble is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// What happens to partitions.
#[derive(Debug)]
pub enum Told {
    /// The group gave them.
    Assigned(Vec<TopicPartition>),
    /// The group wants them back, and waits until they are released.
    Revoked(Vec<TopicPartition>),
    /// They are somebody else's already, or their topic is gone.
    Lost(Vec<TopicPartition>),
    /// The next records of one.
    Chunk(Chunk),
    /// The log doesn't have the offset that was asked for.
    OutOfRange(TopicPartition),
    /// Something failed that may pass.
    Trouble(String),
    /// The member can't go on.
    Ended(String),
}

/// Records of a partition.
#[derive(Debug)]
pub struct Chunk {
    /// The partition.
    pub partition: TopicPartition,
    /// The number that was given with the start: records of an earlier one don't count.
    pub run: u64,
    /// The records, in order.
    pub events: Events,
    /// Behind them, and behind offsets that have no record.
    pub next: i64,
}

/// What is to be done.
#[derive(Debug)]
pub enum Order {
    /// Read a partition from an offset on.
    Start {
        /// The partition.
        partition: TopicPartition,
        /// The topic, by the id it has now.
        stream: Stream,
        /// The offset.
        at: i64,
        /// A number for this reading.
        run: u64,
    },
    /// Give the next chunk of a partition that was started.
    More(TopicPartition),
    /// Stop reading partitions; where the group wants them back, let it have them.
    Release(Vec<TopicPartition>),
    /// Want these topics from now on.
    Subscribe(Vec<String>),
    /// Leave the group.
    Stop,
}

/// The running thread. Dropping it leaves the group.
#[derive(Debug)]
pub struct Tail {
    orders: channel::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Tail {
    /// Joins the group, for the control log to begin with.
    pub fn start(
        connection: &Connection,
        group: &str,
        limits: Limits,
        told: UnboundedSender<Told>,
    ) -> Result<Tail, Error> {
        let mut connection = connection.clone();
        connection.properties.entry(REFRESH.0.into()).or_insert_with(|| REFRESH.1.into());
        let consumer = Consumer::open(&connection, group, &[CONTROL], limits)?;
        let (orders, incoming) = channel::channel();
        let mut thread = Thread {
            consumer,
            told,
            reading: HashMap::new(),
            wanted: HashSet::new(),
            trouble: None,
        };
        let thread = std::thread::Builder::new()
            .name("webhooks-tail".into())
            .spawn(move || {
                thread.run(&incoming);
                thread.consumer.close(LEAVE);
            })
            .map_err(|cause| Error::Configuration {
                doing: "start the thread of webhooks".into(),
                detail: cause.to_string(),
            })?;
        Ok(Tail { orders, thread: Some(thread) })
    }

    /// Gives an order. The thread ends only with this, or with a word on it.
    pub fn order(&self, order: Order) {
        drop(self.orders.send(order));
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of webhooks panicked");
        }
    }
}

struct Thread {
    consumer: Consumer,
    told: UnboundedSender<Told>,
    reading: HashMap<TopicPartition, (Stream, u64)>,
    /// Those of which a chunk is wanted.
    wanted: HashSet<TopicPartition>,
    trouble: Option<(Instant, String)>,
}

impl Thread {
    fn run(&mut self, orders: &channel::Receiver<Order>) {
        loop {
            loop {
                match orders.try_recv() {
                    Ok(Order::Stop) | Err(channel::TryRecvError::Disconnected) => return,
                    Ok(order) => self.obey(order),
                    Err(channel::TryRecvError::Empty) => break,
                }
            }
            let told = match self.consumer.poll(POLL) {
                None => self.fetch(),
                Some(happened) => self.note(happened),
            };
            if !told {
                return; // Nobody listens any more.
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let outcome = match order {
            Order::Start { partition, stream, at, run } => {
                self.reading.insert(partition.clone(), (stream, run));
                let at = Offset(at);
                let started = match self.consumer.position(&partition) {
                    Some(_) => self.consumer.seek(&partition, at, -1),
                    None => self.consumer.start(&partition, at, -1),
                };
                self.consumer.pause(&partition);
                self.wanted.remove(&partition);
                started
            }
            Order::More(partition) => {
                if self.reading.contains_key(&partition) {
                    self.consumer.resume(&partition);
                    self.wanted.insert(partition);
                }
                Ok(())
            }
            Order::Release(partitions) => {
                for partition in &partitions {
                    self.reading.remove(partition);
                    self.wanted.remove(partition);
                }
                self.consumer.release(&partitions)
            }
            Order::Subscribe(topics) => {
                let topics: Vec<_> = topics.iter().map(String::as_str).collect();
                self.consumer.subscribe(&topics)
            }
            Order::Stop => Ok(()),
        };
        match outcome {
            Ok(()) => {}
            // Its partitions are somebody else's by now; the group says so in an event of its own.
            Err(error @ Error::NotMember { .. }) => tracing::debug!(%error),
            Err(error) => self.complain(error.to_string()),
        }
    }

    /// Takes a chunk of each partition of which one is wanted. Whether anybody listens.
    fn fetch(&mut self) -> bool {
        let wanted: Vec<_> = self.wanted.iter().cloned().collect();
        for partition in wanted {
            let Some((stream, run)) = self.reading.get(&partition) else { continue };
            let mut events = Vec::new();
            let number = partition.partition;
            let before = self.consumer.position(&partition);
            let fetched = self.consumer.fetch(&partition, CHUNK, |record| {
                events.push(Arc::new(Event::of(stream, number, &record)));
            });
            let has_moved = before.is_some_and(|before| fetched.next > before);
            if events.is_empty() && !has_moved {
                continue;
            }
            let run = *run;
            self.wanted.remove(&partition);
            self.consumer.pause(&partition);
            let next = fetched.next.get();
            if self.told.send(Told::Chunk(Chunk { partition, run, events, next })).is_err() {
                return false;
            }
        }
        true
    }

    fn note(&mut self, happened: Happened) -> bool {
        let told = match happened {
            Happened::Assigned(given) => Told::Assigned(given),
            Happened::Revoked(gone) => Told::Revoked(gone),
            Happened::Lost(gone) => Told::Lost(gone),
            Happened::OutOfRange { partition, .. } | Happened::Truncated { partition, .. } => {
                self.wanted.remove(&partition);
                Told::OutOfRange(partition)
            }
            Happened::Failed(error) if error.is_fatal() => Told::Ended(error.to_string()),
            Happened::Failed(error) | Happened::CommitFailed { error, .. } => {
                self.complain(error.to_string());
                return true;
            }
        };
        self.told.send(told).is_ok()
    }

    fn complain(&mut self, trouble: String) {
        let is_told = self
            .trouble
            .as_ref()
            .is_some_and(|(at, what)| *what == trouble && at.elapsed() < TELL_AGAIN);
        if !is_told {
            self.trouble = Some((Instant::now(), trouble.clone()));
            drop(self.told.send(Told::Trouble(trouble)));
        }
    }
}
