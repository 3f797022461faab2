//! Subjects, versions and ids, and the rules by which they change.
//!
//! What is asked is answered from memory; what changes is written to the journal first.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aion_schemas::compatibility::{self, AvroSchema, Conflict, Level};
use serde::Serialize;

use super::{
    journal::{Change, Journal},
    refusal::Refusal,
    schema::{Reference, Schema},
    state::{Entry, State},
};
use crate::Error;

/// The level where nobody has set one.
const DEFAULT_LEVEL: Level = Level::Backward;

/// Everything that is registered.
pub(super) struct Store {
    journal: Journal,
    state: State,
}

/// Which version is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Latest,
    Number(u32),
}

/// A version with its schema.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Registered {
    subject: String,
    version: u32,
    id: u32,
    #[serde(flatten)]
    pub(super) schema: Schema,
}

/// Where a schema is registered.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    pub(super) subject: String,
    version: u32,
}

impl Store {
    pub(super) fn open(folder: &Path) -> Result<Store, Error> {
        let mut state = State::default();
        let journal = Journal::open(folder, |change| state.apply(change))?;
        Ok(Store { journal, state })
    }

    fn change(&mut self, change: Change) -> Result<(), Refusal> {
        self.journal.append(&change).map_err(|error| {
            let path = self.journal.path().display();
            tracing::error!(%path, %error, "cannot write the registry's log");
            Refusal::storage()
        })?;
        self.state.apply(change);
        Ok(())
    }

    /// Registers a schema; the id is that of the same schema where the subject has it already.
    pub(super) fn register(
        &mut self,
        subject: &str,
        schema: Schema,
        normalize: bool,
    ) -> Result<u32, Refusal> {
        let parsed = self.parse(&schema)?;
        if let Some((_, entry)) = self.find(subject, &schema, normalize, false)? {
            return Ok(entry.id);
        }
        let level = self.level_for(subject);
        let conflicts = self.conflicts(subject, None, level, &parsed)?;
        if !conflicts.is_empty() {
            return Err(Refusal::incompatible(subject, &messages(&conflicts, level)));
        }
        let schema = if normalize { schema.normal(&parsed) } else { schema };
        let known = self.state.ids.get(&schema.identity()).copied();
        let id = known.unwrap_or(self.state.last_id + 1);
        let versions = self.state.subjects.get(subject);
        let last = versions.and_then(|versions| versions.last_key_value());
        self.change(Change::Registered {
            subject: subject.to_owned(),
            version: last.map_or(1, |(version, _)| version + 1),
            id,
            schema: known.is_none().then_some(schema),
        })?;
        Ok(id)
    }

    /// The version under which a subject has a schema.
    pub(super) fn lookup(
        &self,
        subject: &str,
        schema: &Schema,
        normalize: bool,
        deleted: bool,
    ) -> Result<Registered, Refusal> {
        self.parse(schema)?;
        self.live(subject, deleted)?;
        let found = self.find(subject, schema, normalize, deleted)?;
        let (version, entry) = found.ok_or_else(|| Refusal::no_schema("of this text"))?;
        self.registered(subject, version, entry)
    }

    /// The newest version that is the same schema; with `normalize`, in one normal form.
    fn find(
        &self,
        subject: &str,
        schema: &Schema,
        normalize: bool,
        deleted: bool,
    ) -> Result<Option<(u32, Entry)>, Refusal> {
        let Some(versions) = self.state.subjects.get(subject) else { return Ok(None) };
        let wanted =
            if normalize { schema.normal(&self.parse(schema)?) } else { schema.identity() };
        for (version, entry) in versions.iter().rev() {
            if entry.is_deleted && !deleted {
                continue;
            }
            let known = self.schema(entry.id)?;
            let known =
                if normalize { known.normal(&self.parse(known)?) } else { known.identity() };
            if known == wanted {
                return Ok(Some((*version, *entry)));
            }
        }
        Ok(None)
    }

