//! The command line: one enum, one `match`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    audit::{self, AuditArgs},
    commands::{
        bootstrap::{self, BootstrapArgs},
        clickhouse::{self, ClickHouseCommand},
        dead_letters::{self, DeadLettersCommand},
        dev::{self, DevArgs},
        diverged::{self, DivergedCommand},
        export::{self, ExportCommand},
        generate::{self, GenerateArgs},
        keys::{self, KeysCommand},
        lake::{self, LakeCommand},
        run, schemas,
        sql::{self, SqlArgs},
        sql_server::{self, SqlServerArgs},
        tap::{self, TapArgs},
        validate::{self, ValidateArgs},
        webhooks::{self, WebhooksCommand},
    },
    exit::{self, Exit},
    publish::{self, PublishArgs},
};

/// Event streams of AION: Kafka topics into a lake, exactly once per offset, and SQL over it.
#[derive(Debug, Parser)]
#[command(name = "aion", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole platform on this machine: broker, topics, events, jobs, lake.
    Dev(DevArgs),
    /// Run the jobs of a configuration against a Kafka cluster.
    Run(RunArgs),
    /// Say whether a configuration can be used, and which guarantee each job can give with it.
    Validate(ValidateArgs),
    /// Give a Kafka cluster its topics, their settings and who may do what: prints the plan, changes
    /// only what differs, deletes nothing.
    Bootstrap(BootstrapArgs),
    /// Make believable events, to standard output or a broker.
    Generate(GenerateArgs),
    /// Send events, one JSON object a line on standard input, each held against the contract before.
    Publish(PublishArgs),
    /// Show the records of a topic, decoded, with how they are written; undecodable ones with the reason.
    Tap(TapArgs),
    /// Ask the lake in SQL: one query, a file, or a prompt.
    Sql(SqlArgs),
    /// Answer questions about a lake to many readers, over HTTP and PostgreSQL's protocol, without a broker.
    SqlServer(SqlServerArgs),
    /// Prove that the lake, and ClickHouse, have every record of the logs once: offset by offset, or say what is wrong.
    Audit(AuditArgs),
    /// Records that could not become rows: look at them, send them again, let a partition go on.
    DeadLetters(DeadLettersCommand),
    /// Settle what becomes of stored rows whose records the log has lost.
    Diverged(DivergedCommand),
    /// Events sent to others over HTTP: how that goes, try it, deliver once more, stop it.
    Webhooks(WebhooksCommand),
    /// Make a training export: rows of a time interval as Parquet, with a manifest that proves them; or prove one.
    Export(ExportCommand),
    /// API keys and tokens for the access policy.
    Keys(KeysCommand),
    /// Look after a lake: how its tables stand, compaction, retention, vacuum.
    Lake(LakeCommand),
    /// Look after the tables of a ClickHouse database: what they lack, adding it, filling old breaks.
    #[command(name = "clickhouse")]
    ClickHouse(ClickHouseCommand),
    /// Work with the contract: topics and schemas.
    Schemas {
        #[command(subcommand)]
        command: schemas::SchemasCommand,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file; `aion.toml` in the repository is a commented example.
    #[arg(long, value_name = "FILE", default_value = "aion.toml")]
    config: PathBuf,
}

/// Runs the process's command line to its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Dev(args) => dev::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => run::run(&args.config).map(|()| ExitCode::SUCCESS),
        Command::Validate(args) => validate::run(&args),
        Command::Bootstrap(args) => bootstrap::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Generate(args) => generate::run(args).map(|()| ExitCode::SUCCESS),
        Command::Publish(args) => publish::run(args),
        Command::Tap(args) => tap::run(args).map(|()| ExitCode::SUCCESS),
        Command::Sql(args) => sql::run(args),
        Command::SqlServer(args) => sql_server::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Audit(args) => audit::run(args),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Diverged(command) => diverged::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Webhooks(command) => webhooks::run(&command),
        Command::Export(command) => export::run(&command),
        Command::Keys(command) => keys::run(&command),
        Command::Lake(command) => lake::run(&command).map(|()| ExitCode::SUCCESS),
        Command::ClickHouse(command) => clickhouse::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Schemas { command } => schemas::run(command).map(|()| ExitCode::SUCCESS),
    };
    aion_analytics::engine::clear_temporary_files();
    outcome.unwrap_or_else(|error| {
        eprintln!("aion: {error:#}");
        Exit::into(exit::code_of(&error))
    })
}

#[cfg(test)]
mod tests;
