//! The states of exports, each a numbered object that is put only if its number is free.
//!
//! | from | to | by |
//! |---|---|---|
//! | nothing | queued | whoever asks for it |
//! | queued | running | a process that begins an attempt |
//! | running | running | another process, when the one before shows no life: the next attempt |
//! | running | succeeded, failed | the process of the attempt |
//! | queued, running | cancelled | whoever asks for it |
//! | failed, cancelled | queued | whoever asks for it again |
//!
//! **Invariant:** who puts a state has read the one before it; a put that finds its number taken changes nothing.

use std::collections::BTreeMap;

use aion_analytics::exports::{closing::Vector, request::Asked};
use aion_sinks::{
    sink::SinkError,
    store::{Put, Store},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// The folder of all of them.
pub const JOBS: &str = "_jobs";

/// What was asked for; written once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The request with everything said.
    pub request: Asked,
    /// What the id is a hash of.
    pub canonical: serde_json::Value,
    /// The ids of the topics that were there.
    pub topic_ids: std::collections::BTreeSet<Uuid>,
    /// Which store is read, `lake` or `clickhouse`, unless an entry names another.
    pub source: String,
    /// When, in RFC 3339.
    pub created_at: String,
}

/// How an export stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody works on it yet.
    Queued,
    /// A process works on it.
    Running,
    /// It is whole.
    Succeeded,
    /// It couldn't be made.
    Failed,
    /// Somebody doesn't want it any more.
    Cancelled,
}

impl State {
    /// Its name, as entries have it.
    pub const fn word(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens by itself.
    pub fn is_over(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }
}

/// A state with what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The state.
    pub state: State,
    /// The attempt that it is about; 0 before the first.
    pub attempt: u32,
    /// The process that works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Uuid>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
    /// What it came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Outcome>,
    /// Which store is read from here on, where whoever asked again named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When, in RFC 3339.
    pub at: String,
}

/// Why an export failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Whether asking again may help.
    pub retryable: bool,
}

/// What an export came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Rows in all files.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
    /// The digest of the rows.
    pub digest: String,
    /// Stretches of the log whose rows aren't there, by the manifest.
    #[serde(default)]
    pub gaps: u64,
}

/// What a running attempt says of itself, again and again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The attempt.
    pub attempt: u32,
    /// Counts up while the process lives.
    pub beat: u64,
    /// What is being done.
    pub phase: String,
    /// Rows written.
    pub rows: u64,
    /// Rows that there will be, once they were counted.
    pub total: Option<u64>,
}

/// An export as its journal has it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub order: Order,
    /// All its states, oldest first.
    pub entries: Vec<Entry>,
}

impl Job {
    /// How it stands.
    pub fn last(&self) -> &Entry {
        // A job is only made with an entry.
        &self.entries[self.entries.len() - 1]
    }

    /// The last attempt that came to something: what is there, also when it was asked for again and that came to nothing.
    pub fn whole(&self) -> Option<u32> {
        let made = |entry: &&Entry| entry.state == State::Succeeded;
        self.entries.iter().rev().find(made).map(|entry| entry.attempt)
    }

    /// Which store is read.
    pub fn source(&self) -> &str {
        let named = self.entries.iter().rev().find_map(|entry| entry.source.as_deref());
        named.unwrap_or(&self.order.source)
    }

    /// The number of the next state.
    pub fn next(&self) -> usize {
        self.entries.len() + 1
    }

    /// The folder of an attempt.
    pub fn folder(&self, attempt: u32) -> String {
        format!("{}/{}/attempt-{attempt}", self.order.request.dataset, self.id)
    }
}

/// The journal of all exports under one URL.
#[derive(Clone, Debug)]
pub struct Journal {
    store: Store,
}

impl Journal {
    /// The journal in that store.
    pub fn new(store: Store) -> Journal {
        Journal { store }
    }

    /// The ids of all exports.
    pub async fn ids(&self) -> Result<Vec<String>, SinkError> {
        let prefix = self.store.locate(JOBS)?;
        let files = self.store.list(JOBS).await?;
        let ids = files.iter().filter_map(|file| {
            let mut rest = file.location.prefix_match(&prefix)?;
            Some(rest.next()?.as_ref().to_owned())
        });
        let ids: std::collections::BTreeSet<String> = ids.collect();
        Ok(ids.into_iter().collect())
    }

    /// An export; `None` where nobody has asked for it.
    pub async fn job(&self, id: &str) -> Result<Option<Job>, SinkError> {
        let Some((order, mut entries)) = self.written(id).await? else { return Ok(None) };
        if entries.is_empty() {
            // Whoever asked for it died in between.
            let entry = first(&order);
            self.put(id, 1, &entry).await?;
            entries.push(entry);
        }
        Ok(Some(Job { id: id.to_owned(), order, entries }))
    }

    /// The same for who only looks: nothing is put right.
    pub async fn seen(&self, id: &str) -> Result<Option<Job>, SinkError> {
        let Some((order, mut entries)) = self.written(id).await? else { return Ok(None) };
        if entries.is_empty() {
            entries.push(first(&order));
        }
        Ok(Some(Job { id: id.to_owned(), order, entries }))
    }

