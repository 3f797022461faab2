//! Which types PostgreSQL has for ours, and values of parameters.
//!
//! | ours | theirs | how it is sent |
//! |---|---|---|
//! | text | `varchar` | |
//! | whole numbers | `int2`, `int4`, `int8` | unsigned ones as the next wider; 64 bits as `int8`, or an error |
//! | `real`, `double` | `float4`, `float8` | decimals too |
//! | `timestamptz`, `timestamp` | the same | microseconds, UTC |
//! | `date`, `boolean`, `bytea`, `interval` | the same | |
//! | lists, structs and others | `varchar` | as text, for people |

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::scalar::ScalarValue;
use pgwire::api::{Type, results::FieldFormat};

/// Seconds from 1970 to 2000, where PostgreSQL's times begin.
pub(super) const EPOCH_S: i64 = 946_684_800;
const EPOCH_DAYS: i32 = 10_957;

/// The type under which a column is sent.
pub(super) fn of_column(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => Type::INT8,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 | DataType::Decimal128(..) | DataType::Decimal256(..) => Type::FLOAT8,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Type::BYTEA,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        _ => Type::VARCHAR,
    }
}

/// The form of a column from which it is sent as `kind`.
pub(super) fn sent_from(kind: &Type, data_type: &DataType) -> Option<DataType> {
    Some(match *kind {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::BYTEA => DataType::Binary,
        Type::INTERVAL if matches!(data_type, DataType::Duration(_)) => {
            DataType::Duration(TimeUnit::Microsecond)
        }
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        _ if matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
            DataType::Utf8View
        }
        _ => return None,
    })
}

/// The type that a parameter is asked for as, where the planner knows which it has to be.
pub(super) fn of_parameter(data_type: Option<&DataType>) -> Type {
    match data_type {
        None | Some(DataType::Null) => Type::TEXT,
        Some(data_type) => match of_column(data_type) {
            Type::VARCHAR => Type::TEXT,
            kind => kind,
        },
    }
}

/// The null of what [`value`] reads, so that a statement has the same columns with it as with any value.
pub(super) fn null(kind: &Type) -> ScalarValue {
    match *kind {
        Type::BOOL => ScalarValue::Boolean(None),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => ScalarValue::Int64(None),
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => ScalarValue::Float64(None),
        Type::DATE => ScalarValue::Date32(None),
        Type::TIMESTAMP => ScalarValue::TimestampMicrosecond(None, None),
        Type::TIMESTAMPTZ => ScalarValue::TimestampMicrosecond(None, Some("UTC".into())),
        Type::INTERVAL => ScalarValue::IntervalMonthDayNano(None),
        Type::BYTEA => ScalarValue::Binary(None),
        _ => ScalarValue::Utf8(None),
    }
}

/// Reads the value of a parameter. What isn't known here is taken as text.
pub(super) fn value(
    kind: &Type,
    format: FieldFormat,
    bytes: Option<&[u8]>,
) -> Result<ScalarValue, String> {
    let Some(bytes) = bytes else { return Ok(null(kind)) };
    if format == FieldFormat::Binary {
        return binary(kind, bytes);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "a parameter isn't UTF-8".to_owned())?;
    let scalar = ScalarValue::Utf8(Some(text.to_owned()));
    let wanted = match *kind {
        Type::BOOL => DataType::Boolean,
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => DataType::Int64,
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => DataType::Float64,
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        Type::BYTEA => return bytea(text),
        _ => return Ok(scalar),
    };
    let read = scalar.cast_to(&wanted).map_err(|cause| cause.message().into_owned());
    match read {
        Ok(value) if !value.is_null() => Ok(value),
        _ => Err(format!("{text:?} isn't of type {kind}")),
    }
}

