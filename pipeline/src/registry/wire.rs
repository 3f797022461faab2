//! What stands in requests and answers.

use std::fmt;

use aion_schemas::compatibility::Level;
use serde::{Deserialize, Deserializer, Serialize};

/// A schema as it is sent to a registry, or comes from one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Its text.
    #[serde(rename = "schema")]
    pub text: String,
    /// Its language.
    #[serde(rename = "schemaType", default, deserialize_with = "or_default")]
    pub kind: SchemaKind,
    /// The schemas whose names it uses.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
}

impl Schema {
    /// An Avro schema that refers to no other.
    pub fn avro(text: impl Into<String>) -> Schema {
        Schema { text: text.into(), kind: SchemaKind::Avro, references: Vec::new() }
    }
}

/// The language of a schema; a registry that says none means Avro.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SchemaKind {
    /// Avro.
    #[default]
    Avro,
    /// JSON Schema.
    Json,
    /// Protobuf.
    Protobuf,
    /// A language that this program doesn't know.
    #[serde(other, skip_serializing)]
    Other,
}

impl fmt::Display for SchemaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SchemaKind::Avro => "Avro",
            SchemaKind::Json => "JSON Schema",
            SchemaKind::Protobuf => "Protobuf",
            SchemaKind::Other => "a language of its own",
        })
    }
}

/// A schema that another one uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// The full name by which it is used.
    pub name: String,
    /// The subject under which it is registered.
    pub subject: String,
    /// The version of that subject.
    pub version: u32,
}

/// A version of a subject, with its schema.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Registered {
    /// The subject.
    pub subject: String,
    /// The version in it.
    pub version: u32,
    /// The schema's id, one for all subjects.
    pub id: u32,
    /// The schema.
    #[serde(flatten)]
    pub schema: Schema,
}

/// Where a schema is registered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SubjectVersion {
    /// The subject.
    pub subject: String,
    /// The version in it.
    pub version: u32,
}

/// Which version of a subject is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The greatest one.
    Latest,
    /// This one, from 1 on.
    Number(u32),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Latest => f.write_str("latest"),
            Version::Number(number) => number.fmt(f),
        }
    }
}

/// Whether a schema goes together with those that are registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it does.
    pub is_compatible: bool,
    /// Why not, where the registry says.
    pub messages: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct IdAnswer {
    pub(super) id: u32,
}

#[derive(Deserialize)]
pub(super) struct CheckAnswer {
    pub(super) is_compatible: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) messages: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct ConfigAnswer {
    #[serde(rename = "compatibilityLevel")]
    pub(super) level: Level,
}

#[derive(Serialize)]
pub(super) struct ConfigRequest {
    pub(super) compatibility: Level,
}

/// What a registry says when it says no.
#[derive(Deserialize)]
pub(super) struct ErrorAnswer {
    pub(super) error_code: u32,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) message: String,
}

/// Some registries write null where others write nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
