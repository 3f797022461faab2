//! Rows as PostgreSQL's clients read them, in text or binary.

use std::fmt::Write;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{
        DataType, Date32Type, DurationMicrosecondType, Float32Type, Float64Type, Int16Type,
        Int32Type, Int64Type, IntervalMonthDayNanoType, Schema, TimestampMicrosecondType,
    },
    error::ArrowError,
    record_batch::RecordBatch,
    temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime},
    util::display::{ArrayFormatter, FormatOptions},
};
use bytes::{BufMut, BytesMut};
use pgwire::{
    api::{
        Type,
        portal::Format,
        results::{FieldFormat, FieldInfo},
    },
    messages::data::DataRow,
};

use super::types::{EPOCH_S, days_since_2000, of_column, sent_from};

/// The columns of an answer, each with its format.
pub(super) fn fields(schema: &Schema, format: &Format) -> Vec<FieldInfo> {
    let field = |(at, field): (usize, &std::sync::Arc<arrow::datatypes::Field>)| {
        let kind = of_column(field.data_type());
        let format = match format {
            Format::Individual(codes) => {
                codes.get(at).map_or(FieldFormat::Text, |code| FieldFormat::from(*code))
            }
            uniform => uniform.format_for(at),
        };
        let size = match kind {
            Type::BOOL => 1,
            Type::INT2 => 2,
            Type::INT4 | Type::FLOAT4 | Type::DATE => 4,
            Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
            Type::INTERVAL => 16,
            _ => -1,
        };
        FieldInfo::new(field.name().clone(), None, None, kind, format).with_type_size(size)
    };
    schema.fields().iter().enumerate().map(field).collect()
}

/// Writes the rows of a batch.
pub(super) fn rows(batch: &RecordBatch, fields: &[FieldInfo]) -> Result<Vec<DataRow>, ArrowError> {
    let columns = batch.columns().iter().zip(fields);
    let columns = columns.map(|(column, field)| Column::new(column, field));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut data = BytesMut::with_capacity(columns.len() * 16);
        for column in &columns {
            column.put(row, &mut data)?;
        }
        rows.push(DataRow::new(data, columns.len() as i16));
    }
    Ok(rows)
}

struct Column {
    kind: Type,
    binary: bool,
    values: ArrayRef,
    /// Sent as the text that people see.
    as_text: bool,
}

