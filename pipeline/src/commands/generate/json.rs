//! Events as JSON text, written straight into a buffer.

use aion_schemas::log::Timestamp;
use uuid::fmt::Hyphenated;

use super::event::{Event, Value};

/// Appends the event as one JSON object without white space.
pub(super) fn push_event(out: &mut Vec<u8>, event: &Event) {
    push_object(out, &event.fields);
}

/// Appends an object.
pub(super) fn push_object(out: &mut Vec<u8>, fields: &[(&'static str, Value)]) {
    out.push(b'{');
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_text(out, name);
        out.push(b':');
        push_value(out, value);
    }
    out.push(b'}');
}

fn push_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Word(text) => push_text(out, text),
        Value::Numbered(..) | Value::Id(_) | Value::Time(_) => {
            out.push(b'"');
            push_bare(out, value);
            out.push(b'"');
        }
        Value::Integer(_) | Value::Millionths(_) | Value::Boolean(_) | Value::Object(_) => {
            push_bare(out, value);
        }
    }
}

/// Appends a value's text without quotes or escapes: what a message's key or an Avro string holds.
pub(super) fn push_bare(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Word(text) => out.extend_from_slice(text.as_bytes()),
        Value::Numbered(word, number) => {
            out.extend_from_slice(word.as_bytes());
            out.push(b'-');
            push_padded(out, u64::from(*number), 3);
        }
        Value::Id(id) => {
            let mut text = [0; Hyphenated::LENGTH];
            out.extend_from_slice(id.as_hyphenated().encode_lower(&mut text).as_bytes());
        }
        Value::Integer(number) => push_integer(out, *number),
        Value::Millionths(number) => push_millionths(out, *number),
        Value::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Time(time) => push_time(out, *time),
        Value::Object(fields) => push_object(out, fields),
    }
}

/// Appends text in quotes. Only what RFC 8259 insists on is escaped.
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[
                    b'0' + (byte >> 4),
                    b"0123456789abcdef"[usize::from(byte & 15)],
                ]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn push_integer(out: &mut Vec<u8>, number: i64) {
    push_sign(out, number);
    push_padded(out, number.unsigned_abs(), 1);
}

/// Appends a decimal fraction without the zeros at its end, but with one digit at least.
fn push_millionths(out: &mut Vec<u8>, number: i64) {
    push_sign(out, number);
    push_padded(out, number.unsigned_abs() / 1_000_000, 1);
    let (mut fraction, mut width) = (number.unsigned_abs() % 1_000_000, 6);
    while width > 1 && fraction % 10 == 0 {
        fraction /= 10;
        width -= 1;
    }
    out.push(b'.');
    push_padded(out, fraction, width);
}

fn push_sign(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
}

/// Appends decimal digits, with zeros before them up to `width`.
fn push_padded(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    while number > 0 {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let start = start.min(digits.len() - width);
    out.extend_from_slice(&digits[start..]);
}

/// Appends a time as RFC 3339 with six decimals, in UTC.
pub(super) fn push_time(out: &mut Vec<u8>, time: Timestamp) {
    const DAY_MICROS: i64 = 86_400_000_000;
    let (year, month, day) = civil(time.0.div_euclid(DAY_MICROS));
    let micros = time.0.rem_euclid(DAY_MICROS) as u64;
    let seconds = micros / 1_000_000;
    let parts = [
        (year as u64, 4, b'-'),
        (month as u64, 2, b'-'),
        (day as u64, 2, b'T'),
        (seconds / 3600, 2, b':'),
        (seconds / 60 % 60, 2, b':'),
        (seconds % 60, 2, b'.'),
        (micros % 1_000_000, 6, b'Z'),
    ];
    for (number, width, end) in parts {
        push_padded(out, number, width);
        out.push(end);
    }
}

/// Year, month and day of a count of days since 1970.
///
/// Counts years from March, so that the leap day is the last of its year, in eras of 400 years.
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;

    use super::*;
    use crate::commands::generate::event::Topic;

    fn bare(value: &Value) -> String {
        let mut out = Vec::new();
        push_bare(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_read_back_by_an_independent_parser() {
        for time in [
            0,
            1,
            951_782_399_999_999,
            951_825_600_000_000,
            4_107_542_400_000_000,
            1_767_225_600_123_456,
        ] {
            let text = bare(&Value::Time(Timestamp(time)));
            assert_eq!(string_to_timestamp_nanos(&text).unwrap(), time * 1000, "{text}");
        }
        assert_eq!(
            bare(&Value::Time(Timestamp(1_767_225_600_000_042))),
            "2026-01-01T00:00:00.000042Z"
        );
    }

    #[test]
    fn numbers_have_their_exact_text() {
        let texts = [
            (0, "0.0"),
            (5, "0.000005"),
            (-1_020_000, "-1.02"),
            (12_345_678, "12.345678"),
            (300_000_000, "300.0"),
        ];
        for (number, text) in texts {
            assert_eq!(bare(&Value::Millionths(number)), text);
        }
        assert_eq!(bare(&Value::Integer(i64::MIN)), i64::MIN.to_string());
        assert_eq!(bare(&Value::Integer(0)), "0");
        assert_eq!(bare(&Value::Numbered("tenant", 7)), "tenant-007");
        assert_eq!(bare(&Value::Numbered("tenant", 12_345)), "tenant-12345");
    }

    #[test]
    fn every_kind_of_value_survives_a_json_parser() {
        let awkward = "Zähler \"A\\B\"\n\u{1}\u{1f}→ 計";
        let object = Value::Object(vec![("n", Value::Integer(-3)), ("t", Value::Word(awkward))]);
        let fields = vec![
            ("text", Value::Word(awkward)),
            ("flag", Value::Boolean(true)),
            ("object", object),
        ];
        let event = Event { topic: Topic::Audit, time: Timestamp(0), fields };
        let mut out = Vec::new();
        push_event(&mut out, &event);
        let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let want =
            serde_json::json!({"text": awkward, "flag": true, "object": {"n": -3, "t": awkward}});
        assert_eq!(parsed, want);
    }
}
