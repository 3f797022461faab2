//! `exports`: each training export that somebody has asked for, and how it stands.

use std::sync::Arc;

use aion_schemas::{log::Timestamp, schema::time_type};
use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, StringViewArray},
    datatypes::DataType,
};
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt};

use super::{Column, Streamed, Told, times};
use crate::{error::Error, tables::TableInfo};

/// The table's name.
pub(crate) const TABLE: &str = "exports";

/// An export as its journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its id.
    pub id: String,
    /// The table, or `router_training`.
    pub dataset: String,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: &'static str,
    /// Which attempt that is; 0 before the first.
    pub attempt: u32,
    /// Which store is read.
    pub source: String,
    /// Events from then on.
    pub start: Option<Timestamp>,
    /// Events up to then.
    pub end: Option<Timestamp>,
    /// What was asked for, with everything said, as JSON.
    pub request: String,
    /// What it came to, of one that succeeded.
    pub made: Option<Made>,
    /// Why it failed: a word, and a sentence.
    pub error: Option<(String, String)>,
    /// When it was asked for first.
    pub requested_at: Option<Timestamp>,
    /// When it came to an end.
    pub finished_at: Option<Timestamp>,
}

/// What an export came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Rows in all files.
    pub rows: u64,
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Stretches of the log whose rows aren't there.
    pub gaps: u64,
    /// The digest of the rows.
    pub digest: String,
}

fn columns() -> [Column; 17] {
    use DataType::{Int32, Int64, Utf8View};
    [
        ("id", Utf8View, false, "Id of the export, a hash of what was asked for."),
        ("dataset", Utf8View, false, "Table that is exported, or router_training."),
        (
            "state",
            Utf8View,
            false,
            "queued, running, succeeded, failed or cancelled: how its last attempt stands.",
        ),
        ("attempt", Int32, false, "Number of that attempt; 0 before the first."),
        ("source", Utf8View, false, "Store that is read: lake or clickhouse."),
        ("interval_start", time_type(), true, "Events from then on are in it."),
        ("interval_end", time_type(), true, "Events from then on are not in it any more."),
        ("rows", Int64, true, "Rows in all files; null unless it succeeded."),
        ("files", Int64, true, "How many files; null unless it succeeded."),
        ("bytes", Int64, true, "Bytes of those files; null unless it succeeded."),
        (
            "gaps",
            Int64,
            true,
            "Stretches of the log whose rows aren't there; its manifest has them. Null unless it succeeded.",
        ),
        ("digest", Utf8View, true, "Digest of the rows; null unless it succeeded."),
        ("error_code", Utf8View, true, "Why it failed, as a word for programs."),
        ("error", Utf8View, true, "Why it failed, for people."),
        ("request", Utf8View, false, "What was asked for, with everything said, as JSON."),
        ("requested_at", time_type(), true, "When it was asked for first."),
        ("finished_at", time_type(), true, "When its last attempt came to an end."),
    ]
}

/// What people see of the table.
pub(crate) fn info() -> TableInfo {
    let doc = "Training exports that somebody has asked for, and how each stands.";
    super::info(TABLE, doc, &columns())
}

/// The table, by whoever keeps the exports.
pub(crate) fn table(told: Told<Export>) -> Streamed {
    let failed =
        |cause| DataFusionError::from(Error::Read { what: "the exports".to_owned(), cause });
    Streamed::new(&columns(), move || told.rows().map_err(failed).boxed(), bytes, arrays)
}

fn bytes(row: &Export) -> usize {
    row.request.len() + row.error.as_ref().map_or(0, |(_, message)| message.len())
}

fn arrays(rows: &[Export]) -> Vec<ArrayRef> {
    let texts = |of: fn(&Export) -> &str| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(of)))
    };
    let maybe = |of: fn(&Export) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringViewArray>())
    };
    let moments =
        |of: fn(&Export) -> Option<Timestamp>| times(rows.iter().map(|row| of(row).map(|at| at.0)));
    let made = |of: fn(&Made) -> u64| -> ArrayRef {
        let counts = rows.iter().map(|row| row.made.as_ref().map(|made| of(made) as i64));
        Arc::new(counts.collect::<Int64Array>())
    };
    vec![
        texts(|row| &row.id),
        texts(|row| &row.dataset),
        texts(|row| row.state),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.attempt as i32))),
        texts(|row| &row.source),
        moments(|row| row.start),
        moments(|row| row.end),
        made(|made| made.rows),
        made(|made| made.files),
        made(|made| made.bytes),
        made(|made| made.gaps),
        maybe(|row| row.made.as_ref().map(|made| made.digest.as_str())),
        maybe(|row| row.error.as_ref().map(|(code, _)| code.as_str())),
        maybe(|row| row.error.as_ref().map(|(_, message)| message.as_str())),
        texts(|row| &row.request),
        moments(|row| row.requested_at),
        moments(|row| row.finished_at),
    ]
}
