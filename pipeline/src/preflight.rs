//! A look at the cluster before the jobs start, so that what a person has to change is said at once
//! and not found in a log line later.
//!
//! | the cluster | then |
//! |---|---|
//! | refuses the credentials | nothing starts, exit code 2 |
//! | doesn't answer | it is said, and the jobs start and keep trying: brokers may come up later |
//! | lacks a topic, or hides it from this account | it is said, and that topic's job waits for it |

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aion_kafka::{Admin, Connection, Error, Purpose};
use anyhow::Context;

use crate::{
    config::JobConfig,
    exit::{Exit, Failure},
};

/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The number of partitions of each topic that was found.
pub type Partitions = BTreeMap<Arc<str>, usize>;

/// Looks, and says what it found.
pub async fn look(connection: &Connection, jobs: &[JobConfig]) -> anyhow::Result<Partitions> {
    let connection = connection.clone();
    let topics = jobs.iter().flat_map(JobConfig::topics);
    let topics: Vec<Arc<str>> = topics.map(|topic| Arc::clone(&topic.name)).collect();
    tokio::task::spawn_blocking(move || partitions(&connection, &topics))
        .await
        .context("look at the cluster")?
}

fn partitions(connection: &Connection, topics: &[Arc<str>]) -> anyhow::Result<Partitions> {
    let explain = |error: &Error| connection.explain(error, Purpose::Administer);
    let admin = Admin::open(connection, PATIENCE)
        .map_err(|error| Failure::new(Exit::Usage, explain(&error)))?;
    match admin.reach() {
        Ok(_) => {}
        Err(error @ Error::Authentication { .. }) => {
            return Err(Failure::new(Exit::Usage, explain(&error)).into());
        }
        Err(error) => {
            tracing::warn!("{}; the jobs keep trying", explain(&error));
            return Ok(Partitions::new());
        }
    }
    let mut found = Partitions::new();
    for topic in topics {
        match admin.topic_ids(&[topic]) {
            Ok(known) if known.iter().all(|one| one.id.is_none()) => tracing::warn!(
                %topic,
                "there is no such topic: `aion bootstrap` makes those of the catalog; its job waits"
            ),
            Ok(known) => {
                let partitions = known.iter().map(|one| one.partitions).sum();
                found.insert(Arc::clone(topic), partitions);
            }
            Err(error) => tracing::warn!(%topic, "{}; its job keeps trying", explain(&error)),
        }
    }
    Ok(found)
}
