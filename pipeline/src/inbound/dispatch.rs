//! Has commands carried out: those of an actor one after the other, those of several side by side.
//!
//! ```text
//!  log ── what is open ──►┌────────────┐── attempt: audit event, dispatch, outcome ──► task
//!  group ── partitions ──►│ dispatcher │◄── ended, or again ──────────────────────────────┘
//!                         └────────────┘
//! ```
//!
//! **Invariant:** of an actor one command is under way, the oldest that is open; the next one waits until the log
//! shows its outcome.
//! **Invariant:** a partition that was given to this process is served once all is read that stood in the log by then:
//! whoever had it before has recorded there what it ended.
//! **Invariant:** what failed is tried again until the control plane has answered for good.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aion_kafka::Connection;
use rand::Rng;
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        oneshot::Receiver,
    },
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    command::{Command, Outcome},
    log::Open,
    metrics::{Counters, count},
    ownership::{self, Member, Owned, Turn},
    records::Records,
    target::{Again, MOST_IN_FLIGHT, RETRY, Shared},
};
use crate::webhooks::{
    breaker::{Breaker, Permit},
    cursor::Millis,
    engine::now,
};

/// How long, beside an exchange, what is under way is waited for: its outcome is to be recorded.
const RECORDED: Duration = Duration::from_secs(10);
/// How long one record may take to be acknowledged before it is sent again.
const WRITE: Duration = Duration::from_secs(30);
/// The pause before joining the group is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest the dispatcher sleeps.
const LONGEST: Duration = Duration::from_secs(1);

/// What the dispatcher works with.
#[derive(Clone, Debug)]
pub struct Around {
    /// Writes and reads what has to be known later.
    pub records: Records,
    /// Who carries commands out.
    pub target: Shared,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// An actor whose commands are at work.
#[derive(Debug, Default)]
struct Lane {
    is_busy: bool,
    attempts: u32,
    /// Conflicts in a row that the control plane answered.
    conflicts: u32,
    /// When it may be served next, or was served last.
    due: Millis,
}

/// How an attempt ended.
#[derive(Debug)]
struct Done {
    actor: Arc<str>,
    outcome: Result<(), Again>,
    /// Whether the control plane was asked at all.
    was_asked: bool,
}

struct Dispatcher {
    around: Around,
    member: Member,
    /// The partitions that are served: of those that were given, those whose log is read since.
    served: Owned,
    lanes: HashMap<Arc<str>, Lane>,
    in_flight: usize,
    breaker: Breaker,
    done: UnboundedSender<Done>,
    shutdown: CancellationToken,
}

/// Carries out what is to be done in the partitions of this process, until `shutdown`.
pub async fn run(connection: Connection, around: Around, shutdown: CancellationToken) {
    let patience = around.target.longest() + RECORDED;
    while !shutdown.is_cancelled() {
        match ownership::join(&connection, patience, shutdown.clone()) {
            Ok(member) => serve(member, around.clone(), patience, &shutdown).await,
            Err(cause) => {
                tracing::error!("commands: {cause}; tried again in {} s", AGAIN.as_secs());
                shutdown.run_until_cancelled(sleep(AGAIN)).await;
            }
        }
    }
}

/// Does so as a member of the group, until `shutdown` or until the membership breaks.
async fn serve(member: Member, around: Around, patience: Duration, shutdown: &CancellationToken) {
    let (done, mut ended) = mpsc::unbounded_channel();
    let mut given = member.owned.clone();
    let mut dispatcher = Dispatcher {
        around,
        member,
        served: Owned::default(),
        lanes: HashMap::new(),
        in_flight: 0,
        breaker: Breaker::default(),
        done,
        shutdown: shutdown.clone(),
    };
    let log = Arc::clone(&dispatcher.around.records.log);
    let mut catching_up = None;
    while !shutdown.is_cancelled() {
        let owned = Arc::clone(&given.borrow_and_update());
        dispatcher.served.retain(|number, since| owned.get(number) == Some(since));
        if catching_up.is_none() && dispatcher.served != *owned {
            catching_up = Some((owned, log.catch_up()));
        }
        let pause = dispatcher.start_due();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = log.news.notified() => {}
            changed = given.changed() => {
                if changed.is_err() {
                    // The thread has ended, which without `shutdown` only a panic does.
                    break;
                }
            }
            is_read = read_up(&mut catching_up) => {
                // If not, the log is being read anew: it is asked again.
                let asked = catching_up.take().filter(|_| is_read);
                dispatcher.served.extend(asked.iter().flat_map(|(owned, _)| owned.iter()));
            }
            Some(one) = ended.recv() => dispatcher.note(one),
            () = sleep(pause) => {}
        }
        while let Ok(one) = ended.try_recv() {
            dispatcher.note(one);
        }
    }
    let member = dispatcher.drain(&mut ended, patience).await;
    member.left().await;
}

/// Whether all is read that was to be read, once that is known; waits for ever where nothing is.
async fn read_up(catching_up: &mut Option<(Arc<Owned>, Receiver<()>)>) -> bool {
    match catching_up {
        Some((_, told)) => told.await.is_ok(),
        None => std::future::pending().await,
    }
}

