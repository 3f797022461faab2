//! The types of a writer's schema, as far as their values are passed over or written as JSON text.

use std::collections::BTreeMap;

use apache_avro::schema::{InnerDecimalSchema, Schema as Avro, UuidSchema};

use super::resolve::Incompatible;

/// How deep the types of a field may nest; a type within itself never ends.
const MAX_TYPE_DEPTH: usize = 32;
/// How many types the fields of a writer may unfold to.
const MAX_TYPES: usize = 4096;

/// A type.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    /// `int`, or a logical type over it.
    Int,
    /// `long`, or a logical type over it.
    Long,
    Float,
    Double,
    Text,
    /// `bytes`, or a logical type over it.
    Bytes,
    Fixed(usize),
    Enum(Box<[Box<str>]>),
    Union(Box<[Node]>),
    Record(Box<[(Box<str>, Node)]>),
    /// Blocks of items.
    Array(Box<Node>),
    /// Blocks of names and values.
    Map(Box<Node>),
}

impl Node {
    /// Whether each of its values has a form in JSON; bytes have none that all agree on.
    pub(super) fn has_json(&self) -> bool {
        match self {
            Node::Bytes | Node::Fixed(_) => false,
            Node::Union(branches) => branches.iter().all(Node::has_json),
            Node::Record(fields) => fields.iter().all(|(_, field)| field.has_json()),
            Node::Array(item) | Node::Map(item) => item.has_json(),
            _ => true,
        }
    }
}

/// The named types met so far, and how many types were unfolded.
#[derive(Default)]
pub(super) struct Types<'a> {
    named: BTreeMap<String, &'a Avro>,
    unfolded: usize,
}

impl<'a> Types<'a> {
    /// Notes the types that other schemas define.
    pub(super) fn with(references: &'a [Avro]) -> Types<'a> {
        let mut types = Types::default();
        for reference in references {
            // Notes the names; whether it can be unfolded matters only where it is used.
            drop(types.node(reference, 0));
        }
        types.unfolded = 0;
        types
    }

    /// The type that a reference stands for; any other as it is.
    pub(super) fn behind(&self, written: &'a Avro) -> &'a Avro {
        match written {
            Avro::Ref { name } => self.named.get(&name.fullname(None)).copied().unwrap_or(written),
            written => written,
        }
    }

    /// Unfolds a type, and notes those that it names.
    pub(super) fn node(&mut self, written: &'a Avro, depth: usize) -> Result<Node, Incompatible> {
        self.unfolded += 1;
        if depth > MAX_TYPE_DEPTH || self.unfolded > MAX_TYPES {
            let why = "the writer's types are too many, too deep, or within themselves";
            return Err(Incompatible::new(why.to_owned()));
        }
        if let Some(name) = written.name() {
            self.named.entry(name.fullname(None)).or_insert(written);
        }
        Ok(match written {
            Avro::Null => Node::Null,
            Avro::Boolean => Node::Boolean,
            Avro::Float => Node::Float,
            Avro::Double => Node::Double,
            Avro::Bytes | Avro::BigDecimal | Avro::Uuid(UuidSchema::Bytes) => Node::Bytes,
            Avro::String | Avro::Uuid(UuidSchema::String) => Node::Text,
            Avro::Fixed(fixed) | Avro::Duration(fixed) | Avro::Uuid(UuidSchema::Fixed(fixed)) => {
                Node::Fixed(fixed.size)
            }
            Avro::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Node::Bytes,
                InnerDecimalSchema::Fixed(fixed) => Node::Fixed(fixed.size),
            },
            Avro::Enum(symbols) => {
                Node::Enum(symbols.symbols.iter().map(|symbol| symbol.as_str().into()).collect())
            }
            Avro::Array(array) => Node::Array(Box::new(self.node(&array.items, depth + 1)?)),
            Avro::Map(map) => Node::Map(Box::new(self.node(&map.types, depth + 1)?)),
            Avro::Union(union) => {
                let branches = union.variants().iter();
                let nodes: Result<_, _> = branches.map(|one| self.node(one, depth + 1)).collect();
                Node::Union(nodes?)
            }
            Avro::Record(record) => {
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push((field.name.as_str().into(), self.node(&field.schema, depth + 1)?));
                }
                Node::Record(fields.into())
            }
            Avro::Ref { name } => {
                let named = self.named.get(&name.fullname(None)).copied();
                let missing = || Incompatible::new(format!("the writer doesn't define `{name}`"));
                self.node(named.ok_or_else(missing)?, depth + 1)?
            }
            Avro::Int | Avro::Date | Avro::TimeMillis => Node::Int,
            Avro::Long
            | Avro::TimeMicros
            | Avro::TimestampMillis
            | Avro::TimestampMicros
            | Avro::TimestampNanos
            | Avro::LocalTimestampMillis
            | Avro::LocalTimestampMicros
            | Avro::LocalTimestampNanos => Node::Long,
        })
    }
}
