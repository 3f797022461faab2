//! Dead letters: records that can't become rows, kept whole in `aion.dead-letters`.
//!
//! The key is `job:topic id:partition:offset`, the value the record's own bytes, and everything known about
//! the refusal stands in headers: so a letter can be looked into, and sent again as it was. A record is
//! written again when the job died before its mark passed, so readers count distinct keys; where a row and
//! a letter exist for one offset, the row counts.
//!
//! | header | what |
//! |---|---|
//! | `job`, `topic`, `topic_id`, `partition`, `offset` | where it stood |
//! | `reason` | a short word |
//! | `field`, `detail` | what was wrong, where known |
//! | `schema_id` | the writer's schema, where the value names one |
//! | `append_time`, `rejected_at` | RFC 3339, UTC |
//! | `key` | the record's own key, where it had one |
//! | `origin`, `origin_append_time` | of a retry that is rejected again: the record that was rejected first |

use std::sync::Arc;

use aion_kafka::Record;
use aion_schemas::{
    decode::{MAX_BATCH_BYTES, Outcome},
    log::{Partition, Timestamp},
    schema::Schema,
};
use arrow::{
    array::{
        ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, StringBuilder,
        TimestampMicrosecondBuilder, new_null_array,
    },
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    journal::{Entry, Ledger},
    kafka::rows::Rows,
    retries,
    source::Rejected,
    times::{parse_rfc3339, rfc3339},
};

/// The record for the dead-letter topic.
pub(super) fn entry(
    job: &str,
    partition: &Partition,
    rejected: Rejected,
    rejected_at: Timestamp,
) -> Entry {
    let Partition { stream, number } = partition;
    let text = |name: &'static str, value: String| (name, Bytes::from(value));
    let mut headers = vec![
        text("job", job.to_owned()),
        text("topic", stream.topic.to_string()),
        text("topic_id", stream.id.to_string()),
        text("partition", number.to_string()),
        text("offset", rejected.offset.to_string()),
        text("reason", rejected.reason.to_owned()),
    ];
    headers.extend(rejected.field.map(|field| text("field", field.to_string())));
    if !rejected.detail.is_empty() {
        headers.push(text("detail", rejected.detail));
    }
    headers.extend(rejected.schema_id.map(|id| text("schema_id", id.to_string())));
    headers.push(text("append_time", rfc3339(rejected.append_time)));
    headers.push(text("rejected_at", rfc3339(rejected_at)));
    headers.extend(rejected.key.map(|key| ("key", key)));
    headers.extend(rejected.retry.iter().flat_map(retries::headers));
    Entry {
        ledger: Ledger::DeadLetters,
        key: format!("{job}:{}:{number}:{}", stream.id, rejected.offset),
        value: rejected.value,
        headers,
    }
}

/// The decoder of the dead-letter topic itself: headers become columns, the value stays bytes.
///
/// **Invariant:** it rejects nothing, whatever stands in the topic: a dead letter of a dead letter would
/// go round for ever. What a record lacks is empty, 0, or the record's own place and time.
pub(super) struct DeadLetterRows {
    schema: SchemaRef,
    /// One for each field of the contract, then those of the position.
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    epochs: Int32Builder,
    offsets: Int64Builder,
    append_times: TimestampMicrosecondBuilder,
}

/// A column in the making: how it is called in the headers, whether it may be null, its values.
struct Column {
    name: Arc<str>,
    required: bool,
    values: Values,
}

enum Values {
    Text(StringBuilder),
    Integer(Int64Builder),
    Time(TimestampMicrosecondBuilder),
    Bytes(BinaryBuilder),
}

/// A header's time is believed this far from the record's own, as any event time is.
const MAX_AHEAD_MICROS: i64 = aion_schemas::decode::MAX_AHEAD_MICROS;

/// What a row takes besides its bytes.
const ROW_BYTES: usize = 128;

