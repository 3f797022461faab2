//! What is accepted, and what it becomes.

use aion_schemas::{
    decode::{Outcome, Reason, Record, Retry},
    log::{Offset, Origin, Timestamp},
    schema::{Kind, ORIGIN_COLUMN, POSITION_COLUMNS},
};
use arrow::array::{Array, AsArray, RecordBatch, types};

use crate::common::{
    CONTRACT, NOW_MICROS, decoder, event, every_kind, field, finish, framed, long, prefixed, push,
    record, row, schema,
};

fn text(batch: &RecordBatch, name: &str) -> Option<String> {
    let column = batch.column_by_name(name).unwrap().as_string::<i32>();
    column.is_valid(0).then(|| column.value(0).to_owned())
}

fn text_of(name: &str, json: &str) -> Option<String> {
    text(&row(&every_kind(), event(name, Some(json)).as_bytes()), name)
}

fn integer_of(json: &str) -> i64 {
    let batch = row(&every_kind(), event("attempt", Some(json)).as_bytes());
    batch.column_by_name("attempt").unwrap().as_primitive::<types::Int64Type>().value(0)
}

fn number_of(json: &str) -> f64 {
    let batch = row(&every_kind(), event("score", Some(json)).as_bytes());
    batch.column_by_name("score").unwrap().as_primitive::<types::Float64Type>().value(0)
}

#[test]
fn a_row_ends_in_its_position() {
    let mut decoder = decoder(&every_kind());
    let payload = event("tenant_id", Some("\"acme\""));
    assert_eq!(decoder.push(&record(Some(payload.as_bytes()), 41)), Outcome::Row);
    assert_eq!(decoder.push(&record(None, 42)), Outcome::Tombstone);
    assert_eq!(decoder.push(&record(Some(payload.as_bytes()), 43)), Outcome::Row);
    assert_eq!(decoder.rows(), 2);
    let topic_id = uuid::Uuid::from_u128(0x1234);
    let batch = decoder.finish(topic_id, 5);
    assert_eq!(batch.schema(), every_kind().arrow());
    let column = |name: &str| batch.column_by_name(name).unwrap().clone();
    assert_eq!(column(POSITION_COLUMNS[0]).as_string::<i32>().value(1), topic_id.to_string());
    assert_eq!(column(POSITION_COLUMNS[1]).as_primitive::<types::Int32Type>().values()[..], [3, 3]);
    assert_eq!(column(POSITION_COLUMNS[2]).as_primitive::<types::Int32Type>().values()[..], [5, 5]);
    assert_eq!(
        column(POSITION_COLUMNS[3]).as_primitive::<types::Int64Type>().values()[..],
        [41, 43]
    );
    let append_times = column(POSITION_COLUMNS[4]);
    let append_times = append_times.as_primitive::<types::TimestampMicrosecondType>();
    assert_eq!(append_times.values()[..], [NOW_MICROS; 2]);
    assert_eq!(column(ORIGIN_COLUMN).null_count(), 2);
}

#[test]
fn a_full_decoder_takes_no_row_before_it_is_finished() {
    let mut decoder = decoder(&every_kind());
    let payload = event("tenant_id", Some("\"acme\""));
    decoder.fill_at(2 * payload.len());
    for round in 0..2 {
        for _ in 0..2 {
            assert!(!decoder.is_full(), "round {round}");
            assert_eq!(push(&mut decoder, payload.as_bytes()), Outcome::Row);
        }
        assert!(decoder.is_full(), "round {round}");
        let outcome = push(&mut decoder, payload.as_bytes());
        assert!(
            matches!(&outcome, Outcome::Rejected(reject) if reject.reason == Reason::BatchFull),
            "{outcome:?}"
        );
        assert_eq!(finish(&mut decoder).num_rows(), 2);
    }
}

#[test]
fn retries_name_their_record_and_other_rows_name_none() {
    let mut decoder = decoder(&every_kind());
    let payload = event("tenant_id", Some("\"acme\""));
    let origin = |offset| Origin {
        topic_id: uuid::Uuid::from_u128(9),
        partition: 2,
        offset: Offset(offset),
    };
    for round in 0..2 {
        for (offset, retried) in [(1, None), (2, Some(70)), (3, None), (4, Some(71)), (5, None)] {
            let plain = record(Some(payload.as_bytes()), offset);
            let append_time = plain.append_time;
            let retry = retried.map(|offset| Retry { origin: origin(offset), append_time });
            assert_eq!(decoder.push(&Record { retry, ..plain }), Outcome::Row);
        }
        // A record that is rejected leaves no origin behind.
        let retry = Some(Retry { origin: origin(72), append_time: Timestamp(NOW_MICROS) });
        let broken = Record { retry, ..record(Some(b"{"), 6) };
        assert!(matches!(decoder.push(&broken), Outcome::Rejected(_)));
        let batch = decoder.finish(uuid::Uuid::from_u128(1), 0);
        let origins = batch.column_by_name(ORIGIN_COLUMN).unwrap().as_string::<i32>();
        let (first, second) = (origin(70).to_string(), origin(71).to_string());
        let wanted = [None, Some(&*first), None, Some(&*second), None];
        assert_eq!(origins.iter().collect::<Vec<_>>(), wanted, "round {round}");
    }
}

