//! The columns of a table: the fields of its events, the place in the log, the ledger.

use super::Column;
use crate::schema::{Field, Kind, POSITION_COLUMNS, Schema};

/// What a map column's name has after that of the object whose members it shows.
pub const MAP_SUFFIX: &str = "_map";

/// The columns that a sink adds to every row of a batch, after `POSITION_COLUMNS`: the ledger.
///
/// | column | meaning |
/// |---|---|
/// | `_batch_first` | the offset that the table wanted next when the batch was written |
/// | `_batch_last` | the last offset that the batch covers |
/// | `_batch_rows` | the number of its rows |
/// | `_batch_day` | the table partition that it lies in |
/// | `_lease` | until when the server may take it |
pub const LEDGER_COLUMNS: [&str; 5] =
    ["_batch_first", "_batch_last", "_batch_rows", "_batch_day", "_lease"];

const TIME: &str = "DateTime64(6, 'UTC')";
const TIMES: &str = "DoubleDelta, ZSTD(1)";
const PLAIN: &str = "ZSTD(1)";
const LONG_TEXT: &str = "ZSTD(3)";

/// All columns of a schema's table, in order.
pub(super) fn all(schema: &Schema) -> Vec<Column> {
    let fields = schema.fields.iter().flat_map(of_field);
    fields.chain(position()).chain(ledger()).collect()
}

fn of_field(field: &Field) -> Vec<Column> {
    let (base, codec) = match field.kind {
        Kind::Text => ("String", PLAIN),
        Kind::Integer => ("Int64", "T64, ZSTD(1)"),
        Kind::Number if field.required => ("Float64", "Gorilla, ZSTD(1)"),
        Kind::Number => ("Float64", PLAIN),
        Kind::Boolean => ("Bool", PLAIN),
        Kind::Time => (TIME, TIMES),
        Kind::Object | Kind::Bytes => ("String", LONG_TEXT),
    };
    let mut kind = if field.required { base.to_owned() } else { format!("Nullable({base})") };
    if field.few_values {
        kind = format!("LowCardinality({kind})");
    }
    let mut columns = vec![sent(&field.name, &kind, codec, &field.doc)];
    if field.kind == Kind::Object {
        columns.push(members(field));
    }
    columns
}

/// The members of an object, for questions by name: `labels_map['code']`.
fn members(field: &Field) -> Column {
    let kind = "Map(LowCardinality(String), String)";
    let name = &field.name;
    // Where there is none, as in most rows, nothing is read as JSON.
    let members = if field.required {
        format!("JSONExtract({name}, '{kind}')")
    } else {
        let read = format!("JSONExtract(assumeNotNull({name}), '{kind}')");
        format!("if({name} IS NULL, CAST(map(), '{kind}'), {read})")
    };
    Column {
        name: format!("{name}{MAP_SUFFIX}"),
        kind: kind.to_owned(),
        materialized: Some(members),
        codec: PLAIN,
        doc: format!("The members of {name}, values as text."),
    }
}

fn position() -> Vec<Column> {
    let [topic_id, epoch, partition, offset, append_time, origin] = POSITION_COLUMNS;
    vec![
        sent(topic_id, "LowCardinality(String)", PLAIN, "Id of the topic's incarnation."),
        sent(epoch, "Int32", PLAIN, "Leader epoch of the record; -1 where it is not known."),
        sent(partition, "Int32", PLAIN, "Kafka partition."),
        sent(offset, "Int64", "Delta, ZSTD(1)", "Offset of the record in its partition."),
        sent(append_time, TIME, TIMES, "When the broker appended the record to its log."),
        sent(origin, "Nullable(String)", PLAIN, "Of which rejected record the row is the retry."),
    ]
}

fn ledger() -> Vec<Column> {
    let [first, last, rows, day, lease] = LEDGER_COLUMNS;
    vec![
        sent(first, "Int64", PLAIN, "Ledger: the first offset that the batch covers."),
        sent(last, "Int64", PLAIN, "Ledger: the last offset that the batch covers."),
        sent(rows, "UInt32", PLAIN, "Ledger: how many rows the batch was written with."),
        sent(day, "Date", PLAIN, "Ledger: the table partition of the batch."),
        sent(lease, "DateTime('UTC')", PLAIN, "Ledger: until when the batch could be written."),
    ]
}

fn sent(name: &str, kind: &str, codec: &'static str, doc: &str) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        materialized: None,
        codec,
        doc: doc.to_owned(),
    }
}
