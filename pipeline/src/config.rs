//! `aion.toml`: what an operator deploys. Read as typed text, checked once, plain values afterwards.
//!
//! Every key can be overridden from the environment: `AION__KAFKA__BROKERS` is `kafka.brokers`.
//!
//! **Invariant:** an unknown key is an error that names the nearest known one; nothing is ignored.
//! **Invariant:** a secret is never in the file: it is a reference, `env:NAME` or `file:PATH`.

mod certificates;
mod clickhouse;
mod exports;
mod inbound;
mod jobs;
mod lake;
mod metrics;
mod overrides;
mod reader;
mod registry;
pub(crate) mod secret;
mod sql;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use aion_schemas::{catalog::Catalog, commands::Commands};
use serde::Deserialize;

pub use self::{
    clickhouse::ClickHouseConfig,
    jobs::{JobConfig, SinkKind, defaults as default_jobs},
    lake::{LakeConfig, url as lake_url},
    metrics::MetricsConfig,
    reader::ReaderConfig,
    registry::RegistryConfig,
    sql::{PostgresConfig, SqlConfig},
};
use crate::{
    access::{AccessConfig, key::Digest},
    certificates::Certificates,
    exit::{Exit, Failure},
    exports::service::Settings,
    http::tls::{self, Tls},
    inbound::InboundConfig,
    place,
    webhooks::WebhooksConfig,
};

/// A configuration that was checked: everything in it can be used as it stands.
#[derive(Debug)]
pub struct Config {
    /// The topics and schemas: built in, or from the folder that `catalog` names.
    pub catalog: Catalog,
    /// How to reach Kafka; secrets are resolved.
    pub kafka: aion_kafka::Connection,
    /// The schema registry, where events are framed with its ids.
    pub registry: Option<RegistryConfig>,
    /// Where the lake is, and when it writes.
    pub lake: LakeConfig,
    /// The ClickHouse database, where there is one.
    pub clickhouse: Option<ClickHouseConfig>,
    /// The platform's series, which `/metrics/platform` shows; there are none without it.
    pub metrics: Option<MetricsConfig>,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub http: SocketAddr,
    /// Who may do what over HTTP.
    pub access: AccessConfig,
    /// The commands that may come from outside.
    pub commands: Commands,
    /// With which certificate; without one HTTP isn't encrypted.
    pub http_tls: Option<Tls>,
    /// The files of certificates that it names.
    pub certificates: Certificates,
    /// What questions may use, and where PostgreSQL's clients are answered.
    pub sql: SqlConfig,
    /// What reading may take of memory, in bytes: a quarter is for decoded rows and librdkafka's queues, which are counted,
    /// and the rest for what nobody counts.
    pub memory_bytes: usize,
    /// How long a stopping process may take to write what it holds.
    pub drain: Duration,
    /// How logs are written.
    pub log: LogConfig,
    /// Whether and how often the process audits what it stores; off without it.
    pub audit: Option<AuditConfig>,
    /// By which policy webhooks are sent; none are without it.
    pub webhooks: Option<WebhooksConfig>,
    /// Who carries out commands from outside; none are taken in without it.
    pub inbound: Option<InboundConfig>,
    /// Where training exports go; none are made without it.
    pub exports: Option<Settings>,
    /// The jobs, at least one.
    pub jobs: Vec<JobConfig>,
}

/// How often a process audits what it stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// The time between the end of an audit and the beginning of the next.
    pub every: Duration,
    /// Only what was appended so long ago or less is looked at; without it, the whole log.
    pub since: Option<Duration>,
}