#[test]
fn a_decoder_is_empty_and_goes_on_after_finish() {
    let mut decoder = decoder(&every_kind());
    let payload = event("tenant_id", None);
    let empty = decoder.bytes();
    push(&mut decoder, payload.as_bytes());
    assert!(decoder.bytes() > empty);
    let first = finish(&mut decoder);
    assert_eq!((decoder.rows(), decoder.bytes()), (0, empty));
    assert_eq!(finish(&mut decoder).num_rows(), 0);
    push(&mut decoder, payload.as_bytes());
    assert_eq!(finish(&mut decoder), first);
}

#[test]
fn bytes_are_what_the_arrays_hold() {
    let mut decoder = decoder(&every_kind());
    for (index, payload) in
        ["\"acme\"", "null", "\"\"", "\"b\\u00e9\""].iter().cycle().take(1000).enumerate()
    {
        let payload = event("tenant_id", Some(payload));
        assert_eq!(decoder.push(&record(Some(payload.as_bytes()), index as i64)), Outcome::Row);
    }
    let held = decoder.bytes();
    let batch = finish(&mut decoder);
    // Batches of one partition share what says the same in every row.
    let shared = ["_topic_id", "_partition", ORIGIN_COLUMN]
        .map(|name| batch.schema().index_of(name).unwrap());
    let own = batch.columns().iter().enumerate().filter(|(index, _)| !shared.contains(index));
    let arrays: usize = own.map(|(_, c)| c.to_data().get_slice_memory_size().unwrap()).sum();
    let difference = held.abs_diff(arrays);
    assert!(difference < 200, "{held} was said, {arrays} are held");
}

#[test]
fn order_and_white_space_do_not_matter() {
    let schema = every_kind();
    let plain = row(&schema, event("tenant_id", Some("\"a\"")).as_bytes());
    let mut decoder = decoder(&schema);
    for payload in [
        "\r\n\t {\"tenant_id\" : \"a\" ,\n\"labels\":{ },\"urgent\":true,\"score\":0.5, \"attempt\":1,\
         \"timestamp\":\"2026-11-25T00:00:00Z\",\"task_id\":\"t-1\"\t}\n ",
        "{\"task\\u005fid\":\"t-1\",\"ten\\u0061nt_id\":\"\\u0061\",\"labels\":{},\"urgent\":true,\"score\":5e-1,\
         \"attempt\":1.0,\"timestamp\":\"2026-11-25\\u005400:00:00Z\",\"seen_at\":null,\"cost\":null}",
    ] {
        assert_eq!(push(&mut decoder, payload.as_bytes()), Outcome::Row, "{payload}");
        assert_eq!(finish(&mut decoder), plain);
    }
}

