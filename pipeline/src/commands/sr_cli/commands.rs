//! What each command asks and prints. Results go to standard output, the rest to standard error.

use std::{fs, path::Path};

use aion_schemas::compatibility::Level;
use anyhow::Context;

use super::{Command, Outcome, SchemaArgs, diff, usage};
use crate::registry::{Error, Registry, Schema, Verdict, Version};

pub(super) async fn run(registry: &Registry, command: &Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Register { schema, normalize } => register(registry, schema, *normalize).await,
        Command::Check { schema, version } => check(registry, schema, *version).await,
        Command::Get { subject, version, id } => match (subject, id) {
            (Some(subject), _) => get(registry, subject, *version).await,
            (None, Some(id)) => get_id(registry, *id).await,
            (None, None) => Err(usage("give --subject or --id").into()),
        },
        Command::List { subject, deleted } => list(registry, subject.as_deref(), *deleted).await,
        Command::Delete { subject, version, permanent } => {
            delete(registry, subject, *version, *permanent).await
        }
        Command::Config { subject, set, clear } => {
            config(registry, subject.as_deref(), *set, *clear).await
        }
        Command::Diff { subject, version, schema, with } => {
            let old = registry.version(subject, *version).await?;
            let (new, name) = match (schema, with) {
                (Some(path), _) => (text(path)?, path.display().to_string()),
                (None, with) => {
                    let new = registry.version(subject, with.unwrap_or(Version::Latest)).await?;
                    (new.schema.text, format!("version {}", new.version))
                }
            };
            let (old_name, old) = (format!("{subject} version {}", old.version), old.schema.text);
            diff::print((&old_name, &old), (&name, &new))
        }
    }
}

fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read schema {}", path.display()))
}

fn read(args: &SchemaArgs) -> anyhow::Result<Schema> {
    let text = text(&args.schema)?;
    Ok(Schema { text, kind: args.kind, references: args.references.clone() })
}

async fn register(
    registry: &Registry,
    args: &SchemaArgs,
    normalize: bool,
) -> anyhow::Result<Outcome> {
    let (schema, subject) = (read(args)?, &args.subject);
    let file = || args.schema.display().to_string();
    match registry.lookup(subject, &schema, normalize).await {
        Ok(known) => {
            println!("unchanged {subject} version {} id {}", known.version, known.id);
            return Ok(Outcome::Done);
        }
        Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(error).with_context(file),
    }
    match registry.register(subject, &schema, normalize).await {
        Ok(id) => {
            let known = registry.lookup(subject, &schema, normalize).await?;
            println!("registered {subject} version {} id {}", known.version, id.0);
            Ok(Outcome::Done)
        }
        Err(Error::Rejected { status: 409, message, .. }) => {
            incompatible(registry, args, None, vec![message]).await
        }
        Err(error) => Err(error).with_context(file),
    }
}

async fn check(
    registry: &Registry,
    args: &SchemaArgs,
    version: Option<Version>,
) -> anyhow::Result<Outcome> {
    let (schema, subject) = (read(args)?, &args.subject);
    if version.is_none() {
        // Registries differ in what they say of a subject that isn't there.
        match registry.versions(subject, false).await {
            Err(Error::NotFound { .. }) => {
                println!("{subject} has no version yet: anything goes together with it");
                return Ok(Outcome::Done);
            }
            other => other?,
        };
    }
    let level = level_of(registry, subject).await?;
    // Without a version some registries compare with all of them, whatever the level.
    let last = (!level.is_transitive()).then_some(Version::Latest);
    let asked = registry.check(subject, version.or(last), &schema).await;
    let verdict = match asked {
        // Some can't compare a schema that has references: then it is compared here.
        Err(Error::Rejected { code: 42201, .. }) if !schema.references.is_empty() => {
            let conflicts = registry.conflicts(subject, version, level, &schema).await?;
            conflicts.map(|found| Verdict { is_compatible: found.is_empty(), messages: Vec::new() })
        }
        _ => None,
    };
    let verdict = match verdict {
        Some(verdict) => verdict,
        None => asked.with_context(|| args.schema.display().to_string())?,
    };
    if verdict.is_compatible {
        println!("compatible with {subject} ({level})");
        return Ok(Outcome::Done);
    }
    incompatible(registry, args, version, verdict.messages).await
}

