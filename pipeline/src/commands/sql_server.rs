//! `aion sql-server`: what is stored in a lake, for many readers, without jobs and without a broker.
//!
//! It needs `[lake]` of the configuration and serves what `[http]` and `[sql]` say, with table `exports` where `[exports]`
//! is there, and registered schemas where `[registry]` is; the file may be that of `aion run`. Any number of these may read
//! one lake, beside the processes that write it.

use std::{path::PathBuf, sync::Arc};

use aion_analytics::Tail;
use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::{
    access::Access,
    config::ReaderConfig,
    http::{self, sql::Sql},
    live_sql::{self, serve_postgres},
    log_ends, logging,
    platform::open_registry,
    registry::told,
    signals,
};

/// The arguments of `aion sql-server`.
#[derive(Debug, clap::Args)]
pub struct SqlServerArgs {
    /// The configuration file; `aion.toml` in the repository is a commented example.
    #[arg(long, value_name = "FILE", default_value = "aion.toml")]
    config: PathBuf,
}

/// Runs until SIGINT or SIGTERM.
pub fn run(args: &SqlServerArgs) -> anyhow::Result<()> {
    let config = ReaderConfig::load(&args.config)?;
    logging::start(&config.log)?;
    signals::run(serve(config))
}

async fn serve(config: ReaderConfig) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    signals::listen(shutdown.clone()).context("listen for signals")?;
    let listener = http::bind(config.http).await?;
    let access = Access::start(config.access, &config.commands, shutdown.clone()).await?;
    let settings = live_sql::settings(&config.lake, &config.catalog, &config.sql, Tail::default());
    let registry = config.registry.map(|one| open_registry(&one.settings)).transpose()?;
    let engine = live_sql::open(aion_analytics::Settings {
        ends: config.kafka.map(log_ends::of),
        exports: live_sql::exports_of(config.exports.as_ref())?,
        registered: registry.map(|one| told::of(one, &config.catalog)),
        ..settings
    })?;
    tracing::info!(
        lake = %config.lake.url,
        http = %config.http,
        postgres = config.sql.postgres.as_ref().map(|served| tracing::field::display(served.listen)),
        "started"
    );
    let postgres = match config.sql.postgres {
        Some(served) => Some(serve_postgres(served, Arc::clone(&engine)).await?),
        None => None,
    };
    let pages = (&access, Arc::new(Sql::new(Arc::clone(&engine), config.sql.max_rows)));
    let stop = shutdown.clone();
    let stopped = tokio::spawn(async move {
        stop.cancelled().await;
        live_sql::stop(&engine, postgres).await;
    });
    let served = http::serve_reader((listener, config.http_tls), pages, shutdown.clone()).await;
    // It may have ended by itself.
    shutdown.cancel();
    stopped.await.context("stop to answer")?;
    served.context("serve HTTP")
}
