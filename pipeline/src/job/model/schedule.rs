//! One schedule: what happens, in an order that the seed decides, then rest, then judgement.

use std::time::Duration;

use aion_sinks::memory::{Fault, Store};
use arrow::record_batch::RecordBatch;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    processes::Processes,
    seen::{Seen, Thing},
    source::Answers,
    verdict::{Kind, Violation, judge},
    world::{JournalFault, PARTITIONS, ToldGap, What, World, lock, share},
};
use crate::job::{event_loop::Clock, rules::Rule, source::Event, status::PartitionState};

/// What is different from the real thing.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches, each of a control of its own")]
pub(super) struct Options {
    /// The protection that is taken out.
    pub(super) without: Option<Rule>,
    /// Whether stores check the mark.
    pub(super) fenced: bool,
    /// Whether sinks drop what waits for a partition that is assigned or revoked.
    pub(super) forgets: bool,
    /// Whether a record's own content decides if it is rejected; else a broken one takes those behind it along.
    pub(super) judges_alone: bool,
    /// Whether dead letters are counted by their keys.
    pub(super) counts_keys: bool,
    /// Whether reading starts at the offset that the group was told of.
    pub(super) believes_group: bool,
    /// Whether marks are kept by the job's name too, which is another one once it has two sinks.
    pub(super) marks_name_job: bool,
    /// Whether a mark right behind an offset without a record keeps the epoch of the last record; else it has none.
    pub(super) keeps_epochs: bool,
    /// Whether such a mark is told from one right behind that record.
    pub(super) tells_holes: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            without: None,
            fenced: true,
            forgets: true,
            judges_alone: true,
            counts_keys: true,
            believes_group: false,
            marks_name_job: false,
            keeps_epochs: true,
            tells_holes: true,
        }
    }
}

const STEPS: u32 = 900;
/// So many rounds without faults must be enough to come to rest.
const REST_ROUNDS: u32 = 600;

pub(super) struct Schedule {
    rng: StdRng,
    pub(super) group: Processes,
    seen: Seen,
    /// Few schedules make the topic anew or cut it, so that the others get far.
    with_recreation: bool,
    with_truncation: bool,
    with_second_sink_from: u32,
}

/// Runs the schedule of a seed.
pub(super) fn run(seed: u64, options: Options) -> Result<Seen, Violation> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::default();
    world.create_topic();
    let stores = vec![Store::new(), Store::new()];
    let mut group = Processes::new(share(world), stores, options);
    let second = [0, STEPS / 3, STEPS][rng.random_range(0..3)];
    group.sinks = if second == 0 { 2 } else { 1 };
    let (first, other) = (group.start(), group.start());
    for partition in 0..PARTITIONS {
        group.give(partition, if partition == 0 { other } else { first });
    }
    let mut met = Seen::default();
    met.note(Thing::TwoSinks, usize::from(second == 0));
    let mut schedule = Schedule {
        with_recreation: rng.random_bool(0.3),
        with_truncation: rng.random_bool(0.3),
        with_second_sink_from: second,
        rng,
        group,
        seen: met,
    };
    for step in 0..STEPS {
        if step > 0 && step == schedule.with_second_sink_from {
            schedule.restart_all_with_two_sinks();
        }
        schedule.step()?;
    }
    schedule.come_to_rest()?;
    schedule.judge()
}

impl Schedule {
    /// One without chance: records in the first partition, and one process, number 0, that is given all. Its journal is
    /// slower than its first sink.
    pub(super) fn of(records: &[What], sinks: usize, options: Options) -> Schedule {
        let mut world = World::default();
        world.create_topic();
        world.journal_turns = 10;
        for what in records {
            world.produce(0, *what);
        }
        let mut group = Processes::new(share(world), vec![Store::new(), Store::new()], options);
        group.sinks = sinks;
        let first = group.start();
        for partition in 0..PARTITIONS {
            group.give(partition, first);
        }
        Schedule {
            rng: StdRng::seed_from_u64(0),
            group,
            seen: Seen::default(),
            with_recreation: false,
            with_truncation: false,
            with_second_sink_from: 0,
        }
    }

