#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::json;

use super::*;
use crate::catalog::Catalog;

fn validator(table: &str) -> Validator {
    Validator::new(Catalog::builtin().table(table).unwrap()).unwrap()
}

/// A whole, right event of that table.
fn event(table: &str) -> Value {
    let catalog = Catalog::builtin();
    let samples = &catalog.table(table).unwrap().samples;
    serde_json::from_str(samples.lines().max_by_key(|line| line.len()).unwrap()).unwrap()
}

#[test]
fn every_sample_passes_and_every_topic_has_a_minimal_and_a_full_one() {
    for topic in Catalog::builtin().topics.iter().filter(|topic| !topic.internal) {
        let validator = Validator::new(topic).unwrap();
        let events: Vec<Value> =
            topic.samples.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for event in &events {
            validator.check(event).unwrap();
        }
        let sizes: Vec<usize> =
            events.iter().map(|event| event.as_object().unwrap().len()).collect();
        let required = topic.schema.fields.iter().filter(|field| field.required).count();
        assert_eq!(sizes.iter().min(), Some(&required), "{}: a minimal sample", topic.name);
        let seen = |name: &str| events.iter().any(|event| event.get(name).is_some());
        for field in &topic.schema.fields {
            assert!(seen(&field.name), "{}: no sample has {}", topic.name, field.name);
        }
    }
}

#[test]
fn every_field_is_held_to_its_type_and_requirement() {
    for topic in Catalog::builtin().topics.iter().filter(|topic| !topic.internal) {
        let validator = Validator::new(topic).unwrap();
        for field in &topic.schema.fields {
            let mut wrong = event(&topic.table);
            wrong[&*field.name] = json!([1]);
            let violations = validator.check(&wrong).unwrap_err();
            assert_eq!(violations[0].field, *field.name);
            assert_eq!(violations[0].value.as_deref(), Some("[1]"));

            let mut without = event(&topic.table);
            without.as_object_mut().unwrap().remove(&*field.name);
            assert_eq!(validator.check(&without).is_err(), field.required, "{}", field.name);
        }
    }
}

type Case = (&'static str, &'static str, Value, &'static str, &'static str);

/// Each: the table, a field, the value that it is given, the rule and the message.
#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    vec![
        (
            "decisions",
            "teir",
            json!("public"),
            "additionalProperties",
            "field `teir` is unknown; did you mean `tier`?",
        ),
        (
            "decisions",
            "Tier",
            json!("public"),
            "additionalProperties",
            "field `Tier` is unknown; did you mean `tier`?",
        ),
        (
            "decisions",
            "colour",
            json!(1),
            "additionalProperties",
            "field `colour` is unknown; leave it out, or add it to the schema",
        ),
        ("decisions", "tier", json!(""), "minLength", "field `tier` must not be empty"),
        (
            "decisions",
            "tier",
            json!(null),
            "type",
            "field `tier` must be of type string; it is null",
        ),
        (
            "decisions",
            "tenant_id",
            json!(null),
            "type",
            "field `tenant_id` is null; leave it out when there is no value",
        ),
        (
            "decisions",
            "size",
            json!("12"),
            "type",
            "field `size` must be of type integer; it is \"12\"",
        ),
        (
            "decisions",
            "size",
            json!(1.5),
            "type",
            "field `size` must be of type integer; it is 1.5",
        ),
        (
            "decisions",
            "size",
            json!(-1),
            "minimum",
            "field `size`: -1 is less than the minimum of 0",
        ),
        (
            "decisions",
            "size",
            json!(u64::MAX),
            "int64",
            "field `size` must be a whole number of 64 bits, written without a fraction; it is 18446744073709551615",
        ),
        (
            "decisions",
            "size",
            json!(1e300),
            "int64",
            "field `size` must be a whole number of 64 bits, written without a fraction; it is 1e+300",
        ),
        (
            "decisions",
            "timestamp",
            json!("yesterday"),
            "format",
            "field `timestamp` must be a time as RFC 3339 writes it, like 2026-03-14T09:26:53Z; it is \"yesterday\"",
        ),
        (
            "decisions",
            "timestamp",
            json!("2026-02-30T00:00:00Z"),
            "format",
            "field `timestamp` must be a time as RFC 3339 writes it, like 2026-03-14T09:26:53Z; it is \"2026-02-30T00:00:00Z\"",
        ),
        (
            "decisions",
            "timestamp",
            json!("2026-03-14T09:26:53"),
            "format",
            "field `timestamp` must be a time as RFC 3339 writes it, like 2026-03-14T09:26:53Z; it is \"2026-03-14T09:26:53\"",
        ),
        (
            "metrics",
            "kind",
            json!("summary"),
            "enum",
            "field `kind` must be one of \"counter\", \"gauge\", \"histogram\"; it is \"summary\"",
        ),
        (
            "metrics",
            "labels",
            json!({"host": {"name": "a"}}),
            "type",
            "field `labels.host` must be of type boolean or number or string; it is {\"name\":\"a\"}",
        ),
        (
            "tasks",
            "metadata",
            json!("none"),
            "type",
            "field `metadata` must be of type object; it is \"none\"",
        ),
    ]
}

