//! What is rejected: each kind of bad input by name, with its reason and field.

use aion_schemas::{
    decode::{
        MAX_AHEAD_MICROS, MAX_BEHIND_MICROS, MAX_DEPTH, Outcome, Reason, Record, Retry, SchemaId,
    },
    log::{Offset, Origin, Timestamp},
    schema::{Kind, Schema},
};

use crate::common::{
    CONTRACT, NOW_MICROS, decoder, event, every_kind, field, framed, long, named, prefixed, reject,
    row, schema,
};

/// Rejects one value of one field, and says that it was this field.
fn assert_field(name: &str, value: &str, reason: Reason) {
    let payload = event(name, Some(value));
    let reject = reject(&every_kind(), payload.as_bytes());
    assert_eq!((reject.reason, &reject.field), (reason, &named(name)), "{payload}: {reject}");
}

fn assert_payload(payload: &[u8], reason: Reason) {
    let reject = reject(&every_kind(), payload);
    assert_eq!(reject.reason, reason, "{}: {reject}", String::from_utf8_lossy(payload));
}

#[test]
fn missing_and_null_required_fields_are_named() {
    for name in ["task_id", "attempt", "score", "urgent", "timestamp", "labels"] {
        let without = event(name, None);
        let reject = reject(&every_kind(), without.as_bytes());
        assert_eq!((reject.reason, reject.field), (Reason::MissingField, named(name)), "{without}");
        assert_field(name, "null", Reason::MissingField);
    }
}

#[test]
fn wrong_types_are_named() {
    for (names, values) in [
        (["task_id", "tenant_id"], ["1", "true", "[]", "{}", "-0.5"]),
        (["attempt", "size"], ["\"1\"", "true", "[1]", "{}", "1.5"]),
        (["score", "cost"], ["\"1\"", "false", "[1]", "{}", "\"NaN\""]),
        (["urgent", "muted"], ["\"true\"", "1", "0", "[]", "{}"]),
        (["timestamp", "seen_at"], ["1795564800", "true", "{}", "[]", "0.1"]),
        (["labels", "context"], ["\"{}\"", "[]", "1", "true", "[{}]"]),
    ] {
        for name in names {
            for value in values {
                assert_field(name, value, Reason::WrongType);
            }
        }
    }
}

#[test]
fn numbers_that_columns_do_not_hold() {
    for value in ["9223372036854775808", "-9223372036854775809", "1e19", "1e400"] {
        assert_field("attempt", value, Reason::NumberOutOfRange);
    }
    for value in ["1e309", "-1e309", "1e999999999999999999"] {
        assert_field("score", value, Reason::NumberOutOfRange);
        assert_field("cost", value, Reason::NumberOutOfRange);
    }
}

#[test]
fn malformed_values_wherever_they_stand() {
    for value in [
        "",
        "nul",
        "nullx",
        "tru",
        "truex",
        "TRUE",
        "NaN",
        "-Infinity",
        "01",
        "1.",
        "-",
        "+1",
        ".5",
        "1e",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "\"\u{1}\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\ud800\"",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "{1:1}",
        "{,}",
        "'a'",
        "1 2",
        "//\n1",
        "\u{a0}1",
        "\u{feff}1",
    ] {
        // As an unknown field; and within a free object, which is kept.
        let unknown = event("unknown", Some(value));
        assert_payload(unknown.as_bytes(), Reason::MalformedJson);
        let inner = event("context", Some(&format!("{{\"inner\":{value}}}")));
        assert_payload(inner.as_bytes(), Reason::MalformedJson);
    }
}

#[test]
fn malformed_events() {
    let whole = event("unknown", Some("[1]"));
    for end in 1..whole.len() {
        assert_payload(&whole.as_bytes()[..end], Reason::MalformedJson);
    }
    for garbage in ["x", "}", ",", "{}", " null", "\0", "\u{feff}"] {
        assert_payload(format!("{whole}{garbage}").as_bytes(), Reason::MalformedJson);
    }
    for payload in
        ["{,}", "{\"task_id\"}", "{\"task_id\":\"a\" \"attempt\":1}", "{\"task_id\":\"a\",}"]
    {
        assert_payload(payload.as_bytes(), Reason::MalformedJson);
    }
}

