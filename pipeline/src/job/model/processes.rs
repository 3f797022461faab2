//! Processes of the model and the group that they form: who owns what, who believes to, who was killed.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use aion_sinks::{budget::Budget, memory::Store, sink::Sink};

use super::{
    journal::ModelJournal,
    schedule::Options,
    sinks::Seam,
    source::{COLUMNS, Consumer, Scripted},
    world::{ModelClock, SINKS, Shared, TOPIC, World, lock, share},
};
use crate::job::{
    JobError,
    event_loop::{Clock, Job, Plan},
    rules::Rules,
    source::Event,
    status::StatusReader,
};

type Running = Pin<Box<dyn Future<Output = Result<(), JobError>> + Send>>;

/// One process: a job that runs only when it is polled.
pub(super) struct Process {
    running: Option<Running>,
    pub(super) consumer: Shared<Consumer>,
    pub(super) status: StatusReader,
    pub(super) budget: Budget,
    /// How many more times it is passed over.
    pub(super) frozen: u32,
    /// What it will be told later: that these partitions are gone.
    pub(super) late: Vec<i32>,
}

impl Process {
    pub(super) fn is_alive(&self) -> bool {
        self.running.is_some()
    }

    /// Kills it: what it held in memory is gone.
    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    /// Lets the job run until it waits; an end that nobody asked for is told.
    pub(super) fn poll(&mut self) -> Result<(), String> {
        let Some(running) = &mut self.running else { return Ok(()) };
        match running.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(()),
            Poll::Ready(outcome) => {
                self.running = None;
                match outcome {
                    Ok(()) | Err(JobError::Unwritten { .. }) => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    }
}

/// Everything a new process is made of, and the group.
pub(super) struct Processes {
    pub(super) world: Shared<World>,
    pub(super) stores: Vec<Store>,
    /// Rows of the first store that are under marks which nobody asks for any more.
    pub(super) unmarked: Option<Store>,
    pub(super) clock: ModelClock,
    pub(super) options: Options,
    /// How many of the sinks a new process has: a second one is added in mid schedule.
    pub(super) sinks: usize,
    pub(super) all: Vec<Process>,
    /// By partition: the process that the group thinks owns it.
    pub(super) owners: BTreeMap<i32, usize>,
    /// Partitions on their way from one process to another.
    moving: Vec<(i32, usize, usize)>,
}

impl Processes {
    pub(super) fn new(world: Shared<World>, stores: Vec<Store>, options: Options) -> Processes {
        Processes {
            world,
            stores,
            unmarked: None,
            clock: ModelClock::new(),
            options,
            sinks: 1,
            all: Vec::new(),
            owners: BTreeMap::new(),
            moving: Vec::new(),
        }
    }

    /// Starts a process; it owns nothing yet.
    pub(super) fn start(&mut self) -> usize {
        let consumer = share(Consumer::default());
        let budget = Budget::new(20_000);
        let stores = &self.stores[..self.sinks];
        let open = |(name, store): (&&'static str, &Store)| -> Box<dyn Sink> {
            let ends = (Arc::clone(&consumer), Arc::clone(&self.world));
            Box::new(Seam::open(name, store, self.options, ends))
        };
        let sinks = SINKS.iter().zip(stores).map(open).collect();
        let source = Scripted {
            consumer: Arc::clone(&consumer),
            world: Arc::clone(&self.world),
            stores: stores.to_vec(),
            clock: self.clock.clone(),
            believes_group: self.options.believes_group,
        };
        let journal = ModelJournal { world: Arc::clone(&self.world), stores: self.stores.clone() };
        let plan = Plan {
            job: "model".into(),
            topic: TOPIC.into(),
            columns: Arc::clone(&COLUMNS),
            compacted: false,
            max_reject_share: 1.0,
            revoke_flush: Duration::from_secs(1),
            wait_at_most: Duration::from_mins(10),
            rules: Rules { without: self.options.without },
        };
        let clock: Box<dyn Clock> = Box::new(self.clock.clone());
        let (job, status) = Job::new(plan, source, journal, sinks, (clock, budget.clone()));
        self.all.push(Process {
            running: Some(Box::pin(job.run())),
            consumer,
            status,
            budget,
            frozen: 0,
            late: Vec::new(),
        });
        self.all.len() - 1
    }

    pub(super) fn alive(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|at| self.all[*at].is_alive()).collect()
    }

    /// Gives a partition to a process, whoever had it.
    pub(super) fn give(&mut self, partition: i32, to: usize) {
        self.owners.insert(partition, to);
        self.moving.retain(|(moved, _, _)| *moved != partition);
        let stream = lock(&self.world).stream();
        let given = Event::Assigned { stream, partitions: vec![partition] };
        let mut consumer = lock(&self.all[to].consumer);
        if !consumer.given.insert(partition) {
            consumer.shared.insert(partition);
        }
        consumer.events.push_back(given);
    }

    /// Asks the owner to let go; the other gets the partition once it has.
    pub(super) fn ask_for(&mut self, partition: i32, to: usize) {
        let from = self.owners[&partition];
        if from == to || self.moving.iter().any(|(moved, _, _)| *moved == partition) {
            return;
        }
        let mut consumer = lock(&self.all[from].consumer);
        consumer.released.clear();
        consumer.shared.insert(partition);
        consumer.events.push_back(Event::Revoked(vec![partition]));
        drop(consumer);
        self.moving.push((partition, from, to));
    }

    /// Gives a partition away under its owner's feet; the owner hears of it later, or never.
    pub(super) fn take_away(&mut self, partition: i32, to: usize) {
        let from = self.owners[&partition];
        if from != to {
            self.all[from].late.push(partition);
            lock(&self.all[from].consumer).shared.insert(partition);
            self.give(partition, to);
        }
    }

    /// Tells a process what it has lost in the meantime.
    pub(super) fn tell_losses(&mut self, at: usize) {
        let owners = &self.owners;
        let process = &mut self.all[at];
        let mut lost = std::mem::take(&mut process.late);
        lost.retain(|partition| owners.get(partition) != Some(&at));
        if !lost.is_empty() {
            lock(&process.consumer).events.push_back(Event::Lost(lost));
        }
    }

    /// Kills a process; another one gets what it owned.
    pub(super) fn kill(&mut self, at: usize, heir: usize) {
        self.all[at].kill();
        self.settle_dead(heir);
    }

    /// Finishes moves whose owner let go, and those of the dead.
    pub(super) fn settle(&mut self) {
        let done = |(partition, from, _): &&(i32, usize, usize)| {
            lock(&self.all[*from].consumer).released.contains(partition)
        };
        let finished: Vec<_> = self.moving.iter().filter(done).copied().collect();
        for (partition, _, to) in finished {
            self.give(partition, to);
        }
    }

    /// Gives all that dead processes own to `heir`.
    pub(super) fn settle_dead(&mut self, heir: usize) {
        let dead = |owner: usize| !self.all[owner].is_alive();
        let orphans: Vec<i32> =
            self.owners.iter().filter(|(_, owner)| dead(**owner)).map(|(at, _)| *at).collect();
        self.moving.retain(|(_, from, to)| self.all[*from].is_alive() && self.all[*to].is_alive());
        for partition in orphans {
            self.give(partition, heir);
        }
    }
}
