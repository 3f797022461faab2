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
