//! `aion clickhouse`: the tables of a ClickHouse database, as the contract wants them.

use std::path::PathBuf;

use aion_schemas::{
    catalog::Environment,
    clickhouse::{Statement, Table, of_topic},
};
use aion_sinks::clickhouse::{ClickHouse, plan::Change};
use anyhow::Context;

use crate::{
    config::Config,
    exit::{Exit, Failure},
    platform::sink_failure,
};

/// The arguments of `aion clickhouse`.
#[derive(Debug, clap::Args)]
pub struct ClickHouseCommand {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Say how the tables differ from the contract's, and change nothing.
    Plan(Where),
    /// Add what is missing: database, tables, columns, indexes, constraints. What would take away or
    /// change stored rows is explained, and left to you.
    Apply(Where),
}

/// Which database.
#[derive(Debug, clap::Args)]
struct Where {
    /// The configuration file; its [clickhouse] says where.
    #[arg(long, value_name = "FILE", default_value = "aion.toml")]
    config: PathBuf,
}

/// Runs `aion clickhouse`.
pub fn run(command: &ClickHouseCommand) -> anyhow::Result<()> {
    let (Task::Plan(given) | Task::Apply(given)) = &command.task;
    let config = Config::load(&given.config)?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(work(&config, matches!(command.task, Task::Apply(_))))
}

async fn work(config: &Config, applies: bool) -> anyhow::Result<()> {
    let Some(clickhouse) = &config.clickhouse else {
        let what = "the configuration has no [clickhouse]: add one with its url";
        return Err(Failure::new(Exit::Usage, what).into());
    };
    let house = ClickHouse::new(clickhouse.server.clone()).map_err(|cause| sink_failure(&cause))?;
    let topics = &config.catalog.topics;
    let tables: Vec<Table> = topics.iter().map(|topic| clickhouse.table(topic)).collect();
    let database = &clickhouse.server.database;
    // The statements of a topic are its table, then what stands on it.
    let of = |topic| of_topic(topic, database, Environment::Prod, None).into_iter().skip(1);
    let views: Vec<Statement> = topics.iter().flat_map(of).collect();
    let changes = house.plan(&tables, &views).await.map_err(|cause| sink_failure(&cause))?;
    if changes.is_empty() {
        println!("database {database} is as the contract wants it");
        return Ok(());
    }
    for change in &changes {
        if applies && change.adds {
            house.apply(change).await.map_err(|cause| sink_failure(&cause))?;
        }
        println!("{}", line(change, applies));
    }
    if !applies && changes.iter().any(|change| change.adds) {
        println!("\n`aion clickhouse apply` does what is marked with +");
    }
    Ok(())
}

/// A change for people.
fn line(change: &Change, applied: bool) -> String {
    let Change { object, what, sql, adds } = change;
    match (adds, sql) {
        (true, _) if applied => format!("added  {object}: {what}"),
        (true, _) => format!("+ {object}: {what}"),
        (false, None) => format!("! {object}: {what}"),
        (false, Some(sql)) => format!("! {object}: {what}; by hand: {sql}"),
    }
}
