//! A router's life, simulated: tasks come and go, components measure, people administer.
//!
//! **Invariant:** seed, start, topics and rate alone decide every byte; no clock, no other
//! randomness.
//! **Invariant:** events come in the order of their times, and memory is bounded by the tasks under
//! way.

use std::collections::BTreeMap;

use aion_schemas::log::Timestamp;
use uuid::{Builder, Uuid};

use super::{
    audit::Audit,
    event::{Event, Topic},
    metrics::Metrics,
    random::{Random, stir},
    task::Task,
    world::{Arrivals, World},
};

/// How many of a thousand events belong to each topic, in the order of [`Topic::ALL`].
///
/// Those of decisions and lifecycles follow from each other: a task has one decision and 3.1
/// lifecycle
/// events on average.
const PER_MILLE: [f64; 4] = [171.0, 529.0, 295.0, 5.0];

/// An endless sequence of events in the order of their times.
#[derive(Debug)]
pub struct Life {
    world: World,
    event_ids: Ids,
    tasks: Option<Tasks>,
    metrics: Option<Metrics>,
    audit: Option<Audit>,
}

impl Life {
    /// The life of `seed` from `start` on, as seen by `topics`, with so many events of these a
    /// second on average.
    pub fn new(seed: u64, start: Timestamp, topics: &[Topic], events_per_second: f64) -> Life {
        let Timestamp(start) = start;
        // Another start is another life: one that begins anew must not repeat identifiers.
        let seed = stir(seed, start as u64);
        let draw = |stream: u64| stir(seed, stream);
        let world = World::new(draw(1));
        let wanted = |topic: Topic| topics.contains(&topic);
        let per_mille = |topic: Topic| if wanted(topic) { PER_MILLE[topic.index()] } else { 0.0 };
        let whole = Topic::ALL.map(per_mille).iter().sum::<f64>().max(1.0);
        let rate = |topic: Topic| events_per_second * PER_MILLE[topic.index()] / whole;
        let tasks = (wanted(Topic::Decisions) || wanted(Topic::Tasks)).then(|| {
            let arrivals =
                Arrivals::new(Random::new(draw(2)), start, rate(Topic::Decisions), &world);
            let mut tasks = Tasks {
                arrivals,
                task_ids: Ids::new(draw(3)),
                seed: draw(4),
                start,
                under_way: BTreeMap::new(),
                decisions: wanted(Topic::Decisions),
                lifecycles: wanted(Topic::Tasks),
            };
            tasks.admit_silently(&world);
            tasks
        });
        let stream = |number: u64| Random::new(draw(number));
        let metrics =
            wanted(Topic::Metrics).then(|| Metrics::new(stream(5), start, rate(Topic::Metrics)));
        let audit = wanted(Topic::Audit).then(|| Audit::new(stream(6), start, rate(Topic::Audit)));
        Life { world, event_ids: Ids::new(draw(7)), tasks, metrics, audit }
    }
}

impl Iterator for Life {
    type Item = Event;

    /// The next event; `None` only for a life that no topic sees.
    fn next(&mut self) -> Option<Event> {
        let due = [
            self.tasks.as_ref().map(Tasks::due),
            self.metrics.as_ref().map(Metrics::due),
            self.audit.as_ref().map(Audit::due),
        ];
        let first = due.into_iter().flatten().min()?;
        let (id, world) = (self.event_ids.next(), &self.world);
        if let Some(tasks) = self.tasks.as_mut().filter(|tasks| tasks.due() == first) {
            return Some(tasks.take(id, world));
        }
        if let Some(metrics) = self.metrics.as_mut().filter(|metrics| metrics.due() == first) {
            return Some(metrics.take(id, world));
        }
        self.audit.as_mut().map(|audit| audit.take(id, world))
    }
}

/// The tasks that arrive, and those that have not ended yet.
#[derive(Debug)]
struct Tasks {
    arrivals: Arrivals,
    task_ids: Ids,
    seed: u64,
    start: i64,
    /// By the time of the next event of each, then by arrival.
    under_way: BTreeMap<(i64, u64), Task>,
    decisions: bool,
    lifecycles: bool,
}

impl Tasks {
    fn due(&self) -> i64 {
        let first = self.under_way.first_key_value();
        first.map_or(self.arrivals.due(), |((time, _), _)| self.arrivals.due().min(*time))
    }

    fn take(&mut self, event_id: Uuid, world: &World) -> Event {
        let event = match self.under_way.first_entry() {
            Some(entry) if entry.key().0 < self.arrivals.due() => {
                let (_, number) = *entry.key();
                let mut task = entry.remove();
                let (event, goes_on) = task.step(event_id, world);
                if goes_on {
                    self.under_way.insert((task.due(), number), task);
                }
                event
            }
            _ => {
                let time = self.arrivals.due();
                let (number, task) = self.arrive(world);
                let decision = task.decision(event_id, time, time - self.start);
                if self.lifecycles {
                    self.under_way.insert((task.due(), number), task);
                }
                decision
            }
        };
        self.admit_silently(world);
        event
    }

    /// Where nobody wants decisions, lets in the tasks that arrive before the next lifecycle event.
    fn admit_silently(&mut self, world: &World) {
        while !self.decisions && self.due() == self.arrivals.due() {
            let (number, task) = self.arrive(world);
            self.under_way.insert((task.due(), number), task);
        }
    }

    fn arrive(&mut self, world: &World) -> (u64, Task) {
        let time = self.arrivals.due();
        self.arrivals.advance(world);
        let number = self.task_ids.given;
        let task =
            Task::arrive(self.task_ids.next(), Random::new(stir(self.seed, number)), time, world);
        (number, task)
    }
}

/// Random-looking identifiers that never repeat within a life.
#[derive(Debug)]
struct Ids {
    seed: u64,
    given: u64,
}

impl Ids {
    const fn new(seed: u64) -> Ids {
        Ids { seed, given: 0 }
    }

    fn next(&mut self) -> Uuid {
        let halves = [stir(self.seed, self.given), stir(!self.seed, self.given)];
        self.given += 1;
        let bits = u128::from(halves[0]) << 64 | u128::from(halves[1]);
        Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests;
