//! The Avro mirror of a schema: what producers register, and what the decoder takes for the
//! reader's schema.
//!
//! | kind | Avro |
//! |---|---|
//! | `Text` | `string` |
//! | `Integer`, `Number`, `Boolean`, `Bytes` | `long`, `double`, `boolean`, `bytes` |
//! | `Time` | `long` of logical type `timestamp-micros` |
//! | `Object` | `string` that holds the text of a JSON object |
//!
//! A field that may be missing is a union with null, null first, and null is its default; so a
//! field that is added later can be read from what was written before (`BACKWARD_TRANSITIVE`). A required
//! field has the default that the contract gives it, if any. Former names are its aliases.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Field, Kind, Schema};

/// The namespace of the mirrors in `bigdata/schemas`.
pub const NAMESPACE: &str = "aion.events";

/// What the doc of a field ends in whose text is an object's: Avro itself doesn't tell them apart.
pub(crate) const OBJECT_NOTE: &str = "The text of a JSON object.";

/// A record in the order in which people read one; a [`Value`] would sort the keys.
#[derive(Serialize)]
struct Record<'a> {
    r#type: &'static str,
    name: &'a str,
    namespace: &'a str,
    doc: &'a str,
    fields: Vec<RecordField<'a>>,
}

#[derive(Serialize)]
struct RecordField<'a> {
    name: &'a str,
    doc: String,
    r#type: Value,
    /// The default: `Some(null)` where the field may be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    aliases: &'a [Arc<str>],
}

impl Schema {
    /// The Avro record in that namespace.
    pub fn avro(&self, namespace: &str) -> Value {
        json!(self.record(namespace))
    }

    /// The Avro record as the text of a file, its keys in the order that people expect.
    pub fn avro_text(&self, namespace: &str) -> String {
        // Writing derived structs of strings can't fail; the compact form has the same content.
        let record = self.record(namespace);
        let text = serde_json::to_string_pretty(&record)
            .unwrap_or_else(|_| self.avro(namespace).to_string());
        text + "\n"
    }

    fn record<'a>(&'a self, namespace: &'a str) -> Record<'a> {
        Record {
            r#type: "record",
            name: &self.name,
            namespace,
            doc: &self.doc,
            fields: self.fields.iter().map(field).collect(),
        }
    }
}

fn field(field: &Field) -> RecordField<'_> {
    let own = match field.kind {
        Kind::Text | Kind::Object => json!("string"),
        Kind::Integer => json!("long"),
        Kind::Number => json!("double"),
        Kind::Boolean => json!("boolean"),
        Kind::Time => json!({ "type": "long", "logicalType": "timestamp-micros" }),
        Kind::Bytes => json!("bytes"),
    };
    let doc = match field.kind {
        Kind::Object => format!("{} {OBJECT_NOTE}", field.doc),
        _ => field.doc.to_string(),
    };
    let (r#type, default) = if field.required {
        (own, field.default.as_ref().map(|default| avro_default(field.kind, default)))
    } else {
        (json!(["null", own]), Some(Value::Null))
    };
    RecordField { name: &field.name, doc, r#type, default, aliases: &field.aliases }
}

/// A default as Avro writes it: an object is a string that holds its text.
fn avro_default(kind: Kind, default: &Value) -> Value {
    match kind {
        Kind::Object => Value::String(default.to_string()),
        _ => default.clone(),
    }
}
