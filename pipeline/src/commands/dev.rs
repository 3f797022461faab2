//! `aion dev`: the whole platform on this machine, durable in one folder, by one command.
//!
//! The embedded broker stands in for a Kafka cluster; everything behind it is what `aion run` runs.

mod access;
mod screen;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aion_embedded::{Broker, Registry, Settings};
use aion_kafka::Connection;
use aion_schemas::{
    catalog::{Catalog, Environment},
    commands::Commands,
};
use aion_sinks::lake::StoreOptions;
use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use self::screen::Screen;
use crate::{
    access::AccessConfig,
    args::lake,
    certificates::Certificates,
    commands::{
        bootstrap::{
            self,
            schemas::{self, SchemaStep},
        },
        clickhouse,
        generate::{Feed, Proposals, Share},
    },
    config::{
        AuditConfig, ClickHouseConfig, Config, DEFAULT_BUDGET_MIB, LakeConfig, LogConfig,
        MetricsConfig, PostgresConfig, RegistryConfig, SinkKind, SqlConfig, default_jobs,
    },
    data_folder::DataFolder,
    exit::{Exit, Failure, is_disk_full},
    exports::service as exports,
    health::Beside,
    http, logging, place,
    platform::Platform,
    registry, signals,
    upkeep::UpkeepConfig,
    webhooks::WebhooksConfig,
};

/// Rows are in the lake after this time: short enough to watch, long enough for files worth having.
const FLUSH_AGE: Duration = Duration::from_secs(5);
const FLUSH_BYTES: usize = 64 << 20;
/// Series are shown after this time.
const SERIES_AGE: Duration = Duration::from_secs(2);
/// Flushes are small here, so their files are many.
const UPKEEP: Duration = Duration::from_mins(10);
/// The registry is in this process: an id that it doesn't have is nobody's.
const GRACE: Duration = Duration::from_secs(2);
/// The policy that is taken where none is named.
const POLICY: &str = "policies/webhooks.yaml";
/// The broker in this process doesn't compact: cursors are stored seldom.
const WEBHOOKS_FLUSH: Duration = Duration::from_secs(2);
/// Beside PostgreSQL's own port, which may be taken.
const POSTGRES: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5433);
const DRAIN: Duration = Duration::from_secs(30);
/// What came in the last minutes is compared with the log each minute, so that a dashboard has something to show.
const AUDIT: AuditConfig =
    AuditConfig { every: Duration::from_mins(1), since: Some(Duration::from_mins(10)) };

/// Arguments of `aion dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where everything is kept; made when it doesn't exist.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Where the broker listens; this machine only.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092", value_parser = place::address)]
    kafka: SocketAddr,
    /// Where the schema registry listens; this machine only.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8081", value_parser = place::address)]
    registry: SocketAddr,
    /// Where /livez, /readyz and /metrics are served; this machine only.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080", value_parser = place::address)]
    http: SocketAddr,
    /// Where PostgreSQL's clients are answered; this machine only. Without it 127.0.0.1:5433, unless another has that.
    #[arg(long, value_name = "HOST:PORT", value_parser = place::address)]
    postgres: Option<SocketAddr>,
    /// Believable events a second, over all topics.
    #[arg(long, value_name = "EVENTS_PER_S", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Share of them to break in believable ways, from 0 to 1, so that dead letters can be looked at.
    #[arg(long, value_name = "SHARE", default_value = "0.0005")]
    bad_share: Share,
    /// No events of our own: only what others produce.
    #[arg(long)]
    no_generator: bool,
    /// A folder of topics and schemas in place of the built-in contract.
    #[arg(long, value_name = "DIR")]
    catalog: Option<PathBuf>,
    /// Who gets events over HTTP; without the file, nobody.
    #[arg(long, value_name = "FILE", default_value = POLICY)]
    webhooks: PathBuf,
    /// Send no webhooks, whatever policy there is.
    #[arg(long, conflicts_with = "webhooks")]
    no_webhooks: bool,
    /// Take no commands in.
    #[arg(long)]
    no_inbound: bool,
    /// A ClickHouse server to write the topics to as well; its database `aion` and the tables are made.
    #[arg(long, value_name = "URL")]
    clickhouse: Option<String>,
    /// Its account; the password is that of the environment variable `CLICKHOUSE_PASSWORD`.
    #[arg(long, value_name = "NAME", requires = "clickhouse")]
    clickhouse_user: Option<String>,
    /// What reading may take of memory; decoded rows and Kafka's queues get a quarter of it.
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_BUDGET_MIB as u32, value_parser = clap::value_parser!(u32).range(16..))]
    memory_mib: u32,
}

