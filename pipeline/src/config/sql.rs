//! `[sql]`: what questions may use, and where PostgreSQL's clients are answered.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::mib;
use crate::place;

/// What questions may use.
#[derive(Clone, Debug)]
pub struct SqlConfig {
    /// Memory that all queries together may hold; beyond it sorts and joins go to disk.
    pub memory_bytes: usize,
    /// Temporary files that all queries together may hold.
    pub spill_bytes: u64,
    /// How long one may take.
    pub timeout: Duration,
    /// So many run at a time.
    pub queries: usize,
    /// The longest answer over HTTP, in rows.
    pub max_rows: u64,
    /// Where PostgreSQL's clients are answered; nowhere without it.
    pub postgres: Option<SocketAddr>,
}

/// The section as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SqlFile {
    memory_mib: usize,
    spill_mib: usize,
    timeout_s: u64,
    queries: usize,
    max_rows: u64,
    postgres: Option<String>,
}

impl Default for SqlFile {
    fn default() -> SqlFile {
        SqlFile {
            memory_mib: 256,
            spill_mib: 10 << 10,
            timeout_s: 300,
            queries: 8,
            max_rows: 1_000_000,
            postgres: None,
        }
    }
}

impl Default for SqlConfig {
    /// What holds where nothing is said.
    fn default() -> SqlConfig {
        let file = SqlFile::default();
        SqlConfig {
            memory_bytes: file.memory_mib << 20,
            spill_bytes: (file.spill_mib as u64) << 20,
            timeout: Duration::from_secs(file.timeout_s),
            queries: file.queries,
            max_rows: file.max_rows,
            postgres: None,
        }
    }
}

/// Checks the section.
pub(super) fn check(file: SqlFile) -> Result<SqlConfig, String> {
    for (key, value) in [
        ("timeout_s", file.timeout_s),
        ("queries", file.queries as u64),
        ("max_rows", file.max_rows),
    ] {
        if value == 0 {
            return Err(format!("sql.{key}: a whole number above 0 is wanted"));
        }
    }
    Ok(SqlConfig {
        memory_bytes: mib("sql.memory_mib", file.memory_mib)?,
        spill_bytes: mib("sql.spill_mib", file.spill_mib)? as u64,
        timeout: Duration::from_secs(file.timeout_s),
        queries: file.queries,
        max_rows: file.max_rows,
        postgres: file.postgres.as_deref().map(postgres).transpose()?,
    })
}

fn postgres(text: &str) -> Result<SocketAddr, String> {
    let address = place::address(text).map_err(|cause| format!("sql.postgres: {cause}"))?;
    if !address.ip().is_loopback() {
        return Err(format!("sql.postgres {address}: only addresses of this machine are served"));
    }
    Ok(address)
}
