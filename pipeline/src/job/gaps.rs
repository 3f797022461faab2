//! Gaps: offsets that a sink will never have, and their record in `aion.gaps`.
//!
//! | kind | what happened | what the job does |
//! |---|---|---|
//! | `retention` | the log dropped them before they were read | writes the gap down, goes on behind it |
//! | `topic_deleted` | the topic went with offsets that were not read, as far as it was known to reach | writes it down, reads the topic that is there now |
//! | `sink_lost` | a sink had them and has them no more: erased, or lost with a disk | writes it down; the mark is past them already, or the log has none left to fill the break with |
//! | `diverged` | the log was cut below a mark: what is stored there isn't what the log says now | writes it down, stops the partition until a person chooses |
//! | `diverged_kept` | a person keeps what is stored of a log that was cut | writes it down, reads on from the mark |
//! | `diverged_replaced` | a person took it back | writes it down, reads the log's records in its place: nothing is missing |

use std::{collections::BTreeMap, ops::Range};

use aion_schemas::log::{Offset, Partition, Stream, Timestamp, show};
use bytes::Bytes;
use serde_json::json;

use super::{
    journal::{Entry, Ledger},
    times::rfc3339,
};

/// Why offsets are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// Retention took them before they were read.
    Retention,
    /// The topic was deleted before they were read.
    TopicDeleted,
    /// The stored rows there are not those of the log.
    Diverged,
    /// They were stored once, and are gone.
    SinkLost,
    /// They stay.
    Kept,
    /// They were taken back.
    Replaced,
}

impl GapKind {
    /// The word in records and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            GapKind::Retention => "retention",
            GapKind::TopicDeleted => "topic_deleted",
            GapKind::Diverged => "diverged",
            GapKind::SinkLost => "sink_lost",
            GapKind::Kept => "diverged_kept",
            GapKind::Replaced => "diverged_replaced",
        }
    }
}

/// Offsets of one partition that one or more sinks of a job miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub kind: GapKind,
    /// Which offsets.
    pub range: Range<Offset>,
    /// The sinks, by name.
    pub sinks: Vec<&'static str>,
}

/// What is done about a gap that lies in the past.
pub(super) const RECORDED: &str = "the gap is recorded in aion.gaps";

impl Gap {
    /// Says it in the log, with what is done about it.
    pub(super) fn tell(&self, job: &str, partition: &Partition, done: &str) {
        let (Stream { topic, id }, range) = (&partition.stream, &self.range);
        tracing::error!(
            job, %topic, topic_id = %id, partition = partition.number,
            offset = range.start.get(), next = range.end.get(),
            "{}; {done}", self.describe(partition)
        );
    }

    /// Gathers the sinks that miss the same offsets; `missing` has no range of a sink twice.
    pub(super) fn gather(
        kind: GapKind,
        missing: impl IntoIterator<Item = (&'static str, Range<Offset>)>,
    ) -> Vec<Gap> {
        let mut gaps: BTreeMap<(Offset, Offset), Vec<&'static str>> = BTreeMap::new();
        for (sink, range) in missing {
            gaps.entry((range.start, range.end)).or_default().push(sink);
        }
        let gap = |((start, end), sinks)| Gap { kind, range: start..end, sinks };
        gaps.into_iter().map(gap).collect()
    }

    /// The record for `aion.gaps`; the key is `job:topic id:partition:first:reason`.
    pub(super) fn entry(&self, job: &str, partition: &Partition, recorded_at: Timestamp) -> Entry {
        let Partition { stream, number } = partition;
        let value = json!({
            "job": job,
            "topic": &*stream.topic,
            "topic_id": stream.id.to_string(),
            "partition": number,
            "first": self.range.start.get(),
            "next": self.range.end.get(),
            "reason": self.kind.word(),
            "detail": self.describe(partition),
            "recorded_at": rfc3339(recorded_at),
        });
        Entry {
            ledger: Ledger::Gaps,
            key: format!("{job}:{}:{number}:{}:{}", stream.id, self.range.start, self.kind.word()),
            value: Some(Bytes::from(value.to_string())),
            headers: vec![("sinks", Bytes::from(self.sinks.join(",")))],
        }
    }

    /// One line for logs and status.
    pub(super) fn describe(&self, partition: &Partition) -> String {
        let (range, sinks) = (show(&self.range), self.sinks.join(", "));
        match self.kind {
            GapKind::Retention => {
                format!("retention took offsets {range} of {partition} before they reached {sinks}")
            }
            GapKind::TopicDeleted => format!(
                "the topic of {partition} was deleted before offsets {range}, and what came after \
                 them, reached {sinks}"
            ),
            GapKind::SinkLost => {
                format!("{sinks} had offsets {range} of {partition}, and has them no more")
            }
            GapKind::Diverged => format!(
                "the log of {partition} was cut below what {sinks} stored: offsets {range} differ"
            ),
            GapKind::Kept => format!(
                "the log of {partition} was cut, and an operator keeps what {sinks} stored of {range}"
            ),
            GapKind::Replaced => format!(
                "the log of {partition} was cut, and an operator took back what {sinks} stored of {range}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_that_miss_the_same_share_an_entry() {
        let missing = [("a", Offset(1)..Offset(9)), ("b", Offset(4)..Offset(9))];
        let gaps = Gap::gather(GapKind::Retention, missing);
        assert_eq!(gaps.len(), 2);
        let same = [("a", Offset(1)..Offset(9)), ("b", Offset(1)..Offset(9))];
        assert_eq!(Gap::gather(GapKind::Retention, same)[0].sinks, ["a", "b"]);
    }
}
