//! Where the lake and the broker are, and which jobs there are.

use std::{path::PathBuf, sync::Arc};

use aion_analytics::{Engine, Settings};
use aion_kafka::Connection;
use aion_schemas::{
    catalog::{Catalog, RETRIES, Topic},
    suggest::nearest,
};
use aion_sinks::clickhouse::ClickHouse;

use crate::{
    args::{kafka::KafkaArgs, lake::LakeArgs},
    config::{Config, JobConfig, SinkKind, default_jobs},
    data_folder::running_broker,
    exit::{Exit, Failure},
    platform::sink_failure,
    storage,
};

/// The arguments that say where everything is.
#[derive(Debug, clap::Args)]
pub(super) struct PlaceArgs {
    /// The configuration of the jobs: it says where Kafka and the lake are.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "lake", "catalog", "brokers", "client_config", "properties"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    lake: LakeArgs,
    /// The brokers, several with commas; those of a running `aion dev` are found by themselves.
    #[arg(long = "kafka", value_name = "HOST:PORT")]
    brokers: Option<String>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// A lake, its jobs, and the brokers where they are known.
pub(super) struct Place {
    pub(super) engine: Engine,
    pub(super) catalog: Arc<Catalog>,
    pub(super) jobs: Vec<JobConfig>,
    /// The ClickHouse database, where there is one.
    pub(super) house: Option<ClickHouse>,
    connection: Option<Connection>,
}

impl PlaceArgs {
    /// Opens the lake; nothing is asked of brokers.
    pub(super) fn open(&self) -> anyhow::Result<Place> {
        if let Some(path) = &self.config {
            let config = Config::load(path)?;
            let catalog = Arc::new(config.catalog);
            let mut settings = Settings::new(config.lake.url, Arc::clone(&catalog));
            settings.lake_options = config.lake.options;
            let engine = open(settings)?;
            let house = config.clickhouse.map(|house| ClickHouse::new(house.server)).transpose();
            return Ok(Place {
                engine,
                catalog,
                house: house.map_err(|cause| sink_failure(&cause))?,
                jobs: config.jobs,
                connection: Some(config.kafka),
            });
        }
        let catalog = Arc::new(self.lake.catalog()?);
        let mut settings = Settings::new(self.lake.url()?, Arc::clone(&catalog));
        settings.lake_options = storage::from_environment();
        let running = running_broker(&self.lake.data).filter(|_| self.lake.lake.is_none());
        let brokers = self.brokers.clone().or(running);
        let connection = self.kafka.connection(brokers.as_deref())?;
        Ok(Place {
            engine: open(settings)?,
            jobs: default_jobs(&catalog, SinkKind::Lake),
            house: None,
            catalog,
            connection,
        })
    }
}

fn open(settings: Settings) -> Result<Engine, Failure> {
    Engine::open(settings).map_err(|cause| Failure::new(Exit::Data, cause.to_string()))
}

impl Place {
    /// The brokers, where they are known.
    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// The brokers, or what to say so that they are known.
    pub(super) fn brokers(&self, what_for: &str) -> Result<&Connection, Failure> {
        self.connection.as_ref().ok_or_else(|| {
            let message = format!(
                "{what_for} needs a broker, and none runs here: start `aion dev` in another \
                 terminal, or name one with --kafka, or a configuration with --config"
            );
            Failure::new(Exit::Usage, message)
        })
    }

    /// The topic whose records a letter's topic has: its own, or that of which it has the retries.
    pub(super) fn topic(&self, name: &str) -> Option<&Topic> {
        match name.strip_prefix(RETRIES) {
            Some(table) => self.catalog.table(table),
            None => self.catalog.topic(name),
        }
    }

    /// The database to which a job writes, where the lake isn't what it writes to.
    pub(super) fn house_of(&self, job: &str) -> Option<&ClickHouse> {
        let job = self.jobs.iter().find(|one| one.name == job)?;
        self.house.as_ref().filter(|_| !job.sinks.contains(&SinkKind::Lake))
    }

    /// The job of that name.
    pub(super) fn job(&self, name: &str) -> Result<&JobConfig, Failure> {
        let named = self.jobs.iter().find(|job| job.name == name);
        named.ok_or_else(|| {
            let known = || self.jobs.iter().map(|job| job.name.as_str());
            let hint = match nearest(name, known()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
            };
            Failure::new(Exit::Usage, format!("no job {name:?}; {hint}"))
        })
    }
}
