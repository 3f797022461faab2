//! What an event should become, worked out with `serde_json` and `apache-avro` and none of our parser.
//!
//! Slow and plain on purpose: every part of a text is handed to the oracle anew.

use std::fmt;

use aion_schemas::{
    decode::{MAX_AHEAD_MICROS, MAX_BEHIND_MICROS, MAX_DEPTH},
    schema::{Field, Kind, Schema},
};
use apache_avro::{
    reader::datum::GenericDatumReader,
    types::{Value as Avro, ValueKind},
    writer::datum::GenericDatumWriter,
};
use arrow::array::{Array, AsArray, RecordBatch, types};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::common::NOW_MICROS;

/// The cells of a row as text, and none for null.
pub(crate) type Row = Vec<Option<String>>;

/// What the oracle says.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Row(Row),
    Reject,
    /// The oracle is less exact than we are here; a table of cases covers it.
    Unsure,
}

enum Flaw {
    Reject,
    Unsure,
}

/// The members of an object, none dropped.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Flaw> {
    serde_json::from_str(text).map_err(|_| Flaw::Reject)
}

/// Canonical text of any value; `strict` refuses names that repeat.
fn canonical(raw: &str, depth: usize, strict: bool) -> Result<String, Flaw> {
    let nested = matches!(raw.as_bytes()[0], b'{' | b'[');
    if nested && depth >= MAX_DEPTH {
        return Err(Flaw::Reject);
    }
    match raw.as_bytes()[0] {
        b'{' => {
            let mut members = parse::<Members>(raw)?.0;
            members.sort_by(|a, b| a.0.cmp(&b.0));
            if strict && members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return Err(Flaw::Reject);
            }
            let mut texts = Vec::new();
            for (name, value) in members {
                let name = serde_json::to_string(&name).unwrap();
                texts.push(format!("{name}:{}", canonical(value.get(), depth + 1, strict)?));
            }
            Ok(format!("{{{}}}", texts.join(",")))
        }
        b'[' => {
            let mut texts = Vec::new();
            for value in parse::<Vec<Box<RawValue>>>(raw)? {
                texts.push(canonical(value.get(), depth + 1, strict)?);
            }
            Ok(format!("[{}]", texts.join(",")))
        }
        b'"' => Ok(serde_json::to_string(&parse::<String>(raw)?).unwrap()),
        _ => parse::<de::IgnoredAny>(raw).map(|_| raw.to_owned()),
    }
}

fn integer(raw: &str) -> Result<i64, Flaw> {
    if !raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Err(Flaw::Reject);
    }
    if !raw.contains(['.', 'e', 'E']) {
        // `serde_json` takes -0 for a float.
        return if raw == "-0" { Ok(0) } else { parse(raw) };
    }
    let double: f64 = parse(raw)?;
    if raw.len() > 15 || double.abs() >= 2f64.powi(53) {
        return Err(Flaw::Unsure);
    }
    if double.fract() == 0.0 { Ok(double as i64) } else { Err(Flaw::Reject) }
}

fn time(text: &str) -> Result<i64, Flaw> {
    use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
    // This oracle takes more forms than RFC 3339, so only its values count.
    match string_to_timestamp_nanos(text) {
        Ok(nanos) if text.len() >= 20 && !text.contains(":60") => Ok(nanos.div_euclid(1000)),
        _ => Err(Flaw::Unsure),
    }
}

fn check_time(micros: i64, is_event_time: bool) -> Result<String, Flaw> {
    let near = NOW_MICROS - MAX_BEHIND_MICROS..=NOW_MICROS + MAX_AHEAD_MICROS;
    let in_era = (0..9_214_646_400_000_000).contains(&micros);
    if in_era && (!is_event_time || near.contains(&micros)) {
        Ok(micros.to_string())
    } else {
        Err(Flaw::Reject)
    }
}

