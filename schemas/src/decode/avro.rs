//! Events as Avro binary: one list of operations, compiled once per writer schema, over each body.
//!
//! The contract is the reader's schema, always; a writer's schema only says how its bytes are read
//! into the contract's columns, or passed over.

mod body;
mod resolve;
mod skip;

pub use resolve::Incompatible;

use self::{body::Body, skip::Skip};
use super::{
    canonical::Canonical,
    columns::{Column, Columns, Values},
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
    /// Whether every column is read exactly once, so that none has to be looked after.
    covers: bool,
}

/// What is done with one field of the writer.
#[derive(Debug)]
enum Op {
    /// Read it into a column.
    Read { column: usize, shape: Shape },
    /// Pass over it: the contract doesn't have it.
    Drop { name: Box<str>, skip: Skip },
}

/// The type of a field that is read.
#[derive(Debug)]
enum Shape {
    Plain(Wire),
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
    Float,
    Double,
    Boolean,
}

/// What reading takes besides the columns; of no meaning between two events.
#[derive(Debug, Default)]
pub(super) struct Room {
    padded: Vec<u8>,
    canonical: Canonical,
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
        Plan::of(fields.iter().enumerate().map(op).collect(), fields.len())
    }

    fn of(ops: Vec<Op>, columns: usize) -> Plan {
        let read = |op: &Op| match op {
            Op::Read { column, .. } => Some(*column),
            Op::Drop { .. } => None,
        };
        let mut all: Vec<usize> = ops.iter().filter_map(read).collect();
        all.sort_unstable();
        let covers = all.into_iter().eq(0..columns);
        Plan { ops, covers }
    }

    /// Reads one body into `columns`, up to its end.
    pub(super) fn read(
        &self,
        body: &[u8],
        columns: &mut Columns,
        room: &mut Room,
        unknown: &mut Unknown,
    ) -> Result<(), Fault> {
        let Room { padded, canonical } = room;
        let mut body = Body::new(body, padded);
        for op in &self.ops {
            match op {
                Op::Read { column, shape } => {
                    let opened = if self.covers {
                        columns.column(*column)
                    } else {
                        columns.open(*column, body.at())?
                    };
                    shape.read(&mut body, opened, canonical).map_err(|f| f.within(*column))?;
                }
                Op::Drop { name, skip } => {
                    unknown.count(name.as_bytes());
                    skip.pass(&mut body)?;
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
        canonical: &mut Canonical,
    ) -> Result<(), Fault> {
        let wire = match self {
            Shape::Plain(wire) => *wire,
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
        wire.read(body, &mut column.values, canonical)
    }
}

impl Wire {
    fn read(
        self,
        body: &mut Body<'_>,
        values: &mut Values,
        canonical: &mut Canonical,
    ) -> Result<(), Fault> {
        match (values, self) {
            (Values::Text(texts), Wire::Text) => body.text_into(texts)?,
            (Values::Object(texts), Wire::Text) => {
                let text = body.text()?;
                let start = body.at() - text.len();
                json::object_text(text, canonical, texts.open()).map_err(|f| f.beyond(start))?;
                texts.close();
            }
            (Values::Bytes(texts), Wire::Bytes) => texts.push(body.prefixed()?),
            (Values::Integer(values), Wire::Long) => values.push(body.long()?),
            (Values::Integer(values), Wire::Int) => values.push(body.int()?),
            (Values::Time(times), Wire::TimeMicros) => times.push(time(body, 1)?),
            (Values::Time(times), Wire::TimeMillis) => times.push(time(body, 1000)?),
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

fn time(body: &mut Body<'_>, unit_micros: i64) -> Result<i64, Fault> {
    let at = body.at();
    let micros = body.long()?.saturating_mul(unit_micros);
    time::within_era(micros).map_err(|(reason, what)| Fault::new(reason, at, what))
}

fn mismatch(body: &Body<'_>) -> Fault {
    body.fault(Reason::WrongType, "a type that the column doesn't take")
}
