//! A schema as it is registered, and when two are the same.

use aion_schemas::compatibility::AvroSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{api, refusal::Refusal};

/// A schema's text, and the schemas that it refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Schema {
    pub(super) schema: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) references: Vec<Reference>,
}

/// A schema that another one uses by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: u32,
}

impl Reference {
    pub(super) fn is_to(&self, subject: &str, version: u32) -> bool {
        self.subject == subject && self.version == version
    }
}

/// A request's body that has a schema in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    schema: Option<String>,
    schema_type: Option<String>,
    references: Option<Vec<Reference>>,
    id: Option<i64>,
    version: Option<i64>,
    rule_set: Option<Value>,
    metadata: Option<Value>,
}

impl Schema {
    /// Reads a request's body, and refuses what this registry doesn't keep.
    pub(super) fn read(body: &[u8]) -> Result<Schema, Refusal> {
        let request: Request = api::parse(body)?;
        if let Some(other) = request.schema_type.filter(|kind| kind != "AVRO") {
            return Err(Refusal::schema(&format!(
                "schema type {other}: the embedded registry keeps AVRO only"
            )));
        }
        if request.rule_set.is_some() || request.metadata.is_some() {
            return Err(Refusal::schema("the embedded registry keeps no rule sets or metadata"));
        }
        if request.id.is_some_and(|id| id > 0) || request.version.is_some_and(|version| version > 0)
        {
            return Err(Refusal::not_permitted(
                "Subject is not in import mode: the registry gives ids and versions itself",
            ));
        }
        match request.schema {
            Some(schema) if !schema.trim().is_empty() => {
                Ok(Schema { schema, references: request.references.unwrap_or_default() })
            }
            _ => Err(Refusal::schema("it is empty")),
        }
    }

    /// What makes two schemas the same: their JSON whatever the white space and the order of keys,
    /// and what they refer to.
    pub(super) fn identity(&self) -> Schema {
        let value = serde_json::from_str::<Value>(&self.schema);
        let schema = value.map_or_else(|_| self.schema.clone(), |value| value.to_string());
        Schema { schema, references: self.references.clone() }
    }

    /// The schema in the one form that all ways to write it have.
    pub(super) fn normal(&self, parsed: &AvroSchema) -> Schema {
        let mut references = self.references.clone();
        references.sort_by(|a, b| a.name.cmp(&b.name));
        Schema { schema: parsed.normal_form(), references }
    }
}
