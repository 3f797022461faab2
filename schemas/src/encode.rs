//! For producers: events in JSON text, checked against the contract and turned into Kafka messages.
//!
//! What is checked is what [`Validator::admit`] checks, so a message that comes out of here becomes a row.
//! The value is the event's own text, or its Avro form by the contract's own schema, framed with the id that
//! a registry has given that schema under the topic's subject. Both forms of one event are one row.
//!
//! ```
//! use aion_schemas::{catalog::Catalog, encode::{Encoder, Encoding}, log::Timestamp};
//!
//! let catalog = Catalog::builtin();
//! let topic = catalog.topic("aion.audit.activity").ok_or("no such topic")?;
//! let mut encoder = Encoder::new(topic, Encoding::Json)?;
//! let event = br#"{"actor_id": "user-42", "action": "login", "timestamp": "2026-03-14T09:26:53Z"}"#;
//! let now = Timestamp(1_773_480_413_000_000);
//! let message = encoder.encode(event, now).map_err(|violations| violations[0].to_string())?;
//! assert_eq!((&message.key[..], &message.value[..]), (&b"user-42"[..], &event[..]));
//! let violations = encoder.encode(br#"{"actor_id": 42}"#, now).unwrap_err();
//! assert_eq!(violations.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** the Avro form is written from the columns that the jobs' own decoder made of the text: it
//! can't say anything else than the text does.

#[cfg(test)]
mod tests;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float64Type, Int64Type, TimestampMicrosecondType},
};
use uuid::Uuid;

use crate::{
    catalog::Topic,
    decode::{Decoder, Outcome, Record, SchemaId},
    log::{Offset, Timestamp},
    schema::{Field, Kind},
    validate::{InvalidSchema, Validator, Violation, unreadable},
};

/// How the values of messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// JSON text, as it came.
    Json,
    /// Avro by the contract's own schema, in the framing of registries, with the id that the schema has.
    Avro(SchemaId),
}

/// A message that may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The Kafka key: the text of the topic's key field.
    pub key: Vec<u8>,
    /// The Kafka value.
    pub value: Vec<u8>,
}

/// Checks and encodes events of one topic; any number, one after another.
#[derive(Debug)]
pub struct Encoder {
    validator: Validator,
    decoder: Decoder,
    fields: Vec<Field>,
    /// The columns whose texts make the key.
    key: Vec<usize>,
    encoding: Encoding,
}

impl Encoder {
    /// Compiles the contract of a topic. The topics of a catalog always compile.
    pub fn new(topic: &Topic, encoding: Encoding) -> Result<Encoder, InvalidSchema> {
        Ok(Encoder {
            validator: Validator::new(topic)?,
            decoder: Decoder::new(&topic.schema),
            fields: topic.schema.fields.clone(),
            key: topic.key_fields().filter_map(|name| topic.schema.position(name)).collect(),
            encoding,
        })
    }

    /// The message for an event, which is a JSON object; `now` is about when the broker will append it, and
    /// its time must not be far from that. All rules that the event breaks are told, at most
    /// [`MAX_VIOLATIONS`](crate::validate::MAX_VIOLATIONS).
    pub fn encode(&mut self, event: &[u8], now: Timestamp) -> Result<Message, Vec<Violation>> {
        let event = event.trim_ascii();
        self.validator.check_bytes(event)?;
        let record = Record {
            value: Some(event),
            offset: Offset::ZERO,
            epoch: -1,
            append_time: now,
            retry: None,
        };
        if let Outcome::Rejected(reject) = self.decoder.push(&record) {
            return Err(vec![unreadable(event, &reject)]);
        }
        let row = self.decoder.finish(Uuid::nil(), 0);
        let mut key = Vec::new();
        for (at, column) in self.key.iter().enumerate() {
            if at > 0 {
                key.push(b':');
            }
            push_key(&mut key, &self.fields[*column], row.column(*column).as_ref());
        }
        let value = match self.encoding {
            Encoding::Json => event.to_vec(),
            Encoding::Avro(id) => self.framed(id, &row),
        };
        Ok(Message { key, value })
    }

    fn framed(&self, id: SchemaId, row: &RecordBatch) -> Vec<u8> {
        let mut value = vec![0];
        value.extend(id.0.to_be_bytes());
        for (field, column) in self.fields.iter().zip(row.columns()) {
            if !field.required {
                push_long(&mut value, i64::from(column.is_valid(0)));
                if column.is_null(0) {
                    continue;
                }
            }
            push_value(&mut value, field.kind, column.as_ref());
        }
        value
    }
}

/// Appends the text that a key field has.
fn push_key(key: &mut Vec<u8>, field: &Field, column: &dyn Array) {
    match field.kind {
        Kind::Text | Kind::Object => key.extend(column.as_string::<i32>().value(0).as_bytes()),
        Kind::Integer => {
            let number = column.as_primitive::<Int64Type>().value(0);
            key.extend(number.to_string().as_bytes());
        }
        // A catalog takes no others for keys.
        Kind::Number | Kind::Boolean | Kind::Time | Kind::Bytes => {}
    }
}

/// Appends the only value of a column, as the contract's Avro mirror has it.
fn push_value(out: &mut Vec<u8>, kind: Kind, column: &dyn Array) {
    match kind {
        Kind::Text | Kind::Object => {
            push_prefixed(out, column.as_string::<i32>().value(0).as_bytes());
        }
        Kind::Bytes => push_prefixed(out, column.as_binary::<i32>().value(0)),
        Kind::Integer => push_long(out, column.as_primitive::<Int64Type>().value(0)),
        Kind::Time => push_long(out, column.as_primitive::<TimestampMicrosecondType>().value(0)),
        Kind::Number => out.extend(column.as_primitive::<Float64Type>().value(0).to_le_bytes()),
        Kind::Boolean => out.push(u8::from(column.as_boolean().value(0))),
    }
}

fn push_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    push_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Appends a number in Avro's variable-length zigzag form.
fn push_long(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
