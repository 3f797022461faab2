//! Rows that are retries, and rows left out: what sinks share that store each record once.

use std::collections::BTreeSet;

use aion_schemas::{log::Origin, schema::ORIGIN_COLUMN};
use arrow::{
    array::{Array, AsArray, BooleanArray},
    compute,
    record_batch::RecordBatch,
};

use crate::sink::SinkError;

/// Calls `take` with each row that is a retry, and its origin.
pub(crate) fn of_rows<T>(rows: &RecordBatch, mut take: impl FnMut(usize, Origin) -> T) {
    let column = rows.column_by_name(ORIGIN_COLUMN);
    let Some(origins) = column.and_then(|column| column.as_string_opt::<i32>()) else { return };
    if origins.null_count() == origins.len() {
        return;
    }
    for (row, text) in origins.iter().enumerate() {
        if let Some(origin) = text.and_then(|text| text.parse().ok()) {
            take(row, origin);
        }
    }
}

/// The rows but those of these numbers.
pub(crate) fn without(
    rows: &RecordBatch,
    dropped: &BTreeSet<usize>,
) -> Result<RecordBatch, SinkError> {
    if dropped.is_empty() {
        return Ok(rows.clone());
    }
    let kept = (0..rows.num_rows()).map(|row| Some(!dropped.contains(&row)));
    let kept = compute::filter_record_batch(rows, &kept.collect::<BooleanArray>());
    kept.map_err(|e| SinkError::Fatal {
        doing: "leave out rows that are stored".to_owned(),
        cause: e.to_string(),
        hint: "this is a fault of the program, please report it".to_owned(),
    })
}
