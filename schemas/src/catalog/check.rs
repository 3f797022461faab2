//! The rules that a catalog is held to, beyond what its syntax says.

use std::collections::BTreeMap;

use super::{
    Account, Catalog, DEAD_LETTERS, DECISIONS, GAPS, Problems, RETRIES, RETRY_ROOM_BYTES, Retries,
    Topic, file::Entry,
};
use crate::{
    name::{self, NAME_RULE},
    schema::{Field, Kind},
    suggest::did_you_mean,
};

/// What a dead letter needs beyond the message that it carries: key, headers, framing.
const DEAD_LETTER_ROOM_BYTES: i32 = 64 * 1024;

/// Tables and views that SQL has by itself.
const RESERVED_TABLES: [&str; 8] = [
    "batches",
    "commands",
    "decision_outcomes",
    "deliveries",
    "exports",
    "lag",
    "schemas",
    "task_latency",
];

/// Checks the names in the entries: their form, and that each stands once.
pub(super) fn entries(entries: &[Entry], file: &str, problems: &mut Problems) {
    let mut topics = BTreeMap::new();
    let mut tables = BTreeMap::new();
    for entry in entries {
        let place = |key: &str| format!("topic {}, {key}", entry.name);
        if !name::is_topic(&entry.name) {
            let fix = "use 1 to 249 of the characters a-z A-Z 0-9 . _ -";
            problems.add(file, place("name"), "Kafka takes no such name", fix);
        }
        if entry.name.starts_with(RETRIES) {
            let fix = "take the entry out: each topic has one for its retries by itself";
            problems.add(file, place("name"), "names of topics of retries begin so", fix);
        }
        // Kafka refuses names that differ in `.` and `_` only, since its metrics mix them up.
        if let Some(other) = topics.insert(entry.name.replace('.', "_"), &entry.name) {
            let what =
                format!("`{other}` is already there, and Kafka takes `.` and `_` for the same");
            problems.add(file, place("name"), what, "give one of them another name");
        }
        for (key, value) in [("table", &entry.table), ("schema", &entry.schema)] {
            if !name::is_plain(value) {
                let what = format!("`{value}` isn't a name for SQL and Avro");
                problems.add(file, place(key), what, NAME_RULE);
            }
        }
        if RESERVED_TABLES.contains(&entry.table.as_str()) && !entry.internal {
            let what = format!("SQL has a table `{}` of its own", entry.table);
            problems.add(file, place("table"), what, "choose another name");
        }
        if let Some(other) = tables.insert(&entry.table, &entry.name) {
            let what = format!("`{}` is already the table of {other}", entry.table);
            problems.add(file, place("table"), what, "give each topic a table of its own");
        }
    }
    internal_topics(entries, file, problems);
}

/// Checks each topic against its schema, and the topics against each other.
pub(super) fn topics(topics: &[Topic], file: &str, problems: &mut Problems) {
    for topic in topics {
        key(topic, file, problems);
        numbers(topic, file, problems);
    }
    dead_letters_hold_every_message(topics, file, problems);
}

/// Checks the accounts, and that topics name known ones only.
pub(super) fn accounts(catalog: &Catalog, file: &str, problems: &mut Problems) {
    let accounts: &[Account] = &catalog.accounts;
    for (index, account) in accounts.iter().enumerate() {
        let place = || format!("account {}", account.name);
        if !name::is_topic(&account.name) {
            let fix = "use the characters a-z A-Z 0-9 . _ -";
            problems.add(file, place(), "Kafka's tools take no such name well", fix);
        }
        if accounts.iter().take(index).any(|other| other.name == account.name) {
            problems.add(file, place(), "stands twice", "take one of them out");
        }
        if account.groups.as_deref() == Some("") {
            // As a prefix it would be every group of the cluster.
            let fix = "name the beginning of its groups, or leave `groups` out";
            problems.add(file, place(), "`groups` is empty", fix);
        }
    }
    let named = catalog
        .topics
        .iter()
        .map(|topic| (format!("topic {}", topic.name), &topic.readers, &topic.writers));
    let made = [("[retries]", &catalog.retries), ("[webhooks]", &catalog.webhooks)];
    let made = made
        .into_iter()
        .map(|(place, Retries { readers, writers })| (place.to_owned(), readers, writers));
    for (place, readers, writers) in named.chain(made) {
        for (key, names) in [("readers", readers), ("writers", writers)] {
            for name in names {
                if accounts.iter().any(|account| account.name == *name) {
                    continue;
                }
                let known = accounts.iter().map(|account| &*account.name);
                let fix = did_you_mean(name, known, "add an [[account]] of that name");
                let place = format!("{place}, {key}");
                problems.add(file, place, format!("there is no account `{name}`"), fix);
            }
        }
    }
}

