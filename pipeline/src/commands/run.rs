//! `aion run`: the jobs of a configuration, until a signal.

use std::path::Path;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::{config::Config, http, logging, platform::Platform, signals};

/// Runs until SIGINT or SIGTERM, or until every job has stopped for good.
pub fn run(config: &Path) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    logging::start(&config.log)?;
    signals::run(async {
        let shutdown = CancellationToken::new();
        signals::listen(shutdown.clone()).context("listen for signals")?;
        let listener = http::bind(config.http).await?;
        tracing::info!(
            brokers = config.kafka.brokers,
            lake = %config.lake.url,
            http = %config.http,
            jobs = config.jobs.len(),
            "started"
        );
        let platform = Platform::start(config, listener, &shutdown, None).await?;
        platform.ended().await?;
        tracing::info!("stopped with everything written");
        Ok(())
    })
}
