//! A seeded mutation loop over the corpus in `fuzz/corpus`, held against the oracles.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use aion_schemas::{
    decode::{Outcome, SchemaId, Writer},
    schema::Schema,
};
use serde_json::{Value, json};

use crate::{
    common::{CONTRACT, decoder, every_kind, finish, push},
    differential::{check_avro, check_json, damage},
    oracle,
    resolution::resolved,
};

/// A small generator of the xorshift family: the loop must be the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn corpus(encoding: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(encoding);
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus of {encoding}");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Damages members of the corpus, splices two together now and then, and checks each result.
fn mutate(encoding: &str, check: impl Fn(&[u8])) {
    let corpus = corpus(encoding);
    for payload in &corpus {
        check(payload);
    }
    let mut random = Random(setting("AION_FUZZ_SEED", 0x00a1_0e5e_ed01) | 1);
    let end = Instant::now() + Duration::from_secs(setting("AION_FUZZ_SECONDS", 2));
    let mut rounds = 0u64;
    while Instant::now() < end {
        for _ in 0..100 {
            let mut payload = corpus[random.below(corpus.len())].clone();
            if random.below(8) == 0 {
                let other = &corpus[random.below(corpus.len())];
                payload.truncate(random.below(payload.len() + 1));
                payload.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            for _ in 0..=random.below(4) {
                damage(
                    &mut payload,
                    random.next() as u8,
                    random.next() as usize,
                    random.next() as u8,
                );
            }
            check(&payload);
            rounds += 1;
        }
    }
    println!("{encoding}: {rounds} damaged payloads");
}

#[test]
fn mutated_json() {
    mutate("json", |payload| check_json(&every_kind(), payload));
}

#[test]
fn mutated_avro() {
    mutate("avro", |body| check_avro(&every_kind(), body));
}

const OLDER: SchemaId = SchemaId(20);
const NEWER: SchemaId = SchemaId(21);
const NESTED: SchemaId = SchemaId(22);

fn record_of(fields: &Value) -> String {
    json!({ "type": "record", "name": "event", "fields": fields }).to_string()
}

fn time(unit: &str) -> Value {
    json!({ "type": "long", "logicalType": unit })
}

/// Writers of [`every_kind`] in other versions.
fn writers() -> [(SchemaId, String); 3] {
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

/// A whole frame: what becomes of it is what becomes of it alone, its neighbours are whole, and a row is
/// the one of the oracle where that has one.
fn check_frame(
    schema: &Schema,
    writers: &[(SchemaId, String, Writer)],
    good: &[u8],
    payload: &[u8],
) {
    let new_decoder = || {
        let mut decoder = decoder(schema);
        for (id, _, writer) in writers {
            decoder.learn(*id, writer.clone());
        }
        decoder
    };
    let mut alone = new_decoder();
    let outcome = push(&mut alone, payload);
    let mut together = new_decoder();
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
        let (_, writer, _) = writers.iter().find(|(known, ..)| *known == id).unwrap();
        let row = resolved(schema, writer, &payload[5..]);
        assert_eq!(Some(oracle::cells(schema, &alone, 0)), row, "{payload:02x?}");
    }
}

#[test]
fn mutated_frames() {
    let schema = every_kind();
    let writers: Vec<_> = writers()
        .into_iter()
        .map(|(id, text)| {
            let writer = Writer::new(&schema, &text, &[]);
            (id, text, writer)
        })
        .collect();
    let good = corpus("framed").remove(0);
    mutate("framed", |payload| check_frame(&schema, &writers, &good, payload));
}

#[test]
fn the_corpus_of_frames_has_a_row_by_each_writer() {
    let schema = every_kind();
    let mut ids = std::collections::BTreeSet::new();
    for payload in corpus("framed") {
        let mut decoder = decoder(&schema);
        for (id, text) in writers() {
            decoder.learn(id, Writer::new(&schema, &text, &[]));
        }
        match push(&mut decoder, &payload) {
            Outcome::Row => ids.extend(SchemaId::of(&payload)),
            outcome => println!("{payload:02x?}: {outcome:?}"),
        }
    }
    assert_eq!(Vec::from_iter(ids), [CONTRACT, OLDER, NEWER, NESTED]);
}
