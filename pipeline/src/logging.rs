//! Log lines: text for people, JSON for machines, and a status line that they don't run into.

use std::{
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use indicatif::ProgressBar;
use tracing_subscriber::{
    EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{
    config::{LogConfig, LogFormat},
    exit::{Exit, Failure},
};

/// The status line that is on the terminal, if any: log lines are printed above it.
static STATUS_LINE: OnceLock<ProgressBar> = OnceLock::new();

/// What others' crates say at `info` is what ours say at `debug`. A filter that names them wins.
const QUIET: &str = "delta_kernel=warn,delta_kernel_default_engine=warn,librdkafka=warn";

/// Starts logging to standard error. The environment variable `AION_LOG` goes before the filter.
pub fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter = std::env::var("AION_LOG").unwrap_or_else(|_| config.filter.clone());
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|cause| Failure::new(Exit::Usage, format!("log filter {filter:?}: {cause}")))?;
    let registry = tracing_subscriber::registry().with(filter);
    let text = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(AboveStatusLine);
    let started = match config.format {
        LogFormat::Text => registry.with(text).try_init(),
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().with_writer(AboveStatusLine))
            .try_init(),
    };
    started.map_err(|cause| anyhow::anyhow!("start logging: {cause}"))
}

/// From now on log lines are printed above this line.
pub fn keep_above(line: ProgressBar) {
    // A second line in one process would be a mistake of the caller; the first one stays.
    drop(STATUS_LINE.set(line));
}

#[derive(Clone, Copy, Debug)]
struct AboveStatusLine;

impl Write for AboveStatusLine {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match STATUS_LINE.get() {
            Some(line) => line.suspend(|| io::stderr().write(text)),
            None => io::stderr().write(text),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for AboveStatusLine {
    type Writer = AboveStatusLine;

    fn make_writer(&self) -> AboveStatusLine {
        *self
    }
}
