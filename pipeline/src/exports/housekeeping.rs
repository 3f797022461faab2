//! Removes exports that are too old, and what attempts left that didn't count.
//!
//! **Invariant:** what says that an export is whole goes first, then its files, then what was asked for: half a removal is
//! never taken for an export, and a later round ends it.

use std::time::Duration;

use aion_analytics::exports::{manifest::SUCCESS, time};
use tokio_util::sync::CancellationToken;

use super::{
    closing::now,
    journal::{Job, State},
    service::Exports,
};

/// The time between two rounds.
const EVERY: Duration = Duration::from_hours(1);

/// Looks every hour, until `shutdown`.
pub async fn run(exports: &Exports, shutdown: CancellationToken) {
    loop {
        if let Err(cause) = round(exports).await {
            tracing::warn!("old exports can't be removed: {cause:#}");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// One round.
pub async fn round(exports: &Exports) -> anyhow::Result<()> {
    for id in exports.journal.ids().await? {
        let Some(job) = exports.journal.job(&id).await? else {
            exports.journal.forget(&id).await?;
            continue;
        };
        let last = job.last();
        if !last.state.is_over() {
            continue;
        }
        let kept = (last.state == State::Succeeded).then_some(last.attempt);
        for attempt in (1..=last.attempt).filter(|attempt| Some(*attempt) != kept) {
            exports.remove_attempt(&job, attempt).await?;
        }
        if is_old(exports, &job) {
            remove(exports, &job).await?;
        }
    }
    Ok(())
}

fn is_old(exports: &Exports, job: &Job) -> bool {
    let Some(days) = exports.settings.keep_days else { return false };
    let age = time::parse(&job.last().at).map(|at| now().0.saturating_sub(at.0));
    age.is_ok_and(|age| age > i64::from(days) * 86_400_000_000)
}

async fn remove(exports: &Exports, job: &Job) -> anyhow::Result<()> {
    let attempt = job.last().attempt;
    let success = exports.store.locate(&format!("{}/{SUCCESS}", job.folder(attempt)))?;
    exports.store.remove(&success).await?;
    exports.remove_attempt(job, attempt).await?;
    exports.journal.forget(&job.id).await?;
    tracing::info!(export = job.id, "removed: it was older than it is kept");
    Ok(())
}
