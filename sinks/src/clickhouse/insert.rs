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
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use aion_schemas::log::Offset;
    use arrow::{
        array::StringArray,
        ipc::{MessageHeader, root_as_message},
    };

    use super::*;

    /// Two batches of two rows as they are sent, `status` and `count` being of few values.
    fn stamped() -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("status", DataType::Utf8, true),
            Field::new("count", DataType::Int64, false),
        ]));
        let batch = |ids: [&str; 2], status: [Option<&str>; 2]| {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from(ids.to_vec())),
                Arc::new(StringArray::from(status.to_vec())),
                Arc::new(Int64Array::from(vec![1, 2])),
            ];
            RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
        };
        let batches = [
            batch(["a", "b"], [Some("done"), None]),
            batch(["c", "d"], [Some("done"), Some("failed")]),
        ];
        let few = ["status", "count"].map(str::to_owned);
        let entry = Entry { first: Offset(10), end: Offset(17), rows: 4, day: 20_000, lease: 99 };
        with_ledger(&schema, &batches, &few, &entry).unwrap()
    }

    #[test]
    fn text_of_few_values_is_numbered_and_other_columns_stay() {
        let rows = stamped();
        let numbered = rows.column(1).as_dictionary::<types::Int32Type>();
        assert_eq!(numbered.values().len(), 2, "each text once");
        let texts = cast(rows.column(1), &DataType::Utf8).unwrap();
        let texts: Vec<Option<&str>> = texts.as_string::<i32>().iter().collect();
        assert_eq!(texts, [Some("done"), None, Some("done"), Some("failed")]);
        let schema = rows.schema();
        assert!(schema.field(1).is_nullable(), "as the column was");
        let ids: Vec<Option<&str>> = rows.column(0).as_string::<i32>().iter().collect();
        assert_eq!(ids, ["a", "b", "c", "d"].map(Some));
        assert_eq!(rows.column(2).as_primitive::<types::Int64Type>().values()[..], [1, 2, 1, 2]);
    }

    #[test]
    fn each_row_carries_the_range_of_its_batch() {
        let rows = stamped();
        assert_eq!((rows.num_rows(), rows.num_columns()), (4, 3 + LEDGER_COLUMNS.len()));
        let ledger =
            rows.columns()[3..].iter().map(|column| cast(column, &DataType::Int64).unwrap());
        let ledger: Vec<Vec<i64>> = ledger
            .map(|column| column.as_primitive::<types::Int64Type>().values().to_vec())
            .collect();
        let wanted = [10, 16, 4, 20_000, 99].map(|value| vec![value; 4]);
        assert_eq!(ledger, wanted, "the last offset is the one before the end");
        assert!(rows.schema().fields()[3..].iter().all(|field| !field.is_nullable()));
    }

    #[test]
    fn the_statement_names_every_column_that_is_sent() {
        let wanted = "INSERT INTO aion.tasks (id, status, count, _batch_first, _batch_last, _batch_rows, _batch_day, \
                      _lease) FORMAT ArrowStream";
        assert_eq!(statement("aion", "tasks", &stamped().schema()), wanted);
    }

    /// The messages of a stream: of what kind each is, and how the columns of rows are compressed.
    fn messages(mut stream: &[u8]) -> Vec<(MessageHeader, Option<CompressionType>)> {
        let mut found = Vec::new();
        loop {
            let (head, rest) = stream.split_at(8);
            assert_eq!(head[..4], [0xff; 4], "each begins so");
            let length = u32::from_le_bytes(head[4..].try_into().unwrap()) as usize;
            if length == 0 {
                return found;
            }
            let (message, rest) = rest.split_at(length);
            let message = root_as_message(message).unwrap();
            let rows = message.header_as_record_batch();
            let codec = rows.and_then(|rows| Some(rows.compression()?.codec()));
            found.push((message.header_type(), codec));
            stream = &rest[message.bodyLength() as usize..];
        }
    }

    #[test]
    fn the_body_is_one_batch_of_compressed_columns_and_has_all_rows() {
        let rows = stamped();
        for blocks in [1, 2] {
            let stream = body(&rows, blocks).unwrap();
            let mut messages = messages(&stream);
            assert_eq!(messages.remove(0).0, MessageHeader::Schema);
            messages.retain(|(kind, _)| *kind == MessageHeader::RecordBatch);
            let compressed = (MessageHeader::RecordBatch, Some(CompressionType::LZ4_FRAME));
            assert_eq!(messages, vec![compressed; blocks], "two for a negative control only");
            let read = batches(&stream).unwrap();
            assert_eq!(concat_batches(&rows.schema(), &read).unwrap(), rows);
        }
    }

    #[test]
    fn days_begin_at_midnight_utc() {
        assert_eq!(day_of(0), 0);
        assert_eq!(day_of(DAY_US - 1), 0);
        assert_eq!(day_of(DAY_US), 1);
        assert_eq!(day_of(-1), -1);
    }
}
