//! `aion export`: makes a training export, plans one for another engine, or proves one. The twin of `/v1/exports`: the same ids, the same files.
//!
//! The last line on standard output is how the export stands, as JSON; all else goes to standard error.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | it is there; or, without `--wait`, it will be made |
//! | 1 | it can't be made, or, of `verify`, it isn't what its manifest says |
//! | 75 | not now: its interval isn't complete, or something can't be reached; try again later |
//! | 99 | it is there and has no rows |

mod verify;

use std::{
    collections::BTreeSet,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use aion_analytics::exports::request::{Asked, Interval, Layout, Split};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use self::verify::VerifyArgs;
use crate::{
    args::lake,
    config::{Config, LogConfig},
    data_folder::{self, running_broker, running_registry},
    exit::{Exit, Failure},
    exports::{
        journal::State,
        service::{Exports, How, Refusal, Settings, Status, Stores},
    },
    logging, place,
    registry::{self, Registry},
    signals, storage,
};

/// How often progress is shown.
const SHOW: Duration = Duration::from_secs(1);

/// The arguments of `aion export`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ExportCommand {
    #[command(subcommand)]
    task: Option<Task>,
    #[command(flatten)]
    args: ExportArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Prove an export: its files against its manifest, and its rows against the store.
    Verify(VerifyArgs),
    /// Print what another engine needs to make an export of the lake: SQL for Spark, and what goes into the manifest.
    Plan(PlanArgs),
}

/// Which exports.
#[derive(Debug, clap::Args)]
struct PlaceArgs {
    /// A configuration: it says where exports go, and where Kafka and the stores are.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// Data folder of a running `aion dev`.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
}

#[derive(Debug, clap::Args)]
struct PlanArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    asked: AskedArgs,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Which store is read: `lake`, or `clickhouse`.
    #[arg(long, value_name = "STORE")]
    source: Option<String>,
    #[command(flatten)]
    asked: AskedArgs,
    /// Make it here, unless another process does, and wait until it is there.
    #[arg(long)]
    wait: bool,
    /// Take it though its interval isn't complete, and wait for that.
    #[arg(long)]
    wait_for_close: bool,
    /// Make it again though it is there.
    #[arg(long)]
    force: bool,
    /// Write how it stands to this file as well.
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
}

/// What is asked for.
#[derive(Debug, clap::Args)]
struct AskedArgs {
    /// The table, such as `decisions`, or `router_training`.
    #[arg(long, value_name = "NAME", required = true)]
    dataset: Option<String>,
    /// From then on, in RFC 3339.
    #[arg(long, value_name = "TIME", required = true)]
    start: Option<String>,
    /// Up to then, not included.
    #[arg(long, value_name = "TIME", required = true)]
    end: Option<String>,
    /// So many seconds after the end an event may still arrive [default: 300].
    #[arg(long, value_name = "SECONDS")]
    lateness: Option<u32>,
    /// For `router_training`: so many seconds after a decision its outcome counts [default: 3600].
    #[arg(long, value_name = "SECONDS")]
    horizon: Option<u32>,
    /// Only decisions of this privacy tier; may be repeated. Without it, of all that the policy lets out.
    #[arg(long = "tier", value_name = "TIER")]
    tiers: Vec<String>,
    /// Of events with the same `event_id` only the first that arrived.
    #[arg(long)]
    deduplicate: bool,
    /// For `router_training`: how tasks are divided; another number divides otherwise [default: 0].
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Rows in a file, at most.
    #[arg(long, value_name = "ROWS")]
    rows_per_file: Option<u32>,
    /// A folder for each UTC day.
    #[arg(long)]
    by_date: bool,
}

/// Runs `aion export`.
pub fn run(command: &ExportCommand) -> anyhow::Result<ExitCode> {
    logging::start(&LogConfig { filter: "warn".into(), ..LogConfig::default() })?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    match &command.task {
        Some(Task::Verify(args)) => runtime.block_on(verify::run(args)),
        Some(Task::Plan(args)) => runtime.block_on(plan(args)),
        None => runtime.block_on(make(&command.args)),
    }
}

async fn make(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let shutdown = CancellationToken::new();
    signals::listen(shutdown.clone()).context("listen for signals")?;
    let exports = args.place.open().await?;
    let how =
        How { wait_for_close: args.wait_for_close, force: args.force, source: args.source.clone() };
    let (_, mut status) = match exports.ask(&asked(&args.asked), &how).await {
        Ok(taken) => taken,
        Err(refused) => return Ok(refusal(&refused)),
    };
    if args.wait {
        let (exports, making) = exports.start_one(&status.id, &shutdown);
        let waited = wait(&exports, status, &shutdown).await;
        shutdown.cancel();
        // What it has begun and somebody else has made, it takes away.
        making.await.context("the task of the export broke")?;
        status = waited?;
    }
    let line = serde_json::to_string(&status).context("write how it stands")?;
    if let Some(path) = &args.result {
        std::fs::write(path, &line).with_context(|| format!("write {}", path.display()))?;
    }
    println!("{line}");
    Ok(code(&status))
}

