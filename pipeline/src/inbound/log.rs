//! The log of commands as this process has read it: which commands there are, and which are still to be done.
//!
//! Every process reads all of it, from the beginning: the log decides whose record of an id is the first, and
//! nothing else does. A command takes some hundred bytes here for good, so that its answer can be given again.
//!
//! **Invariant:** what stands here stood in the log, in its order; a record that isn't a command's is passed over,
//! counted, and said.

mod reading;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::Thread,
};

use aion_kafka::{Connection, Error};
use aion_schemas::log::Timestamp;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    COMMANDS,
    command::{Command, Content, Entry, Id, Outcome},
};

/// What is known of a command.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who sent it.
    pub actor: Arc<str>,
    /// For which tenant.
    pub tenant: Option<Box<str>>,
    /// What is to be done.
    pub action: Arc<str>,
    /// What it comes to.
    pub content: Content,
    /// When it was taken in.
    pub received_at: Timestamp,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// Whether its audit event is known to be acknowledged.
    pub is_audited: bool,
}

/// A command that is to be done.
#[derive(Clone, Debug)]
pub struct Open {
    /// The partition that its record stands in.
    pub partition: i32,
    /// The latest time at which a command of that partition was received, up to this one: it never falls, so all
    /// processes put the partitions of an actor together in one order.
    pub at: Timestamp,
    /// The command.
    pub command: Arc<Command>,
}

/// So much may wait for the control plane; beyond it nothing more is taken in.
const MOST_OPEN: Size = Size { count: 100_000, bytes: 256 << 20 };
/// And so much of one actor's, so that one whose commands the control plane fails on leaves room for others.
const MOST_OPEN_OF_ONE: Size = Size { count: 10_000, bytes: 32 << 20 };

/// Of whom too much waits for the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Of the actor that sends more.
    OfActor,
    /// Of all together.
    OfAll,
}

/// So many commands, and the bytes that they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many.
    pub count: usize,
    /// How many bytes.
    pub bytes: usize,
}

impl Size {
    /// Whether it is as much as `most`, in number or in bytes.
    fn reaches(self, most: Size) -> bool {
        self.count >= most.count || self.bytes >= most.bytes
    }

    fn add(&mut self, command: &Command) {
        self.count += 1;
        self.bytes += command.bytes();
    }

    fn subtract(&mut self, command: &Command) {
        self.count -= 1;
        self.bytes -= command.bytes();
    }
}

/// What is to be done for one actor.
#[derive(Debug, Default)]
pub struct Queue {
    commands: VecDeque<Open>,
    size: Size,
}

impl Queue {
    /// In order.
    pub fn commands(&self) -> impl Iterator<Item = &Open> {
        self.commands.iter()
    }

    /// The one to be done next.
    pub fn first(&self) -> Option<&Open> {
        self.commands.front()
    }

    /// Adds one in the order of its partition. Partitions that were added may have taken some of an actor's: among
    /// those of several, who came first is done first.
    fn insert(&mut self, open: Open) {
        let place = |open: &Open| (open.at, open.partition);
        let comes_later = |other: &Open| place(other) > place(&open);
        let later = self.commands.iter().rev().take_while(|one| comes_later(one)).count();
        self.commands.insert(self.commands.len() - later, open);
    }

    /// How much it is.
    pub fn size(&self) -> Size {
        self.size
    }
}

/// What was read.
#[derive(Debug, Default)]
pub struct State {
    known: HashMap<Id, Known>,
    /// Commands without an outcome: for each actor in order.
    open: BTreeMap<Arc<str>, Queue>,
    open_size: Size,
    /// For each partition when a command was received last.
    latest: BTreeMap<i32, Timestamp>,
    /// Names of actions, each once.
    actions: BTreeSet<Arc<str>>,
    waiting: HashMap<Id, Vec<oneshot::Sender<()>>>,
    /// Who wants to know when all is read that stands in the log now.
    catching_up: Vec<oneshot::Sender<()>>,
    is_read: bool,
    trouble: Option<String>,
    ignored: u64,
}

/// The log, and the thread that reads it.
#[derive(Debug, Default)]
pub struct Log {
    state: Mutex<State>,
    /// Something was read.
    pub news: Notify,
    reading: OnceLock<Thread>,
}

impl State {
    /// Whether the log has been read to the end that it had when this process began, and can be read on.
    pub fn is_ready(&self) -> bool {
        self.is_read && self.trouble.is_none()
    }

    /// Why it can't be read, if it can't.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// A command.
    pub fn find(&self, id: Id) -> Option<&Known> {
        self.known.get(&id)
    }

    /// What is to be done, for each actor in order.
    pub fn open(&self) -> &BTreeMap<Arc<str>, Queue> {
        &self.open
    }

    /// How much is to be done.
    pub fn open_size(&self) -> Size {
        self.open_size
    }

