//! A model of births: topics that appear and grow, policies that change, two processes that take them up and read the
//! control log each at its own pace. Thousands of random schedules; wherever an endpoint begins is held against what
//! was there when its patterns came, and mutations show that it is.
//!
//! Not in it, so nothing is shown of them: a policy that changes before both processes have the birth of the one
//! before, and another leader.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::*;

const ENDPOINT: &str = "e";
/// Whoever has the control log's partition; the other is any other process.
const LEADER: usize = 0;

/// A fault that the checks must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// Nobody waits for a birth: each begins at the end that it sees.
    NoBirth,
    /// Nobody asks where the end was: all begins at its start.
    NoEnds,
    /// A birth takes topics from a look that another policy had asked for.
    StaleLook,
    /// A birth speaks of what was matched before, too.
    NothingBefore,
}

/// A topic, which only grows.
struct Topic {
    name: &'static str,
    id: Uuid,
    end: i64,
    /// Where an endpoint may begin in it, at least and at most. None while no policy matches it.
    least: Option<i64>,
    /// None before a birth could have spoken of it.
    most: Option<i64>,
    /// Whether one did: then a pattern that comes back goes on from there.
    is_born: bool,
}

struct Process {
    controls: Controls,
    patterns: &'static [&'static str],
    policy: u64,
    /// Where it has begun.
    begun: BTreeMap<Uuid, i64>,
    /// Topics that were found, and for which policy.
    look: Option<(u64, Vec<Uuid>)>,
}

struct Run {
    random: StdRng,
    mutation: Mutation,
    catalog: Catalog,
    topics: Vec<Topic>,
    log: Vec<Control>,
    patterns: &'static [&'static str],
    processes: [Process; 2],
}

const POLICIES: [&[&str]; 3] = [&["a.*"], &["a.*", "b.*"], &["b.*"]];
const NAMES: [&str; 6] = ["a.1", "b.1", "a.2", "b.2", "a.3", "b.3"];

impl Run {
    fn new(seed: u64, mutation: Mutation) -> Run {
        let patterns = POLICIES[0];
        let process = || Process {
            controls: Controls::default(),
            patterns,
            policy: 1,
            begun: BTreeMap::new(),
            look: None,
        };
        Run {
            random: StdRng::seed_from_u64(seed),
            mutation,
            catalog: Catalog::builtin(),
            topics: Vec::new(),
            log: Vec::new(),
            patterns,
            processes: [process(), process()],
        }
    }

    fn matches(&self, patterns: &[&str], topic: &str) -> bool {
        any_matches(&compiled(patterns, &self.catalog), topic, &self.catalog)
    }

    /// What the last birth said, if anybody was born.
    fn born(&self) -> Option<Vec<String>> {
        let Control::Birth { patterns, .. } = self.log.last()? else { return None };
        Some(patterns.clone())
    }

    fn play(&mut self) -> Result<(), String> {
        for _ in 0..120 {
            match self.random.random_range(0..12) {
                0 => self.create(),
                1..4 => self.append(),
                4 => self.change_policy(),
                5 => self.look(),
                6 => self.give_birth(),
                step => self.step(step % 2)?,
            }
        }
        Ok(())
    }

    fn create(&mut self) {
        let Some(name) = NAMES.get(self.topics.len()) else { return };
        let id = Uuid::from_u128(self.topics.len() as u128 + 1);
        let is_wanted = self.matches(self.patterns, name);
        // Whoever is born already gets all of it.
        let is_later = self.born().as_deref() == Some(&texts(self.patterns)[..]);
        let (least, most) = (is_wanted.then_some(0), (is_wanted && is_later).then_some(0));
        self.topics.push(Topic { name, id, end: 0, least, most, is_born: false });
    }

    fn append(&mut self) {
        if !self.topics.is_empty() {
            let at = self.random.random_range(0..self.topics.len());
            self.topics[at].end += self.random.random_range(1..5);
        }
    }

    /// Another policy, once everybody has taken up the one before and its birth is known to all.
    fn change_policy(&mut self) {
        let texts = texts(self.patterns);
        let is_settled = |one: &Process| one.controls.patterns(ENDPOINT) == Some(&texts[..]);
        if !self.processes.iter().all(is_settled) {
            return;
        }
        self.patterns = POLICIES[self.random.random_range(0..POLICIES.len())];
        let patterns = compiled(self.patterns, &self.catalog);
        for topic in &mut self.topics {
            match any_matches(&patterns, topic.name, &self.catalog) {
                false if !topic.is_born => (topic.least, topic.most) = (None, None),
                true if topic.least.is_none() => topic.least = Some(topic.end),
                _ => {}
            }
        }
    }

    /// The leader asks which topics there are.
    fn look(&mut self) {
        let patterns = self.processes[LEADER].patterns;
        let found = self.topics.iter().filter(|one| self.matches(patterns, one.name));
        let found = found.map(|one| one.id).collect();
        let leader = &mut self.processes[LEADER];
        leader.look = Some((leader.policy, found));
    }

