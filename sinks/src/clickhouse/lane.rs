//! One partition: where its chain is, what is stored further on, what is on its way, when the next goes and how much of it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use aion_schemas::log::{Mark, Offset, Partition};
use tokio::task::JoinHandle;

use super::{
    Settings,
    landing::{Chain, Landing, Outcome},
    survey::Segment,
    table::{Table, off},
};
use crate::{batch::Batch, buffer::Buffers, sink::SinkError};

/// What a try came to: the batch, and what became of it.
pub(super) type Done = (Landing, Result<Outcome, SinkError>);

/// A partition that this process owns.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) work: Work,
    /// What is stored further on, so isn't written again.
    pub(super) ahead: VecDeque<Segment>,
    /// Where that ended when the partition was assigned.
    pub(super) last_ahead: Option<Mark>,
    /// When its breaks were found, by the server's clock.
    pub(super) found_at: u32,
    /// Since when rows wait.
    pub(super) since: Option<Instant>,
    /// The bytes of what is on its way.
    pub(super) flying_bytes: usize,
    /// Since the server wouldn't take a batch whole.
    pub(super) narrow: Option<Narrow>,
}

/// What goes in smaller parts, since the server wouldn't take a batch whole. Each part is a batch of its own, which begins
/// where the one before it ended: the chain knows no other. The batches behind it go no larger either: each would be
/// refused anew. They grow by a quarter each time that as many rows as may go are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Narrow {
    /// So many rows at a time.
    pub(super) rows: usize,
    /// Where the batch ended: up to there nothing waits for its time again.
    until: Offset,
}

impl Narrow {
    /// After so many rows, up to `end`, were not taken; `None` where it was one row.
    pub(super) fn after(before: Option<Narrow>, rows: usize, end: Offset) -> Option<Narrow> {
        let until = before.map_or(end, |narrow| narrow.until.max(end));
        (rows > 1).then_some(Narrow { rows: rows / 2, until })
    }

    /// After so many rows were taken; `None` once as many may go as anywhere.
    pub(super) fn taken(self, rows: usize, max_rows: usize) -> Option<Narrow> {
        let is_full = rows >= self.rows;
        let rows = if is_full { self.rows + (self.rows / 4).max(1) } else { self.rows };
        (rows < max_rows).then_some(Narrow { rows, ..self })
    }

    /// Whether what waits goes without waiting longer: the rest of what wasn't taken, or as many rows as may go.
    pub(super) fn is_due(self, waiting: &[Batch]) -> bool {
        let is_rest = waiting.first().is_some_and(|first| first.range.start < self.until);
        is_rest || rows_of(waiting) >= self.rows
    }
}

/// What decides whether what waits of a partition goes now.
pub(super) struct Due {
    /// Where stored batches follow, in a break.
    pub(super) until: Option<Offset>,
    /// With how many bytes rows don't wait longer.
    pub(super) goes_at_bytes: usize,
    /// How long rows wait.
    pub(super) rows_wait: Duration,
    /// Whether there is no room for more, of whatever partition.
    pub(super) is_full: bool,
    pub(super) waited: Duration,
}

impl Due {
    pub(super) fn is_due(&self, settings: &Settings, waiting: &[Batch]) -> bool {
        let end = waiting.last().map(|batch| batch.range.end);
        let bytes: usize = waiting.iter().map(Batch::bytes).sum();
        let rows = rows_of(waiting);
        // Where there is no room, what waits for more to come with it would wait for its age.
        let goes_at_bytes = if self.is_full { settings.flush_bytes } else { self.goes_at_bytes };
        if bytes >= goes_at_bytes || rows >= settings.max_rows {
            return true;
        }
        if let Some(until) = self.until {
            // What fills a break waits until all of it is there: then it is one batch. Where there is no room for the
            // rest, that never comes: a lost part has rows of every partition, and all of them share the room.
            return self.is_full || end >= Some(until);
        }
        // Offsets without rows can wait: each note is a part of the table of marks.
        self.waited >= if rows > 0 { self.rows_wait } else { settings.note_every }
    }
}

