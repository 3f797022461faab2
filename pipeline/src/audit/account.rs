//! The books of one partition: every offset has one fate, and the fates add up.
//!
//! ```text
//! judged = stored + retried + dead_letters + passed_over          what may be
//!        + tombstones + holes + gaps
//!        + other_job + doubtful + kept                            what can't be decided
//!        + missing + stored_twice + not_in_log + diverged         what is wrong
//! ```
//!
//! | stored | the log has | rejected or in a gap | fate |
//! |---|---|---|---|
//! | twice | anything | anything | `stored_twice` |
//! | any | anything | in a gap `diverged` | `diverged` |
//! | any | anything | in one that a person settled by keeping the rows | `kept` |
//! | once | a record | anything | `stored`: a row wins over a dead letter; `retried` where the row is that of a retry |
//! | once | a null | anything | `not_in_log`; `stored` where nulls are rows |
//! | once | nothing | anything | `stored` where compaction may have taken it, else `not_in_log`; `doubtful` where nobody knows |
//! | no | a null | anything | `tombstone`, where nulls aren't rows |
//! | no | anything else | rejected by this job | `dead_letter` |
//! | no | anything else | in a gap | `gap` |
//! | no | a retry whose record is stored, or of another job | no | `passed_over` |
//! | no | nothing | no | `hole`: a transaction marker, an aborted or compacted record |
//! | no | a record | rejected by another job only | `other_job` |
//! | no | a record | no | `missing` |
//!
//! Where the log wasn't read (it expired, or is another topic's) a row is looked at for one thing
//! only: whether it is there twice.
//!
//! **Invariant:** pure: no clock, no network, no file. **Invariant:** memory is that of one window,
//! whatever the number of offsets: four bits each.

use std::ops::Range;

use roaring::RoaringTreemap;

use self::window::Seen;
pub(super) use self::{
    tally::{Ranges, Tally},
    window::Window,
};

mod tally;
mod window;

/// A half-open range of offsets, as plain numbers: here they are counted and used as indices.
pub(super) type Run = Range<i64>;

/// A stretch that the job has recorded as lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) run: Run,
    pub(super) kind: GapKind,
}

/// What a gap says of its offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GapKind {
    /// They are lost.
    Lost,
    /// The log was cut: what is stored there isn't what the log has.
    Diverged,
    /// A person said that it stays so.
    Kept,
}

/// What a row means at an offset where the log has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holes {
    /// The log is never compacted, so there never was a record to store.
    Final,
    /// Compaction may have taken the record after it was stored.
    Compacted,
    /// The cluster doesn't say whether the log is compacted.
    Unknown,
}

/// What else is known of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// Offsets of which this job wrote a dead letter.
    pub(super) rejected: &'a RoaringTreemap,
    /// Offsets of which another job did.
    pub(super) rejected_elsewhere: &'a RoaringTreemap,
    /// Offsets that are stored by a retry.
    pub(super) retried: &'a RoaringTreemap,
    /// Offsets of retries that store nothing, and rightly.
    pub(super) passed_over: &'a RoaringTreemap,
    pub(super) gaps: &'a [Gap],
    pub(super) holes: Holes,
    /// A record without a value becomes a row too: so it is in the dead-letter topic.
    pub(super) nulls_are_rows: bool,
}

/// What became of one offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stored,
    Retried,
    DeadLetter,
    PassedOver,
    Tombstone,
    Hole,
    Gap,
    OtherJob,
    Doubtful,
    Kept,
    Wrong(Wrong),
    /// Stored once, where the log wasn't read.
    Expired,
    /// Neither stored nor in a log that was read: nothing to judge.
    Nothing,
}

/// The ways in which a store can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// The log has a record, and it is neither a row nor a dead letter nor in a gap.
    Missing,
    /// One record is two rows or more.
    StoredTwice,
    /// There is a row, and the log never had a record that becomes one.
    NotInLog,
    /// The log was cut below what is stored, and the job wrote that down.
    Diverged,
    /// There are rows at or above the mark of the same partition.
    BeyondMark,
    /// The store's mark lies beyond the end of the log: the log was cut.
    BeyondLog,
}

impl Facts<'_> {
    fn fate(&self, offset: i64, stored: u8, seen: Seen) -> Fate {
        let mut gaps = self.gaps.iter().filter(|gap| gap.run.contains(&offset));
        let is = |kind| self.gaps.iter().any(|gap| gap.kind == kind && gap.run.contains(&offset));
        match (stored, seen) {
            (2.., _) => Fate::Wrong(Wrong::StoredTwice),
            (1, Seen::Unread) => Fate::Expired,
            (_, Seen::Unread) => Fate::Nothing,
            #[cfg(test)]
            (1, _) if tests::letters_win() && self.rejected.contains(offset as u64) => {
                Fate::DeadLetter
            }
            _ if is(GapKind::Kept) => Fate::Kept,
            _ if is(GapKind::Diverged) => Fate::Wrong(Wrong::Diverged),
            (1, Seen::Record) if self.retried.contains(offset as u64) => Fate::Retried,
            (1, Seen::Record) => Fate::Stored,
            (1, Seen::Null) if self.nulls_are_rows => Fate::Stored,
            (1, Seen::Null) => Fate::Wrong(Wrong::NotInLog),
            (1, Seen::Nothing) => match self.holes {
                Holes::Compacted => Fate::Stored,
                Holes::Final => Fate::Wrong(Wrong::NotInLog),
                Holes::Unknown => Fate::Doubtful,
            },
            (_, Seen::Null) if !self.nulls_are_rows => Fate::Tombstone,
            _ if self.rejected.contains(offset as u64) => Fate::DeadLetter,
            _ if gaps.next().is_some() => Fate::Gap,
            (_, Seen::Record) if self.passed_over.contains(offset as u64) => Fate::PassedOver,
            (_, Seen::Nothing) => Fate::Hole,
            _ if self.rejected_elsewhere.contains(offset as u64) => Fate::OtherJob,
            _ => Fate::Wrong(Wrong::Missing),
        }
    }

    /// Books every offset of a window.
    pub(super) fn book(&self, window: &Window, tally: &mut Tally) {
        let near =
            |gap: &&Gap| gap.run.start < window.run().end && window.run().start < gap.run.end;
        let gaps: Vec<Gap> = self.gaps.iter().filter(near).cloned().collect();
        let facts = Facts { gaps: &gaps, ..*self };
        for offset in window.run() {
            let (stored, seen) = window.at(offset);
            tally.add(offset, facts.fate(offset, stored, seen), seen == Seen::Unread);
        }
    }
}

#[cfg(test)]
mod tests;
