//! A writer's schema against the contract: which field goes where, and which bytes are passed over.
//!
//! Avro's resolution rules, with the contract's Avro mirror as the reader's schema. Beyond them, where a
//! column can hold a value without a doubt what it means, it is taken (*):
//!
//! | column | the writer may have |
//! |---|---|
//! | text | `string`, `bytes` that are UTF-8; an `enum`, by its symbol (*) |
//! | object | `string` or `bytes`, the text of a JSON object; a `map` or a `record`, as JSON text (*) |
//! | bytes | `bytes`, `string` |
//! | integer | `int`, `long` |
//! | number | `double`, `float`, `long`, `int` |
//! | boolean | `boolean` |
//! | time | `timestamp-micros`, `timestamp-millis` (*), `timestamp-nanos`, cut to microseconds (*) |
//!
//! **Logical types.** An instant is the same instant in any unit. A bare `long` is no time, whose unit
//! would be anyone's guess, nor is a local time, which has no zone. In a column of numbers a logical type
//! is what it lies over, and a `uuid` over a string is text.
//!
//! **Unions.** Each type may stand in a union, in any order, with null and with types that the column
//! doesn't take: it is the event that has such a value which is rejected.
//!
//! **Names.** Fields are matched by name, or by a name that the contract's field had before. What the
//! record is called makes no difference: which topic a schema belongs to, its subject says. A column that
//! the writer doesn't have is null if it is optional, its default if it has one; else the schemas are
//! incompatible. A field that no column has is passed over, whatever its type.

use std::sync::Arc;

use apache_avro::schema::{RecordSchema, Schema as Avro, UuidSchema};

use super::{
    Branch, Null, Op, Plan, Shape, Value, Wire,
    node::{Node, Types},
};
use crate::{
    decode::MAX_DETAIL_BYTES,
    schema::{Field, Kind},
};

/// Why a writer's schema can't be read as the contract's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(in crate::decode) struct Incompatible {
    why: String,
    field: Option<Arc<str>>,
}

impl Incompatible {
    pub(super) fn new(mut why: String) -> Incompatible {
        if why.len() > MAX_DETAIL_BYTES {
            why.truncate(why.floor_char_boundary(MAX_DETAIL_BYTES));
        }
        Incompatible { why, field: None }
    }

    fn of(field: &Field, why: String) -> Incompatible {
        Incompatible { field: Some(Arc::clone(&field.name)), ..Incompatible::new(why) }
    }

    /// The contract's field that can't be read, where it is one.
    pub(in crate::decode) fn field(&self) -> Option<&Arc<str>> {
        self.field.as_ref()
    }
}

impl Plan {
    /// The plan that reads what was written with `writer`, the text of an Avro schema; `references` are
    /// the texts of the schemas that it refers to by name.
    pub(in crate::decode) fn resolve(
        writer: &str,
        references: &[String],
        fields: &[Field],
    ) -> Result<Plan, Incompatible> {
        let (writer, references) = Avro::parse_str_with_list(writer, references)
            .map_err(|error| Incompatible::new(format!("not an Avro schema: {error}")))?;
        let types = Types::with(&references);
        let Avro::Record(record) = types.behind(&writer) else {
            return Err(Incompatible::new("the writer's schema isn't a record".to_owned()));
        };
        Resolving { types, nodes: Vec::new(), fields }.plan(record)
    }
}

/// A plan in the making.
struct Resolving<'a> {
    types: Types<'a>,
    nodes: Vec<Node>,
    fields: &'a [Field],
}

impl<'a> Resolving<'a> {
    fn plan(mut self, record: &'a RecordSchema) -> Result<Plan, Incompatible> {
        let mut ops = Vec::with_capacity(record.fields.len());
        let mut is_read = vec![false; self.fields.len()];
        for written in &record.fields {
            // Also where the field is read: a later one may refer to a type that it names.
            let node = self.types.node(&written.schema, 0);
            let Some(column) = self.column(&written.name) else {
                ops.push(Op::Drop { name: written.name.as_str().into(), node: node? });
                continue;
            };
            let field = &self.fields[column];
            if std::mem::replace(&mut is_read[column], true) {
                let why = format!("the writer has `{}` under two of its names", field.name);
                return Err(Incompatible::of(field, why));
            }
            let shape = self.shape(field, &written.schema);
            let of_it = |flaw: Incompatible| Incompatible::of(field, flaw.why);
            ops.push(Op::Read { column, shape: shape.map_err(of_it)? });
        }
        let is_needed = |field: &Field| field.required && field.default.is_none();
        let mut missing =
            self.fields.iter().zip(is_read).filter(|(field, read)| !read && is_needed(field));
        match missing.next() {
            Some((field, _)) => {
                let why = format!("the writer doesn't have `{}`, which is required", field.name);
                Err(Incompatible::of(field, why))
            }
            None => Ok(Plan::of(ops, self.nodes, self.fields.len())),
        }
    }

