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
    /// Leader epoch of the last record below the range's end, as a [`Mark`] has it.
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
    ///
    /// Of what has no row the epochs aren't known. The last record that is left has that of the last row, if that
    /// stands right before the end, or if the epoch is no later one at the end of the whole.
    #[must_use]
    pub fn before(mut self, end: Offset) -> Batch {
        if end >= self.range.end {
            return self;
        }
        self.rows = self.rows.slice(0, rows_below(&self.rows, end));
        let whole = self.mark().record_epoch();
        let mark = match self.last_row() {
            Some((last, epoch)) if last.next() == end => Mark { offset: end, epoch },
            Some((_, epoch)) if whole == Some(epoch) => Mark::behind_hole(end, whole),
            _ => Mark::at(end),
        };
        (self.range.end, self.epoch) = (end, mark.epoch);
        self
    }

    /// The offset and leader epoch of the last row.
    pub(crate) fn last_row(&self) -> Option<(Offset, i32)> {
        use arrow::array::{AsArray, types};
        let row = self.rows.num_rows().checked_sub(1)?;
        let epochs = self.rows.column_by_name("_leader_epoch")?;
        let epoch = *epochs.as_primitive::<types::Int32Type>().values().get(row)?;
        Some((self.offset_of(row)?, epoch))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aion_schemas::log::Stream;
    use arrow::{
        array::{Int32Array, Int64Array},
        datatypes::{DataType, Field, Schema},
    };
    use uuid::Uuid;

    use super::*;

    /// Of offsets 0..10, with rows at 1, 2 and 5.
    fn batch(epochs: [i32; 3], epoch: i32) -> Batch {
        let fields = vec![
            Field::new("_leader_epoch", DataType::Int32, false),
            Field::new("_offset", DataType::Int64, false),
        ];
        let epochs = Int32Array::from(epochs.to_vec());
        let offsets = Int64Array::from(vec![1, 2, 5]);
        let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(epochs), Arc::new(offsets)];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        let stream = Stream { topic: "t".into(), id: Uuid::nil() };
        Batch {
            partition: Partition { stream, number: 0 },
            range: Offset(0)..Offset(10),
            epoch,
            appended: None,
            rows: rows.expect("columns that fit the schema"),
            memory: Reservation::none(),
        }
    }

    #[test]
    fn what_is_left_of_a_batch_claims_no_epoch_that_it_may_not_have() {
        let before = |batch: Batch, end: i64| batch.before(Offset(end)).mark();
        let at = |offset: i64, epoch| Mark { offset: Offset(offset), epoch };
        let behind = |offset, epoch| Mark::behind_hole(Offset(offset), Some(epoch));
        let newer = || batch([1, 1, 2], 2);
        assert_eq!(before(newer(), 3), at(3, 1));
        assert_eq!(before(newer(), 4), at(4, -1), "3 may be of either");
        assert_eq!(before(newer(), 6), at(6, 2));
        assert_eq!(before(newer(), 8), behind(8, 2));
        assert_eq!(before(newer(), 1), at(1, -1), "no row is left");
        for end in [10, 11] {
            assert_eq!(before(newer(), end), at(10, 2), "all is left");
        }
        assert_eq!(before(batch([1, 1, 1], behind(10, 1).epoch), 8), behind(8, 1));
        assert_eq!(before(batch([1, 1, 1], 3), 8), at(8, -1), "a rejected record may be of 3");
    }
}
