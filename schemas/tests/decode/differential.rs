//! The decoder against the oracles: generated events, and damage done to them.

use std::fmt::Write;

use aion_schemas::{decode::Outcome, schema::Kind};
use apache_avro::types::Value as Avro;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest,
};

use crate::{
    checks::{check_avro, check_json, mirror},
    common::{CONTRACT, NOW_MICROS, decoder, every_kind, finish, framed, record},
    oracle,
};

/// A value of one field, as both encodings write it.
#[derive(Clone, Debug)]
struct Cell {
    json: String,
    avro: Avro,
}

fn style() -> impl Strategy<Value = u8> {
    any::<u8>()
}

/// A string literal; bits of `style` choose which characters are escaped though they needn't be.
fn literal(text: &str, style: u8) -> String {
    let mut json = String::from("\"");
    for (index, character) in text.chars().enumerate() {
        let must = matches!(character, '"' | '\\' | '\0'..='\x1f');
        if must || (style >> (index % 8)) & 1 == 1 {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(json, "\\u{unit:04x}").unwrap();
            }
        } else {
            json.push(character);
        }
    }
    json + "\""
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{0,40}", ".{0,12}", Just("\u{0}\u{1f}\"\\/\u{7f}é😀\u{2028}".to_owned())]
}

fn tree() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        prop::num::f64::NORMAL.prop_map(|value| format!("{value:e}")),
        Just("123456789012345678901234567890.125E-3".to_owned()),
        (text(), style()).prop_map(|(text, style)| literal(&text, style)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" ,"))),
            object_of(inner),
        ]
    })
}

fn object_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::btree_map(text(), (value, style()), 0..5).prop_map(|members| {
        let member = |(name, (value, style)): (String, (String, u8))| {
            format!("{}{}:{value}", literal(&name, style), " ".repeat(usize::from(style & 1)))
        };
        // In an order that isn't the canonical one.
        let mut members: Vec<_> = members.into_iter().map(member).collect();
        members.reverse();
        format!("{{{}}}", members.join(", "))
    })
}

fn time_text(micros: i64, offset_minutes: i64, style: u8) -> String {
    let local =
        arrow::temporal_conversions::timestamp_us_to_datetime(micros + offset_minutes * 60_000_000);
    let digits = ["%.6f", "%.9f"][usize::from(style & 1)];
    let form = format!("%Y-%m-%d{}%H:%M:%S{digits}", ['T', 't'][usize::from(style >> 1 & 1)]);
    let local = local.unwrap().format(&form).to_string();
    let (sign, offset) = (if offset_minutes < 0 { '-' } else { '+' }, offset_minutes.abs());
    if offset == 0 {
        format!("{local}Z")
    } else {
        format!("{local}{sign}{:02}:{:02}", offset / 60, offset % 60)
    }
}

fn cell(kind: Kind) -> proptest::strategy::BoxedStrategy<Cell> {
    match kind {
        Kind::Text => (text(), style())
            .prop_map(|(text, style)| Cell {
                json: literal(&text, style),
                avro: Avro::String(text),
            })
            .boxed(),
        Kind::Integer => (prop_oneof![any::<i64>(), -100i64..100], 0..3usize)
            .prop_map(|(value, form)| Cell {
                json: format!("{value}{}", ["", ".0", "e0"][form]),
                avro: Avro::Long(value),
            })
            .boxed(),
        Kind::Number => (
            prop_oneof![prop::num::f64::NORMAL, prop::num::f64::SUBNORMAL, -9.0..9.0],
            any::<bool>(),
        )
            .prop_map(|(value, exponent)| Cell {
                json: if exponent { format!("{value:e}") } else { format!("{value:?}") },
                avro: Avro::Double(value),
            })
            .boxed(),
        Kind::Boolean => any::<bool>()
            .prop_map(|value| Cell { json: value.to_string(), avro: Avro::Boolean(value) })
            .boxed(),
        Kind::Time => (-86_400_000_000_000i64..80_000_000_000, -1439i64..1440, style())
            .prop_map(|(distance, offset, style)| Cell {
                json: format!("\"{}\"", time_text(NOW_MICROS + distance, offset, style)),
                avro: Avro::TimestampMicros(NOW_MICROS + distance),
            })
            .boxed(),
        Kind::Object => object_of(tree())
            .prop_map(|json| Cell { avro: Avro::String(json.clone()), json })
            .boxed(),
        Kind::Bytes => unreachable!("not in the schema under test"),
    }
}

/// One event in both encodings.
#[derive(Clone, Debug)]
struct Event {
    json: String,
    body: Vec<u8>,
}

