//! `[sql]`: what questions may use, and where PostgreSQL's clients are answered.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use aion_analytics::postgres::{Access, Users};
use serde::Deserialize;

use super::{mib, secret};
use crate::{http::tls, place};

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
    /// Where PostgreSQL's clients are answered, and which; nowhere without it.
    pub postgres: Option<PostgresConfig>,
}

/// Where PostgreSQL's clients are answered, and which.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// The address.
    pub listen: SocketAddr,
    /// Who may come in, and how.
    pub access: Arc<Access>,
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
    pub(super) postgres: Option<PostgresFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PostgresFile {
    listen: String,
    #[serde(default)]
    users: BTreeMap<String, String>,
    pub(super) certificate: Option<PathBuf>,
    key: Option<PathBuf>,
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
        postgres: file.postgres.map(postgres).transpose()?,
    })
}

fn postgres(file: PostgresFile) -> Result<PostgresConfig, String> {
    let listen = place::address(&file.listen);
    let listen = listen.map_err(|cause| format!("sql.postgres.listen: {cause}"))?;
    let mut users = Users::default();
    for (name, text) in &file.users {
        let added = secret::required(text).and_then(|secret| users.add(name, &secret));
        added.map_err(|cause| format!("sql.postgres.users.{name}: {cause}"))?;
    }
    let access = match (file.certificate, file.key) {
        (None, None) if !listen.ip().is_loopback() => {
            return Err(format!(
                "sql.postgres.listen {listen}: for clients on other machines add users, certificate and key"
            ));
        }
        (None, None) if users.is_empty() => Access::everybody(),
        (None, None) => Access::of(users, None),
        (Some(_), Some(_)) if users.is_empty() => {
            return Err(
                "sql.postgres: a certificate without users lets nobody in; add users".to_owned()
            );
        }
        (Some(certificate), Some(key)) => {
            let config = tls::server(&certificate, &key)
                .map_err(|cause| format!("sql.postgres.certificate: {cause}"))?;
            Access::of(users, Some((*config).clone()))
        }
        _ => return Err("sql.postgres: certificate and key go together; give both".to_owned()),
    };
    Ok(PostgresConfig { listen, access: Arc::new(access) })
}

impl PostgresConfig {
    /// Everybody on this machine.
    pub fn everybody(listen: SocketAddr) -> PostgresConfig {
        PostgresConfig { listen, access: Arc::new(Access::everybody()) }
    }
}