impl Column {
    fn new(column: &ArrayRef, field: &FieldInfo) -> Result<Column, ArrowError> {
        let kind = field.datatype().clone();
        let wanted = sent_from(&kind, column.data_type());
        // A number that doesn't fit is an error, not null.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let values = match &wanted {
            Some(wanted) => cast_with_options(column, wanted, &options)?,
            None => ArrayRef::clone(column),
        };
        let binary = field.format() == FieldFormat::Binary;
        Ok(Column { kind, binary, values, as_text: wanted.is_none() })
    }

    /// Appends a value after its length.
    fn put(&self, row: usize, out: &mut BytesMut) -> Result<(), ArrowError> {
        if self.values.is_null(row) || *self.values.data_type() == DataType::Null {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        if self.as_text {
            let formatter = ArrayFormatter::try_new(&self.values, &FormatOptions::default())?;
            write!(out, "{}", formatter.value(row)).map_err(broken)?;
        } else if self.binary {
            self.put_binary(row, out);
        } else {
            self.put_text(row, out).map_err(broken)?;
        }
        let length = (out.len() - start - 4) as i32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn put_binary(&self, row: usize, out: &mut BytesMut) {
        let values = &self.values;
        match self.kind {
            Type::BOOL => out.put_u8(u8::from(values.as_boolean().value(row))),
            Type::INT2 => out.put_i16(values.as_primitive::<Int16Type>().value(row)),
            Type::INT4 => out.put_i32(values.as_primitive::<Int32Type>().value(row)),
            Type::INT8 => out.put_i64(values.as_primitive::<Int64Type>().value(row)),
            Type::FLOAT4 => out.put_f32(values.as_primitive::<Float32Type>().value(row)),
            Type::FLOAT8 => out.put_f64(values.as_primitive::<Float64Type>().value(row)),
            Type::DATE => {
                out.put_i32(days_since_2000(values.as_primitive::<Date32Type>().value(row)));
            }
            Type::TIMESTAMP | Type::TIMESTAMPTZ => {
                let at = values.as_primitive::<TimestampMicrosecondType>().value(row);
                out.put_i64(at.saturating_sub(EPOCH_S * 1_000_000));
            }
            Type::BYTEA => out.put_slice(values.as_binary::<i32>().value(row)),
            Type::INTERVAL => {
                let (months, days, us) = interval(values, row);
                out.put_i64(us);
                out.put_i32(days);
                out.put_i32(months);
            }
            _ => out.put_slice(values.as_string_view().value(row).as_bytes()),
        }
    }

    fn put_text(&self, row: usize, out: &mut BytesMut) -> std::fmt::Result {
        let values = &self.values;
        match self.kind {
            Type::BOOL => out.put_u8(if values.as_boolean().value(row) { b't' } else { b'f' }),
            Type::INT2 => write!(out, "{}", values.as_primitive::<Int16Type>().value(row))?,
            Type::INT4 => write!(out, "{}", values.as_primitive::<Int32Type>().value(row))?,
            Type::INT8 => write!(out, "{}", values.as_primitive::<Int64Type>().value(row))?,
            Type::FLOAT4 => float(values.as_primitive::<Float32Type>().value(row), out),
            Type::FLOAT8 => float(values.as_primitive::<Float64Type>().value(row), out),
            Type::DATE => {
                let date = date32_to_datetime(values.as_primitive::<Date32Type>().value(row));
                write!(out, "{}", date.ok_or(std::fmt::Error)?.date())?;
            }
            Type::TIMESTAMP | Type::TIMESTAMPTZ => {
                let at = values.as_primitive::<TimestampMicrosecondType>().value(row);
                write!(out, "{}", timestamp_us_to_datetime(at).ok_or(std::fmt::Error)?)?;
                if self.kind == Type::TIMESTAMPTZ {
                    out.put_slice(b"+00");
                }
            }
            Type::BYTEA => {
                out.put_slice(b"\\x");
                for byte in values.as_binary::<i32>().value(row) {
                    write!(out, "{byte:02x}")?;
                }
            }
            Type::INTERVAL => {
                let (months, days, us) = interval(values, row);
                let (sign, us) = (if us < 0 { "-" } else { "" }, us.unsigned_abs());
                let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                let seconds = seconds % 60;
                write!(out, "{months} mons {days} days ")?;
                write!(out, "{sign}{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}")?;
            }
            _ => out.put_slice(values.as_string_view().value(row).as_bytes()),
        }
        Ok(())
    }
}

/// Months, days and microseconds.
fn interval(values: &ArrayRef, row: usize) -> (i32, i32, i64) {
    if matches!(values.data_type(), DataType::Duration(_)) {
        return (0, 0, values.as_primitive::<DurationMicrosecondType>().value(row));
    }
    let value = values.as_primitive::<IntervalMonthDayNanoType>().value(row);
    (value.months, value.days, value.nanoseconds / 1000)
}

/// As short as reads back the same; what is no number has names of its own.
fn float<T: Into<f64> + std::fmt::Debug + Copy>(value: T, out: &mut BytesMut) {
    let wide: f64 = value.into();
    if wide.is_nan() {
        out.put_slice(b"NaN");
    } else if wide.is_infinite() {
        out.put_slice(if wide > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        let text = format!("{value:?}");
        out.put_slice(text.strip_suffix(".0").unwrap_or(&text).as_bytes());
    }
}

fn broken(_: std::fmt::Error) -> ArrowError {
    ArrowError::ComputeError("a value is beyond what PostgreSQL's clients know".to_owned())
}
