//! Frames and bodies that no honest producer sends, each kind by name, against a writer of another version.

use aion_schemas::{
    decode::{Decoder, MAX_OBJECT_BYTES, Outcome, Reason, SchemaId, Writer},
    schema::{Kind, Schema},
};
use arrow::array::AsArray as _;
use serde_json::{Value, json};

use crate::common::{
    CONTRACT, NOW_MICROS, decoder, decoder_of, field, finish, framed, long, named, prefixed, push,
    schema,
};

const WRITER: SchemaId = SchemaId(9);

fn contract() -> Schema {
    schema(vec![
        field("task_id", Kind::Text, true),
        field("cost", Kind::Number, false),
        field("labels", Kind::Object, false),
        field("timestamp", Kind::Time, true),
    ])
}

/// A writer with a field of `type` at the end of what the contract wants.
fn writer_with(name: &str, r#type: &Value) -> String {
    json!({ "type": "record", "name": "event", "fields": [
        { "name": "task_id", "type": "string" },
        { "name": "timestamp", "type": { "type": "long", "logicalType": "timestamp-micros" } },
        { "name": name, "type": r#type },
    ]})
    .to_string()
}

/// A body of [`writer_with`] whose last field has these bytes.
fn body(last: &[u8]) -> Vec<u8> {
    [&prefixed(b"t")[..], &long(NOW_MICROS), last].concat()
}

fn assert_rejects(decoder: &mut Decoder, payload: &[u8], reason: Reason) {
    let outcome = push(decoder, payload);
    let Outcome::Rejected(reject) = outcome else { panic!("{payload:02x?}: {outcome:?}") };
    assert_eq!(reject.reason, reason, "{payload:02x?}: {reject}");
    assert_eq!(decoder.rows(), 0);
}

fn assert_last(name: &str, r#type: &Value, last: &[u8], reason: Reason) {
    let mut decoder = decoder_of(&contract(), WRITER, &writer_with(name, r#type));
    assert_rejects(&mut decoder, &framed(WRITER, &body(last)), reason);
    assert_eq!(finish(&mut decoder).num_rows(), 0);
}

#[test]
fn frames_that_are_cut_short_or_too_long() {
    let mut decoder = decoder_of(&contract(), WRITER, &writer_with("x", &json!("string")));
    let whole = framed(WRITER, &body(&prefixed(b"abc")));
    for end in 1..whole.len() {
        assert_rejects(&mut decoder, &whole[..end], Reason::MalformedAvro);
    }
    for more in [&b"\0"[..], b"{}", &whole] {
        assert_rejects(&mut decoder, &[&whole[..], more].concat(), Reason::MalformedAvro);
    }
    assert_eq!(push(&mut decoder, &whole), Outcome::Row);
}

#[test]
fn texts_of_every_length_are_whole_and_events_that_end_anywhere_are_not() {
    let contract = schema(vec![
        field("task_id", Kind::Text, true),
        field("tenant_id", Kind::Text, false),
        field("timestamp", Kind::Time, true),
    ]);
    let mut decoder = decoder(&contract);
    let body = |first: &str, second: &str| {
        let fields = [&prefixed(first.as_bytes())[..], &long(1), &prefixed(second.as_bytes())];
        framed(CONTRACT, &[&fields.concat()[..], &long(NOW_MICROS)].concat())
    };
    // Of the longest event that was read before, no byte may stand for one that is missing.
    let longest = body(&"z".repeat(300), &"z".repeat(300));
    for len in (0..140).chain([200, 255, 256]) {
        for other in [0, 1, 20, 47, 48, 49, 63, 64, 65, 130] {
            for last in ["", "é"] {
                let (first, second) = ("x".repeat(len) + last, "y".repeat(other) + last);
                let whole = body(&first, &second);
                assert_eq!(push(&mut decoder, &whole), Outcome::Row);
                let batch = finish(&mut decoder);
                for (column, expected) in [(0, &first), (1, &second)] {
                    let column = batch.column(column).as_string::<i32>();
                    assert_eq!(column.value(0), expected);
                }
                if last.is_empty() || other == 20 {
                    assert_eq!(push(&mut decoder, &longest), Outcome::Row);
                    finish(&mut decoder);
                    for end in (1..whole.len()).step_by(3) {
                        assert_rejects(&mut decoder, &whole[..end], Reason::MalformedAvro);
                    }
                }
            }
        }
    }
    let broken = [&prefixed(b"ab\xff")[..], &long(0), &long(NOW_MICROS)].concat();
    assert_rejects(&mut decoder, &framed(CONTRACT, &broken), Reason::InvalidUtf8);
}

/// The same for a writer of another version, whose fields of other kinds stand across where windows end.
#[test]
fn other_writers_are_read_whole_wherever_their_fields_end() {
    let writer = json!({ "type": "record", "name": "event", "fields": [
        { "name": "dropped", "type": "string" },
        { "name": "labels", "type": { "type": "map", "values": ["long", "string"] } },
        { "name": "list", "type": { "type": "array", "items": "string" } },
        { "name": "timestamp", "type": { "type": "long", "logicalType": "timestamp-micros" } },
        { "name": "cost", "type": ["null", "long", "double"] },
        { "name": "task_id", "type": "string" },
    ]});
    let mut decoder = decoder_of(&contract(), WRITER, &writer.to_string());
    let event = |dropped: usize, listed: usize, id: &str| {
        let text = |len: usize| prefixed("x".repeat(len).as_bytes());
        let map =
            [long(2), prefixed(b"a"), long(0), long(-7), prefixed(b"b"), long(1), text(listed)];
        let list = [long(3), text(listed), text(0), text(1), long(0)];
        let rest =
            [long(NOW_MICROS), long(2), 0.5f64.to_le_bytes().to_vec(), prefixed(id.as_bytes())];
        let fields =
            [vec![text(dropped)], map.to_vec(), vec![long(0)], list.to_vec(), rest.to_vec()];
        framed(WRITER, &fields.concat().concat())
    };
    let longest = event(400, 100, &"z".repeat(200));
    for dropped in 0..130 {
        for listed in [0, 5, 48, 49, 64] {
            for id in [0, 36, 47, 48, 49, 100] {
                let id = "i".repeat(id);
                let whole = event(dropped, listed, &id);
                assert_eq!(push(&mut decoder, &whole), Outcome::Row, "{dropped} {listed}");
                let batch = finish(&mut decoder);
                assert_eq!(batch.column(0).as_string::<i32>().value(0), id);
                let labels = format!("{{\"a\":-7,\"b\":\"{}\"}}", "x".repeat(listed));
                assert_eq!(batch.column(2).as_string::<i32>().value(0), labels);
                if id.len() == 36 {
                    assert_eq!(push(&mut decoder, &longest), Outcome::Row);
                    finish(&mut decoder);
                    for end in (1..whole.len()).step_by(7) {
                        assert_rejects(&mut decoder, &whole[..end], Reason::MalformedAvro);
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_magic() {
    let whole = framed(CONTRACT, &body(&[0]));
    for magic in 1..=255u8 {
        if b"{ \n\r\t".contains(&magic) {
            continue;
        }
        let payload = [&[magic], &whole[1..]].concat();
        assert_rejects(&mut decoder(&contract()), &payload, Reason::UnknownEncoding);
    }
}

#[test]
fn ids_of_no_schema() {
    for id in [0, 1, u32::MAX, i32::MAX as u32, 0x8000_0000] {
        let mut decoder = decoder(&contract());
        let payload = framed(SchemaId(id), &body(&[0]));
        assert_rejects(&mut decoder, &payload, Reason::UnknownSchema);
        decoder.learn(SchemaId(id), Writer::refused(Reason::ForeignSchema, "x".repeat(4000)));
        assert_rejects(&mut decoder, &payload, Reason::ForeignSchema);
    }
}

#[test]
fn json_after_a_zero_byte_is_an_id_nobody_knows() {
    let event = br#"{"task_id":"t","timestamp":"2026-11-25T00:00:00Z"}"#;
    let payload = [b"\0", &event[..]].concat();
    assert_rejects(&mut decoder(&contract()), &payload, Reason::UnknownSchema);
    // And behind a frame it is no body.
    assert_rejects(&mut decoder(&contract()), &framed(CONTRACT, event), Reason::MalformedAvro);
}

#[test]
fn varint_bombs() {
    for r#type in ["int", "long", "string", "bytes"] {
        for bomb in [vec![0x80; 10], vec![0xff; 11], vec![0x80; 1 << 20]] {
            assert_last("x", &json!(r#type), &bomb, Reason::MalformedAvro);
        }
    }
    assert_last("x", &json!("int"), &long(1 << 31), Reason::MalformedAvro);
    assert_last("cost", &json!("int"), &long(-(1 << 40)), Reason::MalformedAvro);
}

#[test]
fn blocks_of_negative_size_and_of_countless_items() {
    for items in ["long", "string", "boolean"] {
        for (name, list) in [
            ("x", json!({ "type": "array", "items": items })),
            ("x", json!({ "type": "map", "values": items })),
            ("labels", json!({ "type": "map", "values": items })),
        ] {
            for count in [i64::MAX, 1 << 40] {
                assert_last(name, &list, &long(count), Reason::MalformedAvro);
            }
            for size in [-1, i64::MIN] {
                let last = [long(-1), long(size), vec![0; 32]].concat();
                assert_last(name, &list, &last, Reason::MalformedAvro);
            }
            // 2^63 items: the count that has no positive counterpart.
            let last = [long(i64::MIN), long(4), vec![2; 64]].concat();
            assert_last(name, &list, &last, Reason::MalformedAvro);
        }
    }
}

#[test]
fn a_few_bytes_of_avro_are_not_gigabytes_of_text() {
    let unfolds = json!({ "type": "record", "name": "r", "fields": [
        { "name": "list", "type": { "type": "array", "items": "null" } },
    ]});
    let last = [long(i64::MAX), long(0)].concat();
    assert_last("labels", &unfolds, &last, Reason::TooLarge);
    let name = "x".repeat(MAX_OBJECT_BYTES / 8);
    let wide = json!({ "type": "map", "values": { "type": "record", "name": "r", "fields": [
        { "name": name, "type": "boolean" },
    ]}});
    let entries: Vec<u8> = (b'a'..=b'z').flat_map(|name| [2, name, 1]).collect();
    let last = [long(26), entries, long(0)].concat();
    assert_last("labels", &wide, &last, Reason::TooLarge);
}

#[test]
fn strings_of_four_gigabytes() {
    for len in [1i64 << 32, (1 << 32) + 3, u32::MAX.into(), i64::MAX, -1] {
        let last = [long(len), b"abc".to_vec()].concat();
        for r#type in ["string", "bytes"] {
            assert_last("x", &json!(r#type), &last, Reason::MalformedAvro);
            assert_last("labels", &json!(r#type), &last, Reason::MalformedAvro);
        }
    }
    let huge = json!({ "type": "fixed", "name": "f", "size": u32::MAX });
    assert_last("x", &huge, b"abc", Reason::MalformedAvro);
}

#[test]
fn schemas_within_themselves_and_very_deep_ones() {
    let within = json!({ "type": "record", "name": "node", "fields": [
        { "name": "next", "type": ["null", "node"] },
    ]});
    let mut deep = json!("null");
    for _ in 0..100 {
        deep = json!({ "type": "array", "items": deep });
    }
    let mut wide = json!("long");
    for level in 0..30 {
        let (name, first) = (format!("r{level}"), wide);
        let again = if level == 0 { first.clone() } else { json!(format!("r{}", level - 1)) };
        wide = json!({ "type": "record", "name": name, "fields": [
            { "name": "a", "type": first }, { "name": "b", "type": again },
        ]});
    }
    for (r#type, field) in [("x", None), ("labels", named("labels"))] {
        for bomb in [&within, &deep, &wide] {
            let writer = Writer::new(&contract(), &writer_with(r#type, bomb), &[]);
            let flaw = writer.flaw().cloned().unwrap();
            assert_eq!(flaw.reason, Reason::IncompatibleSchema, "{flaw}");
            assert_eq!(flaw.field, field, "{flaw}");
        }
    }
}

#[test]
fn text_that_is_not_utf8_wherever_it_stands() {
    for bad in [&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80"] {
        let map = json!({ "type": "map", "values": "string" });
        let key = [long(1), prefixed(bad), prefixed(b""), long(0)].concat();
        let value = [long(1), prefixed(b"k"), prefixed(bad), long(0)].concat();
        for name in ["x", "labels"] {
            assert_last(name, &map, &key, Reason::InvalidUtf8);
            assert_last(name, &map, &value, Reason::InvalidUtf8);
            assert_last(name, &json!("string"), &prefixed(bad), Reason::InvalidUtf8);
        }
        assert_last("labels", &json!("bytes"), &prefixed(bad), Reason::InvalidUtf8);
    }
}

#[test]
fn numbers_that_are_not_finite() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let (double, float) = (bad.to_le_bytes(), (bad as f32).to_le_bytes());
        assert_last("cost", &json!("double"), &double, Reason::NumberOutOfRange);
        assert_last("cost", &json!("float"), &float, Reason::NumberOutOfRange);
        for (r#type, bytes) in [("double", &double[..]), ("float", &float)] {
            let map = json!({ "type": "map", "values": r#type });
            let last = [&long(1)[..], &prefixed(b"k"), bytes, &long(0)].concat();
            assert_last("labels", &map, &last, Reason::NumberOutOfRange);
        }
    }
}

#[test]
fn symbols_and_branches_out_of_range() {
    let symbols = json!({ "type": "enum", "name": "e", "symbols": ["a", "b"] });
    let map = json!({ "type": "map", "values": symbols });
    for out in [2, -1, i64::MAX, i64::MIN] {
        assert_last("x", &symbols, &long(out), Reason::MalformedAvro);
        assert_last("x", &json!(["null", "long"]), &long(out), Reason::MalformedAvro);
        assert_last("cost", &json!(["double", "null"]), &long(out), Reason::MalformedAvro);
        let last = [long(1), prefixed(b"k"), long(out), long(0)].concat();
        assert_last("labels", &map, &last, Reason::MalformedAvro);
    }
}
