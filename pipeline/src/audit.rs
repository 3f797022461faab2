//! `aion audit`: the proof that nothing was lost and nothing doubled, from the log and the lake, and ClickHouse where a
//! configuration has it.
//!
//! Per topic id and partition every offset from the log's start to the lake's mark gets one fate
//! (`account`), and the partition one of three verdicts: exact, wrong with the offsets, not provable
//! with the reason. `docs/audit.md` says how to read it.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | all exact |
//! | 7 | something is wrong |
//! | 8 | nothing is wrong, and something can't be proven |
//!
//! **Invariant:** it shares no code with the path that it judges beyond readers: it has a consumer
//! of its own without a group, and asks the stores by SQL.
//! **Invariant:** it writes nowhere.
//! **Invariant:** its memory is bounded by windows of offsets, whatever the number of rows; only dead
//! letters are held as a whole, compressed, two bytes each or less.

mod account;
mod both;
mod digest;
mod house;
mod judge;
mod kafka;
mod ledger;
mod look;
mod progress;
mod report;
mod retries;
pub(crate) mod schedule;
mod scope;
mod since;
mod stored;
mod table;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

pub use self::{
    account::Wrong,
    report::{Counts, Report, TopicReport, Verdict},
    schedule::{Audits, Last},
    since::{Since, now},
};
use self::{progress::Progress, scope::Scope};
use crate::{args::kafka::KafkaArgs, config::LogConfig, exit::Exit, logging};

/// The arguments of `aion audit`.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// The configuration of the jobs to audit: it says where Kafka, the lake and ClickHouse are.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "lake", "brokers", "catalog", "client_config", "properties"])]
    config: Option<PathBuf>,
    /// Data folder of a running `aion dev`: its broker and its lake are audited.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// The lake itself: a folder, or a URL.
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    lake: Option<String>,
    /// The brokers, several with commas.
    #[arg(long = "kafka", value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// Folder with catalog.toml and schemas; the built-in contract without it.
    #[arg(long, value_name = "DIR")]
    catalog: Option<PathBuf>,
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Topic to audit, by its name or its table's; may be repeated [default: all]
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only what was appended since: a time in RFC 3339, or how long ago, such as 2h
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Offsets that are compared at a time: tests make windows small
    #[arg(long, hide = true, value_name = "OFFSETS", default_value_t = judge::WINDOW,
          value_parser = clap::value_parser!(i64).range(1..=1 << 30))]
    window: i64,
    /// One JSON object on standard output in place of the table
    #[arg(long)]
    json: bool,
}

/// Runs `aion audit`.
#[expect(clippy::needless_pass_by_value, reason = "a command owns its arguments")]
pub fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let scopes = Scope::of(&args)?;
    logging::start(&LogConfig { filter: "warn".into(), ..LogConfig::default() })?;
    let progress = Progress::on_terminal();
    let report = both::audit(&scopes, &progress, &CancellationToken::new())
        .inspect_err(|_| progress.ends())?;
    match print(&report, args.json) {
        // `| head` has what it wanted; the exit code says the rest.
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed.context("print the report")?,
    }
    Ok(match report.verdict {
        Verdict::Exact => ExitCode::SUCCESS,
        Verdict::Wrong => Exit::Wrong.into(),
        Verdict::NotProvable => Exit::NotProvable.into(),
    })
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
    } else {
        table::print(report, &mut out)?;
    }
    out.flush()
}