    fn column(&self, name: &str) -> Option<usize> {
        let is_called = |field: &Field| *field.name == *name;
        let was_called = |field: &Field| field.aliases.iter().any(|alias| **alias == *name);
        let fields = || self.fields.iter();
        fields().position(is_called).or_else(|| fields().position(was_called))
    }

    fn shape(&mut self, field: &Field, written: &'a Avro) -> Result<Shape, Incompatible> {
        let shape = match written {
            Avro::Union(union) => {
                let mut branches = Vec::with_capacity(union.variants().len());
                for written in union.variants() {
                    branches.push(match written {
                        Avro::Null => Branch::Null,
                        written => {
                            self.wire(field.kind, written)?.map_or(Branch::Other, Branch::Value)
                        }
                    });
                }
                let is_read = |branch: &Branch| match branch {
                    Branch::Null => !field.required,
                    Branch::Value(_) => true,
                    Branch::Other => false,
                };
                match *branches {
                    [Branch::Null, Branch::Value(wire)] => {
                        Some(Shape::Value(Value { null: Null::First, wire }))
                    }
                    [Branch::Value(wire), Branch::Null] => {
                        Some(Shape::Value(Value { null: Null::Second, wire }))
                    }
                    _ => branches.iter().any(is_read).then(|| Shape::Union(branches.into())),
                }
            }
            Avro::Null => (!field.required).then_some(Shape::Null),
            written => {
                let wire = self.wire(field.kind, written)?;
                wire.map(|wire| Shape::Value(Value { null: Null::Never, wire }))
            }
        };
        shape.ok_or_else(|| {
            let why =
                format!("the writer has `{}` in a type that its column doesn't take", field.name);
            Incompatible::of(field, why)
        })
    }

    /// What the bytes of a type are to a column; `None` if they are nothing to it.
    fn wire(&mut self, kind: Kind, written: &'a Avro) -> Result<Option<Wire>, Incompatible> {
        let written = self.types.behind(written);
        Ok(Some(match (kind, written) {
            (Kind::Text, Avro::Enum(_)) => Wire::Symbol(self.keep(written)?),
            (Kind::Object, Avro::Map(_) | Avro::Record(_)) => {
                let at = self.keep(written)?;
                if !self.nodes[usize::from(at)].has_json() {
                    return Ok(None);
                }
                Wire::Tree(at)
            }
            (
                Kind::Text | Kind::Object,
                Avro::String | Avro::Bytes | Avro::Uuid(UuidSchema::String),
            ) => Wire::Text,
            (Kind::Bytes, Avro::Bytes | Avro::String) => Wire::Bytes,
            (Kind::Number, Avro::Float) => Wire::Float,
            (Kind::Number, Avro::Double) => Wire::Double,
            (Kind::Boolean, Avro::Boolean) => Wire::Boolean,
            (Kind::Time, Avro::TimestampMicros) => Wire::TimeMicros,
            (Kind::Time, Avro::TimestampMillis) => Wire::TimeMillis,
            (Kind::Time, Avro::TimestampNanos) => Wire::TimeNanos,
            (Kind::Integer | Kind::Number, written) => match self.types.node(written, 0)? {
                Node::Int => Wire::Int,
                Node::Long => Wire::Long,
                _ => return Ok(None),
            },
            _ => return Ok(None),
        }))
    }

    /// Keeps a type in the plan; answers its place.
    fn keep(&mut self, written: &'a Avro) -> Result<u16, Incompatible> {
        let node = self.types.node(written, 0)?;
        self.nodes.push(node);
        let too_many = |_| Incompatible::new("the writer has too many fields".to_owned());
        u16::try_from(self.nodes.len() - 1).map_err(too_many)
    }
}
