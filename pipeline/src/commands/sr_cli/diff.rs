//! What differs between two Avro schemas, field by field, and which of them reads the other.

use std::collections::BTreeMap;

use aion_schemas::compatibility::{AvroSchema, differences};
use anyhow::Context;
use serde_json::Value;

use super::Outcome;

/// A schema with its name for people.
type Named<'a> = (&'a str, &'a str);

/// Prints the differences: `-` is only in the old schema, `+` only in the new one, `~` in both.
pub(super) fn print(old: Named<'_>, new: Named<'_>) -> anyhow::Result<Outcome> {
    let (before, after) = (value(old)?, value(new)?);
    if before == after {
        println!("{} and {}: no difference", old.0, new.0);
        return Ok(Outcome::Done);
    }
    println!("{} -> {}", old.0, new.0);
    for line in lines(&before, &after) {
        println!("{line}");
    }
    let parse = |(_, text): Named<'_>| AvroSchema::parse::<&str>(text, &[]);
    // Schemas in another language, or with references, are compared as JSON only.
    if let (Ok(old_schema), Ok(new_schema)) = (parse(old), parse(new)) {
        reads(new.0, old.0, &new_schema, &old_schema);
        reads(old.0, new.0, &old_schema, &new_schema);
    }
    Ok(Outcome::Differs)
}

fn value((name, text): Named<'_>) -> anyhow::Result<Value> {
    serde_json::from_str(text).with_context(|| format!("{name} isn't JSON"))
}

fn reads(reader_name: &str, writer_name: &str, reader: &AvroSchema, writer: &AvroSchema) {
    let found = differences(writer, reader);
    let verb = if found.is_empty() { "can read" } else { "can't read" };
    println!("{reader_name} {verb} what {writer_name} wrote");
    for difference in found {
        println!("  {difference}");
    }
}

fn lines(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let (old, new) = (attributes(before), attributes(after));
    compare("", &old, &new, &mut lines);
    let (old, new) = (fields(before), fields(after));
    for (name, field) in &old {
        match new.get(name) {
            None => lines.push(format!("- field {name}: {}", brief(field))),
            Some(other) => {
                compare(
                    &format!("field {name} "),
                    &attributes(field),
                    &attributes(other),
                    &mut lines,
                );
            }
        }
    }
    for (name, field) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        lines.push(format!("+ field {name}: {}", brief(field)));
    }
    if lines.is_empty() {
        lines.push("~ the order of fields".to_owned());
    }
    lines
}

type Attributes<'a> = BTreeMap<&'a str, &'a Value>;

fn compare(of: &str, old: &Attributes<'_>, new: &Attributes<'_>, lines: &mut Vec<String>) {
    for (name, value) in old {
        match new.get(name) {
            None => lines.push(format!("- {of}{name}: {value}")),
            Some(other) if other != value => {
                lines.push(format!("~ {of}{name}: {value} -> {other}"));
            }
            Some(_) => {}
        }
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        lines.push(format!("+ {of}{name}: {value}"));
    }
}

/// Everything that a schema or field says of itself, apart from the fields within it.
fn attributes(value: &Value) -> Attributes<'_> {
    match value {
        Value::Object(object) => object
            .iter()
            .filter(|(name, _)| *name != "fields")
            .map(|(name, value)| (name.as_str(), value))
            .collect(),
        other => BTreeMap::from([("schema", other)]),
    }
}

fn fields(value: &Value) -> BTreeMap<&str, &Value> {
    let all = value.get("fields").and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|field| Some((field.get("name")?.as_str()?, field))).collect()
}

/// The type and the default of a field.
fn brief(field: &Value) -> String {
    let kind = field.get("type").unwrap_or(&Value::Null);
    match field.get("default") {
        Some(default) => format!("{kind}, default {default}"),
        None => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_difference_is_a_line() {
        let field = |name: &str, kind: &str| json!({ "name": name, "type": kind });
        let old =
            json!({ "name": "r", "doc": "a", "fields": [field("x", "int"), field("y", "int")] });
        let new = json!({
            "name": "r",
            "fields": [field("x", "long"), { "name": "z", "type": "int", "default": 0 }],
        });
        assert_eq!(
            lines(&old, &new),
            [
                "- doc: \"a\"",
                "~ field x type: \"int\" -> \"long\"",
                "- field y: \"int\"",
                "+ field z: \"int\", default 0",
            ]
        );
        assert_eq!(lines(&json!("int"), &json!("long")), ["~ schema: \"int\" -> \"long\""]);
    }
}
