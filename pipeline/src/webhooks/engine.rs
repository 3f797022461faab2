//! The engine: who gets what, when. One task holds all state; threads read Kafka, tasks talk HTTP, and
//! whatever they come to arrives as a message.
//!
//! ```text
//!  tail ── new records ──►┌────────┐── deliveries ──► client ──► receivers
//!  fetch ─ old records ──►│ engine │◄── answers ─────────┘
//!  own ─── cursors, ─────►│        │── cursors, attempts, dead letters, gaps ──► producer
//!          control log    └────────┘◄── acknowledgements ──────────────────────────┘
//! ```
//!
//! **Invariant:** nothing here waits for the outside: a receiver that hangs holds its own window only.
//! **Invariant:** what a cursor says is true when it is stored; see [`super::cursor`].
//! **Invariant:** an endpoint is delivered to in a partition only by the process that has the partition.

mod births;
mod bounds;
mod commands;
mod deleted;
mod lane;
mod leaving;
mod ownership;
mod pump;
mod reload;
mod source;
mod store;
mod tell;
mod timers;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aion_kafka::{Connection, Error, Limits, Producer, TopicPartition};
use aion_schemas::catalog::Catalog;
use bytes::Bytes;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    births::Births,
    deleted::Deleted,
    lane::{Key, Working, most_holes},
    leaving::Leaving,
    ownership::{Granted, Waiting},
    pump::Answered,
    source::Source,
};
use super::{
    breaker::Breaker,
    client::Client,
    cursor::{MAX_HOLES, Millis},
    fetch::{Fetcher, Found},
    opened::Opened,
    own::Own,
    payload::Payloads,
    policy::Endpoint,
    rate::Rate,
    status::{Counters, Statuses},
    tail::{Tail, Told},
};

/// How often what waits for others is looked at.
const STEP: Duration = Duration::from_millis(20);
/// How often ages are looked at, and the status is told.
const SECOND: Duration = Duration::from_secs(1);
/// How often the cluster's topics are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long answers of the cluster are waited for when the engine stops.
const ANSWERED: Duration = Duration::from_secs(2);
/// How many messages are taken before others get their turn.
const BURST: usize = 256;
/// How long records are gathered before they are written, unless the connection says otherwise: there is one for
/// each attempt, and 5 ms make many small batches.
const LINGER_MS: &str = "50";
/// Deliveries under way at once: half of them for whoever has something, half in equal shares, so that nobody
/// is held up by those who hang. Each has a connection.
const IN_FLIGHT: usize = 1_024;
/// Bytes of records that are kept for holes; beyond them a hole's record is read again.
const HELD_BYTES: usize = 32 << 20;
/// Bytes of all shelves, and once more of what lies before them.
const SHELF_BYTES: usize = 32 << 20;
/// The size of one shelf.
const SHELF: std::ops::RangeInclusive<usize> = (128 << 10)..=(8 << 20);

/// What an engine is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster.
    pub connection: Connection,
    /// The contract: which topics are internal.
    pub catalog: Arc<Catalog>,
    /// The consumer group.
    pub group: String,
    /// How old a change of a cursor may become before it is stored: what is delivered again after a crash.
    pub flush: Duration,
    /// How long deliveries that are under way are waited for when partitions leave.
    pub drain: Duration,
}

/// What an endpoint is at work.
#[derive(Debug)]
struct Serving {
    config: Arc<Endpoint>,
    patterns: Vec<String>,
    entry: String,
    client: Client,
    lanes: Vec<u64>,
    turn: usize,
    in_flight: usize,
    /// Deliveries that it may always have under way, whatever the others have.
    share: usize,
    burying: usize,
    breaker: Breaker,
    rate: Option<Rate>,
    /// Nothing goes before: the receiver asked for it.
    hold_until: Millis,
    disabled: Option<String>,
    error: Option<String>,
    counters: Counters,
}

