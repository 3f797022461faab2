//! Events as Avro binary: one list of operations, compiled once per writer schema, over each body.
//!
//! **Invariant:** lengths are checked against what is left before anything is read or allocated.

use super::{
    canonical::Canonical,
    columns::{Columns, Values},
    json,
    reject::{Fault, Reason},
    time,
};
use crate::schema::{Field, Kind};

/// How the bodies of one writer schema are read into the contract's columns.
#[derive(Debug)]
pub(super) struct Plan {
    ops: Vec<Op>,
}

/// Reads one field of the writer into a column.
#[derive(Clone, Copy, Debug)]
struct Op {
    column: usize,
    /// The branch of the union that is null, where the field is a union of null and one type.
    null_branch: Option<i64>,
    wire: Wire,
}

/// What the bytes are.
#[derive(Clone, Copy, Debug)]
enum Wire {
    Text,
    Bytes,
    Long,
    TimeMicros,
    Double,
    Boolean,
}

impl Plan {
    /// The plan for the contract's own Avro mirror: fields in order, required ones plain, optional
    /// ones a union of null (first) and the type.
    pub(super) fn mirror(fields: &[Field]) -> Plan {
        let op = |(column, field): (usize, &Field)| Op {
            column,
            null_branch: (!field.required).then_some(0),
            wire: match field.kind {
                Kind::Text | Kind::Object => Wire::Text,
                Kind::Bytes => Wire::Bytes,
                Kind::Integer => Wire::Long,
                Kind::Time => Wire::TimeMicros,
                Kind::Number => Wire::Double,
                Kind::Boolean => Wire::Boolean,
            },
        };
        Plan { ops: fields.iter().enumerate().map(op).collect() }
    }

    /// Reads one body into `columns`, up to its end.
    pub(super) fn read(
        &self,
        body: &[u8],
        columns: &mut Columns,
        canonical: &mut Canonical,
    ) -> Result<(), Fault> {
        let mut body = Body { bytes: body, at: 0 };
        for op in &self.ops {
            op.read(&mut body, columns, canonical).map_err(|fault| fault.within(op.column))?;
        }
        if body.at < body.bytes.len() {
            return Err(body.malformed("bytes after the end of the event"));
        }
        columns.fill(body.at)
    }
}

impl Op {
    fn read(
        &self,
        body: &mut Body<'_>,
        columns: &mut Columns,
        canonical: &mut Canonical,
    ) -> Result<(), Fault> {
        let column = columns.open(self.column, body.at)?;
        if let Some(null_branch) = self.null_branch {
            let branch = body.long()?;
            if branch == null_branch {
                return column.push_null(body.at);
            }
            if branch != 1 - null_branch {
                return Err(body.malformed("a branch that the union doesn't have"));
            }
        }
        match (&mut column.values, self.wire) {
            (Values::Text(texts), Wire::Text) => texts.push(body.text()?),
            (Values::Object(texts), Wire::Text) => {
                let text = body.text()?;
                let start = body.at - text.len();
                json::object_text(text, canonical, texts.open())
                    .map_err(|fault| fault.beyond(start))?;
                texts.close();
            }
            (Values::Bytes(texts), Wire::Bytes) => texts.push(body.prefixed()?),
            (Values::Integer(values), Wire::Long) => values.push(body.long()?),
            (Values::Time(times), Wire::TimeMicros) => {
                let at = body.at;
                let micros = time::within_era(body.long()?);
                times.push(micros.map_err(|(reason, what)| Fault::new(reason, at, what))?);
            }
            (Values::Number(values), Wire::Double) => values.push(body.double()?),
            (Values::Boolean(values), Wire::Boolean) => values.append(body.boolean()?),
            // Plans pair wires with the columns that take them.
            _ => return Err(body.fault(Reason::WrongType, "a type that the column doesn't take")),
        }
        column.push_valid();
        Ok(())
    }
}

/// A place in a body.
#[derive(Debug)]
struct Body<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Body<'a> {
    /// A zigzag varint of at most 64 bits. Like every Avro reader, takes one with needless zero
    /// groups, as long as it stays within ten bytes.
    fn long(&mut self) -> Result<i64, Fault> {
        let mut zigzag: u64 = 0;
        for (group, byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            if group == 9 && *byte > 1 {
                return Err(self.malformed("a varint of more than 64 bits"));
            }
            zigzag |= u64::from(byte & 0x7f) << (group * 7);
            if *byte < 0x80 {
                self.at += group + 1;
                return Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            }
        }
        Err(self.malformed("a varint without an end"))
    }

    /// Bytes after their own length.
    fn prefixed(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.long()?;
        let left = (self.bytes.len() - self.at) as i64;
        if !(0..=left).contains(&len) {
            let what = if len < 0 { "a length below zero" } else { "a length beyond the end" };
            return Err(self.malformed(what));
        }
        let start = self.at;
        self.at += len as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn text(&mut self) -> Result<&'a [u8], Fault> {
        let text = self.prefixed()?;
        if !text.is_ascii() {
            json::check_utf8(text).map_err(|fault| fault.beyond(self.at - text.len()))?;
        }
        Ok(text)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let Some(bytes) = self.bytes[self.at..].first_chunk::<N>() else {
            return Err(self.malformed("the event is cut short"));
        };
        self.at += N;
        Ok(*bytes)
    }

    fn double(&mut self) -> Result<f64, Fault> {
        let value = f64::from_le_bytes(self.fixed()?);
        if value.is_finite() {
            Ok(value)
        } else {
            // As in JSON, which has neither: what is accepted must not depend on the encoding.
            Err(self.fault(Reason::NumberOutOfRange, "a number that isn't finite"))
        }
    }

    fn boolean(&mut self) -> Result<bool, Fault> {
        match self.fixed()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err(self.malformed("a boolean that is neither 0 nor 1")),
        }
    }

    fn malformed(&self, what: &'static str) -> Fault {
        self.fault(Reason::MalformedAvro, what)
    }

    fn fault(&self, reason: Reason, what: &'static str) -> Fault {
        Fault::new(reason, self.at, what)
    }
}