    /// Whether so much waits already that no more of an actor's is taken in.
    pub fn full_for(&self, actor: &str) -> Option<Full> {
        let of_actor = self.open.get(actor).map(Queue::size).unwrap_or_default();
        if of_actor.reaches(MOST_OPEN_OF_ONE) {
            return Some(Full::OfActor);
        }
        self.open_size.reaches(MOST_OPEN).then_some(Full::OfAll)
    }

    /// When the oldest of them was taken in.
    pub fn oldest_open(&self) -> Option<Timestamp> {
        let firsts = self.open.values().filter_map(Queue::first);
        firsts.map(|open| open.command.received_at).min()
    }

    /// Records that were passed over.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Its audit event is acknowledged.
    pub fn audited(&mut self, id: Id) {
        if let Some(known) = self.known.get_mut(&id) {
            known.is_audited = true;
        }
    }

    /// Takes a record of the log in.
    fn take(&mut self, partition: i32, entry: Entry) {
        match entry {
            Entry::Accepted(command) => self.accepted(partition, command),
            Entry::Ended(id, outcome) => self.ended(id, outcome),
        }
    }

    /// The first record of an id is the command, a later one a replay of it.
    fn accepted(&mut self, partition: i32, command: Command) {
        let id = command.id;
        let latest = self.latest.entry(partition).or_insert(command.received_at);
        *latest = command.received_at.max(*latest);
        let at = *latest;
        if !self.known.contains_key(&id) {
            let action = self.actions.get(&*command.action).cloned();
            let action = action.unwrap_or_else(|| command.action.as_str().into());
            self.actions.insert(Arc::clone(&action));
            self.known.insert(
                id,
                Known {
                    actor: Arc::clone(&command.actor),
                    tenant: command.tenant.as_deref().map(Into::into),
                    action,
                    content: command.content,
                    received_at: command.received_at,
                    outcome: None,
                    is_audited: false,
                },
            );
            self.open_size.add(&command);
            let queue = self.open.entry(Arc::clone(&command.actor)).or_default();
            queue.size.add(&command);
            queue.insert(Open { partition, at, command: Arc::new(command) });
        }
        self.tell(id);
    }

    /// The first outcome of a command is its outcome.
    fn ended(&mut self, id: Id, outcome: Outcome) {
        let Some(known) = self.known.get_mut(&id) else {
            self.ignored += 1;
            return tracing::warn!("{COMMANDS}: an outcome of {id}, which isn't there");
        };
        if known.outcome.is_none() {
            known.outcome = Some(outcome);
            // Its own audit event was acknowledged before the outcome was written.
            known.is_audited = true;
            if let Some(queue) = self.open.get_mut(&known.actor) {
                if let Some(at) = queue.commands.iter().position(|open| open.command.id == id)
                    && let Some(open) = queue.commands.remove(at)
                {
                    self.open_size.subtract(&open.command);
                    queue.size.subtract(&open.command);
                }
                if queue.commands.is_empty() {
                    self.open.remove(&known.actor);
                }
            }
        }
        self.tell(id);
    }

    fn tell(&mut self, id: Id) {
        for waiting in self.waiting.remove(&id).unwrap_or_default() {
            // Whoever waited may be gone.
            waiting.send(()).ok();
        }
    }
}

impl Log {
    /// Starts to read; it goes on until `shutdown`.
    pub fn start(connection: Connection, shutdown: CancellationToken) -> Result<Arc<Log>, Error> {
        let log = Arc::new(Log::default());
        let thread = Arc::clone(&log);
        std::thread::Builder::new()
            .name("commands-log".into())
            .spawn(move || reading::keep(&thread, &connection, &shutdown))
            .map_err(|cause| Error::Configuration {
                doing: "start the thread that reads commands".into(),
                detail: cause.to_string(),
            })?;
        Ok(log)
    }

    /// What was read, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when the next record of that id is read.
    pub fn wait_for(&self, id: Id) -> oneshot::Receiver<()> {
        let (told, waiting) = oneshot::channel();
        let mut state = self.lock();
        let all = state.waiting.entry(id).or_default();
        all.retain(|one| !one.is_closed());
        all.push(told);
        drop(state);
        if let Some(thread) = self.reading.get() {
            thread.unpark();
        }
        waiting
    }

    /// Tells when all is read that stands in the log now. Where it has to be read anew it doesn't tell: ask again.
    pub fn catch_up(&self) -> oneshot::Receiver<()> {
        let (told, waiting) = oneshot::channel();
        self.lock().catching_up.push(told);
        if let Some(thread) = self.reading.get() {
            thread.unpark();
        }
        waiting
    }

    /// Nobody waits for that id any more, or somebody else still does.
    pub fn forget(&self, id: Id) {
        let mut state = self.lock();
        if let Some(all) = state.waiting.get_mut(&id) {
            all.retain(|one| !one.is_closed());
            if all.is_empty() {
                state.waiting.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
