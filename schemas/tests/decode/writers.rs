//! Writers whose schema is another version of the contract's, or another one altogether.

use aion_schemas::{
    decode::{Outcome, Reason, SchemaId},
    schema::{Kind, Schema},
};
use apache_avro::types::Value as Avro;
use arrow::array::RecordBatch;
use serde_json::{Value, json};

use crate::{
    common::{
        CONTRACT, NOW_MICROS, decoder, field, finish, framed, long, named, prefixed, push, schema,
    },
    oracle::{self, Row},
};

const WRITER: SchemaId = SchemaId(9);

fn contract() -> Schema {
    schema(vec![
        field("task_id", Kind::Text, true),
        field("size", Kind::Integer, false),
        field("cost", Kind::Number, false),
        field("timestamp", Kind::Time, true),
        field("labels", Kind::Object, false),
    ])
}

fn writer(fields: &Value) -> String {
    json!({ "type": "record", "name": "event", "namespace": "other", "fields": fields }).to_string()
}

fn time(unit: &str) -> Value {
    json!({ "name": "timestamp", "type": { "type": "long", "logicalType": unit } })
}

/// The row that a value of the writer's becomes.
fn row_of(writer: &str, values: Vec<(&str, Avro)>) -> Row {
    let schema = contract();
    let mut decoder = decoder(&schema);
    decoder.learn(WRITER, writer).unwrap();
    let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let body =
        oracle::write_avro(&apache_avro::Schema::parse_str(writer).unwrap(), Avro::Record(values));
    assert_eq!(push(&mut decoder, &framed(WRITER, &body)), Outcome::Row, "{writer}");
    let batch: RecordBatch = finish(&mut decoder);
    oracle::cells(&schema, &batch, 0)
}

fn text(text: &str) -> Avro {
    Avro::String(text.to_owned())
}

fn cells<const N: usize>(cells: [Option<&str>; N]) -> Row {
    cells.into_iter().map(|cell| cell.map(str::to_owned)).collect()
}

#[test]
fn an_older_writer_has_fewer_fields_in_another_order() {
    let writer =
        writer(&json!([time("timestamp-micros"), { "name": "task_id", "type": "string" }]));
    let values = vec![("timestamp", Avro::TimestampMicros(NOW_MICROS)), ("task_id", text("t"))];
    let now = NOW_MICROS.to_string();
    assert_eq!(row_of(&writer, values), cells([Some("t"), None, None, Some(&now), None]));
}

#[test]
fn narrower_types_are_promoted_and_unions_may_be_any_way_round() {
    let writer = writer(&json!([
        { "name": "task_id", "type": "bytes" },
        { "name": "size", "type": "int" },
        { "name": "cost", "type": ["float", "string", "null"] },
        time("timestamp-millis"),
        { "name": "labels", "type": ["string", "null"] },
    ]));
    let values = vec![
        ("task_id", Avro::Bytes(b"t".to_vec())),
        ("size", Avro::Int(-7)),
        ("cost", Avro::Union(0, Box::new(Avro::Float(0.5)))),
        ("timestamp", Avro::TimestampMillis(NOW_MICROS / 1000)),
        ("labels", Avro::Union(0, Box::new(text("{\"b\":1, \"a\":2}")))),
    ];
    let now = NOW_MICROS.to_string();
    let expected =
        cells([Some("t"), Some("-7"), Some("0.5"), Some(&now), Some("{\"a\":2,\"b\":1}")]);
    assert_eq!(row_of(&writer, values), expected);
}

/// Types of every shape that Avro has, each with a value, in fields that the contract doesn't have.
fn dropped() -> Vec<(Value, Avro)> {
    let point =
        json!({ "type": "record", "name": "point", "fields": [{ "name": "x", "type": "double" }] });
    let point_value = || Avro::Record(vec![("x".to_owned(), Avro::Double(f64::NAN))]);
    vec![
        (json!("null"), Avro::Null),
        (json!("boolean"), Avro::Boolean(true)),
        (json!("float"), Avro::Float(1.0)),
        (json!({ "type": "fixed", "name": "four", "size": 4 }), Avro::Fixed(4, vec![1, 2, 3, 4])),
        (
            json!({ "type": "enum", "name": "ab", "symbols": ["a", "b"] }),
            Avro::Enum(1, "b".to_owned()),
        ),
        (
            json!({ "type": "array", "items": "long" }),
            Avro::Array(vec![Avro::Long(1), Avro::Long(-1)]),
        ),
        (json!({ "type": "array", "items": "null" }), Avro::Array(vec![Avro::Null, Avro::Null])),
        (
            json!({ "type": "map", "values": ["null", "bytes"] }),
            Avro::Map([("k".to_owned(), Avro::Union(1, Box::new(Avro::Bytes(vec![0xff]))))].into()),
        ),
        (point, point_value()),
        (json!({ "type": "array", "items": "other.point" }), Avro::Array(vec![point_value()])),
        (json!({ "type": "int", "logicalType": "date" }), Avro::Date(1)),
    ]
}

