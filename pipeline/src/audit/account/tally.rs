//! How many offsets met which fate, and where the wrong ones are.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Fate, Run, Wrong};

/// Of each kind of wrongness so many ranges are kept; what is beyond is counted.
const MAX_RANGES: usize = 100;

/// Offsets by fate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::audit) struct Tally {
    /// Offsets that the log was read for: the sum of all below, but for the last two.
    pub(in crate::audit) judged: u64,
    pub(in crate::audit) stored: u64,
    /// Stored by a retry of their dead letter.
    pub(in crate::audit) retried: u64,
    pub(in crate::audit) dead_letters: u64,
    /// Retries without a row: of a record that is stored, or of another job's dead letter.
    pub(in crate::audit) passed_over: u64,
    pub(in crate::audit) tombstones: u64,
    pub(in crate::audit) holes: u64,
    pub(in crate::audit) gaps: u64,
    pub(in crate::audit) other_job: u64,
    pub(in crate::audit) doubtful: u64,
    /// Not what the log has, and a person said that it stays.
    pub(in crate::audit) kept: u64,
    pub(in crate::audit) missing: u64,
    pub(in crate::audit) stored_twice: u64,
    pub(in crate::audit) not_in_log: u64,
    pub(in crate::audit) diverged: u64,
    /// Stored once, where the log could not be read any more.
    pub(in crate::audit) expired: u64,
    /// Stored twice, where the log could not be read any more.
    pub(in crate::audit) expired_twice: u64,
    #[serde(skip)]
    pub(in crate::audit) wrong: BTreeMap<Wrong, Ranges>,
}

/// Where something is, and how much of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::audit) struct Ranges {
    /// All offsets.
    pub(in crate::audit) offsets: u64,
    /// The first stretches, half-open, in order.
    #[serde(rename = "ranges", serialize_with = "pairs")]
    pub(in crate::audit) runs: Vec<Run>,
    /// Whether there are more stretches than these.
    pub(in crate::audit) more: bool,
}

impl Ranges {
    /// Adds a stretch of which `offsets` are meant; stretches come in order.
    pub(in crate::audit) fn add(&mut self, run: Run, offsets: u64) {
        self.offsets += offsets;
        let is_full = self.runs.len() == MAX_RANGES;
        match self.runs.last_mut() {
            Some(last) if last.end == run.start && !self.more => last.end = run.end,
            _ if is_full => self.more = true,
            _ => self.runs.push(run),
        }
    }
}

impl Tally {
    /// Books an offset; `is_unread` says that the log wasn't read there.
    pub(super) fn add(&mut self, offset: i64, fate: Fate, is_unread: bool) {
        let count = match fate {
            Fate::Nothing => return,
            Fate::Expired => &mut self.expired,
            Fate::Stored => &mut self.stored,
            Fate::Retried => &mut self.retried,
            Fate::PassedOver => &mut self.passed_over,
            Fate::DeadLetter => &mut self.dead_letters,
            Fate::Tombstone => &mut self.tombstones,
            Fate::Hole => &mut self.holes,
            Fate::Gap => &mut self.gaps,
            Fate::OtherJob => &mut self.other_job,
            Fate::Doubtful => &mut self.doubtful,
            Fate::Kept => &mut self.kept,
            Fate::Wrong(Wrong::StoredTwice) if is_unread => &mut self.expired_twice,
            Fate::Wrong(Wrong::StoredTwice) => &mut self.stored_twice,
            Fate::Wrong(Wrong::NotInLog) => &mut self.not_in_log,
            Fate::Wrong(Wrong::Diverged) => &mut self.diverged,
            Fate::Wrong(_) => &mut self.missing,
        };
        *count += 1;
        self.judged += u64::from(!is_unread);
        if let Fate::Wrong(wrong) = fate {
            self.wrong.entry(wrong).or_default().add(offset..offset + 1, 1);
        }
    }

    /// Notes rows that are wrong by where they are, whatever the log has.
    pub(in crate::audit) fn found(&mut self, wrong: Wrong, run: Run, offsets: u64) {
        self.wrong.entry(wrong).or_default().add(run, offsets);
    }

    /// Offsets of which everything is as it should be.
    pub(in crate::audit) fn exact(&self) -> u64 {
        let stored = self.stored + self.retried;
        let without = self.dead_letters + self.passed_over + self.tombstones;
        stored + without + self.holes + self.gaps
    }

    /// Rows and records of which nobody can say whether they are right.
    pub(in crate::audit) fn unprovable(&self) -> u64 {
        self.other_job + self.doubtful + self.kept + self.expired
    }
}

fn pairs<S: serde::Serializer>(runs: &[Run], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(runs.iter().map(|run| [run.start, run.end]))
}
