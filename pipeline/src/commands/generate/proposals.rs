//! A few proposals to the kernel, on topics that are in no catalog: what webhooks are tried with.
//!
//! Every few seconds one is created, and a little later approved or rejected; its id is the key of both.

use std::time::Duration;

use aion_kafka::{Admin, Connection, NewTopic, Outgoing, Producer};
use anyhow::Context;
use rand::Rng;
use serde_json::json;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::now;
use crate::job::times::rfc3339;

const CREATED: &str = "kernel.proposal.created";
const APPROVED: &str = "kernel.proposal.approved";
const REJECTED: &str = "kernel.proposal.rejected";
/// Between two proposals.
const PAUSE: Duration = Duration::from_secs(4);
/// Before one is decided.
const THOUGHT: Duration = Duration::from_secs(1);
/// How long the broker may take to make the topics.
const WAIT: Duration = Duration::from_secs(10);
const ACTIONS: [&str; 4] =
    ["raise_memory_limit", "install_module", "change_scheduler", "open_port"];

/// A running source of proposals.
#[derive(Debug)]
pub struct Proposals {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Proposals {
    /// Starts to make proposals; needs a tokio runtime.
    pub fn start(connection: &Connection) -> anyhow::Result<Proposals> {
        let producer = Producer::open(connection, "aion-proposals").context("open a producer")?;
        let stop = CancellationToken::new();
        let connection = connection.clone();
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            let create = tokio::task::spawn_blocking(move || create(&connection));
            if let Ok(Err(cause)) = create.await {
                return tracing::warn!("no proposals are made: {cause}");
            }
            ended.run_until_cancelled(propose(&producer)).await;
            // It may wait for its thread.
            drop(tokio::task::spawn_blocking(move || drop(producer)).await);
        });
        Ok(Proposals { stop, task })
    }

    /// Stops.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the source of proposals ended badly");
        }
    }
}

fn create(connection: &Connection) -> Result<(), aion_kafka::Error> {
    let topic = |topic| NewTopic { topic, partitions: 2, replication: 1, configs: &[] };
    let admin = Admin::open(connection, WAIT)?;
    admin.create_topics(&[CREATED, APPROVED, REJECTED].map(topic)).map(drop)
}

async fn propose(producer: &Producer) {
    loop {
        let id = Uuid::new_v4().to_string();
        let (action, is_approved) = {
            let mut random = rand::rng();
            (ACTIONS[random.random_range(0..ACTIONS.len())], random.random_bool(0.7))
        };
        send(producer, CREATED, &id, &json!({ "proposal_id": id, "action": action }));
        sleep(THOUGHT).await;
        let topic = if is_approved { APPROVED } else { REJECTED };
        send(producer, topic, &id, &json!({ "proposal_id": id, "by": "operator" }));
        sleep(PAUSE).await;
    }
}

/// One that can't be sent is left out.
fn send(producer: &Producer, topic: &str, id: &str, what: &serde_json::Value) {
    let mut event = what.clone();
    event["timestamp"] = rfc3339(now()).into();
    let event = event.to_string();
    let message = Outgoing {
        topic,
        key: Some(id.as_bytes()),
        value: Some(event.as_bytes()),
        ..Outgoing::default()
    };
    if let Err(cause) = producer.send(&message, |_| ()) {
        tracing::debug!("a proposal is left out: {cause}");
    }
}