impl DeadLetterRows {
    /// A decoder for the catalog's dead-letter schema.
    pub(super) fn new(schema: &Schema) -> DeadLetterRows {
        let column = |field: &aion_schemas::schema::Field| Column {
            name: Arc::clone(&field.name),
            required: field.required,
            values: match field.kind.arrow() {
                DataType::Int64 => Values::Integer(Int64Builder::new()),
                DataType::Timestamp(..) => Values::Time(utc()),
                DataType::Binary => Values::Bytes(BinaryBuilder::new()),
                _ => Values::Text(StringBuilder::new()),
            },
        };
        DeadLetterRows {
            schema: schema.arrow(),
            columns: schema.fields.iter().map(column).collect(),
            rows: 0,
            bytes: 0,
            epochs: Int32Builder::new(),
            offsets: Int64Builder::new(),
            append_times: utc(),
        }
    }
}

impl Rows for DeadLetterRows {
    fn push(&mut self, record: &Record<'_>) -> Outcome {
        for column in &mut self.columns {
            self.bytes += column.push(record);
        }
        self.epochs.append_value(record.epoch);
        self.offsets.append_value(record.offset.get());
        self.append_times.append_value(record.append_time.0);
        self.rows += 1;
        Outcome::Row
    }

    fn bytes(&self) -> usize {
        self.bytes + self.rows * ROW_BYTES
    }

    /// No column is longer than all of them, and Arrow's offsets have 31 bits.
    fn is_full(&self) -> bool {
        self.bytes >= MAX_BATCH_BYTES
    }

    #[expect(
        clippy::unwrap_used,
        reason = "the arrays are made from the same fields as the schema, whatever the input"
    )]
    fn finish(&mut self, topic_id: Uuid, partition: i32) -> RecordBatch {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Column::finish).collect();
        let (mut ids, mut partitions) = (StringBuilder::new(), Int32Builder::new());
        let id = topic_id.to_string();
        for _ in 0..rows {
            ids.append_value(&id);
            partitions.append_value(partition);
        }
        arrays.push(Arc::new(ids.finish()));
        arrays.push(Arc::new(self.epochs.finish()));
        arrays.push(Arc::new(partitions.finish()));
        arrays.push(Arc::new(self.offsets.finish()));
        arrays.push(Arc::new(self.append_times.finish()));
        arrays.push(new_null_array(&DataType::Utf8, rows));
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).unwrap()
    }

    fn take_unknown_fields(&mut self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

impl Column {
    /// Adds the record's value of this column; answers how many bytes it has.
    fn push(&mut self, record: &Record<'_>) -> usize {
        let header = record.headers.get(&self.name).flatten();
        // Text that isn't UTF-8 is shown as well as it can be: the bytes themselves are in key and value.
        let text = header.map(String::from_utf8_lossy);
        match &mut self.values {
            Values::Text(values) => {
                let text = text.or_else(|| self.required.then(String::new).map(Into::into));
                values.append_option(text.as_deref());
                // More than the header's, where that isn't UTF-8.
                return text.as_deref().map_or(0, str::len);
            }
            Values::Integer(values) => {
                let number = text.and_then(|text| text.parse().ok());
                values.append_option(number.or_else(|| self.required.then_some(0)));
            }
            Values::Time(values) => {
                let near = |time: &i64| {
                    (time - record.append_time.0).abs() <= MAX_AHEAD_MICROS
                        || &*self.name != "rejected_at"
                };
                let time = text.and_then(|text| parse_rfc3339(&text)).map(|time| time.0);
                let own = self.required.then_some(record.append_time.0);
                values.append_option(time.filter(near).or(own));
            }
            Values::Bytes(values) => {
                let bytes = if &*self.name == "value" { record.value } else { header };
                values.append_option(bytes);
                return bytes.map_or(0, <[u8]>::len);
            }
        }
        header.map_or(0, <[u8]>::len)
    }

    fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Text(values) => Arc::new(values.finish()),
            Values::Integer(values) => Arc::new(values.finish()),
            Values::Time(values) => Arc::new(values.finish()),
            Values::Bytes(values) => Arc::new(values.finish()),
        }
    }
}

fn utc() -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::new().with_timezone("UTC")
}

#[cfg(test)]
mod tests;