    fn step(&mut self) -> Result<(), Violation> {
        match self.rng.random_range(0..1000) {
            // What is left, most of it, runs a process.
            0..90 => self.produce(),
            90..350 => self.fetch(),
            350..450 => self.look(),
            450..530 => self.locate(),
            850..930 => self.group.clock.pass(self.rng.random_range(1..160)),
            930..936 => self.ask_for(),
            936..944 => self.take_away(),
            944..947 => self.kill(),
            947..949 => self.stop(),
            949..957 => self.freeze(),
            957..963 => self.tell_losses(),
            963..980 => self.fault(),
            980..987 => self.retain(),
            987..990 if self.with_recreation => self.recreate(),
            990..1000 if self.with_truncation => self.truncate(),
            820..823 => self.elect(),
            _ => self.run_one()?,
        }
        self.group.settle();
        Ok(())
    }

    fn produce(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        for _ in 0..self.rng.random_range(1..6) {
            lock(&self.group.world).produce(partition, anything(&mut self.rng));
        }
    }

    fn fetch(&mut self) {
        let at = self.any_alive();
        for partition in 0..PARTITIONS {
            let max = self.rng.random_range(1..8);
            self.fetch_of(at, partition, max);
        }
    }

    pub(super) fn fetch_of(&mut self, at: usize, partition: i32, max: usize) {
        let process = &self.group.all[at];
        if process.budget.is_spent() {
            return;
        }
        let with = (&process.budget, self.group.options);
        lock(&process.consumer).fetch(partition, max, &self.group.world, with);
    }

    fn look(&mut self) {
        let at = self.any_alive();
        for _ in 0..self.rng.random_range(1..5) {
            let answers = self.answers(at);
            lock(&self.group.all[at].consumer).look(&self.group.world, answers);
        }
    }

    /// How a look-up goes. A stale one names an id from before the one that the process knows: that none
    /// names the id itself once records of the next topic were served is what the gate assumes.
    fn answers(&mut self, at: usize) -> Answers {
        match self.rng.random_range(0..20) {
            0 => Answers::Fails,
            1..4 => {
                let known = self.group.all[at].status.now().stream.clone();
                let back = self.rng.random_range(1..3);
                let stale = known.and_then(|one| lock(&self.group.world).id_before(one.id, back));
                self.seen.note(Thing::StaleLookup, usize::from(stale.is_some()));
                stale.map_or(Answers::Truly, Answers::Stale)
            }
            _ => Answers::Truly,
        }
    }

    fn locate(&mut self) {
        let at = self.any_alive();
        for _ in 0..self.rng.random_range(1..5) {
            let fails = self.rng.random_bool(0.1);
            let mut consumer = lock(&self.group.all[at].consumer);
            if fails {
                consumer.locate_in_vain();
            } else {
                consumer.locate(&self.group.world);
            }
        }
    }

    fn run_one(&mut self) -> Result<(), Violation> {
        let at = self.any_alive();
        let process = &mut self.group.all[at];
        if process.frozen > 0 {
            process.frozen -= 1;
            return Ok(());
        }
        for _ in 0..self.rng.random_range(1..12) {
            self.poll(at)?;
        }
        Ok(())
    }

    pub(super) fn poll(&mut self, at: usize) -> Result<(), Violation> {
        self.group.all[at].poll().map_err(|what| Violation::new(Kind::Failed, what))?;
        if !self.group.all[at].is_alive() {
            // It was asked to stop, and has: somebody else takes over.
            let heir = self.group.start();
            self.group.settle_dead(heir);
        }
        Ok(())
    }

    fn ask_for(&mut self) {
        let (partition, to) = (self.rng.random_range(0..PARTITIONS), self.any_alive());
        self.group.ask_for(partition, to);
    }

    fn take_away(&mut self) {
        let (partition, to) = (self.rng.random_range(0..PARTITIONS), self.any_alive());
        self.seen.note(Thing::Sleeper, 1);
        let from = self.group.owners[&partition];
        self.group.all[from].frozen = self.rng.random_range(0..6);
        self.group.take_away(partition, to);
    }

