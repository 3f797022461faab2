//! What an audit found: the form of `--json`, whose field names are an agreement with scripts.

use std::sync::Arc;

use aion_sinks::clickhouse::guarantee::Guarantee;
use serde::Serialize;
use uuid::Uuid;

use super::account::{Ranges, Run, Tally, Wrong};

/// The answer to whether a store has what the log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It does, offset by offset.
    #[default]
    Exact,
    /// Nobody can know, for the reasons given; what could be looked at is right.
    NotProvable,
    /// It doesn't.
    Wrong,
}

impl Verdict {
    /// All there are.
    pub const ALL: [Verdict; 3] = [Verdict::Exact, Verdict::NotProvable, Verdict::Wrong];

    /// The word in reports and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Exact => "exact",
            Verdict::NotProvable => "not_provable",
            Verdict::Wrong => "wrong",
        }
    }
}

/// All that one audit found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When it began, RFC 3339.
    pub audited_at: String,
    /// How long it took.
    pub seconds: f64,
    /// Only what was appended since was looked at.
    pub since: Option<String>,
    /// The worst verdict of any partition.
    pub verdict: Verdict,
    /// One for each topic and store.
    pub topics: Vec<TopicReport>,
    /// What the stores say of the same records, where two were audited.
    pub(super) compared: Vec<Compared>,
}

impl Report {
    /// One that has something of everything.
    #[cfg(test)]
    pub(crate) fn sample() -> Report {
        let topic = TopicReport {
            topic: "topic".into(),
            table: "table".into(),
            job: "job".into(),
            sink: "lake",
            guarantee: Guarantee::default(),
            verdict: Verdict::Exact,
            partitions: Vec::new(),
        };
        Report {
            audited_at: String::new(),
            seconds: 1.0,
            since: None,
            verdict: Verdict::Exact,
            topics: vec![topic],
            compared: Vec::new(),
        }
    }

    /// The offsets of which two stores say different things.
    pub fn differing(&self) -> u64 {
        self.compared.iter().map(|one| one.differing.offsets).sum()
    }
}

/// Whether two stores have the same in the rows of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Compared {
    pub(super) topic: Arc<str>,
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    /// What was compared.
    pub(super) range: Bounds,
    /// Offsets that both have.
    pub(super) rows: u64,
    /// The sum of what their rows say, in hexadecimal: see `digest`.
    pub(super) digest: String,
    /// Offsets that one of them has: the verdict of each store says whether that is right.
    pub(super) only_lake: u64,
    pub(super) only_clickhouse: u64,
    /// Offsets of which they say different things.
    pub(super) differing: Ranges,
}

/// What was found of a topic.
#[derive(Debug, Serialize)]
pub struct TopicReport {
    /// Its name.
    pub topic: Arc<str>,
    /// The table that holds its rows.
    pub table: Arc<str>,
    /// The job that writes the table.
    pub job: String,
    /// The store that the table is in: `lake`, `clickhouse`.
    pub sink: &'static str,
    /// What the configuration asks of that table. The verdict is by exactly once whatever it asks.
    pub guarantee: Guarantee,
    /// The worst verdict of its partitions.
    pub verdict: Verdict,
    /// One for each partition of the topic that is there, and of those that had its name.
    pub(super) partitions: Vec<PartitionReport>,
}

/// What was found of a partition.
#[derive(Debug, Serialize)]
pub(super) struct PartitionReport {
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    /// What the log has; none where there is no log.
    pub(super) log: Option<Bounds>,
    /// The next offset that the table wants; none where it has nothing yet.
    pub(super) mark: Option<i64>,
    /// What was judged.
    pub(super) range: Option<Bounds>,
    #[serde(flatten)]
    pub(super) tally: Tally,
    /// Offsets of the log that the table has still to get.
    pub(super) pending: u64,
    pub(super) verdict: Verdict,
    pub(super) reasons: Vec<Reason>,
    pub(super) findings: Vec<Finding>,
}

/// A half-open range of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Bounds {
    pub(super) first: i64,
    pub(super) next: i64,
}

impl From<Run> for Bounds {
    fn from(run: Run) -> Bounds {
        Bounds { first: run.start, next: run.end }
    }
}

/// Why something can't be proven: a word for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Reason {
    pub(super) reason: Doubt,
    pub(super) detail: String,
}

/// The reasons for `not_provable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Doubt {
    /// The topic has another id now, or none: the log of these rows is gone.
    NoLog,
    /// The log no longer has anything below the mark.
    Expired,
    /// The log lost records before the job stored them, and the job hasn't written that down yet.
    LostUnread,
    /// The job has stored nothing yet of what is asked for.
    NotSettled,
    /// Only another job has dead letters of some offsets.
    OtherJob,
    /// The log was cut, and a person lets stand what was stored before.
    Kept,
    /// There are rows where the log has none, and nobody says whether the log is compacted.
    PolicyUnknown,
    /// The topic was made anew while it was looked at.
    MadeAnew,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) kind: Wrong,
    #[serde(flatten)]
    pub(super) ranges: Ranges,
}

impl PartitionReport {
    /// Draws the verdict from what was found and what is in doubt.
    pub(super) fn concluded(mut self) -> PartitionReport {
        let wrong = std::mem::take(&mut self.tally.wrong);
        self.findings = wrong.into_iter().map(|(kind, ranges)| Finding { kind, ranges }).collect();
        self.verdict = match (self.findings.is_empty(), self.reasons.is_empty()) {
            (false, _) => Verdict::Wrong,
            (true, false) => Verdict::NotProvable,
            (true, true) => Verdict::Exact,
        };
        self
    }

    pub(super) fn doubt(&mut self, reason: Doubt, detail: impl Into<String>) {
        self.reasons.push(Reason { reason, detail: detail.into() });
    }
}

/// Offsets of a topic by what was found, as metrics show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Everything is as it should be.
    pub exact: u64,
    /// Nowhere.
    pub missing: u64,
    /// Stored twice or more.
    pub duplicate: u64,
    /// Stored, or marked as stored, and shouldn't be.
    pub unfounded: u64,
    /// Nobody can say whether they are right.
    pub unprovable: u64,
    /// Still to be stored.
    pub pending: u64,
}

impl TopicReport {
    /// The counts over all partitions.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for partition in &self.partitions {
            counts.exact += partition.tally.exact();
            counts.unprovable += partition.tally.unprovable();
            counts.pending += partition.pending;
            for finding in &partition.findings {
                let count = match finding.kind {
                    Wrong::Missing => &mut counts.missing,
                    Wrong::StoredTwice => &mut counts.duplicate,
                    Wrong::NotInLog | Wrong::Diverged | Wrong::BeyondMark | Wrong::BeyondLog => {
                        &mut counts.unfounded
                    }
                };
                *count += finding.ranges.offsets;
            }
        }
        counts
    }
}
