//! One log entry that changes which files make up the table, or nothing at all.

use std::{collections::HashSet, sync::Arc};

use uuid::Uuid;

use crate::{
    fault,
    lake::{
        actions::{self, Add, Line, Remove, Txn, entry_path, wall_clock_ms},
        clock::Moment,
        kernel,
        log::{Change, Log, SLOW_PUT},
    },
    sink::SinkError,
    store::Put,
};

/// Files out, and files in; marks with them only where rows are taken back.
#[derive(Debug)]
pub(super) struct Swap {
    id: Uuid,
    operation: &'static str,
    /// The version in which the inputs were seen.
    seen: i64,
    inputs: Vec<Add>,
    adds: Vec<Add>,
    /// Application transactions that change with the files; they must stand as they did.
    changes: Vec<Change>,
    /// No added file is older than this.
    written: Moment,
}

/// What became of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swapped {
    /// It is in the log.
    Done,
    /// An input isn't part of the table any more, a transaction has changed, or the new files have grown old.
    /// Nothing was changed.
    GivenUp,
}

impl Swap {
    /// Takes `inputs`, which were part of version `seen`, out of the table, and `adds` in.
    pub(super) fn new(
        operation: &'static str,
        seen: i64,
        inputs: Vec<Add>,
        adds: Vec<Add>,
        written: Moment,
    ) -> Swap {
        Swap { id: Uuid::new_v4(), operation, seen, inputs, adds, changes: Vec::new(), written }
    }

    /// Changes application transactions in the same entry.
    pub(super) fn with(self, changes: Vec<Change>) -> Swap {
        Swap { changes, ..self }
    }

    /// Puts the swap as the version after the newest. After an error nobody knows whether it is there: plan anew.
    pub(super) async fn put(&self, log: &mut Log) -> Result<Swapped, SinkError> {
        let mut seen = self.seen;
        loop {
            if log.is_stale() {
                log.reopen().await?;
            }
            // Entries that were read for something else: nobody has compared them with the inputs.
            if log.version > seen {
                if !self.finds_inputs(log).await? {
                    return Ok(Swapped::GivenUp);
                }
                seen = log.version;
            }
            if !self.stand(log) {
                return Ok(Swapped::GivenUp);
            }
            let put_at = log.table.clock.now();
            if put_at.since(self.written) > log.rules.retention / 2 {
                return Ok(Swapped::GivenUp); // vacuum may have taken the new files for litter
            }
            let lines = self.lines();
            let path = entry_path(log.version + 1);
            fault::point("lake.before_swap");
            match log.table.store.put_entry(&path, actions::to_bytes(&lines)?).await? {
                Put::Created => {
                    fault::point("lake.after_swap");
                    log.apply_own(&lines, put_at)?;
                    return self.verify(log, put_at).await;
                }
                Put::Exists => match log.read_lines().await? {
                    // Cleaned up meanwhile.
                    None => log.reopen().await?,
                    Some(lines) if actions::writer_id(&lines) == Some(self.id.to_string()) => {
                        return self.verify(log, put_at).await;
                    }
                    Some(lines) if self.is_forestalled(&lines, log) => return Ok(Swapped::GivenUp),
                    Some(_) => seen = seen.max(log.version),
                },
            }
        }
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = vec![actions::commit_info(self.id, self.operation, &[])];
        // By the time of the put: how long a removed file is kept counts from here.
        let removed_at = wall_clock_ms();
        lines.extend(self.inputs.iter().map(|input| {
            let remove = Remove {
                path: input.path.clone(),
                deletion_timestamp: Some(removed_at),
                data_change: self.adds.is_empty() || !self.changes.is_empty(),
            };
            Line { remove: Some(remove), ..Line::default() }
        }));
        let adds = self.adds.iter().cloned();
        lines.extend(adds.map(|add| Line { add: Some(add), ..Line::default() }));
        let txn = |change: &Change| Txn { app_id: change.app_id.clone(), version: change.after };
        let txns = self.changes.iter().map(txn);
        lines.extend(txns.map(|txn| Line { txn: Some(txn), ..Line::default() }));
        lines
    }

    /// Whether what changes with the files stands as it was seen.
    fn stand(&self, log: &Log) -> bool {
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(crate::lake::testing::Protection::Standing) {
            return true;
        }
        self.changes.iter().all(|change| log.stands(change))
    }

    /// Whether another entry has taken one of the inputs.
    fn is_forestalled(&self, lines: &[Line], log: &Log) -> bool {
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(crate::lake::testing::Protection::Inputs) {
            return false;
        }
        let _ = log;
        let ours: HashSet<&str> = self.inputs.iter().map(|input| &*input.path).collect();
        let taken =
            |line: &Line| line.remove.as_ref().is_some_and(|remove| ours.contains(&*remove.path));
        lines.iter().any(taken)
    }

    /// Whether all inputs are part of the newest version.
    async fn finds_inputs(&self, log: &Log) -> Result<bool, SinkError> {
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(crate::lake::testing::Protection::Inputs) {
            return Ok(true);
        }
        let live = live(log).await?;
        Ok(self.inputs.iter().all(|input| live.contains(&input.path)))
    }

    /// After a put that took long: the version's number may have been used, cleaned up and freed before, and
    /// then readers pass over the entry; or the new files may have been vacuumed before they were part of the
    /// table, and then the old ones have to come back.
    async fn verify(&self, log: &mut Log, put_at: Moment) -> Result<Swapped, SinkError> {
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(crate::lake::testing::Protection::SlowPut) {
            return Ok(Swapped::Done);
        }
        if log.table.clock.now().since(put_at) <= SLOW_PUT {
            return Ok(Swapped::Done);
        }
        log.reopen().await?;
        let live = live(log).await?;
        let is_in = self.adds.iter().all(|add| live.contains(&add.path))
            && !self.inputs.iter().any(|input| live.contains(&input.path));
        if !is_in {
            return Ok(Swapped::GivenUp);
        }
        for add in &self.adds {
            if !log.table.store.exists(&add.path).await? {
                let (adds, inputs) = (self.adds.clone(), self.inputs.clone());
                let now = log.table.clock.now();
                let back = Swap::new("RESTORE FILES", log.version, adds, unchanged(inputs), now);
                let back = back.with(self.changes.iter().filter_map(Change::back).collect());
                tracing::warn!("a file vanished during a long put; the ones it replaced come back");
                Box::pin(back.put(log)).await?;
                return Ok(Swapped::GivenUp);
            }
        }
        Ok(Swapped::Done)
    }
}

fn unchanged(mut files: Vec<Add>) -> Vec<Add> {
    for file in &mut files {
        file.data_change = false;
    }
    files
}

async fn live(log: &Log) -> Result<HashSet<String>, SinkError> {
    let table = Arc::clone(&log.table);
    crate::lake::blocking(move || {
        let opened = kernel::open(&table.engine, table.store.root())?;
        let files = kernel::files(&table.engine, &opened)?;
        Ok(files.into_iter().map(|file| file.path).collect())
    })
    .await
}