    fn kill(&mut self) {
        self.seen.note(Thing::Kill, 1);
        let at = self.any_alive();
        let heir = self.group.start();
        self.group.kill(at, heir);
    }

    fn stop(&mut self) {
        self.seen.note(Thing::Stop, 1);
        let at = self.any_alive();
        let within = Duration::from_millis(self.rng.random_range(0..600));
        let deadline = self.group.clock.now() + within;
        let mut consumer = lock(&self.group.all[at].consumer);
        consumer.is_stopping = true;
        consumer.events.push_back(Event::Stop { deadline });
    }

    fn freeze(&mut self) {
        let at = self.any_alive();
        self.group.all[at].frozen = self.rng.random_range(1..12);
    }

    fn tell_losses(&mut self) {
        let at = self.any_alive();
        self.group.tell_losses(at);
    }

    fn fault(&mut self) {
        let mut world = lock(&self.group.world);
        world.journal_turns = self.rng.random_range(0..12);
        world.commit_fault |= self.rng.random_bool(0.3);
        drop(world);
        if self.rng.random_bool(0.4) {
            let faults = [JournalFault::Refused, JournalFault::Torn, JournalFault::Unacknowledged];
            let fault = faults[self.rng.random_range(0..faults.len())];
            lock(&self.group.world).journal_fault = Some(fault);
            return;
        }
        let faults = [
            Fault::Busy,
            Fault::Retry,
            Fault::Torn,
            Fault::Unacknowledged,
            Fault::Moved,
            Fault::RetryAssign,
        ];
        let fault = faults[self.rng.random_range(0..faults.len())];
        let store = &self.group.stores[self.rng.random_range(0..2)];
        if store.faults_left() == 0 {
            store.script(fault);
        }
    }

    fn retain(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let mut world = lock(&self.group.world);
        let log = world.log(partition);
        let start = self.rng.random_range(log.start..=log.end());
        world.retain(partition, start, &self.group.stores);
    }

    fn elect(&mut self) {
        self.seen.note(Thing::Election, 1);
        let partition = self.rng.random_range(0..PARTITIONS);
        lock(&self.group.world).elect(partition);
    }

    fn recreate(&mut self) {
        self.seen.note(Thing::Recreated, 1);
        lock(&self.group.world).create_topic();
    }

    /// Cuts a log anywhere. At once it may be as long again, so that its end doesn't tell.
    fn truncate(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let mut world = lock(&self.group.world);
        let log = world.log(partition);
        let (start, end) = (log.start, log.end());
        if start == end {
            return;
        }
        let at = self.rng.random_range(start..end);
        let stores = &self.group.stores[..self.group.sinks];
        let marks = world.marks_behind_holes(partition, stores);
        world.truncate(partition, at);
        for _ in 0..self.rng.random_range(0..=2 * (end - at)) {
            world.produce(partition, anything(&mut self.rng));
        }
        let regrown = at + 1..=world.log(partition).end();
        let is_past = marks.iter().any(|mark| regrown.contains(mark));
        self.seen.note(Thing::Regrown, usize::from(is_past));
    }

    /// A job with another configuration, and where it matters with another name.
    fn restart_all_with_two_sinks(&mut self) {
        self.seen.note(Thing::SecondSink, 1);
        self.group.sinks = 2;
        if self.group.options.marks_name_job {
            let first = std::mem::replace(&mut self.group.stores[0], Store::new());
            self.group.unmarked = Some(first);
        }
        let heir = self.group.start();
        for at in self.group.alive() {
            if at != heir {
                self.group.kill(at, heir);
            }
        }
        self.group.start();
    }

    fn any_alive(&mut self) -> usize {
        let alive = self.group.alive();
        match alive.get(self.rng.random_range(0..alive.len().max(1))) {
            Some(at) => *at,
            None => self.group.start(),
        }
    }