impl Dispatcher {
    /// Starts what is due, who waits longest first: an actor whose command the control plane fails on must not
    /// take every probe, nor one with a small name every place. How long until more is due.
    fn start_due(&mut self) -> Duration {
        let now = now();
        let mut next = now + LONGEST.as_millis() as Millis;
        let mut starting = Vec::new();
        {
            let state = self.around.records.log.lock();
            if !state.is_ready() {
                return LONGEST;
            }
            for (actor, queue) in state.open() {
                let Some(first) = queue.first() else { continue };
                let lane = self.lanes.get(actor);
                let Some(since) = self.served.get(&first.partition) else { continue };
                if lane.is_some_and(|lane| lane.is_busy) {
                    continue;
                }
                if let Some(lane) = lane.filter(|lane| lane.due > now) {
                    next = next.min(lane.due);
                    continue;
                }
                let due = lane.map_or(0, |lane| lane.due);
                starting.push((due, *since, first.clone()));
            }
        }
        starting.sort_by_key(|(due, ..)| *due);
        for (_, since, Open { partition, command, .. }) in
            starting.into_iter().take(MOST_IN_FLIGHT - self.in_flight)
        {
            // It may have been asked back a moment ago.
            let Some(turn) = self.member.begin(partition, since) else { continue };
            match self.breaker.permit(now) {
                Permit::Any => {}
                Permit::Probe => self.breaker.probe(),
                Permit::Nothing => break,
            }
            self.start(command, turn);
        }
        // Lanes of actors who have nothing open are forgotten.
        if self.lanes.len() > 2 * MOST_IN_FLIGHT {
            let state = self.around.records.log.lock();
            self.lanes.retain(|actor, lane| lane.is_busy || state.open().contains_key(actor));
        }
        Duration::from_millis((next - now).max(1) as u64)
    }

    fn start(&mut self, command: Arc<Command>, turn: Turn) {
        let actor = Arc::clone(&command.actor);
        let lane = self.lanes.entry(Arc::clone(&actor)).or_default();
        lane.is_busy = true;
        let conflicts = lane.conflicts;
        self.in_flight += 1;
        let (around, done) = (self.around.clone(), self.done.clone());
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let attempt = tokio::spawn(async move {
                let mut was_asked = false;
                let work = (&*command, conflicts, &turn);
                let outcome = attempt(&around, work, &mut was_asked, &shutdown).await;
                (outcome, was_asked)
            });
            // Whatever becomes of it, its actor is free again.
            let (outcome, was_asked) = attempt
                .await
                .unwrap_or_else(|cause| (Err(format!("the attempt broke: {cause}").into()), true));
            // Nobody listens any more where the process has stopped.
            drop(done.send(Done { actor, outcome, was_asked }));
        });
    }

    fn note(&mut self, Done { actor, outcome, was_asked }: Done) {
        self.in_flight -= 1;
        let (now, chance) = (now(), rand::rng().random());
        let lane = self.lanes.entry(Arc::clone(&actor)).or_default();
        lane.is_busy = false;
        match outcome {
            Ok(()) => {
                *lane = Lane { due: now, ..Lane::default() };
                self.breaker.succeeded();
            }
            Err(Again { why, after, is_conflict }) => {
                lane.conflicts = if is_conflict { lane.conflicts + 1 } else { 0 };
                lane.attempts = lane.attempts.saturating_add(1);
                let pause = RETRY.pause(lane.attempts, chance, after);
                lane.due = now + pause.as_millis() as Millis;
                count(&self.around.counters.retried);
                if was_asked {
                    self.breaker.failed(now, &RETRY, chance);
                } else {
                    self.breaker.unprobed();
                }
                tracing::warn!(%actor, attempts = lane.attempts, "a command is tried again: {why}");
            }
        }
    }

    /// Waits a moment for what is under way; what doesn't end is dispatched again by the next process.
    async fn drain(mut self, ended: &mut UnboundedReceiver<Done>, most: Duration) -> Member {
        let until = Instant::now() + most;
        while self.in_flight > 0 {
            let Ok(Some(one)) = tokio::time::timeout_at(until, ended.recv()).await else {
                tracing::warn!("commands: {} are left under way", self.in_flight);
                break;
            };
            self.note(one);
        }
        self.member
    }
}

/// Has one command carried out, and records how it ended. An answer that the control plane has given is recorded
/// however long that takes: asking again would be asking twice.
async fn attempt(
    around: &Around,
    (command, conflicts, turn): (&Command, u32, &Turn),
    was_asked: &mut bool,
    shutdown: &CancellationToken,
) -> Result<(), Again> {
    let Around { records, target, counters } = around;
    records.accepted(command.id, Instant::now() + WRITE).await?;
    if !turn.is_ours() {
        // Another process is to ask, and isn't kept waiting.
        return Err("its partition is another's by now".to_owned().into());
    }
    *was_asked = true;
    let outcome = target.dispatch(command, conflicts, records).await?;
    loop {
        match records.outcome(command, &outcome, Instant::now() + WRITE).await {
            Ok(()) => break,
            Err(cause) if shutdown.is_cancelled() => return Err(cause.into()),
            Err(cause) => {
                tracing::error!("the outcome of {} isn't recorded: {cause}", command.id);
                sleep(LONGEST).await;
            }
        }
    }
    let Outcome { succeeded, .. } = outcome;
    count(if succeeded { &counters.succeeded } else { &counters.failed });
    Ok(())
}
