//! Takes up the policy file when it changes, or at SIGHUP: as a whole, or not at all. Keeps issuers' keys fresh.

use std::sync::Arc;

use aion_schemas::commands::Commands;
use futures::future::join_all;
use tokio::sync::watch::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::{jwks::Jwks, policy::Policy};
use crate::policy_file::{Changes, LOOK};

/// Watches a file until `shutdown`.
pub(super) async fn watch(
    (mut changes, commands): (Changes, Commands),
    policies: Sender<Arc<Policy>>,
    shutdown: CancellationToken,
) {
    while changes.next(&shutdown).await {
        match Policy::load(changes.path(), &commands) {
            Ok(policy) => {
                policy.take_keys_over(&policies.borrow());
                tracing::info!("access: the policy was read again");
                policies.send_replace(Arc::new(policy));
            }
            Err(cause) => {
                tracing::error!("access: the policy is refused, the one before holds: {cause}");
            }
        }
    }
}

/// Fetches the keys of a policy's issuers, and again when they are old; a set that doesn't answer holds up neither
/// the others nor the policy.
pub(super) async fn keep_keys(mut policies: Receiver<Arc<Policy>>, shutdown: CancellationToken) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let policy = Arc::clone(&policies.borrow_and_update());
        let refreshing = join_all(policy.key_sets().map(Jwks::refresh_if_old));
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = refreshing => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = policies.changed() => if changed.is_err() { return },
            _ = looks.tick() => {}
        }
    }
}
