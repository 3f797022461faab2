#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, fmt::Write as _};

use apache_avro::{
    Schema,
    reader::datum::GenericDatumReader,
    schema_compatibility::{Compatibility, SchemaCompatibility},
    types::Value,
    writer::datum::GenericDatumWriter,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(text: &str) -> AvroSchema {
    AvroSchema::parse::<&str>(text, &[]).unwrap()
}

fn found(writer: &str, reader: &str) -> Vec<String> {
    differences(&parse(writer), &parse(reader)).iter().map(ToString::to_string).collect()
}

/// What crate `apache-avro` says: whether everything that is written is read.
fn library(writer: &str, reader: &str) -> bool {
    let (writer, reader) = (Schema::parse_str(writer).unwrap(), Schema::parse_str(reader).unwrap());
    SchemaCompatibility::can_read(&writer, &reader) == Ok(Compatibility::Full)
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"r","namespace":"a.b","fields":[{fields}]}}"#)
}

const LONG: &str = r#"{"name":"n","type":"long"}"#;

/// (what is written, what is read, what the message has to say; empty where all is read)
fn cases() -> Vec<(String, String, &'static str)> {
    let case = |written: &str, read: &str, wanted| (written.to_owned(), read.to_owned(), wanted);
    let fields = |written: &str, read: &str, wanted| (record(written), record(read), wanted);
    let colours = |symbols: &str| format!(r#"{{"type":"enum","name":"c","symbols":[{symbols}]}}"#);
    vec![
        case(r#""int""#, r#""double""#, ""),
        case(r#""long""#, r#""int""#, "long is written, int is read"),
        case(r#""double""#, r#""float""#, "double is written, float is read"),
        case(r#""bytes""#, r#""string""#, ""),
        case(r#""string""#, r#"["null","string"]"#, ""),
        case(r#"["null","string"]"#, r#""string""#, "null is written, string is read"),
        case(r#"["null","int"]"#, r#"["null","string"]"#, "int is written, and the union doesn't"),
        case(r#"["null","int"]"#, r#"["long","null"]"#, ""),
        case(r#"["int","long"]"#, r#""double""#, ""),
        case(&colours(r#""red""#), &colours(r#""red","blue""#), ""),
        case(&colours(r#""red","blue""#), &colours(r#""red""#), "symbols blue"),
        case(
            &colours(r#""red","blue""#),
            r#"{"type":"enum","name":"c","symbols":["red"],"default":"red"}"#,
            "",
        ),
        case(
            r#"{"type":"fixed","name":"f","size":4}"#,
            r#"{"type":"fixed","name":"f","size":8}"#,
            "4 bytes are written, 8 are read",
        ),
        case(
            r#"{"type":"array","items":"long"}"#,
            r#"{"type":"array","items":"int"}"#,
            "(at /items)",
        ),
        case(
            r#"{"type":"map","values":"long"}"#,
            r#"{"type":"map","values":"string"}"#,
            "(at /values)",
        ),
        case(r#"{"type":"long","logicalType":"timestamp-micros"}"#, r#""long""#, ""),
        case(
            r#"{"type":"bytes","logicalType":"decimal","precision":8,"scale":2}"#,
            r#"{"type":"bytes","logicalType":"decimal","precision":8,"scale":3}"#,
            "decimal(8, 2) is written, decimal(8, 3) is read",
        ),
        fields(LONG, "", ""),
        fields("", LONG, "field `n`: it has no default, and was not written (at /fields/0)"),
        fields("", r#"{"name":"n","type":"long","default":0}"#, ""),
        fields(LONG, r#"{"name":"m","type":"long","aliases":["n"]}"#, ""),
        fields(LONG, r#"{"name":"n","type":"int"}"#, "field `n`: long is written, int is read"),
        fields(LONG, r#"{"name":"n","type":["null","long"],"default":null}"#, ""),
        case(&record(""), r#"{"type":"record","name":"q","fields":[]}"#, "record q is read"),
        // The namespace isn't looked at.
        case(&record(""), r#"{"type":"record","name":"r","fields":[]}"#, ""),
    ]
}

#[test]
fn the_rules_of_schema_resolution() {
    for (writer, reader, wanted) in cases() {
        let found = found(&writer, &reader);
        assert_eq!(found.is_empty(), wanted.is_empty(), "{writer} as {reader}: {found:?}");
        assert!(found.iter().all(|text| text.contains(wanted)), "{wanted:?} not in {found:?}");
        assert_eq!(library(&writer, &reader), wanted.is_empty(), "{writer} as {reader}");
    }
}

/// Why this checker exists. If one of these fails, the library has learned it: use the library.
#[test]
fn what_the_librarys_checker_gets_wrong() {
    let point = r#"{"type":"record","name":"p","fields":[]}"#;
    let both = record(&format!(r#"{{"name":"a","type":{point}}},{{"name":"b","type":"p"}}"#));
    let one = record(&format!(r#"{{"name":"b","type":{point}}}"#));
    assert_eq!(found(&both, &one), Vec::<String>::new());
    assert!(!library(&both, &one), "a type by name is the type that is defined elsewhere");

    let renamed = r#"{"type":"record","name":"q","aliases":["a.b.r"],"fields":[]}"#;
    assert_eq!(found(&record(""), renamed), Vec::<String>::new());
    assert!(!library(&record(""), renamed), "an alias is a name");
}

#[test]
fn a_nested_field_is_named_by_the_way_to_it() {
    let outer = |inner: &str| {
        record(&format!(
            r#"{{"name":"o","type":["null",{{"type":"record","name":"i","fields":[{inner}]}}],"default":null}}"#
        ))
    };
    let found = differences(
        &parse(&outer(LONG)),
        &parse(&outer(r#"{"name":"n","type":"long"},{"name":"m","type":"long"}"#)),
    );
    // A union doesn't say which of its branches came nearest.
    assert_eq!(found[0].field, "o");
    assert_eq!(found[0].kind, DifferenceKind::UnionBranch);

    let plain = |inner: &str| {
        record(&format!(
            r#"{{"name":"o","type":{{"type":"record","name":"i","fields":[{inner}]}}}}"#
        ))
    };
    let found = differences(&parse(&plain("")), &parse(&plain(LONG)));
    assert_eq!((&*found[0].field, &*found[0].path), ("o.n", "/fields/0/type/fields/0"));
}

#[test]
fn a_record_within_itself_ends() {
    let list = |value: &str| {
        record(&format!(
            r#"{{"name":"v","type":"{value}"}},{{"name":"next","type":["null","r"],"default":null}}"#
        ))
    };
    assert_eq!(found(&list("int"), &list("long")), Vec::<String>::new());
    assert!(!found(&list("long"), &list("int")).is_empty());
}

#[test]
fn what_unfolds_to_too_much_is_refused() {
    // Each record holds the next one twice: 2^40 pairs.
    let doubling = (0..40).rev().fold(r#""int""#.to_owned(), |inner, n| {
        format!(
            r#"{{"type":"record","name":"r{n}","fields":[{{"name":"a","type":{inner}}},{{"name":"b","type":"{}"}}]}}"#,
            if n == 39 { "int".to_owned() } else { format!("r{}", n + 1) }
        )
    });
    // A chain of definitions, each flat, that leads 10,000 deep.
    let mut chain =
        String::from(r#"{"name":"f0","type":{"type":"record","name":"c0","fields":[]}}"#);
    for n in 1..10_000 {
        let fields = format!(r#"[{{"name":"x","type":"c{}"}}]"#, n - 1);
        write!(
            chain,
            r#",{{"name":"f{n}","type":{{"type":"record","name":"c{n}","fields":{fields}}}}}"#
        )
        .unwrap();
    }
    let chain = format!(r#"{{"type":"record","name":"r","fields":[{chain}]}}"#);
    for schema in [doubling, chain] {
        let found = differences(&parse(&schema), &parse(&schema));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, DifferenceKind::TooLarge);
    }
}

#[test]
fn references_are_part_of_the_schema() {
    let dependencies = [
        r#"{"type":"enum","name":"x.colour","symbols":["red"]}"#,
        r#"{"type":"record","name":"x.car","fields":[{"name":"colour","type":"colour"}]}"#,
    ];
    let text = r#"{"type":"record","name":"y.fleet","fields":[{"name":"car","type":"x.car"}]}"#;
    let old = AvroSchema::parse(text, &dependencies).unwrap();
    let newer = [dependencies[0].replace(r#""red""#, r#""blue""#), dependencies[1].to_owned()];
    let new = AvroSchema::parse(text, &newer).unwrap();
    assert!(differences(&old, &old).is_empty());
    assert_eq!(differences(&old, &new)[0].field, "car.colour");
    let error = AvroSchema::parse(text, &dependencies[..1]).unwrap_err();
    assert!(error.contains("x.car"), "{error}");
    // A schema may be nothing but a reference, or a union of them.
    AvroSchema::parse(r#""x.car""#, &dependencies).unwrap();
    AvroSchema::parse(r#"["x.car", "x.colour"]"#, &dependencies).unwrap();
}

/// The table of [`Level`], by versions that differ one step at a time.
#[test]
fn each_level_compares_what_its_row_says() {
    let (two, one, none) = (
        record(r#"{"name":"n","type":"long"},{"name":"m","type":"long"}"#),
        record(LONG),
        record(""),
    );
    // Only taking fields away: each version reads the older ones, and none reads the newer ones.
    let earlier = [(1, parse(&two)), (2, parse(&one))];
    let verdicts = |new: &str| {
        Level::ALL
            .map(|level| check(level, &parse(new), &earlier).iter().map(|c| c.version).collect())
    };
    let is = |verdicts: [Vec<u32>; 7], wanted: [&[u32]; 7]| assert_eq!(verdicts, wanted);
    is(verdicts(&none), [&[], &[], &[], &[2], &[2, 1, 1], &[2], &[2, 1, 1]]);
    is(verdicts(&two), [&[], &[2], &[2], &[], &[], &[2], &[2]]);
    is(verdicts(&one), [&[], &[], &[], &[], &[1], &[], &[1]]);
}

#[test]
fn a_conflict_says_who_cannot_read_whom() {
    let earlier = [(3, parse(&record("")))];
    let conflicts = check(Level::FullTransitive, &parse(&record(LONG)), &earlier);
    assert_eq!(
        conflicts[0].to_string(),
        "the new schema can't read version 3: field `n`: it has no default, and was not written \
         (at /fields/0)"
    );
    let conflicts = check(Level::Forward, &parse(&record("")), &[(3, parse(&record(LONG)))]);
    assert!(conflicts[0].to_string().starts_with("version 3 can't read the new schema: field `n`"));
}

#[test]
fn levels_are_written_as_registries_write_them() {
    for level in Level::ALL {
        assert_eq!(level.name().parse(), Ok(level));
        assert_eq!(serde_json::to_value(level).unwrap(), level.name());
    }
    let error = "BACKWARDS".parse::<Level>().unwrap_err();
    assert!(error.contains("BACKWARDS") && error.contains("FULL_TRANSITIVE"), "{error}");
}

/// The type of a field in schemas that chance makes, and whether the field has a default.
#[derive(Clone, Debug)]
struct Made {
    shape: Shape,
    has_default: bool,
}

#[derive(Clone, Debug)]
enum Shape {
    Plain(&'static str),
    Optional(&'static str),
    Enum { symbols: usize, has_default: bool },
}

const PLAIN: [&str; 6] = ["boolean", "int", "long", "double", "string", "bytes"];
const SYMBOLS: [&str; 3] = ["a", "b", "c"];

fn made() -> impl Strategy<Value = BTreeMap<&'static str, Made>> {
    let plain = || prop::sample::select(&PLAIN[..]);
    let shape = prop_oneof![
        plain().prop_map(Shape::Plain),
        plain().prop_map(Shape::Optional),
        (1..=3_usize, any::<bool>())
            .prop_map(|(symbols, has_default)| Shape::Enum { symbols, has_default }),
    ];
    let field = (shape, any::<bool>()).prop_map(|(shape, has_default)| Made { shape, has_default });
    prop::collection::btree_map(prop::sample::select(&["x", "y", "z"][..]), field, 0..3)
}

impl Shape {
    fn schema(&self, name: &str) -> serde_json::Value {
        match self {
            Shape::Plain(kind) => json!(kind),
            Shape::Optional(kind) => json!(["null", kind]),
            Shape::Enum { symbols, has_default } => {
                let symbols = &SYMBOLS[..*symbols];
                let mut schema = json!({ "type": "enum", "name": name, "symbols": symbols });
                if *has_default {
                    schema["default"] = json!(symbols[0]);
                }
                schema
            }
        }
    }

    fn default(&self) -> serde_json::Value {
        match self {
            Shape::Plain("boolean") => json!(true),
            Shape::Plain("string" | "bytes") => json!("d"),
            Shape::Plain(_) => json!(0),
            Shape::Optional(_) => json!(null),
            Shape::Enum { .. } => json!(SYMBOLS[0]),
        }
    }

    /// A value, with `n` to choose branch or symbol by.
    fn value(&self, n: usize) -> Value {
        let plain = |kind: &str| match kind {
            "boolean" => Value::Boolean(true),
            "int" => Value::Int(7),
            "long" => Value::Long(7),
            "double" => Value::Double(7.0),
            "string" => Value::String("s".to_owned()),
            _ => Value::Bytes(b"s".to_vec()),
        };
        match self {
            Shape::Plain(kind) => plain(kind),
            Shape::Optional(_) if n.is_multiple_of(2) => Value::Union(0, Box::new(Value::Null)),
            Shape::Optional(kind) => Value::Union(1, Box::new(plain(kind))),
            Shape::Enum { symbols, .. } => {
                let n = n % symbols;
                Value::Enum(u32::try_from(n).unwrap(), SYMBOLS[n].to_owned())
            }
        }
    }
}

fn text(fields: &BTreeMap<&'static str, Made>) -> String {
    let field = |(name, made): (&&str, &Made)| {
        let mut field = json!({ "name": name, "type": made.shape.schema(&format!("e_{name}")) });
        if made.has_default {
            field["default"] = made.shape.default();
        }
        field
    };
    let fields: Vec<_> = fields.iter().map(field).collect();
    json!({ "type": "record", "name": "r", "fields": fields }).to_string()
}

proptest! {
    /// Where the verdict is yes, another implementation reads whatever the writer writes. It isn't
    /// vacuous: too few such pairs, and the test fails.
    #[test]
    fn what_is_said_to_be_readable_is_read(writer in made(), reader in made()) {
        let (written, read) = (text(&writer), text(&reader));
        prop_assume!(!writer.is_empty());
        prop_assume!(differences(&parse(&written), &parse(&read)).is_empty());
        let written = Schema::parse_str(&written).unwrap();
        let read = Schema::parse_str(&read).unwrap();
        for n in 0..6 {
            let fields = writer.iter().map(|(name, made)| ((*name).to_owned(), made.shape.value(n)));
            let writer = GenericDatumWriter::builder(&written).build().unwrap();
            let bytes = writer.write_value_to_vec(Value::Record(fields.collect())).unwrap();
            let reader = GenericDatumReader::builder(&written).reader_schema(&read).build().unwrap();
            let found = reader.read_value(&mut &bytes[..]);
            prop_assert!(found.is_ok(), "{n}: {found:?}");
        }
    }
}
