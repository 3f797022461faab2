//! `[clickhouse]`: the server, and when rows are written to it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use aion_schemas::{
    catalog::{Catalog, Environment, Topic},
    clickhouse::{DATABASE, Table},
};
use aion_sinks::clickhouse::{MAX_BATCH_BYTES, Server, guarantee::Guarantee};
use serde::Deserialize;
use url::Url;

use super::{jobs::JobConfig, mib, secret};

/// A ClickHouse database, and when rows are written to it.
#[derive(Clone, Debug)]
pub struct ClickHouseConfig {
    /// How to reach it; secrets are resolved.
    pub server: Server,
    /// A partition's rows are written when they hold this many bytes in memory.
    pub flush_bytes: usize,
    /// A partition's rows are written when the oldest is this old.
    pub flush_age: Duration,
    /// Days to keep rows, by table, where not as long as the topic keeps messages.
    keep_days: BTreeMap<String, u32>,
    environment: Environment,
}

impl ClickHouseConfig {
    /// A database to try things out in: rows are soon there, and kept as long as topics keep messages on a developer's
    /// machine.
    pub fn to_try(
        url: &str,
        user: Option<String>,
        password: Option<String>,
    ) -> Result<ClickHouseConfig, String> {
        let url = self::url(url)?;
        let database = default_database();
        Ok(ClickHouseConfig {
            server: Server {
                urls: vec![url],
                database,
                user,
                password,
                ca: None,
                guarantee: Guarantee::ExactlyOnce,
            },
            flush_bytes: default_flush_mib() << 20,
            flush_age: Duration::from_secs(default_flush_age_s()),
            keep_days: BTreeMap::new(),
            environment: Environment::Dev,
        })
    }

    /// The table that a topic's rows go to.
    pub fn table(&self, topic: &Topic) -> Table {
        let table = Table::of(topic, self.environment);
        let keep_days = self.keep_days.get(&*topic.table).copied().or(table.keep_days);
        Table { keep_days, ..table }
    }

    /// Takes in what jobs ask of their tables. Whoever reads tables of several jobs has to reckon with the least of it.
    pub(super) fn ask_for(&mut self, jobs: &[JobConfig]) -> Result<(), String> {
        for job in jobs.iter().filter(|job| job.is_in_clickhouse()) {
            match job.guarantee {
                Guarantee::AtLeastOnce => self.server.guarantee = Guarantee::AtLeastOnce,
                Guarantee::ExactlyOnce if self.server.urls.len() > 1 => {
                    return Err(format!(
                        "job {:?}: clickhouse.url names several servers, whose replicas of a table can't give exactly once",
                        job.name
                    ));
                }
                Guarantee::ExactlyOnce => {}
            }
        }
        Ok(())
    }
}

/// `[clickhouse]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClickHouseFile {
    url: Addresses,
    #[serde(default = "default_database")]
    database: String,
    user: Option<String>,
    password: Option<String>,
    pub(super) ca: Option<PathBuf>,
    #[serde(default)]
    guarantee: Guarantee,
    #[serde(default = "default_flush_age_s")]
    flush_age_s: u64,
    #[serde(default = "default_flush_mib")]
    flush_mib: usize,
    #[serde(default = "default_environment")]
    environment: Environment,
    #[serde(default)]
    keep_days: BTreeMap<String, u32>,
}

/// One address, or those of several replicas.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "clickhouse.url: an address is wanted, or a list of addresses")]
enum Addresses {
    One(String),
    Several(Vec<String>),
}

fn default_database() -> String {
    DATABASE.to_owned()
}

const fn default_flush_age_s() -> u64 {
    5
}

const fn default_flush_mib() -> usize {
    32
}

const fn default_environment() -> Environment {
    Environment::Prod
}

pub(super) fn check(file: ClickHouseFile, catalog: &Catalog) -> Result<ClickHouseConfig, String> {
    for (table, days) in &file.keep_days {
        if catalog.table(table).is_none() {
            return Err(at("keep_days", &format!("there is no table {table} in the catalog")));
        }
        if *days == 0 {
            return Err(at("keep_days", &format!("{table}: a day is the least")));
        }
    }
    if !is_name(&file.database) {
        return Err(at("database", "letters, digits and '_' are wanted, a digit not first"));
    }
    if file.flush_age_s == 0 {
        return Err(at("flush_age_s", "a second is the least: every flush is a part of the table"));
    }
    let user = file.user.map(|user| secret::resolve(&user)).transpose();
    let password = file.password.map(|password| secret::required(&password)).transpose();
    Ok(ClickHouseConfig {
        server: Server {
            urls: urls(&file.url, file.guarantee)?,
            database: file.database,
            user: user.map_err(|cause| at("user", &cause))?,
            password: password.map_err(|cause| at("password", &cause))?,
            ca: file.ca.as_deref().map(certificates).transpose()?,
            guarantee: file.guarantee,
        },
        flush_bytes: flush_bytes(file.flush_mib)?,
        flush_age: Duration::from_secs(file.flush_age_s),
        keep_days: file.keep_days,
        environment: file.environment,
    })
}

/// The bytes of rows with which a partition goes, which one INSERT has to have room for.
fn flush_bytes(flush_mib: usize) -> Result<usize, String> {
    let bytes = mib("clickhouse.flush_mib", flush_mib)?;
    if bytes > MAX_BATCH_BYTES {
        let most = MAX_BATCH_BYTES >> 20;
        let cause = format!("{flush_mib} MiB are more than one INSERT has, which is {most} MiB");
        return Err(at("flush_mib", &cause));
    }
    Ok(bytes)
}

fn urls(written: &Addresses, guarantee: Guarantee) -> Result<Vec<Url>, String> {
    let texts = match written {
        Addresses::One(text) => std::slice::from_ref(text),
        Addresses::Several(texts) => texts.as_slice(),
    };
    let urls: Vec<Url> = texts.iter().map(|text| url(text)).collect::<Result<_, _>>()?;
    if urls.is_empty() {
        return Err(at("url", "an address is wanted, and the list has none"));
    }
    if let Some(twice) = urls.iter().enumerate().find(|(n, url)| urls[..*n].contains(url)) {
        return Err(at("url", &format!("{} is named twice", twice.1)));
    }
    if urls.len() > 1 && guarantee == Guarantee::ExactlyOnce {
        return Err(at(
            "url",
            "several servers have replicas of one table, which can't give exactly once: name one, or write guarantee = \
             \"at_least_once\"",
        ));
    }
    Ok(urls)
}

fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.filter(Url::has_host).ok_or_else(|| {
        at("url", &format!("{text:?}: http://HOST:8123 or https://HOST:8443 is wanted"))
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(at("url", "the account doesn't belong here: write user and password"));
    }
    if url.query().is_some() {
        return Err(at("url", "settings don't belong here; those that matter are sent anyway"));
    }
    Ok(url)
}

fn certificates(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|cause| at("ca", &format!("read {}: {cause}", path.display())))
}

/// Whether it needs no quotes in SQL.
fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.chars().all(is_part) && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn at(key: &str, cause: &str) -> String {
    format!("clickhouse.{key}: {cause}")
}