fn binary(kind: &Type, bytes: &[u8]) -> Result<ScalarValue, String> {
    let wrong = || format!("a binary parameter of type {kind} has {} bytes", bytes.len());
    macro_rules! number {
        ($kind:ty) => {
            <$kind>::from_be_bytes(bytes.try_into().map_err(|_| wrong())?)
        };
    }
    Ok(match *kind {
        Type::BOOL => ScalarValue::Boolean(Some(bytes.first().ok_or_else(wrong)? != &0)),
        Type::INT2 => ScalarValue::Int64(Some(number!(i16).into())),
        Type::INT4 => ScalarValue::Int64(Some(number!(i32).into())),
        Type::OID => ScalarValue::Int64(Some(number!(u32).into())),
        Type::INT8 => ScalarValue::Int64(Some(number!(i64))),
        Type::FLOAT4 => ScalarValue::Float64(Some(number!(f32).into())),
        Type::FLOAT8 => ScalarValue::Float64(Some(number!(f64))),
        Type::DATE => ScalarValue::Date32(Some(number!(i32).saturating_add(EPOCH_DAYS))),
        Type::TIMESTAMP => ScalarValue::TimestampMicrosecond(Some(since_1970(number!(i64))), None),
        Type::TIMESTAMPTZ => {
            ScalarValue::TimestampMicrosecond(Some(since_1970(number!(i64))), Some("UTC".into()))
        }
        Type::BYTEA => ScalarValue::Binary(Some(bytes.to_vec())),
        Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR | Type::UNKNOWN | Type::JSON => {
            let text = std::str::from_utf8(bytes).map_err(|_| "a parameter isn't UTF-8")?;
            ScalarValue::Utf8(Some(text.to_owned()))
        }
        _ => return Err(format!("a parameter of type {kind} is only known as text here")),
    })
}

fn since_1970(since_2000_us: i64) -> i64 {
    since_2000_us.saturating_add(EPOCH_S * 1_000_000)
}

/// Days of a date from 2000 on.
pub(super) fn days_since_2000(days: i32) -> i32 {
    days - EPOCH_DAYS
}

/// Reads `\x6162`.
fn bytea(text: &str) -> Result<ScalarValue, String> {
    let wrong = || format!("{text:?} isn't \\x and hexadecimal digits");
    let digits =
        text.strip_prefix("\\x").filter(|digits| digits.len() % 2 == 0 && digits.is_ascii());
    let digits = digits.ok_or_else(wrong)?;
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong());
    let bytes = (0..digits.len()).step_by(2).map(pair).collect::<Result<Vec<u8>, _>>()?;
    Ok(ScalarValue::Binary(Some(bytes)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn parameters_are_the_same_as_text_and_binary() {
        let us = 1_764_064_800_500_000_i64;
        let zone = Some("UTC".into());
        for (kind, text, bytes, wanted) in [
            (Type::INT4, "-7", (-7_i32).to_be_bytes().to_vec(), ScalarValue::Int64(Some(-7))),
            (Type::INT8, "9", 9_i64.to_be_bytes().to_vec(), ScalarValue::Int64(Some(9))),
            (Type::FLOAT8, "1.5", 1.5_f64.to_be_bytes().to_vec(), ScalarValue::Float64(Some(1.5))),
            (Type::BOOL, "t", vec![1], ScalarValue::Boolean(Some(true))),
            (Type::TEXT, "a'b", b"a'b".to_vec(), ScalarValue::Utf8(Some("a'b".into()))),
            (Type::BYTEA, "\\x00ff", vec![0, 255], ScalarValue::Binary(Some(vec![0, 255]))),
            (
                Type::DATE,
                "2000-01-02",
                1_i32.to_be_bytes().to_vec(),
                ScalarValue::Date32(Some(EPOCH_DAYS + 1)),
            ),
            (
                Type::TIMESTAMPTZ,
                "2025-11-25 10:00:00.5+00",
                (us - EPOCH_S * 1_000_000).to_be_bytes().to_vec(),
                ScalarValue::TimestampMicrosecond(Some(us), zone),
            ),
        ] {
            let text = value(&kind, FieldFormat::Text, Some(text.as_bytes())).unwrap();
            assert_eq!(text, wanted, "{kind} as text");
            let binary = value(&kind, FieldFormat::Binary, Some(&bytes)).unwrap();
            assert_eq!(binary, wanted, "{kind} as bytes");
            let null = value(&kind, FieldFormat::Binary, None).unwrap();
            assert!(null.is_null() && null.data_type() == wanted.data_type(), "{kind} as null");
        }
        assert!(value(&Type::INT4, FieldFormat::Binary, Some(&[1, 2])).is_err());
        assert!(value(&Type::INT4, FieldFormat::Text, Some(b"x")).unwrap_err().contains("int4"));
        assert!(value(&Type::BYTEA, FieldFormat::Text, Some(b"\\x0g")).is_err());
    }
}
