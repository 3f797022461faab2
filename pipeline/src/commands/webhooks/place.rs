//! The policy, the cluster, and what the engine's topics say.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aion_kafka::{Admin, Connection, Outgoing, Producer, Receipts};
use aion_schemas::{
    catalog::{Catalog, GAPS},
    suggest::nearest,
};
use anyhow::Context;
use serde::Deserialize;

use crate::{
    args::target::{Target, TargetArgs},
    config::Config,
    exit::{Exit, Failure},
    small_topic,
    webhooks::{
        control::{Control, Controls},
        cursor::Cursor,
        policy::{Endpoint, Policy},
        records::About,
        topics::{CONTROL, CURSORS},
    },
};

/// How long the cluster may take to answer.
const WAIT: Duration = Duration::from_secs(10);
const POLICY: &str = "policies/webhooks.yaml";

/// Where the policy is.
#[derive(Debug, clap::Args)]
pub(super) struct PolicyArgs {
    /// The policy; without it that of the configuration, else policies/webhooks.yaml.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// Where everything is.
#[derive(Debug, clap::Args)]
pub(super) struct PlaceArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// A policy, and a cluster.
pub(super) struct Place {
    pub(super) policy: Policy,
    pub(super) catalog: Catalog,
    pub(super) connection: Connection,
    pub(super) admin: Admin,
}

/// A cursor as it is stored.
pub(super) struct Stored {
    pub(super) about: About,
    pub(super) cursor: Cursor,
}

/// What is wanted of a gap's record.
#[derive(Deserialize)]
struct Gap {
    job: String,
    first: i64,
    next: i64,
}

impl PolicyArgs {
    /// Reads it.
    pub(super) fn read(
        &self,
        config: Option<&Config>,
        catalog: &Catalog,
    ) -> Result<Policy, Failure> {
        let configured = config.and_then(|config| config.webhooks.as_ref()).map(|one| &one.policy);
        let path = self.policy.as_ref().or(configured).cloned().unwrap_or_else(|| POLICY.into());
        Policy::load(&path, catalog)
            .map_err(|cause| Failure::new(Exit::Usage, format!("policy {cause}")))
    }
}

impl PlaceArgs {
    /// Reads the policy and finds the cluster.
    pub(super) fn open(&self) -> anyhow::Result<Place> {
        let Target { connection, catalog, .. } = self.target.find()?;
        let config = self.target.config()?;
        let policy = self.policy.read(config.as_ref(), &catalog)?;
        let admin = Admin::open(&connection, WAIT)?;
        admin.reach().map_err(|cause| Failure::new(Exit::Failed, cause.to_string()))?;
        Ok(Place { policy, catalog, connection, admin })
    }

    /// Reads the policy only.
    pub(super) fn policy(&self) -> anyhow::Result<Policy> {
        let config = self.target.config()?;
        let catalog = self.target.catalog(config.as_ref())?;
        Ok(self.policy.read(config.as_ref(), &catalog)?)
    }
}

impl Place {
    /// The endpoint of that id.
    pub(super) fn endpoint(&self, id: &str) -> Result<&Arc<Endpoint>, Failure> {
        endpoint(&self.policy, id)
    }

    /// Every stored cursor.
    pub(super) fn cursors(&self) -> anyhow::Result<Vec<Stored>> {
        let mut newest = BTreeMap::new();
        small_topic::each(
            &self.connection,
            &self.admin,
            CURSORS,
            |_, _| None,
            |record| {
                newest.insert(
                    record.key.unwrap_or_default().to_vec(),
                    record.value.map(<[u8]>::to_vec),
                );
            },
        )
        .context("read the cursors of webhooks")?;
        let stored = |value: Vec<u8>| {
            let about = serde_json::from_slice(&value).ok()?;
            Some(Stored { about, cursor: Cursor::from_json(&value).ok()? })
        };
        Ok(newest.into_values().flatten().filter_map(stored).collect())
    }

    /// How many events stand in recorded gaps, by the job that missed them.
    pub(super) fn lost(&self) -> anyhow::Result<BTreeMap<String, i64>> {
        let (mut lost, mut seen) = (BTreeMap::new(), HashSet::new());
        small_topic::each(
            &self.connection,
            &self.admin,
            GAPS,
            |_, _| None,
            |record| {
                let gap = serde_json::from_slice::<Gap>(record.value.unwrap_or_default());
                // One that was written again has the key of the first.
                if let Ok(gap) = gap
                    && seen.insert(record.key.unwrap_or_default().to_vec())
                {
                    *lost.entry(gap.job).or_default() += (gap.next - gap.first).max(0);
                }
            },
        )
        .context("read the gaps of webhooks")?;
        Ok(lost)
    }

    /// What the control log comes to.
    pub(super) fn controls(&self) -> anyhow::Result<Controls> {
        let mut controls = Controls::default();
        small_topic::each(
            &self.connection,
            &self.admin,
            CONTROL,
            |_, _| None,
            |record| {
                let offset = record.offset.get();
                match serde_json::from_slice(record.value.unwrap_or_default()) {
                    Ok(control) => controls.take(offset, control),
                    Err(_) => controls.skip(offset),
                }
            },
        )
        .context("read what was asked of webhooks")?;
        Ok(controls)
    }

    /// Writes records to the control log, acknowledged by all in-sync replicas.
    pub(super) fn ask(&self, key: &str, controls: &[Control]) -> anyhow::Result<()> {
        let found = self.admin.topic_ids(&[CONTROL])?;
        if found.iter().any(|one| one.id.is_none()) {
            let what = format!("there is no topic {CONTROL}: run `aion bootstrap`");
            return Err(Failure::new(Exit::Failed, what).into());
        }
        let producer = Producer::open(&self.connection, "aion-webhooks-operator")?;
        let receipts = Receipts::default();
        for (number, control) in (0..).zip(controls) {
            let value = serde_json::to_vec(control)?;
            let message = Outgoing {
                topic: CONTROL,
                partition: Some(0),
                key: Some(key.as_bytes()),
                value: Some(&value),
                ..Outgoing::default()
            };
            producer.send(&message, receipts.expect(number))?;
        }
        match receipts.wait(WAIT).into_iter().next() {
            None => Ok(()),
            Some((_, cause)) => Err(cause).context("tell webhooks"),
        }
    }
}

/// The endpoint of that id.
pub(super) fn endpoint<'a>(policy: &'a Policy, id: &str) -> Result<&'a Arc<Endpoint>, Failure> {
    policy.endpoint(id).ok_or_else(|| {
        let known = || policy.endpoints.iter().map(|one| &*one.id);
        let hint = nearest(id, known()).map_or_else(
            || format!("known are {}", known().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near:?}?"),
        );
        Failure::new(Exit::Usage, format!("no webhook {id:?} in the policy; {hint}"))
    })
}
