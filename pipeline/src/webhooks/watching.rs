//! Takes up a policy file when it changes, or at SIGHUP: as a whole, or not at all.

use std::{path::Path, sync::Arc, time::Duration};

use aion_kafka::Admin;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use super::{
    Surroundings,
    policy::{Policy, Problem},
    retention,
    status::Statuses,
};
use crate::policy_file::Changes;

/// How long a question to the cluster may take.
const WAIT: Duration = Duration::from_secs(5);

/// Watches a file until `shutdown`.
pub(super) async fn watch(
    (mut changes, around): (Changes, Surroundings),
    (policies, statuses): (Sender<Arc<Policy>>, Statuses),
    shutdown: CancellationToken,
) {
    while changes.next(&shutdown).await {
        match load(changes.path(), &around).await {
            // Whoever follows it says so.
            Ok(policy) => drop(policies.send_replace(Arc::new(policy))),
            Err(cause) => {
                tracing::error!("webhooks: the policy is refused, the one before holds: {cause}");
                statuses.change(|status| status.policy_error = Some(cause));
            }
        }
    }
}

async fn load(path: &Path, around: &Surroundings) -> Result<Policy, String> {
    let policy = Policy::load(path, &around.catalog).map_err(|cause| cause.to_string())?;
    match outlived(around, &policy).await {
        Some(problem) => Err(format!("{}:{}: {}", path.display(), problem.line, problem.reason)),
        None => Ok(policy),
    }
}

/// What the policy promises for longer than the cluster's topics keep it. A cluster that gives no answer
/// doesn't stop anybody: nothing is delivered from it anyway.
pub(super) async fn outlived(around: &Surroundings, policy: &Policy) -> Option<Problem> {
    let (connection, catalog) = (around.connection.clone(), Arc::clone(&around.catalog));
    let policy = policy.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let admin = Admin::open(&connection, WAIT)?;
        retention::outlived(&admin, &policy, &catalog)
    });
    match asked.await {
        Ok(Ok(problems)) => problems.into_iter().next(),
        Ok(Err(cause)) => {
            tracing::warn!("webhooks: how long topics keep their records isn't known: {cause}");
            None
        }
        Err(_) => None,
    }
}