#[test]
fn invalid_utf8_anywhere() {
    for bytes in
        [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82"]
    {
        for (before, after) in
            [("{\"task_id\":\"", "\"}"), ("{\"", "\":1}"), ("{\"unknown\":[\"", "\"]}"), ("{", "}")]
        {
            let payload = [before.as_bytes(), bytes, after.as_bytes()].concat();
            assert_payload(&payload, Reason::InvalidUtf8);
        }
    }
}

#[test]
fn a_field_twice_is_a_duplicate_however_it_is_written() {
    for again in ["\"task_id\":\"t-1\"", "\"task_id\":null", "\"task\\u005fid\":\"x\""] {
        let payload = event("task_id", Some(&format!("\"t-1\",{again}")));
        let reject = reject(&every_kind(), payload.as_bytes());
        assert_eq!(
            (reject.reason, reject.field),
            (Reason::DuplicateKey, named("task_id")),
            "{payload}"
        );
    }
    let twice_null = event("tenant_id", Some("null,\"tenant_id\":\"a\""));
    assert_payload(twice_null.as_bytes(), Reason::DuplicateKey);
    assert_field("labels", r#"{"a":1,"b":2,"a":1}"#, Reason::DuplicateKey);
    assert_field("labels", r#"{"a":1,"\u0061":2}"#, Reason::DuplicateKey);
    assert_field("labels", r#"{"x":[{"a":1,"a":1}]}"#, Reason::DuplicateKey);
}

#[test]
fn depth_bombs() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    };
    for depth in [MAX_DEPTH + 1, 100_000] {
        for bomb in [
            nested("[", "]", depth),
            "[".repeat(depth),
            format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)),
            "{\"a\":[".repeat(depth),
        ] {
            assert_payload(event("unknown", Some(&bomb)).as_bytes(), Reason::TooDeep);
            let known = format!("{{\"a\":{bomb}}}");
            assert_field("context", &known, Reason::TooDeep);
            assert_payload(&framed(CONTRACT, &body_with_labels(known.as_bytes())), Reason::TooDeep);
        }
    }
    // The deepest that is taken, in either place.
    let deepest = nested("[", "]", MAX_DEPTH);
    row(&every_kind(), event("unknown", Some(&deepest)).as_bytes());
    let inner = nested("[", "]", MAX_DEPTH - 1);
    row(&every_kind(), event("context", Some(&format!("{{\"a\":{inner}}}"))).as_bytes());
}

/// A time as JSON text.
fn event_time(micros: i64) -> String {
    let date = arrow::temporal_conversions::timestamp_us_to_datetime(micros).unwrap();
    format!("\"{}Z\"", date.format("%Y-%m-%dT%H:%M:%S%.6f"))
}

#[test]
fn times_far_from_the_append_time() {
    for (micros, fits) in [
        (NOW_MICROS + MAX_AHEAD_MICROS, true),
        (NOW_MICROS + MAX_AHEAD_MICROS + 1, false),
        (NOW_MICROS - MAX_BEHIND_MICROS, true),
        (NOW_MICROS - MAX_BEHIND_MICROS - 1, false),
    ] {
        let text = event_time(micros);
        let avro = framed(CONTRACT, &body(|b| b.extend(long(micros)), prefixed(b"{}")));
        if fits {
            row(&every_kind(), event("timestamp", Some(&text)).as_bytes());
            row(&every_kind(), &avro);
        } else {
            assert_field("timestamp", &text, Reason::TimeOutOfBounds);
            assert_payload(&avro, Reason::TimeOutOfBounds);
        }
        // Only the event time is held against the append time.
        row(&every_kind(), event("seen_at", Some(&text)).as_bytes());
    }
    for value in
        ["\"1969-12-31T23:59:59Z\"", "\"2262-01-01T00:00:00Z\"", "\"9999-01-01T00:00:00Z\""]
    {
        assert_field("seen_at", value, Reason::TimeOutOfBounds);
    }
    assert_field("seen_at", "\"yesterday\"", Reason::BadTime);
}

