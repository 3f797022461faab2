//! A batch as the server takes it: columns with the ledger, then an Arrow stream.
//!
//! **Invariant:** one record batch, so one block, so one part.
//! **Invariant:** the columns are named in the statement: without that the server ignores those that it doesn't know.

use std::sync::Arc;

use aion_schemas::clickhouse::LEDGER_COLUMNS;
use arrow::{
    array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, UInt32Array, types},
    compute::{cast, concat_batches},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::{
        CompressionType,
        reader::StreamReader,
        writer::{IpcWriteOptions, StreamWriter},
    },
};
use bytes::Bytes;

use super::ledger::Entry;

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

/// The UTC day of a time in microseconds, in days since 1970.
pub(super) fn day_of(time_us: i64) -> i32 {
    time_us.div_euclid(DAY_US) as i32
}

/// The first and the greatest append time of rows, in microseconds.
pub(super) fn appended(rows: &RecordBatch) -> Option<(i64, i64)> {
    let times = rows.column_by_name("_append_time")?;
    let times = times.as_primitive_opt::<types::TimestampMicrosecondType>()?.values();
    Some((*times.first()?, *times.iter().max()?))
}

/// The rows of a batch with its ledger entry, columns of few values numbered.
pub(super) fn with_ledger(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    few_values: &[String],
    entry: &Entry,
) -> Result<RecordBatch, ArrowError> {
    let rows = concat_batches(schema, batches)?;
    let count = rows.num_rows();
    let numbered = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    for (field, column) in fields.iter_mut().zip(&mut columns) {
        if few_values.contains(field.name()) && *field.data_type() == DataType::Utf8 {
            *column = cast(column, &numbered)?;
            *field = Arc::new(field.as_ref().clone().with_data_type(numbered.clone()));
        }
    }
    let ledger: [ArrayRef; 5] = [
        Arc::new(Int64Array::from_value(entry.first.get(), count)),
        Arc::new(Int64Array::from_value(entry.end.get() - 1, count)),
        Arc::new(UInt32Array::from_value(entry.rows, count)),
        Arc::new(Date32Array::from_value(entry.day, count)),
        Arc::new(UInt32Array::from_value(entry.lease, count)),
    ];
    for (name, column) in LEDGER_COLUMNS.iter().zip(ledger) {
        fields.push(Arc::new(Field::new(*name, column.data_type().clone(), false)));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// The statement that takes a stream of such rows.
pub(super) fn statement(database: &str, table: &str, schema: &Schema) -> String {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    format!("INSERT INTO {database}.{table} ({}) FORMAT ArrowStream", names.join(", "))
}

/// The rows as an Arrow stream of so many batches, its columns compressed one by one.
pub(super) fn body(rows: &RecordBatch, blocks: usize) -> Result<Bytes, ArrowError> {
    let options =
        IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &rows.schema(), options)?;
    let each = rows.num_rows().div_ceil(blocks.max(1)).max(1);
    for first in (0..rows.num_rows()).step_by(each) {
        writer.write(&rows.slice(first, each.min(rows.num_rows() - first)))?;
    }
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}

/// The batches of an Arrow stream; an answer without rows may be no stream at all.
pub(super) fn batches(stream: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    if stream.is_empty() {
        return Ok(Vec::new());
    }
    StreamReader::try_new(stream, None)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_utc() {
        assert_eq!(day_of(0), 0);
        assert_eq!(day_of(DAY_US - 1), 0);
        assert_eq!(day_of(DAY_US), 1);
        assert_eq!(day_of(-1), -1);
    }
}