    pub(super) fn subjects(&self, deleted: bool) -> Vec<String> {
        let is_there = |versions: &BTreeMap<u32, Entry>| {
            deleted || versions.values().any(|entry| !entry.is_deleted)
        };
        let subjects = self.state.subjects.iter();
        subjects.filter(|(_, versions)| is_there(versions)).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn versions(&self, subject: &str, deleted: bool) -> Result<Vec<u32>, Refusal> {
        Ok(self.live(subject, deleted)?.into_iter().map(|(version, _)| version).collect())
    }

    pub(super) fn version(
        &self,
        subject: &str,
        wanted: Wanted,
        deleted: bool,
    ) -> Result<Registered, Refusal> {
        let (version, entry) = self.pick(subject, wanted, deleted)?;
        self.registered(subject, version, entry)
    }

    pub(super) fn schema(&self, id: u32) -> Result<&Schema, Refusal> {
        self.state.schemas.get(&id).ok_or_else(|| Refusal::no_schema(&id.to_string()))
    }

    pub(super) fn places(&self, id: u32, deleted: bool) -> Result<Vec<Place>, Refusal> {
        self.schema(id)?;
        let places =
            self.state.entries().filter(|(_, _, e)| e.id == id && (deleted || !e.is_deleted));
        Ok(places
            .map(|(subject, version, _)| Place { subject: subject.clone(), version })
            .collect())
    }

    /// The ids of the schemas that refer to a version.
    pub(super) fn referred_by(&self, subject: &str, wanted: Wanted) -> Result<Vec<u32>, Refusal> {
        let (version, _) = self.pick(subject, wanted, false)?;
        let users = self.users(subject, version).map(|(id, _)| id);
        Ok(users.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn users(&self, subject: &str, version: u32) -> impl Iterator<Item = (u32, &Reference)> {
        self.state.entries().filter(|(_, _, entry)| !entry.is_deleted).filter_map(
            move |(_, _, entry)| {
                let schema = self.state.schemas.get(&entry.id)?;
                let used = schema.references.iter().find(|used| used.is_to(subject, version))?;
                Some((entry.id, used))
            },
        )
    }

    /// Whether a schema goes together with one version, or with those that the level asks for.
    pub(super) fn check(
        &self,
        subject: &str,
        wanted: Option<Wanted>,
        schema: &Schema,
    ) -> Result<Vec<String>, Refusal> {
        let parsed = self.parse(schema)?;
        let level = self.level_for(subject);
        Ok(messages(&self.conflicts(subject, wanted, level, &parsed)?, level))
    }

    fn conflicts(
        &self,
        subject: &str,
        wanted: Option<Wanted>,
        level: Level,
        parsed: &AvroSchema,
    ) -> Result<Vec<Conflict>, Refusal> {
        let versions = match wanted {
            // Nothing goes against a subject that isn't there.
            Some(Wanted::Latest) => self.pick(subject, Wanted::Latest, false).into_iter().collect(),
            Some(number) => vec![self.pick(subject, number, false)?],
            None => self.live(subject, false).unwrap_or_default(),
        };
        let mut earlier = Vec::with_capacity(versions.len());
        for (version, entry) in versions {
            earlier.push((version, self.parse(self.schema(entry.id)?)?));
        }
        Ok(compatibility::check(level, parsed, &earlier))
    }

    /// Deletes versions: softly, or for good where that was done before.
    pub(super) fn delete(
        &mut self,
        subject: &str,
        wanted: Option<Wanted>,
        permanent: bool,
    ) -> Result<Vec<u32>, Refusal> {
        let all = self.state.subjects.get(subject);
        let all = all.ok_or_else(|| Refusal::no_subject(subject))?;
        let versions: Vec<u32> = match wanted {
            None => self.deletable(subject, all, permanent)?,
            Some(wanted) => {
                // The latest one to delete softly is the latest that isn't.
                let deleted = permanent || wanted != Wanted::Latest;
                let (version, entry) = self.pick(subject, wanted, deleted)?;
                match (permanent, entry.is_deleted) {
                    (true, false) => return Err(Refusal::version_is_not_deleted(subject, version)),
                    (false, true) => return Err(Refusal::version_is_deleted(subject, version)),
                    _ => vec![version],
                }
            }
        };
        for version in &versions {
            if let Some((_, used)) = self.users(subject, *version).next() {
                return Err(Refusal::is_referred_to(used));
            }
        }
        let subject = subject.to_owned();
        self.change(Change::Deleted { subject, versions: versions.clone(), permanent })?;
        Ok(versions)
    }

    fn deletable(
        &self,
        subject: &str,
        all: &BTreeMap<u32, Entry>,
        permanent: bool,
    ) -> Result<Vec<u32>, Refusal> {
        if permanent {
            if all.values().any(|entry| !entry.is_deleted) {
                return Err(Refusal::subject_is_not_deleted(subject));
            }
            return Ok(all.keys().copied().collect());
        }
        let live = self.live(subject, false).map_err(|_| Refusal::subject_is_deleted(subject))?;
        Ok(live.into_iter().map(|(version, _)| version).collect())
    }

    /// The level of a subject of its own, or with none the one for all others.
    pub(super) fn level(&self, subject: Option<&str>) -> Option<Level> {
        match subject {
            Some(subject) => self.state.levels.get(subject).copied(),
            None => Some(self.state.level.unwrap_or(DEFAULT_LEVEL)),
        }
    }

    fn level_for(&self, subject: &str) -> Level {
        let level = self.level(Some(subject)).or_else(|| self.level(None));
        level.unwrap_or(DEFAULT_LEVEL)
    }

    pub(super) fn set_level(
        &mut self,
        subject: Option<String>,
        level: Option<Level>,
    ) -> Result<(), Refusal> {
        self.change(Change::Level { subject, level })
    }

    /// The versions of a subject, oldest first; never none.
    fn live(&self, subject: &str, deleted: bool) -> Result<Vec<(u32, Entry)>, Refusal> {
        let versions = self.state.subjects.get(subject).into_iter().flatten();
        let live = versions.filter(|(_, entry)| deleted || !entry.is_deleted);
        let live: Vec<_> = live.map(|(version, entry)| (*version, *entry)).collect();
        if live.is_empty() { Err(Refusal::no_subject(subject)) } else { Ok(live) }
    }

    fn pick(&self, subject: &str, wanted: Wanted, deleted: bool) -> Result<(u32, Entry), Refusal> {
        let live = self.live(subject, deleted)?;
        let found = match wanted {
            Wanted::Latest => live.last(),
            Wanted::Number(number) => live.iter().find(|(version, _)| *version == number),
        };
        found.copied().ok_or_else(|| match wanted {
            Wanted::Latest => Refusal::no_subject(subject),
            Wanted::Number(number) => Refusal::no_version(number),
        })
    }

    fn registered(&self, subject: &str, version: u32, entry: Entry) -> Result<Registered, Refusal> {
        let schema = self.schema(entry.id)?.clone();
        Ok(Registered { subject: subject.to_owned(), version, id: entry.id, schema })
    }

    fn parse(&self, schema: &Schema) -> Result<AvroSchema, Refusal> {
        let dependencies = self.state.dependencies(schema)?;
        AvroSchema::parse(&schema.schema, &dependencies).map_err(|why| Refusal::schema(&why))
    }
}

/// What a client is shown of conflicts; the level comes last.
fn messages(conflicts: &[Conflict], level: Level) -> Vec<String> {
    let describe = |conflict: &Conflict| {
        let code = conflict.difference.kind.code();
        format!("{{errorType:'{code}', description:'{conflict}'}}")
    };
    let mut messages: Vec<String> = conflicts.iter().map(describe).collect();
    if !messages.is_empty() {
        messages.push(format!("{{compatibility: '{level}'}}"));
    }
    messages
}
