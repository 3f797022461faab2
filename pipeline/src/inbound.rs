//! Commands from outside: verified, authorised, recorded, audited, and carried out by the control plane.
//!
//! ```text
//!  sender ──► http/inbound: signature, credential, role, parameters
//!                 │
//!             gateway ── record ──► aion.commands ──► log (every process reads all of it)
//!                 │                       ▲             │ the first record of an id is the command
//!                 ├── audit event         │             ▼
//!                 ▼                    outcome ◄── dispatcher ──► control plane, in order per actor
//!               202                                 (one process for each partition)
//! ```
//!
//! The log of commands is the only store: what is accepted, and what became of it, stand in it side by side, so
//! a process that starts knows from it alone what is still to be done. Audit events tell people; nothing is
//! decided by them.
//!
//! | a crash | leaves | and then |
//! |---|---|---|
//! | before the record is acknowledged | perhaps a command; the sender got no 202 | it repeats, with the same key: the same command |
//! | between record and audit event | a command | the dispatcher writes the event before it dispatches |
//! | between dispatch and outcome | a command without an outcome | it is dispatched again, with the same id |
//! | between the outcome's audit event and its record | the same | the same; the events have one id |
//!
//! **Invariant:** 202 is answered when the log shows the command as the first of its id, and its audit event is
//! acknowledged.
//! **Invariant:** nothing is dispatched whose audit event isn't acknowledged; each outcome has its own.
//! **Invariant:** a command stays to be done until the control plane has answered for good, however long that is.

pub mod command;
pub mod dispatch;
pub mod gateway;
pub mod log;
pub mod metrics;
#[cfg(test)]
mod mutations;
mod ownership;
pub mod records;
pub mod request;
pub mod senders;
pub mod signature;
pub mod stand_in;
pub mod tally;
pub mod target;
pub mod trail;

use std::{path::PathBuf, sync::Arc, time::Duration};

use aion_kafka::{Admin, Connection, Producer};
use aion_schemas::commands::Commands;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use self::{
    gateway::Gateway, log::Log, metrics::Counters, records::Records, senders::Senders,
    target::Target,
};
use crate::{
    access::Access,
    exit::{Exit, Failure},
    webhooks::{address::Net, client::Network, secret::Secret},
};

/// The topic of commands.
pub const COMMANDS: &str = "aion.commands";
/// The topic of audit events.
pub const AUDIT: &str = "aion.audit.activity";
/// The group whose members share the partitions of commands. Its name is in the gateway account's reach.
pub const GROUP: &str = "gateway-commands";

/// How long a question to the cluster may take.
const WAIT: Duration = Duration::from_secs(10);

/// `[inbound]`, checked.
#[derive(Clone, Debug)]
pub struct InboundConfig {
    /// How the gateway reaches Kafka: by an account of its own, where one is configured.
    pub connection: Connection,
    /// Who carries commands out.
    pub to: To,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Net>,
}

/// Who carries commands out.
#[derive(Clone, Debug)]
pub enum To {
    /// The control plane, by signed requests.
    Http {
        /// Where it takes them.
        url: Url,
        /// What they are signed with: one, or two while it changes to a new one.
        secrets: Vec<Secret>,
        /// How long one exchange may take.
        timeout: Duration,
        /// Addresses that may be dialled though they aren't public.
        allow_private: Vec<Net>,
        /// Authorities that are trusted in place of the system's.
        ca: Option<PathBuf>,
    },
    /// Whoever reads a topic.
    Topic(String),
}

/// Running: what the HTTP surface takes commands in by, and the task that carries them out.
#[derive(Debug)]
pub struct Inbound {
    /// Takes commands in.
    pub gateway: Arc<Gateway>,
    task: JoinHandle<()>,
    noise: JoinHandle<()>,
    /// What is refused is counted and summed up until nothing is under way any more.
    counting: DropGuard,
    /// The log is read until all is recorded that has ended.
    reading: DropGuard,
}

impl Inbound {
    /// Starts to read the log of commands and to carry out what is to be done; stops when `shutdown` is cancelled.
    pub fn start(
        config: InboundConfig,
        (access, commands): (Arc<Access>, Commands),
        shutdown: CancellationToken,
    ) -> Result<Inbound, Failure> {
        if access.policy().signing.is_empty() {
            let what = "[inbound]: commands have to be signed: give secrets under `signing` in the [access] policy";
            return Err(Failure::new(Exit::Usage, what));
        }
        let failed = |cause: String| Failure::new(Exit::Usage, format!("[inbound]: {cause}"));
        let target = Target::open(&config.to, &Network::of_system()).map_err(failed)?;
        let kafka = |cause: aion_kafka::Error| failed(cause.to_string());
        let producer = Producer::open(&config.connection, "aion-inbound").map_err(kafka)?;
        let reading = CancellationToken::new();
        let log = Log::start(config.connection.clone(), reading.clone()).map_err(kafka)?;
        let counters = Arc::new(Counters::default());
        let records = Records::new(producer, Arc::clone(&log), Arc::clone(&counters));
        let senders = Senders::new(config.trusted_proxies);
        let gateway = Gateway::new((access, commands), records.clone(), senders);
        let gateway = Arc::new(gateway);
        if let To::Topic(topic) = config.to {
            let connection = config.connection.clone();
            tokio::task::spawn_blocking(move || say_if_missing(&connection, &topic));
        }
        let around = dispatch::Around { records, target: Arc::new(target), counters };
        let noise = Arc::clone(&gateway);
        let counting = CancellationToken::new();
        let counted = counting.clone();
        let noise = tokio::spawn(async move { noise.sum_up(counted).await });
        let task = tokio::spawn(dispatch::run(config.connection, around, shutdown));
        let (counting, reading) = (counting.drop_guard(), reading.drop_guard());
        Ok(Inbound { gateway, task, noise, counting, reading })
    }

    /// Waits until what is under way has ended after `shutdown`.
    pub async fn ended(self) {
        if let Err(cause) = self.task.await {
            tracing::error!("commands: their task broke: {cause}");
        }
        drop(self.counting);
        if let Err(cause) = self.noise.await {
            tracing::error!("commands: the task that sums up what is refused broke: {cause}");
        }
        self.gateway.close();
        drop(self.reading);
    }
}

/// Says so where the topic that commands go to isn't there: they wait for it, without another word than that nobody
/// acknowledges them.
fn say_if_missing(connection: &Connection, topic: &str) {
    let found = Admin::open(connection, WAIT).and_then(|admin| admin.topic_ids(&[topic]));
    if found.is_ok_and(|found| found.iter().all(|one| one.id.is_none())) {
        tracing::warn!(
            "[inbound]: there is no topic {topic}: commands wait until somebody makes it"
        );
    }
}
