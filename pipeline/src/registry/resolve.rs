//! Schemas by id, with everything they refer to, fetched once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aion_schemas::decode::SchemaId;

use super::{Error, Reference, Registry, Schema, SchemaKind, SubjectVersion, transport::Call};

/// How deep references may be nested, and how many schemas one may pull in.
pub(super) const DEPTH: usize = 16;
pub(super) const SCHEMAS: usize = 64;
/// How long "there is none" is believed: a record that names a wrong id is asked for at each try.
const MISSING: Duration = Duration::from_secs(5);
/// How many ids that aren't there are remembered: they come from payloads, so anybody can make them.
const MISSING_IDS: usize = 1_000;

/// A schema that records were written with, and everything that it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterSchema {
    /// Its id.
    pub id: SchemaId,
    /// Its language.
    pub kind: SchemaKind,
    /// Its text.
    pub text: String,
    /// The texts of the schemas that it refers to, directly or through others: each once, and after
    /// those that it refers to itself.
    pub dependencies: Vec<String>,
}

/// What was learned of ids.
#[derive(Debug, Default)]
pub(super) struct Known {
    ids: Mutex<Ids>,
}

#[derive(Debug, Default)]
struct Ids {
    found: HashMap<SchemaId, Arc<WriterSchema>>,
    missing: HashMap<SchemaId, (Instant, Error)>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: SchemaId, now: Instant) -> Option<Result<Arc<WriterSchema>, Error>> {
        let ids = self.lock();
        if let Some(found) = ids.found.get(&id) {
            return Some(Ok(Arc::clone(found)));
        }
        let (since, error) = ids.missing.get(&id)?;
        (now.duration_since(*since) < MISSING).then(|| Err(error.clone()))
    }

    fn put(&self, id: SchemaId, fetched: &Result<Arc<WriterSchema>, Error>, now: Instant) {
        let mut ids = self.lock();
        match fetched {
            Ok(schema) => {
                ids.missing.remove(&id);
                ids.found.insert(id, Arc::clone(schema));
            }
            Err(error @ Error::NotFound { .. }) => {
                if ids.missing.len() >= MISSING_IDS {
                    ids.missing.clear();
                }
                ids.missing.insert(id, (now, error.clone()));
            }
            Err(_) => {}
        }
    }
}

impl Registry {
    /// The schema of an id, with everything that it refers to. Asked once and then kept; that there
    /// is none is believed for a few seconds.
    pub async fn schema(&self, id: SchemaId) -> Result<Arc<WriterSchema>, Error> {
        match self.known.get(id, Instant::now()) {
            Some(known) => known,
            None => self.schema_anew(id).await,
        }
    }

    /// The same for who counts how long there has been none: that is asked for each time.
    pub async fn schema_anew(&self, id: SchemaId) -> Result<Arc<WriterSchema>, Error> {
        if let Some(found @ Ok(_)) = self.known.get(id, Instant::now()) {
            return found;
        }
        let fetched = self.fetch(id).await.map(Arc::new);
        self.known.put(id, &fetched, Instant::now());
        fetched
    }

    /// Under which subjects and versions the schema of an id is registered, or was until somebody deleted
    /// that version: the events that were written by it still stand in the topic.
    pub async fn versions_of(&self, id: SchemaId) -> Result<Vec<SubjectVersion>, Error> {
        let id = id.0.to_string();
        let call = Call::get(&["schemas", "ids", &id, "versions"]);
        self.transport.send(call.query("deleted", true)).await
    }

    async fn fetch(&self, id: SchemaId) -> Result<WriterSchema, Error> {
        let number = id.0.to_string();
        let schema: Schema = self.transport.send(Call::get(&["schemas", "ids", &number])).await?;
        let dependencies = self.dependencies(&schema).await?;
        Ok(WriterSchema { id, kind: schema.kind, text: schema.text, dependencies })
    }

    /// The texts of the schemas that one refers to, directly or through others: each once, and after
    /// those that it refers to itself.
    pub async fn dependencies(&self, schema: &Schema) -> Result<Vec<String>, Error> {
        let mut texts = Vec::new();
        let mut seen = HashSet::new();
        let mut stack = Vec::new();
        enter(&mut stack, schema.references.clone(), 1);
        while let Some(visit) = stack.pop() {
            let (reference, depth) = match visit {
                Visit::Leave(text) => {
                    texts.push(text);
                    continue;
                }
                Visit::Enter(reference, depth) => (reference, depth),
            };
            if !seen.insert((reference.subject.clone(), reference.version)) {
                continue;
            }
            if depth > DEPTH || seen.len() > SCHEMAS {
                let Reference { subject, version, .. } = reference;
                return Err(Error::References { subject, version });
            }
            let schema = self.any_version(&reference.subject, reference.version).await?.schema;
            stack.push(Visit::Leave(schema.text));
            enter(&mut stack, schema.references, depth + 1);
        }
        Ok(texts)
    }
}

/// A step of the walk through references, which is depth first without recursion.
enum Visit {
    Enter(Reference, usize),
    Leave(String),
}

fn enter(stack: &mut Vec<Visit>, references: Vec<Reference>, depth: usize) {
    stack.extend(references.into_iter().rev().map(|reference| Visit::Enter(reference, depth)));
}
