//! Random pairs of writer and reader against `apache-avro`: the rows are what its resolution makes.

use aion_schemas::{
    decode::{Outcome, Reason, SchemaId, Writer},
    schema::{Field, Kind, Schema},
};
use apache_avro::types::Value as Avro;
use proptest::prelude::{
    BoxedStrategy, Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq,
    prop_oneof, proptest,
};
use serde_json::{Value, json};

use crate::{
    common::{CONTRACT, NOW_MICROS, decoder, field, finish, framed, push, record, schema},
    oracle::{self, resolved},
};

const WRITER: SchemaId = SchemaId(9);

/// A field of the writer: its JSON in the schema, and a value of it.
type Written = (Value, (String, Avro));

const KINDS: [Kind; 6] =
    [Kind::Text, Kind::Integer, Kind::Number, Kind::Boolean, Kind::Time, Kind::Object];

fn default(kind: Kind) -> Option<Value> {
    match kind {
        Kind::Text => Some(json!("none")),
        Kind::Integer => Some(json!(-7)),
        Kind::Number => Some(json!(2.5)),
        Kind::Boolean => Some(json!(true)),
        Kind::Object => Some(json!({})),
        Kind::Time | Kind::Bytes => None,
    }
}

/// A contract of up to eight fields, some with a former name, some with a default.
fn contracts() -> impl Strategy<Value = Schema> {
    let one = (prop::sample::select(&KINDS), any::<bool>(), any::<bool>(), any::<bool>());
    prop::collection::vec(one, 0..8).prop_map(|fields| {
        let mut fields: Vec<Field> = fields
            .into_iter()
            .enumerate()
            .map(|(at, (kind, required, renamed, defaulted))| Field {
                aliases: if renamed { vec![format!("old{at}").into()] } else { Vec::new() },
                default: default(kind).filter(|_| required && defaulted),
                ..field(&format!("f{at}"), kind, required)
            })
            .collect();
        fields.insert(fields.len() / 2, field("timestamp", Kind::Time, true));
        schema(fields)
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,8}", ".{0,5}"]
}

/// A type that a column takes by Avro's rules, with a value.
fn fitting(kind: Kind) -> BoxedStrategy<(Value, Avro)> {
    let of = |r#type: Value| move |value: Avro| (r#type.clone(), value);
    let time = |unit: &str| json!({ "type": "long", "logicalType": unit });
    match kind {
        Kind::Text => prop_oneof![
            text().prop_map(Avro::String).prop_map(of(json!("string"))),
            text().prop_map(|t| Avro::Bytes(t.into())).prop_map(of(json!("bytes"))),
        ]
        .boxed(),
        Kind::Object => {
            prop_oneof![Just("{\"a\":[1,2]}"), Just("{\"a\":null,\"b\":{}}"), Just("{}"),]
                .prop_map(|t| Avro::String(t.to_owned()))
                .prop_map(of(json!("string")))
                .boxed()
        }
        Kind::Integer => prop_oneof![
            any::<i32>().prop_map(Avro::Int).prop_map(of(json!("int"))),
            any::<i64>().prop_map(Avro::Long).prop_map(of(json!("long"))),
        ]
        .boxed(),
        Kind::Number => prop_oneof![
            any::<i32>().prop_map(Avro::Int).prop_map(of(json!("int"))),
            any::<i64>().prop_map(Avro::Long).prop_map(of(json!("long"))),
            prop::num::f32::NORMAL.prop_map(Avro::Float).prop_map(of(json!("float"))),
            prop::num::f64::NORMAL.prop_map(Avro::Double).prop_map(of(json!("double"))),
        ]
        .boxed(),
        Kind::Boolean => {
            any::<bool>().prop_map(Avro::Boolean).prop_map(of(json!("boolean"))).boxed()
        }
        Kind::Time => (0..60_000_000i64)
            .prop_flat_map(move |back| {
                let micros = NOW_MICROS - back;
                prop_oneof![
                    Just((time("timestamp-micros"), Avro::TimestampMicros(micros))),
                    Just((time("timestamp-millis"), Avro::TimestampMillis(micros / 1000))),
                    Just((time("timestamp-nanos"), Avro::TimestampNanos(micros * 1000 + 7))),
                ]
            })
            .boxed(),
        Kind::Bytes => unreachable!("not among the kinds"),
    }
}

/// Any type at all, without names that could clash, and a value.
fn anything() -> BoxedStrategy<(Value, Avro)> {
    let leaf = prop::sample::select(&KINDS).prop_flat_map(fitting);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|items| {
                let (r#type, value) = items[0].clone();
                let count = items.len();
                (json!({ "type": "array", "items": r#type }), Avro::Array(vec![value; count]))
            }),
            (inner, "[a-z]{1,3}").prop_map(|((r#type, value), name)| {
                let map = Avro::Map([(name, value)].into());
                (json!({ "type": "map", "values": r#type }), map)
            }),
        ]
    })
    .boxed()
}

/// Puts a type into a union: with null before or behind it, or with another type too, or not at all.
fn in_union((r#type, value): (Value, Avro), how: u8, is_null: bool) -> (Value, Avro) {
    let union = |branch, value| Avro::Union(branch, Box::new(value));
    // A union has each type once, logical types by what they lie over.
    let other = json!({ "type": "fixed", "name": format!("x{how}_{is_null}"), "size": 2 });
    let (types, at, null) = match how % 5 {
        0 => (json!(["null", r#type]), 1, 0),
        1 => (json!([r#type, "null"]), 0, 1),
        2 => (json!([other, "null", r#type]), 2, 1),
        3 => (json!([r#type]), 0, 0),
        _ => return (r#type, value),
    };
    let has_null = how % 5 != 3;
    let value = if is_null && has_null { union(null, Avro::Null) } else { union(at, value) };
    (types, value)
}

/// The writer's form of one field of the contract: left out, renamed, narrowed, put into a union, or of a
/// type that may not fit at all.
fn written(field: &Field) -> BoxedStrategy<Option<Written>> {
    let field = field.clone();
    let types = prop_oneof![9 => fitting(field.kind), 1 => anything()];
    (types, any::<u8>(), 0..8u8, any::<bool>(), 0..10u8)
        .prop_map(move |(typed, how, null, renamed, left_out)| {
            if left_out == 0 && &*field.name != "timestamp" {
                return None;
            }
            let (r#type, value) = in_union(typed, how, null == 0);
            let former = field.aliases.first().filter(|_| renamed);
            let name = former.unwrap_or(&field.name).to_string();
            Some((json!({ "name": name, "type": r#type }), (name, value)))
        })
        .boxed()
}

/// A contract, a writer's schema, and one event by it.
fn pairs() -> impl Strategy<Value = (Schema, String, Avro)> {
    contracts().prop_flat_map(|schema| {
        let fields: Vec<_> = schema.fields.iter().map(written).collect();
        let unknown = prop::collection::vec(anything(), 0..3);
        (Just(schema), fields, unknown, any::<prop::sample::Index>()).prop_map(
            |(schema, fields, unknown, turn)| {
                let mut all: Vec<Written> = fields.into_iter().flatten().collect();
                for (at, (r#type, value)) in unknown.into_iter().enumerate() {
                    let name = format!("unknown{at}");
                    all.push((json!({ "name": name, "type": r#type }), (name, value)));
                }
                let turn = turn.index(all.len());
                all.rotate_left(turn);
                let (types, values): (Vec<_>, Vec<_>) = all.into_iter().unzip();
                let types = named_apart(Value::Array(types));
                let writer = json!({ "type": "record", "name": "event", "fields": types });
                (schema, writer.to_string(), Avro::Record(values))
            },
        )
    })
}

/// Gives each named type a name of its own.
fn named_apart(mut fields: Value) -> Value {
    fn visit(value: &mut Value, next: &mut u32) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| visit(item, next)),
            Value::Object(members) => {
                if members.get("type") == Some(&json!("fixed")) {
                    *next += 1;
                    members.insert("name".to_owned(), json!(format!("fixed{next}")));
                }
                members.values_mut().for_each(|member| visit(member, next));
            }
            _ => {}
        }
    }
    visit(&mut fields, &mut 0);
    fields
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_what_apache_avro_resolves((schema, writer, event) in pairs()) {
        let parsed = apache_avro::Schema::parse_str(&writer).unwrap();
        let body = oracle::write_avro(&parsed, event);
        let wanted = resolved(&schema, &writer, &body);
        let mut decoder = decoder(&schema);
        let learned = Writer::new(&schema, &writer, &[]);
        let flaw = learned.flaw().cloned();
        decoder.learn(WRITER, learned);
        let outcome = push(&mut decoder, &framed(WRITER, &body));
        let batch = finish(&mut decoder);
        match (&outcome, wanted) {
            (Outcome::Row, Some(row)) => {
                prop_assert_eq!(oracle::cells(&schema, &batch, 0), row, "{}", writer);
            }
            (Outcome::Rejected(reject), None) => {
                prop_assert_eq!(batch.num_rows(), 0);
                prop_assert!(reject.field.is_some(), "{} doesn't name the field", reject);
            }
            // A type that fits nothing fails the schema here, the event that has it there: with a null in
            // its place the oracle sees no difference.
            (Outcome::Rejected(reject), Some(_)) if reject.reason == Reason::IncompatibleSchema => {
                prop_assert!(flaw.is_some());
            }
            // Maps for objects are ours.
            (Outcome::Row, None) if writer.contains("\"map\"") => {}
            (outcome, wanted) => prop_assert!(false, "{}\n{:?}\n{:?}", writer, outcome, wanted),
        }
    }
}

/// An event that every writer of [`old_new_and_json_writers_are_one`] can say.
fn said(number: i64) -> (String, i64, i64) {
    (format!("task-{number}"), number % 50, NOW_MICROS - number * 1000)
}

#[test]
fn old_new_and_json_writers_are_one() {
    let contract = schema(vec![
        field("task_id", Kind::Text, true),
        field("size", Kind::Integer, false),
        field("timestamp", Kind::Time, true),
        field("labels", Kind::Object, false),
    ]);
    let old = json!({ "type": "record", "name": "event", "fields": [
        { "name": "timestamp", "type": { "type": "long", "logicalType": "timestamp-millis" } },
        { "name": "size", "type": "int" },
        { "name": "task_id", "type": "string" },
    ]});
    let new = json!({ "type": "record", "name": "event", "fields": [
        { "name": "task_id", "type": "string" },
        { "name": "size", "type": ["null", "long"], "default": null },
        { "name": "timestamp", "type": { "type": "long", "logicalType": "timestamp-micros" } },
        { "name": "labels", "type": ["null", { "type": "map", "values": "string" }], "default": null },
        { "name": "added", "type": { "type": "array", "items": "string" } },
    ]});
    let parsed = |schema: &Value| apache_avro::Schema::parse(schema).unwrap();
    let (old_schema, new_schema) = (parsed(&old), parsed(&new));
    let union = |value| Avro::Union(1, Box::new(value));
    let payload = |number: i64, way: i64| {
        let (task_id, size, micros) = said(number);
        match way {
            0 => {
                let time = arrow::temporal_conversions::timestamp_us_to_datetime(micros).unwrap();
                let time = time.format("%Y-%m-%dT%H:%M:%S%.6f");
                format!(r#"{{"task_id": "{task_id}", "timestamp": "{time}Z", "size": {size}}}"#)
                    .into_bytes()
            }
            1 => {
                let fields = vec![
                    ("timestamp".to_owned(), Avro::TimestampMillis(micros / 1000)),
                    ("size".to_owned(), Avro::Int(size as i32)),
                    ("task_id".to_owned(), Avro::String(task_id)),
                ];
                framed(SchemaId(20), &oracle::write_avro(&old_schema, Avro::Record(fields)))
            }
            2 => {
                let fields = vec![
                    ("task_id".to_owned(), Avro::String(task_id)),
                    ("size".to_owned(), union(Avro::Long(size))),
                    ("timestamp".to_owned(), Avro::TimestampMicros(micros)),
                    ("labels".to_owned(), Avro::Union(0, Box::new(Avro::Null))),
                    ("added".to_owned(), Avro::Array(vec![Avro::String("x".to_owned())])),
                ];
                framed(SchemaId(21), &oracle::write_avro(&new_schema, Avro::Record(fields)))
            }
            _ => unreachable!(),
        }
    };
    let batch = |way: &dyn Fn(i64) -> i64| {
        let mut decoder = decoder(&contract);
        for (id, writer) in [(20, &old), (21, &new)] {
            decoder.learn(SchemaId(id), Writer::new(&contract, &writer.to_string(), &[]));
        }
        for number in 0..3000 {
            let payload = payload(number, way(number));
            assert_eq!(decoder.push(&record(Some(&payload), number)), Outcome::Row);
        }
        let unknown = decoder.take_unknown_fields();
        (finish(&mut decoder), unknown)
    };
    let (mixed, unknown) = batch(&|number| number % 3);
    assert_eq!(unknown, [("added".to_owned(), 1000)]);
    for way in 0..3 {
        let (alone, _) = batch(&|_| way);
        assert_eq!(mixed, alone, "writer {way}");
    }
    assert_ne!(CONTRACT, SchemaId(20));
}
