//! `aion lake`: look after a lake, also while jobs write to it.

use std::io::{IsTerminal, Write};

use aion_schemas::catalog::{Catalog, Topic};
use aion_sinks::{
    lake::{
        Lake,
        upkeep::{Compaction, Status, Swept, Upkeep},
    },
    sink::SinkError,
};
use anyhow::Context;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use crate::{
    args::lake::LakeArgs,
    exit::{Exit, Failure},
    platform::table_spec,
    storage,
};

/// The arguments of `aion lake`.
#[derive(Debug, clap::Args)]
pub struct LakeCommand {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Say how tables stand: version, files, rows, dates.
    Status {
        #[command(flatten)]
        tables: Tables,
        /// Print JSON, an object a line.
        #[arg(long)]
        json: bool,
    },
    /// Make few large files of many small ones; the rows stay the same.
    Compact {
        #[command(flatten)]
        tables: Tables,
        /// How large files should be.
        #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
        target_mib: u32,
        /// Leave a date alone that has fewer small files.
        #[arg(long, value_name = "N", default_value_t = 4)]
        min_files: usize,
    },
    /// Take rows out whose event date is older than so many days. Their bytes go with `vacuum`.
    Retention {
        #[command(flatten)]
        tables: Tables,
        /// The days to keep, today included.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        keep_days: u32,
    },
    /// Write a checkpoint, so that readers replay a shorter log.
    Checkpoint {
        #[command(flatten)]
        tables: Tables,
    },
    /// Remove files that no version within the table's retention uses (a week, unless the table says otherwise),
    /// and entries of its log that a checkpoint has stood for as long.
    Vacuum {
        #[command(flatten)]
        tables: Tables,
        /// Count what would go, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which tables.
#[derive(Debug, clap::Args)]
struct Tables {
    #[command(flatten)]
    lake: LakeArgs,
    /// A table; may be repeated. All that there are without it.
    #[arg(long = "table", value_name = "NAME")]
    named: Vec<String>,
}

/// Runs `aion lake`.
pub fn run(command: &LakeCommand) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(work(&command.task))
}

async fn work(task: &Task) -> anyhow::Result<()> {
    let tables = match task {
        Task::Status { tables, .. }
        | Task::Compact { tables, .. }
        | Task::Retention { tables, .. }
        | Task::Checkpoint { tables }
        | Task::Vacuum { tables, .. } => tables,
    };
    let mut opened = tables.open().await?;
    match task {
        Task::Status { json, .. } => status(&mut opened, *json).await,
        Task::Compact { target_mib, min_files, .. } => {
            let target_bytes = u64::from(*target_mib) << 20;
            compact(&mut opened, &Compaction { target_bytes, min_files: *min_files }).await
        }
        Task::Retention { keep_days, .. } => {
            for (name, table) in &mut opened {
                let files = table.expire(*keep_days).await.map_err(failure)?;
                say(&format!("{name}: {files} files older than {keep_days} days taken out"))?;
            }
            Ok(())
        }
        Task::Checkpoint { .. } => {
            for (name, table) in &mut opened {
                let version = table.checkpoint().await.map_err(failure)?;
                say(&format!("{name}: checkpoint of version {version}"))?;
            }
            Ok(())
        }
        Task::Vacuum { dry_run, .. } => {
            for (name, table) in &mut opened {
                let files = table.vacuum(*dry_run).await.map_err(failure)?;
                let entries = table.clean_log(*dry_run).await.map_err(failure)?;
                say(&swept(name, files, entries, *dry_run))?;
            }
            Ok(())
        }
    }
}

impl Tables {
    /// The tables that are there; one that was named and isn't is an error.
    async fn open(&self) -> anyhow::Result<Vec<(String, Upkeep)>> {
        let (url, catalog) = (self.lake.url()?, self.lake.catalog()?);
        let lake = Lake::open(&url, &storage::from_environment()).map_err(failure)?;
        let mut opened = Vec::new();
        for topic in self.topics(&catalog)? {
            match lake.upkeep(table_spec(topic)).await.map_err(failure)? {
                Some(upkeep) => opened.push((topic.table.to_string(), upkeep)),
                None if self.named.is_empty() => {}
                None => {
                    let message = format!("there is no table {} in the lake at {url}", topic.table);
                    return Err(Failure::new(Exit::Data, message).into());
                }
            }
        }
        Ok(opened)
    }

