//! Webhooks: events of topics sent to endpoints over HTTP, each at least once, with Kafka as the only store.
//!
//! A policy says who gets which topics ([`policy`]). One consumer group shares the partitions among processes;
//! for each endpoint and partition a [`cursor`] says what is settled. A record that fails is a hole with a
//! timer of its own; an endpoint that fails is left alone and asked now and then ([`breaker`]), and nobody
//! else notices. What can't be delivered within the policy becomes a dead letter. The [`engine`] does all
//! that; `docs/webhooks.md` tells receivers and operators about it.
//!
//! **Invariant:** each event of a matching topic is delivered, or is a dead letter, or stands in a recorded gap.
//! **Invariant:** a delivery that is made again has the same id and the same bytes.

pub mod address;
pub mod breaker;
pub mod client;
pub mod control;
pub mod cursor;
pub mod engine;
pub mod event;
pub mod fetch;
mod metrics;
pub mod opened;
pub mod own;
pub mod page;
pub mod pattern;
pub mod payload;
pub mod policy;
pub mod rate;
pub mod records;
mod retention;
pub mod schedule;
pub mod secret;
pub mod status;
pub mod tail;
pub mod topics;
mod watching;
pub mod wire;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aion_kafka::{Admin, Connection};
use aion_schemas::catalog::Catalog;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) use self::metrics::families;
use self::{
    client::Network,
    engine::{Engine, Settings},
    opened::Opened,
    payload::Payloads,
    status::Statuses,
    topics::{ATTEMPTS, CONTROL, CURSORS, DEAD_LETTERS, GROUP},
    watching::Ground,
};
use crate::{
    exit::{Exit, Failure},
    policy_file::Changes,
    registry::Registry,
};

/// How long deliveries that are under way are waited for when a process stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a last look at the topics is waited for when a process stops.
const LOOKED: Duration = Duration::from_secs(2);
/// The pause before an engine that broke is started again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a question to the cluster may take.
const WAIT: Duration = Duration::from_secs(10);

/// `[webhooks]` of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhooksConfig {
    /// The policy file.
    pub policy: PathBuf,
    /// How old a change of a cursor may become before it is stored.
    pub flush: Duration,
}

/// What the engine of a process works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The cluster.
    pub connection: Connection,
    /// The contract.
    pub catalog: Arc<Catalog>,
    /// Where schemas of framed records are looked up.
    pub registry: Option<Arc<Registry>>,
}

/// Whether a policy can be followed, as far as its file and the certificates that it names say.
pub fn check(policy: &Path, catalog: &Catalog) -> Result<(), String> {
    watching::read(policy, catalog, &Network::of_system()).map(drop)
}

/// Running webhooks.
#[derive(Debug)]
pub struct Webhooks {
    /// How the endpoints are doing.
    pub statuses: Statuses,
    task: JoinHandle<()>,
    watching: JoinHandle<()>,
}

impl Webhooks {
    /// Reads the policy and starts to deliver by it; stops when `shutdown` is cancelled.
    pub async fn start(
        config: WebhooksConfig,
        around: Surroundings,
        shutdown: CancellationToken,
    ) -> Result<Webhooks, Failure> {
        // Before it is read, so that no change is missed.
        let changes = Changes::of(config.policy.clone())?;
        let ground = Ground::of(config.policy, around.clone());
        let (opened, kept) = watching::load(&ground, None)
            .await
            .map_err(|cause| Failure::new(Exit::Usage, cause))?;
        let statuses = Statuses::default();
        let (policies_in, policies) = watch::channel(opened);
        let watching =
            watching::watch((changes, kept), (policies_in, statuses.clone()), shutdown.clone());
        let watching = tokio::spawn(watching);
        let keeping = keep(config.flush, around, policies, statuses.clone(), shutdown);
        Ok(Webhooks { statuses, task: tokio::spawn(keeping), watching })
    }

    /// Waits until everything is stored after `shutdown`.
    pub async fn ended(self) {
        if let Err(cause) = self.task.await {
            tracing::error!("webhooks: their task broke: {cause}");
        }
        // A broker that stops after us would leave its last question without an answer, and the process waiting for it.
        if let Ok(Err(cause)) = tokio::time::timeout(LOOKED, self.watching).await {
            tracing::error!("webhooks: the task that watches the policy broke: {cause}");
        }
    }
}

/// Keeps an engine running: what it knows is in Kafka, so another goes on where one ended.
async fn keep(
    flush: Duration,
    around: Surroundings,
    policies: watch::Receiver<Arc<Opened>>,
    statuses: Statuses,
    shutdown: CancellationToken,
) {
    while !shutdown.is_cancelled() {
        let trouble = match cursors(around.connection.clone()).await {
            Err(cause) => cause,
            Ok(cursors) => {
                let settings = Settings {
                    connection: around.connection.clone(),
                    catalog: Arc::clone(&around.catalog),
                    group: GROUP.to_owned(),
                    flush,
                    drain: DRAIN,
                };
                let registry = around.registry.clone();
                let payloads = Arc::new(Payloads::new(Arc::clone(&around.catalog), registry));
                match Engine::open(settings, payloads, statuses.clone(), cursors) {
                    Err(cause) => cause.to_string(),
                    Ok((engine, ears)) => {
                        match engine.run(ears, policies.clone(), shutdown.clone()).await {
                            Ok(()) => return,
                            Err(cause) => cause,
                        }
                    }
                }
            }
        };
        tracing::error!("webhooks: {trouble}; started again in {} s", AGAIN.as_secs());
        statuses.change(|status| status.trouble = Some(trouble));
        shutdown.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
    }
}

/// The number of the cursors' partitions, once all topics of the engine are there.
async fn cursors(connection: Connection) -> Result<usize, String> {
    let asked = tokio::task::spawn_blocking(move || {
        let admin = Admin::open(&connection, WAIT).map_err(|cause| cause.to_string())?;
        let found = admin.topic_ids(&[CURSORS, CONTROL, ATTEMPTS, DEAD_LETTERS]);
        let found = found.map_err(|cause| cause.to_string())?;
        match found.iter().find(|one| one.id.is_none()) {
            Some(missing) => {
                Err(format!("there is no topic {}: run `aion bootstrap`", missing.topic))
            }
            None => Ok(found[0].partitions),
        }
    });
    asked.await.map_err(|cause| cause.to_string())?
}
