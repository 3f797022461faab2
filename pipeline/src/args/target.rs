//! Where a command finds Kafka, the registry and the contract: a configuration, or a running `aion dev`, or
//! what the command line says.

use std::{path::PathBuf, sync::Arc};

use aion_kafka::Connection;
use aion_schemas::{
    catalog::{Catalog, Topic},
    suggest::nearest,
};

use crate::{
    args::{kafka::KafkaArgs, lake},
    config::Config,
    data_folder::{running_broker, running_registry},
    exit::{Exit, Failure},
    registry::{Registry, Settings},
};

/// Arguments that say where things are.
#[derive(Debug, clap::Args)]
pub struct TargetArgs {
    /// A configuration of jobs: it says where Kafka and the registry are.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "brokers", "registry", "catalog", "client_config", "properties"])]
    config: Option<PathBuf>,
    /// Data folder of a running `aion dev`: its broker and its registry are used.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// The brokers, several with commas.
    #[arg(long = "kafka", value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// The schema registry, several URLs of one with commas.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    registry: Vec<String>,
    /// Folder with catalog.toml and schemas; the built-in contract without it.
    #[arg(long, value_name = "DIR")]
    catalog: Option<PathBuf>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Where things are.
#[derive(Debug)]
pub struct Target {
    /// The cluster.
    pub connection: Connection,
    /// The registry, where one is named.
    pub registry: Option<Arc<Registry>>,
    /// The contract.
    pub catalog: Catalog,
}

impl TargetArgs {
    /// Finds them; nothing is asked yet.
    pub fn find(&self) -> anyhow::Result<Target> {
        if let Some(path) = &self.config {
            let config = Config::load(path)?;
            let registry = config.registry.as_ref().map(|registry| open(&registry.settings));
            return Ok(Target {
                connection: config.kafka,
                registry: registry.transpose()?,
                catalog: config.catalog,
            });
        }
        let running = running_broker(&self.data);
        let is_dev = running.is_some() && self.brokers.is_none();
        let brokers = self.brokers.clone().or(running);
        let connection = self.kafka.connection(brokers.as_deref())?.ok_or_else(|| {
            let data = self.data.display();
            usage(format!(
                "no broker runs on {data}: start `aion dev --data {data}` in another terminal, or \
                 name a broker with --kafka, or a configuration with --config"
            ))
        })?;
        let of_dev = running_registry(&self.data).filter(|_| is_dev);
        let urls = if self.registry.is_empty() {
            of_dev.into_iter().collect()
        } else {
            self.registry.clone()
        };
        let registry = if urls.is_empty() { None } else { Some(of_urls(&urls)?) };
        let catalog = lake::catalog(self.catalog.as_deref())?;
        Ok(Target { connection, registry, catalog })
    }
}

impl TargetArgs {
    /// The configuration, where one is named.
    pub(crate) fn config(&self) -> anyhow::Result<Option<Config>> {
        self.config.as_deref().map(Config::load).transpose()
    }

    /// The contract; no cluster is looked for.
    pub(crate) fn catalog(&self, config: Option<&Config>) -> anyhow::Result<Catalog> {
        match config {
            Some(config) => Ok(config.catalog.clone()),
            None => Ok(lake::catalog(self.catalog.as_deref())?),
        }
    }
}

impl Target {
    /// The topic of that name, or of the table of that name; `None` if the contract has neither.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.catalog.topic(name).or_else(|| self.catalog.table(name))
    }

    /// The topic of that name or table, which producers may send to.
    pub fn producers_topic(&self, name: &str) -> Result<&Topic, Failure> {
        let producers = || self.catalog.topics.iter().filter(|topic| !topic.internal);
        match self.topic(name) {
            Some(topic) if topic.internal => Err(usage(format!(
                "{} is written by AION Event Streams itself; nobody else may publish there",
                topic.name
            ))),
            Some(topic) => Ok(topic),
            None => {
                let known = || producers().map(|topic| &*topic.name);
                let hint = nearest(name, known()).map_or_else(
                    || format!("known are {}", known().collect::<Vec<_>>().join(", ")),
                    |near| format!("did you mean {near:?}?"),
                );
                Err(usage(format!("no topic {name:?} in the catalog; {hint}")))
            }
        }
    }
}

/// The registry at these URLs; nothing is asked yet.
pub(crate) fn of_urls(urls: &[String]) -> Result<Arc<Registry>, Failure> {
    let urls: Result<Vec<_>, _> = urls.iter().map(|url| Settings::url(url)).collect();
    open(&Settings::new(urls.map_err(|cause| usage(cause.to_string()))?))
}

fn open(settings: &Settings) -> Result<Arc<Registry>, Failure> {
    Registry::open(settings).map(Arc::new).map_err(|cause| usage(cause.to_string()))
}

fn usage(what: String) -> Failure {
    Failure::new(Exit::Usage, what)
}
