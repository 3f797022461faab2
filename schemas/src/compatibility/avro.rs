//! An Avro schema together with the definitions that it refers to.

use std::collections::HashMap;

use apache_avro::schema::{
    DecimalSchema, EnumSchema, FixedSchema, InnerDecimalSchema, Name, RecordSchema, Schema,
    UuidSchema,
};
use serde_json::{Value, json};

/// The record that holds definitions and schema while they are parsed as one.
const HOLDER: &str = "aion_schema_and_its_references";

/// A parsed Avro schema, and the schemas whose names it uses.
#[derive(Clone, Debug)]
pub struct AvroSchema {
    /// A record; the type of its last field is the schema.
    holder: Schema,
}

impl AvroSchema {
    /// Parses the text of a schema. Each of `dependencies` stands after those that it refers to.
    pub fn parse<T: AsRef<str>>(text: &str, dependencies: &[T]) -> Result<AvroSchema, String> {
        let texts = dependencies.iter().map(AsRef::as_ref).chain([text]);
        let mut fields = Vec::new();
        for (n, text) in texts.enumerate() {
            let schema: Value =
                serde_json::from_str(text).map_err(|cause| format!("not JSON: {cause}"))?;
            fields.push(json!({ "name": format!("f{n}"), "type": schema }));
        }
        // As fields of one record, definitions are known to what stands behind them.
        let holder = json!({ "type": "record", "name": HOLDER, "fields": fields });
        let holder = Schema::parse(&holder).map_err(|cause| cause.to_string())?;
        Ok(AvroSchema { holder })
    }

    /// The schema itself.
    pub fn root(&self) -> &Schema {
        match &self.holder {
            Schema::Record(holder) => {
                holder.fields.last().map_or(&self.holder, |field| &field.schema)
            }
            other => other,
        }
    }

    /// The schema's text in the one form that all ways to write it have: full names, sorted keys, no
    /// white space. Docs, defaults and aliases stay.
    pub fn normal_form(&self) -> String {
        // What was parsed from JSON always encodes.
        serde_json::to_value(self.root()).map(|value| value.to_string()).unwrap_or_default()
    }

    /// The definitions by their full names.
    pub(super) fn names(&self) -> Names<'_> {
        let mut names = Names::default();
        let mut waiting = vec![&self.holder];
        while let Some(schema) = waiting.pop() {
            if let (Some(name), false) = (schema.name(), matches!(schema, Schema::Ref { .. })) {
                names.0.insert(name, schema);
            }
            match schema {
                Schema::Record(record) => {
                    waiting.extend(record.fields.iter().map(|field| &field.schema));
                }
                Schema::Array(array) => waiting.push(&array.items),
                Schema::Map(map) => waiting.push(&map.types),
                Schema::Union(union) => waiting.extend(union.variants()),
                _ => {}
            }
        }
        names
    }
}

/// Definitions by their full names.
#[derive(Debug, Default)]
pub(super) struct Names<'a>(HashMap<&'a Name, &'a Schema>);

impl<'a> Names<'a> {
    /// What a schema is on the wire, whatever its logical type.
    pub(super) fn wire(&self, schema: &'a Schema) -> Wire<'a> {
        match schema {
            // A parsed schema has no names that aren't defined in it.
            Schema::Ref { name } => self.0.get(name).map_or(Wire::Null, |found| self.wire(found)),
            Schema::Null => Wire::Null,
            Schema::Boolean => Wire::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Wire::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Wire::Long,
            Schema::Float => Wire::Float,
            Schema::Double => Wire::Double,
            Schema::Bytes
            | Schema::BigDecimal
            | Schema::Uuid(UuidSchema::Bytes)
            | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Bytes, .. }) => {
                Wire::Bytes
            }
            Schema::String | Schema::Uuid(UuidSchema::String) => Wire::String,
            Schema::Fixed(fixed)
            | Schema::Duration(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed))
            | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Fixed(fixed), .. }) => {
                Wire::Fixed(fixed)
            }
            Schema::Array(array) => Wire::Array(&array.items),
            Schema::Map(map) => Wire::Map(&map.types),
            Schema::Union(union) => Wire::Union(union.variants()),
            Schema::Record(record) => Wire::Record(record),
            Schema::Enum(one) => Wire::Enum(one),
        }
    }
}

/// The types that Avro writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Array(&'a Schema),
    Map(&'a Schema),
    Union(&'a [Schema]),
    Record(&'a RecordSchema),
    Enum(&'a EnumSchema),
    Fixed(&'a FixedSchema),
}

impl Wire<'_> {
    /// The type for people: `record aion.events.router_decision`.
    pub(super) fn title(&self) -> String {
        match self {
            Wire::Null => "null".to_owned(),
            Wire::Boolean => "boolean".to_owned(),
            Wire::Int => "int".to_owned(),
            Wire::Long => "long".to_owned(),
            Wire::Float => "float".to_owned(),
            Wire::Double => "double".to_owned(),
            Wire::Bytes => "bytes".to_owned(),
            Wire::String => "string".to_owned(),
            Wire::Array(_) => "array".to_owned(),
            Wire::Map(_) => "map".to_owned(),
            Wire::Union(_) => "union".to_owned(),
            Wire::Record(record) => format!("record {}", record.name),
            Wire::Enum(one) => format!("enum {}", one.name),
            Wire::Fixed(fixed) => format!("fixed {}", fixed.name),
        }
    }
}
