//! The thread that reads the log of commands.
//!
//! | what goes wrong | and then |
//! |---|---|
//! | a broker doesn't answer, the topic isn't there for a moment | what was read holds; read on where it ended |
//! | partitions were added | the same, with the new ones from their beginning |
//! | the topic is another, or has lost what wasn't read yet | nothing that was read holds; read anew |

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_kafka::{
    Admin, Connection, Error, Isolation, Limits, Reader, Reading, Spot, TopicPartition, Unread,
};
use aion_schemas::log::Offset;
use tokio::sync::oneshot::Sender;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{COMMANDS, Log, State};
use crate::inbound::command::read as read_record;

const FETCH: usize = 4_096;
/// How long to wait where nothing is new, and where somebody waits for it.
const PAUSE: Duration = Duration::from_millis(20);
const SHORT: Duration = Duration::from_millis(1);
/// The pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a question to the cluster may take.
const WAIT: Duration = Duration::from_secs(10);
/// After this long without a record, where some are known to be there, something is wrong.
const STALLED: Duration = Duration::from_secs(30);
/// How often it is asked whether the topic is still the one that is read.
const LOOK: Duration = Duration::from_secs(30);

/// Why reading ended.
#[derive(Debug)]
enum Trouble {
    /// What was read holds.
    Passing(String),
    /// It doesn't.
    Anew(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Passing(error.to_string())
    }
}

/// How far the log is read.
struct Place {
    topic: Uuid,
    next: Vec<Offset>,
}

/// Somebody to tell when all is read below these ends.
struct Goal {
    ends: Vec<Offset>,
    told: Vec<Sender<()>>,
}

/// Reads until `shutdown`.
pub(super) fn keep(log: &Arc<Log>, connection: &Connection, shutdown: &CancellationToken) {
    log.reading.get_or_init(std::thread::current);
    let mut place = None;
    while !shutdown.is_cancelled() {
        let Err(trouble) = read(log, connection, &mut place, shutdown) else { return };
        let mut state = log.lock();
        let cause = match trouble {
            Trouble::Passing(cause) => cause,
            Trouble::Anew(cause) => {
                place = None;
                // Nothing that was read is believed any more but by those who wait for more of it.
                let waiting = std::mem::take(&mut state.waiting);
                *state = State { waiting, ..State::default() };
                cause
            }
        };
        tracing::error!("commands: {cause}; read on in {} s", AGAIN.as_secs());
        state.trouble = Some(cause);
        drop(state);
        std::thread::sleep(AGAIN);
    }
}

fn read(
    log: &Log,
    connection: &Connection,
    place: &mut Option<Place>,
    shutdown: &CancellationToken,
) -> Result<(), Trouble> {
    let admin = Admin::open(connection, WAIT)?;
    let (topic, count) = find(&admin)?;
    let first = admin.offsets(&at(Spot::First, count), Isolation::Committed)?;
    if place.is_none() {
        say_what_would_be_forgotten(&admin);
    }
    let place = goes_on(place, topic, &first)?;
    let reader = Reader::open(connection, "aion-commands", Limits::default())?;
    let mut readings = Vec::with_capacity(count);
    for ((partition, _), next) in at(Spot::First, count).iter().zip(&place.next) {
        readings.push(reader.start(partition, *next)?);
    }
    let ends = || admin.offsets(&at(Spot::Next, count), Isolation::Committed);
    // The first goal is what stands there as reading begins.
    let mut goals = vec![Goal { ends: ends()?, told: Vec::new() }];
    let (mut looked, mut moved) = (Instant::now(), Instant::now());
    while !shutdown.is_cancelled() {
        let mut has_moved = false;
        for (number, reading) in readings.iter_mut().enumerate() {
            has_moved |= log.fetch(number as i32, reading, &mut place.next[number])?;
        }
        let told = std::mem::take(&mut log.lock().catching_up);
        if !told.is_empty() {
            goals.push(Goal { ends: ends()?, told });
        }
        let before = goals.len();
        goals.retain_mut(|goal| !goal.is_reached(&place.next));
        let mut state = log.lock();
        if goals.len() < before && !state.is_ready() {
            (state.is_read, state.trouble) = (true, None);
        }
        let pause = if state.waiting.is_empty() { PAUSE } else { SHORT };
        drop(state);
        if has_moved || goals.len() < before {
            moved = Instant::now();
            log.news.notify_one();
            continue;
        }
        if goals.is_empty() {
            moved = Instant::now();
        } else if moved.elapsed() > STALLED {
            let cause = reader.complaint().map_or_else(String::new, |error| format!(": {error}"));
            return Err(Trouble::Passing(format!("{COMMANDS} isn't read to its end{cause}")));
        }
        if looked.elapsed() > LOOK {
            looked = Instant::now();
            if find(&admin)? != (topic, count) {
                return Err(Trouble::Passing(format!("{COMMANDS} isn't as it was")));
            }
        }
        std::thread::park_timeout(pause);
    }
    Ok(())
}

