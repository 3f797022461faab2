//! Events as Avro binary: one list of operations, compiled once per writer schema, over each body.
//!
//! The contract is the reader's schema, always; a writer's schema only says how its bytes are read
//! into the contract's columns, or passed over.

#![expect(
    clippy::inline_always,
    reason = "the loop over fields is made of these: each as a call is a tenth of the decoder"
)]

mod body;
mod near;
mod node;
mod resolve;
mod skip;
mod text;

pub(super) use resolve::Incompatible;

use self::{
    body::{Body, Tail},
    node::Node,
};
use super::{
    canonical::Canonical,
    columns::{Column, Columns, Texts, Values},
    json,
    reject::{Fault, Reason},
    time,
    unknown::Unknown,
};
use crate::schema::{Field, Kind};

/// How the bodies of one writer schema are read into the contract's columns.
#[derive(Debug)]
pub(super) struct Plan {
    fields: Fields,
    /// The types that [`Wire::Symbol`] and [`Wire::Tree`] name.
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Fields {
    /// Those of the contract, in its order: nearly every writer's.
    Same(Vec<Value>),
    Other(Vec<Op>),
}

/// What is done with one field of the writer.
#[derive(Debug)]
enum Op {
    /// Read it into a column.
    Read { column: usize, shape: Shape },
    /// Pass over it: the contract doesn't have it.
    Drop { name: Box<str>, node: Node },
}

/// The type of a field that is read.
#[derive(Debug)]
enum Shape {
    Value(Value),
    /// Nothing but nulls, which take no bytes.
    Null,
    /// Any other union.
    Union(Box<[Branch]>),
}

/// One type, or a union of it and null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value {
    null: Null,
    wire: Wire,
}

/// Which branch of a union of two is null, if it is a union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Null {
    Never,
    First,
    Second,
}

#[derive(Debug)]
enum Branch {
    Null,
    Value(Wire),
    /// A type that the column doesn't take: an event that has it is rejected.
    Other,
}

/// What the bytes of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// `string`, or `bytes` that a column of text takes.
    Text,
    /// `bytes`, or a `string` that a column of bytes takes.
    Bytes,
    Int,
    Long,
    TimeMillis,
    TimeMicros,
    TimeNanos,
    Float,
    Double,
    Boolean,
    /// An enum, one of the plan's nodes, whose symbol is the text.
    Symbol(u16),
    /// A map or a record, one of the plan's nodes, whose JSON text is that of a free object.
    Tree(u16),
}

/// What reading takes besides the columns; of no meaning between two events.
#[derive(Debug, Default)]
pub(super) struct Room {
    tail: Tail,
    objects: Objects,
}

/// What free objects take.
#[derive(Debug, Default)]
struct Objects {
    canonical: Canonical,
    text: Vec<u8>,
    /// The bytes of text that were made in this event, and didn't stand in it.
    made: usize,
}

impl Room {
    /// The bytes of text that the last event's bytes stood for, besides themselves.
    pub(super) fn made(&self) -> usize {
        self.objects.made
    }
}

impl Plan {
    /// The plan for the contract's own Avro mirror: fields in order, required ones plain, optional
    /// ones a union of null (first) and the type.
    pub(super) fn mirror(fields: &[Field]) -> Plan {
        let value = |field: &Field| Value {
            null: if field.required { Null::Never } else { Null::First },
            wire: match field.kind {
                Kind::Text | Kind::Object => Wire::Text,
                Kind::Bytes => Wire::Bytes,
                Kind::Integer => Wire::Long,
                Kind::Time => Wire::TimeMicros,
                Kind::Number => Wire::Double,
                Kind::Boolean => Wire::Boolean,
            },
        };
        Plan { fields: Fields::Same(fields.iter().map(value).collect()), nodes: Vec::new() }
    }

    fn of(ops: Vec<Op>, nodes: Vec<Node>, columns: usize) -> Plan {
        let same = |(at, op): (usize, &Op)| match op {
            Op::Read { column, shape: Shape::Value(value) } if *column == at => Some(*value),
            _ => None,
        };
        let same: Option<Vec<Value>> = ops.iter().enumerate().map(same).collect();
        let same = same.filter(|values| values.len() == columns);
        Plan { fields: same.map_or(Fields::Other(ops), Fields::Same), nodes }
    }

    /// Reads one body into `columns`, up to its end.
    pub(super) fn read(
        &self,
        body: &[u8],
        columns: &mut Columns,
        room: &mut Room,
        unknown: &mut Unknown,
    ) -> Result<(), Fault> {
        let Room { tail, objects } = room;
        objects.made = 0;
        let mut body = Body::new(body, tail);
        match &self.fields {
            Fields::Same(values) => {
                for (at, (value, column)) in values.iter().zip(columns.each()).enumerate() {
                    body.settle();
                    let read = value.read(&mut body, column, objects, &self.nodes);
                    read.map_err(|fault| fault.within(at))?;
                }
                body.end()
            }
            Fields::Other(ops) => {
                for op in ops {
                    body.settle();
                    body = op.read(body, columns, objects, unknown, &self.nodes)?;
                }
                body.end()?;
                columns.fill(body.at())
            }
        }
    }
}

