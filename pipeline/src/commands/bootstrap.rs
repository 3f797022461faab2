//! Makes a cluster what the catalog says: topics with their settings, who may do what, and the
//! schemas in the registry.
//!
//! `aion bootstrap` looks, prints the plan, and carries it out; a second run finds nothing to do.
//!
//! **Invariant:** nothing is deleted, and only what differs is touched. Settings and access rules
//! that the catalog doesn't speak of are left as they are.
//! **Invariant:** partitions are raised only when asked, since later events of a key may then go to
//! another partition than earlier ones.

mod access;
mod command;
mod plan;
pub mod schemas;

use std::time::Duration;

use aion_kafka::{Admin, Connection};
use aion_schemas::catalog::{Catalog, Environment};

pub use self::{
    command::{BootstrapArgs, run},
    plan::{Done, Plan, Step},
};

/// How long the cluster may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the cluster is to look like, beyond the catalog.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Sets how long messages are kept.
    pub environment: Environment,
    /// Replicas of each topic; without it three, or as many as there are brokers.
    pub replication: Option<i32>,
    /// Partitions of the platform's topics, in place of the catalog's.
    pub partitions: Option<i32>,
    /// Whether a topic with fewer partitions gets more.
    pub raise_partitions: bool,
    /// Whether access rules are set, and under which names.
    pub access: Option<Principals>,
}

/// The accounts' principals in Kafka, where they aren't `User:<account>`.
pub type Principals = std::collections::BTreeMap<String, String>;

/// Creates the topics that are missing and leaves the others as they are, without access rules: what
/// a broker that is ours alone needs.
pub fn create_topics(
    connection: &Connection,
    catalog: &Catalog,
    environment: Environment,
) -> anyhow::Result<()> {
    let admin = Admin::open(connection, PATIENCE)?;
    let wanted = Wanted {
        environment,
        replication: None,
        partitions: None,
        raise_partitions: false,
        access: None,
    };
    let mut plan = Plan::make(&admin, catalog, &wanted)?;
    plan.steps.retain(|step| matches!(step, Step::Create { .. }));
    for (_, outcome) in plan.carry_out(&admin)? {
        outcome?;
    }
    Ok(())
}