#[test]
fn messages_are_for_people() {
    for (table, field, value, rule, message) in cases() {
        let mut event = event(table);
        event[field] = value;
        let violations = validator(table).check(&event).unwrap_err();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].to_string(), message);
        assert_eq!(violations[0].rule, rule, "{message}");
    }
}

#[test]
fn what_is_missing_has_no_value_and_all_violations_are_told() {
    let violations = validator("decisions").check(&json!({"teir": 1, "size": "x"})).unwrap_err();
    let missing: Vec<&str> = violations
        .iter()
        .filter(|violation| violation.rule == "required" && violation.value.is_none())
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(missing, ["task_id", "intent", "route", "reason", "tier", "timestamp"]);
    assert_eq!(violations.len(), 8, "{violations:?}");
    assert!(violations.iter().any(|violation| violation.message == "field `tier` is required"));
}

#[test]
fn bytes_that_are_no_event_are_refused() {
    let validator = validator("decisions");
    for (bytes, message) in [
        (&b""[..], "not JSON: EOF while parsing a value at line 1 column 0"),
        (b"\x00\x00\x00\x00\x07abc", "not JSON: expected value at line 1 column 1"),
        (b"{\"task_id\":\"\xff\"}", "not JSON: invalid unicode code point at line 1 column 13"),
        (b"[1]", "an event must be a JSON object; it is [1]"),
        (b"null", "an event must be a JSON object; it is null"),
    ] {
        let violations = validator.check_bytes(bytes).unwrap_err();
        assert_eq!(violations[0].to_string(), message);
        assert_eq!(violations[0].field, "");
    }
}

#[test]
fn reports_are_bounded() {
    let mut event = event("decisions");
    for number in 0..10_000 {
        event[format!("unknown_{number}")] = json!(number);
    }
    assert_eq!(validator("decisions").check(&event).unwrap_err().len(), MAX_VIOLATIONS);

    let long = json!("é".repeat(1_000_000));
    event = self::event("decisions");
    event["size"] = long;
    let violations = validator("decisions").check(&event).unwrap_err();
    let shown = violations[0].value.as_ref().unwrap();
    assert_eq!(shown.chars().count(), MAX_EXCERPT_CHARS + 1);
    assert!(violations[0].message.len() < 400);
}

/// 2026-03-14T09:26:53Z.
const APPENDED: Timestamp = Timestamp::from_millis(1_773_480_413_000);

#[test]
fn every_sample_becomes_a_row() {
    for topic in Catalog::builtin().topics.iter().filter(|topic| !topic.internal) {
        let validator = Validator::new(topic).unwrap();
        for sample in topic.samples.lines() {
            validator.admit(sample.as_bytes(), APPENDED).unwrap();
        }
    }
}

#[test]
fn admitting_finds_what_only_the_decoder_sees() {
    let event = |field: &str, value: &str| {
        let start = r#"{"actor_id":"user-42","action":"login","#;
        let time = r#""timestamp":"2026-03-14T09:26:53Z""#;
        match field {
            "timestamp" => format!(r#"{start}"timestamp":{value}}}"#),
            _ => format!(r#"{start}{time},"{field}":{value}}}"#),
        }
    };
    let deep = "{\"a\":".repeat(100) + "1" + &"}".repeat(100);
    let validator = validator("audit");
    let cases = [
        ("context", r#"{"ip":"192.0.2.7"}"#, None),
        ("timestamp", r#""2026-03-15T09:26:53Z""#, None),
        ("timestamp", r#""2026-03-15T09:26:53.000001Z""#, Some("time_out_of_bounds")),
        ("timestamp", r#""2016-03-01T00:00:00Z""#, Some("time_out_of_bounds")),
        ("timestamp", r#""1969-12-31T23:59:59Z""#, Some("time_out_of_bounds")),
        ("action", r#""logout""#, Some("duplicate_key")),
        ("context", r#"{"a":1,"a":2}"#, Some("duplicate_key")),
        ("context", &deep, Some("too_deep")),
    ];
    for (field, value, rule) in cases {
        let event = event(field, value);
        validator.check_bytes(event.as_bytes()).unwrap();
        match (validator.admit(event.as_bytes(), APPENDED), rule) {
            (Ok(()), None) => {}
            (Err(violations), Some(rule)) => {
                assert_eq!(
                    (violations[0].field.as_str(), violations[0].rule.as_str()),
                    (field, rule)
                );
                let start = format!("field `{field}` can't become a row: ");
                assert!(violations[0].message.starts_with(&start), "{}", violations[0]);
            }
            (found, wanted) => panic!("{event}: {found:?}, wanted {wanted:?}"),
        }
    }
    // What the schema refuses is told in its words.
    let violations = validator.admit(b"{}", APPENDED).unwrap_err();
    assert_eq!(violations[0].to_string(), "field `actor_id` is required");
}