#[test]
fn extreme_append_times_do_not_overflow() {
    let payload = event("unknown", None);
    for append_time in [i64::MIN, -1, i64::MAX] {
        let mut decoder = decoder(&every_kind());
        let outcome = decoder.push(&Record {
            value: Some(payload.as_bytes()),
            offset: Offset(1),
            epoch: -1,
            append_time: Timestamp(append_time),
            retry: None,
        });
        assert!(
            matches!(outcome, Outcome::Rejected(reject) if reject.reason == Reason::TimeOutOfBounds)
        );
    }
}

#[test]
fn unknown_encodings_and_frames() {
    for payload in [
        &b""[..],
        b" ",
        b"[]",
        b"null",
        b"\"a\"",
        b"1",
        b"\xef\xbb\xbf{}",
        b"\x01",
        b"PAR1",
        b"\x0c{}",
    ] {
        assert_payload(payload, Reason::UnknownEncoding);
    }
    for payload in [&b"\0"[..], b"\0\0\0\0"] {
        assert_payload(payload, Reason::MalformedAvro);
    }
    assert_payload(&framed(SchemaId(8), &[]), Reason::UnknownSchema);
    assert_payload(&framed(SchemaId(u32::MAX), &body_with_labels(b"{}")), Reason::UnknownSchema);
}

/// A body of [`every_kind`] with nulls for all optional fields.
fn body(timestamp: impl Fn(&mut Vec<u8>), labels: Vec<u8>) -> Vec<u8> {
    let mut bytes = prefixed(b"t-1");
    bytes.push(0);
    bytes.extend(long(1));
    bytes.push(0);
    bytes.extend(0.5f64.to_le_bytes());
    bytes.push(0);
    bytes.push(1);
    bytes.push(0);
    timestamp(&mut bytes);
    bytes.push(0);
    bytes.extend(labels);
    bytes.push(0);
    bytes
}

fn body_with_labels(labels: &[u8]) -> Vec<u8> {
    body(|bytes| bytes.extend(long(NOW_MICROS)), prefixed(labels))
}

#[test]
fn malformed_avro() {
    let whole = body_with_labels(b"{\"a\":1}");
    row(&every_kind(), &framed(CONTRACT, &whole));
    for end in 0..whole.len() {
        assert_payload(&framed(CONTRACT, &whole[..end]), Reason::MalformedAvro);
    }
    for garbage in [&b"\0"[..], b"\x80", b"abc"] {
        assert_payload(&framed(CONTRACT, &[&whole[..], garbage].concat()), Reason::MalformedAvro);
    }
}

/// A schema of two fields, whose second is read from `bytes`.
fn assert_avro(kind: Kind, required: bool, bytes: &[u8], reason: Reason) {
    let schema: Schema =
        schema(vec![field("timestamp", Kind::Time, true), field("x", kind, required)]);
    let payload = framed(CONTRACT, &[long(NOW_MICROS), bytes.to_vec()].concat());
    let reject = reject(&schema, &payload);
    assert_eq!(reject.reason, reason, "{kind:?} {bytes:02x?}: {reject}");
}

