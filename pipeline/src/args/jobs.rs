//! Where the lake and the broker are, and which jobs there are.

use std::{path::PathBuf, sync::Arc};

use aion_analytics::{Engine, Settings};
use aion_kafka::Connection;
use aion_schemas::{
    catalog::{Catalog, RETRIES, Topic},
    suggest::nearest,
};
use aion_sinks::{clickhouse::ClickHouse, lake::StoreOptions};
use url::Url;

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
pub(crate) struct PlaceArgs {
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
pub(crate) struct Place {
    pub(crate) engine: Engine,
    pub(crate) lake: Url,
    pub(crate) lake_options: StoreOptions,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) jobs: Vec<JobConfig>,
    /// The ClickHouse database, where there is one.
    pub(crate) house: Option<ClickHouse>,
    connection: Option<Connection>,
}

impl PlaceArgs {
    /// Opens the lake; nothing is asked of brokers.
    pub(crate) fn open(&self) -> anyhow::Result<Place> {
        if let Some(path) = &self.config {
            let Config { catalog, kafka, lake, jobs, clickhouse, .. } = Config::load(path)?;
            let lake = (lake.url, lake.options);
            let place = Place::over(Arc::new(catalog), lake, jobs, Some(kafka))?;
            let house = clickhouse.map(|house| ClickHouse::new(house.server)).transpose();
            return Ok(Place { house: house.map_err(|cause| sink_failure(&cause))?, ..place });
        }
        let catalog = Arc::new(self.lake.catalog()?);
        let lake = (self.lake.url()?, storage::from_environment());
        let running = running_broker(&self.lake.data).filter(|_| self.lake.lake.is_none());
        let brokers = self.brokers.clone().or(running);
        let connection = self.kafka.connection(brokers.as_deref())?;
        let jobs = default_jobs(&catalog, SinkKind::Lake);
        Place::over(catalog, lake, jobs, connection)
    }
}

impl Place {
    fn over(
        catalog: Arc<Catalog>,
        (lake, lake_options): (Url, StoreOptions),
        jobs: Vec<JobConfig>,
        connection: Option<Connection>,
    ) -> anyhow::Result<Place> {
        let mut settings = Settings::new(lake.clone(), Arc::clone(&catalog));
        settings.lake_options = lake_options.clone();
        let engine =
            Engine::open(settings).map_err(|cause| Failure::new(Exit::Data, cause.to_string()))?;
        Ok(Place { engine, lake, lake_options, catalog, jobs, house: None, connection })
    }
    /// The brokers, where they are known.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// The brokers, or what to say so that they are known.
    pub(crate) fn brokers(&self, what_for: &str) -> Result<&Connection, Failure> {
        self.connection.as_ref().ok_or_else(|| {
            let message = format!(
                "{what_for} needs a broker, and none runs here: start `aion dev` in another \
                 terminal, or name one with --kafka, or a configuration with --config"
            );
            Failure::new(Exit::Usage, message)
        })
    }

    /// The topic whose records a letter's topic has: its own, or that of which it has the retries.
    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        match name.strip_prefix(RETRIES) {
            Some(table) => self.catalog.table(table),
            None => self.catalog.topic(name),
        }
    }

    /// What a job writes to; nothing where there is no such job.
    pub(crate) fn sinks_of(&self, job: &str) -> &[SinkKind] {
        let job = self.jobs.iter().find(|one| one.name == job);
        job.map(|job| &job.sinks[..]).unwrap_or_default()
    }

    /// The job of that name.
    pub(crate) fn job(&self, name: &str) -> Result<&JobConfig, Failure> {
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