fn json_cell(kind: Kind, raw: &str, is_event_time: bool) -> Result<String, Flaw> {
    Ok(match kind {
        Kind::Text => parse::<String>(raw)?,
        Kind::Integer => integer(raw)?.to_string(),
        Kind::Number => format!("{:?}", parse::<f64>(raw)?),
        Kind::Boolean => parse::<bool>(raw)?.to_string(),
        Kind::Time => check_time(time(&parse::<String>(raw)?)?, is_event_time)?,
        Kind::Object if raw.starts_with('{') => canonical(raw, 0, true)?,
        Kind::Object | Kind::Bytes => return Err(Flaw::Reject),
    })
}

fn json_row(schema: &Schema, payload: &[u8]) -> Result<Row, Flaw> {
    let members: Members = serde_json::from_slice(payload).map_err(|_| Flaw::Reject)?;
    let mut row: Vec<Option<Option<String>>> = vec![None; schema.fields.len()];
    let mut unsure = false;
    for (name, value) in members.0 {
        let Some(index) = schema.position(&name) else {
            canonical(value.get(), 0, false)?;
            continue;
        };
        let field = &schema.fields[index];
        let cell = match value.get() {
            "null" => None,
            raw => match json_cell(field.kind, raw, index == schema.event_time) {
                // What comes later may still make it a reject without doubt.
                Err(Flaw::Unsure) => {
                    unsure = true;
                    Some(String::new())
                }
                cell => Some(cell?),
            },
        };
        if row[index].replace(cell).is_some() {
            return Err(Flaw::Reject);
        }
    }
    let row: Row = row.into_iter().map(Option::flatten).collect();
    if row.iter().zip(&schema.fields).any(|(cell, field)| cell.is_none() && field.required) {
        return Err(Flaw::Reject);
    }
    if unsure { Err(Flaw::Unsure) } else { Ok(row) }
}

fn verdict(row: Result<Row, Flaw>) -> Verdict {
    match row {
        Ok(row) => Verdict::Row(row),
        Err(Flaw::Reject) => Verdict::Reject,
        Err(Flaw::Unsure) => Verdict::Unsure,
    }
}

/// What becomes of a payload that begins like JSON.
pub(crate) fn json(schema: &Schema, payload: &[u8]) -> Verdict {
    verdict(json_row(schema, payload))
}

/// What becomes of a body of the contract's own Avro schema.
pub(crate) fn avro(schema: &Schema, mirror: &apache_avro::Schema, body: &[u8]) -> Verdict {
    verdict(avro_row(schema, mirror, body))
}

fn avro_row(schema: &Schema, mirror: &apache_avro::Schema, body: &[u8]) -> Result<Row, Flaw> {
    let mut rest = body;
    let reader = GenericDatumReader::builder(mirror).build().map_err(|_| Flaw::Reject)?;
    let value = reader.read_value(&mut rest).map_err(|_| Flaw::Reject)?;
    if !rest.is_empty() {
        return Err(Flaw::Reject);
    }
    cells_of(schema, value)
}

fn cells_of(schema: &Schema, value: Avro) -> Result<Row, Flaw> {
    let Avro::Record(values) = value else { return Err(Flaw::Reject) };
    let cells = values.into_iter().zip(&schema.fields).enumerate();
    cells
        .map(|(index, ((_, value), field))| {
            avro_cell(field.kind, value, index == schema.event_time)
        })
        .collect()
}

fn avro_cell(kind: Kind, value: Avro, is_event_time: bool) -> Result<Option<String>, Flaw> {
    let value = match value {
        Avro::Union(_, value) => *value,
        value => value,
    };
    Ok(Some(match (kind, value) {
        (_, Avro::Null) => return Ok(None),
        (Kind::Text, Avro::String(text)) => text,
        (Kind::Integer, Avro::Long(value)) => value.to_string(),
        (Kind::Number, Avro::Double(value)) if value.is_finite() => format!("{value:?}"),
        (Kind::Boolean, Avro::Boolean(value)) => value.to_string(),
        (Kind::Time, Avro::TimestampMicros(micros)) => check_time(micros, is_event_time)?,
        (Kind::Object, Avro::String(text)) => {
            let raw: Box<RawValue> = serde_json::from_str(&text).map_err(|_| Flaw::Reject)?;
            json_cell(Kind::Object, raw.get(), false)?
        }
        (Kind::Bytes, Avro::Bytes(bytes)) => format!("{bytes:?}"),
        _ => return Err(Flaw::Reject),
    }))
}

