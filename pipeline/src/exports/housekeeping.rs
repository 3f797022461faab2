//! Removes exports that are too old, and what attempts left that didn't count.
//!
//! **Invariant:** what says that an export is whole goes first, then its files, then what was asked for: half a removal is
//! never taken for an export, and a later round ends it.

use std::time::Duration;

use aion_analytics::exports::{manifest::SUCCESS, time};
use tokio_util::sync::CancellationToken;

use super::{closing::now, journal::Job, service::Exports};

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
        let kept = job.whole();
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
    if let Some(attempt) = job.whole() {
        let success = exports.store.locate(&format!("{}/{SUCCESS}", job.folder(attempt)))?;
        exports.store.remove(&success).await?;
        exports.remove_attempt(job, attempt).await?;
    }
    exports.journal.forget(&job.id).await?;
    tracing::info!(export = job.id, "removed: it was older than it is kept");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::{path::Path, sync::Arc};

    use aion_analytics::exports::request::Asked;
    use aion_kafka::Connection;
    use aion_schemas::catalog::Catalog;
    use serde_json::json;
    use url::Url;

    use super::*;
    use crate::exports::{
        journal::{Order, State, entry},
        service::{Settings, Stores},
    };

    const ID: &str = "exp_00000000000000000001";
    const LONG_AGO: &str = "2020-01-01T00:00:00Z";

    async fn exports(folder: &Path, keep_days: Option<u32>) -> Exports {
        let url = |name: &str| Url::from_directory_path(folder.join(name)).unwrap();
        let stores = Stores {
            lake: url("lake"),
            lake_options: aion_sinks::store::StoreOptions::default(),
            clickhouse: None,
            catalog: Arc::new(Catalog::builtin()),
            connection: Connection::to("127.0.0.1:1"),
            registry: None,
        };
        let settings = Settings { keep_days, ..Settings::at(url("exports")) };
        Exports::open(settings, stores).await.unwrap()
    }

    /// An export whose states are these, the first of the first attempt; each attempt left a file.
    async fn with_states(exports: &Exports, states: &[(State, u32)]) -> Job {
        let asked = json!({
            "dataset": "tasks", "interval": {"start": LONG_AGO, "end": "2020-01-01T01:00:00Z"}
        });
        let order = Order {
            request: serde_json::from_value::<Asked>(asked).unwrap(),
            canonical: json!({}),
            topic_ids: std::collections::BTreeSet::new(),
            source: "lake".to_owned(),
            created_at: LONG_AGO.to_owned(),
        };
        exports.journal.order(ID, &order).await.unwrap();
        for (at, (state, attempt)) in states.iter().enumerate() {
            let next = entry(*state, *attempt, LONG_AGO.to_owned());
            assert!(exports.journal.put(ID, at + 2, &next).await.unwrap());
        }
        let job = exports.journal.job(ID).await.unwrap().unwrap();
        for attempt in 1..=job.last().attempt {
            let folder = job.folder(attempt);
            exports.store.make_folder(&folder).await.unwrap();
            let path = format!("{folder}/{SUCCESS}");
            exports.store.put_entry(&path, bytes::Bytes::new()).await.unwrap();
        }
        job
    }

    async fn left(exports: &Exports, job: &Job) -> Vec<u32> {
        let mut left = Vec::new();
        for attempt in 1..=job.last().attempt {
            if exports.store.exists(&format!("{}/{SUCCESS}", job.folder(attempt))).await.unwrap() {
                left.push(attempt);
            }
        }
        left
    }

    #[tokio::test]
    async fn what_is_there_stays_until_the_new_one_is_whole() {
        use State::{Cancelled, Failed, Queued, Running, Succeeded};
        for (again, kept) in [
            (vec![], vec![1]),
            (vec![(Queued, 1), (Running, 2)], vec![1, 2]),
            (vec![(Queued, 1), (Running, 2), (Succeeded, 2)], vec![2]),
            (vec![(Queued, 1), (Running, 2), (Failed, 2)], vec![1]),
            (vec![(Queued, 1), (Running, 2), (Cancelled, 2)], vec![1]),
            (vec![(Queued, 1), (Cancelled, 1)], vec![1]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let exports = exports(folder.path(), None).await;
            let states = [vec![(Running, 1), (Succeeded, 1)], again].concat();
            let job = with_states(&exports, &states).await;
            round(&exports).await.unwrap();
            assert_eq!(left(&exports, &job).await, kept, "{states:?}");
        }
    }

    #[tokio::test]
    async fn what_never_was_whole_leaves_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let exports = exports(folder.path(), None).await;
        let job = with_states(&exports, &[(State::Running, 1), (State::Failed, 1)]).await;
        round(&exports).await.unwrap();
        assert!(left(&exports, &job).await.is_empty());
        assert!(exports.journal.job(ID).await.unwrap().is_some(), "that it failed is still known");
    }

    #[tokio::test]
    async fn old_exports_go_with_all_that_is_known_of_them() {
        use State::{Failed, Queued, Running, Succeeded};
        let made = [(Running, 1), (Succeeded, 1)];
        let again = [(Running, 1), (Succeeded, 1), (Queued, 1), (Running, 2), (Failed, 2)];
        for (states, keep_days, stays) in [
            (&made[..], Some(30), false),
            (&again[..], Some(30), false),
            (&made[..], Some(1_000_000), true),
            (&made[..1], Some(30), true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let exports = exports(folder.path(), keep_days).await;
            let job = with_states(&exports, states).await;
            round(&exports).await.unwrap();
            assert_eq!(left(&exports, &job).await, if stays { vec![1] } else { vec![] });
            let known = exports.journal.job(ID).await.unwrap().is_some();
            assert_eq!(known, stays, "{states:?} {keep_days:?}");
        }
    }
}
