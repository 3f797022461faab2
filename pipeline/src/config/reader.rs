//! What a process needs that only answers questions about a lake: the same file as `aion run`'s, of which
//! what is about jobs may be missing.

use std::{net::SocketAddr, path::Path};

use aion_schemas::{catalog::Catalog, commands::Commands};

use super::{
    LakeConfig, LogConfig, RegistryConfig, SqlConfig, access, catalog, commands, connection,
    exports, file, http_tls, lake, load, registry,
};
use crate::{access::AccessConfig, exports::service::Settings, http::tls::Tls, place};

/// A configuration that was checked.
#[derive(Debug)]
pub struct ReaderConfig {
    /// The topics and schemas.
    pub catalog: Catalog,
    /// Whom to ask for the ends of the logs; nobody without it.
    pub kafka: Option<aion_kafka::Connection>,
    /// Where the lake is.
    pub lake: LakeConfig,
    /// Where `/v1/sql` is served.
    pub http: SocketAddr,
    /// Who may ask there.
    pub access: AccessConfig,
    /// The commands that there are, whose names the policy may have.
    pub commands: Commands,
    /// With which certificate; without one HTTP isn't encrypted.
    pub http_tls: Option<Tls>,
    /// What questions may use, and where PostgreSQL's clients are answered.
    pub sql: SqlConfig,
    /// Where training exports are, for table `exports`; there is none without it.
    pub exports: Option<Settings>,
    /// Whom to ask for registered schemas, for table `schemas`; nobody without it.
    pub registry: Option<RegistryConfig>,
    /// How logs are written.
    pub log: LogConfig,
}

impl ReaderConfig {
    /// Reads and checks a file, with overrides from this process's environment.
    pub fn load(path: &Path) -> anyhow::Result<ReaderConfig> {
        load(path, |text| ReaderConfig::parse(text, std::env::vars()))
    }

    /// Checks the text of a file, with the given environment.
    pub fn parse(
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<ReaderConfig, String> {
        let file = file(text, environment)?;
        let commands = commands(file.catalog.as_deref())?;
        let catalog = catalog(file.catalog.as_deref())?;
        let lake = lake::check(file.lake, &catalog)?;
        Ok(ReaderConfig {
            exports: file.exports.map(|file| exports::check(file, &lake.options)).transpose()?,
            lake,
            catalog,
            kafka: file.kafka.map(connection).transpose()?,
            registry: file.registry.map(registry::check).transpose()?,
            http: place::address(&file.http.listen)
                .map_err(|cause| format!("http.listen: {cause}"))?,
            access: access(&file.http, file.access)?,
            commands,
            http_tls: http_tls(&file.http)?,
            sql: super::sql::check(file.sql)?,
            log: file.log,
        })
    }
}
