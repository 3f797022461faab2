//! A schema with a field of every kind, and short ways to push and look at what came out.

use std::sync::Arc;

use aion_schemas::{
    decode::{Decoder, Outcome, Record, Reject, SchemaId, Writer},
    log::{Offset, Timestamp},
    schema::{Field, Kind, Schema},
};
use arrow::array::RecordBatch;
use uuid::Uuid;

/// 2026-11-25T00:00:00Z.
pub(crate) const NOW_MICROS: i64 = 1_795_564_800_000_000;

/// The id that [`decoder`] has learned as the contract's own schema.
pub(crate) const CONTRACT: SchemaId = SchemaId(7);

pub(crate) fn field(name: &str, kind: Kind, required: bool) -> Field {
    let doc = "A field.".into();
    let (aliases, default) = (Vec::new(), None);
    Field { name: name.into(), kind, required, few_values: false, doc, aliases, default }
}

pub(crate) fn schema(fields: Vec<Field>) -> Schema {
    let event_time = fields.iter().position(|f| &*f.name == "timestamp").unwrap();
    Schema { name: "event".into(), doc: "An event.".into(), fields, event_time }
}

/// Every kind that both encodings have, once required and once optional.
pub(crate) fn every_kind() -> Schema {
    schema(vec![
        field("task_id", Kind::Text, true),
        field("tenant_id", Kind::Text, false),
        field("attempt", Kind::Integer, true),
        field("size", Kind::Integer, false),
        field("score", Kind::Number, true),
        field("cost", Kind::Number, false),
        field("urgent", Kind::Boolean, true),
        field("muted", Kind::Boolean, false),
        field("timestamp", Kind::Time, true),
        field("seen_at", Kind::Time, false),
        field("labels", Kind::Object, true),
        field("context", Kind::Object, false),
    ])
}

pub(crate) fn decoder(schema: &Schema) -> Decoder {
    let mut decoder = Decoder::new(schema);
    decoder.learn_contract(CONTRACT);
    decoder
}

/// A decoder that has also learned a writer's schema, which can be read.
pub(crate) fn decoder_of(schema: &Schema, id: SchemaId, writer: &str) -> Decoder {
    let mut decoder = decoder(schema);
    let writer_of = Writer::new(schema, writer, &[]);
    assert_eq!(writer_of.flaw(), None, "{writer}");
    decoder.learn(id, writer_of);
    decoder
}

pub(crate) fn record(value: Option<&[u8]>, offset: i64) -> Record<'_> {
    Record {
        value,
        offset: Offset(offset),
        epoch: 3,
        append_time: Timestamp(NOW_MICROS),
        retry: None,
    }
}

pub(crate) fn push(decoder: &mut Decoder, payload: &[u8]) -> Outcome {
    decoder.push(&record(Some(payload), 0))
}

pub(crate) fn finish(decoder: &mut Decoder) -> RecordBatch {
    decoder.finish(Uuid::nil(), 2)
}

/// The only row of an accepted payload.
pub(crate) fn row(schema: &Schema, payload: &[u8]) -> RecordBatch {
    let mut decoder = decoder(schema);
    match push(&mut decoder, payload) {
        Outcome::Row => finish(&mut decoder),
        other => panic!("{}: {other:?}", String::from_utf8_lossy(payload)),
    }
}

/// Why a payload was rejected; checks that nothing was left behind.
pub(crate) fn reject(schema: &Schema, payload: &[u8]) -> Reject {
    let mut decoder = decoder(schema);
    let Outcome::Rejected(reject) = push(&mut decoder, payload) else {
        panic!("accepted: {}", String::from_utf8_lossy(payload));
    };
    assert_eq!(decoder.rows(), 0);
    assert_eq!(finish(&mut decoder).num_rows(), 0);
    assert!(reject.detail.len() <= aion_schemas::decode::MAX_DETAIL_BYTES);
    reject
}

/// A whole event as JSON, with `changed` in place of the value of `name`, or without it.
pub(crate) fn event(name: &str, changed: Option<&str>) -> String {
    let members = [
        ("task_id", "\"t-1\""),
        ("attempt", "1"),
        ("score", "0.5"),
        ("urgent", "true"),
        ("timestamp", "\"2026-11-25T00:00:00Z\""),
        ("labels", "{}"),
    ];
    let mut texts: Vec<_> = members
        .iter()
        .filter(|member| member.0 != name)
        .map(|member| format!("\"{}\":{}", member.0, member.1))
        .collect();
    texts.extend(changed.map(|changed| format!("\"{name}\":{changed}")));
    format!("{{{}}}", texts.join(","))
}

/// A field's name, as rejects have it.
#[expect(clippy::unnecessary_wraps, reason = "it stands for what a reject has")]
pub(crate) fn named(name: &str) -> Option<Arc<str>> {
    Some(name.into())
}

/// Puts an Avro body into the frame of the contract's own schema.
pub(crate) fn framed(id: SchemaId, body: &[u8]) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend(id.0.to_be_bytes());
    payload.extend_from_slice(body);
    payload
}

/// A zigzag varint.
pub(crate) fn long(value: i64) -> Vec<u8> {
    let mut zigzag = (value << 1 ^ value >> 63) as u64;
    let mut bytes = Vec::new();
    while zigzag >= 0x80 {
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
    bytes
}

/// A string or bytes: length, then content.
pub(crate) fn prefixed(content: &[u8]) -> Vec<u8> {
    let mut bytes = long(content.len() as i64);
    bytes.extend_from_slice(content);
    bytes
}
