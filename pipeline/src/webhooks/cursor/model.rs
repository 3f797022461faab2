//! A model of deliveries: one log, one endpoint, processes that are killed, stores that refuse, zombies that
//! wake. Thousands of random schedules; what must hold is checked, and mutations show that it is.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Cursor, Lane, Want};

const RECORDS: i64 = 40;
const KEYS: u64 = 5;
const WINDOW: usize = 6;
const MAX_ATTEMPTS: u32 = 4;

/// A fault that the checks must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// Holes aren't stored.
    NoHoles,
    /// A hole goes before its dead letter is acknowledged.
    EarlyBurial,
    /// The order of a key isn't kept.
    NoKeyGate,
    /// The place in the control log is stored, what it asked for isn't.
    ControlAlone,
    /// `next` is stored as it will be once everything under way is done.
    ForgetfulSettling,
}

/// What the outside world has seen.
#[derive(Default)]
struct World {
    delivered: BTreeMap<i64, u32>,
    letters: BTreeSet<i64>,
    /// Offsets in the order in which they were first settled.
    settled: Vec<i64>,
    /// Deliveries since the command to deliver everything below once more.
    since_command: BTreeMap<i64, u32>,
    command: Option<i64>,
    store: Cursor,
    /// Successes that the stored cursor doesn't know of, over all kills.
    allowed: u32,
}

struct Process {
    lane: Lane,
    /// Successes since the last store.
    unstored: u32,
    /// Dead letters on their way.
    burying: BTreeSet<i64>,
    sending: BTreeSet<i64>,
}

struct Run {
    random: StdRng,
    ordered: bool,
    zombies: bool,
    mutation: Mutation,
    world: World,
    now: i64,
}

fn key(offset: i64) -> u64 {
    ((offset as u64).wrapping_mul(0x9e37_79b9) >> 7) % KEYS
}

impl Run {
    fn new(seed: u64, mutation: Mutation) -> Run {
        let mut random = StdRng::seed_from_u64(seed);
        let (ordered, zombies) = (random.random_bool(0.5), random.random_bool(0.3));
        Run { random, ordered, zombies, mutation, world: World::default(), now: 1 }
    }

    fn start(&self) -> Process {
        let lane = Lane::new(self.world.store.clone());
        Process { lane, unstored: 0, burying: BTreeSet::new(), sending: BTreeSet::new() }
    }

    /// The whole story: faults first, then everything is let through.
    fn play(&mut self) {
        let mut process = self.start();
        let mut zombie: Option<Process> = None;
        for _ in 0..400 {
            self.now += 1;
            match self.random.random_range(0..100) {
                0..4 => {
                    self.world.allowed += process.unstored + process.sending.len() as u32;
                    let old = std::mem::replace(&mut process, self.start());
                    if self.zombies {
                        // Two at once may both deliver what the store doesn't know of.
                        self.world.allowed += RECORDS as u32 * 2;
                        zombie = Some(old);
                    }
                }
                4..8 => {
                    if let Some(zombie) = &mut zombie {
                        self.step(zombie, false);
                        self.flush(zombie);
                    }
                }
                8..10 if self.world.command.is_none() => self.command(),
                10..20 => self.flush(&mut process),
                _ => self.step(&mut process, false),
            }
        }
        for _ in 0..10_000 {
            self.now += 1_000;
            self.step(&mut process, true);
            let cursor = process.lane.cursor();
            let is_done =
                cursor.next == RECORDS && cursor.holes.is_empty() && cursor.redo.is_empty();
            if is_done && (self.world.command.is_none() || cursor.control > 0) {
                return;
            }
        }
        panic!("it never ends: {:?}", process.lane.cursor());
    }

    fn command(&mut self) {
        self.world.command = Some(RECORDS / 2);
        self.world.since_command.clear();
    }

    fn step(&mut self, process: &mut Process, is_calm: bool) {
        self.obey(process);
        self.open(process);
        self.send(process);
        self.answer(process, is_calm);
        self.bury(process, is_calm);
    }

    fn obey(&mut self, process: &mut Process) {
        if let Some(end) = self.world.command
            && process.lane.cursor().control == 0
            && process.lane.redo(0, std::slice::from_ref(&(0..end)))
            && self.mutation == Mutation::ControlAlone
        {
            self.world.store.control = process.lane.cursor().control;
        }
    }

    fn open(&mut self, process: &mut Process) {
        while let Some(want) =
            process.lane.wants().filter(|_| process.lane.cursor().holes.len() < WINDOW)
        {
            // Every seventh offset has no record: a marker of a transaction, or compacted away.
            let mut offset = want.offset();
            while offset % 7 == 3 {
                offset += 1;
            }
            let end = match want {
                Want::Next(_) => RECORDS,
                Want::Redo(_, end) => end,
            };
            if offset >= end {
                if want.offset() >= end {
                    return;
                }
                process.lane.pass(want, end);
                continue;
            }
            let is_gated = self.ordered && self.mutation != Mutation::NoKeyGate;
            process.lane.open(want, offset, is_gated.then(|| key(offset)));
        }
    }

