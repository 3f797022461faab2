//! The log of commands as this process has read it: which commands there are, and which are still to be done.
//!
//! Every process reads all of it, from the beginning: the log decides whose record of an id is the first, and
//! nothing else does. A command takes some hundred bytes here for good, so that its answer can be given again.
//!
//! **Invariant:** what stands here stood in the log, in its order; a record that isn't a command's is passed over,
//! counted, and said.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::Thread,
    time::Duration,
};

use aion_kafka::{
    Admin, Connection, Error, Isolation, Limits, Reader, Reading, Spot, TopicPartition, Unread,
};
use aion_schemas::log::{Offset, Timestamp};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    COMMANDS,
    command::{Command, Content, Entry, Id, Outcome, read},
};

const FETCH: usize = 4_096;
/// How long to wait where nothing is new, and where somebody waits for it.
const PAUSE: Duration = Duration::from_millis(20);
const SHORT: Duration = Duration::from_millis(1);
/// The pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a question to the cluster may take.
const WAIT: Duration = Duration::from_secs(10);
/// How often it is asked whether the topic is still the one that is read.
const LOOK: Duration = Duration::from_secs(30);

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
    /// The command.
    pub command: Arc<Command>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct State {
    known: HashMap<Id, Known>,
    /// Commands without an outcome: for each actor in order.
    open: BTreeMap<Arc<str>, VecDeque<Open>>,
    open_count: usize,
    open_bytes: usize,
    /// Names of actions, each once.
    actions: BTreeSet<Arc<str>>,
    waiting: HashMap<Id, Vec<oneshot::Sender<()>>>,
    is_ready: bool,
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
    /// Whether the log has been read to the end that it had when this process began.
    pub fn is_ready(&self) -> bool {
        self.is_ready
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
    pub fn open(&self) -> &BTreeMap<Arc<str>, VecDeque<Open>> {
        &self.open
    }

    /// How many are to be done, and the bytes that they take.
    pub fn open_size(&self) -> (usize, usize) {
        (self.open_count, self.open_bytes)
    }

    /// When the oldest of them was taken in.
    pub fn oldest_open(&self) -> Option<Timestamp> {
        let firsts = self.open.values().filter_map(VecDeque::front);
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
            self.open_count += 1;
            self.open_bytes += command.bytes();
            let queue = self.open.entry(Arc::clone(&command.actor)).or_default();
            queue.push_back(Open { partition, command: Arc::new(command) });
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
                if let Some(at) = queue.iter().position(|open| open.command.id == id)
                    && let Some(open) = queue.remove(at)
                {
                    self.open_count -= 1;
                    self.open_bytes -= open.command.bytes();
                }
                if queue.is_empty() {
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
            .spawn(move || thread.keep(&connection, &shutdown))
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

    /// Reads, and begins anew where the topic is another or can't be read.
    fn keep(&self, connection: &Connection, shutdown: &CancellationToken) {
        self.reading.get_or_init(std::thread::current);
        while !shutdown.is_cancelled() {
            let Err(trouble) = self.read(connection, shutdown) else { return };
            tracing::error!("commands: {trouble}; read again in {} s", AGAIN.as_secs());
            let mut state = self.lock();
            // Nothing that was read is believed any more but by those who wait for more of it.
            let waiting = std::mem::take(&mut state.waiting);
            *state = State { waiting, trouble: Some(trouble), ..State::default() };
            drop(state);
            std::thread::sleep(AGAIN);
        }
    }

    fn read(&self, connection: &Connection, shutdown: &CancellationToken) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let admin = Admin::open(connection, WAIT).map_err(text)?;
        let (topic, count) = find(&admin)?;
        let at = |spot| -> Vec<_> {
            let numbers = 0..count as i32;
            numbers.map(|number| (TopicPartition::new(COMMANDS, number), spot)).collect()
        };
        let ends = admin.offsets(&at(Spot::Next), Isolation::Committed).map_err(text)?;
        let starts = admin.offsets(&at(Spot::First), Isolation::Committed).map_err(text)?;
        let reader = Reader::open(connection, "aion-commands", Limits::default()).map_err(text)?;
        let mut readings = Vec::with_capacity(count);
        for ((partition, _), start) in at(Spot::First).iter().zip(&starts) {
            readings.push((reader.start(partition, *start).map_err(text)?, *start));
        }
        let mut looked = std::time::Instant::now();
        while !shutdown.is_cancelled() {
            let mut has_moved = false;
            for (number, (reading, next)) in readings.iter_mut().enumerate() {
                has_moved |= self.fetch(number as i32, reading, next)?;
            }
            let is_at_end = readings.iter().zip(&ends).all(|((_, next), end)| next >= end);
            let mut state = self.lock();
            if is_at_end && !state.is_ready {
                (state.is_ready, state.trouble, has_moved) = (true, None, true);
            }
            let pause = if state.waiting.is_empty() { PAUSE } else { SHORT };
            drop(state);
            if has_moved {
                self.news.notify_one();
                continue;
            }
            if looked.elapsed() > LOOK {
                looked = std::time::Instant::now();
                if find(&admin)? != (topic, count) {
                    return Err(format!("{COMMANDS} isn't the topic that it was"));
                }
            }
            std::thread::park_timeout(pause);
        }
        Ok(())
    }

    /// Takes in what is new of a partition.
    fn fetch(
        &self,
        partition: i32,
        reading: &mut Reading,
        next: &mut Offset,
    ) -> Result<bool, String> {
        let mut entries = Vec::new();
        let fetched = reading.fetch(FETCH, Duration::ZERO, |record| {
            entries.push((record.offset, read(record.key, record.value)));
        });
        let fetched = fetched.map_err(|unread| match unread {
            Unread::OutOfRange(at) => format!("{COMMANDS}[{partition}] has lost offset {at}"),
            Unread::Failed(error) => error.to_string(),
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

fn find(admin: &Admin) -> Result<(Uuid, usize), String> {
    let found = admin.topic_ids(&[COMMANDS]).map_err(|error| error.to_string())?;
    let found = found.first().and_then(|one| Some((one.id?, one.partitions)));
    found.ok_or_else(|| format!("there is no topic {COMMANDS}: run `aion bootstrap`"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use serde_json::{Map, json};

    use super::*;

    fn command(actor: &str, key: &str, module: &str) -> Command {
        let parameters = Map::from_iter([("module".to_owned(), json!(module))]);
        let what = ("install_module".to_owned(), &parameters);
        Command::new((actor.into(), None), what, key.to_owned(), Timestamp(5))
    }

    fn outcome(succeeded: bool) -> Outcome {
        Outcome { succeeded, detail: "HTTP 200".into(), at: Timestamp(9) }
    }

    fn open(state: &State, actor: &str) -> Vec<String> {
        let queue = state.open().get(actor).into_iter().flatten();
        queue.map(|open| open.command.key.clone()).collect()
    }

    #[test]
    fn the_first_record_of_an_id_is_the_command() {
        let mut state = State::default();
        state.take(0, Entry::Accepted(command("a", "k", "one")));
        state.take(0, Entry::Accepted(command("a", "k", "two")));
        let first = command("a", "k", "one");
        assert_eq!(state.find(first.id).unwrap().content, first.content);
        assert_eq!((state.open_size().0, open(&state, "a")), (1, vec!["k".to_owned()]));
        assert_eq!(state.open()["a"][0].command.parameters, r#"{"module":"one"}"#);
    }

    #[test]
    fn what_is_open_is_in_order_and_ends_once() {
        let mut state = State::default();
        for key in ["1", "2", "3"] {
            state.take(0, Entry::Accepted(command("a", key, "m")));
        }
        state.take(1, Entry::Accepted(command("b", "1", "m")));
        assert_eq!(open(&state, "a"), ["1", "2", "3"]);
        let (second, of_b) = (command("a", "2", "m").id, command("b", "1", "m").id);
        state.take(0, Entry::Ended(second, outcome(true)));
        state.take(0, Entry::Ended(second, outcome(false)));
        state.take(1, Entry::Ended(of_b, outcome(false)));
        assert_eq!(open(&state, "a"), ["1", "3"]);
        assert!(state.find(second).unwrap().outcome.as_ref().unwrap().succeeded, "the first one");
        assert!(state.find(second).unwrap().is_audited);
        assert!(!state.open().contains_key("b"));
        state.take(0, Entry::Ended(command("a", "1", "m").id, outcome(true)));
        state.take(0, Entry::Ended(command("a", "3", "m").id, outcome(true)));
        assert_eq!((state.open_size(), state.oldest_open()), ((0, 0), None));
        // Accepted again after it has ended, it isn't to be done again.
        state.take(0, Entry::Accepted(command("a", "1", "m")));
        assert_eq!(state.open_size().0, 0);
    }

    #[test]
    fn an_outcome_of_nothing_is_passed_over() {
        let mut state = State::default();
        state.take(0, Entry::Ended(command("a", "1", "m").id, outcome(true)));
        assert_eq!(state.ignored(), 1);
        state.take(0, Entry::Accepted(command("a", "1", "m")));
        assert_eq!(state.open_size().0, 1, "it is to be done all the same");
    }
}