fn events() -> impl Strategy<Value = Event> {
    let schema = every_kind();
    let cells: Vec<_> = schema
        .fields
        .iter()
        .map(|field| {
            if field.required {
                cell(field.kind).prop_map(Some).boxed()
            } else {
                prop::option::of(cell(field.kind)).boxed()
            }
        })
        .collect();
    let unknown = prop::collection::vec(("x[a-z]{0,3}", tree()), 0..3);
    (cells, unknown, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(cells, unknown, turn, space)| {
            let schema = every_kind();
            let mut members: Vec<_> =
                unknown.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let mut values = Vec::new();
            for (field, cell) in schema.fields.iter().zip(cells) {
                let json = cell.as_ref().map_or("null", |cell| &cell.json);
                if cell.is_some() || space {
                    let gap = if space { " " } else { "" };
                    members.push(format!("\"{}\":{gap}{json}", field.name));
                }
                let avro = match (field.required, cell) {
                    (_, None) => Avro::Union(0, Box::new(Avro::Null)),
                    (true, Some(cell)) => cell.avro,
                    (false, Some(cell)) => Avro::Union(1, Box::new(cell.avro)),
                };
                values.push((field.name.to_string(), avro));
            }
            let turn = turn.index(members.len());
            members.rotate_left(turn);
            Event {
                json: format!("{{{}}}", members.join(",")),
                body: oracle::write_avro(mirror(), Avro::Record(values)),
            }
        },
    )
}

/// Damages bytes: flips, cuts, doubles or swaps parts.
pub(crate) fn damage(bytes: &mut Vec<u8>, kind: u8, at: usize, value: u8) {
    if bytes.is_empty() {
        return bytes.push(value);
    }
    let at = at % bytes.len();
    match kind % 8 {
        0 => bytes[at] = value,
        1 => bytes[at] ^= 1 << (value % 8),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, value),
        4 => drop(bytes.remove(at)),
        5 => {
            let end = (at + usize::from(value % 16)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        6 => bytes[at] = b"\"\\{}[]:,0-.eEntfu \xff\x80"[usize::from(value) % 20],
        _ => {
            let other = usize::from(value) * 7 % bytes.len();
            bytes.swap(at, other);
        }
    }
}

fn damages() -> impl Strategy<Value = Vec<(u8, usize, u8)>> {
    prop::collection::vec(any::<(u8, usize, u8)>(), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_is_what_serde_json_reads(event in events()) {
        check_json(&every_kind(), event.json.as_bytes());
    }

    #[test]
    fn damaged_json_is_what_serde_json_says(event in events(), damages in damages()) {
        let mut payload = event.json.into_bytes();
        for (kind, at, value) in damages {
            damage(&mut payload, kind, at, value);
        }
        check_json(&every_kind(), &payload);
    }

    #[test]
    fn avro_is_what_apache_avro_reads(event in events()) {
        check_avro(&every_kind(), &event.body);
    }

    #[test]
    fn damaged_avro_is_what_apache_avro_says(event in events(), damages in damages()) {
        let mut body = event.body;
        for (kind, at, value) in damages {
            damage(&mut body, kind, at, value);
        }
        check_avro(&every_kind(), &body);
    }

    #[test]
    fn both_encodings_are_one_row(events in prop::collection::vec(events(), 1..8)) {
        let schema = every_kind();
        let (mut json, mut avro) = (decoder(&schema), decoder(&schema));
        for (offset, event) in events.iter().enumerate() {
            let offset = offset as i64;
            prop_assert_eq!(json.push(&record(Some(event.json.as_bytes()), offset)), Outcome::Row);
            let payload = framed(CONTRACT, &event.body);
            prop_assert_eq!(avro.push(&record(Some(&payload), offset)), Outcome::Row);
        }
        prop_assert_eq!(finish(&mut json), finish(&mut avro));
    }

    #[test]
    fn poison_costs_itself_only(
        events in prop::collection::vec((events(), damages(), any::<bool>(), any::<bool>()), 1..12),
    ) {
        let schema = every_kind();
        let mut together = decoder(&schema);
        let mut kept = Vec::new();
        for (offset, (event, damages, is_avro, is_damaged)) in events.into_iter().enumerate() {
            let mut payload =
                if is_avro { framed(CONTRACT, &event.body) } else { event.json.into_bytes() };
            for (kind, at, value) in damages.into_iter().filter(|_| is_damaged) {
                damage(&mut payload, kind, at, value);
            }
            let offset = offset as i64;
            let outcome = together.push(&record(Some(&payload), offset));
            // What becomes of it is what becomes of it alone.
            let mut alone = decoder(&schema);
            prop_assert_eq!(&alone.push(&record(Some(&payload), offset)), &outcome);
            if outcome == Outcome::Row {
                kept.push(finish(&mut alone));
            }
        }
        let apart = arrow::compute::concat_batches(&schema.arrow(), &kept).unwrap();
        prop_assert_eq!(finish(&mut together), apart);
    }
}
