//! The catalog: which topics there are, each with its key, schema, table and settings.
//!
//! `catalog.toml` and the schema files that it names are read together and checked as a whole, so
//! that a [`Topic`] in hand is consistent: its key and event time exist, its schema compiles, its
//! samples fit, its names are good in Kafka, Avro and SQL. [`Catalog::builtin`] is the folder
//! `schemas/` of this repository, compiled in; [`Catalog::load`] reads a folder of the same layout
//! at run time.
//!
//! **Invariant:** a catalog is whole or refused; [`CatalogError`] lists everything that is wrong.
//! **Invariant:** a topic is stated once. What isn't in these files is deployment (`aion.toml`).

mod check;
mod error;
mod file;
mod source;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, sync::LazyLock, time::Duration};

pub(crate) use error::Problems;
pub use error::{CatalogError, Problem};
use serde::{Deserialize, Serialize};

use crate::schema::Schema;

/// Name of the topic that takes messages which can't become rows; every catalog has it.
pub const DEAD_LETTERS: &str = "aion.dead-letters";

/// Name of the topic that records lost stretches of logs; every catalog has it.
pub const GAPS: &str = "aion.gaps";

/// Name of the topic of operators' decisions.
pub const DECISIONS: &str = "aion.operator-decisions";

/// How the names of topics of retries begin; the table's name follows.
pub const RETRIES: &str = "aion.retries.";

/// Name of the topic in which webhooks keep where they stand.
pub const WEBHOOK_CURSORS: &str = "aion.webhooks.cursors";

/// Name of the topic of what operators ask of webhooks.
pub const WEBHOOK_CONTROL: &str = "aion.webhooks.control";

/// The room for headers that a retry needs beyond the message itself.
const RETRY_ROOM_BYTES: i32 = 64 * 1024;

/// The topics, in the order of `catalog.toml`.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The topics, internal ones included.
    pub topics: Vec<Topic>,
    /// The service accounts that topics name as readers and writers.
    pub accounts: Vec<Account>,
    /// Who may do what with the topics of retries.
    pub retries: Retries,
    /// Who may do what with the topics in which webhooks keep where they stand.
    pub webhooks: Retries,
}

/// Who may do what with topics that the platform makes for itself; the rest follows from what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retries {
    /// The accounts that may consume from them.
    pub readers: Vec<Arc<str>>,
    /// The accounts that may produce to them.
    pub writers: Vec<Arc<str>>,
}

/// A service account of the platform.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its name; in Kafka the principal `User:<name>`, unless a deployment says otherwise.
    pub name: Arc<str>,
    /// The beginning of the names of the consumer groups that it may use; none if it uses none.
    pub groups: Option<Arc<str>>,
}

/// One topic: what stands in its messages, and how it is kept.
#[derive(Clone, Debug)]
pub struct Topic {
    /// The topic's name in Kafka.
    pub name: Arc<str>,
    /// The field whose text is the Kafka key; for an internal topic it may be several, joined by
    /// `:`.
    pub key: Arc<str>,
    /// What a message looks like.
    pub schema: Arc<Schema>,
    /// The table's name in every store and in SQL.
    pub table: Arc<str>,
    /// How many partitions the topic is created with.
    pub partitions: i32,
    /// How long messages are kept.
    pub retention: Retention,
    /// The largest batch of records that the broker takes, in bytes.
    pub max_message_bytes: i32,
    /// The accounts that may consume from it.
    pub readers: Vec<Arc<str>>,
    /// The accounts that may produce to it.
    pub writers: Vec<Arc<str>>,
    /// Whether only the last record of each key is kept.
    pub compacted: bool,
    /// Whether AION Event Streams itself writes it; webhook patterns never match such a topic.
    pub internal: bool,
    /// The JSON Schema that `schema` was read from, for validation.
    pub json_schema: Arc<serde_json::Value>,
    /// Sample events, one JSON object a line; each passes validation. Internal topics may have
    /// none.
    pub samples: Arc<str>,
}

/// How long messages of a topic are kept, by environment; `None` is without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// In development.
    pub dev: Option<Duration>,
    /// In production.
    pub prod: Option<Duration>,
}

/// Where the topics are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Development: short retention.
    Dev,
    /// Production.
    Prod,
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Environment::Dev => "dev",
            Environment::Prod => "prod",
        })
    }
}

impl Catalog {
    /// The catalog that was compiled in. The files are read once per process; clones share them.
    pub fn builtin() -> Catalog {
        static BUILTIN: LazyLock<Catalog> = LazyLock::new(|| {
            file::read(&source::Source::Builtin).unwrap_or_else(|error| {
                // Its files are part of the program, and a test reads them: no input leads here.
                unreachable!("the catalog that was compiled in is refused:\n{error}")
            })
        });
        BUILTIN.clone()
    }

