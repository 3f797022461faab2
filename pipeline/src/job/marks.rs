//! How far each sink has a partition, and what of that is told to Kafka.
//!
//! **Invariant:** Kafka's committed offset is the least of the sinks' marks, so a reader of it never
//! believes more than every place has. It is a report: no sink starts from it.

use std::{collections::VecDeque, ops::Range};

use aion_schemas::log::{Mark, Offset, Timestamp};
use aion_sinks::batch::Batch;
use serde_json::{Map, json};
use uuid::Uuid;

/// One sink's progress in one partition.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What its store has; `None` when it has never seen the partition.
    pub(super) stored: Option<Mark>,
    /// The next offset to hand to it; `None` until the log's bounds are known, for an empty store.
    pub(super) wanted: Option<Offset>,
    /// What its store has beyond the mark, in order, where it fills breaks.
    pub(super) ahead: Vec<Range<Offset>>,
    /// Where reading began for an empty store. It stands while the partition starts over: its topic may go before the log's
    /// bounds are known again.
    began: Option<Offset>,
    /// The end of what is stored, until the log was seen to have the records that it follows.
    pub(super) unproven: Option<Mark>,
    /// Ends, row counts and newest append times of what was handed over and isn't durable so far.
    handed: VecDeque<(Offset, u64, Option<Timestamp>)>,
    /// The append time of the newest row that became durable since it was assigned.
    pub(super) newest: Option<Timestamp>,
}

impl Progress {
    /// Starts from what the sink's store has, at its mark and beyond, up to `last_ahead`.
    pub(super) fn assigned(
        &mut self,
        stored: Option<Mark>,
        ahead: Vec<Range<Offset>>,
        last_ahead: Option<Mark>,
    ) {
        (self.stored, self.ahead) = (stored, ahead);
        self.wanted = stored.map(|mark| mark.offset);
        // A cut has epochs above all that were stored before, so one that passes the last has no need of those between.
        let mut ends = [last_ahead, stored].into_iter().flatten();
        self.unproven = ends.find(|mark| mark.record_epoch().is_some());
        self.handed.clear();
    }

    /// Begins at the log's first offset, for an empty store.
    pub(super) fn begin_at(&mut self, start: Offset) {
        (self.wanted, self.began) = (Some(start), Some(start));
    }

    /// Everything below this is durable in the sink, or was never wanted of it.
    pub(super) fn has(&self) -> Option<Offset> {
        self.stored.map(|mark| mark.offset).or(self.began)
    }

    /// Everything that its store has is below this, also what lies behind breaks; `None` when it has never seen the
    /// partition.
    pub(super) fn reaches(&self) -> Option<Offset> {
        let mark = self.stored?.offset;
        // An empty range is where a break at the end of all is over: nothing is stored there.
        let last = self.ahead.iter().rfind(|range| !range.is_empty());
        Some(last.map_or(mark, |range| range.end.max(mark)))
    }

    /// Notes that the sink took the batch.
    pub(super) fn took(&mut self, end: Offset, rows: u64, newest: Option<Timestamp>) {
        self.wanted = Some(end);
        self.handed.push_back((end, rows, newest));
    }

    /// Expects nothing more of what was handed over.
    pub(super) fn give_up(&mut self) {
        self.handed.clear();
    }

    /// What was handed over and isn't durable.
    pub(super) fn unwritten(&self) -> Option<Range<Offset>> {
        let last = self.handed.back()?.0;
        let first = self.has().unwrap_or(Offset::ZERO);
        (first < last).then_some(first..last)
    }

    /// Notes a mark that became durable; answers how many rows did with it.
    pub(super) fn durable(&mut self, mark: Mark) -> u64 {
        self.stored = Some(mark);
        let below = self.handed.partition_point(|(end, ..)| *end <= mark.offset);
        let mut stored = 0;
        for (_, rows, newest) in self.handed.drain(..below) {
            stored += rows;
            self.newest = self.newest.max(newest);
        }
        stored
    }

    /// What the sink wants of a batch: the part at and above its mark.
    pub(super) fn part_of(&self, batch: &Batch) -> Option<Batch> {
        batch.clone().since(self.wanted.unwrap_or(batch.range.start))
    }

    /// Compares the end of what is stored with the log's epochs; answers where the stored rows may begin to differ,
    /// if they do.
    ///
    /// The last record below that end has the epoch that the sink stored with it. Another one stands there
    /// when the log was cut and has grown again; only in a compacted topic an earlier one may, because
    /// compaction took the last. The source checks the mark that it starts at; this checks what lies further
    /// up: the marks of other sinks, and what is stored behind breaks.
    pub(super) fn differs_from(
        &mut self,
        end: Offset,
        epochs: &[(Offset, i32)],
        compacted: bool,
    ) -> Option<Offset> {
        let mark = self.unproven?;
        if end >= mark.offset {
            self.unproven = None;
        }
        let (first, epoch) = *epochs.iter().rev().find(|(first, _)| *first < mark.offset)?;
        // Only records are compared, so it makes no difference whether the mark is behind a hole.
        let stored = mark.record_epoch()?;
        if epoch > stored {
            let later = epochs.iter().find(|(_, epoch)| *epoch > stored);
            return later.map(|(first, _)| *first);
        }
        (epoch < stored && end >= mark.offset && !compacted).then_some(first.next())
    }
}

/// The offset that all sinks have; `None` while one has nothing.
pub(super) fn committable(progress: &[Progress]) -> Option<Offset> {
    let stored = progress.iter().map(|sink| sink.stored.map(|mark| mark.offset));
    stored.min().flatten()
}