/// How logs are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` for people, `json` for machines.
    pub format: LogFormat,
    /// A filter such as `info` or `info,aion::job=debug`.
    pub filter: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { format: LogFormat::Text, filter: "info".into() }
    }
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    catalog: Option<PathBuf>,
    kafka: Option<KafkaFile>,
    registry: Option<registry::RegistryFile>,
    lake: Option<lake::LakeFile>,
    clickhouse: Option<clickhouse::ClickHouseFile>,
    metrics: Option<metrics::MetricsFile>,
    #[serde(default)]
    http: HttpFile,
    access: Option<AccessFile>,
    #[serde(default)]
    sql: sql::SqlFile,
    #[serde(default)]
    memory: MemoryFile,
    #[serde(default = "default_drain_s")]
    drain_s: u64,
    #[serde(default)]
    log: LogConfig,
    audit: Option<AuditFile>,
    webhooks: Option<WebhooksFile>,
    inbound: Option<inbound::InboundFile>,
    exports: Option<exports::ExportsFile>,
    #[serde(default, rename = "job")]
    jobs: Vec<jobs::JobFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KafkaFile {
    brokers: String,
    #[serde(default)]
    properties: BTreeMap<String, toml::Value>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditFile {
    every_s: u64,
    since_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhooksFile {
    policy: PathBuf,
    #[serde(default = "default_flush_ms")]
    flush_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpFile {
    listen: String,
    keys: Vec<String>,
    guard_metrics: bool,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessFile {
    policy: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MemoryFile {
    budget_mib: usize,
}

impl Default for HttpFile {
    fn default() -> HttpFile {
        let listen = "127.0.0.1:8080".to_owned();
        HttpFile { listen, keys: Vec::new(), guard_metrics: false, certificate: None, key: None }
    }
}

impl Default for MemoryFile {
    fn default() -> MemoryFile {
        MemoryFile { budget_mib: DEFAULT_BUDGET_MIB }
    }
}

/// The byte budget where none is configured.
pub const DEFAULT_BUDGET_MIB: usize = 512;
const MIB: usize = 1 << 20;

const fn default_drain_s() -> u64 {
    30
}

const fn default_flush_ms() -> u64 {
    1_000
}

impl Config {
    /// Reads and checks a file, with overrides from this process's environment.
    pub fn load(path: &Path) -> anyhow::Result<Config> {
        load(path, |text| Config::parse(text, std::env::vars()))
    }

    /// Checks the text of a file, with the given environment.
    pub fn parse(
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, String> {
        check(file(text, environment)?)
    }
}

/// Reads a file and has it checked.
fn load<T>(path: &Path, check: impl FnOnce(&str) -> Result<T, String>) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| usage(format!("read configuration {}: {cause}", path.display())))?;
    check(&text).map_err(|cause| usage(format!("configuration {}: {cause}", path.display())).into())
}

fn file(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<File, String> {
    let mut tree: toml::Table = text.parse().map_err(|cause: toml::de::Error| cause.to_string())?;
    overrides::apply(&mut tree, environment)?;
    tree.try_into().map_err(|cause: toml::de::Error| cause.to_string())
}

fn catalog(folder: Option<&Path>) -> Result<Catalog, String> {
    match folder {
        None => Ok(Catalog::builtin()),
        Some(folder) => Catalog::load(folder).map_err(|cause| cause.to_string()),
    }
}

fn check(file: File) -> Result<Config, String> {
    let certificates = certificates::of(&file);
    let commands = commands(file.catalog.as_deref())?;
    let catalog = catalog(file.catalog.as_deref())?;
    let lake = lake::check(file.lake, &catalog)?;
    let exports = file.exports.map(|file| exports::check(file, &lake.options)).transpose()?;
    let mut clickhouse =
        file.clickhouse.map(|file| clickhouse::check(file, &catalog)).transpose()?;
    let mut places = vec![SinkKind::Lake];
    places.extend(clickhouse.as_ref().map(|_| SinkKind::ClickHouse));
    places.extend(file.metrics.as_ref().map(|_| SinkKind::Prometheus));
    let kafka = connection(file.kafka.ok_or("no log to read: add a [kafka] with its brokers")?)?;
    if file.inbound.is_some() && file.access.is_none() {
        return Err("inbound: who may command is said by a policy; add [access]".to_owned());
    }
    let inbound = file.inbound.map(|file| inbound::check(file, &kafka, &catalog)).transpose()?;
    let asked = clickhouse.as_ref().map(|house| house.server.guarantee).unwrap_or_default();
    let jobs = jobs::check(file.jobs, &catalog, &places, asked)?;
    if let Some(house) = &mut clickhouse {
        house.ask_for(&jobs)?;
    }
    Ok(Config {
        kafka,
        registry: file.registry.map(registry::check).transpose()?,
        catalog,
        lake,
        clickhouse,
        metrics: file.metrics.map(metrics::check).transpose()?,
        http: place::address(&file.http.listen).map_err(|cause| format!("http.listen: {cause}"))?,
        access: access(&file.http, file.access)?,
        commands,
        http_tls: http_tls(&file.http)?,
        certificates,
        sql: sql::check(file.sql)?,
        memory_bytes: mib("memory.budget_mib", file.memory.budget_mib)?,
        drain: Duration::from_secs(file.drain_s),
        log: file.log,
        audit: file.audit.map(audit).transpose()?,
        webhooks: file.webhooks.map(webhooks).transpose()?,
        inbound,
        exports,
        jobs,
    })
}

fn commands(folder: Option<&Path>) -> Result<Commands, String> {
    match folder {
        None => Ok(Commands::builtin()),
        Some(folder) => Commands::load(folder).map_err(|cause| cause.to_string()),
    }
}

fn access(http: &HttpFile, file: Option<AccessFile>) -> Result<AccessConfig, String> {
    let key = |(at, text): (usize, &String)| {
        let key = secret::required(text).and_then(|text| Digest::of_text(&text));
        key.map_err(|cause| format!("http.keys[{at}]: {cause}"))
    };
    Ok(AccessConfig {
        everybody: false,
        keys: http.keys.iter().enumerate().map(key).collect::<Result<_, _>>()?,
        policy: file.map(|file| file.policy),
        guard_metrics: http.guard_metrics,
    })
}

fn http_tls(file: &HttpFile) -> Result<Option<Tls>, String> {
    match (&file.certificate, &file.key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => tls::server(certificate, key)
            .map(Some)
            .map_err(|cause| format!("http.certificate: {cause}")),
        _ => Err("http: certificate and key go together; give both".to_owned()),
    }
}

fn audit(file: AuditFile) -> Result<AuditConfig, String> {
    if file.every_s == 0 || file.since_s == Some(0) {
        return Err("audit: every_s and since_s are whole numbers above 0".to_owned());
    }
    if file.since_s.is_some_and(|since| since < file.every_s) {
        return Err("audit.since_s: less than every_s leaves something out each time".to_owned());
    }
    Ok(AuditConfig {
        every: Duration::from_secs(file.every_s),
        since: file.since_s.map(Duration::from_secs),
    })
}

fn webhooks(file: WebhooksFile) -> Result<WebhooksConfig, String> {
    if !(10..=60_000).contains(&file.flush_ms) {
        return Err("webhooks.flush_ms: between 10 and 60000 is wanted".to_owned());
    }
    Ok(WebhooksConfig { policy: file.policy, flush: Duration::from_millis(file.flush_ms) })
}

fn connection(file: KafkaFile) -> Result<aion_kafka::Connection, String> {
    let connection =
        aion_kafka::Connection { brokers: file.brokers, properties: properties(file.properties)? };
    connection.check().map_err(|cause| cause.to_string())?;
    Ok(connection)
}

/// librdkafka's properties as text; secrets are resolved.
fn properties(written: BTreeMap<String, toml::Value>) -> Result<BTreeMap<String, String>, String> {
    let mut properties = BTreeMap::new();
    for (name, value) in written {
        let value = match value {
            toml::Value::String(text) => secret::property(&name, &text)
                .map_err(|cause| format!("kafka.properties.\"{name}\": {cause}"))?,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            other => {
                return Err(format!(
                    "kafka.properties.\"{name}\": text, a whole number or true/false is wanted, not {}",
                    other.type_str()
                ));
            }
        };
        properties.insert(name, value);
    }
    Ok(properties)
}

/// Bytes of a number of MiB.
fn mib(key: &str, value: usize) -> Result<usize, String> {
    if value == 0 {
        return Err(format!("{key}: a whole number above 0 is wanted"));
    }
    value.checked_mul(MIB).ok_or_else(|| format!("{key}: {value} MiB is more than there can be"))
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

#[cfg(test)]
mod tests;