    /// What is written down of an export; `None` also of one that is being removed.
    async fn written(&self, id: &str) -> Result<Option<(Order, Vec<Entry>)>, SinkError> {
        if !is_id(id) {
            return Ok(None);
        }
        let path = format!("{JOBS}/{id}/request.json");
        let Some(order) = self.read::<Order>(&path).await? else { return Ok(None) };
        let mut entries = Vec::new();
        while let Some(entry) = self.read::<Entry>(&entry_path(id, entries.len() + 1)).await? {
            entries.push(entry);
        }
        // A removal takes what was asked for first, and then the last state: what was read may be short of that.
        Ok(self.store.exists(&path).await?.then_some((order, entries)))
    }

    /// Writes down what is asked for, queued; that it was asked for before is as good.
    pub async fn order(&self, id: &str, order: &Order) -> Result<(), SinkError> {
        self.store.make_folder(&format!("{JOBS}/{id}")).await?;
        let path = format!("{JOBS}/{id}/request.json");
        if self.has(id, 1).await? && !self.store.exists(&path).await? {
            // The remains of a removal that was cut short.
            self.forget(id).await?;
        }
        self.store.put_entry(&path, json(order)).await?;
        self.put(id, 1, &first(order)).await?;
        Ok(())
    }

    /// Removes what is known of an export, what was asked for first: without it the rest says nothing.
    pub async fn forget(&self, id: &str) -> Result<(), SinkError> {
        let mut files = self.store.list(&format!("{JOBS}/{id}")).await?;
        files.sort_by_key(|file| {
            let name = file.location.filename().unwrap_or_default().to_owned();
            (name != "request.json", std::cmp::Reverse(name))
        });
        for file in files {
            self.store.remove(&file.location).await?;
        }
        Ok(())
    }

    /// Puts a state behind those that were read; false when another was there before.
    pub async fn put(&self, id: &str, number: usize, entry: &Entry) -> Result<bool, SinkError> {
        let path = entry_path(id, number);
        match self.store.put_entry(&path, json(entry)).await {
            Ok(Put::Created) => Ok(true),
            // It may be an earlier try of ours.
            Ok(Put::Exists) => Ok(self.read::<Entry>(&path).await?.as_ref() == Some(entry)),
            Err(cause) => match self.read::<Entry>(&path).await {
                Ok(Some(found)) => Ok(found == *entry),
                _ => Err(cause),
            },
        }
    }

    /// Whether there is a state of that number.
    pub async fn has(&self, id: &str, number: usize) -> Result<bool, SinkError> {
        self.store.exists(&entry_path(id, number)).await
    }

    /// What the running attempt says of itself.
    pub async fn progress(&self, id: &str) -> Result<Option<Progress>, SinkError> {
        self.read(&format!("{JOBS}/{id}/progress.json")).await
    }

    /// Says it.
    pub async fn report(&self, id: &str, progress: &Progress) -> Result<(), SinkError> {
        self.store.replace(&format!("{JOBS}/{id}/progress.json"), json(progress)).await
    }

    /// The vectors of a boundary that was closed before.
    pub async fn closed(&self, path: &str) -> Result<Option<Vector>, SinkError> {
        self.read(path).await
    }

    /// Fixes a vector, unless another has; answers the one that holds.
    pub async fn close(&self, path: &str, vector: &Vector) -> Result<Vector, SinkError> {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.store.make_folder(folder).await?;
        self.store.put_entry(path, json(vector)).await?;
        let found = self.read(path).await?;
        found.ok_or_else(|| damaged(path, "it isn't there after it was put"))
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, SinkError> {
        let Some(bytes) = self.store.get(path).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|cause| damaged(path, &cause.to_string()))
    }
}

/// A state without more to it.
pub fn entry(state: State, attempt: u32, at: String) -> Entry {
    Entry { state, attempt, owner: None, error: None, result: None, source: None, at }
}

/// The state of an export that was just asked for.
fn first(order: &Order) -> Entry {
    entry(State::Queued, 0, order.created_at.clone())
}

/// By table.
pub type Vectors = BTreeMap<std::sync::Arc<str>, Vector>;

/// Whether a text can be an id: it becomes part of paths.
fn is_id(text: &str) -> bool {
    let digits = text.strip_prefix("exp_").unwrap_or_default();
    digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn entry_path(id: &str, number: usize) -> String {
    format!("{JOBS}/{id}/{number:06}.json")
}

fn json<T: Serialize>(value: &T) -> bytes::Bytes {
    // These types always can be: their keys are texts.
    serde_json::to_vec_pretty(value).unwrap_or_default().into()
}

fn damaged(path: &str, cause: &str) -> SinkError {
    SinkError::Fatal {
        doing: format!("read {path}"),
        cause: cause.to_owned(),
        hint: "put it back from a copy, or remove the export's folder under _jobs and ask again"
            .to_owned(),
    }
}
