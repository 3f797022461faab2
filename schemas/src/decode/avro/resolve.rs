//! A writer's schema against the contract: which field goes where, and which bytes are passed over.
//!
//! | column | the writer may have |
//! |---|---|
//! | text, object | `string`, `bytes` that are UTF-8 |
//! | bytes | `bytes`, `string` |
//! | integer | `int`, `long` |
//! | number | `double`, `float`, `long`, `int` |
//! | boolean | `boolean` |
//! | time | `timestamp-micros`, `timestamp-millis`; no bare `long`, whose unit is anyone's guess |
//!
//! Each may stand in a union, in any order, with null and with types that the column doesn't take: it
//! is the event that has such a value which is rejected. Fields are matched by name. A column that the
//! writer doesn't have is null if it is optional; a required one makes the schemas incompatible.

use std::collections::BTreeMap;

use apache_avro::schema::{InnerDecimalSchema, Schema as Avro, UuidSchema};

use super::{Branch, Op, Plan, Shape, Skip, Wire};
use crate::{
    decode::MAX_DETAIL_BYTES,
    schema::{Field, Kind},
};

/// How deep the types of a dropped field may nest; a type within itself never ends.
const MAX_TYPE_DEPTH: usize = 32;
/// How many types a dropped field may unfold to.
const MAX_TYPES: usize = 4096;

/// Why a writer's schema can't be read as the contract's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Incompatible(String);

impl Incompatible {
    fn new(mut why: String) -> Incompatible {
        if why.len() > MAX_DETAIL_BYTES {
            why.truncate(why.floor_char_boundary(MAX_DETAIL_BYTES));
        }
        Incompatible(why)
    }
}

impl Plan {
    /// The plan that reads what was written with `writer`, the text of an Avro schema.
    pub(in crate::decode) fn resolve(writer: &str, fields: &[Field]) -> Result<Plan, Incompatible> {
        let writer = Avro::parse_str(writer)
            .map_err(|error| Incompatible::new(format!("not an Avro schema: {error}")))?;
        let Avro::Record(record) = &writer else {
            return Err(Incompatible::new("the writer's schema isn't a record".to_owned()));
        };
        let mut types = Types::default();
        let mut ops = Vec::with_capacity(record.fields.len());
        for written in &record.fields {
            let column = fields.iter().position(|field| *field.name == *written.name);
            // Also where the field is read: a later one may refer to a type that it names.
            let skip = types.skip(&written.schema, 0);
            ops.push(match column {
                Some(column) => {
                    Op::Read { column, shape: shape(&fields[column], &written.schema)? }
                }
                None => Op::Drop { name: written.name.as_str().into(), skip: skip? },
            });
        }
        let is_read =
            |column| ops.iter().any(|op| matches!(op, Op::Read { column: c, .. } if *c == column));
        match fields.iter().enumerate().find(|(column, field)| field.required && !is_read(*column))
        {
            Some((_, field)) => Err(Incompatible::new(format!(
                "the writer doesn't have `{}`, which is required",
                field.name
            ))),
            None => Ok(Plan::of(ops, fields.len())),
        }
    }
}

fn shape(field: &Field, written: &Avro) -> Result<Shape, Incompatible> {
    let shape = match written {
        Avro::Union(union) => {
            let branch = |written: &Avro| match written {
                Avro::Null => Branch::Null,
                written => wire(field.kind, written).map_or(Branch::Other, Branch::Value),
            };
            let branches: Box<[Branch]> = union.variants().iter().map(branch).collect();
            let is_read = |branch: &Branch| match branch {
                Branch::Null => !field.required,
                Branch::Value(_) => true,
                Branch::Other => false,
            };
            match *branches {
                [Branch::Null, Branch::Value(wire)] => Some(Shape::Optional { null: 0, wire }),
                [Branch::Value(wire), Branch::Null] => Some(Shape::Optional { null: 1, wire }),
                _ => branches.iter().any(is_read).then_some(Shape::Union(branches)),
            }
        }
        written => wire(field.kind, written).map(Shape::Plain),
    };
    shape.ok_or_else(|| {
        Incompatible::new(format!(
            "the writer has `{}` in a type that its column doesn't take",
            field.name
        ))
    })
}