async fn plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let exports = args.place.open().await?;
    match exports.plan(&asked(&args.asked)).await {
        Err(refused) => Ok(refusal(&refused)),
        Ok(plan) => {
            println!("{}", serde_json::to_string_pretty(&plan).context("write the plan")?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Shows progress until it has come to an end.
async fn wait(
    exports: &Arc<Exports>,
    mut status: Status,
    shutdown: &CancellationToken,
) -> anyhow::Result<Status> {
    let bar = ProgressBar::new(0);
    let style = "{spinner} {msg} {human_pos} of {human_len} rows {wide_bar} {eta}";
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let is_terminal = std::io::stderr().is_terminal();
    let mut said = String::new();
    while !status.state.is_over() {
        if shutdown.is_cancelled() {
            let what = format!(
                "stopped; export {} is queued and goes on where one waits for it",
                status.id
            );
            return Err(Failure::new(Exit::TryAgain, what).into());
        }
        if let Some(far) = &status.progress {
            bar.set_length(far.total.unwrap_or(0));
            bar.set_position(far.rows);
            bar.set_message(far.phase.clone());
            if !is_terminal && said != far.phase {
                said.clone_from(&far.phase);
                eprintln!("{}: {said}", status.id);
            }
        }
        let found = exports.wait(&status.id, SHOW).await?;
        status = found.with_context(|| format!("export {} was removed", status.id))?;
    }
    bar.finish_and_clear();
    Ok(status)
}

fn code(status: &Status) -> ExitCode {
    match status.state {
        State::Succeeded if status.rows == Some(0) => Exit::NoData.into(),
        State::Succeeded | State::Queued | State::Running => ExitCode::SUCCESS,
        State::Failed if status.error.as_ref().is_some_and(|error| error.retryable) => {
            Exit::TryAgain.into()
        }
        State::Failed | State::Cancelled => Exit::Failed.into(),
    }
}

fn refusal(refused: &Refusal) -> ExitCode {
    eprintln!("aion: {refused}");
    match refused {
        Refusal::Wrong(_) | Refusal::Failed(_) => Exit::Failed.into(),
        Refusal::Open(_) | Refusal::Unavailable(_) => Exit::TryAgain.into(),
    }
}

fn asked(args: &AskedArgs) -> Asked {
    let layout = Layout::default();
    // Those are required where there is no subcommand.
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Asked {
        dataset: text(&args.dataset),
        interval: Interval { start: text(&args.start), end: text(&args.end) },
        lateness_s: args.lateness,
        horizon_s: args.horizon,
        tiers: (!args.tiers.is_empty())
            .then(|| args.tiers.iter().cloned().collect::<BTreeSet<_>>()),
        deduplicate: args.deduplicate,
        split: args.seed.map(|seed| Split { seed, ..Split::default() }),
        layout: Layout {
            rows_per_file: args.rows_per_file.unwrap_or(layout.rows_per_file),
            rows_per_group: args.rows_per_file.unwrap_or(u32::MAX).min(layout.rows_per_group),
            by_date: args.by_date,
        },
    }
}

impl PlaceArgs {
    /// Opens the exports that the command line says.
    async fn open(&self) -> anyhow::Result<Exports> {
        let (settings, stores) = match &self.config {
            Some(path) => of_config(path)?,
            None => of_dev(&self.data)?,
        };
        Exports::open(settings, stores).await
    }
}

fn of_config(path: &Path) -> anyhow::Result<(Settings, Stores)> {
    let config = Config::load(path)?;
    let settings = config.exports.clone().ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{} has no [exports]: give it a url", path.display()))
    })?;
    let registry = config.registry.as_ref().map(|one| Registry::open(&one.settings));
    let stores = Stores::of(&config, registry.transpose()?.map(Arc::new))?;
    Ok((settings, stores))
}

fn of_dev(data: &Path) -> anyhow::Result<(Settings, Stores)> {
    let brokers = running_broker(data).ok_or_else(|| {
        let data = data.display();
        let what = format!(
            "no broker runs on {data}: start `aion dev --data {data}` in another terminal, or name a configuration with --config"
        );
        Failure::new(Exit::Usage, what)
    })?;
    let url =
        |path: PathBuf| place::folder_url(&path).map_err(|cause| Failure::new(Exit::Data, cause));
    let settings = Settings::to_try(url(data_folder::exports(data))?);
    let registry = running_registry(data).and_then(|url| url::Url::parse(&url).ok());
    let registry = registry.map(|url| Registry::open(&registry::Settings::new(vec![url])));
    let registry = registry.transpose()?.map(Arc::new);
    let stores = Stores {
        lake: url(data.join("lake"))?,
        lake_options: storage::from_environment(),
        clickhouse: None,
        catalog: Arc::new(lake::catalog(None)?),
        connection: aion_kafka::Connection::to(brokers),
        registry,
    };
    Ok((settings, stores))
}
