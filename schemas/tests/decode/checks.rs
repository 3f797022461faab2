//! What is held against the oracles, whoever brings the payload: generated, damaged, or found by a fuzzer
//! (`fuzz`), which compiles this file too.

use std::sync::OnceLock;

use aion_schemas::{
    decode::{Decoder, Outcome, Reason, SchemaId, Writer},
    schema::Schema,
};
use serde_json::{Value, json};

use crate::{
    common::{CONTRACT, decoder, every_kind, finish, framed, push},
    oracle::{self, Verdict},
};

/// The Avro mirror of [`every_kind`], as `apache-avro` has it.
pub(crate) fn mirror() -> &'static apache_avro::Schema {
    static MIRROR: OnceLock<apache_avro::Schema> = OnceLock::new();
    MIRROR.get_or_init(|| {
        apache_avro::util::max_allocation_bytes(1 << 20);
        apache_avro::Schema::parse(&every_kind().avro("test")).unwrap()
    })
}

/// Holds a payload in JSON against the oracle.
pub(crate) fn check_json(schema: &Schema, payload: &[u8]) {
    let shown = || String::from_utf8_lossy(payload).into_owned();
    let mut decoder = decoder(schema);
    let outcome = push(&mut decoder, payload);
    let batch = finish(&mut decoder);
    match (outcome, oracle::json(schema, payload)) {
        (Outcome::Row, Verdict::Row(row)) => {
            assert_eq!(oracle::cells(schema, &batch, 0), row, "{}", shown());
        }
        (Outcome::Rejected(_), Verdict::Reject) => assert_eq!(batch.num_rows(), 0),
        (_, Verdict::Unsure) => {}
        // The oracle knows no RFC 3339 as narrow as ours, and no encoding but JSON.
        (Outcome::Rejected(reject), _)
            if matches!(reject.reason, Reason::BadTime | Reason::UnknownEncoding) => {}
        (outcome, verdict) => panic!("{}\n{outcome:?}\n{verdict:?}", shown()),
    }
}

/// Holds a body of the contract's own Avro schema against the oracle.
pub(crate) fn check_avro(schema: &Schema, body: &[u8]) {
    let mut decoder = decoder(schema);
    let outcome = push(&mut decoder, &framed(CONTRACT, body));
    let batch = finish(&mut decoder);
    match (outcome, oracle::avro(schema, mirror(), body)) {
        (Outcome::Row, Verdict::Row(row)) => {
            assert_eq!(oracle::cells(schema, &batch, 0), row, "{body:02x?}");
        }
        (Outcome::Rejected(_), Verdict::Reject) => assert_eq!(batch.num_rows(), 0),
        // The oracle drops bits beyond the 64th, and takes a union that is cut short for null.
        (Outcome::Rejected(reject), _)
            if ["64 bits", "beyond the end", "without an end", "cut short"]
                .iter()
                .any(|what| reject.detail.contains(what)) => {}
        (outcome, verdict) => panic!("{body:02x?}\n{outcome:?}\n{verdict:?}"),
    }
}

pub(crate) const OLDER: SchemaId = SchemaId(20);
pub(crate) const NEWER: SchemaId = SchemaId(21);
pub(crate) const NESTED: SchemaId = SchemaId(22);

fn record_of(fields: &Value) -> String {
    json!({ "type": "record", "name": "event", "fields": fields }).to_string()
}

fn time(unit: &str) -> Value {
    json!({ "type": "long", "logicalType": unit })
}

/// Writers of [`every_kind`] in other versions.
pub(crate) fn writers() -> [(SchemaId, String); 3] {
    let older = json!([
        { "name": "timestamp", "type": time("timestamp-millis") },
        { "name": "labels", "type": "string" },
        { "name": "urgent", "type": "boolean" },
        { "name": "score", "type": "int" },
        { "name": "attempt", "type": "int" },
        { "name": "task_id", "type": "bytes" },
        { "name": "notes", "type": { "type": "array", "items": "string" } },
    ]);
    let newer = json!([
        { "name": "task_id", "type": "string" },
        { "name": "attempt", "type": "long" },
        { "name": "score", "type": ["double", "float", "null", "string"] },
        { "name": "urgent", "type": ["boolean", "long"] },
        { "name": "timestamp", "type": time("timestamp-nanos") },
        { "name": "seen_at", "type": [time("timestamp-micros"), "null"] },
        { "name": "labels", "type": "bytes" },
        { "name": "price", "type": { "type": "fixed", "name": "price", "size": 3 } },
    ]);
    let labels = json!({ "type": "map", "values": ["null", "long", "double", "string"] });
    let context = json!({ "type": "record", "name": "context", "fields": [
        { "name": "z", "type": { "type": "enum", "name": "e", "symbols": ["a", "b"] } },
        { "name": "a", "type": { "type": "array", "items": "float" } },
    ]});
    let nested = json!([
        { "name": "labels", "type": labels },
        { "name": "context", "type": ["null", context] },
        { "name": "task_id", "type": { "type": "enum", "name": "t", "symbols": ["t1", "t2"] } },
        { "name": "attempt", "type": "int" },
        { "name": "score", "type": "float" },
        { "name": "urgent", "type": "boolean" },
        { "name": "timestamp", "type": time("timestamp-micros") },
    ]);
    [(OLDER, record_of(&older)), (NEWER, record_of(&newer)), (NESTED, record_of(&nested))]
}

/// The decoder of [`every_kind`] that has learned the [`writers`].
pub(crate) struct Frames {
    schema: Schema,
    writers: Vec<(SchemaId, String, Writer)>,
}

impl Frames {
    pub(crate) fn new() -> Frames {
        apache_avro::util::max_allocation_bytes(1 << 20);
        let schema = every_kind();
        let learned = writers().into_iter().map(|(id, text)| {
            let writer = Writer::new(&schema, &text, &[]);
            (id, text, writer)
        });
        let writers = learned.collect();
        Frames { schema, writers }
    }

    pub(crate) fn decoder(&self) -> Decoder {
        let mut decoder = decoder(&self.schema);
        for (id, _, writer) in &self.writers {
            decoder.learn(*id, writer.clone());
        }
        decoder
    }

    /// Holds a whole frame against the oracle: what becomes of it is what becomes of it alone, its neighbours
    /// are whole, and a row is the one of the oracle where that has one.
    pub(crate) fn check(&self, payload: &[u8]) {
        let good = include_bytes!("../../fuzz/corpus/framed/a_contract.bin");
        let mut alone = self.decoder();
        let outcome = push(&mut alone, payload);
        let mut together = self.decoder();
        assert_eq!(push(&mut together, good), Outcome::Row);
        assert_eq!(push(&mut together, payload), outcome, "{payload:02x?}");
        assert_eq!(push(&mut together, good), Outcome::Row);
        let (alone, together) = (finish(&mut alone), finish(&mut together));
        let last = together.num_rows() - 1;
        assert_eq!(together.slice(0, 1), together.slice(last, 1));
        assert_eq!(together.slice(1, last - 1), alone, "{payload:02x?}");
        if outcome == Outcome::Row
            && let Some(id @ (OLDER | NEWER)) = SchemaId::of(payload)
        {
            let (_, writer, _) = self.writers.iter().find(|(known, ..)| *known == id).unwrap();
            let row = oracle::resolved(&self.schema, writer, &payload[5..]);
            assert_eq!(Some(oracle::cells(&self.schema, &alone, 0)), row, "{payload:02x?}");
        }
    }
}
