//! One partition: where its chain is, what is stored further on, what is on its way.

use std::{collections::VecDeque, time::Instant};

use aion_schemas::log::{Mark, Offset, Partition};
use tokio::task::JoinHandle;

use super::{
    landing::{Chain, Landing, Outcome},
    survey::Segment,
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
    /// Since when rows wait.
    pub(super) since: Option<Instant>,
    /// The bytes of what is on its way.
    pub(super) flying_bytes: usize,
    /// While what a server wouldn't take goes in parts.
    pub(super) narrow: Option<Narrow>,
}

/// A batch that goes in parts, since the server wouldn't take it whole. Each part is a batch of its own, which begins
/// where the one before it ended: the chain knows no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Narrow {
    /// So many rows at a time.
    pub(super) rows: usize,
    /// Where the batch ended.
    pub(super) until: Offset,
}

impl Narrow {
    /// After so many rows, up to `end`, were not taken; `None` where it was one row.
    pub(super) fn after(before: Option<Narrow>, rows: usize, end: Offset) -> Option<Narrow> {
        let until = before.map_or(end, |narrow| narrow.until.max(end));
        (rows > 1).then_some(Narrow { rows: rows / 2, until })
    }

    /// After rows up to `end` were taken.
    pub(super) fn taken(self, end: Offset) -> Option<Narrow> {
        (end < self.until).then_some(Narrow { rows: self.rows.saturating_mul(2), ..self })
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
    /// A partition that was just assigned, with what is stored further on and where that ends.
    pub(super) fn new(chain: Chain, ahead: VecDeque<Segment>, last_ahead: Option<Mark>) -> Lane {
        let work = Work::Idle(chain);
        Lane { work, ahead, last_ahead, since: None, flying_bytes: 0, narrow: None }
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
    pub(super) fn skip(&mut self, partition: &Partition, buffers: &mut Buffers) -> Vec<Batch> {
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
            }
        }
        skipped
    }
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
}