    /// And writes the birth that is missing.
    fn give_birth(&mut self) {
        let leader = &mut self.processes[LEADER];
        let Some((policy, found)) = leader.look.take() else { return };
        let is_of_another = policy != leader.policy && self.mutation != Mutation::StaleLook;
        let is_read = leader.controls.next == self.log.len() as i64;
        let patterns = texts(leader.patterns);
        if is_of_another || !is_read || leader.controls.patterns(ENDPOINT) == Some(&patterns[..]) {
            return;
        }
        let identity = |one: &Topic| TopicIdentity {
            topic: one.name.to_owned(),
            id: Some(one.id),
            partitions: 1,
        };
        let found = self.topics.iter().filter(|one| found.contains(&one.id));
        let found: Vec<_> = found.map(identity).collect();
        let forgetful = Controls::default();
        let is_forgetful = self.mutation == Mutation::NothingBefore;
        let controls = if is_forgetful { &forgetful } else { &leader.controls };
        let wanted = (ENDPOINT, &compiled(leader.patterns, &self.catalog)[..]);
        let new = newly_matched(controls, wanted, &found, &self.catalog);
        let mut born = Vec::new();
        for topic in &mut self.topics {
            if new.iter().any(|one| one.id == Some(topic.id)) {
                born.push(Born { topic: topic.name.into(), id: topic.id, ends: vec![topic.end] });
                topic.is_born = true;
            }
            if topic.least.is_some() && topic.most.is_none() {
                topic.most = Some(topic.end);
            }
        }
        self.log.push(Control::Birth { endpoint: ENDPOINT.into(), patterns, topics: born });
    }

    /// A process does something, if only by chance: takes up the policy, reads on, begins with what it may.
    fn step(&mut self, at: usize) -> Result<(), String> {
        let (is_taking, is_reading) = (self.random.random_bool(0.3), self.random.random_bool(0.7));
        let (patterns, log, topics) = (self.patterns, &self.log, &self.topics);
        let process = &mut self.processes[at];
        if is_taking && process.patterns != patterns {
            (process.patterns, process.policy) = (patterns, process.policy + 1);
            let compiled = compiled(patterns, &self.catalog);
            let is_wanted = |one: &Topic| any_matches(&compiled, one.name, &self.catalog);
            let wanted: Vec<_> =
                topics.iter().filter(|one| is_wanted(one)).map(|one| one.id).collect();
            process.begun.retain(|id, _| wanted.contains(id));
        }
        if is_reading && let Some(control) = log.get(process.controls.next as usize) {
            process.controls.take(process.controls.next, control.clone());
        }
        self.begin(at)
    }

    /// Begins in the topics that the process may begin in; the complaint says where that was wrong.
    fn begin(&mut self, at: usize) -> Result<(), String> {
        let process = &mut self.processes[at];
        let patterns = compiled(process.patterns, &self.catalog);
        for topic in &self.topics {
            let is_begun = process.begun.contains_key(&topic.id);
            if is_begun || !any_matches(&patterns, topic.name, &self.catalog) {
                continue;
            }
            let texts = texts(process.patterns);
            let start = process.controls.start(ENDPOINT, &texts, topic.id, 0);
            let Some(start) = (match self.mutation {
                Mutation::NoBirth => Some(topic.end),
                Mutation::NoEnds => start.map(|_| 0),
                _ => start,
            }) else {
                continue;
            };
            process.begun.insert(topic.id, start);
            // A process that is behind still goes by a policy that no topic is judged by any more.
            if process.patterns != self.patterns {
                continue;
            }
            let (Some(least), Some(most)) = (topic.least, topic.most) else {
                return Err(format!("{} is begun before its birth, at {start}", topic.name));
            };
            if !(least..=most).contains(&start) {
                return Err(format!(
                    "{} is begun at {start}, not at {least} to {most}",
                    topic.name
                ));
            }
        }
        Ok(())
    }
}

fn texts(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(|&one| one.to_owned()).collect()
}

fn compiled(patterns: &[&str], catalog: &Catalog) -> Vec<Pattern> {
    patterns.iter().map(|text| Pattern::new(text, catalog).unwrap()).collect()
}

/// The first complaint in so many schedules.
fn complaint(mutation: Mutation, runs: u64) -> Option<String> {
    let play = |seed| Run::new(seed, mutation).play();
    (0..runs).find_map(|seed| play(seed).err().map(|why| format!("seed {seed}: {why}")))
}

#[test]
fn whatever_came_before_is_left_out_and_nothing_that_came_later() {
    assert_eq!(complaint(Mutation::None, 4_000), None);
}

#[test]
fn the_model_of_births_finds_every_mutation() {
    for mutation in
        [Mutation::NoBirth, Mutation::NoEnds, Mutation::StaleLook, Mutation::NothingBefore]
    {
        assert!(complaint(mutation, 4_000).is_some(), "{mutation:?} was not found");
    }
}
