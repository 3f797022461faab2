//! The schemas of the topics in a registry: what differs, subject by subject, and how it is brought
//! about.
//!
//! Each topic that producers write has a subject, `<topic>-value`, with the topic's Avro mirror and
//! the level `BACKWARD_TRANSITIVE`: a new version reads what was written with every earlier one.

use std::{fmt, path::Path};

use aion_schemas::{
    catalog::{Catalog, Topic},
    compatibility::Level,
    schema::NAMESPACE,
};

use tokio::runtime::{self, Runtime};

use crate::{
    commands::sr_cli,
    exit::{Exit, Failure},
    registry::{Error, Registry, Schema, found},
};

/// The level that every subject has, if not a stricter one.
const LEVEL: Level = Level::BackwardTransitive;

/// One thing that the catalog asks of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaStep {
    /// The subject lacks the schema.
    Register {
        /// The subject.
        subject: String,
        /// The schema's name in the catalog.
        name: String,
        /// The schema.
        schema: Schema,
    },
    /// The subject has another level.
    Level {
        /// The subject.
        subject: String,
        /// Its level now; none of its own.
        from: Option<Level>,
    },
    /// The subject has the schema and the level.
    Unchanged {
        /// The subject.
        subject: String,
        /// The version that the schema is.
        version: u32,
        /// The schema's id.
        id: u32,
    },
    /// The schema can't read what was written with an earlier version: it won't be registered.
    Incompatible {
        /// The subject.
        subject: String,
        /// Why, field by field.
        conflicts: Vec<String>,
    },
}

impl SchemaStep {
    /// Whether carrying it out changes the registry.
    pub fn changes(&self) -> bool {
        matches!(self, SchemaStep::Register { .. } | SchemaStep::Level { .. })
    }

    /// The word for it at the beginning of a line.
    pub fn verb(&self) -> &'static str {
        match self {
            SchemaStep::Register { .. } => "create",
            SchemaStep::Level { .. } => "alter",
            SchemaStep::Unchanged { .. } => "unchanged",
            SchemaStep::Incompatible { .. } => "differs",
        }
    }
}

impl fmt::Display for SchemaStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaStep::Register { subject, name, .. } => write!(f, "schema {subject}: {name}"),
            SchemaStep::Level { subject, from: Some(from) } => {
                write!(f, "schema {subject}: compatibility {from} -> {LEVEL}")
            }
            SchemaStep::Level { subject, from: None } => {
                write!(f, "schema {subject}: compatibility={LEVEL}")
            }
            SchemaStep::Unchanged { subject, version, id } => {
                write!(f, "schema {subject}: version={version} id={id}")
            }
            SchemaStep::Incompatible { subject, conflicts } => {
                write!(f, "schema {subject}: can't be registered")?;
                conflicts.iter().try_for_each(|conflict| write!(f, "\n          {conflict}"))
            }
        }
    }
}

/// Compares the registry with the catalog. Changes nothing.
pub async fn plan(registry: &Registry, catalog: &Catalog) -> Result<Vec<SchemaStep>, Error> {
    let mut steps = Vec::new();
    for topic in catalog.topics.iter().filter(|topic| !topic.internal) {
        steps.extend(differences(registry, topic).await?);
    }
    Ok(steps)
}

async fn differences(registry: &Registry, topic: &Topic) -> Result<Vec<SchemaStep>, Error> {
    let subject = topic.subject();
    let schema = Schema::avro(topic.schema.avro_text(NAMESPACE));
    let from = found(registry.level(Some(&subject)).await)?;
    // A stricter level asks for more than this one, and nothing less.
    let level = (!matches!(from, Some(Level::BackwardTransitive | Level::FullTransitive)))
        .then(|| SchemaStep::Level { subject: subject.clone(), from });
    let name = topic.schema.name.to_string();
    let register =
        || SchemaStep::Register { subject: subject.clone(), name, schema: schema.clone() };
    if found(registry.versions(&subject, false).await)?.is_none() {
        // The schema first: some registries have no level for a subject that isn't there.
        return Ok([Some(register()), level].into_iter().flatten().collect());
    }
    if let Some(known) = found(registry.lookup(&subject, &schema, false).await)? {
        let (version, id) = (known.version, known.id);
        let unchanged = level.is_none().then_some(SchemaStep::Unchanged { subject, version, id });
        return Ok([level, unchanged].into_iter().flatten().collect());
    }
    let conflicts = registry.conflicts(&subject, None, LEVEL, &schema).await?.unwrap_or_default();
    let step = if conflicts.is_empty() {
        register()
    } else {
        let conflicts = conflicts.iter().map(ToString::to_string).collect();
        SchemaStep::Incompatible { subject: subject.clone(), conflicts }
    };
    Ok([level, Some(step)].into_iter().flatten().collect())
}

/// Does one step.
pub async fn carry_out(registry: &Registry, step: &SchemaStep) -> Result<(), Error> {
    match step {
        SchemaStep::Register { subject, schema, .. } => {
            registry.register(subject, schema, false).await.map(drop)
        }
        SchemaStep::Level { subject, .. } => registry.set_level(Some(subject), LEVEL).await,
        SchemaStep::Unchanged { .. } | SchemaStep::Incompatible { .. } => Ok(()),
    }
}

/// What `aion bootstrap` is to do in a registry.
pub(super) struct Schemas {
    runtime: Runtime,
    registry: Registry,
    pub(super) steps: Vec<SchemaStep>,
}

impl Schemas {
    /// None where no registry is named, neither by a file of properties nor by its URL.
    pub(super) fn plan(
        config: Option<&Path>,
        url: Option<&str>,
        catalog: &Catalog,
    ) -> anyhow::Result<Option<Schemas>> {
        if url.is_none() && config.is_none() {
            return Ok(None);
        }
        let failure = |error: Error| {
            let exit = match error {
                Error::Refused { .. } | Error::Configuration(_) => Exit::Usage,
                _ => Exit::Failed,
            };
            Failure::new(exit, error.to_string())
        };
        let settings = sr_cli::settings(config, url)?;
        let registry = Registry::open(&settings).map_err(failure)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let steps = runtime.block_on(plan(&registry, catalog)).map_err(failure)?;
        Ok(Some(Schemas { runtime, registry, steps }))
    }

    /// Counts what was changed, and what could not be.
    pub(super) fn carry_out(&self) -> (usize, usize) {
        let (mut changed, mut failed) = (0, 0);
        for step in self.steps.iter().filter(|step| step.changes()) {
            match self.runtime.block_on(carry_out(&self.registry, step)) {
                Ok(()) => changed += 1,
                Err(error) => {
                    failed += 1;
                    eprintln!("aion: {} {step}: {error}", step.verb());
                }
            }
        }
        (changed, failed)
    }
}
