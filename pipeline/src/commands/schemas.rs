//! `aion schemas`: files derived from the contract, written or checked.

use std::path::PathBuf;

use aion_schemas::generate;
use clap::Subcommand;

use crate::{
    exit::{Exit, Failure},
    webhooks::page,
};

/// What can be done with the contract.
#[derive(Debug, Subcommand)]
pub enum SchemasCommand {
    /// Write the files that are derived from `schemas/`: Avro mirrors, tables, docs.
    Generate {
        /// Change nothing; fail when a file isn't what the contract says.
        #[arg(long)]
        check: bool,
        /// The repository's root.
        #[arg(long, value_name = "DIR", default_value = ".")]
        root: PathBuf,
    },
}

/// Runs the command.
pub fn run(command: SchemasCommand) -> anyhow::Result<()> {
    let SchemasCommand::Generate { check, root } = command;
    if check {
        generate::check(&root, page::files)
            .map_err(|drift| Failure::new(Exit::Failed, drift.to_string()))?;
        println!("generated files are current");
        return Ok(());
    }
    for file in generate::write(&root, page::files)? {
        println!("{file}");
    }
    Ok(())
}