/// What is on its way.
#[derive(Debug)]
pub(super) enum Work {
    Idle(Chain),
    Running(JoinHandle<Done>),
    Failed(Landing),
    /// Its task panicked.
    Lost,
}

/// What goes next of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// These offsets are stored already.
    Skip { until: Offset },
    /// Rows, up to where stored ones follow.
    Write { until: Option<Offset> },
}

impl Lane {
    /// A partition that was just assigned, with what is stored further on and where that ends, and when that was found.
    pub(super) fn new(
        chain: Chain,
        ahead: VecDeque<Segment>,
        last_ahead: Option<Mark>,
        found_at: u32,
    ) -> Lane {
        let work = Work::Idle(chain);
        Lane { work, ahead, last_ahead, found_at, since: None, flying_bytes: 0, narrow: None }
    }

    /// What goes next, from an offset on.
    pub(super) fn next(&self, from: Offset) -> Next {
        match self.ahead.front() {
            Some(segment) if segment.range.start <= from => Next::Skip { until: segment.range.end },
            Some(segment) => Next::Write { until: Some(segment.range.start) },
            None => Next::Write { until: None },
        }
    }

    /// Leaves out what is stored further on; answers the batches that are, to their end.
    ///
    /// A look that found nothing in a break says nothing of what lies behind it: what goes there is looked for first.
    pub(super) fn skip(
        &mut self,
        table: &Table,
        partition: &Partition,
        buffers: &mut Buffers,
    ) -> Vec<Batch> {
        let mut skipped = Vec::new();
        while let Some(first) = buffers.waiting(partition).first() {
            let from = first.range.start;
            let Next::Skip { until } = self.next(from) else { break };
            skipped.extend(buffers.take_some(partition, Some(until), usize::MAX));
            let reached = skipped.last().map_or(from, |batch: &Batch| batch.range.end).max(from);
            if reached < until {
                break;
            }
            if let (Some(segment), Work::Idle(chain)) = (self.ahead.pop_front(), &mut self.work) {
                chain.end = Some(segment.range.end);
                chain.day = segment.day.or(chain.day);
                if !off!(table, LeaseOfBreak) {
                    chain.lease = None;
                }
            }
        }
        skipped
    }
}

fn rows_of(waiting: &[Batch]) -> usize {
    waiting.iter().map(|batch| batch.rows.num_rows()).sum()
}

