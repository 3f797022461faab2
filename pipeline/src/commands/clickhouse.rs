//! `aion clickhouse`: the tables of a ClickHouse database, as the contract wants them.

mod repair;

use std::path::PathBuf;

use aion_schemas::{
    catalog::{Catalog, Environment},
    clickhouse::{Statement, Table, of_topic},
};
use aion_sinks::clickhouse::{ClickHouse, plan::Change};
use anyhow::Context;

use crate::{
    config::{ClickHouseConfig, Config},
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
    /// Say which offsets tables had once and have no more, and with --yes have them written again: rows
    /// that a disk lost, and rows that somebody erased. Say which they have more than once, and with --yes
    /// delete the copies.
    Repair(repair::RepairArgs),
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
    let given = match &command.task {
        Task::Plan(given) | Task::Apply(given) => given,
        Task::Repair(args) => &args.place,
    };
    let config = Config::load(&given.config)?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    match &command.task {
        Task::Plan(_) => runtime.block_on(work(&config, false)),
        Task::Apply(_) => runtime.block_on(work(&config, true)),
        Task::Repair(args) => runtime.block_on(repair::run(&config, args)),
    }
}

/// The database of a configuration.
fn database(config: &Config) -> anyhow::Result<(ClickHouse, &ClickHouseConfig)> {
    let Some(clickhouse) = &config.clickhouse else {
        let what = "the configuration has no [clickhouse]: add one with its url";
        return Err(Failure::new(Exit::Usage, what).into());
    };
    let house = ClickHouse::new(clickhouse.server.clone()).map_err(|cause| sink_failure(&cause))?;
    Ok((house, clickhouse))
}

/// Adds what the tables of a configuration lack, if it has any.
pub(crate) async fn make_tables(config: &Config) -> anyhow::Result<()> {
    if config.clickhouse.is_none() {
        return Ok(());
    }
    let (house, clickhouse) = database(config)?;
    let changes = changes(&house, clickhouse, &config.catalog).await?;
    for change in changes.iter().filter(|change| change.adds) {
        house.apply(change).await.map_err(|cause| sink_failure(&cause))?;
    }
    Ok(())
}

/// What differs from the contract.
async fn changes(
    house: &ClickHouse,
    clickhouse: &ClickHouseConfig,
    catalog: &Catalog,
) -> anyhow::Result<Vec<Change>> {
    let topics = &catalog.topics;
    let tables: Vec<Table> = topics.iter().map(|topic| clickhouse.table(topic)).collect();
    let database = &clickhouse.server.database;
    // The statements of a topic are its table, then what stands on it.
    let of = |topic| of_topic(topic, database, Environment::Prod, None).into_iter().skip(1);
    let views: Vec<Statement> = topics.iter().flat_map(of).collect();
    Ok(house.plan(&tables, &views).await.map_err(|cause| sink_failure(&cause))?)
}

async fn work(config: &Config, applies: bool) -> anyhow::Result<()> {
    let (house, clickhouse) = database(config)?;
    let database = &clickhouse.server.database;
    let changes = changes(&house, clickhouse, &config.catalog).await?;
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
