//! What a row says, as one number: the same from every store ([`aion_analytics::digest`]). Of an event that is each field
//! as the contract has them, then its append time.

use aion_analytics::digest::Layout;
use aion_schemas::schema::{Kind, Schema};
use anyhow::Context;
use arrow::{
    array::{AsArray, types},
    compute::cast,
    datatypes::DataType,
    record_batch::RecordBatch,
};

/// A row's offset, and the number.
pub(super) type Row = (i64, u128);

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
    let kinds = schema.fields.iter().map(|field| field.kind).chain(std::iter::once(Kind::Time));
    let numbers = Layout::new(kinds).numbers(&batch.columns()[1..]).context("read the rows")?;
    Ok(offsets.values().iter().copied().zip(numbers).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use aion_schemas::schema::Field;
    use arrow::array::{
        ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, StringArray,
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
}
