//! The page `docs/topics.md`: every topic and column, for people.

use std::time::Duration;

use serde_json::Value;

use crate::{
    catalog::{Catalog, Topic},
    schema::{Field, Kind, POSITION_COLUMNS},
};

const HEAD: &str = "\
# Topics and columns

<!-- Generated from schemas/ by `aion schemas generate`: edit there, not here. -->

Every topic, what its messages mean, and the columns that they become in the lake, in ClickHouse and
in SQL. A message is one JSON object, or the same fields in Avro (`bigdata/schemas`). A column has
the name of its field.

- **Times** are RFC 3339 text in JSON, `timestamp-micros` in Avro, and microseconds UTC in tables.
- **Objects** are free inside, and become one text column of canonical JSON (sorted keys).
- A field that isn't required is left out when there is no value; its column is then null.
- Producers are refused unknown fields. Consumers drop and count them.

";

const POSITION: &str = "\
## Where a row comes from

Every table ends in these columns; in the lake `_date` follows, the UTC date of the event time. Topic id, partition and offset together name one record of the
log, and each record is in a table at most once, be it as it stood or by a retry.

| Column | Type | Meaning |
|---|---|---|
";

/// What [`POSITION_COLUMNS`] mean, in their order.
const POSITION_MEANINGS: [(&str, &str); 6] = [
    ("text", "Id of the topic's incarnation, a UUID; a topic deleted and made anew has another."),
    ("integer", "Leader epoch of the record; -1 where it is not known."),
    ("integer", "Kafka partition."),
    ("integer", "Offset of the record in its partition."),
    ("time", "When the broker appended the record to its log."),
    (
        "text",
        "Null, but for the retry of a dead letter: `<topic id>/<partition>/<offset>` of the record that was rejected. The columns above are then those of the retry.",
    ),
];

/// The text of the page.
pub(super) fn text(catalog: &Catalog) -> String {
    let mut page = HEAD.to_owned();
    page += "| Topic | Key | Table | Partitions | Kept (dev / prod) | Meaning |\n";
    page += "|---|---|---|---|---|---|\n";
    for topic in &catalog.topics {
        overview(&mut page, topic);
    }
    page.push('\n');
    for topic in &catalog.topics {
        section(&mut page, topic);
    }
    retries(&mut page, catalog);
    page += POSITION;
    for (name, (kind, meaning)) in POSITION_COLUMNS.iter().zip(POSITION_MEANINGS) {
        line(&mut page, &[&format!("`{name}`"), kind, meaning]);
    }
    page
}

fn overview(page: &mut String, topic: &Topic) {
    let retention = &topic.retention;
    line(
        page,
        &[
            &format!("[`{0}`](#{1})", topic.name, anchor(&topic.name)),
            &format!("`{}`", topic.key),
            &format!("`{}`", topic.table),
            &topic.partitions.to_string(),
            &format!("{} / {}", period(retention.dev), period(retention.prod)),
            &topic.schema.doc,
        ],
    );
}

fn section(page: &mut String, topic: &Topic) {
    let mut put = |text: &str| page.push_str(text);
    put(&format!("## `{}`\n\n{}\n\n", topic.name, topic.schema.doc));
    if topic.internal {
        put("Written by AION Event Streams itself.\n\n");
    }
    let (writers, readers) = (named(&topic.writers), named(&topic.readers));
    put(&format!("May write: {writers}. May read: {readers}.\n\n"));
    put("| Column | Type | Unit | Required | Meaning |\n|---|---|---|---|---|\n");
    for field in &topic.schema.fields {
        let required = if field.required { "yes" } else { "" };
        let unit = topic.unit(&field.name).unwrap_or_default();
        let name = format!("`{}`", field.name);
        line(page, &[&name, kind(field.kind), unit, required, &meaning(topic, field)]);
    }
    page.push('\n');
    // The sample with the most in it shows the most.
    if let Some(sample) = topic.samples.lines().max_by_key(|line| line.len()) {
        page.push_str("For example:\n\n```json\n");
        page.push_str(sample);
        page.push_str("\n```\n\n");
    }
}

/// The topics of retries, which follow from the others.
fn retries(page: &mut String, catalog: &Catalog) {
    page.push_str("## `aion.retries.<table>`\n\n");
    page.push_str("One for each topic of producers: dead letters that are sent again, with the schema of their\n");
    page.push_str("topic. Their rows go to its table. One partition, kept as long as the topic's records.\n\n");
    let (writers, readers) = (named(&catalog.retries.writers), named(&catalog.retries.readers));
    page.push_str(&["May write: ", &writers, ". May read: ", &readers, ".\n\n"].concat());
}

fn named(accounts: &[std::sync::Arc<str>]) -> String {
    let names: Vec<String> = accounts.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

fn meaning(topic: &Topic, field: &Field) -> String {
    let property = &topic.json_schema["properties"][&*field.name];
    let mut meaning = field.doc.to_string();
    for (keyword, word) in [("enum", "One of"), ("examples", "For example")] {
        let values = property[keyword].as_array().map(Vec::as_slice).unwrap_or_default();
        if !values.is_empty() && field.kind != Kind::Time {
            let values: Vec<String> = values.iter().map(code).collect();
            meaning += &[" ", word, " ", &values.join(", "), "."].concat();
        }
    }
    for former in &field.aliases {
        meaning += &[" Formerly `", former, "`."].concat();
    }
    if let Some(default) = &field.default {
        meaning += &[" Events from before it was there have ", &code(default), "."].concat();
    }
    meaning
}

fn code(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
        Kind::Time => "time",
        Kind::Object => "object",
        Kind::Bytes => "bytes",
    }
}

fn period(kept: Option<Duration>) -> String {
    const HOUR: u64 = 3600;
    match kept.map(|kept| kept.as_secs()) {
        None => "without limit".to_owned(),
        Some(seconds) if seconds % (24 * HOUR) == 0 => format!("{} d", seconds / (24 * HOUR)),
        Some(seconds) => format!("{} h", seconds / HOUR),
    }
}

/// The anchor that renderers give a heading: lower case, punctuation dropped.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Adds a line of a table.
fn line(page: &mut String, cells: &[&str]) {
    for cell in cells {
        page.push_str("| ");
        page.push_str(&cell.replace('|', "\\|"));
        page.push(' ');
    }
    page.push_str("|\n");
}