/// Runs until SIGINT or SIGTERM.
pub fn run(args: &DevArgs) -> anyhow::Result<()> {
    let addresses = [(args.kafka, "--kafka"), (args.registry, "--registry"), (args.http, "--http")];
    let postgres = args.postgres.map(|address| (address, "--postgres"));
    for (address, flag) in addresses.into_iter().chain(postgres) {
        if !address.ip().is_loopback() {
            let message =
                format!("{flag} {address}: only addresses of this machine (127.0.0.1) are served");
            return Err(Failure::new(Exit::Usage, message).into());
        }
    }
    let folder = DataFolder::open(&args.data)?;
    logging::start(&LogConfig { filter: "warn".into(), ..LogConfig::default() })?;
    signals::run(start_and_stop(args, &folder))
}

/// Starts from the broker upwards, and stops from the generator downwards.
async fn start_and_stop(args: &DevArgs, folder: &DataFolder) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    signals::listen(shutdown.clone()).context("listen for signals")?;
    let listener = http::bind(args.http).await?;
    let http = listener.local_addr().context("address of the HTTP listener")?;
    let settings = Settings { listen: args.kafka, ..Settings::new(folder.kafka()) };
    let broker = Broker::start(settings).await;
    let broker = broker.map_err(|cause| embedded_failure("broker (--kafka)", &cause))?;
    let registry = Registry::start(args.registry, folder.registry()).await;
    let registry =
        registry.map_err(|cause| embedded_failure("schema registry (--registry)", &cause))?;
    folder.announce(broker.address())?;
    folder.announce_registry(registry.address())?;
    folder.announce_http(http)?;
    let mut config = config(args, folder, broker.address(), registry.address())?;
    let trial = access::prepare(&folder.access())?;
    if !args.no_inbound {
        config.access.policy = Some(trial.policy());
        config.inbound = Some(trial.inbound(config.kafka.clone(), shutdown.clone()).await?);
    }
    clickhouse::make_tables(&config).await?;
    let connection = config.kafka.clone();
    let is_webhooks = config.webhooks.is_some();
    let tables = config.catalog.topics.iter().map(|topic| Arc::clone(&topic.table)).collect();
    create_topics(connection.clone(), config.catalog.clone()).await?;
    if let Some(RegistryConfig { settings, .. }) = &config.registry {
        register_schemas(settings, &config.catalog).await?;
    }

    let postgres = config.sql.postgres.as_ref().map(|served| served.listen);
    let watch = broker.watch();
    let beside = Beside::new("broker", move || watch.trouble());
    let platform = Platform::start(config, listener, &shutdown, Some(beside)).await?;
    let start = || Feed::start(&connection, args.rate, args.bad_share);
    let feed = if args.no_generator { None } else { Some(start()?) };
    let proposals = if args.no_generator { None } else { Some(Proposals::start(&connection)?) };
    let screen = Screen {
        kafka: broker.address(),
        registry: registry.address(),
        http,
        postgres,
        catalog: args.catalog.clone(),
        data: folder.path().to_path_buf(),
        tables,
        access: (!args.no_inbound).then(|| folder.access()),
        policy: is_webhooks.then(|| args.webhooks.clone()),
        health: Arc::clone(&platform.health),
    };
    screen.run(feed.as_ref().map(Feed::counters), &shutdown).await;

    if let Some(feed) = feed {
        feed.stop().await;
    }
    if let Some(proposals) = proposals {
        proposals.stop().await;
    }
    let ended = platform.ended().await;
    registry.stop().await;
    let stopped = broker.stop().await.context("stop the broker");
    ended?;
    stopped?;
    println!("Stopped; everything is kept. Start again to go on.");
    Ok(())
}

