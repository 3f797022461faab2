//! `[exports]`: where training exports go, and what they may use.

use std::{collections::BTreeMap, path::PathBuf};

use aion_sinks::store::StoreOptions;
use serde::Deserialize;

use super::{lake_url, mib};
use crate::{exports::service::Settings, storage};

/// `[exports]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportsFile {
    url: String,
    #[serde(default)]
    storage: BTreeMap<String, toml::Value>,
    policy: Option<PathBuf>,
    at_a_time: Option<usize>,
    keep_days: Option<u32>,
    memory_mib: Option<usize>,
    spill_mib: Option<usize>,
}

/// Checks it; without options of its own its object store is reached like the lake's.
pub(super) fn check(file: ExportsFile, lake: &StoreOptions) -> Result<Settings, String> {
    let url = lake_url(&file.url).map_err(|cause| format!("exports.url: {cause}"))?;
    let defaults = Settings::at(url);
    let at_a_time = file.at_a_time.unwrap_or(defaults.at_a_time);
    if !(1..=64).contains(&at_a_time) {
        return Err("exports.at_a_time: between 1 and 64 is wanted".to_owned());
    }
    if file.keep_days == Some(0) {
        return Err("exports.keep_days: a day is the least".to_owned());
    }
    let options = if file.storage.is_empty() {
        lake.clone()
    } else {
        storage::options(&file.storage)
            .map_err(|cause| cause.replace("lake.storage", "exports.storage"))?
    };
    let bytes = |key, given: Option<usize>| given.map(|value| mib(key, value)).transpose();
    let memory_bytes = bytes("exports.memory_mib", file.memory_mib)?;
    let spill_bytes = bytes("exports.spill_mib", file.spill_mib)?;
    Ok(Settings {
        options,
        policy: file.policy,
        at_a_time,
        keep_days: file.keep_days,
        memory_bytes: memory_bytes.unwrap_or(defaults.memory_bytes),
        spill_bytes: spill_bytes.map_or(defaults.spill_bytes, |bytes| bytes as u64),
        ..defaults
    })
}