    /// Reads and checks a folder laid out like `schemas/`: `catalog.toml`, `events/`, `internal/`,
    /// `samples/`.
    pub fn load(dir: &Path) -> Result<Catalog, CatalogError> {
        file::read(&source::Source::Folder(dir))
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| &*topic.name == name)
    }

    /// The topic that takes the retries of a topic's dead letters: the same schema, and its rows go to the
    /// same table. None for an internal topic: what it can't read is nothing that a person could mend.
    ///
    /// One partition keeps retries in the order in which they were sent. They are kept as long as the
    /// topic's records: for longer, and the lake may drop rows by their age that an audit still asks for.
    pub fn retries_of(&self, topic: &Topic) -> Option<Topic> {
        (!topic.internal).then(|| Topic {
            name: format!("{RETRIES}{}", topic.table).into(),
            partitions: 1,
            max_message_bytes: topic.max_message_bytes.saturating_add(RETRY_ROOM_BYTES),
            readers: self.retries.readers.clone(),
            writers: self.retries.writers.clone(),
            compacted: false,
            internal: true,
            samples: "".into(),
            ..topic.clone()
        })
    }

    /// Every topic that a cluster has to have: those of the catalog, their topics of retries, and those in
    /// which webhooks keep where they stand.
    pub fn of_cluster(&self) -> Vec<Topic> {
        let retries = self.topics.iter().filter_map(|topic| self.retries_of(topic));
        let all = self.topics.iter().cloned().chain(retries);
        all.chain(self.webhook_state()).collect()
    }

    /// The topics of webhooks that hold no rows. They are shaped like the topic of gaps, which every catalog
    /// has; nobody decodes them by it.
    fn webhook_state(&self) -> Vec<Topic> {
        let Some(like) = self.topic(GAPS) else { return Vec::new() };
        let Retries { readers, writers } = self.webhooks.clone();
        let topic = |name: &str, key: &str, partitions, compacted| Topic {
            name: name.into(),
            key: key.into(),
            table: "".into(),
            partitions,
            retention: Retention { dev: None, prod: None },
            readers: readers.clone(),
            writers: writers.clone(),
            compacted,
            internal: true,
            samples: "".into(),
            ..like.clone()
        };
        // The control log is in one order for everybody.
        vec![
            topic(WEBHOOK_CURSORS, "endpoint:topic_id:partition", 4, true),
            topic(WEBHOOK_CONTROL, "endpoint", 1, false),
        ]
    }

    /// The topic whose rows are in that table.
    pub fn table(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| &*topic.table == name)
    }
}

impl Topic {
    /// The Kafka settings that this topic is created with, by name.
    ///
    /// | setting | value | because |
    /// |---|---|---|
    /// | `cleanup.policy` | `delete`, or `compact` | |
    /// | `max.message.bytes` | `max_message_bytes` | |
    /// | `message.timestamp.type` | `LogAppendTime` | no producer's clock closes an export early |
    /// | `retention.bytes` | `-1` | a size limit of the broker would break the promise of time |
    /// | `retention.ms` | by environment; `-1` without limit | |
    pub fn config(&self, environment: Environment) -> BTreeMap<String, String> {
        let retention = match environment {
            Environment::Dev => self.retention.dev,
            Environment::Prod => self.retention.prod,
        };
        let retention_ms =
            retention.map_or_else(|| "-1".to_owned(), |kept| kept.as_millis().to_string());
        let policy = if self.compacted { "compact" } else { "delete" };
        BTreeMap::from(
            [
                ("cleanup.policy", policy.to_owned()),
                ("max.message.bytes", self.max_message_bytes.to_string()),
                ("message.timestamp.type", "LogAppendTime".to_owned()),
                ("retention.bytes", "-1".to_owned()),
                ("retention.ms", retention_ms),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }

    /// Whether it takes retries of another topic's records; see [`Catalog::retries_of`].
    pub fn is_retries(&self) -> bool {
        self.name.starts_with(RETRIES)
    }

    /// The registry's subject for the topic's values: `<topic>-value`.
    pub fn subject(&self) -> String {
        format!("{}-value", self.name)
    }

    /// The fields that the Kafka key is made of, in order; one unless the topic is internal.
    pub fn key_fields(&self) -> impl Iterator<Item = &str> {
        self.key.split(':')
    }

    /// The unit of a field's values, where it has one.
    pub fn unit(&self, field: &str) -> Option<&str> {
        self.json_schema.get("properties")?.get(field)?.get("x-unit")?.as_str()
    }
}