/// The configuration that `aion run` would read for this machine.
fn config(
    args: &DevArgs,
    folder: &DataFolder,
    broker: SocketAddr,
    registry: SocketAddr,
) -> anyhow::Result<Config> {
    let catalog = lake::catalog(args.catalog.as_deref())?;
    let lake = folder.lake();
    let url = place::folder_url(&lake).map_err(|cause| anyhow::anyhow!("lake folder {cause}"))?;
    let mut jobs = default_jobs(&catalog, SinkKind::Lake);
    // They share the lake's jobs: one reader less for each topic, and one dead letter.
    let series = default_jobs(&catalog, SinkKind::Prometheus);
    for job in &mut jobs {
        if series.iter().any(|other| other.topic.name == job.topic.name) {
            job.sinks.push(SinkKind::Prometheus);
        }
    }
    let clickhouse = clickhouse_of(args)?;
    if clickhouse.is_some() {
        jobs.extend(default_jobs(&catalog, SinkKind::ClickHouse));
    }
    // Here one tries out what happens to bad records: they all become dead letters.
    for job in &mut jobs {
        job.max_reject_share = 1.0;
    }
    Ok(Config {
        jobs,
        catalog,
        kafka: Connection::to(broker.to_string()),
        registry: Some(RegistryConfig { grace: GRACE, ..RegistryConfig::at(registry) }),
        clickhouse,
        metrics: Some(MetricsConfig { flush_age: SERIES_AGE, ..MetricsConfig::default() }),
        lake: LakeConfig {
            url,
            options: StoreOptions::default(),
            flush_bytes: FLUSH_BYTES,
            flush_age: FLUSH_AGE,
            upkeep: UpkeepConfig { every: Some(UPKEEP), keep_days: BTreeMap::new() },
        },
        http: args.http,
        access: AccessConfig { everybody: true, ..AccessConfig::default() },
        commands: commands_of(args.catalog.as_deref())?,
        http_tls: None,
        certificates: Certificates::default(),
        sql: SqlConfig { postgres: postgres(args.postgres, POSTGRES), ..SqlConfig::default() },
        memory_bytes: (args.memory_mib as usize) << 20,
        drain: DRAIN,
        log: LogConfig::default(),
        audit: Some(AUDIT),
        webhooks: webhooks(args),
        inbound: None,
        exports: Some(exports(folder)?),
    })
}

fn commands_of(folder: Option<&Path>) -> Result<Commands, Failure> {
    let Some(folder) = folder else { return Ok(Commands::builtin()) };
    Commands::load(folder).map_err(|cause| Failure::new(Exit::Usage, cause.to_string()))
}

/// Exports into the data folder, by the policy that is there.
fn exports(folder: &DataFolder) -> anyhow::Result<exports::Settings> {
    let url = place::folder_url(&folder.exports()).map_err(anyhow::Error::msg)?;
    Ok(exports::Settings::to_try(url))
}

/// The policy that is there. One that is named and isn't there is said by the platform.
fn webhooks(args: &DevArgs) -> Option<WebhooksConfig> {
    let policy = &args.webhooks;
    let is_wanted = !args.no_webhooks && (policy.exists() || policy != Path::new(POLICY));
    is_wanted.then(|| WebhooksConfig { policy: policy.clone(), flush: WEBHOOKS_FLUSH })
}

