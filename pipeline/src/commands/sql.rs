//! `aion sql`: ask the lake, with one query, a file, a pipe, or a prompt.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | every statement was answered, or whoever read the output has seen enough |
//! | 1 | a statement failed; those after it were not tried |
//! | 2 | the command line is wrong |
//! | 3 | there is no lake to open |
//!
//! **Invariant:** what was stored comes from outside: on a terminal none of its characters can do
//! more than be seen.

mod command;
mod ends;
pub(crate) mod format;
mod prompt;
mod shell;

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use aion_analytics::{Engine, Settings, statements};
use anyhow::Context;

pub use self::format::Format;
use self::shell::{Outcome, Shell};
use crate::{
    args::lake::LakeArgs,
    data_folder::running_broker,
    exit::{Exit, Failure},
    storage,
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
    /// A broker to ask for the ends of the logs, for table `lag`; that of a running `aion dev` is
    /// found by itself.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Memory that a query may use, such as 512MiB or 4GiB; beyond it large sorts and joins go to
    /// disk.
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = bytes)]
    memory: usize,
    /// Seconds that a query may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
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
    let engine = open(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime of the prompt")?;
    let mut shell = Shell::new(engine, out, args.format, terminal);
    let outcome = match source(args)? {
        Source::Text(text) => runtime.block_on(shell.run(statements::split(&text).all())),
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

fn open(args: &SqlArgs) -> anyhow::Result<Engine> {
    let mut settings = Settings::new(args.lake.url()?, Arc::new(args.lake.catalog()?));
    settings.lake_options = storage::from_environment();
    settings.memory_bytes = args.memory;
    settings.deadline = Duration::from_secs(args.timeout);
    let running = || running_broker(&args.lake.data).filter(|_| args.lake.lake.is_none());
    settings.ends = args.kafka.clone().or_else(running).as_deref().map(ends::of_broker);
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