/// What tasks and threads report.
#[derive(Debug)]
enum Done {
    Answered(Answered),
    Buried {
        uid: u64,
        offset: i64,
        outcome: Result<(), String>,
    },
    GapOfDeleted {
        key: Bytes,
        outcome: Result<(), String>,
    },
    GapWritten {
        uid: u64,
        gap: store::Gap,
        outcome: Result<(), String>,
    },
    Stored {
        uid: u64,
        outcome: Result<(), String>,
    },
    Located(Result<Waiting, (Vec<TopicPartition>, String)>),
    Discovered(Result<births::Discovered, String>),
    BirthWritten {
        endpoint: Arc<str>,
        outcome: Result<(), String>,
    },
    /// No offsets where the topic is another one by now.
    Watermarks {
        key: Key,
        at: i64,
        outcome: Result<Option<(i64, i64)>, String>,
    },
}

/// The engine.
pub struct Engine {
    settings: Settings,
    payloads: Arc<Payloads>,
    producer: Arc<Producer>,
    tail: Tail,
    fetcher: Fetcher,
    own: Arc<Own>,
    statuses: Statuses,
    endpoints: BTreeMap<u32, Serving>,
    lanes: HashMap<u64, Working>,
    sources: HashMap<Key, Source>,
    granted: HashMap<TopicPartition, Granted>,
    waiting: Vec<Waiting>,
    leaving: Vec<Leaving>,
    births: Births,
    deleted: Deleted,
    /// Holes that wait for their dead letters to be read.
    letters: BTreeMap<(i32, i64), Vec<(u64, i64)>>,
    /// Whether some of them are being read.
    reads_letters: bool,
    /// The dead letters' topic, once it is known.
    letters_stream: Option<aion_schemas::log::Stream>,
    timers: BinaryHeap<Reverse<(Millis, u32)>>,
    /// Partitions that may have to be read on.
    demands: Vec<Key>,
    held_bytes: usize,
    /// Of one cursor, by what all together had when that was looked at last.
    most_holes: usize,
    /// Deliveries under way, of all endpoints.
    in_flight: usize,
    last_number: u64,
    /// What the cluster is being asked: their answers come as messages.
    questions: JoinSet<()>,
    done: UnboundedSender<Done>,
}

/// The ends of channels that the loop listens to.
pub struct Ears {
    told: UnboundedReceiver<Told>,
    found: UnboundedReceiver<Found>,
    done: UnboundedReceiver<Done>,
}

/// Now.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as Millis
}

impl Engine {
    /// Opens the clients. `cursors` is the number of the cursors' partitions.
    pub fn open(
        settings: Settings,
        payloads: Arc<Payloads>,
        statuses: Statuses,
        cursors: usize,
    ) -> Result<(Engine, Ears), Error> {
        let (told_in, told) = mpsc::unbounded_channel();
        let (found_in, found) = mpsc::unbounded_channel();
        let (done_in, done) = mpsc::unbounded_channel();
        let limits =
            Limits { queued_bytes: 1 << 20, partition_fetch_bytes: 512 << 10, ..Limits::default() };
        let name = settings.group.clone();
        let mut writing = settings.connection.clone();
        writing.properties.entry("linger.ms".into()).or_insert_with(|| LINGER_MS.into());
        let engine = Engine {
            producer: Arc::new(Producer::open(&writing, &name)?),
            tail: Tail::start(&settings.connection, &settings.group, limits, told_in)?,
            fetcher: Fetcher::start(
                &settings.connection,
                &format!("{name}-fetch"),
                limits,
                found_in,
            )?,
            own: Own::start(&settings.connection, cursors)?,
            settings,
            payloads,
            statuses,
            endpoints: BTreeMap::new(),
            lanes: HashMap::new(),
            sources: HashMap::new(),
            granted: HashMap::new(),
            waiting: Vec::new(),
            leaving: Vec::new(),
            births: Births::default(),
            deleted: Deleted::default(),
            letters: BTreeMap::new(),
            reads_letters: false,
            letters_stream: None,
            timers: BinaryHeap::new(),
            demands: Vec::new(),
            held_bytes: 0,
            most_holes: MAX_HOLES,
            in_flight: 0,
            last_number: 0,
            questions: JoinSet::new(),
            done: done_in,
        };
        Ok((engine, Ears { told, found, done }))
    }

