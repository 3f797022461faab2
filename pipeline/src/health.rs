//! Whether this process does its work: one question over all its jobs.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::catalog::RETRIES;

use crate::{
    inbound::gateway::Gateway,
    job::status::{JobState, JobStatus, PartitionState, StatusReader},
    webhooks::status::{Status, Statuses},
};

/// A job whose source was silent for this long isn't alive: Kafka's own poll limit is five minutes.
const SILENCE: Duration = Duration::from_secs(30);

/// What runs in this process beside its jobs and may fail them, such as a broker.
pub struct Beside {
    name: &'static str,
    trouble: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Beside {
    /// It is asked what it can't do, in words; it must not make the caller wait.
    pub fn new(
        name: &'static str,
        trouble: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Beside {
        Beside { name, trouble: Box::new(trouble) }
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Beside").field(&self.name).finish()
    }
}

/// The jobs of this process.
#[derive(Debug)]
pub struct Health {
    beside: Option<Beside>,
    jobs: Vec<StatusReader>,
    webhooks: Option<Statuses>,
    commands: Option<Arc<Gateway>>,
}

impl Health {
    /// Watches these jobs, and the webhooks, commands and what runs beside where there are any.
    pub fn new(
        jobs: Vec<StatusReader>,
        webhooks: Option<Statuses>,
        commands: Option<Arc<Gateway>>,
        beside: Option<Beside>,
    ) -> Health {
        Health { beside, jobs, webhooks, commands }
    }

    /// Who takes commands in.
    pub fn commands(&self) -> Option<&Gateway> {
        self.commands.as_deref()
    }

    /// How the webhooks are doing.
    pub fn webhooks(&self) -> Option<Status> {
        self.webhooks.as_ref().map(Statuses::now)
    }

    /// The newest status of each job.
    pub fn jobs(&self) -> impl Iterator<Item = Arc<JobStatus>> + '_ {
        self.jobs.iter().map(StatusReader::now)
    }

    /// What keeps the process from being ready, a line each; empty when it is.
    pub fn missing(&self) -> Vec<String> {
        let now = Instant::now();
        // A receiver that is down is no trouble of this process.
        let webhooks = self.webhooks().and_then(|status| status.trouble);
        let webhooks = webhooks.map(|trouble| format!("webhooks: {trouble}"));
        let commands = self.commands().and_then(Gateway::trouble);
        let commands = commands.map(|trouble| format!("commands: {trouble}"));
        let jobs = self.jobs().filter_map(|job| why_not_ready(&job, now));
        // First, since it may be why others fail.
        let beside = self.beside.as_ref().and_then(|beside| {
            let trouble = (beside.trouble)()?;
            Some(format!("{}: {trouble}", beside.name))
        });
        beside.into_iter().chain(jobs).chain(webhooks).chain(commands).collect()
    }
}

fn why_not_ready(job: &JobStatus, now: Instant) -> Option<String> {
    let why = match &job.state {
        JobState::Failed(reason) => reason.clone(),
        JobState::Ended => "ended".into(),
        // One process of several reads it; and a cluster may be older than the topic.
        JobState::Starting if job.topic.starts_with(RETRIES) => return None,
        JobState::Starting => job.trouble.clone().unwrap_or_else(|| "waits for partitions".into()),
        JobState::Running if !job.is_polling(now, SILENCE) => "its reader is silent".into(),
        JobState::Running => trouble(job)?,
    };
    Some(format!("{}: {why}", job.job))
}

fn trouble(job: &JobStatus) -> Option<String> {
    if let Some(trouble) = &job.trouble {
        return Some(trouble.clone());
    }
    job.partitions.iter().find_map(|partition| match &partition.state {
        PartitionState::Starting => {
            Some(format!("partition {} looks up its marks", partition.partition))
        }
        PartitionState::Stopped(why) => Some(format!("partition {}: {why}", partition.partition)),
        PartitionState::Reading | PartitionState::Paused(_) => None,
    })
}
