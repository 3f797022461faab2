//! A person's decision about a partition that a job has stopped at: which partition, and writing the decision down.

use std::{ops::Range, time::Duration};

use aion_kafka::{Admin, Connection, Isolation, Outgoing, Producer, Purpose, Spot, TopicPartition};
use aion_schemas::{
    catalog::DECISIONS,
    log::{Offset, Partition, Stream},
};
use anyhow::{Context, anyhow, bail};

use crate::{
    args::jobs::{Place, PlaceArgs},
    audit::now,
    config::JobConfig,
    exit::{Exit, Failure},
    job::{
        appeal::{self, Decision, Question},
        times::rfc3339,
    },
};

/// How long the cluster may take to answer.
const WAIT: Duration = Duration::from_secs(20);

/// Which partition, where, and why.
#[derive(Debug, clap::Args)]
pub(super) struct DecisionArgs {
    /// The job that stopped.
    pub(super) job: String,
    /// Its topic.
    pub(super) topic: String,
    /// The partition.
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) partition: i32,
    /// Why, for whoever asks later.
    #[arg(long, value_name = "TEXT")]
    because: Option<String>,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

/// The partition as it is now.
pub(super) struct Found {
    pub(super) partition: Partition,
    /// The offsets that its log has.
    pub(super) log: Range<Offset>,
}

impl DecisionArgs {
    /// The job, which reads the topic.
    pub(super) fn job<'a>(&self, place: &'a Place) -> anyhow::Result<&'a JobConfig> {
        let job = place.job(&self.job)?;
        if job.topics().all(|topic| *topic.name != *self.topic) {
            let known: Vec<&str> = job.topics().map(|topic| &*topic.name).collect();
            let known = known.join(" and ");
            let message = format!("job {} reads {known}, not {}", job.name, self.topic);
            return Err(Failure::new(Exit::Usage, message).into());
        }
        Ok(job)
    }

    /// Looks the partition up.
    pub(super) fn find(&self, connection: &Connection) -> anyhow::Result<Found> {
        let explain = |error| anyhow!(connection.explain(&error, Purpose::Administer));
        let admin = Admin::open(connection, WAIT).map_err(explain)?;
        admin.reach().map_err(explain)?;
        let found = admin.topic_ids(&[&self.topic, DECISIONS]).map_err(explain)?;
        let [topic, decisions] = &found[..] else { bail!("look up {}: no answer", self.topic) };
        if decisions.id.is_none() {
            bail!("there is no topic {DECISIONS}: `aion bootstrap` makes it");
        }
        let Some(id) = topic.id.filter(|_| (self.partition as usize) < topic.partitions) else {
            let message = format!("there is no partition {}/{}", self.topic, self.partition);
            return Err(Failure::new(Exit::Usage, message).into());
        };
        let bound = |spot| {
            let at = TopicPartition::new(&self.topic, self.partition);
            let found = admin.offsets(&[(at, spot)], Isolation::Committed).map_err(explain)?;
            found.first().copied().context("the log's bounds are not known")
        };
        let log = bound(Spot::First)?..bound(Spot::Next)?;
        let stream = Stream { topic: self.topic.as_str().into(), id };
        Ok(Found { partition: Partition { stream, number: self.partition }, log })
    }

    /// Writes the decision down, and waits until it is durable.
    pub(super) fn write(
        &self,
        connection: &Connection,
        partition: &Partition,
        decision: &Decision,
    ) -> anyhow::Result<()> {
        let question = match decision {
            Decision::Accept { .. } => Question::Rejects,
            Decision::Keep { .. } | Decision::Replace { .. } => Question::Divergence,
        };
        let mut record = serde_json::to_value(decision)?;
        record["job"] = self.job.as_str().into();
        record["topic"] = self.topic.as_str().into();
        record["topic_id"] = partition.stream.id.to_string().into();
        record["partition"] = self.partition.into();
        record["decided_at"] = rfc3339(now()).into();
        if let Some(because) = &self.because {
            record["reason"] = because.as_str().into();
        }
        let (key, value) = (appeal::key(&self.job, partition, question), record.to_string());
        let explain = |error| anyhow!(connection.explain(&error, Purpose::Produce));
        let producer = Producer::open(connection, "aion-operator").map_err(explain)?;
        let message = Outgoing {
            topic: DECISIONS,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..Outgoing::default()
        };
        producer.send(&message, |_| {}).map_err(explain)?;
        producer.flush(WAIT).map_err(explain)
    }
}