#[test]
fn fields_of_every_type_are_dropped_and_counted() {
    let (types, values): (Vec<_>, Vec<_>) = dropped().into_iter().unzip();
    let mut fields = vec![json!({ "name": "task_id", "type": "string" })];
    let mut record = vec![("task_id".to_owned(), text("t"))];
    for (index, (r#type, value)) in types.into_iter().zip(values).enumerate() {
        fields.push(json!({ "name": format!("x{index}"), "type": r#type }));
        record.push((format!("x{index}"), value));
    }
    fields.push(time("timestamp-micros"));
    record.push(("timestamp".to_owned(), Avro::TimestampMicros(NOW_MICROS)));
    let count = fields.len() - 2;
    let writer = writer(&Value::Array(fields));
    let body =
        oracle::write_avro(&apache_avro::Schema::parse_str(&writer).unwrap(), Avro::Record(record));
    let schema = contract();
    let mut decoder = decoder(&schema);
    decoder.learn(WRITER, &writer).unwrap();
    assert_eq!(push(&mut decoder, &framed(WRITER, &body)), Outcome::Row);
    let counts = decoder.take_unknown_fields();
    assert_eq!(counts.len(), count);
    assert!(counts.iter().all(|(_, count)| *count == 1));
    let now = NOW_MICROS.to_string();
    let batch = finish(&mut decoder);
    assert_eq!(oracle::cells(&schema, &batch, 0), cells([Some("t"), None, None, Some(&now), None]));
    // Cut anywhere, it is malformed, and leaves nothing behind.
    for end in 0..body.len() {
        let outcome = push(&mut decoder, &framed(WRITER, &body[..end]));
        assert!(
            matches!(&outcome, Outcome::Rejected(r) if r.reason == Reason::MalformedAvro),
            "{outcome:?}"
        );
    }
    assert_eq!(decoder.rows(), 0);
}

#[test]
fn blocks_cannot_cost_more_time_than_they_have_bytes() {
    let items = json!({ "name": "x", "type": { "type": "array", "items": "null" } });
    let fields = json!([{ "name": "task_id", "type": "string" }, time("timestamp-micros"), items]);
    let mut decoder = decoder(&contract());
    decoder.learn(WRITER, &writer(&fields)).unwrap();
    let body = [prefixed(b"t"), long(NOW_MICROS), long(i64::MAX), long(i64::MIN), long(0), long(0)]
        .concat();
    assert_eq!(push(&mut decoder, &framed(WRITER, &body)), Outcome::Row);
}

#[test]
fn versions_and_encodings_share_one_batch() {
    let schema = contract();
    let mut decoder = decoder(&schema);
    let fields = json!([time("timestamp-micros"), { "name": "task_id", "type": "string" }]);
    decoder.learn(WRITER, &writer(&fields)).unwrap();
    let json = br#"{"task_id":"t","timestamp":"2026-11-25T00:00:00Z"}"#;
    let own = framed(CONTRACT, &[prefixed(b"t"), vec![0, 0], long(NOW_MICROS), vec![0]].concat());
    let older = framed(WRITER, &[long(NOW_MICROS), prefixed(b"t")].concat());
    for payload in [&json[..], &own, &older, &own, &older] {
        assert_eq!(push(&mut decoder, payload), Outcome::Row);
    }
    let batch = finish(&mut decoder);
    assert_eq!(batch.num_rows(), 5);
    for row in 1..5 {
        assert_eq!(batch.slice(row, 1), batch.slice(0, 1));
    }
}

#[test]
fn a_null_or_another_type_rejects_the_event_that_has_it() {
    let fields = json!([
        { "name": "task_id", "type": ["null", "long", "string"] },
        time("timestamp-micros"),
    ]);
    let mut decoder = decoder(&contract());
    decoder.learn(WRITER, &writer(&fields)).unwrap();
    for (value, reason) in [(long(0), Reason::MissingField), (long(1), Reason::WrongType)] {
        let outcome = push(&mut decoder, &framed(WRITER, &[value, long(NOW_MICROS)].concat()));
        let Outcome::Rejected(reject) = outcome else { panic!("{outcome:?}") };
        assert_eq!((reject.reason, reject.field), (reason, named("task_id")));
    }
    let body = [long(2), prefixed(b"t"), long(NOW_MICROS)].concat();
    assert_eq!(push(&mut decoder, &framed(WRITER, &body)), Outcome::Row);
}

#[test]
fn incompatible_writers_are_remembered() {
    let task_id = json!({ "name": "task_id", "type": "string" });
    let list = json!({ "type": "record", "name": "list", "fields": [
        { "name": "next", "type": ["null", "other.list"] },
    ]});
    for (writer, why) in [
        ("{".to_owned(), "not an Avro schema"),
        ("\"string\"".to_owned(), "isn't a record"),
        (writer(&json!([task_id])), "`timestamp`"),
        (writer(&json!([task_id, { "name": "timestamp", "type": "long" }])), "`timestamp`"),
        (
            writer(&json!([{ "name": "task_id", "type": "int" }, time("timestamp-micros")])),
            "`task_id`",
        ),
        (
            writer(&json!([{ "name": "task_id", "type": "null" }, time("timestamp-micros")])),
            "`task_id`",
        ),
        (
            writer(&json!([task_id, time("timestamp-micros"), { "name": "x", "type": list }])),
            "within themselves",
        ),
    ] {
        let mut decoder = decoder(&contract());
        let error = decoder.learn(WRITER, &writer).unwrap_err();
        assert!(error.to_string().contains(why), "{writer}: {error}");
        assert!(decoder.knows(WRITER));
        let outcome = push(&mut decoder, &framed(WRITER, &[0; 20]));
        let Outcome::Rejected(reject) = outcome else { panic!("{outcome:?}") };
        assert_eq!(reject.reason, Reason::IncompatibleSchema);
    }
    assert!(!decoder(&contract()).knows(WRITER));
}