#[test]
fn strings_keep_every_character() {
    for (json, expected) in [
        (r#""""#, ""),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u0000""#, "\0"),
        (r#""\ud83d\ude00""#, "😀"),
        (r#""\uD83D\uDE00x""#, "😀x"),
        (r#""\uffff\ufeff""#, "\u{ffff}\u{feff}"),
        ("\"é😀\u{7f}\u{2028}\"", "é😀\u{7f}\u{2028}"),
        (r#""0123456789abcdef\\0123456789abcdef""#, "0123456789abcdef\\0123456789abcdef"),
    ] {
        assert_eq!(text_of("task_id", json).as_deref(), Some(expected), "{json}");
        assert_eq!(text_of("tenant_id", json).as_deref(), Some(expected), "{json}");
    }
    assert_eq!(text_of("tenant_id", "null"), None);
    // A special character at every place of a machine word.
    for len in 0..40 {
        let plain = "x".repeat(len);
        let json = format!("\"{plain}\\n{plain}\"");
        assert_eq!(text_of("task_id", &json).unwrap(), format!("{plain}\n{plain}"));
    }
}

#[test]
fn numbers_are_exact() {
    for (json, expected) in [
        ("9007199254740993", 9_007_199_254_740_993),
        ("-9223372036854775808", i64::MIN),
        ("9223372036854775807", i64::MAX),
        ("5.0", 5),
        ("5e0", 5),
        ("-0", 0),
        ("120e-1", 12),
    ] {
        assert_eq!(integer_of(json), expected, "{json}");
    }
    for json in ["0.1", "3", "-0", "9007199254740993", "1.7976931348623157e308", "5e-324", "1E+2"] {
        let expected: f64 = serde_json::from_str(json).unwrap();
        assert_eq!(number_of(json).to_bits(), expected.to_bits(), "{json}");
    }
}

#[test]
fn free_objects_become_canonical_text() {
    for (json, canonical) in [
        ("{}", "{}"),
        ("{ \"b\" : 1 ,\n \"a\" : [ true , false , null ] }", r#"{"a":[true,false,null],"b":1}"#),
        (
            r#"{"z":{"y":1,"x":2},"a":{"d":{},"c":[]}}"#,
            r#"{"a":{"c":[],"d":{}},"z":{"x":2,"y":1}}"#,
        ),
        (
            r#"{"n":123456789012345678901234567890.10,"m":1E5,"l":-0}"#,
            r#"{"l":-0,"m":1E5,"n":123456789012345678901234567890.10}"#,
        ),
        (
            r#"{"s":"\u0041\u00e9\/\u001f\u0008\u007f\"\\"}"#,
            "{\"s\":\"Aé/\\u001f\\b\u{7f}\\\"\\\\\"}",
        ),
        // By code point: U+FF61 comes before U+1F600, though not in UTF-16; and names are compared
        // by what they stand for, not by how they are escaped.
        ("{\"😀\":1,\"\\uff61\":2}", "{\"｡\":2,\"😀\":1}"),
        (r#"{"\\":1,"]":2,"[":3}"#, r#"{"[":3,"\\":1,"]":2}"#),
        (r#"{"ab":1,"a":2,"":3}"#, r#"{"":3,"a":2,"ab":1}"#),
        (r#"[{"b":1,"a":2}]"#, r#"[{"a":2,"b":1}]"#),
    ] {
        let (json, canonical) = match json.strip_prefix('[') {
            Some(_) => (format!("{{\"k\":{json}}}"), format!("{{\"k\":{canonical}}}")),
            None => (json.to_owned(), canonical.to_owned()),
        };
        assert_eq!(text_of("context", &json).as_deref(), Some(&*canonical), "{json}");
        assert_eq!(
            text_of("context", &canonical).as_deref(),
            Some(&*canonical),
            "not a fixed point"
        );
        let schema =
            schema(vec![field("timestamp", Kind::Time, true), field("o", Kind::Object, true)]);
        let payload = framed(CONTRACT, &[long(NOW_MICROS), prefixed(json.as_bytes())].concat());
        assert_eq!(
            text(&row(&schema, &payload), "o").as_deref(),
            Some(&*canonical),
            "Avro: {json}"
        );
    }
}

#[test]
fn unknown_fields_are_counted_and_dropped() {
    let mut decoder = decoder(&every_kind());
    for value in ["1", "\"\\u00e9\"", "{\"task_id\":[1,{\"a\":1,\"a\":1}]}", "null", "1e999"] {
        let payload = event("extra", Some(&format!("{value},\"more\":{value},\"extra\":{value}")));
        assert_eq!(push(&mut decoder, payload.as_bytes()), Outcome::Row, "{payload}");
    }
    let expected = vec![("extra".to_owned(), 10), ("more".to_owned(), 5)];
    assert_eq!(decoder.take_unknown_fields(), expected);
    assert_eq!(decoder.take_unknown_fields(), vec![]);
    assert_eq!(finish(&mut decoder).num_rows(), 5);
}

#[test]
fn counts_of_unknown_fields_are_bounded() {
    let mut decoder = decoder(&every_kind());
    for index in 0..1000 {
        let payload = event(&format!("x{index:04}"), Some("1"));
        assert_eq!(push(&mut decoder, payload.as_bytes()), Outcome::Row);
    }
    let long_name = event(&"y".repeat(1000), Some("1"));
    assert_eq!(push(&mut decoder, long_name.as_bytes()), Outcome::Row);
    let counts = decoder.take_unknown_fields();
    assert_eq!(counts.len(), 65);
    assert_eq!(counts[0], ("x0000".to_owned(), 1));
    assert_eq!(counts[64], ("other".to_owned(), 937));
}

#[test]
fn a_body_without_a_frame_is_the_contracts_own() {
    let schema =
        schema(vec![field("timestamp", Kind::Time, true), field("raw", Kind::Bytes, false)]);
    let body = [long(NOW_MICROS), long(1), prefixed(b"\0\xff")].concat();
    let framed_row = row(&schema, &framed(CONTRACT, &body));
    let mut decoder = decoder(&schema);
    let outcome = decoder.push_avro_body(&record(Some(&body), 0));
    assert_eq!(outcome, Outcome::Row);
    let batch = finish(&mut decoder);
    assert_eq!(batch, framed_row);
    assert_eq!(batch.column_by_name("raw").unwrap().as_binary::<i32>().value(0), b"\0\xff");
}

#[test]
fn an_optional_event_time_may_be_null() {
    let mut schema = schema(vec![field("timestamp", Kind::Time, false)]);
    schema.event_time = 0;
    let batch = row(&schema, b"{}");
    assert_eq!(batch.column(0).null_count(), 1);
    assert_eq!(Offset(0).next(), Offset(1));
    assert_eq!(Timestamp::from_millis(1), Timestamp(1000));
}
