//! Reads `catalog.toml` and the files that it names.

use std::{io, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{
    Account, Catalog, CatalogError, Problems, Retention, Retries, Topic, check, source::Source,
};
use crate::{schema::json, validate::Validator};

/// `catalog.toml` as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogFile {
    defaults: Defaults,
    #[serde(default)]
    retries: Retries,
    #[serde(default)]
    webhooks: Retries,
    #[serde(default)]
    account: Vec<Account>,
    topic: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    event_time: String,
    partitions: i32,
    retention: Periods,
    max_message_bytes: i32,
    #[serde(default)]
    readers: Vec<Arc<str>>,
}

/// One `[[topic]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) schema: String,
    pub(super) table: String,
    event_time: Option<String>,
    partitions: Option<i32>,
    retention: Option<Periods>,
    max_message_bytes: Option<i32>,
    readers: Option<Vec<Arc<str>>>,
    #[serde(default)]
    writers: Vec<Arc<str>>,
    #[serde(default)]
    compacted: bool,
    #[serde(default)]
    pub(super) internal: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Periods {
    #[serde(deserialize_with = "period")]
    dev: Option<Duration>,
    #[serde(deserialize_with = "period")]
    prod: Option<Duration>,
}

/// Reads `7d`, `12h` or `unlimited`.
fn period<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    const HOUR: u64 = 3600;
    let text = String::deserialize(from)?;
    if text == "unlimited" {
        return Ok(None);
    }
    // A thousand years in hours: what any broker takes, and far from where milliseconds overflow.
    let (digits, hours) = text
        .strip_suffix('d')
        .map(|digits| (digits, 24))
        .or_else(|| text.strip_suffix('h').map(|digits| (digits, 1)))
        .unwrap_or(("", 1));
    match digits.parse::<u64>().ok().and_then(|count| count.checked_mul(hours)) {
        Some(hours @ 1..8_766_000) => Ok(Some(Duration::from_secs(hours * HOUR))),
        _ => Err(D::Error::custom(format!(
            "`{text}` isn't a time of retention: write \"7d\", \"12h\" or \"unlimited\""
        ))),
    }
}

/// Reads and checks a whole catalog.
pub(super) fn read(source: &Source<'_>) -> Result<Catalog, CatalogError> {
    let mut problems = Problems::default();
    let file = source.show("catalog.toml");
    let Some(text) = text(source, "catalog.toml", &mut problems) else {
        return problems.unless(empty());
    };
    let parsed: CatalogFile = match toml::from_str(&text) {
        Ok(parsed) => parsed,
        Err(error) => {
            problems.add(&file, "", error.to_string().trim(), "correct the line and read again");
            return problems.unless(empty());
        }
    };
    check::entries(&parsed.topic, &file, &mut problems);
    let topics: Vec<Topic> = parsed
        .topic
        .iter()
        .filter_map(|entry| topic(entry, &parsed.defaults, source, &mut problems))
        .collect();
    check::topics(&topics, &file, &mut problems);
    let CatalogFile { account, retries, webhooks, .. } = parsed;
    let catalog = Catalog { topics, accounts: account, retries, webhooks };
    check::accounts(&catalog, &file, &mut problems);
    if let Source::Folder(_) = source {
        check::same_as_builtin(&catalog, &file, &mut problems);
    }
    problems.unless(catalog)
}

fn empty() -> Catalog {
    let (retries, webhooks) = (Retries::default(), Retries::default());
    Catalog { topics: Vec::new(), accounts: Vec::new(), retries, webhooks }
}

/// Reads the schema and the samples of an entry; `None` when its schema can't be read.
fn topic(
    entry: &Entry,
    defaults: &Defaults,
    source: &Source<'_>,
    problems: &mut Problems,
) -> Option<Topic> {
    let folder = if entry.internal { "internal" } else { "events" };
    let path = format!("{folder}/{}.schema.json", entry.schema);
    let json = json::File {
        name: &entry.schema,
        shown: &source.show(&path),
        event_time: entry.event_time.as_ref().unwrap_or(&defaults.event_time),
        internal: entry.internal,
    };
    let before = problems.len();
    let text = text(source, &path, problems)?;
    let (schema, json_schema) = json.read(&text, problems)?;
    let retention = entry.retention.unwrap_or(defaults.retention);
    let mut topic = Topic {
        name: entry.name.as_str().into(),
        key: entry.key.as_str().into(),
        schema: Arc::new(schema),
        table: entry.table.as_str().into(),
        partitions: entry.partitions.unwrap_or(defaults.partitions),
        retention: Retention { dev: retention.dev, prod: retention.prod },
        max_message_bytes: entry.max_message_bytes.unwrap_or(defaults.max_message_bytes),
        readers: entry.readers.as_ref().unwrap_or(&defaults.readers).clone(),
        writers: entry.writers.clone(),
        compacted: entry.compacted,
        internal: entry.internal,
        json_schema: Arc::new(json_schema),
        samples: "".into(),
    };
    if problems.len() == before {
        let validator = match Validator::new(&topic) {
            Ok(validator) => validator,
            Err(error) => {
                problems.add(json.shown, error.place, error.message, "correct the JSON Schema");
                return None;
            }
        };
        topic.samples = samples(&topic, &validator, source, problems)?.into();
    }
    Some(topic)
}

/// Reads the sample events of a topic and holds each against its schema.
fn samples(
    topic: &Topic,
    validator: &Validator,
    source: &Source<'_>,
    problems: &mut Problems,
) -> Option<String> {
    let path = format!("samples/{}.jsonl", topic.schema.name);
    let file = source.show(&path);
    let samples = match source.read(&path) {
        Err(error) if topic.internal && error.kind() == io::ErrorKind::NotFound => String::new(),
        _ => text(source, &path, problems)?,
    };
    for (number, line) in (1..).zip(samples.lines()) {
        if let Err(violations) = validator.check_bytes(line.as_bytes()) {
            for violation in violations {
                let fix = "correct the sample, or the schema that it shows";
                problems.add(&file, format!("line {number}"), violation.to_string(), fix);
            }
        }
    }
    if samples.is_empty() && !topic.internal {
        problems.add(&file, "", "there is no sample event", "write one event a line, as JSON");
    }
    Some(samples)
}

fn text(source: &Source<'_>, path: &str, problems: &mut Problems) -> Option<String> {
    match source.read(path) {
        Ok(text) => Some(text),
        Err(error) => {
            let fix = if path == "catalog.toml" {
                "name a folder laid out like schemas/: catalog.toml, events/, internal/, samples/"
            } else {
                "create the file, or correct the entry in catalog.toml that names it"
            };
            problems.add(&source.show(path), "", format!("can't be read: {error}"), fix);
            None
        }
    }
}
