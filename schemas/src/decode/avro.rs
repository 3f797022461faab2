//! Events as Avro binary: one list of operations, compiled once per writer schema, over each body.
//!
//! The contract is the reader's schema, always; a writer's schema only says how its bytes are read
//! into the contract's columns, or passed over.

mod body;
mod node;
mod resolve;
mod skip;
mod text;

pub(super) use resolve::Incompatible;

use self::{body::Body, node::Node};
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
    ops: Vec<Op>,
    /// The types that [`Wire::Symbol`] and [`Wire::Tree`] name.
    nodes: Vec<Node>,
    /// Whether every column is read exactly once, so that none has to be looked after.
    covers: bool,
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
    Plain(Wire),
    /// Nothing but nulls, which take no bytes.
    Null,
    /// A union of null, which is branch `null`, and one type.
    Optional {
        null: i64,
        wire: Wire,
    },
    Union(Box<[Branch]>),
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
    padded: Vec<u8>,
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
        let op = |(column, field): (usize, &Field)| {
            let wire = match field.kind {
                Kind::Text | Kind::Object => Wire::Text,
                Kind::Bytes => Wire::Bytes,
                Kind::Integer => Wire::Long,
                Kind::Time => Wire::TimeMicros,
                Kind::Number => Wire::Double,
                Kind::Boolean => Wire::Boolean,
            };
            let shape =
                if field.required { Shape::Plain(wire) } else { Shape::Optional { null: 0, wire } };
            Op::Read { column, shape }
        };
        Plan::of(fields.iter().enumerate().map(op).collect(), Vec::new(), fields.len())
    }

    fn of(ops: Vec<Op>, nodes: Vec<Node>, columns: usize) -> Plan {
        let read = |op: &Op| match op {
            Op::Read { column, .. } => Some(*column),
            Op::Drop { .. } => None,
        };
        let mut all: Vec<usize> = ops.iter().filter_map(read).collect();
        all.sort_unstable();
        let covers = all.into_iter().eq(0..columns);
        Plan { ops, nodes, covers }
    }

    /// Reads one body into `columns`, up to its end.
    pub(super) fn read(
        &self,
        body: &[u8],
        columns: &mut Columns,
        room: &mut Room,
        unknown: &mut Unknown,
    ) -> Result<(), Fault> {
        let Room { padded, objects } = room;
        objects.made = 0;
        let mut body = Body::new(body, padded);
        for op in &self.ops {
            match op {
                Op::Read { column, shape } => {
                    let opened = if self.covers {
                        columns.column(*column)
                    } else {
                        columns.open(*column, body.at())?
                    };
                    shape
                        .read(&mut body, opened, objects, &self.nodes)
                        .map_err(|f| f.within(*column))?;
                }
                Op::Drop { name, node } => {
                    unknown.count(name.as_bytes());
                    node.pass(&mut body)?;
                }
            }
        }
        body.end()?;
        if self.covers { Ok(()) } else { columns.fill(body.at()) }
    }
}

impl Shape {
    fn read(
        &self,
        body: &mut Body<'_>,
        column: &mut Column,
        objects: &mut Objects,
        nodes: &[Node],
    ) -> Result<(), Fault> {
        let wire = match self {
            Shape::Plain(wire) => *wire,
            Shape::Null => return column.push_null(body.at()),
            Shape::Optional { null, wire } => match body.long()? {
                branch if branch == *null => return column.push_null(body.at()),
                branch if branch == 1 - *null => *wire,
                _ => return Err(body.no_branch()),
            },
            Shape::Union(branches) => match body.branch(branches)? {
                Branch::Value(wire) => *wire,
                Branch::Null => return column.push_null(body.at()),
                Branch::Other => return Err(mismatch(body)),
            },
        };
        wire.read(body, &mut column.values, objects, nodes)
    }
}

impl Wire {
    fn read(
        self,
        body: &mut Body<'_>,
        values: &mut Values,
        objects: &mut Objects,
        nodes: &[Node],
    ) -> Result<(), Fault> {
        match (values, self) {
            (Values::Text(texts), Wire::Text) => body.text_into(texts)?,
            (Values::Object(texts), Wire::Text) => {
                let text = body.text()?;
                let start = body.at() - text.len();
                json::object_text(text, &mut objects.canonical, texts.open())
                    .map_err(|f| f.beyond(start))?;
                texts.close();
            }
            (Values::Object(texts), Wire::Tree(node)) => {
                objects.read(&nodes[usize::from(node)], body, texts)?;
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
            (Values::Time(times), Wire::TimeMicros) => times.push(time(body, |micros| micros)?),
            (Values::Time(times), Wire::TimeMillis) => {
                times.push(time(body, |millis| millis.saturating_mul(1000))?);
            }
            // Never rounded up, like the digits of a text after the sixth.
            (Values::Time(times), Wire::TimeNanos) => {
                times.push(time(body, |nanos| nanos.div_euclid(1000))?);
            }
            (Values::Number(values), Wire::Double) => values.push(body.double()?),
            (Values::Number(values), Wire::Float) => values.push(body.float()?),
            (Values::Number(values), Wire::Long) => values.push(body.long()? as f64),
            (Values::Number(values), Wire::Int) => values.push(body.int()? as f64),
            (Values::Boolean(values), Wire::Boolean) => values.append(body.boolean()?),
            // Plans pair wires with the columns that take them.
            _ => return Err(mismatch(body)),
        }
        Ok(())
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

fn mismatch(body: &Body<'_>) -> Fault {
    body.fault(Reason::WrongType, "a type that the column doesn't take")
}
