//! `aion dead-letters`: look at records that could not become rows, send them again, and let a partition go on
//! that stopped since there were too many of them.
//!
//! | module | what it is |
//! |---|---|
//! | `letters`, `fate` | the dead letters that were asked for, and what has become of each |
//! | `list`, `show` | for people and programs to look at |
//! | `retry` | sends originals to the topics of retries |
//! | `accept` | tells the job of a partition to go on |
//!
//! **Invariant:** nothing here changes a table or a mark: that is the jobs' alone.

mod accept;
mod columns;
mod fate;
mod letters;
mod list;
mod retry;
mod show;

use std::process::ExitCode;

use crate::{audit::Since, config::LogConfig, logging};

/// The arguments of `aion dead-letters`.
#[derive(Debug, clap::Args)]
pub struct DeadLettersCommand {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// List them, latest first, each with its reason and what has become of it.
    List(list::ListArgs),
    /// Show one: why it was rejected, every try, and the record itself.
    Show(show::ShowArgs),
    /// Send records again, once the reason is gone: each lands once, however often it is sent.
    Retry(retry::RetryArgs),
    /// Let a partition go on that stopped since too much of it was rejected.
    Accept(accept::AcceptArgs),
}

/// Which dead letters.
#[derive(Debug, Default, clap::Args)]
struct Filter {
    /// An SQL condition on the columns of table `dead_letters`, such as `reason = 'unknown_schema'`.
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    /// Those of one job.
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
    /// Those that were rejected since: a time in RFC 3339, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
}

/// Runs `aion dead-letters`.
pub fn run(command: &DeadLettersCommand) -> anyhow::Result<ExitCode> {
    logging::start(&LogConfig { filter: "error".into(), ..LogConfig::default() })?;
    match &command.task {
        Task::List(args) => list::run(args),
        Task::Show(args) => show::run(args),
        Task::Retry(args) => retry::run(args),
        Task::Accept(args) => accept::run(args).map(|()| ExitCode::SUCCESS),
    }
}
