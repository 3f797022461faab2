//! A batch: decoded rows of one Kafka partition over a half-open range of its log.

use std::ops::Range;

use aion_schemas::log::{Mark, Offset, Partition, Timestamp};
use arrow::record_batch::RecordBatch;

use crate::budget::Reservation;

/// Decoded rows of one partition. `range` covers more than `rows`: tombstones, rejected records,
/// transaction markers and compacted offsets have a place in the log and no row. A clone is cheap: it
/// shares the columns and their share of the budget.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where the rows come from.
    pub partition: Partition,
    /// What part of the log this covers; a batch starts where the one before it ended.
    pub range: Range<Offset>,
    /// Leader epoch of the last record in the range; -1 where it is not known.
    pub epoch: i32,
    /// Least and greatest append time of the rows; `None` without rows.
    pub appended: Option<(Timestamp, Timestamp)>,
    /// The rows, in offset order; may be none. The columns end in `aion_schemas::schema::POSITION_COLUMNS`.
    pub rows: RecordBatch,
    /// The share of the byte budget that the rows take, given back when the last clone is dropped.
    pub memory: Reservation,
}

impl Batch {
    /// The mark that holds once this batch is durable.
    pub fn mark(&self) -> Mark {
        Mark { offset: self.range.end, epoch: self.epoch }
    }

    /// The bytes it holds against the budget.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Drops what lies below `wanted`; `None` when nothing is left.
    ///
    /// A place that already has a part of the range takes the rest only. `_offset` is strictly
    /// ascending, so the cut is a binary search.
    #[must_use]
    pub fn since(mut self, wanted: Offset) -> Option<Batch> {
        if wanted >= self.range.end {
            return None;
        }
        if wanted > self.range.start {
            let below = rows_below(&self.rows, wanted);
            self.rows = self.rows.slice(below, self.rows.num_rows() - below);
            self.range.start = wanted;
        }
        Some(self)
    }

    /// Drops what lies at or above `end`, which is within the range.
    #[must_use]
    pub fn before(mut self, end: Offset) -> Batch {
        self.rows = self.rows.slice(0, rows_below(&self.rows, end));
        self.range.end = end.min(self.range.end);
        self
    }

    /// The offset of a row, by its number.
    pub(crate) fn offset_of(&self, row: usize) -> Option<Offset> {
        use arrow::array::{AsArray, types};
        let offsets = self.rows.column_by_name("_offset")?.as_primitive::<types::Int64Type>();
        offsets.values().get(row).copied().map(Offset)
    }
}

/// How many of the rows have an offset below `wanted`.
fn rows_below(rows: &RecordBatch, wanted: Offset) -> usize {
    use arrow::array::{AsArray, types};
    let Some(column) = rows.column_by_name("_offset") else { return 0 };
    column
        .as_primitive::<types::Int64Type>()
        .values()
        .partition_point(|offset| *offset < wanted.get())
}
