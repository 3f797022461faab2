//! Upkeep of a table: few large files in place of many small ones, and nothing kept that no reader needs.
//!
//! | work | what goes |
//! |---|---|
//! | [`Upkeep::compact`] | small files of one date become large ones with the same rows |
//! | [`Upkeep::expire`] | rows whose event date is too old leave the table |
//! | [`Upkeep::checkpoint`] | nothing: readers replay a shorter log |
//! | [`Upkeep::vacuum`] | files that no version within the table's retention uses |
//! | [`Upkeep::take_back`] | rows of records that the log doesn't have any more, and the mark above them |
//! | [`Upkeep::clean_log`] | entries of the log that a checkpoint has stood for long enough |
//!
//! Any number of processes may do any of it at the same time, beside any number of writers.
//!
//! **Invariant:** what changes which files make up the table goes through the log like a flush, and is given
//! up when another entry has removed one of its inputs: two compactors double nothing.
//! **Invariant:** marks are never touched here, so a writer notices nothing; taking back is the exception, and is
//! given up when the mark isn't the expected one.
//! **Invariant:** an age is never taken greater than the storage's own times and this machine's clock both say; and
//! how old rows are is measured against the newest append time, which is the broker's.

mod compact;
mod swap;
mod sweep;
mod take_back;

use std::sync::Arc;

use aion_schemas::log::{Mark, Partition};
use arrow::{compute::kernels::cast_utils::Parser, datatypes::Date32Type};

pub use compact::{Compacted, Compaction};
pub use sweep::Swept;
pub use take_back::TakenBack;

use self::swap::{Swap, Swapped};
use super::{
    Lake, Settings, TableSpec,
    actions::{Add, Stats, wall_clock_ms},
    checkpoint,
    contract::DATE_COLUMN,
    kernel,
    log::Log,
};
use crate::sink::SinkError;

const DAY_MS: i64 = 86_400_000;

/// The upkeep of one table.
#[derive(Debug)]
pub struct Upkeep {
    log: Log,
}

/// How a table stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The newest version.
    pub version: i64,
    /// The version of its newest checkpoint; -1 without one.
    pub checkpoint: i64,
    /// The files of that version.
    pub files: usize,
    /// Those that [`Upkeep::compact`] would take up, by its default.
    pub small_files: usize,
    /// Bytes of the files.
    pub bytes: u64,
    /// Rows, where every file says its own.
    pub rows: Option<u64>,
    /// The first and the last event date, as `YYYY-MM-DD`.
    pub dates: Option<(String, String)>,
}

impl Lake {
    /// The upkeep of a table; `None` where there is no such table.
    pub async fn upkeep(&self, spec: TableSpec) -> Result<Option<Upkeep>, SinkError> {
        let table = self.writer_of(spec, Settings::default(), false)?;
        if !table.store.has_any("_delta_log").await? {
            return Ok(None);
        }
        Ok(Some(Upkeep { log: Log::open(table).await? }))
    }
}

impl Upkeep {
    /// The strings that tests pull.
    #[cfg(feature = "testing")]
    pub fn rig(&self) -> Arc<super::testing::Rig> {
        Arc::clone(&self.log.table.store.rig)
    }

    /// How the table stands now.
    pub async fn status(&mut self) -> Result<Status, SinkError> {
        self.log.refresh().await?;
        let (version, checkpoint, files) = self.files().await?;
        let date = |file: &Add| file.partition_values.get(DATE_COLUMN).cloned().flatten();
        let (first, last) =
            (files.iter().filter_map(date).min(), files.iter().filter_map(date).max());
        let planned = compact::plan(&files, &Compaction::default());
        Ok(Status {
            version,
            checkpoint,
            files: files.len(),
            small_files: planned.iter().map(Vec::len).sum(),
            bytes: files.iter().map(|file| file.size.max(0) as u64).sum(),
            rows: files.iter().map(compact::rows).sum(),
            dates: first.zip(last),
        })
    }

    /// A partition's mark, as of the version read last.
    pub fn mark(&self, partition: &Partition) -> Option<Mark> {
        self.log.mark(partition)
    }

    /// Takes every row out of the table whose event date is older than so many days, today included, by whole
    /// files. Gives how many files went; their bytes go with a later [`Upkeep::vacuum`].
    ///
    /// Today is the date of the newest append time in the table, or this machine's if that is earlier: a clock
    /// that is ahead takes nothing. A table whose files don't tell keeps all.
    pub async fn expire(&mut self, keep_days: u32) -> Result<usize, SinkError> {
        loop {
            self.log.refresh().await?;
            if self.log.rules.append_only {
                return Err(self.refused(
                    "take rows out of",
                    "delta.appendOnly is set",
                    "unset it",
                ));
            }
            let (version, _, files) = self.files().await?;
            let Some(newest) = files.iter().filter_map(newest_append_date).max() else {
                return Ok(0);
            };
            let today = newest.min((wall_clock_ms() / DAY_MS) as i32);
            let first = today.saturating_sub_unsigned(keep_days.saturating_sub(1));
            let is_old = |file: &Add| date(file).is_some_and(|date| date < first);
            let old: Vec<Add> = files.into_iter().filter(is_old).collect();
            if old.is_empty() {
                return Ok(0);
            }
            let (count, written) = (old.len(), self.log.table.clock.now());
            // In the same entry: whoever misses rows later can be told why.
            let told = self.log.expire(first).into_iter().collect();
            let swap = Swap::new("DELETE", version, old, Vec::new(), written).with(told);
            if swap.put(&mut self.log).await? == Swapped::Done {
                return Ok(count);
            }
            // Somebody else has removed some of them, or compacted them: what is left is looked at anew.
        }
    }

    /// Writes a checkpoint of the newest version, and gives that version.
    pub async fn checkpoint(&mut self) -> Result<i64, SinkError> {
        checkpoint::write(&self.log.table).await?;
        self.log.reopen().await?;
        Ok(self.log.checkpoint)
    }

    fn refused(&self, doing: &str, cause: &str, hint: &str) -> SinkError {
        SinkError::Fatal {
            doing: format!("{doing} table {}", self.log.table.contract.spec.name),
            cause: cause.to_owned(),
            hint: hint.to_owned(),
        }
    }

    /// The files of the newest version, that version, and that of its checkpoint.
    async fn files(&self) -> Result<(i64, i64, Vec<Add>), SinkError> {
        let table = Arc::clone(&self.log.table);
        super::blocking(move || {
            let opened = kernel::open(&table.engine, table.store.root())?;
            Ok((opened.version, opened.checkpoint, kernel::files(&table.engine, &opened)?))
        })
        .await
    }
}

/// The event date of a file's rows, in days since 1970.
fn date(file: &Add) -> Option<i32> {
    Date32Type::parse(file.partition_values.get(DATE_COLUMN)?.as_deref()?)
}

/// The date of the newest append time of a file's rows, in days since 1970, where its writer said so.
fn newest_append_date(file: &Add) -> Option<i32> {
    let stats: Stats = serde_json::from_str(file.stats.as_deref()?).ok()?;
    let time = stats.max_values.get("_append_time")?.as_str()?;
    Date32Type::parse(time.get(..10)?)
}