#[test]
fn malformed_avro_values() {
    let overlong = [0x80; 10];
    let beyond_64_bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
    for kind in [Kind::Text, Kind::Object, Kind::Bytes, Kind::Integer, Kind::Time] {
        assert_avro(kind, true, &[], Reason::MalformedAvro);
        assert_avro(kind, true, &overlong, Reason::MalformedAvro);
        assert_avro(kind, true, &[&overlong[..], &[0]].concat(), Reason::MalformedAvro);
        assert_avro(kind, true, &beyond_64_bits, Reason::MalformedAvro);
    }
    for kind in [Kind::Text, Kind::Object, Kind::Bytes] {
        assert_avro(kind, true, &[long(-1), b"a".to_vec()].concat(), Reason::MalformedAvro);
        assert_avro(kind, true, &[long(2), b"a".to_vec()].concat(), Reason::MalformedAvro);
        assert_avro(kind, true, &long(i64::MAX), Reason::MalformedAvro);
        assert_avro(kind, true, &long(i64::MIN), Reason::MalformedAvro);
        for branch in [2, -1, 3, i64::MIN, i64::MAX] {
            assert_avro(
                kind,
                false,
                &[long(branch), prefixed(b"{}")].concat(),
                Reason::MalformedAvro,
            );
        }
    }
    for text in [&b"\xff"[..], b"\xed\xa0\x80", b"abc\xc3"] {
        assert_avro(Kind::Text, true, &prefixed(text), Reason::InvalidUtf8);
        assert_avro(
            Kind::Object,
            true,
            &prefixed(&[b"{\"", text, b"\":1}"].concat()),
            Reason::InvalidUtf8,
        );
    }
    for text in ["", "text", "[]", "1", "null", "\"{}\"", "[{}]"] {
        assert_avro(Kind::Object, true, &prefixed(text.as_bytes()), Reason::WrongType);
    }
    for text in ["{", "{}}", "{} x", "{\"a\":}", "{a:1}"] {
        assert_avro(Kind::Object, true, &prefixed(text.as_bytes()), Reason::MalformedJson);
    }
    assert_avro(Kind::Object, true, &prefixed(b"{\"a\":1,\"a\":1}"), Reason::DuplicateKey);
    for value in [2, 0x80, 0xff] {
        assert_avro(Kind::Boolean, true, &[value], Reason::MalformedAvro);
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_avro(Kind::Number, true, &value.to_le_bytes(), Reason::NumberOutOfRange);
    }
    assert_avro(Kind::Number, true, &[0; 7], Reason::MalformedAvro);
    for micros in [-1, i64::MIN, i64::MAX, 9_214_646_400_000_000] {
        assert_avro(Kind::Time, true, &long(micros), Reason::TimeOutOfBounds);
    }
}

#[test]
fn bytes_have_no_form_in_json() {
    let schema =
        schema(vec![field("timestamp", Kind::Time, true), field("raw", Kind::Bytes, false)]);
    let payload = br#"{"timestamp":"2026-11-25T00:00:00Z","raw":"AA=="}"#;
    let reject = reject(&schema, payload);
    assert_eq!((reject.reason, reject.field), (Reason::WrongType, named("raw")));
}

#[test]
fn details_never_show_values() {
    let secret = "hunter2";
    for payload in [
        event("attempt", Some("\"hunter2\"")),
        event("timestamp", Some("\"hunter2\"")),
        event("labels", Some("{\"hunter2\":1,\"hunter2\":1}")),
        format!("{}hunter2", event("unknown", None)),
    ] {
        let reject = reject(&every_kind(), payload.as_bytes());
        assert!(!reject.to_string().contains(secret), "{reject}");
    }
}

#[test]
fn a_retry_is_judged_by_the_time_of_the_first_append() {
    let append_time = Timestamp(NOW_MICROS);
    let origin = Origin { topic_id: uuid::Uuid::nil(), partition: 0, offset: Offset(1) };
    let day = MAX_AHEAD_MICROS;
    let old = NOW_MICROS - MAX_BEHIND_MICROS;
    // What was good when it was appended is good a year later, and what was not isn't made so by waiting.
    for (event_micros, is_row) in
        [(old, true), (NOW_MICROS + day, true), (NOW_MICROS + 2 * day, false)]
    {
        let payload = event("timestamp", Some(&event_time(event_micros)));
        let mut decoder = decoder(&every_kind());
        let outcome = decoder.push(&Record {
            value: Some(payload.as_bytes()),
            offset: Offset(7),
            epoch: 0,
            append_time: Timestamp(NOW_MICROS + 365 * day),
            retry: Some(Retry { origin, append_time }),
        });
        assert_eq!(outcome == Outcome::Row, is_row, "{event_micros}: {outcome:?}");
    }
}

#[test]
fn codes_are_stable() {
    let codes = Reason::ALL.map(Reason::code).join(" ");
    assert_eq!(
        codes,
        "malformed_json malformed_avro missing_field wrong_type number_out_of_range bad_time \
         time_out_of_bounds invalid_utf8 too_deep duplicate_key unknown_encoding unknown_schema \
         incompatible_schema foreign_schema too_large no_origin refused batch_full"
    );
}
