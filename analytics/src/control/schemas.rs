//! `schemas`: the texts by which events are read and written, topic by topic: the contract's, and a registry's.

use std::sync::Arc;

use aion_schemas::{
    catalog::{Catalog, Topic},
    schema::NAMESPACE,
};
use arrow::{
    array::{ArrayRef, BooleanArray, Int32Array, StringViewArray},
    datatypes::DataType,
};
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt, stream};
use ring::digest::{SHA256, digest};

use super::{Column, Streamed, Told};
use crate::{error::Error, exports::request::hex, tables::TableInfo};

/// The table's name.
pub(crate) const TABLE: &str = "schemas";

/// A schema of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaText {
    /// The topic.
    pub topic: Arc<str>,
    /// The table that it fills.
    pub table: Arc<str>,
    /// The subject in registries; `None` for a topic that isn't registered.
    pub subject: Option<String>,
    /// `avro`, `json_schema`, `protobuf` or `other`.
    pub format: &'static str,
    /// What the registry says of it; `None` of the contract's own.
    pub registered: Option<Registered>,
    /// Its text.
    pub text: Arc<str>,
}

/// How a schema stands in a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The version of the subject.
    pub version: u32,
    /// The schema's id.
    pub id: u32,
    /// Whether the version was deleted, and its id still leads to the schema.
    pub is_deleted: bool,
}

fn columns() -> [Column; 10] {
    use DataType::{Boolean, Int32, Utf8View};
    [
        ("topic", Utf8View, false, "Name of the topic."),
        ("table_name", Utf8View, false, "Table that the topic fills."),
        (
            "source",
            Utf8View,
            false,
            "contract = what this process goes by, registry = a version that is registered.",
        ),
        (
            "subject",
            Utf8View,
            true,
            "Subject in the registry; null for topics that are not registered.",
        ),
        ("format", Utf8View, false, "avro, json_schema, protobuf or other."),
        ("version", Int32, true, "Version of the subject; null of the contract's."),
        ("id", Int32, true, "Id by which the registry knows the schema; null of the contract's."),
        (
            "deleted",
            Boolean,
            true,
            "Whether the version was deleted, so that only what was written with it still needs it; null of the contract's.",
        ),
        ("fingerprint", Utf8View, false, "SHA-256 of the text, in hexadecimal digits."),
        ("text", Utf8View, false, "The schema."),
    ]
}

/// What people see of the table.
pub(crate) fn info() -> TableInfo {
    let doc = "Schemas of each topic: the contract's, and the registered ones where there is a registry to ask.";
    super::info(TABLE, doc, &columns())
}

/// The contract's schemas: what events are held against, and its Avro mirror where one is registered.
pub(crate) fn of(catalog: &Catalog) -> Vec<SchemaText> {
    catalog.topics.iter().flat_map(of_topic).collect()
}

fn of_topic(topic: &Topic) -> impl Iterator<Item = SchemaText> {
    let is_registered = !topic.internal;
    let json = SchemaText {
        topic: Arc::clone(&topic.name),
        table: Arc::clone(&topic.table),
        subject: is_registered.then(|| topic.subject()),
        format: "json_schema",
        registered: None,
        text: topic.json_schema.to_string().into(),
    };
    let avro = is_registered.then(|| SchemaText {
        format: "avro",
        text: topic.schema.avro_text(NAMESPACE).into(),
        ..json.clone()
    });
    std::iter::once(json).chain(avro)
}

/// The table: these, and then those that a registry tells.
pub(crate) fn table(contract: Vec<SchemaText>, told: Option<Told<SchemaText>>) -> Streamed {
    let failed = |cause| {
        let what = "the schemas of the registry".to_owned();
        DataFusionError::from(Error::Read { what, cause })
    };
    let rows = move || {
        let ours = stream::iter(contract.clone().into_iter().map(Ok::<_, DataFusionError>));
        match &told {
            None => ours.boxed(),
            Some(told) => ours.chain(told.rows().map_err(failed)).boxed(),
        }
    };
    Streamed::new(&columns(), rows, |row| row.text.len(), arrays)
}

fn arrays(rows: &[SchemaText]) -> Vec<ArrayRef> {
    let texts = |of: fn(&SchemaText) -> &str| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(of)))
    };
    let registered = || rows.iter().map(|row| row.registered);
    let numbers = |of: fn(Registered) -> u32| -> ArrayRef {
        let numbers = registered().map(|one| one.map(|one| of(one) as i32));
        Arc::new(numbers.collect::<Int32Array>())
    };
    let subjects = rows.iter().map(|row| row.subject.as_deref());
    let deleted = registered().map(|one| one.map(|one| one.is_deleted));
    let prints = rows.iter().map(|row| hex(digest(&SHA256, row.text.as_bytes()).as_ref()));
    vec![
        texts(|row| &row.topic),
        texts(|row| &row.table),
        texts(|row| if row.registered.is_some() { "registry" } else { "contract" }),
        Arc::new(subjects.collect::<StringViewArray>()),
        texts(|row| row.format),
        numbers(|one| one.version),
        numbers(|one| one.id),
        Arc::new(deleted.collect::<BooleanArray>()),
        Arc::new(StringViewArray::from_iter_values(prints)),
        texts(|row| &row.text),
    ]
}
