//! `aion sql`: ask the lake, with one query, a file, a pipe, or a prompt.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | every statement and command was answered, or whoever read the output has seen enough |
//! | 1 | one of them failed; those after it were not tried |
//! | 2 | the command line is wrong |
//! | 3 | there is no lake to open |
//!
//! **Invariant:** what was stored comes from outside: on a terminal none of its characters can do
//! more than be seen.

mod answering;
mod command;
pub(crate) mod format;
mod pager;
mod prompt;
mod remote;
mod shell;

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use aion_analytics::{Engine, Settings};
use anyhow::Context;
use url::Url;

pub use self::format::Format;
use self::{
    answering::Answering,
    remote::Remote,
    shell::{Outcome, Shell},
};
use crate::{
    args::lake::LakeArgs,
    config::secret,
    data_folder::{self, running_broker, running_http, running_registry},
    exit::{Exit, Failure},
    exports, live_sql, log_ends, place,
    platform::open_registry,
    registry, storage,
};

/// The arguments of `aion sql`.
#[derive(Debug, clap::Args)]
pub struct SqlArgs {
    /// The query; several are separated by `;`. Without it standard input is read, or a prompt
    /// opens.
    #[arg(allow_hyphen_values = true)] // a comment may come first
    query: Option<String>,
    /// Run the statements of a file; `-` is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "query")]
    file: Option<PathBuf>,
    /// How answers are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    lake: LakeArgs,
    /// A running process to ask, such as `http://127.0.0.1:8080`; that of a running `aion dev` is found
    /// by itself.
    #[arg(long, value_name = "URL", conflicts_with_all = ["stored", "lake"])]
    url: Option<String>,
    /// A key of that process: `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "REFERENCE", requires = "url")]
    key: Option<String>,
    /// Only what is stored, also where a process runs that has more.
    #[arg(long)]
    stored: bool,
    /// With stored rows, a broker to ask for the ends of the logs, for table `lag`; that of a running
    /// `aion dev` is found by itself.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// With stored rows, memory that a query may use, such as 512MiB (the default) or 4GiB; beyond it
    /// large sorts and joins go to disk.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<usize>,
    /// With stored rows, temporary files that a query may use, such as 50GiB; 10GiB without it.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    spill: Option<usize>,
    /// With stored rows, seconds that a query may take; 600 without it.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// Where statements come from.
enum Source {
    Text(String),
    Prompt,
}

/// Runs `aion sql`.
#[expect(clippy::needless_pass_by_value, reason = "a command owns its arguments")]
pub fn run(args: SqlArgs) -> anyhow::Result<ExitCode> {
    let terminal = io::stdout().is_terminal();
    match answer(&args, io::stdout(), terminal)? {
        Outcome::Answered => Ok(ExitCode::SUCCESS),
        Outcome::Failed => Ok(Exit::Failed.into()),
    }
}

fn answer(args: &SqlArgs, out: impl Write, terminal: bool) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime of the prompt")?;
    let answering = runtime.block_on(open(args))?;
    if terminal && args.query.is_some() && matches!(answering, Answering::Here(_)) {
        eprintln!("aion: {}", answering.rows_are());
    }
    let mut shell = Shell::new(answering, out, args.format, terminal);
    let outcome = match source(args)? {
        Source::Text(text) => runtime.block_on(shell.run(&text)),
        Source::Prompt => prompt::run(&mut shell, &runtime),
    };
    match outcome {
        // `| head` has what it wanted.
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::Answered),
        outcome => outcome.context("print the answer"),
    }
}

fn source(args: &SqlArgs) -> anyhow::Result<Source> {
    if let Some(query) = &args.query {
        return Ok(Source::Text(query.clone()));
    }
    if let Some(file) = args.file.as_deref().filter(|file| *file != Path::new("-")) {
        let text = fs::read_to_string(file).map_err(|cause| {
            Failure::new(Exit::Usage, format!("read {}: {cause}", file.display()))
        })?;
        return Ok(Source::Text(text));
    }
    if args.file.is_none() && io::stdin().is_terminal() {
        return Ok(Source::Prompt);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("read statements from standard input")?;
    Ok(Source::Text(text))
}

/// A running process where there is one, else the lake.
async fn open(args: &SqlArgs) -> anyhow::Result<Answering> {
    let found = || running_http(&args.lake.data).filter(|_| args.lake.lake.is_none());
    let running = args.url.clone().or_else(|| found().filter(|_| !args.stored));
    let Some(url) = running else { return open_lake(args).map(Box::new).map(Answering::Here) };
    let bounds = [args.memory.is_some(), args.spill.is_some(), args.timeout.is_some()];
    if args.kafka.is_some() || bounds.contains(&true) {
        let what = format!(
            "the process at {url} has bounds and a broker of its own; --stored asks the lake alone, with these"
        );
        return Err(Failure::new(Exit::Usage, what).into());
    }
    let key = args.key.as_deref().map(secret::required).transpose();
    let key = key.map_err(|cause| Failure::new(Exit::Usage, format!("--key: {cause}")))?;
    Ok(Answering::There(Box::new(Remote::open(&url, key).await?)))
}

fn open_lake(args: &SqlArgs) -> anyhow::Result<Engine> {
    let mut settings = Settings::new(args.lake.url()?, Arc::new(args.lake.catalog()?));
    settings.lake_options = storage::from_environment();
    settings.memory_bytes = args.memory.unwrap_or(settings.memory_bytes);
    settings.spill_bytes = args.spill.map_or(settings.spill_bytes, |bytes| bytes as u64);
    settings.deadline = args.timeout.map_or(settings.deadline, Duration::from_secs);
    let running = || running_broker(&args.lake.data).filter(|_| args.lake.lake.is_none());
    settings.ends = args.kafka.clone().or_else(running).as_deref().map(log_ends::of_broker);
    // A data folder has its exports too; of a lake alone nobody knows where they are.
    if args.lake.lake.is_none() {
        let place = place::folder_url(&data_folder::exports(&args.lake.data));
        let place = place.map_err(|cause| Failure::new(Exit::Data, cause))?;
        settings.exports = live_sql::exports_of(Some(&exports::service::Settings::at(place)))?;
        let registry = running_registry(&args.lake.data).and_then(|url| Url::parse(&url).ok());
        let registry = registry.map(|url| open_registry(&registry::Settings::new(vec![url])));
        let told = |registry| registry::told::of(registry, &settings.catalog);
        settings.registered = registry.transpose()?.map(told);
    }
    let opened = Engine::open(settings);
    Ok(opened.map_err(|cause| Failure::new(Exit::Data, cause.to_string()))?)
}

/// Reads a size such as `512MiB`, `4G` or a plain number of bytes.
fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("{unit:?} is no unit of size; write KiB, MiB or GiB")),
    };
    let number: usize = number.parse().map_err(|_| "write a number, such as 512MiB".to_owned())?;
    let bytes = number.checked_mul(1 << shift).ok_or("that is more than there can be")?;
    if bytes < 1 << 20 {
        return Err("a query needs 1MiB at least".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