    fn topics<'a>(&self, catalog: &'a Catalog) -> Result<Vec<&'a Topic>, Failure> {
        if self.named.is_empty() {
            return Ok(catalog.topics.iter().collect());
        }
        let known = |name: &String| {
            catalog.table(name).ok_or_else(|| {
                let tables: Vec<&str> = catalog.topics.iter().map(|topic| &*topic.table).collect();
                let message = format!("no table is named {name}; there are {}", tables.join(", "));
                Failure::new(Exit::Usage, message)
            })
        };
        self.named.iter().map(known).collect()
    }
}

async fn status(tables: &mut [(String, Upkeep)], json: bool) -> anyhow::Result<()> {
    if !json {
        let (files, rows) = ("files", "rows");
        say(&format!(
            "{:<20} {:>8} {:>10} {files:>7} {:>6} {:>11} {rows:>14}  dates",
            "table", "version", "checkpoint", "small", "size"
        ))?;
    }
    for (name, table) in tables {
        let status = table.status().await.map_err(failure)?;
        say(&if json { as_json(name, &status) } else { as_line(name, &status) })?;
    }
    Ok(())
}

fn as_line(name: &str, status: &Status) -> String {
    let checkpoint = match status.checkpoint {
        -1 => "none".to_owned(),
        version => version.to_string(),
    };
    let rows = status.rows.map_or("unknown".to_owned(), |rows| HumanCount(rows).to_string());
    let dates = match &status.dates {
        Some((first, last)) if first == last => first.clone(),
        Some((first, last)) => format!("{first} to {last}"),
        None => "no rows".to_owned(),
    };
    format!(
        "{name:<20} {:>8} {checkpoint:>10} {:>7} {:>6} {:>11} {rows:>14}  {dates}",
        status.version,
        status.files,
        status.small_files,
        HumanBytes(status.bytes).to_string(),
    )
}

fn as_json(name: &str, status: &Status) -> String {
    let dates = status.dates.as_ref();
    serde_json::json!({
        "table": name,
        "version": status.version,
        "checkpoint": (status.checkpoint >= 0).then_some(status.checkpoint),
        "files": status.files,
        "small_files": status.small_files,
        "bytes": status.bytes,
        "rows": status.rows,
        "first_date": dates.map(|dates| &dates.0),
        "last_date": dates.map(|dates| &dates.1),
    })
    .to_string()
}

async fn compact(tables: &mut [(String, Upkeep)], worth: &Compaction) -> anyhow::Result<()> {
    let is_watched = std::io::stderr().is_terminal();
    for (name, table) in tables {
        let bar = if is_watched { ProgressBar::new(0) } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} new files")?);
        bar.set_prefix(name.clone());
        let told = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        let done = table.compact(worth, told).await;
        bar.finish_and_clear();
        let done = done.map_err(failure)?;
        let line = format!("{name}: {} files became {}", done.removed, done.added);
        let line = match done.given_up {
            0 => line,
            groups => format!("{line}; {groups} groups were being changed by others, run it again"),
        };
        say(&line)?;
    }
    Ok(())
}

fn swept(name: &str, files: Swept, entries: Swept, dry: bool) -> String {
    let done = if dry { "would go" } else { "removed" };
    let (bytes, more) = (HumanBytes(files.bytes), HumanBytes(entries.bytes));
    format!(
        "{name}: {} files ({bytes}) and {} of the log ({more}) {done}",
        files.files, entries.files
    )
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("print")
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn failure(cause: SinkError) -> Failure {
    let exit = match cause {
        SinkError::Retry { .. } | SinkError::Waits { .. } => Exit::Failed,
        SinkError::Fatal { .. } => Exit::Guarantee,
    };
    Failure::new(exit, cause.to_string())
}