/// Says field by field why, in the registry's own words only where ours are none.
async fn incompatible(
    registry: &Registry,
    args: &SchemaArgs,
    version: Option<Version>,
    messages: Vec<String>,
) -> anyhow::Result<Outcome> {
    let (schema, subject) = (read(args)?, &args.subject);
    let level = level_of(registry, subject).await?;
    let conflicts = registry.conflicts(subject, version, level, &schema).await?;
    let mut lines: Vec<String> = conflicts.iter().flatten().map(ToString::to_string).collect();
    if lines.is_empty() {
        lines = messages;
    }
    println!("{} is incompatible with {subject} ({level}):", args.schema.display());
    for line in lines {
        println!("  {line}");
    }
    Ok(Outcome::Differs)
}

/// The level that holds for a subject.
async fn level_of(registry: &Registry, subject: &str) -> Result<Level, Error> {
    match registry.level(Some(subject)).await {
        Err(Error::NotFound { .. }) => registry.level(None).await,
        other => other,
    }
}

async fn get(registry: &Registry, subject: &str, version: Version) -> anyhow::Result<Outcome> {
    let found = registry.version(subject, version).await?;
    eprintln!("{subject} version {} id {} ({})", found.version, found.id, found.schema.kind);
    print_schema(&found.schema.text);
    Ok(Outcome::Done)
}

async fn get_id(registry: &Registry, id: u32) -> anyhow::Result<Outcome> {
    let id = aion_schemas::decode::SchemaId(id);
    let schema = registry.schema(id).await?;
    for place in registry.versions_of(id).await? {
        eprintln!("{} version {} id {} ({})", place.subject, place.version, id.0, schema.kind);
    }
    print_schema(&schema.text);
    Ok(Outcome::Done)
}

/// A schema as it was registered, with an end of line.
fn print_schema(text: &str) {
    println!("{}", text.trim_end());
}

async fn list(
    registry: &Registry,
    subject: Option<&str>,
    deleted: bool,
) -> anyhow::Result<Outcome> {
    let Some(subject) = subject else {
        for subject in registry.subjects(deleted).await? {
            println!("{subject}");
        }
        return Ok(Outcome::Done);
    };
    for number in registry.versions(subject, deleted).await? {
        let found = registry.any_version(subject, number).await?;
        println!("version {number} id {} ({})", found.id, found.schema.kind);
    }
    Ok(Outcome::Done)
}

async fn delete(
    registry: &Registry,
    subject: &str,
    version: Option<Version>,
    permanent: bool,
) -> anyhow::Result<Outcome> {
    let versions = match version {
        Some(version) => vec![registry.delete_version(subject, version, permanent).await?],
        None => registry.delete_subject(subject, permanent).await?,
    };
    let numbers: Vec<String> = versions.iter().map(ToString::to_string).collect();
    let how = if permanent { "deleted for good" } else { "deleted softly" };
    println!("{how}: {subject} version {}", numbers.join(", "));
    Ok(Outcome::Done)
}

async fn config(
    registry: &Registry,
    subject: Option<&str>,
    set: Option<Level>,
    clear: bool,
) -> anyhow::Result<Outcome> {
    let name = subject.unwrap_or("all subjects without a level of their own");
    if let Some(level) = set {
        registry.set_level(subject, level).await?;
    }
    if let (true, Some(subject)) = (clear, subject) {
        registry.clear_level(subject).await?;
    }
    match registry.level(subject).await {
        Ok(level) => println!("{name}: {level}"),
        Err(Error::NotFound { .. }) if subject.is_some() => {
            println!("{name}: none of its own; {} holds", registry.level(None).await?);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Outcome::Done)
}
