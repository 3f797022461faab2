//! `aion webhooks`: what an operator asks of webhooks, and asks them to do.
//!
//! Nothing here needs the process that delivers: what it knows stands in Kafka, and what is asked of it goes
//! there, as a record of the control log.
//!
//! | module | what it is |
//! |---|---|
//! | `place` | the policy, the cluster, and what the engine's topics say |
//! | `list`, `status`, `deliveries` | for people and programs to look at |
//! | `test` | one delivery from here, to see whether a receiver is set up |
//! | `replay`, `switch` | records of the control log |

mod deliveries;
mod list;
mod place;
mod replay;
mod status;
mod switch;
mod test;

use std::{io, process::ExitCode, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    error::ArrowError,
};

use crate::{
    commands::sql::format::{Format, Printer},
    config::LogConfig,
    logging,
};

/// The arguments of `aion webhooks`.
#[derive(Debug, clap::Args)]
pub struct WebhooksCommand {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// List the endpoints of the policy; a file that is wrong is refused with line and reason.
    List(list::ListArgs),
    /// How each endpoint stands: what it hasn't got yet, what fails, since when and why.
    Status(status::StatusArgs),
    /// Send one signed test event to an endpoint, from here, and show the answer.
    Test(test::TestArgs),
    /// The last attempts of an endpoint, or of one event.
    Deliveries(deliveries::DeliveriesArgs),
    /// Deliver once more: what was appended in a stretch of time, or dead letters. Ids stay the same.
    Replay(replay::ReplayArgs),
    /// Let an endpoint get what it missed, and what comes.
    Enable(switch::SwitchArgs),
    /// Send an endpoint nothing more until it is enabled again. It misses nothing that its topics keep.
    Disable(switch::SwitchArgs),
}

/// Runs `aion webhooks`.
pub fn run(command: &WebhooksCommand) -> anyhow::Result<ExitCode> {
    logging::start(&LogConfig { filter: "error".into(), ..LogConfig::default() })?;
    match &command.task {
        Task::List(args) => list::run(args),
        Task::Status(args) => status::run(args),
        Task::Test(args) => test::run(args),
        Task::Deliveries(args) => deliveries::run(args),
        Task::Replay(args) => replay::run(args),
        Task::Enable(args) => switch::run(args, true),
        Task::Disable(args) => switch::run(args, false),
    }
}

/// Prints rows of text.
fn print<const N: usize>(
    format: Format,
    names: [&str; N],
    rows: &[[Option<String>; N]],
) -> anyhow::Result<ExitCode> {
    let batch = batch(names, rows)?;
    let out = &mut io::stdout().lock();
    let terminal = io::IsTerminal::is_terminal(&io::stdout());
    let mut printer = Printer::new(out, format, terminal, batch.schema());
    match printer.rows(&batch).and_then(|()| printer.end()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => Err(cause.into()),
        // `| head` has what it wanted.
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn batch<const N: usize>(
    names: [&str; N],
    rows: &[[Option<String>; N]],
) -> Result<RecordBatch, ArrowError> {
    let column = |at: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row[at].as_deref()).collect::<StringArray>())
    };
    RecordBatch::try_from_iter_with_nullable(
        names.iter().enumerate().map(|(at, name)| (*name, column(at), true)),
    )
}
