//! The columns of the position.

use std::sync::Arc;

use arrow::{
    array::{
        Array as _, ArrayBuilder as _, ArrayRef, Int32Array, Int64Array, StringArray,
        StringBuilder, TimestampMicrosecondArray, new_null_array,
    },
    datatypes::DataType,
};

use super::{Record, columns::renew};
use crate::log::Origin;

/// The columns of the position: which record of which log each row was.
#[derive(Debug, Default)]
pub(super) struct Positions {
    epochs: Vec<i32>,
    offsets: Vec<i64>,
    append_times: Vec<i64>,
    /// Of the rows that are retries: row and origin. Nearly always there are none.
    origins: Vec<(usize, Origin)>,
    place: Option<Place>,
}

/// The columns that say the same in every row; batches of one partition share them.
#[derive(Debug)]
struct Place {
    topic_id: uuid::Uuid,
    partition: i32,
    topic_ids: StringArray,
    partitions: Int32Array,
    no_origins: ArrayRef,
}

impl Place {
    fn new(topic_id: uuid::Uuid, partition: i32, rows: usize) -> Place {
        let room = rows.next_power_of_two();
        Place {
            topic_id,
            partition,
            topic_ids: StringArray::new_repeated(topic_id.to_string(), room),
            partitions: Int32Array::new(vec![partition; room].into(), None),
            no_origins: new_null_array(&DataType::Utf8, room),
        }
    }

    fn fits(&self, topic_id: uuid::Uuid, partition: i32, rows: usize) -> bool {
        (self.topic_id, self.partition) == (topic_id, partition) && rows <= self.partitions.len()
    }
}

impl Positions {
    /// What a row's position takes, without what all rows share.
    pub(super) const ROW_BYTES: usize = size_of::<i32>() + 2 * size_of::<i64>();

    pub(super) fn push(&mut self, record: &Record<'_>) {
        if let Some(retry) = record.retry {
            self.origins.push((self.offsets.len(), retry.origin));
        }
        self.epochs.push(record.epoch);
        self.offsets.push(record.offset.get());
        self.append_times.push(record.append_time.0);
    }

    /// The arrays, in the order of `POSITION_COLUMNS`.
    pub(super) fn finish(&mut self, topic_id: uuid::Uuid, partition: i32) -> [ArrayRef; 6] {
        let rows = self.offsets.len();
        let append_times =
            TimestampMicrosecondArray::new(renew(&mut self.append_times).into(), None);
        let known = self.place.take().filter(|place| place.fits(topic_id, partition, rows));
        let place =
            self.place.insert(known.unwrap_or_else(|| Place::new(topic_id, partition, rows)));
        let origins = match std::mem::take(&mut self.origins) {
            origins if origins.is_empty() => place.no_origins.slice(0, rows),
            origins => texts_of(&origins, rows),
        };
        [
            Arc::new(place.topic_ids.slice(0, rows)),
            Arc::new(Int32Array::new(renew(&mut self.epochs).into(), None)),
            Arc::new(place.partitions.slice(0, rows)),
            Arc::new(Int64Array::new(renew(&mut self.offsets).into(), None)),
            Arc::new(append_times.with_timezone("UTC")),
            origins,
        ]
    }
}

/// The origins as a column: each at its row, null in between.
fn texts_of(origins: &[(usize, Origin)], rows: usize) -> ArrayRef {
    let mut column = StringBuilder::new();
    for (row, origin) in origins {
        column.append_nulls(row - column.len());
        column.append_value(origin.to_string());
    }
    column.append_nulls(rows - column.len());
    Arc::new(column.finish())
}