    fn send(&mut self, process: &mut Process) {
        while process.sending.len() + process.burying.len() < WINDOW {
            let Some(offset) = process.lane.due(self.now) else { return };
            process.lane.begin(offset);
            let is_used_up = process.lane.hole(offset).unwrap().attempts >= MAX_ATTEMPTS;
            if is_used_up {
                process.burying.insert(offset)
            } else {
                process.sending.insert(offset)
            };
        }
    }

    fn answer(&mut self, process: &mut Process, is_calm: bool) {
        let sending: Vec<_> = process.sending.iter().copied().collect();
        for offset in sending {
            if !is_calm && self.random.random_bool(0.5) {
                continue;
            }
            process.sending.remove(&offset);
            // Every eleventh record is poison; others fail now and then, and some fail after they arrived.
            let arrives = offset % 11 != 5 && (is_calm || self.random.random_bool(0.7));
            if arrives {
                *self.world.delivered.entry(offset).or_default() += 1;
                *self.world.since_command.entry(offset).or_default() += 1;
                self.settled(offset);
                process.unstored += 1;
                process.lane.settled(offset);
            } else {
                let pause = self.random.random_range(0..20);
                process.lane.failed(offset, self.now, self.now + pause);
            }
        }
    }

    fn bury(&mut self, process: &mut Process, is_calm: bool) {
        let burying: Vec<_> = process.burying.iter().copied().collect();
        for offset in burying {
            let is_refused = !is_calm && self.random.random_bool(0.5);
            if self.mutation == Mutation::EarlyBurial {
                process.lane.settled(offset);
            }
            process.burying.remove(&offset);
            if is_refused {
                process.lane.postponed(offset, self.now + 5);
                continue;
            }
            self.world.letters.insert(offset);
            self.settled(offset);
            process.lane.settled(offset);
        }
    }

    fn settled(&mut self, offset: i64) {
        if !self.world.settled.contains(&offset) {
            self.world.settled.push(offset);
        }
    }

    /// The store may refuse; then it keeps what it has.
    fn flush(&mut self, process: &mut Process) {
        if self.random.random_bool(0.2) {
            return;
        }
        let mut cursor = process.lane.cursor().clone();
        match self.mutation {
            Mutation::NoHoles => cursor.holes.clear(),
            Mutation::ForgetfulSettling => {
                cursor.holes.retain(|offset, _| !process.sending.contains(offset));
            }
            _ => {}
        }
        // As it stands in the topic.
        let text = serde_json::to_vec(&cursor.to_json().unwrap()).unwrap();
        self.world.store = Cursor::from_json(&text).unwrap();
        process.unstored = 0;
    }

    fn judge(&self) -> Result<(), String> {
        let has_record = |offset: &i64| offset % 7 != 3;
        let world = &self.world;
        for offset in (0..RECORDS).filter(has_record) {
            if !world.delivered.contains_key(&offset) && !world.letters.contains(&offset) {
                return Err(format!("{offset} is lost"));
            }
            let is_again =
                world.since_command.contains_key(&offset) || world.letters.contains(&offset);
            if world.command.is_some_and(|end| offset < end) && !is_again {
                return Err(format!("{offset} wasn't delivered once more"));
            }
        }
        if self.ordered && !self.zombies {
            for key_of in 0..KEYS {
                let line: Vec<_> =
                    world.settled.iter().filter(|offset| key(**offset) == key_of).collect();
                if !line.is_sorted() {
                    return Err(format!("key {key_of} is out of order: {line:?}"));
                }
            }
        }
        if world.command.is_none() {
            let doubled: u32 = world.delivered.values().map(|count| count - 1).sum();
            if doubled > world.allowed {
                return Err(format!("{doubled} duplicates, {} allowed", world.allowed));
            }
        }
        Ok(())
    }
}

/// The first complaint in so many schedules.
fn complaint(mutation: Mutation, runs: u64) -> Option<String> {
    (0..runs).find_map(|seed| {
        let mut run = Run::new(seed, mutation);
        run.play();
        run.judge().err().map(|why| format!("seed {seed}: {why}"))
    })
}

#[test]
fn nothing_is_lost_or_out_of_order_whatever_dies() {
    assert_eq!(complaint(Mutation::None, 4_000), None);
}

#[test]
fn the_model_finds_every_mutation() {
    for mutation in [
        Mutation::NoHoles,
        Mutation::EarlyBurial,
        Mutation::NoKeyGate,
        Mutation::ControlAlone,
        Mutation::ForgetfulSettling,
    ] {
        assert!(complaint(mutation, 4_000).is_some(), "{mutation:?} was not found");
    }
}
