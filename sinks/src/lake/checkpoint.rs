//! Checkpoints: the state of a table in one file, so that a reader replays a short log.
//!
//! Made off the hot path, by whichever writer's commit makes one due; two at once are harmless, since a
//! checkpoint is a function of the log. Removing entries that no reader needs any more belongs here too, as an
//! upkeep of its own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    kernel,
    log::{Log, Table},
};
use crate::{fault, sink::SinkError};

/// Starts a checkpoint when enough entries came since the last one, on a task of its own.
pub(crate) fn start_if_due(log: &mut Log) {
    let table = Arc::clone(&log.table);
    let every = table.settings.checkpoint_every.max(1) as i64;
    let entries = log.version - log.checkpoint.max(0);
    if entries < every || table.checkpointing.swap(true, Ordering::AcqRel) {
        return;
    }
    // Believed from here on, so that a failure is tried again after as many entries, not at once.
    log.checkpoint = log.version;
    tokio::spawn(async move {
        let running = Running(&table.checkpointing);
        if let Err(error) = write(&table).await {
            let name = &table.contract.spec.name;
            tracing::warn!(%error, table = %name, "no checkpoint this time; the log grows");
        }
        drop(running);
    });
}

/// Writes a checkpoint of the newest version.
pub(crate) async fn write(table: &Arc<Table>) -> Result<(), SinkError> {
    let reader = Arc::clone(table);
    let checkpoint =
        super::blocking(move || kernel::checkpoint(&reader.engine, reader.store.root())).await?;
    let path = format!("_delta_log/{:020}.checkpoint.parquet", checkpoint.version);
    fault::point("lake.before_checkpoint");
    table.store.replace(&path, checkpoint.bytes.clone()).await?;
    fault::point("lake.after_checkpoint");
    let announcer = Arc::clone(table);
    super::blocking(move || kernel::announce(&announcer.engine, checkpoint)).await?;
    // The kernel wrote it without syncing. Readers take a damaged pointer for none, but a synced one is better.
    table.store.sync("_delta_log/_last_checkpoint").await
}

/// Says on drop that no checkpoint is being made any more.
struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