impl Op {
    #[inline(never)]
    fn read<'a>(
        &self,
        mut body: Body<'a>,
        columns: &mut Columns,
        objects: &mut Objects,
        unknown: &mut Unknown,
        nodes: &[Node],
    ) -> Result<Body<'a>, Fault> {
        match self {
            Op::Read { column, shape } => {
                let opened = columns.open(*column, body.at())?;
                let read = shape.read(body, opened, objects, nodes);
                read.map_err(|fault| fault.within(*column))
            }
            Op::Drop { name, node } => {
                unknown.count(name.as_bytes());
                node.pass(&mut body)?;
                Ok(body)
            }
        }
    }
}

impl Shape {
    fn read<'a>(
        &self,
        mut body: Body<'a>,
        column: &mut Column,
        objects: &mut Objects,
        nodes: &[Node],
    ) -> Result<Body<'a>, Fault> {
        let wire = match self {
            Shape::Value(value) => {
                return value.read(&mut body, column, objects, nodes).map(|()| body);
            }
            Shape::Null => return column.push_null(body.at()).map(|()| body),
            Shape::Union(branches) => match body.branch(branches)? {
                Branch::Value(wire) => wire,
                Branch::Null => return column.push_null(body.at()).map(|()| body),
                Branch::Other => return Err(mismatch(body)),
            },
        };
        wire.read(body, &mut column.values, objects, nodes)
    }
}

impl Value {
    /// Reads a value into its column, or the null that comes in its place.
    #[inline(always)]
    fn read(
        self,
        body: &mut Body<'_>,
        column: &mut Column,
        objects: &mut Objects,
        nodes: &[Node],
    ) -> Result<(), Fault> {
        if let Some((window, left)) = body.window()
            && let Some(taken) = self.read_near(window, left, column)
        {
            body.pass(taken);
            return Ok(());
        }
        *body = self.read_far(*body, column, objects, nodes)?;
        Ok(())
    }

    /// As [`Value::read`], whatever the value is and wherever it ends.
    #[inline(never)]
    fn read_far<'a>(
        self,
        mut body: Body<'a>,
        column: &mut Column,
        objects: &mut Objects,
        nodes: &[Node],
    ) -> Result<Body<'a>, Fault> {
        if body.is_null(self.null)? {
            return column.push_null(body.at()).map(|()| body);
        }
        self.wire.read(body, &mut column.values, objects, nodes)
    }
}

impl Wire {
    /// Reads a value into its column.
    fn read<'a>(
        self,
        mut body: Body<'a>,
        values: &mut Values,
        objects: &mut Objects,
        nodes: &[Node],
    ) -> Result<Body<'a>, Fault> {
        match (values, self) {
            (Values::Text(texts), Wire::Text) => texts.push(body.text()?),
            (Values::Object(texts), Wire::Text) => {
                let text = body.text()?;
                let start = body.at() - text.len();
                json::object_text(text, &mut objects.canonical, texts.open())
                    .map_err(|f| f.beyond(start))?;
                texts.close();
            }
            (Values::Object(texts), Wire::Tree(node)) => {
                objects.read(&nodes[usize::from(node)], &mut body, texts)?;
            }
            (Values::Text(texts), Wire::Symbol(node)) => {
                let Node::Enum(symbols) = &nodes[usize::from(node)] else {
                    return Err(mismatch(body));
                };
                let symbol = body.symbol(symbols)?;
                objects.made += symbol.len();
                texts.push(symbol.as_bytes());
            }
            (Values::Bytes(texts), Wire::Bytes) => texts.push(body.prefixed()?),
            (Values::Integer(values), Wire::Long) => values.push(body.long()?),
            (Values::Integer(values), Wire::Int) => values.push(body.int()?),
            (Values::Time(times), Wire::TimeMicros) => {
                times.push(time(&mut body, |micros| micros)?);
            }
            (Values::Time(times), Wire::TimeMillis) => {
                times.push(time(&mut body, |millis| millis.saturating_mul(1000))?);
            }
            // Never rounded up, like the digits of a text after the sixth.
            (Values::Time(times), Wire::TimeNanos) => {
                times.push(time(&mut body, |nanos| nanos.div_euclid(1000))?);
            }
            (Values::Number(values), Wire::Double) => values.push(body.double()?),
            (Values::Number(values), Wire::Float) => values.push(body.float()?),
            (Values::Number(values), Wire::Long) => values.push(body.long()? as f64),
            (Values::Number(values), Wire::Int) => values.push(body.int()? as f64),
            (Values::Boolean(values), Wire::Boolean) => values.append(body.boolean()?),
            // Plans pair wires with the columns that take them.
            _ => return Err(mismatch(body)),
        }
        Ok(body)
    }
}

impl Objects {
    /// Reads a map or a record into a column of objects.
    fn read(&mut self, node: &Node, body: &mut Body<'_>, texts: &mut Texts) -> Result<(), Fault> {
        self.text.clear();
        node.write(body, &mut self.text)?;
        self.made += self.text.len();
        // Where in the text it was wrong says nothing to people: it isn't in the event.
        json::object_text(&self.text, &mut self.canonical, texts.open())
            .map_err(|fault| body.fault(fault.reason, fault.what))?;
        texts.close();
        Ok(())
    }
}

fn time(body: &mut Body<'_>, micros: impl Fn(i64) -> i64) -> Result<i64, Fault> {
    let at = body.at();
    let micros = micros(body.long()?);
    time::within_era(micros).map_err(|(reason, what)| Fault::new(reason, at, what))
}

fn mismatch(body: Body<'_>) -> Fault {
    body.fault(Reason::WrongType, "a type that the column doesn't take")
}
