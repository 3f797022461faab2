//! `[lake]`: where the lake is, and when it writes.

use std::{collections::BTreeMap, path::Path, time::Duration};

use aion_schemas::catalog::Catalog;
use aion_sinks::lake::StoreOptions;
use serde::Deserialize;
use url::Url;

use super::mib;
use crate::{place, storage, upkeep::UpkeepConfig};

const DEFAULT_FLUSH_MIB: usize = 64;

/// Where the lake is, and when it writes.
#[derive(Clone, Debug)]
pub struct LakeConfig {
    /// Folder (`file://`) or object store that holds one Delta table per topic.
    pub url: Url,
    /// The options of its object store.
    pub options: StoreOptions,
    /// A table's rows are written when they hold this many bytes in memory.
    pub flush_bytes: usize,
    /// A table's rows are written when the oldest is this old.
    pub flush_age: Duration,
    /// What is done to keep tables small in files and short in logs.
    pub upkeep: UpkeepConfig,
}

/// The section as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LakeFile {
    url: String,
    #[serde(default)]
    storage: BTreeMap<String, toml::Value>,
    #[serde(default = "default_flush_mib")]
    flush_mib: usize,
    #[serde(default = "default_flush_age_s")]
    flush_age_s: u64,
    #[serde(default = "default_upkeep_every_m")]
    upkeep_every_m: u64,
    #[serde(default)]
    keep_days: BTreeMap<String, u32>,
}

const fn default_flush_mib() -> usize {
    DEFAULT_FLUSH_MIB
}

const fn default_flush_age_s() -> u64 {
    60
}

const fn default_upkeep_every_m() -> u64 {
    60
}

/// Checks the section.
pub(super) fn check(file: Option<LakeFile>, catalog: &Catalog) -> Result<LakeConfig, String> {
    let file = file.ok_or("no place to write to: add a [lake] with its url")?;
    Ok(LakeConfig {
        url: self::url(&file.url)?,
        options: storage::options(&file.storage)?,
        flush_bytes: mib("lake.flush_mib", file.flush_mib)?,
        flush_age: Duration::from_secs(file.flush_age_s),
        upkeep: upkeep(&file, catalog)?,
    })
}

fn upkeep(lake: &LakeFile, catalog: &Catalog) -> Result<UpkeepConfig, String> {
    for (table, days) in &lake.keep_days {
        if catalog.table(table).is_none() {
            return Err(format!("lake.keep_days: there is no table {table} in the catalog"));
        }
        if *days == 0 {
            return Err(format!("lake.keep_days.{table}: a day is the least"));
        }
    }
    let every = Duration::from_secs(lake.upkeep_every_m.saturating_mul(60));
    Ok(UpkeepConfig {
        every: (!every.is_zero()).then_some(every),
        keep_days: lake.keep_days.clone(),
    })
}

/// A lake may be written as a folder or as a URL.
pub fn url(text: &str) -> Result<Url, String> {
    if let Ok(url) = Url::parse(text) {
        return match url.scheme() {
            "file" | "s3" | "s3a" | "gs" | "az" | "abfs" | "abfss" => Ok(url),
            other => Err(format!(
                "lake {text:?}: a folder, or a URL that begins with s3://, gs:// or abfss:// is wanted, not \
                 {other}://"
            )),
        };
    }
    place::folder_url(Path::new(text)).map_err(|cause| format!("lake {cause}"))
}
