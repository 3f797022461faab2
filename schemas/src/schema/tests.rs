#![expect(clippy::unwrap_used, reason = "a test may panic")]

use apache_avro::{Schema as Avro, schema::RecordSchema};
use serde_json::json;

use super::*;
use crate::catalog::Catalog;

fn arrow_text(schema: &Schema) -> String {
    let arrow = schema.arrow();
    let lines = arrow.fields().iter().map(|field| {
        let null = if field.is_nullable() { "" } else { " not null" };
        format!("{} {}{null}", field.name(), field.data_type())
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Tables are made of these: a change here changes every table that exists.
#[test]
fn arrow_schemas_are_as_agreed() {
    let mut text = String::new();
    for topic in &Catalog::builtin().topics {
        text += &["[", &*topic.table, "]\n", &arrow_text(&topic.schema), "\n"].concat();
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/arrow.txt");
    let wanted = std::fs::read_to_string(golden).unwrap_or_default();
    assert!(text == wanted, "{golden} differs; now it is:\n{text}");
}

fn parsed(schema: &Schema) -> RecordSchema {
    match Avro::parse_str(&schema.avro_text(NAMESPACE)).unwrap() {
        Avro::Record(record) => record,
        other => panic!("{other:?}"),
    }
}

#[test]
fn avro_mirrors_are_avro_and_have_the_fields_in_order() {
    for topic in &Catalog::builtin().topics {
        let record = parsed(&topic.schema);
        assert_eq!(record.name.fullname(None), format!("aion.events.{}", topic.schema.name));
        assert_eq!(record.fields.len(), topic.schema.fields.len());
        for (avro, field) in record.fields.iter().zip(&topic.schema.fields) {
            assert_eq!(avro.name, *field.name);
            assert!(avro.doc.as_ref().unwrap().starts_with(&*field.doc));
            let own = match &avro.schema {
                Avro::Union(union) => {
                    assert!(!field.required && avro.default == Some(json!(null)), "{}", avro.name);
                    assert!(matches!(union.variants()[0], Avro::Null));
                    assert_eq!(union.variants().len(), 2);
                    union.variants()[1].clone()
                }
                own => {
                    assert!(field.required && avro.default.is_none(), "{}", avro.name);
                    own.clone()
                }
            };
            let same = match field.kind {
                Kind::Text | Kind::Object => matches!(own, Avro::String),
                Kind::Integer => matches!(own, Avro::Long),
                Kind::Number => matches!(own, Avro::Double),
                Kind::Boolean => matches!(own, Avro::Boolean),
                Kind::Time => matches!(own, Avro::TimestampMicros),
                Kind::Bytes => matches!(own, Avro::Bytes),
            };
            assert!(same, "{}: {own:?}", field.name);
        }
    }
}

#[test]
fn the_text_of_a_mirror_says_what_the_value_says() {
    for topic in &Catalog::builtin().topics {
        let text = topic.schema.avro_text(NAMESPACE);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, topic.schema.avro(NAMESPACE));
        assert!(text.starts_with("{\n  \"type\": \"record\",\n  \"name\": "), "{text}");
    }
}

#[test]
fn objects_say_that_they_hold_text() {
    let catalog = Catalog::builtin();
    let record = parsed(&catalog.table("tasks").unwrap().schema);
    let metadata = record.fields.iter().find(|field| field.name == "metadata").unwrap();
    assert!(metadata.doc.as_ref().unwrap().ends_with("The text of a JSON object."));
}

/// A schema of one text and one number field besides the time, with these changes made to it.
fn read(change: impl Fn(&mut serde_json::Value)) -> Result<Schema, String> {
    let mut file = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "A thing.",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "count", "timestamp"],
        "properties": {
            "name": { "description": "Its name.", "type": "string", "minLength": 2 },
            "count": { "description": "How many.", "type": "integer", "x-unit": "things" },
            "timestamp": { "description": "When.", "type": "string", "format": "date-time" },
            "more": { "description": "What else.", "type": "object" },
        },
    });
    change(&mut file);
    let mut problems = crate::catalog::Problems::default();
    let file_of =
        json::File { name: "thing", shown: "thing", event_time: "timestamp", internal: false };
    let read = file_of.read(&file.to_string(), &mut problems);
    read.map(|(schema, _)| schema).ok_or_else(|| format!("{problems:?}"))
}

#[test]
fn former_names_and_defaults_are_read_and_mirrored() {
    let schema = read(|file| {
        file["properties"]["name"]["x-aliases"] = json!(["title", "oldName"]);
        file["properties"]["count"]["default"] = json!(1);
        file["properties"]["more"]["x-aliases"] = json!(["rest"]);
    });
    let schema = schema.unwrap();
    let record = parsed(&schema);
    let field = |name: &str| record.fields.iter().find(|field| field.name == name).unwrap();
    assert_eq!(field("name").aliases, ["title", "oldName"]);
    assert_eq!((&field("count").default, field("count").aliases.len()), (&Some(json!(1)), 0));
    assert_eq!(field("more").aliases, ["rest"]);
}

#[test]
fn former_names_and_defaults_that_mean_nothing_are_refused() {
    let set = |field: &'static str, keyword: &'static str, value: serde_json::Value| {
        read(move |file| file["properties"][field][keyword] = value.clone()).unwrap_err()
    };
    for (field, keyword, value, wanted) in [
        ("name", "default", json!(7), "isn't of the field's type"),
        ("name", "default", json!("x"), "own rules"),
        ("count", "default", json!(1.5), "isn't of the field's type"),
        ("timestamp", "default", json!("2026-01-01T00:00:00Z"), "can't have one"),
        ("more", "default", json!({}), "may be missing"),
        ("name", "x-aliases", json!("title"), "a list of names"),
        ("name", "x-aliases", json!([]), "a list of names"),
        ("name", "x-aliases", json!(["count"]), "another field"),
        ("name", "x-aliases", json!(["2nd"]), "isn't a name for Avro"),
    ] {
        let problems = set(field, keyword, value);
        assert!(problems.contains(wanted), "{field} {keyword}: {problems}");
    }
    let twice = read(|file| {
        file["properties"]["name"]["x-aliases"] = json!(["title"]);
        file["properties"]["count"]["x-aliases"] = json!(["title"]);
    });
    assert!(twice.unwrap_err().contains("another field"));
}
