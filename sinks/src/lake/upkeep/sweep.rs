//! Sweeping: files that no reader needs any more are removed from storage.

use std::{collections::HashSet, sync::Arc, time::Duration};

use object_store::{ObjectMeta, path::Path as ObjectPath};

use super::Upkeep;
use crate::{
    fault,
    lake::{
        actions::{Add, wall_clock_ms},
        kernel,
    },
    sink::SinkError,
};

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Clocks that are further apart than this are wrong.
const CLOCKS_APART_MS: i64 = 3_600_000;
/// How long what was staged for the log and never linked is left alone.
const STAGED: Duration = Duration::from_hours(24);

impl Upkeep {
    /// Removes data files that no version within the table's retention uses; with `dry` only counts them.
    ///
    /// A reader that holds an older snapshot fails to find its files, and says so.
    pub async fn vacuum(&mut self, dry: bool) -> Result<Swept, SinkError> {
        // Before the log is read: what a flush commits in between is in the log then, or not in the list.
        let listed = self.log.table.store.list("").await?;
        self.log.refresh().await?;
        let table = Arc::clone(&self.log.table);
        let (live, removed) = super::super::blocking(move || {
            let opened = kernel::open(&table.engine, table.store.root())?;
            let files = kernel::files(&table.engine, &opened)?;
            Ok((files, kernel::tombstones(&table.engine, &opened)?))
        })
        .await?;
        let cutoff = self.now(&listed)? - self.log.rules.retention.as_millis() as i64;
        self.check_listing(&listed, &live)?;
        let store = &self.log.table.store;
        let live = live.iter().map(|file| store.locate(&file.path));
        let recent = removed.iter().filter(|(_, time)| time.is_none_or(|time| time >= cutoff));
        let recent = recent.map(|(path, _)| store.locate(path));
        let used: HashSet<ObjectPath> = live.chain(recent).collect::<Result<_, _>>()?;
        let log = store.locate("_delta_log")?;
        let is_litter = |file: &&ObjectMeta| {
            file.location.as_ref().ends_with(".parquet")
                && !file.location.prefix_matches(&log)
                && modified(file) < cutoff
                && !used.contains(&file.location)
        };
        self.sweep(listed.iter().filter(is_litter), dry).await
    }

    /// Removes entries of the log, and checkpoints, that a newer checkpoint has stood for as long as the table
    /// keeps its log; with `dry` only counts them.
    pub async fn clean_log(&mut self, dry: bool) -> Result<Swept, SinkError> {
        if !self.log.rules.cleans_log {
            return Ok(Swept::default());
        }
        let listed = self.log.table.store.list("_delta_log").await?;
        let now = self.now(&listed)?;
        let cutoff = now - self.log.rules.log_retention.as_millis() as i64;
        let checkpoints =
            listed.iter().filter(|file| is_checkpoint(file) && modified(file) < cutoff);
        let base = checkpoints.filter_map(version).max().unwrap_or(-1);
        let staged = now - STAGED.as_millis() as i64;
        let is_needless = |file: &&ObjectMeta| match version(file) {
            Some(version) => version < base && modified(file) < cutoff,
            None => is_staged(file) && modified(file) < staged,
        };
        // From the oldest, so that what is left is whole at every moment.
        let mut needless: Vec<_> = listed.iter().filter(is_needless).collect();
        needless.sort_by_key(|file| version(file));
        self.sweep(needless.into_iter(), dry).await
    }

    /// The time from which ages are counted: the youngest file's, or this machine's if that is earlier.
    fn now(&self, listed: &[ObjectMeta]) -> Result<i64, SinkError> {
        let (stored, here) = (listed.iter().map(modified).max().unwrap_or(0), wall_clock_ms());
        if stored - here > CLOCKS_APART_MS {
            let cause = "files there are from the future by this machine's clock";
            return Err(self.refused("sweep", cause, "set the clock; nothing was removed"));
        }
        Ok(stored.min(here))
    }

    /// Every file of the table has to be in the list of what is there: else names are compared that can't be, or
    /// the table is damaged, and what looks unused may be needed.
    fn check_listing(&self, listed: &[ObjectMeta], live: &[Add]) -> Result<(), SinkError> {
        let there: HashSet<&ObjectPath> = listed.iter().map(|file| &file.location).collect();
        let settled = self.now(listed)? - CLOCKS_APART_MS;
        for file in live.iter().filter(|file| file.modification_time < settled) {
            if !there.contains(&self.log.table.store.locate(&file.path)?) {
                let cause = format!("{} belongs to it and isn't there", file.path);
                return Err(self.refused("sweep", &cause, "restore the file; nothing was removed"));
            }
        }
        Ok(())
    }

    async fn sweep(
        &self,
        files: impl Iterator<Item = &ObjectMeta>,
        dry: bool,
    ) -> Result<Swept, SinkError> {
        let mut swept = Swept::default();
        for file in files {
            if !dry {
                fault::point("lake.before_sweep");
                self.log.table.store.remove(&file.location).await?;
            }
            swept.files += 1;
            swept.bytes += file.size;
        }
        Ok(swept)
    }
}

fn modified(file: &ObjectMeta) -> i64 {
    file.last_modified.timestamp_millis()
}

/// The version that a file of the log is about.
fn version(file: &ObjectMeta) -> Option<i64> {
    let digits = file.location.filename()?.get(..20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Whether it is a checkpoint in one file, as we write them; one in parts is never relied on.
fn is_checkpoint(file: &ObjectMeta) -> bool {
    file.location.filename().and_then(|name| name.get(20..)) == Some(".checkpoint.parquet")
}

fn is_staged(file: &ObjectMeta) -> bool {
    let name = file.location.filename().unwrap_or_default();
    name.starts_with('.') && name.ends_with(".staged")
}
