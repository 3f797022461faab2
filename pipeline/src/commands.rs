//! The subcommands of `aion`, one file or folder each, and the binary `sr-cli`.
//!
//! **Invariant:** nothing outside of this folder and the command line knows a command. What a command shares with
//! the running process, such as the audit or the checks of what is published, is a module of its own beside it.

pub mod bootstrap;
pub mod clickhouse;
pub mod dead_letters;
mod decision;
pub mod dev;
pub mod diverged;
pub mod export;
pub mod generate;
pub mod keys;
pub mod lake;
pub mod run;
pub mod schemas;
pub mod sql;
pub mod sql_server;
pub mod sr_cli;
pub mod tap;
pub mod validate;
pub mod webhooks;
