//! Takes up the policy file when it changes, or at SIGHUP: as a whole, or not at all.

use std::{path::PathBuf, sync::Arc, time::Duration};

use aion_schemas::commands::Commands;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch::Sender,
};
use tokio_util::sync::CancellationToken;

use super::policy::{IssuerKeys, Policy};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Watches a file until `shutdown`.
pub(super) async fn watch(
    (path, commands): (PathBuf, Commands),
    policies: Sender<Arc<Policy>>,
    shutdown: CancellationToken,
) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(cause) => return tracing::error!("access: can't listen for SIGHUP: {cause}"),
    };
    let read = || std::fs::read(&path).ok();
    let mut seen = read();
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let is_asked = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = hangup.recv() => true,
            _ = looks.tick() => false,
        };
        let found = read();
        let before = Arc::clone(&policies.borrow());
        if found == seen && !is_asked {
            for issuer in &before.issuers {
                if let IssuerKeys::Public(keys) = &issuer.keys {
                    keys.refresh_if_old().await;
                }
            }
            continue;
        }
        seen = found;
        match Policy::load(&path, &commands) {
            Ok(policy) => {
                for issuer in &policy.issuers {
                    issuer.fetch(Some(&before)).await;
                }
                tracing::info!("access: the policy was read again");
                policies.send_replace(Arc::new(policy));
            }
            Err(cause) => {
                tracing::error!("access: the policy is refused, the one before holds: {cause}");
            }
        }
    }
}