fn key(topic: &Topic, file: &str, problems: &mut Problems) {
    let place = || format!("topic {}, key", topic.name);
    let parts: Vec<&str> =
        if topic.internal { topic.key_fields().collect() } else { vec![&*topic.key] };
    for part in parts {
        let Some(index) = topic.schema.position(part) else {
            let names = topic.schema.fields.iter().map(|field| &*field.name);
            let what = format!("schema `{}` has no field `{part}`", topic.schema.name);
            problems.add(
                file,
                place(),
                what,
                did_you_mean(part, names, "name a field of the schema"),
            );
            continue;
        };
        let field = &topic.schema.fields[index];
        // In a key made of several fields a whole number has one spelling.
        let is_text = field.kind == Kind::Text || (topic.internal && field.kind == Kind::Integer);
        if !is_text {
            let fix = "choose a field of type string";
            problems.add(file, place(), format!("field `{part}` isn't a string"), fix);
        }
        if !field.required {
            let what = format!("field `{part}` may be missing, and then there is no key");
            problems.add(
                file,
                place(),
                what,
                "add it to `required` in the schema, or choose another",
            );
        }
    }
}

fn numbers(topic: &Topic, file: &str, problems: &mut Problems) {
    let place = |key: &str| format!("topic {}, {key}", topic.name);
    if !(1..=1_000).contains(&topic.partitions) {
        let what = format!("{} partitions", topic.partitions);
        problems.add(file, place("partitions"), what, "choose 1 to 1000");
    }
    if !(1_024..=128 * 1024 * 1024).contains(&topic.max_message_bytes) {
        let what = format!("{} bytes", topic.max_message_bytes);
        let fix = "choose 1024 (1 KiB) to 134217728 (128 MiB)";
        problems.add(file, place("max_message_bytes"), what, fix);
    }
}

/// The program writes these topics itself: they must be there, and marked.
fn internal_topics(entries: &[Entry], file: &str, problems: &mut Problems) {
    for name in [DEAD_LETTERS, GAPS] {
        let place = format!("topic {name}");
        match entries.iter().find(|entry| entry.name == name) {
            None => {
                let fix = "copy its entry and schema from the catalog of this repository";
                problems.add(file, place, "is missing", fix);
            }
            Some(entry) if !entry.internal => {
                problems.add(file, place, "isn't marked internal", "write `internal = true`");
            }
            Some(_) => {}
        }
    }
}

/// Otherwise one large message that can't become a row would stop its partition for good.
fn dead_letters_hold_every_message(topics: &[Topic], file: &str, problems: &mut Problems) {
    let Some(dead_letters) = topics.iter().find(|topic| &*topic.name == DEAD_LETTERS) else {
        return;
    };
    for topic in topics.iter().filter(|topic| &*topic.name != DEAD_LETTERS) {
        // A retry may be rejected again: it is the same message with more headers.
        let retried = topic.max_message_bytes.saturating_add(RETRY_ROOM_BYTES);
        let largest = if topic.internal { topic.max_message_bytes } else { retried };
        let needed = largest.saturating_add(DEAD_LETTER_ROOM_BYTES);
        if dead_letters.max_message_bytes < needed {
            let what = format!(
                "a message of {} ({} bytes) doesn't fit into {DEAD_LETTERS} ({} bytes)",
                topic.name, topic.max_message_bytes, dead_letters.max_message_bytes
            );
            let fix = format!("raise max_message_bytes of {DEAD_LETTERS} to {needed} or more");
            problems.add(file, format!("topic {}, max_message_bytes", topic.name), what, fix);
        }
    }
}

/// The program writes the internal topics by what it was built with: a folder may set how they are
/// kept, not what stands in them.
pub(super) fn same_as_builtin(catalog: &Catalog, file: &str, problems: &mut Problems) {
    let builtin = Catalog::builtin();
    for name in [DEAD_LETTERS, GAPS, DECISIONS] {
        let (Some(given), Some(known)) = (catalog.topic(name), builtin.topic(name)) else {
            continue;
        };
        let mut refuse = |key: &str, what: String| {
            let fix = "take the entry and its schema from this repository as they are";
            problems.add(file, format!("topic {name}, {key}"), what, fix);
        };
        if given.key != known.key {
            refuse("key", format!("must be `{}`", known.key));
        }
        if given.table != known.table {
            refuse("table", format!("must be `{}`", known.table));
        }
        let (given, known) = (&given.schema, &known.schema);
        let column = |field: &Field| (field.name.clone(), field.kind, field.required);
        if !given.fields.iter().map(column).eq(known.fields.iter().map(column)) {
            refuse("schema", "has other columns than the program writes".to_owned());
        } else if given.event_time != known.event_time {
            refuse("event_time", format!("must be `{}`", known.fields[known.event_time].name));
        }
    }
}
