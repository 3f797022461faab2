#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aion_schemas::{
    catalog::Catalog,
    decode::{Decoder, Outcome, Reason, Record, SchemaId},
    log::Offset,
    schema::{Kind, Schema},
    validate::Validator,
};
use apache_avro::{Reader, reader::datum::GenericDatumReader, types::Value as Avro};
use clap::Parser;
use serde_json::Value as Json;

use super::*;

/// 2026-03-01T00:00:00Z.
const START: Timestamp = Timestamp(1_772_323_200_000_000);

fn messages(topics: &[Topic], encoder: Encoder, broken: &str) -> Messages {
    Messages::new(Life::new(9, START, topics, 200.0), encoder, broken.parse().unwrap())
}

#[test]
fn topics_are_those_of_the_catalog() {
    let catalog = Catalog::builtin();
    let of_producers: Vec<_> = catalog.topics.iter().filter(|topic| !topic.internal).collect();
    assert_eq!(of_producers.len(), Topic::ALL.len());
    for (ours, stated) in Topic::ALL.iter().zip(of_producers) {
        assert_eq!((ours.name(), ours.table()), (&*stated.name, &*stated.table));
        assert_eq!(ours.key_field(), &*stated.key);
    }
}

#[test]
fn every_event_keeps_the_contract() {
    let catalog = Catalog::builtin();
    let topics = Topic::ALL.map(|topic| catalog.topic(topic.name()).unwrap());
    let validators = topics.map(|topic| Validator::new(topic).unwrap());
    let mut seen = topics.map(|topic| vec![0_u32; topic.schema.fields.len()]);
    let mut messages = messages(&Topic::ALL, Encoder::Json, "0");
    for _ in 0..30_000 {
        let message = messages.make().unwrap();
        let topic = message.topic.index();
        let event: Json = serde_json::from_slice(message.body).unwrap();
        validators[topic].check(&event).unwrap();
        assert_eq!(event[message.topic.key_field()], std::str::from_utf8(message.key).unwrap());
        for (count, field) in seen[topic].iter_mut().zip(&topics[topic].schema.fields) {
            *count += u32::from(event.get(&*field.name).is_some());
        }
    }
    for (topic, counts) in topics.iter().zip(seen) {
        let unused: Vec<_> =
            topic.schema.fields.iter().zip(counts).filter(|(_, count)| *count == 0).collect();
        assert!(unused.is_empty(), "{} never has {unused:?}", topic.name);
    }
}

#[test]
fn fields_stand_in_the_order_of_the_contract() {
    let catalog = Catalog::builtin();
    for event in Life::new(2, START, &Topic::ALL, 200.0).take(10_000) {
        let schema = &catalog.topic(event.topic.name()).unwrap().schema;
        let places: Vec<_> =
            event.fields.iter().map(|(name, _)| schema.position(name).unwrap()).collect();
        assert!(places.is_sorted(), "{event:?}");
    }
}

/// What the JSON form of a field says, as Avro would hold it.
fn expected(kind: Kind, json: &Json) -> Avro {
    match kind {
        Kind::Text => Avro::String(json.as_str().unwrap().to_owned()),
        Kind::Object => Avro::String(json.to_string()),
        Kind::Integer => Avro::Long(json.as_i64().unwrap()),
        Kind::Number => Avro::Double(json.as_f64().unwrap()),
        Kind::Boolean => Avro::Boolean(json.as_bool().unwrap()),
        Kind::Bytes => unreachable!("internal topics only"),
        Kind::Time => {
            let text = json.as_str().unwrap();
            let nanos = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text);
            Avro::TimestampMicros(nanos.unwrap() / 1000)
        }
    }
}

fn assert_same(schema: &Schema, avro: Avro, json: &Json) {
    let Avro::Record(fields) = avro else { panic!("not a record: {avro:?}") };
    assert_eq!(fields.len(), schema.fields.len());
    for ((name, value), field) in fields.into_iter().zip(&schema.fields) {
        assert_eq!(name, *field.name);
        let value = if let Avro::Union(_, inner) = value { *inner } else { value };
        let want = json.get(&name).map_or(Avro::Null, |json| expected(field.kind, json));
        assert_eq!(value, want, "{name}");
    }
}