/// The ClickHouse server that somebody wants to try.
fn clickhouse_of(args: &DevArgs) -> Result<Option<ClickHouseConfig>, Failure> {
    let Some(url) = &args.clickhouse else { return Ok(None) };
    let password = std::env::var("CLICKHOUSE_PASSWORD").ok();
    let config = ClickHouseConfig::to_try(url, args.clickhouse_user.clone(), password);
    config.map(Some).map_err(|cause| Failure::new(Exit::Usage, cause))
}

/// Where PostgreSQL's clients are answered: where somebody says, else at the usual address, unless another has that.
fn postgres(named: Option<SocketAddr>, usual: SocketAddr) -> Option<PostgresConfig> {
    let is_free = |address: &SocketAddr| std::net::TcpListener::bind(address).is_ok();
    let address = named.or_else(|| Some(usual).filter(is_free));
    address.map(PostgresConfig::everybody)
}

async fn create_topics(connection: Connection, catalog: Catalog) -> anyhow::Result<()> {
    let create = move || bootstrap::create_topics(&connection, &catalog, Environment::Dev);
    tokio::task::spawn_blocking(create).await.context("create topics")??;
    Ok(())
}

/// Registers the catalog's schemas. One that can't read what an earlier one wrote is said, and stays
/// out: the registry has to run for somebody to act.
async fn register_schemas(settings: &registry::Settings, catalog: &Catalog) -> anyhow::Result<()> {
    let registry = registry::Registry::open(settings)?;
    for step in schemas::plan(&registry, catalog).await.context("look at the schemas")? {
        if let SchemaStep::Incompatible { .. } = step {
            tracing::warn!("{step}");
        }
        schemas::carry_out(&registry, &step).await.with_context(|| step.to_string())?;
    }
    Ok(())
}

fn embedded_failure(what: &str, cause: &aion_embedded::Error) -> Failure {
    use aion_embedded::Error;
    let exit = match cause {
        Error::Busy { .. } => Exit::Address,
        Error::NotLoopback(_) => Exit::Usage,
        Error::Locked { .. }
        | Error::Foreign { .. }
        | Error::Newer { .. }
        | Error::Corrupt { .. } => Exit::Data,
        Error::Io { source, .. } if is_disk_full(source) => Exit::Disk,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("start the {what}: {cause}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::net::TcpListener;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: DevArgs,
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn postgresqls_clients_find_the_usual_address_or_the_one_that_is_named() {
        let at = |named, usual| postgres(named, usual).map(|served| served.listen);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let usual = taken.local_addr().unwrap();
        let named = Line::try_parse_from(["dev", "--postgres", "127.0.0.1:6000"]).unwrap();
        let named = named.args.postgres;
        assert_eq!(named, Some(address("127.0.0.1:6000")));
        assert_eq!(at(None, usual), None, "another has it");
        assert_eq!(at(named, usual), named);
        // That it is taken is an error then, which says so.
        assert_eq!(at(Some(usual), usual), Some(usual));
        drop(taken);
        assert_eq!(at(None, usual), Some(usual));
        assert_eq!(at(named, usual), named);
        assert_eq!(Line::try_parse_from(["dev"]).unwrap().args.postgres, None);
        assert_eq!(POSTGRES, address("127.0.0.1:5433"));
    }

    /// README.md shows them, and the screen's test puts them where it finds those of its own.
    #[test]
    fn the_usual_places_are_those_that_people_know() {
        let DevArgs { data, kafka, registry, http, postgres, rate, .. } =
            Line::try_parse_from(["dev"]).unwrap().args;
        assert_eq!(data, Path::new("data"));
        let places = [kafka, registry, http, POSTGRES].map(|address| address.to_string());
        assert_eq!(
            places,
            ["127.0.0.1:9092", "127.0.0.1:8081", "127.0.0.1:8080", "127.0.0.1:5433"]
        );
        assert_eq!((postgres, rate), (None, 200));
    }
}
