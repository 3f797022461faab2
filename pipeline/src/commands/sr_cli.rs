//! `sr-cli`: schemas in a registry, by hand and in scripts.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done; compatible; no difference |
//! | 1 | failed: a file can't be read, or the registry says no for another reason than those below |
//! | 2 | wrong command line or properties; nothing was asked |
//! | 3 | the schemas don't go together (`check`, `register`), or differ (`diff`) |
//! | 4 | the registry has no such subject, version, schema or level |
//! | 5 | the registry refuses the account |
//! | 6 | no registry answers: try again later |

mod commands;
mod diff;
mod properties;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use aion_schemas::compatibility::Level;
use clap::{Args, Parser, Subcommand};

use crate::{
    exit::{Exit, Failure, code_of},
    registry::{Error, Reference, Registry, SchemaKind, Settings, Version},
};

/// Schemas in a registry: register them, compare them, look at them.
#[derive(Debug, Parser)]
#[command(name = "sr-cli", version, max_term_width = 100)]
struct Cli {
    /// Properties of the registry, as Confluent's tools have them: schema.registry.url,
    /// basic.auth.user.info, schema.registry.ssl.*. A value may be `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The registry, in place of the file's; several with commas.
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    url: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register a schema; nothing changes where the subject has it already.
    Register {
        #[command(flatten)]
        schema: SchemaArgs,
        /// Register the schema in its normal form: full names, sorted keys.
        #[arg(long)]
        normalize: bool,
    },
    /// Would it be registered? Names each field that stands in the way.
    Check {
        #[command(flatten)]
        schema: SchemaArgs,
        /// Compare with this version only.
        #[arg(long, value_name = "N|latest", value_parser = version)]
        version: Option<Version>,
    },
    /// Print a schema: of a subject, or by its id.
    Get {
        /// The subject.
        #[arg(long, required_unless_present = "id", conflicts_with = "id")]
        subject: Option<String>,
        /// Its version.
        #[arg(long, value_name = "N|latest", default_value = "latest", value_parser = version)]
        version: Version,
        /// The schema's id.
        #[arg(long, value_name = "N")]
        id: Option<u32>,
    },
    /// Print the subjects, or the versions of one with their ids.
    List {
        /// The subject.
        #[arg(long)]
        subject: Option<String>,
        /// Also what is softly deleted.
        #[arg(long)]
        deleted: bool,
    },
    /// Delete a subject or one version: softly, which keeps its id readable.
    Delete {
        /// The subject.
        #[arg(long)]
        subject: String,
        /// This version only.
        #[arg(long, value_name = "N|latest", value_parser = version)]
        version: Option<Version>,
        /// For good: records that were written with it can't be read any more.
        #[arg(long)]
        permanent: bool,
    },
    /// Print or set the compatibility level, of one subject or of all that have none of their own.
    Config {
        /// The subject.
        #[arg(long)]
        subject: Option<String>,
        /// Set this level: NONE, or BACKWARD, FORWARD, FULL, each also with _TRANSITIVE.
        #[arg(long, value_name = "LEVEL")]
        set: Option<Level>,
        /// Take the subject's own level away.
        #[arg(long, requires = "subject", conflicts_with = "set")]
        clear: bool,
    },
    /// Print what differs between a version and a file, or two versions; exit code 3 if anything does.
    Diff {
        /// The subject.
        #[arg(long)]
        subject: String,
        /// The older one.
        #[arg(long, value_name = "N|latest", default_value = "latest", value_parser = version)]
        version: Version,
        /// The newer one: a file.
        #[arg(long, value_name = "FILE", required_unless_present = "with")]
        schema: Option<PathBuf>,
        /// The newer one: another version.
        #[arg(long, value_name = "N|latest", value_parser = version, conflicts_with = "schema")]
        with: Option<Version>,
    },
}

/// A schema in a file, and the subject that it is for.
#[derive(Debug, Args)]
struct SchemaArgs {
    /// The subject: by custom the topic's name and -value.
    #[arg(long)]
    subject: String,
    /// The schema's file.
    #[arg(long, value_name = "FILE")]
    schema: PathBuf,
    /// Its language.
    #[arg(long = "type", value_name = "avro|json|protobuf", default_value = "avro", value_parser = kind)]
    kind: SchemaKind,
    /// A schema that it uses by name; may be repeated.
    #[arg(long = "reference", value_name = "NAME=SUBJECT:VERSION", value_parser = reference)]
    references: Vec<Reference>,
}

fn version(text: &str) -> Result<Version, &'static str> {
    match text.parse() {
        _ if text == "latest" => Ok(Version::Latest),
        Ok(number @ 1..) => Ok(Version::Number(number)),
        _ => Err("a number from 1 on, or latest"),
    }
}

fn kind(text: &str) -> Result<SchemaKind, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "avro" => Ok(SchemaKind::Avro),
        "json" => Ok(SchemaKind::Json),
        "protobuf" => Ok(SchemaKind::Protobuf),
        _ => Err("known are avro, json, protobuf"),
    }
}

fn reference(text: &str) -> Result<Reference, &'static str> {
    const FORM: &str = "a reference is NAME=SUBJECT:VERSION";
    let (name, target) = text.split_once('=').ok_or(FORM)?;
    let (subject, version) = target.rsplit_once(':').ok_or(FORM)?;
    let version = version.parse().map_err(|_| FORM)?;
    Ok(Reference { name: name.to_owned(), subject: subject.to_owned(), version })
}

/// What a command found, where it isn't simply done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Incompatible, or different.
    Differs,
}

/// Runs the process's command line to its exit code.
pub fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Differs) => ExitCode::from(3),
        Err(error) => {
            eprintln!("sr-cli: {error:#}");
            ExitCode::from(match error.downcast_ref::<Error>() {
                Some(Error::NotFound { .. }) => 4,
                Some(Error::Refused { .. }) => 5,
                Some(Error::Unavailable { .. }) => 6,
                Some(Error::Configuration(_)) => Exit::Usage as u8,
                Some(Error::Rejected { .. } | Error::References { .. }) => Exit::Failed as u8,
                None => code_of(&error) as u8,
            })
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Outcome> {
    let settings = settings(cli.config.as_deref(), cli.url.as_deref())?;
    let registry = Registry::open(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(commands::run(&registry, &cli.command))
}

/// The settings of a file of properties, with the URLs in place of the file's where they are given.
pub fn settings(config: Option<&Path>, urls: Option<&str>) -> Result<Settings, Failure> {
    let mut settings =
        config.map_or_else(|| Ok(Settings::new(Vec::new())), properties::settings)?;
    if let Some(urls) = urls {
        let urls = urls.split(',').map(|url| Settings::url(url.trim()));
        settings.urls = urls.collect::<Result<_, _>>().map_err(|error| usage(error.to_string()))?;
    }
    Ok(settings)
}

fn usage(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, what)
}