#[test]
fn avro_says_what_json_says_to_an_independent_reader() {
    let catalog = Catalog::builtin();
    for topic in Topic::ALL {
        let schema = &*catalog.topic(topic.name()).unwrap().schema;
        let mirror = apache_avro::Schema::parse(&schema.avro("test")).unwrap();
        let reader = GenericDatumReader::builder(&mirror).build().unwrap();
        let mut avro =
            messages(&[topic], Encoder::avro([(topic, schema, SchemaId(0x0102_0304))]), "0");
        let mut json = messages(&[topic], Encoder::Json, "0");
        for _ in 0..3_000 {
            let (avro, json) = (avro.make().unwrap(), json.make().unwrap());
            assert_eq!((avro.key, avro.body[..5].to_vec()), (json.key, vec![0, 1, 2, 3, 4]));
            let mut body = &avro.body[5..];
            let read = reader.read_value(&mut body).unwrap();
            assert!(body.is_empty(), "bytes left over");
            assert_same(schema, read, &serde_json::from_slice(json.body).unwrap());
        }
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: GenerateArgs,
}

#[test]
fn an_avro_file_says_what_json_says_to_an_independent_reader() {
    let line = ["generate", "--topic", "audit", "--encoding", "avro"];
    let (encoder, file) = Cli::parse_from(line).args.encoder(None).unwrap();
    let (mut avro, mut out) = (messages(&[Topic::Audit], encoder, "0"), Vec::new());
    output::write(&mut out, &mut avro, 3_000, None, file).unwrap();
    let read: Vec<Avro> = Reader::new(&out[..]).unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), 3_000);
    let catalog = Catalog::builtin();
    let schema = &*catalog.topic(Topic::Audit.name()).unwrap().schema;
    let mut json = messages(&[Topic::Audit], Encoder::Json, "0");
    for event in read {
        let json = json.make().unwrap();
        assert_same(schema, event, &serde_json::from_slice(json.body).unwrap());
    }
}

#[test]
#[should_panic(expected = "no Avro encoder of aion.")]
fn a_topic_without_an_encoder_is_not_written_as_json() {
    let catalog = Catalog::builtin();
    let schema = &*catalog.topic(Topic::Decisions.name()).unwrap().schema;
    let encoder = Encoder::avro([(Topic::Decisions, schema, SchemaId(7))]);
    let mut messages = messages(&Topic::ALL, encoder, "0");
    for _ in 0..1_000 {
        messages.make().unwrap();
    }
}

/// What the consumer says of each message, with the way in which the message was broken, if it was.
fn verdicts(topic: Topic, avro: bool, count: usize) -> Vec<(Option<Breakage>, Outcome)> {
    let catalog = Catalog::builtin();
    let schema = &*catalog.topic(topic.name()).unwrap().schema;
    let of_topic = [(topic, schema, SchemaId(7))];
    let encoder = if avro { Encoder::avro(of_topic) } else { Encoder::Json };
    let (ways, share) = (encoder.breakages(), "0.1".parse::<Share>().unwrap());
    let mut messages = messages(&[topic], encoder, "0.1");
    let mut decoder = Decoder::new(schema);
    decoder.learn_contract(SchemaId(7));
    let verdict = |number| {
        let message = messages.make().unwrap();
        let outcome = decoder.push(&Record {
            value: Some(message.body),
            offset: Offset(number as i64),
            epoch: 0,
            append_time: message.time,
            retry: None,
        });
        (share.breakage(number as u64, ways), outcome)
    };
    (0..count).map(verdict).collect()
}

#[test]
fn broken_messages_and_no_others_are_rejected_for_the_reason_they_were_broken_in() {
    for (topic, avro) in Topic::ALL.into_iter().flat_map(|topic| [(topic, false), (topic, true)]) {
        for (breakage, outcome) in verdicts(topic, avro, 4_200) {
            let reason = match outcome {
                Outcome::Row => None,
                Outcome::Rejected(reject) => Some(reject.reason),
                Outcome::Tombstone => panic!("a tombstone"),
            };
            let want = breakage.map(|breakage| match breakage {
                Breakage::Truncated if avro => Reason::MalformedAvro,
                Breakage::Truncated => Reason::MalformedJson,
                Breakage::UnknownEncoding => Reason::UnknownEncoding,
                Breakage::InvalidUtf8 => Reason::InvalidUtf8,
                Breakage::TimeOutOfBounds => Reason::TimeOutOfBounds,
                Breakage::WrongType => Reason::WrongType,
                Breakage::MissingField => Reason::MissingField,
                Breakage::BadTime => Reason::BadTime,
            });
            assert_eq!(reason, want, "{} {avro}", topic.name());
        }
    }
}

#[test]
fn broken_messages_are_counted_exactly() {
    let mut messages = messages(&Topic::ALL, Encoder::Json, "0.07");
    for _ in 0..10_000 {
        messages.make().unwrap();
    }
    assert_eq!(messages.tally().broken, [100; 7]);
    assert_eq!(messages.tally().topics.iter().sum::<u64>(), 10_000);
}
