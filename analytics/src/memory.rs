//! The memory that queries share.

mod compact;
mod growth;
mod guarded;
mod held;
mod patterns;
mod pieces;
mod pool;
mod reckoning;
mod sizes;
mod work;

use datafusion::common::DataFusionError;

pub(crate) use self::{growth::Makings, guarded::guarded, pool::Pool, sizes::of_rows};

/// What is made at a time, of all the memory that there is for queries. The pool doesn't count it: it is gone, or counted by
/// whoever keeps it, before the next.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "units stand last in names")]
pub(crate) struct Limits {
    /// What a function may make of the rows that it gets at once.
    pub(crate) at_once_bytes: usize,
    /// What a projection makes at once, where rows are shorter.
    pub(crate) piece_bytes: usize,
    /// A row.
    pub(crate) row_bytes: usize,
}

/// What can be made at once however little memory there is: a batch of short texts is no less.
const LEAST_BYTES: usize = 4 << 20;

impl Limits {
    /// Of so much for all.
    pub(crate) fn of(memory_bytes: usize) -> Limits {
        Limits {
            at_once_bytes: (memory_bytes / 16).max(LEAST_BYTES),
            piece_bytes: memory_bytes / 64,
            row_bytes: (memory_bytes / 8).max(LEAST_BYTES),
        }
    }

    /// A row is longer than one may be.
    pub(crate) fn too_long(&self, bytes: usize) -> DataFusionError {
        DataFusionError::ResourcesExhausted(format!(
            "a row has {bytes} bytes, of {} that one may have",
            self.row_bytes
        ))
    }
}

/// How a query sorts what doesn't fit into its memory, by one sort for each thread.
pub(crate) struct Sorting {
    /// What each sort keeps back, to merge what it has put on disk.
    pub(crate) merge_bytes: usize,
    /// Rows that an export works on together: two batches of each file are held while files are merged. Questions are
    /// quicker with more; an export may have any number of rows, and has to end.
    pub(crate) export_rows: usize,
}

/// A sort merges so many files at once: merging more of them holds more, and is no quicker.
pub(crate) const FILES_AT_ONCE: usize = 16;

/// As long as events are, with what merging makes of them.
const LONG_ROW_BYTES: usize = 4 << 10;

impl Sorting {
    /// Of so much for all.
    pub(crate) fn of(memory_bytes: usize, threads: usize) -> Sorting {
        let each = (memory_bytes / 8 / threads.max(1)).min(memory_bytes / 32);
        Sorting {
            merge_bytes: each.min(10 << 20),
            export_rows: (each / LONG_ROW_BYTES).clamp(256, 8192),
        }
    }
}