    /// No more faults. Who sleeps wakes and acts once more, then one fresh process does what is left.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Violation> {
        let mut world = lock(&self.group.world);
        (world.journal_fault, world.journal_turns) = (None, 0);
        drop(world);
        for at in self.group.alive() {
            self.group.all[at].frozen = 0;
            for _ in 0..40 {
                self.poll(at)?;
            }
        }
        let last = self.group.start();
        for at in self.group.alive() {
            if at != last {
                self.group.kill(at, last);
            }
        }
        for partition in 0..PARTITIONS {
            self.group.give(partition, last);
        }
        // Twice in a row: what a start finds wrong is told by the fetch after it.
        let mut rested = 0;
        for _ in 0..REST_ROUNDS {
            self.group.clock.pass(60);
            self.look_and_read_all(last);
            for _ in 0..12 {
                self.poll(last)?;
            }
            rested = if self.is_at_rest(last) { rested + 1 } else { 0 };
            if rested == 2 {
                return Ok(());
            }
        }
        let status = self.group.all[last].status.now();
        Err(Violation::new(Kind::Stuck, format!("no rest: {status:?}")))
    }

    fn look_and_read_all(&mut self, at: usize) {
        for _ in 0..3 {
            let mut consumer = lock(&self.group.all[at].consumer);
            consumer.look(&self.group.world, Answers::Truly);
        }
        for _ in 0..2 * PARTITIONS {
            lock(&self.group.all[at].consumer).locate(&self.group.world);
        }
        for partition in 0..PARTITIONS {
            self.fetch_of(at, partition, 64);
        }
    }

    /// Whether every partition is stopped, or stored up to the end of its log by every sink.
    pub(super) fn is_at_rest(&self, at: usize) -> bool {
        let process = &self.group.all[at];
        let status = process.status.now();
        let mut world = lock(&self.group.world);
        if status.stream.as_ref().map(|stream| stream.id) != Some(world.topic_id())
            && self.group.options.without != Some(Rule::StreamIsTopicId)
        {
            return false;
        }
        let stores = &self.group.stores[..self.group.sinks];
        let is_done = |number: i32, world: &mut World| {
            let Some(one) = status.partitions.iter().find(|one| one.partition == number) else {
                return false;
            };
            if matches!(one.state, PartitionState::Stopped(_)) {
                return true;
            }
            let log = world.log(number);
            let end = log.end() as i64;
            let consumer = lock(&process.consumer);
            let reading = consumer.readings.get(&number);
            let read = reading.is_some_and(|reading| reading.position as i64 >= end);
            let has = |mark: Option<aion_schemas::log::Offset>| match mark {
                Some(offset) => offset.get() >= end,
                None => log.start == log.end(),
            };
            let least = one.marks.iter().map(|(_, mark)| *mark).min().flatten();
            let told = consumer.committed.get(&number).copied() == least;
            let without = self.group.options.without;
            read && (told || without == Some(Rule::CommitLeastMark))
                && one.marks.len() == stores.len()
                && one.marks.iter().all(|(_, mark)| has(*mark))
        };
        (0..PARTITIONS).all(|number| is_done(number, &mut world))
    }

    pub(super) fn judge(mut self) -> Result<Seen, Violation> {
        let world = lock(&self.group.world);
        let stores = &self.group.stores[..self.group.sinks];
        judge(&world, (stores, self.group.unmarked.as_ref()), self.group.options)?;
        self.seen.add(&world.seen);
        self.seen.note(Thing::Letter, world.letters.len());
        let count = |of: fn(&ToldGap) -> bool| world.gaps.iter().filter(|gap| of(gap)).count();
        self.seen.note(Thing::Gap, count(|gap| !gap.diverged && !gap.deleted));
        self.seen.note(Thing::GapOfDeletedTopic, count(|gap| gap.deleted));
        self.seen.note(Thing::GapOfCutLog, count(|gap| gap.diverged));
        for store in &self.group.stores {
            self.seen.note(Thing::Row, store.rows().iter().map(RecordBatch::num_rows).sum());
            for fault in store.faults_met() {
                self.seen.note(Thing::OfStore(fault), 1);
            }
        }
        drop(world);
        Ok(self.seen)
    }
}

/// What is produced next.
fn anything(rng: &mut StdRng) -> What {
    match rng.random_range(0..20) {
        0..2 => What::Poison,
        2 => What::Tombstone,
        3..5 => What::Hole,
        _ => What::Row,
    }
}