/// Says so where the cluster lets go of commands by itself. An account that may not look is no reason to stop.
fn say_what_would_be_forgotten(admin: &Admin) {
    let Ok(settings) = admin.describe_configs(COMMANDS) else { return };
    for (setting, value, _) in settings {
        let Some(value) = value else { continue };
        let keeps_all = match &*setting {
            "retention.ms" | "retention.bytes" => value == "-1",
            "cleanup.policy" => value == "delete",
            _ => true,
        };
        if !keeps_all {
            tracing::warn!(
                setting,
                value,
                "commands: their log isn't kept for good: commands that it lets go of aren't carried out, and \
                 their answers aren't known any more; `aion bootstrap` sets what is wanted"
            );
        }
    }
}

/// Where to read on, or from the beginning.
fn goes_on<'a>(
    place: &'a mut Option<Place>,
    topic: Uuid,
    first: &[Offset],
) -> Result<&'a mut Place, Trouble> {
    let place = place.get_or_insert_with(|| Place { topic, next: Vec::new() });
    if place.topic != topic || place.next.len() > first.len() {
        return Err(Trouble::Anew(format!("{COMMANDS} isn't the topic that it was")));
    }
    let new = place.next.len();
    place.next.extend(&first[new..]);
    Ok(place)
}

fn at(spot: Spot, partitions: usize) -> Vec<(TopicPartition, Spot)> {
    let numbers = 0..partitions as i32;
    numbers.map(|number| (TopicPartition::new(COMMANDS, number), spot)).collect()
}

fn find(admin: &Admin) -> Result<(Uuid, usize), Trouble> {
    let found = admin.topic_ids(&[COMMANDS])?;
    let found = found.first().and_then(|one| Some((one.id?, one.partitions)));
    let missing = || format!("there is no topic {COMMANDS}: run `aion bootstrap`");
    found.ok_or_else(|| Trouble::Passing(missing()))
}

impl Goal {
    /// Tells, if it is reached.
    fn is_reached(&mut self, next: &[Offset]) -> bool {
        let is_reached = next.iter().zip(&self.ends).all(|(next, end)| next >= end);
        if is_reached {
            for told in self.told.drain(..) {
                // Whoever waited may be gone.
                told.send(()).ok();
            }
        }
        is_reached
    }
}

impl Log {
    /// Takes in what is new of a partition.
    fn fetch(
        &self,
        partition: i32,
        reading: &mut Reading,
        next: &mut Offset,
    ) -> Result<bool, Trouble> {
        let mut entries = Vec::new();
        let fetched = reading.fetch(FETCH, Duration::ZERO, |record| {
            entries.push((record.offset, read_record(record.key, record.value)));
        });
        let fetched = fetched.map_err(|unread| match unread {
            Unread::OutOfRange(at) => {
                Trouble::Anew(format!("{COMMANDS}[{partition}] has lost offset {at}"))
            }
            Unread::Failed(error) => error.into(),
        })?;
        let has_moved = fetched.next > *next;
        *next = fetched.next;
        if entries.is_empty() {
            return Ok(has_moved);
        }
        let mut state = self.lock();
        for (offset, entry) in entries {
            match entry {
                Ok(entry) => state.take(partition, entry),
                Err(reason) => {
                    state.ignored += 1;
                    tracing::warn!("{COMMANDS}[{partition}] at {offset} is no command: {reason}");
                }
            }
        }
        Ok(true)
    }
}
