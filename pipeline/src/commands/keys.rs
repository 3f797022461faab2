//! `aion keys`: what the people and services of an access policy identify themselves with.

mod new;
mod token;

use std::process::ExitCode;

/// The arguments of `aion keys`.
#[derive(Debug, clap::Args)]
pub struct KeysCommand {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Make an API key: shown once, with the lines that let its holder in by policies/access.yaml.
    New(new::NewArgs),
    /// Make a token (HS256) as an issuer of the policy would, to try one out.
    Token(token::TokenArgs),
}

/// Runs `aion keys`.
pub fn run(command: &KeysCommand) -> anyhow::Result<ExitCode> {
    match &command.task {
        Task::New(args) => new::run(args),
        Task::Token(args) => token::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}
