//! Makes the catalog's topics where they are missing, with their settings.
//!
//! **Invariant:** idempotent, and nothing that exists is changed or deleted here.

use std::time::Duration;

use aion_kafka::{Admin, Connection, NewTopic, Outcome};
use aion_schemas::catalog::{Catalog, Environment};

/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Creates what is missing and returns the names of what was created.
pub fn create_topics(
    connection: &Connection,
    catalog: &Catalog,
    environment: Environment,
    replication: i32,
) -> anyhow::Result<Vec<String>> {
    let admin = Admin::open(connection, PATIENCE)?;
    admin.reach()?;
    let configs: Vec<_> = catalog.topics.iter().map(|topic| topic.config(environment)).collect();
    let configs: Vec<Vec<(&str, &str)>> = configs
        .iter()
        .map(|config| config.iter().map(|(name, value)| (&**name, &**value)).collect())
        .collect();
    let wanted: Vec<NewTopic<'_>> = catalog
        .topics
        .iter()
        .zip(&configs)
        .map(|(topic, configs)| NewTopic {
            topic: &topic.name,
            partitions: topic.partitions,
            replication,
            configs,
        })
        .collect();
    let mut created = Vec::new();
    for (topic, outcome) in catalog.topics.iter().zip(admin.create_topics(&wanted)?) {
        match outcome {
            Outcome::Done => created.push(topic.name.to_string()),
            Outcome::Already => {}
            Outcome::Failed(cause) => return Err(cause.into()),
        }
    }
    Ok(created)
}
