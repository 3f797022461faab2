#![allow(clippy::unwrap_used)]

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
