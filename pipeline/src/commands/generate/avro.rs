//! Events as Avro: bodies alone, or in the framing that schema registries agree on: a zero byte, four
//! bytes of schema id, the body.
//!
//! The body's schema is the contract's own mirror: a record of the fields in order, where an
//! optional
//! field is a union of null and its type, a time is in microseconds, and an object is its JSON
//! text.

use std::sync::Arc;

use aion_schemas::{
    decode::SchemaId,
    log::Timestamp,
    schema::{Kind, Schema},
};

use super::{
    event::{Event, Value},
    json,
};

/// Writes events of one topic as Avro.
#[derive(Debug)]
pub struct Encoder {
    /// What stands before each body.
    frame: Vec<u8>,
    fields: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    name: Arc<str>,
    kind: Kind,
    required: bool,
}

impl Encoder {
    /// Writes by a schema of the contract, under the id that the registry gave it.
    pub fn new(schema: &Schema, SchemaId(id): SchemaId) -> Encoder {
        let mut encoder = Encoder::bare(schema);
        encoder.frame.push(0);
        encoder.frame.extend(id.to_be_bytes());
        encoder
    }

    /// Writes without the framing, for a file that has the schema itself.
    pub fn bare(schema: &Schema) -> Encoder {
        let fields = schema.fields.iter();
        let fields = fields.map(|f| Column {
            name: Arc::clone(&f.name),
            kind: f.kind,
            required: f.required,
        });
        Encoder { frame: Vec::new(), fields: fields.collect() }
    }

    /// Appends the event. A required field that the event lacks is written as empty.
    pub fn push_event(&self, out: &mut Vec<u8>, event: &Event) {
        out.extend_from_slice(&self.frame);
        for field in &self.fields {
            let value = event.get(&field.name);
            if !field.required {
                push_long(out, i64::from(value.is_some()));
                if value.is_none() {
                    continue;
                }
            }
            push_value(out, field.kind, value.unwrap_or(&Value::Word("")));
        }
    }
}

fn push_value(out: &mut Vec<u8>, kind: Kind, value: &Value) {
    match kind {
        Kind::Integer => push_long(out, integer(value)),
        Kind::Time => {
            push_long(out, if let Value::Time(Timestamp(micros)) = value { *micros } else { 0 });
        }
        Kind::Number => out.extend_from_slice(&number(value).to_le_bytes()),
        Kind::Boolean => out.push(u8::from(*value == Value::Boolean(true))),
        Kind::Text | Kind::Object | Kind::Bytes => {
            let mut text = Vec::with_capacity(64);
            json::push_bare(&mut text, value);
            push_long(out, text.len() as i64);
            out.extend_from_slice(&text);
        }
    }
}

const fn integer(value: &Value) -> i64 {
    if let Value::Integer(number) = value { *number } else { 0 }
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Integer(number) => *number as f64,
        // Both are exact doubles, so the quotient is the double nearest to the decimal text.
        Value::Millionths(number) => *number as f64 / 1e6,
        _ => 0.0,
    }
}

/// Appends a number in Avro's variable-length zigzag form.
pub(super) fn push_long(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
