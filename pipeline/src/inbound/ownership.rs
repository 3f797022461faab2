//! Which partitions of the log of commands are this process's to carry out: one consumer group shares them.
//!
//! Its member reads nothing: the log is read by everybody anyway.
//!
//! **Invariant:** a partition that is asked for back is given back once nothing of it is under way here, or when an
//! exchange and the record of its outcome have had their time. A process that has lost one without noticing dispatches
//! a command that another dispatches too, with the same id.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aion_kafka::{Connection, Consumer, Error, Event, Limits};
use tokio::sync::watch::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::{COMMANDS, GROUP};

/// How long the thread waits for events before it looks whether it shall end.
const POLL: Duration = Duration::from_millis(100);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(5);
/// The same trouble is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// The partitions of this process, each with how many times partitions had been given to it by then: one that was
/// lost and came back is another.
pub(super) type Owned = BTreeMap<i32, u64>;

/// A member of the group.
pub(super) struct Member {
    /// The partitions of this process.
    pub(super) owned: Receiver<Arc<Owned>>,
    under_way: UnderWay,
    thread: JoinHandle<()>,
}

/// How many commands of each partition are under way.
#[derive(Clone, Default)]
struct UnderWay(Arc<Mutex<BTreeMap<i32, usize>>>);

/// A command under way, until this is dropped.
pub(super) struct Turn {
    under_way: UnderWay,
    owned: Receiver<Arc<Owned>>,
    partition: i32,
    given: u64,
}

impl Turn {
    /// Whether the partition hasn't been asked back since.
    pub(super) fn is_ours(&self) -> bool {
        self.owned.borrow().get(&self.partition) == Some(&self.given)
    }
}

impl UnderWay {
    fn change(&self, partition: i32, by: isize) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(partition).or_default();
        *count = count.saturating_add_signed(by);
    }

    /// Waits until nothing is under way in partitions that nothing new begins in.
    fn wait_for(&self, partitions: &BTreeSet<i32>, most: Duration) {
        let until = Instant::now() + most;
        let is_busy = || {
            let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            partitions.iter().any(|partition| counts.get(partition).is_some_and(|count| *count > 0))
        };
        while is_busy() {
            if Instant::now() > until {
                return tracing::warn!(?partitions, "commands: given back with some under way");
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.under_way.change(self.partition, -1);
    }
}

impl Member {
    /// Begins a command of a partition, if that is this process's since it was given; the command is under way
    /// until the turn is dropped.
    pub(super) fn begin(&self, partition: i32, given: u64) -> Option<Turn> {
        // While this is held nothing is given back.
        let owned = self.owned.borrow();
        (owned.get(&partition) == Some(&given)).then(|| {
            self.under_way.change(partition, 1);
            let (under_way, owned) = (self.under_way.clone(), self.owned.clone());
            Turn { under_way, owned, partition, given }
        })
    }

    /// Waits until it has left the group, which it does after `shutdown`.
    pub(super) async fn left(self) {
        let waiting = tokio::task::spawn_blocking(move || self.thread.join());
        if !matches!(waiting.await, Ok(Ok(()))) {
            tracing::error!("the thread of the group of commands panicked");
        }
    }
}

/// Joins the group, and tells which partitions it gives, until `shutdown`; what is under way has so much `patience`.
pub(super) fn join(
    connection: &Connection,
    patience: Duration,
    shutdown: CancellationToken,
) -> Result<Member, Error> {
    let consumer = Consumer::open(connection, GROUP, &[COMMANDS], Limits::default())?;
    let (told, owned) = watch::channel(Arc::default());
    let under_way = UnderWay::default();
    let waited_for = under_way.clone();
    let thread = std::thread::Builder::new()
        .name("commands-group".into())
        .spawn(move || run(consumer, (&told, &waited_for, patience), &shutdown))
        .map_err(|cause| Error::Configuration {
            doing: "start the thread of the group of commands".into(),
            detail: cause.to_string(),
        })?;
    Ok(Member { owned, under_way, thread })
}

fn run(
    mut consumer: Consumer,
    (told, under_way, patience): (&Sender<Arc<Owned>>, &UnderWay, Duration),
    shutdown: &CancellationToken,
) {
    let mut complained: Option<Instant> = None;
    let mut given = 0;
    while !shutdown.is_cancelled() {
        let Some(event) = consumer.poll(POLL) else { continue };
        let (partitions, is_given) = match event {
            Event::Assigned(partitions) => (partitions, true),
            Event::Revoked(partitions) | Event::Lost(partitions) => (partitions, false),
            Event::Failed(error) => {
                if complained.is_none_or(|at| at.elapsed() > TELL_AGAIN) {
                    complained = Some(Instant::now());
                    tracing::warn!("the group of commands: {error}");
                }
                continue;
            }
            Event::OutOfRange { .. } | Event::Truncated { .. } | Event::CommitFailed { .. } => {
                continue;
            }
        };
        let numbers: BTreeSet<i32> = partitions.iter().map(|one| one.partition).collect();
        if is_given {
            given += 1;
            change(told, |owned| owned.extend(numbers.iter().map(|number| (*number, given))));
        } else {
            change(told, |owned| owned.retain(|number, _| !numbers.contains(number)));
            under_way.wait_for(&numbers, patience);
        }
        // That answers the group. It keeps those that were given unread.
        if let Err(error) = consumer.release(&partitions) {
            tracing::debug!(%error, "the group of commands");
        }
    }
    let all = told.send_replace(Arc::default());
    under_way.wait_for(&all.keys().copied().collect(), patience);
    consumer.close(LEAVE);
}

fn change(told: &Sender<Arc<Owned>>, by: impl FnOnce(&mut Owned)) {
    told.send_modify(|owned| by(Arc::make_mut(owned)));
}
