//! What is registered, in memory: what the journal's changes come to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aion_schemas::compatibility::Level;

use super::{
    journal::Change,
    refusal::Refusal,
    schema::{Reference, Schema},
};

/// How many schemas one may refer to, directly and through others.
const REFERENCES: usize = 64;

/// Subjects, schemas and levels.
#[derive(Default)]
pub(super) struct State {
    pub(super) schemas: BTreeMap<u32, Schema>,
    /// Ids by [`Schema::identity`]: the same schema has one id in all subjects.
    pub(super) ids: HashMap<Schema, u32>,
    pub(super) subjects: BTreeMap<String, BTreeMap<u32, Entry>>,
    pub(super) levels: BTreeMap<String, Level>,
    pub(super) level: Option<Level>,
    pub(super) last_id: u32,
}

/// One version of a subject.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) is_deleted: bool,
}

impl State {
    /// Makes a change.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Format(_) => {}
            Change::Registered { subject, version, id, schema } => {
                if let Some(schema) = schema {
                    self.ids.insert(schema.identity(), id);
                    self.schemas.insert(id, schema);
                }
                self.last_id = self.last_id.max(id);
                let entry = Entry { id, is_deleted: false };
                self.subjects.entry(subject).or_default().insert(version, entry);
            }
            Change::Deleted { subject, versions, permanent } => {
                if let Some(known) = self.subjects.get_mut(&subject) {
                    if permanent {
                        known.retain(|version, _| !versions.contains(version));
                    } else {
                        let gone =
                            known.iter_mut().filter(|(version, _)| versions.contains(version));
                        gone.for_each(|(_, entry)| entry.is_deleted = true);
                    }
                }
                self.forget_unused();
            }
            Change::Level { subject: None, level } => self.level = level,
            Change::Level { subject: Some(subject), level } => {
                match level {
                    Some(level) => self.levels.insert(subject, level),
                    None => self.levels.remove(&subject),
                };
            }
        }
    }

    /// A schema goes with its last version; its id stays taken.
    fn forget_unused(&mut self) {
        self.subjects.retain(|_, versions| !versions.is_empty());
        let used: BTreeSet<u32> = self.entries().map(|(_, _, entry)| entry.id).collect();
        self.schemas.retain(|id, _| used.contains(id));
        self.ids.retain(|_, id| used.contains(id));
    }

    /// Every version of every subject.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, u32, Entry)> {
        self.subjects.iter().flat_map(|(subject, versions)| {
            versions.iter().map(move |(version, entry)| (subject, *version, *entry))
        })
    }

    /// The texts that a schema refers to, each once, and after those that it refers to itself.
    pub(super) fn dependencies(&self, schema: &Schema) -> Result<Vec<&str>, Refusal> {
        let mut texts = Vec::new();
        let mut seen = BTreeSet::new();
        // A reference to follow, or the text of one that was followed.
        let mut stack: Vec<Result<&Reference, &str>> =
            schema.references.iter().rev().map(Ok).collect();
        while let Some(step) = stack.pop() {
            let reference = match step {
                Ok(reference) => reference,
                Err(text) => {
                    texts.push(text);
                    continue;
                }
            };
            if !seen.insert((&reference.subject, reference.version)) {
                continue;
            }
            let found = self.subjects.get(&reference.subject);
            let entry = found.and_then(|versions| versions.get(&reference.version));
            let entry = entry.filter(|_| seen.len() <= REFERENCES).ok_or_else(|| {
                Refusal::schema(&format!(
                    "no schema reference found for subject \"{}\" and version {}, or more than \
                     {REFERENCES} are needed",
                    reference.subject, reference.version
                ))
            })?;
            let Some(schema) = self.schemas.get(&entry.id) else { continue };
            stack.push(Err(&schema.schema));
            stack.extend(schema.references.iter().rev().map(Ok));
        }
        Ok(texts)
    }
}