fn unwrapped(value: Avro) -> Avro {
    match value {
        Avro::Union(_, value) => *value,
        value => value,
    }
}

fn in_micros(value: Avro) -> Avro {
    match value {
        Avro::TimestampMillis(millis) => Avro::TimestampMicros(millis.saturating_mul(1000)),
        Avro::TimestampNanos(nanos) => Avro::TimestampMicros(nanos.div_euclid(1000)),
        value => value,
    }
}

/// What a logical type lies over.
fn underlying(value: Avro) -> Avro {
    match value {
        Avro::TimestampMillis(long) | Avro::TimestampMicros(long) | Avro::TimestampNanos(long) => {
            Avro::Long(long)
        }
        value => value,
    }
}

/// The row of a writer's body by `apache-avro`, or `None` where it can't resolve.
///
/// Three things are done to its value beforehand, since it doesn't know them: fields under a former name get
/// the present one, instants get the unit of the contract, and in columns of numbers they are what they lie over.
pub(crate) fn resolved(schema: &Schema, writer: &str, body: &[u8]) -> Option<Row> {
    let writer = apache_avro::Schema::parse_str(writer).unwrap();
    let read = GenericDatumReader::builder(&writer).build().unwrap().read_value(&mut &*body);
    let Avro::Record(values) = read.ok()? else { return None };
    let present = |(name, value): (String, Avro)| {
        let had_name = |field: &&Field| field.aliases.iter().any(|alias| **alias == *name);
        let former = schema.fields.iter().find(had_name);
        let field = former.or(schema.position(&name).map(|at| &schema.fields[at]));
        let value = match field.map(|field| field.kind) {
            Some(Kind::Time) => in_micros(unwrapped(value)),
            Some(Kind::Integer | Kind::Number) => underlying(unwrapped(value)),
            _ => unwrapped(value),
        };
        (former.map_or(name, |field| field.name.to_string()), value)
    };
    let values: Vec<_> = values.into_iter().map(present).collect();
    // It takes any integer for a time, and an array of them for bytes; we don't.
    let is_foreign = |(name, value): &(String, Avro)| {
        let kind = schema.position(name).map(|at| schema.fields[at].kind);
        match (kind, ValueKind::from(value)) {
            (Some(Kind::Time), kind) => {
                !matches!(kind, ValueKind::TimestampMicros | ValueKind::Null)
            }
            (Some(_), ValueKind::Fixed) => true,
            _ => false,
        }
    };
    if values.iter().any(is_foreign) {
        return None;
    }
    let reader = apache_avro::Schema::parse(&schema.avro("test")).unwrap();
    let resolved = Avro::Record(values).resolve(&reader).ok()?;
    cells_of(schema, resolved).ok()
}

/// The cells of one row of a batch, without its position.
pub(crate) fn cells(schema: &Schema, batch: &RecordBatch, row: usize) -> Row {
    let cell = |(column, kind): (&dyn Array, Kind)| {
        column.is_valid(row).then(|| match kind {
            Kind::Text | Kind::Object => column.as_string::<i32>().value(row).to_owned(),
            Kind::Integer => column.as_primitive::<types::Int64Type>().value(row).to_string(),
            Kind::Number => format!("{:?}", column.as_primitive::<types::Float64Type>().value(row)),
            Kind::Boolean => column.as_boolean().value(row).to_string(),
            Kind::Time => {
                column.as_primitive::<types::TimestampMicrosecondType>().value(row).to_string()
            }
            Kind::Bytes => format!("{:?}", column.as_binary::<i32>().value(row)),
        })
    };
    schema.fields.iter().enumerate().map(|(i, field)| cell((batch.column(i), field.kind))).collect()
}

/// The body of a value of that schema.
pub(crate) fn write_avro(schema: &apache_avro::Schema, value: Avro) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(schema).build().unwrap();
    writer.write_value_to_vec(value).unwrap()
}
