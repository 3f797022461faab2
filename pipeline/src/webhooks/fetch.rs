//! The thread that reads what lies behind: for endpoints that catch up, for records that are tried again,
//! for dead letters. It has no group, and reads from wherever it is asked to.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc as channel},
    time::{Duration, Instant},
};

use aion_kafka::{Connection, Error, Limits, Reader, Reading, TopicPartition, Unread};
use aion_schemas::log::{Offset, Stream};
use tokio::sync::mpsc::UnboundedSender;

use super::event::{Event, Events};

/// The most records of an answer.
const CHUNK: usize = 512;
/// How long one question may take before others get their turn.
const TURN: Duration = Duration::from_millis(500);
/// Partitions that are kept open where they were read last.
const OPEN: usize = 32;
/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);

/// A question for records.
#[derive(Debug)]
pub struct Wanted {
    /// The topic.
    pub stream: Stream,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub at: i64,
    /// How many records at most.
    pub most: usize,
}

/// The answer.
#[derive(Debug)]
pub struct Found {
    /// What was asked for.
    pub wanted: Wanted,
    /// What is there.
    pub outcome: Outcome,
}

/// What is there of what was asked for.
#[derive(Debug)]
pub enum Outcome {
    /// These records are all there is from `wanted.at` to here.
    Read(Events, i64),
    /// The log doesn't have the offset any more.
    Gone,
    /// Ask again.
    Failed(String),
}

/// The running thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Fetcher {
    questions: channel::Sender<Wanted>,
}

impl Fetcher {
    /// Starts it.
    pub fn start(
        connection: &Connection,
        name: &str,
        limits: Limits,
        answers: UnboundedSender<Found>,
    ) -> Result<Fetcher, Error> {
        let reader = Reader::open(connection, name, limits)?;
        let (questions, incoming) = channel::channel();
        std::thread::Builder::new()
            .name("webhooks-fetch".into())
            .spawn(move || run(&reader, &incoming, &answers))
            .map_err(|cause| Error::Configuration {
                doing: "start the thread that reads for webhooks".into(),
                detail: cause.to_string(),
            })?;
        Ok(Fetcher { questions })
    }

    /// Asks for records.
    pub fn ask(&self, wanted: Wanted) {
        drop(self.questions.send(wanted));
    }
}

fn run(reader: &Reader, questions: &channel::Receiver<Wanted>, answers: &UnboundedSender<Found>) {
    // By topic id: a topic that was made anew is another one.
    let mut open: HashMap<(uuid::Uuid, i32), (Reading, i64)> = HashMap::new();
    while let Ok(wanted) = questions.recv() {
        let partition = TopicPartition::new(&wanted.stream.topic, wanted.partition);
        let key = (wanted.stream.id, wanted.partition);
        let reading = match open.remove(&key) {
            Some((reading, position)) if position == wanted.at => Ok(reading),
            // Dropped before another is started: one reading of a partition at a time.
            stale => {
                drop(stale);
                reader.start(&partition, Offset(wanted.at))
            }
        };
        let outcome = match reading {
            Err(error) => Outcome::Failed(error.to_string()),
            Ok(mut reading) => {
                let outcome = read(&mut reading, &wanted);
                if let Outcome::Read(_, next) = &outcome {
                    if open.len() >= OPEN {
                        open.clear();
                    }
                    open.insert(key, (reading, *next));
                }
                outcome
            }
        };
        if matches!(outcome, Outcome::Failed(_)) {
            std::thread::sleep(PAUSE);
        }
        if answers.send(Found { wanted, outcome }).is_err() {
            return;
        }
    }
}

fn read(reading: &mut Reading, wanted: &Wanted) -> Outcome {
    let deadline = Instant::now() + TURN;
    let mut events = Vec::new();
    let mut next = wanted.at;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let fetched = reading.fetch(wanted.most.clamp(1, CHUNK), left, |record| {
            events.push(Arc::new(Event::of(&wanted.stream, wanted.partition, &record)));
        });
        match fetched {
            Ok(fetched) => {
                let has_moved = fetched.next.get() > next;
                next = next.max(fetched.next.get());
                if has_moved || fetched.end.is_some() || Instant::now() >= deadline {
                    return Outcome::Read(events, next);
                }
            }
            Err(Unread::OutOfRange(_)) if events.is_empty() => return Outcome::Gone,
            Err(Unread::OutOfRange(_)) => return Outcome::Read(events, next),
            Err(Unread::Failed(error)) => return Outcome::Failed(error.to_string()),
        }
    }
}
