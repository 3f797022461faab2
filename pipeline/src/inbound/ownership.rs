//! Which partitions of the log of commands are this process's to carry out: one consumer group shares them.
//!
//! Its member reads nothing: the log is read by everybody anyway. A process that has lost a partition without
//! noticing dispatches a command that another dispatches too, with the same id.

use std::{
    collections::BTreeSet,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aion_kafka::{Connection, Consumer, Error, Event, Limits, TopicPartition};
use tokio::sync::watch::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::{COMMANDS, GROUP};

/// How long the thread waits for events before it looks whether it shall end.
const POLL: Duration = Duration::from_millis(100);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(5);
/// The same trouble is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// The partitions of this process.
pub(super) type Owned = Arc<BTreeSet<i32>>;

/// A member of the group.
pub(super) struct Member {
    /// The partitions of this process.
    pub(super) owned: Receiver<Owned>,
    thread: JoinHandle<()>,
}

impl Member {
    /// Waits until it has left the group, which it does after `shutdown`.
    pub(super) async fn left(self) {
        let waiting = tokio::task::spawn_blocking(move || self.thread.join());
        if !matches!(waiting.await, Ok(Ok(()))) {
            tracing::error!("the thread of the group of commands panicked");
        }
    }
}

/// Joins the group, and tells which partitions it gives, until `shutdown`.
pub(super) fn join(connection: &Connection, shutdown: CancellationToken) -> Result<Member, Error> {
    let consumer = Consumer::open(connection, GROUP, &[COMMANDS], Limits::default())?;
    let (told, owned) = watch::channel(Owned::default());
    let thread = std::thread::Builder::new()
        .name("commands-group".into())
        .spawn(move || run(consumer, &told, &shutdown))
        .map_err(|cause| Error::Configuration {
            doing: "start the thread of the group of commands".into(),
            detail: cause.to_string(),
        })?;
    Ok(Member { owned, thread })
}

fn run(mut consumer: Consumer, told: &Sender<Owned>, shutdown: &CancellationToken) {
    let mut complained: Option<Instant> = None;
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
        change(told, &partitions, is_given);
        // That answers the group. It keeps those that were given unread.
        if let Err(error) = consumer.release(&partitions) {
            tracing::debug!(%error, "the group of commands");
        }
    }
    told.send_replace(Owned::default());
    consumer.close(LEAVE);
}

fn change(told: &Sender<Owned>, partitions: &[TopicPartition], is_given: bool) {
    told.send_modify(|owned| {
        let mut all = (**owned).clone();
        for partition in partitions {
            if is_given {
                all.insert(partition.partition);
            } else {
                all.remove(&partition.partition);
            }
        }
        *owned = Arc::new(all);
    });
}