/// The metadata of a commit: each sink's mark, and the topic id that they belong to, as compact JSON.
/// `{"v":1,"id":"<topic id>","sinks":{"lake":[<offset>,<epoch>]}}`, with the epoch of the last record below the offset,
/// -1 where it isn't known; Kafka allows 4,096 bytes.
pub(super) fn metadata<'a>(
    id: Uuid,
    sinks: impl Iterator<Item = (&'a str, &'a Progress)>,
) -> String {
    let sinks: Map<String, serde_json::Value> = sinks
        .filter_map(|(name, progress)| {
            let mark = progress.stored?;
            Some((name.to_owned(), json!([mark.offset.get(), mark.record_epoch().unwrap_or(-1)])))
        })
        .collect();
    json!({ "v": 1, "id": id.to_string(), "sinks": sinks }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64, epoch: i32) -> Progress {
        let mut progress = Progress::default();
        progress.assigned(Some(Mark { offset: Offset(offset), epoch }), Vec::new(), None);
        progress
    }

    /// As a mark at `offset` has it behind a hole.
    fn behind_hole(offset: i64, epoch: i32) -> i32 {
        Mark::behind_hole(Offset(offset), Some(epoch)).epoch
    }

    #[test]
    fn the_commit_is_the_least_mark_and_nothing_while_a_sink_has_none() {
        assert_eq!(committable(&[at(7, 0), at(5, 0)]), Some(Offset(5)));
        assert_eq!(committable(&[at(7, 0), Progress::default()]), None);
    }

    #[test]
    fn the_metadata_is_compact() {
        let text = metadata(Uuid::nil(), [("lake", &at(7, 2))].into_iter());
        let id = Uuid::nil();
        let expected = format!(r#"{{"id":"{id}","sinks":{{"lake":[7,2]}},"v":1}}"#);
        assert_eq!(text, expected);
        let text = metadata(Uuid::nil(), [("lake", &at(7, behind_hole(7, 2)))].into_iter());
        assert_eq!(text, expected, "the record's epoch");
    }

    #[test]
    fn another_epoch_below_a_mark_tells_that_the_log_was_cut() {
        let grown_again = [(Offset(0), 1), (Offset(5), 3)];
        let differs = |mark: (i64, i32), compacted| {
            let [plain, behind] = [mark.1, behind_hole(mark.0, mark.1)]
                .map(|epoch| at(mark.0, epoch).differs_from(Offset(9), &grown_again, compacted));
            assert_eq!(plain, behind, "only records are compared");
            plain
        };
        assert_eq!(differs((7, 2), false), Some(Offset(5)));
        assert_eq!(differs((5, 1), false), None);
        assert_eq!(differs((7, 3), false), None);
        assert_eq!(differs((5, 2), false), Some(Offset(1)));
        assert_eq!(differs((5, 2), true), None, "compaction may have taken the record of epoch 2");
    }

    #[test]
    fn another_epoch_below_what_is_stored_behind_a_break_tells_it_too() {
        // The log of epoch 1 was cut at 60, and has records of epoch 3 from there on.
        let grown_again = [(Offset(20), 1), (Offset(60), 3)];
        let differs = |last_ahead: Option<(i64, i32)>, mark_epoch: i32| {
            let mark = |(offset, epoch)| Mark { offset: Offset(offset), epoch };
            let mut progress = Progress::default();
            let (stored, ahead) = (mark((20, mark_epoch)), vec![Offset(30)..Offset(100)]);
            progress.assigned(Some(stored), ahead, last_ahead.map(mark));
            progress.differs_from(Offset(120), &grown_again, false)
        };
        for mark_epoch in [-1, 1, behind_hole(20, 1)] {
            assert_eq!(differs(Some((100, 1)), mark_epoch), Some(Offset(60)));
            assert_eq!(differs(Some((100, behind_hole(100, 1))), mark_epoch), Some(Offset(60)));
            assert_eq!(differs(Some((60, 1)), mark_epoch), None, "it ends where the log was cut");
            assert_eq!(differs(Some((100, 3)), mark_epoch), None, "the log's own");
            assert_eq!(differs(Some((100, -1)), mark_epoch), None, "nothing is known of it");
        }
        assert_eq!(differs(Some((100, -1)), 0), None, "the source has compared the mark itself");
    }

    #[test]
    fn where_an_empty_store_began_is_known_while_its_partition_starts_over() {
        let mut progress = Progress::default();
        progress.assigned(None, Vec::new(), None);
        assert_eq!(progress.has(), None, "nothing is known of it");
        progress.begin_at(Offset(3));
        progress.assigned(None, Vec::new(), None);
        assert_eq!((progress.has(), progress.wanted), (Some(Offset(3)), None));
        progress.assigned(Some(Mark::at(Offset(7))), Vec::new(), None);
        assert_eq!(progress.has(), Some(Offset(7)));
    }

    #[test]
    fn rows_count_once_durable() {
        let mut progress = at(0, 0);
        progress.took(Offset(5), 4, None);
        progress.took(Offset(9), 2, None);
        assert_eq!(progress.durable(Mark::at(Offset(8))), 4);
        assert_eq!(progress.unwritten(), Some(Offset(8)..Offset(9)));
        assert_eq!(progress.durable(Mark::at(Offset(9))), 2);
        assert_eq!(progress.unwritten(), None);
    }
}
