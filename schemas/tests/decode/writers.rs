//! Writers whose schema is another version of the contract's, or another one altogether.

use aion_schemas::{
    decode::{Outcome, Reason, SchemaId, Writer},
    schema::{Kind, Schema},
};
use apache_avro::types::Value as Avro;
use arrow::array::RecordBatch;
use serde_json::{Value, json};

use crate::{
    common::{
        CONTRACT, NOW_MICROS, decoder, decoder_of, field, finish, framed, long, named, prefixed,
        push, schema,
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
    let mut decoder = decoder_of(&schema, WRITER, writer);
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
    let mut decoder = decoder_of(&schema, WRITER, &writer);
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
    let mut decoder = decoder_of(&contract(), WRITER, &writer(&fields));
    let body = [prefixed(b"t"), long(NOW_MICROS), long(i64::MAX), long(i64::MIN), long(0), long(0)]
        .concat();
    assert_eq!(push(&mut decoder, &framed(WRITER, &body)), Outcome::Row);
}

#[test]
fn versions_and_encodings_share_one_batch() {
    let schema = contract();
    let fields = json!([time("timestamp-micros"), { "name": "task_id", "type": "string" }]);
    let mut decoder = decoder_of(&schema, WRITER, &writer(&fields));
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
    let mut decoder = decoder_of(&contract(), WRITER, &writer(&fields));
    for (value, reason) in [(long(0), Reason::MissingField), (long(1), Reason::WrongType)] {
        let outcome = push(&mut decoder, &framed(WRITER, &[value, long(NOW_MICROS)].concat()));
        let Outcome::Rejected(reject) = outcome else { panic!("{outcome:?}") };
        assert_eq!((reject.reason, reject.field), (reason, named("task_id")));
    }
    let body = [long(2), prefixed(b"t"), long(NOW_MICROS)].concat();
    assert_eq!(push(&mut decoder, &framed(WRITER, &body)), Outcome::Row);
}

/// The only row that an Avro value of the writer's becomes under a contract.
fn row_under(schema: &Schema, writer: &str, values: Vec<(&str, Avro)>) -> Row {
    let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let parsed = apache_avro::Schema::parse_str(writer).unwrap();
    let body = oracle::write_avro(&parsed, Avro::Record(values));
    let mut decoder = decoder_of(schema, WRITER, writer);
    assert_eq!(push(&mut decoder, &framed(WRITER, &body)), Outcome::Row, "{writer}");
    oracle::cells(schema, &finish(&mut decoder), 0)
}

/// A contract whose fields were renamed and added since.
fn changed() -> Schema {
    let renamed = |name, kind, alias: &str| {
        let field = field(name, kind, true);
        aion_schemas::schema::Field { aliases: vec!["other_former".into(), alias.into()], ..field }
    };
    let added = |name, kind, default| {
        let field = field(name, kind, true);
        aion_schemas::schema::Field { default: Some(default), ..field }
    };
    schema(vec![
        renamed("task_id", Kind::Text, "taskId"),
        added("kind", Kind::Text, json!("gauge")),
        added("retries", Kind::Integer, json!(-1)),
        added("share", Kind::Number, json!(0.5)),
        added("urgent", Kind::Boolean, json!(true)),
        added("labels", Kind::Object, json!({})),
        field("timestamp", Kind::Time, true),
    ])
}

#[test]
fn former_names_and_defaults_count_in_both_encodings() {
    let schema = changed();
    let now = NOW_MICROS.to_string();
    let wanted = |urgent| {
        let cells = ["t", "gauge", "-1", "0.5", urgent, "{}", &now];
        cells.map(|cell| Some(cell.to_owned())).to_vec()
    };
    let writer = writer(&json!([
        { "name": "urgent", "type": "boolean" },
        { "name": "taskId", "type": "string" },
        time("timestamp-micros"),
    ]));
    let values = vec![
        ("urgent", Avro::Boolean(false)),
        ("taskId", text("t")),
        ("timestamp", Avro::TimestampMicros(NOW_MICROS)),
    ];
    assert_eq!(row_under(&schema, &writer, values), wanted("false"));
    let mut decoder = decoder(&schema);
    for name in ["task_id", "taskId", "other_former", "taskId", "taskId"] {
        let event = format!(r#"{{"{name}":"t","timestamp":"2026-11-25T00:00:00Z"}}"#);
        assert_eq!(push(&mut decoder, event.as_bytes()), Outcome::Row, "{event}");
    }
    let batch = finish(&mut decoder);
    for row in 0..5 {
        assert_eq!(oracle::cells(&schema, &batch, row), wanted("true"));
    }
}

#[test]
fn a_field_under_two_of_its_names_is_refused_in_both_encodings() {
    let schema = changed();
    let string = |name: &str| json!({ "name": name, "type": "string" });
    let both = writer(&json!([string("task_id"), string("taskId"), time("timestamp-micros")]));
    let flaw = Writer::new(&schema, &both, &[]).flaw().cloned().unwrap();
    assert_eq!((flaw.reason, flaw.field), (Reason::IncompatibleSchema, named("task_id")));
    let event = br#"{"task_id":"t","taskId":"t","timestamp":"2026-11-25T00:00:00Z"}"#;
    let Outcome::Rejected(reject) = push(&mut decoder(&schema), event) else { panic!() };
    assert_eq!((reject.reason, reject.field), (Reason::DuplicateKey, named("task_id")));
}

#[test]
fn an_explicit_null_is_not_a_default() {
    let fields = json!([
        { "name": "task_id", "type": "string" },
        { "name": "kind", "type": ["null", "string"] },
        time("timestamp-micros"),
    ]);
    let mut decoder = decoder_of(&changed(), WRITER, &writer(&fields));
    let body = [prefixed(b"t"), long(0), long(NOW_MICROS)].concat();
    let json = br#"{"task_id":"t","kind":null,"timestamp":"2026-11-25T00:00:00Z"}"#;
    for payload in [framed(WRITER, &body), json.to_vec()] {
        let Outcome::Rejected(reject) = push(&mut decoder, &payload) else { panic!() };
        assert_eq!((reject.reason, reject.field), (Reason::MissingField, named("kind")));
    }
}

#[test]
fn an_instant_is_the_same_in_every_unit() {
    let now = Some(NOW_MICROS.to_string());
    for (unit, value) in [
        ("timestamp-millis", Avro::TimestampMillis(NOW_MICROS / 1000)),
        ("timestamp-micros", Avro::TimestampMicros(NOW_MICROS)),
        ("timestamp-nanos", Avro::TimestampNanos(NOW_MICROS * 1000)),
        ("timestamp-nanos", Avro::TimestampNanos(NOW_MICROS * 1000 + 999)),
    ] {
        let writer = writer(&json!([{ "name": "task_id", "type": "string" }, time(unit)]));
        let row = row_of(&writer, vec![("task_id", text("t")), ("timestamp", value)]);
        assert_eq!(row[3], now, "{unit}");
    }
    for unit in ["local-timestamp-micros", "time-micros", "none"] {
        let writer = writer(&json!([{ "name": "task_id", "type": "string" }, time(unit)]));
        let flaw = Writer::new(&contract(), &writer, &[]).flaw().cloned().unwrap();
        assert_eq!(flaw.field, named("timestamp"), "{unit}");
    }
}

#[test]
fn maps_and_records_are_objects_as_json_has_them() {
    let inner = json!({ "type": "record", "name": "inner", "fields": [
        { "name": "z", "type": ["null", "double"] },
        { "name": "list", "type": { "type": "array", "items": "float" } },
        { "name": "level", "type": { "type": "enum", "name": "level", "symbols": ["low", "high"] } },
        { "name": "big", "type": "long" },
    ]});
    let inner_value = Avro::Record(vec![
        ("z".to_owned(), Avro::Union(1, Box::new(Avro::Double(1e300)))),
        ("list".to_owned(), Avro::Array(vec![Avro::Float(0.1), Avro::Float(-2.0)])),
        ("level".to_owned(), Avro::Enum(1, "high".to_owned())),
        ("big".to_owned(), Avro::Long(i64::MIN)),
    ]);
    let object =
        "{\"big\":-9223372036854775808,\"level\":\"high\",\"list\":[0.1,-2.0],\"z\":1e300}";
    let map = json!({ "type": "map", "values": ["null", "boolean", "string", inner.clone()] });
    let union = |branch, value| Avro::Union(branch, Box::new(value));
    let map_value = Avro::Map(
        [
            ("b\"\u{1}".to_owned(), union(0, Avro::Null)),
            ("a".to_owned(), union(2, text("é\n"))),
            ("c".to_owned(), union(3, inner_value.clone())),
            ("B".to_owned(), union(1, Avro::Boolean(true))),
        ]
        .into(),
    );
    let map_text = format!("{{\"B\":true,\"a\":\"é\\n\",\"b\\\"\\u0001\":null,\"c\":{object}}}");
    for (r#type, value, wanted) in [
        (inner.clone(), inner_value.clone(), object),
        (map.clone(), map_value.clone(), &map_text),
        (json!(["null", map]), union(1, map_value), &map_text),
        (json!([inner, "string"]), union(0, inner_value), object),
        (json!({ "type": "map", "values": "long" }), Avro::Map([].into()), "{}"),
    ] {
        let writer = writer(&json!([
            { "name": "task_id", "type": "string" },
            { "name": "labels", "type": r#type },
            time("timestamp-micros"),
        ]));
        let values = vec![
            ("task_id", text("t")),
            ("labels", value),
            ("timestamp", Avro::TimestampMicros(NOW_MICROS)),
        ];
        assert_eq!(row_of(&writer, values)[4].as_deref(), Some(wanted));
        // The text is canonical: as JSON it is the same object.
        let event =
            format!(r#"{{"task_id":"t","timestamp":"2026-11-25T00:00:00Z","labels":{wanted}}}"#);
        let mut decoder = decoder(&contract());
        assert_eq!(push(&mut decoder, event.as_bytes()), Outcome::Row);
        let row = oracle::cells(&contract(), &finish(&mut decoder), 0);
        assert_eq!(row[4].as_deref(), Some(wanted));
    }
}

#[test]
fn objects_that_json_cannot_carry_reject_schema_or_event() {
    let fields = |values: Value| {
        json!([
            { "name": "task_id", "type": "string" },
            time("timestamp-micros"),
            { "name": "labels", "type": { "type": "map", "values": values } },
        ])
    };
    let bytes = writer(&fields(json!(["null", "bytes"])));
    let flaw = Writer::new(&contract(), &bytes, &[]).flaw().cloned().unwrap();
    assert_eq!((flaw.reason, flaw.field), (Reason::IncompatibleSchema, named("labels")));
    let mut decoder = decoder_of(&contract(), WRITER, &writer(&fields(json!("double"))));
    let entry = |name: &str, value: f64| [prefixed(name.as_bytes()), value.to_le_bytes().to_vec()];
    let twice = [entry("a", 1.0), entry("a", 2.0)].concat().concat();
    let nan = entry("a", f64::NAN).concat();
    for (count, entries, reason) in
        [(2, twice, Reason::DuplicateKey), (1, nan, Reason::NumberOutOfRange)]
    {
        let body = [prefixed(b"t"), long(NOW_MICROS), long(count), entries, long(0)].concat();
        let Outcome::Rejected(reject) = push(&mut decoder, &framed(WRITER, &body)) else {
            panic!()
        };
        assert_eq!((reject.reason, reject.field), (reason, named("labels")));
    }
    assert_eq!(decoder.rows(), 0);
}

#[test]
fn an_enum_is_text_and_a_symbol_beyond_it_is_malformed() {
    let symbols = json!({ "type": "enum", "name": "id", "symbols": ["a", "b"], "default": "a" });
    let writer = writer(&json!([{ "name": "task_id", "type": symbols }, time("timestamp-micros")]));
    let now = ("timestamp", Avro::TimestampMicros(NOW_MICROS));
    let row = row_of(&writer, vec![("task_id", Avro::Enum(1, "b".to_owned())), now]);
    assert_eq!(row[0].as_deref(), Some("b"));
    let mut decoder = decoder_of(&contract(), WRITER, &writer);
    for symbol in [2, -1, i64::MAX] {
        let body = [long(symbol), long(NOW_MICROS)].concat();
        let Outcome::Rejected(reject) = push(&mut decoder, &framed(WRITER, &body)) else {
            panic!()
        };
        assert_eq!((reject.reason, reject.field), (Reason::MalformedAvro, named("task_id")));
    }
}

#[test]
fn types_of_other_schemas_are_found_by_name() {
    let point = json!({ "type": "record", "name": "other.point", "fields": [
        { "name": "inner", "type": { "type": "record", "name": "deep", "fields": [
            { "name": "x", "type": "int" },
        ]}},
    ]});
    let writer = writer(&json!([
        { "name": "task_id", "type": "string" },
        { "name": "labels", "type": "other.deep" },
        { "name": "dropped", "type": ["null", "other.point"] },
        time("timestamp-micros"),
    ]));
    let learned = Writer::new(&contract(), &writer, &[point.to_string()]);
    assert_eq!(learned.flaw(), None);
    let mut decoder = decoder(&contract());
    decoder.learn(WRITER, learned);
    let body = [prefixed(b"t"), long(7), long(1), long(8), long(NOW_MICROS)].concat();
    assert_eq!(push(&mut decoder, &framed(WRITER, &body)), Outcome::Row);
    let row = oracle::cells(&contract(), &finish(&mut decoder), 0);
    assert_eq!(row[4].as_deref(), Some("{\"x\":7}"));
    // Without it, the schema can't be read.
    let flaw = Writer::new(&contract(), &writer, &[]).flaw().cloned().unwrap();
    assert_eq!(flaw.reason, Reason::IncompatibleSchema);
}

#[test]
fn a_field_of_nulls_is_null_without_a_byte() {
    let fields = json!([
        { "name": "size", "type": "null" },
        { "name": "task_id", "type": "string" },
        time("timestamp-micros"),
    ]);
    let now = NOW_MICROS.to_string();
    let values = vec![
        ("size", Avro::Null),
        ("task_id", text("t")),
        ("timestamp", Avro::TimestampMicros(NOW_MICROS)),
    ];
    let row = row_of(&writer(&fields), values);
    assert_eq!(row, cells([Some("t"), None, None, Some(&now), None]));
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
        let learned = Writer::new(&contract(), &writer, &[]);
        let flaw = learned.flaw().cloned().unwrap();
        assert!(flaw.detail.contains(why), "{writer}: {flaw}");
        assert_eq!(why.starts_with('`'), flaw.field.is_some(), "{flaw}");
        decoder.learn(WRITER, learned);
        assert!(decoder.knows(WRITER));
        let outcome = push(&mut decoder, &framed(WRITER, &[0; 20]));
        let Outcome::Rejected(reject) = outcome else { panic!("{outcome:?}") };
        assert_eq!(reject.reason, Reason::IncompatibleSchema);
    }
    assert!(!decoder(&contract()).knows(WRITER));
}
