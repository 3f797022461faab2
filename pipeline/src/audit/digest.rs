//! What a row says, as one number: the same from every store, whatever engine reads it.
//!
//! A row is written as bytes, field after field as the contract has them, then its append time:
//!
//! | value | bytes |
//! |---|---|
//! | null | 0 |
//! | text, or an object's text | 1, its length in bytes (8, little endian), its bytes |
//! | integer, time in microseconds since 1970 | 1, its 8 bytes, little endian |
//! | number | 1, the 8 bytes of the double, little endian; -0 as 0 |
//! | boolean | 1, then 0 or 1 |
//!
//! The number is FNV-1a of those bytes, 128 bits wide. A range of offsets has the sum of its rows, modulo 2^128: the
//! order in which a store keeps them doesn't count.
//!
//! **Invariant:** pure: it knows no store.

use aion_schemas::schema::{Field, Kind, Schema};
use anyhow::Context;
use arrow::{
    array::{Array, ArrayRef, AsArray, types},
    compute::cast,
    datatypes::{DataType, TimeUnit},
    record_batch::RecordBatch,
};

/// A row's offset, and the number.
pub(super) type Row = (i64, u128);

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The columns that [`rows`] wants, as SQL names them.
pub(super) fn columns(schema: &Schema) -> String {
    let fields = schema.fields.iter().map(|field| &*field.name);
    let names = std::iter::once("_offset").chain(fields).chain(std::iter::once("_append_time"));
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// Reads rows of those columns.
pub(super) fn rows(schema: &Schema, batch: &RecordBatch) -> anyhow::Result<Vec<Row>> {
    let offsets = cast(batch.column(0), &DataType::Int64).context("read the offsets")?;
    let offsets = offsets.as_primitive::<types::Int64Type>();
    let mut numbers = vec![FNV_OFFSET; batch.num_rows()];
    let kinds =
        schema.fields.iter().map(|field: &Field| field.kind).chain(std::iter::once(Kind::Time));
    for (kind, column) in kinds.zip(&batch.columns()[1..]) {
        add(kind, column, &mut numbers)?;
    }
    Ok(offsets.values().iter().copied().zip(numbers).collect())
}

fn add(kind: Kind, column: &ArrayRef, numbers: &mut [u128]) -> anyhow::Result<()> {
    let plain = match kind {
        Kind::Text | Kind::Object => DataType::Utf8,
        Kind::Bytes => DataType::Binary,
        Kind::Integer => DataType::Int64,
        Kind::Number => DataType::Float64,
        Kind::Boolean => DataType::Boolean,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    };
    let column = cast(column, &plain).with_context(|| format!("read a column as {plain}"))?;
    let each = |numbers: &mut [u128], write: &dyn Fn(usize, &mut u128)| {
        for (row, number) in numbers.iter_mut().enumerate() {
            if column.is_null(row) {
                mix(number, &[0]);
            } else {
                mix(number, &[1]);
                write(row, number);
            }
        }
    };
    let long = |number: &mut u128, bytes: &[u8]| {
        mix(number, &(bytes.len() as u64).to_le_bytes());
        mix(number, bytes);
    };
    match kind {
        Kind::Text | Kind::Object => {
            let texts = column.as_string::<i32>();
            each(numbers, &|row, number| long(number, texts.value(row).as_bytes()));
        }
        Kind::Bytes => {
            let bytes = column.as_binary::<i32>();
            each(numbers, &|row, number| long(number, bytes.value(row)));
        }
        Kind::Integer => {
            let values = column.as_primitive::<types::Int64Type>();
            each(numbers, &|row, number| mix(number, &values.value(row).to_le_bytes()));
        }
        Kind::Number => {
            let values = column.as_primitive::<types::Float64Type>();
            each(numbers, &|row, number| mix(number, &(values.value(row) + 0.0).to_le_bytes()));
        }
        Kind::Boolean => {
            let values = column.as_boolean();
            each(numbers, &|row, number| mix(number, &[u8::from(values.value(row))]));
        }
        Kind::Time => {
            let values = column.as_primitive::<types::TimestampMicrosecondType>();
            each(numbers, &|row, number| mix(number, &values.value(row).to_le_bytes()));
        }
    }
    Ok(())
}

fn mix(number: &mut u128, bytes: &[u8]) {
    for byte in bytes {
        *number = (*number ^ u128::from(*byte)).wrapping_mul(FNV_PRIME);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use arrow::array::{
        DictionaryArray, Float64Array, Int32Array, Int64Array, StringArray,
        TimestampMicrosecondArray, TimestampMillisecondArray,
    };

    use super::*;

    fn field(name: &str, kind: Kind) -> Field {
        Field {
            name: name.into(),
            kind,
            required: false,
            few_values: false,
            doc: "".into(),
            aliases: Vec::new(),
            default: None,
        }
    }

    fn schema() -> Schema {
        let fields = vec![field("a", Kind::Text), field("n", Kind::Number), field("t", Kind::Time)];
        Schema { name: "s".into(), doc: "".into(), fields, event_time: 2 }
    }

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let names = ["_offset", "a", "n", "t", "_append_time"];
        RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap()
    }

    fn micros(values: Vec<i64>) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    }

    #[test]
    fn the_type_and_the_order_in_which_a_store_has_rows_dont_count() {
        let one = batch(vec![
            Arc::new(Int64Array::from(vec![1, 2])),
            Arc::new(StringArray::from(vec![Some("x"), None])),
            Arc::new(Float64Array::from(vec![0.0, 1.5])),
            micros(vec![7000, 8000]),
            micros(vec![9000, 9000]),
        ]);
        let texts: DictionaryArray<types::Int32Type> = [None, Some("x")].into_iter().collect();
        let millis = TimestampMillisecondArray::from(vec![8, 7]).with_timezone("UTC");
        let two = batch(vec![
            Arc::new(Int32Array::from(vec![2, 1])),
            Arc::new(texts),
            Arc::new(Float64Array::from(vec![1.5, -0.0])),
            Arc::new(millis),
            micros(vec![9000, 9000]),
        ]);
        let (one, mut two) = (rows(&schema(), &one).unwrap(), rows(&schema(), &two).unwrap());
        two.reverse();
        assert_eq!(one, two);
    }

    #[test]
    fn every_value_counts_and_null_is_none() {
        let number = |text: Option<&str>, n: f64, at: i64| {
            let one = batch(vec![
                Arc::new(Int64Array::from(vec![1])),
                Arc::new(StringArray::from(vec![text])),
                Arc::new(Float64Array::from(vec![n])),
                micros(vec![at]),
                micros(vec![9000]),
            ]);
            rows(&schema(), &one).unwrap()[0].1
        };
        let all = [
            number(Some("x"), 1.0, 7),
            number(None, 1.0, 7),
            number(Some(""), 1.0, 7),
            number(Some("x"), 1.5, 7),
            number(Some("x"), 1.0, 8),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    /// FNV-1a as others compute it: of nothing, and of `a`.
    #[test]
    fn it_is_fnv() {
        let mut number = FNV_OFFSET;
        mix(&mut number, b"a");
        assert_eq!(number, 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
