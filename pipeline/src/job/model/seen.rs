//! What schedules met: a suite that never meets a thing says nothing about it.

use std::collections::BTreeMap;

use aion_sinks::memory::Fault;

use super::world::JournalFault;

/// A thing that may happen in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Row,
    Letter,
    /// A tombstone that was read.
    Tombstone,
    /// An offset without a record that was passed.
    Hole,
    /// A batch that only moves a sink's mark.
    MarkWithoutRows,
    Gap,
    GapOfCutLog,
    GapOfDeletedTopic,
    Kill,
    Stop,
    Sleeper,
    Recreated,
    Election,
    /// A cut below a mark behind a hole that the log has grown past again.
    Regrown,
    StaleLookup,
    /// A batch that a sink has no room for.
    HandedBack,
    FailedCommit,
    /// A schedule of a job that has two sinks from the start.
    TwoSinks,
    /// A schedule of a job that is given its second sink in the middle.
    SecondSink,
    /// A sink's call met the fault that was scripted for it.
    OfStore(Fault),
    /// And the journal's.
    OfJournal(JournalFault),
}

/// What all schedules together should meet.
const ALL: &[Thing] = &[
    Thing::Row,
    Thing::Letter,
    Thing::Tombstone,
    Thing::Hole,
    Thing::MarkWithoutRows,
    Thing::Gap,
    Thing::GapOfCutLog,
    Thing::GapOfDeletedTopic,
    Thing::Kill,
    Thing::Stop,
    Thing::Sleeper,
    Thing::Recreated,
    Thing::Election,
    Thing::Regrown,
    Thing::StaleLookup,
    Thing::HandedBack,
    Thing::FailedCommit,
    Thing::TwoSinks,
    Thing::SecondSink,
    Thing::OfStore(Fault::Busy),
    Thing::OfStore(Fault::Retry),
    Thing::OfStore(Fault::Torn),
    Thing::OfStore(Fault::Unacknowledged),
    Thing::OfStore(Fault::Moved),
    Thing::OfStore(Fault::RetryAssign),
    Thing::OfJournal(JournalFault::Refused),
    Thing::OfJournal(JournalFault::Torn),
    Thing::OfJournal(JournalFault::Unacknowledged),
];
/// And how often.
const OFTEN: u64 = 100;

/// How often each thing was met.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(BTreeMap<Thing, u64>);

impl Seen {
    pub(super) fn note(&mut self, thing: Thing, count: usize) {
        *self.0.entry(thing).or_default() += count as u64;
    }

    pub(super) fn add(&mut self, other: &Seen) {
        for (thing, count) in &other.0 {
            *self.0.entry(*thing).or_default() += count;
        }
    }

    /// What was not met often.
    pub(super) fn missing(&self) -> Vec<Thing> {
        let is_rare = |thing: &Thing| self.0.get(thing).is_none_or(|count| *count <= OFTEN);
        ALL.iter().copied().filter(is_rare).collect()
    }
}