    /// Works until `shutdown`, or until it can't go on. The policy may change meanwhile.
    pub async fn run(
        mut self,
        mut ears: Ears,
        mut policies: tokio::sync::watch::Receiver<Arc<Opened>>,
        shutdown: CancellationToken,
    ) -> Result<(), String> {
        let opened = Arc::clone(&policies.borrow_and_update());
        self.take_policy(&opened);
        let own = Arc::clone(&self.own);
        let every = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut steps, mut seconds) = (every(STEP), every(SECOND));
        let (mut flushes, mut looks) = (every(self.settings.flush), every(LOOK));
        loop {
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(done) = ears.done.recv() => {
                    self.finish(done);
                    for _ in 0..BURST {
                        let Ok(done) = ears.done.try_recv() else { break };
                        self.finish(done);
                    }
                }
                Some(found) = ears.found.recv() => self.found(found),
                told = ears.told.recv() => {
                    self.hear(told.unwrap_or_else(|| Told::Ended("its reader is gone".into())))?;
                }
                () = sleep_until(wake) => self.fire(),
                () = own.news.notified() => self.heard_controls(),
                _ = steps.tick() => self.step(),
                _ = flushes.tick() => self.flush(),
                _ = seconds.tick() => self.second()?,
                _ = looks.tick() => self.look_around(),
                Ok(()) = policies.changed() => {
                    let opened = Arc::clone(&policies.borrow_and_update());
                    self.take_policy(&opened);
                }
            }
            self.serve_demands();
        }
        self.stop(ears).await;
        Ok(())
    }

    /// Stops in order: what is under way is waited for, cursors are stored, partitions are given back.
    async fn stop(mut self, mut ears: Ears) {
        let partitions: Vec<_> = self.granted.keys().cloned().collect();
        self.leave(partitions);
        let mut steps = interval(STEP);
        while !self.leaving.is_empty() {
            tokio::select! {
                Some(done) = ears.done.recv() => self.finish(done),
                _ = steps.tick() => self.step(),
            }
        }
        self.own.stop();
        let Engine { tail, producer, mut questions, .. } = self;
        // A broker that stops after us would leave them without an answer, and the process waiting for them.
        let answered = async { while questions.join_next().await.is_some() {} };
        let _in_time = tokio::time::timeout(ANSWERED, answered).await;
        // Both may wait for their threads.
        let ended = tokio::task::spawn_blocking(move || {
            drop(producer.flush(Duration::from_secs(5)));
            drop(tail);
        });
        drop(ended.await);
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Answered(answered) => self.answered(&answered),
            Done::Buried { uid, offset, outcome } => self.buried(uid, offset, outcome),
            Done::GapOfDeleted { key, outcome } => self.gap_of_deleted_written(&key, outcome),
            Done::GapWritten { uid, gap, outcome } => self.gap_written(uid, &gap, outcome),
            Done::Stored { uid, outcome } => self.stored(uid, outcome),
            Done::Located(located) => self.located(located),
            Done::Discovered(discovered) => self.discovered(discovered),
            Done::BirthWritten { endpoint, outcome } => self.birth_written(&endpoint, outcome),
            Done::Watermarks { key, at, outcome } => self.heard_watermarks(key, at, outcome),
        }
    }

    /// What waits for something else to happen.
    fn step(&mut self) {
        self.admit_located();
        self.look_at_leaving();
    }

    fn second(&mut self) -> Result<(), String> {
        if let Some(fatal) = self.producer.fatal() {
            return Err(fatal.to_string());
        }
        while self.questions.try_join_next().is_some() {}
        let holes = self.lanes.values().map(|one| one.lane.cursor().holes.len()).sum();
        self.most_holes = most_holes(holes, self.lanes.len());
        self.bury_what_is_spent(now());
        self.obey_controls();
        for id in self.endpoints.keys().copied().collect::<Vec<_>>() {
            self.pump(id);
        }
        self.tell();
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn trouble(&self, what: impl Into<String>) {
        let what = what.into();
        tracing::warn!("webhooks: {what}");
        self.statuses.change(|status| status.trouble = Some(what));
    }

    fn shelf_bytes(&self) -> usize {
        let share = SHELF_BYTES / self.sources.len().max(1);
        share.clamp(*SHELF.start(), *SHELF.end())
    }
}