fn wire(kind: Kind, written: &Avro) -> Option<Wire> {
    Some(match (kind, written) {
        (
            Kind::Text | Kind::Object,
            Avro::String | Avro::Bytes | Avro::Uuid(UuidSchema::String),
        ) => Wire::Text,
        (Kind::Bytes, Avro::Bytes | Avro::String) => Wire::Bytes,
        (Kind::Integer | Kind::Number, Avro::Int) => Wire::Int,
        (Kind::Integer | Kind::Number, Avro::Long) => Wire::Long,
        (Kind::Number, Avro::Float) => Wire::Float,
        (Kind::Number, Avro::Double) => Wire::Double,
        (Kind::Boolean, Avro::Boolean) => Wire::Boolean,
        (Kind::Time, Avro::TimestampMicros) => Wire::TimeMicros,
        (Kind::Time, Avro::TimestampMillis) => Wire::TimeMillis,
        _ => return None,
    })
}

/// The named types met so far, and how many types were unfolded.
#[derive(Default)]
struct Types<'a> {
    named: BTreeMap<String, &'a Avro>,
    unfolded: usize,
}

impl<'a> Types<'a> {
    fn skip(&mut self, written: &'a Avro, depth: usize) -> Result<Skip, Incompatible> {
        self.unfolded += 1;
        if depth > MAX_TYPE_DEPTH || self.unfolded > MAX_TYPES {
            let why = "the writer's types are too many, too deep, or within themselves";
            return Err(Incompatible::new(why.to_owned()));
        }
        if let Some(name) = written.name() {
            self.named.entry(name.fullname(None)).or_insert(written);
        }
        Ok(match written {
            Avro::Boolean => Skip::Boolean,
            Avro::Null => Skip::Fixed(0),
            Avro::Float => Skip::Fixed(4),
            Avro::Double => Skip::Fixed(8),
            Avro::Bytes | Avro::BigDecimal | Avro::Uuid(UuidSchema::Bytes) => Skip::Prefixed,
            Avro::String | Avro::Uuid(UuidSchema::String) => Skip::Text,
            Avro::Fixed(fixed) | Avro::Duration(fixed) | Avro::Uuid(UuidSchema::Fixed(fixed)) => {
                Skip::Fixed(fixed.size)
            }
            Avro::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Skip::Prefixed,
                InnerDecimalSchema::Fixed(fixed) => Skip::Fixed(fixed.size),
            },
            Avro::Enum(symbols) => Skip::Enum(symbols.symbols.len()),
            Avro::Array(array) => Skip::Array(Box::new(self.skip(&array.items, depth + 1)?)),
            Avro::Map(map) => Skip::Map(Box::new(self.skip(&map.types, depth + 1)?)),
            Avro::Union(union) => Skip::Union(self.skips(union.variants(), depth + 1)?),
            Avro::Record(record) => {
                Skip::Record(self.skips(record.fields.iter().map(|f| &f.schema), depth + 1)?)
            }
            Avro::Ref { name } => {
                let named = self.named.get(&name.fullname(None)).copied();
                let missing = || Incompatible::new(format!("the writer doesn't define `{name}`"));
                self.skip(named.ok_or_else(missing)?, depth + 1)?
            }
            Avro::Int
            | Avro::Long
            | Avro::Date
            | Avro::TimeMillis
            | Avro::TimeMicros
            | Avro::TimestampMillis
            | Avro::TimestampMicros
            | Avro::TimestampNanos
            | Avro::LocalTimestampMillis
            | Avro::LocalTimestampMicros
            | Avro::LocalTimestampNanos => Skip::Varint,
        })
    }

    fn skips(
        &mut self,
        written: impl IntoIterator<Item = &'a Avro>,
        depth: usize,
    ) -> Result<Box<[Skip]>, Incompatible> {
        written.into_iter().map(|written| self.skip(written, depth)).collect()
    }
}