/// How many of the rows that wait go in one INSERT of so many bytes: whole batches, and of a first one that is larger the
/// share that its bytes have room for; one row at least.
pub(super) fn rows_within(waiting: &[Batch], max_bytes: usize) -> usize {
    let (mut rows, mut bytes) = (0, 0_usize);
    for batch in waiting {
        let (more, count) = (batch.bytes(), batch.rows.num_rows());
        bytes = bytes.saturating_add(more);
        if bytes > max_bytes {
            let each = more.div_ceil(count.max(1)).max(1);
            return if rows == 0 { (max_bytes / each).clamp(1, count.max(1)) } else { rows };
        }
        rows += count;
    }
    rows
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use aion_schemas::log::Stream;
    use arrow::{
        array::{Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema},
    };
    use uuid::Uuid;

    use super::*;
    use crate::budget::Budget;

    /// So many rows from an offset on, of so many bytes in all.
    fn batch(first: i64, rows: i64, bytes: usize) -> Batch {
        let end = first + rows;
        let schema = Schema::new(vec![Field::new("_offset", DataType::Int64, false)]);
        let offsets = Int64Array::from_iter_values(first..end);
        let stream = Stream { topic: "t".into(), id: Uuid::nil() };
        Batch {
            partition: Partition { stream, number: 0 },
            range: Offset(first)..Offset(end),
            epoch: 1,
            appended: None,
            rows: RecordBatch::try_new(Arc::new(schema), vec![Arc::new(offsets)]).unwrap(),
            memory: Budget::new(usize::MAX).take(bytes),
        }
    }

    #[test]
    fn what_goes_in_one_insert_is_bounded_by_its_bytes() {
        let waiting = [batch(0, 10, 100), batch(10, 20, 100), batch(30, 5, 100)];
        let rows = |max_bytes| rows_within(&waiting, max_bytes);
        assert_eq!([300, 299, 200, 199, 100].map(rows), [35, 30, 30, 10, 10]);
        assert_eq!(
            [99, 50, 9, 0].map(rows),
            [9, 5, 1, 1],
            "a part of the first, and a row at least"
        );
        assert_eq!(
            rows_within(&[batch(0, 0, 100), batch(0, 3, 30)], 100),
            3,
            "no more than it has"
        );
    }

    #[test]
    fn what_was_not_taken_whole_grows_slowly_and_does_not_meet_the_same_each_time() {
        let mut narrow = Narrow::after(None, 1000, Offset(1000)).unwrap();
        narrow = Narrow::after(Some(narrow), narrow.rows, Offset(500)).unwrap();
        assert_eq!(narrow, Narrow { rows: 250, until: Offset(1000) });
        assert_eq!(narrow.taken(249, 10_000), Some(narrow), "fewer rows say nothing of more");
        let grown = narrow.taken(250, 10_000).unwrap();
        assert_eq!(grown.rows, 312);
        assert_eq!(grown.taken(312, 390), None, "as many as ever");
        // Of a server that takes 700 rows, and of batches that have more.
        let (mut narrow, mut refused) = (Some(narrow), 0);
        for _ in 0..100 {
            let rows = narrow.map_or(10_000, |narrow| narrow.rows);
            narrow = if rows > 700 {
                refused += 1;
                Narrow::after(narrow, rows, Offset(0))
            } else {
                narrow.and_then(|narrow| narrow.taken(rows, 10_000))
            };
        }
        assert!((1..=25).contains(&refused), "{refused} of 100");
        let one = Narrow { rows: 1, until: Offset(0) };
        assert_eq!(one.taken(1, 10_000).map(|narrow| narrow.rows), Some(2), "it grows from one");
        assert_eq!(Narrow::after(Some(one), 1, Offset(0)), None, "a single row has no half");
    }

    #[test]
    fn the_rest_of_what_was_not_taken_goes_at_once_and_what_follows_when_it_is_due() {
        let narrow = Narrow { rows: 10, until: Offset(100) };
        assert!(narrow.is_due(&[batch(99, 1, 1)]));
        assert!(!narrow.is_due(&[batch(100, 9, 1)]));
        assert!(narrow.is_due(&[batch(100, 9, 1), batch(109, 1, 1)]), "as many rows as may go");
        assert!(!narrow.is_due(&[]));
    }

    #[test]
    fn size_waits_for_more_only_while_there_is_room() {
        let settings = Settings { flush_bytes: 100, max_rows: 10, ..Settings::default() };
        let due = |goes_at_bytes, is_full, bytes| {
            let rows_wait = Duration::from_secs(40);
            let waited = Duration::from_secs(39);
            let due = Due { until: None, goes_at_bytes, rows_wait, is_full, waited };
            due.is_due(&settings, &[batch(0, 1, bytes)])
        };
        assert!(due(100, false, 100) && !due(100, false, 99));
        assert!(due(800, false, 800) && !due(800, false, 799));
        assert!(due(800, true, 100), "no more can come with it");
        assert!(!due(800, true, 99), "a smaller one waits for its age, as ever");
        let (rows_wait, waited) = (Duration::from_secs(40), Duration::ZERO);
        let due = Due { until: None, goes_at_bytes: 800, rows_wait, is_full: false, waited };
        assert!(due.is_due(&settings, &[batch(0, 10, 1)]), "no more rows go in one INSERT");
    }
}
