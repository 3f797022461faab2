#![expect(clippy::unwrap_used, reason = "a test may panic")]

use apache_avro::reader::datum::GenericDatumReader;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::{Map, Value, json};

use super::*;
use crate::{catalog::Catalog, schema::NAMESPACE};

/// 2026-03-14T09:26:53Z.
const NOW: Timestamp = Timestamp::from_millis(1_773_480_413_000);
const ID: SchemaId = SchemaId(7);

fn encoder(table: &str, encoding: Encoding) -> Encoder {
    Encoder::new(Catalog::builtin().table(table).unwrap(), encoding).unwrap()
}

/// The row that a payload becomes where the contract's own schema is known.
fn row(table: &str, payload: &[u8]) -> RecordBatch {
    let catalog = Catalog::builtin();
    let mut decoder = Decoder::new(&catalog.table(table).unwrap().schema);
    decoder.learn_contract(ID);
    let record =
        Record { value: Some(payload), offset: Offset(3), epoch: 1, append_time: NOW, retry: None };
    assert_eq!(decoder.push(&record), Outcome::Row, "{}", String::from_utf8_lossy(payload));
    decoder.finish(Uuid::nil(), 0)
}

/// Any value that JSON has, of few levels.
fn trees() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn values(field: &Field) -> impl Strategy<Value = Option<Value>> + use<> {
    let (name, required) = (field.name.to_string(), field.required);
    let value = match field.kind {
        Kind::Text if name == "kind" => {
            prop::sample::select(&["counter", "gauge", "histogram"]).prop_map(Value::from).boxed()
        }
        Kind::Text => ".{1,12}".prop_map(Value::from).boxed(),
        Kind::Integer => (0..i64::MAX).prop_map(Value::from).boxed(),
        Kind::Number => (0.0..1e300f64).prop_map(Value::from).boxed(),
        Kind::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Kind::Time => (0..59u8, 0..999_999u32)
            .prop_map(|(second, micros)| {
                Value::from(format!("2026-03-14T10:26:{second:02}.{micros:06}+01:00"))
            })
            .boxed(),
        Kind::Object if name == "labels" => prop::collection::btree_map(
            "[a-z]{1,4}",
            prop_oneof![any::<bool>().prop_map(Value::from), any::<i32>().prop_map(Value::from)],
            0..4,
        )
        .prop_map(|members| Value::Object(members.into_iter().collect()))
        .boxed(),
        Kind::Object => prop::collection::btree_map(".{0,4}", trees(), 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
            .boxed(),
        Kind::Bytes => unreachable!("producers send no bytes"),
    };
    (value, any::<bool>()).prop_map(move |(value, given)| (required || given).then_some(value))
}

/// A table of the catalog, and an event of it.
fn events() -> impl Strategy<Value = (String, Value)> {
    prop::sample::select(&["decisions", "tasks", "metrics", "audit"]).prop_flat_map(|table| {
        let catalog = Catalog::builtin();
        let schema = &catalog.table(table).unwrap().schema;
        let names: Vec<String> = schema.fields.iter().map(|field| field.name.to_string()).collect();
        let values: Vec<_> = schema.fields.iter().map(values).collect();
        (Just(table.to_owned()), values).prop_map(move |(table, values)| {
            let members = names.iter().cloned().zip(values);
            let members: Map<_, _> =
                members.filter_map(|(name, value)| Some((name, value?))).collect();
            (table, Value::Object(members))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_forms_of_an_event_are_one_row((table, event) in events()) {
        let catalog = Catalog::builtin();
        let topic = catalog.table(&table).unwrap();
        let text = event.to_string();
        let json = encoder(&table, Encoding::Json).encode(text.as_bytes(), NOW).unwrap();
        let avro = encoder(&table, Encoding::Avro(ID)).encode(text.as_bytes(), NOW).unwrap();
        prop_assert_eq!(row(&table, &json.value), row(&table, &avro.value));
        let key = event[&*topic.key].as_str().unwrap();
        prop_assert_eq!((&json.key[..], &avro.key[..]), (key.as_bytes(), key.as_bytes()));
        prop_assert_eq!(SchemaId::of(&avro.value), Some(ID));
        // A reader that shares no code with us takes the Avro form by the committed schema, to its end.
        let mirror = apache_avro::Schema::parse_str(&topic.schema.avro_text(NAMESPACE)).unwrap();
        let mut body = &avro.value[5..];
        let reader = GenericDatumReader::builder(&mirror).build().unwrap();
        reader.read_value(&mut body).unwrap();
        prop_assert_eq!(body.len(), 0);
    }
}

#[test]
fn samples_are_sent_as_they_are() {
    for topic in Catalog::builtin().topics.iter().filter(|topic| !topic.internal) {
        let mut encoder = Encoder::new(topic, Encoding::Json).unwrap();
        for line in topic.samples.lines() {
            let message = encoder.encode(format!("  {line}\r\n").as_bytes(), NOW).unwrap();
            assert_eq!(message.value, line.trim().as_bytes());
        }
    }
}

#[test]
fn what_breaks_a_rule_is_not_encoded_and_hurts_no_other() {
    let good =
        json!({ "actor_id": "a", "action": "b", "timestamp": "2026-03-14T09:26:53Z" }).to_string();
    for encoding in [Encoding::Json, Encoding::Avro(ID)] {
        let mut encoder = encoder("audit", encoding);
        let first = encoder.encode(good.as_bytes(), NOW).unwrap();
        for (event, field, rule) in [
            (good.replace("action", "acton"), "action", "required"),
            (good.replace("\"a\"", "7"), "actor_id", "type"),
            (good.replace("2026", "1999"), "timestamp", "time_out_of_bounds"),
            (
                good.replace("\"action\"", "\"actor_id\":\"x\",\"action\""),
                "actor_id",
                "duplicate_key",
            ),
            (good.replace('}', ""), "", "json"),
        ] {
            let violations = encoder.encode(event.as_bytes(), NOW).unwrap_err();
            let found = violations.iter().find(|violation| violation.rule == rule);
            assert_eq!(found.map(|found| found.field.as_str()), Some(field), "{violations:?}");
        }
        assert_eq!(encoder.encode(good.as_bytes(), NOW).unwrap(), first);
    }
}
