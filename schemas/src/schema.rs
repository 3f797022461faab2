//! What one kind of event looks like: its fields in order, each with its kind.
//!
//! Derived from a JSON Schema file; everything else (Arrow, Avro, DDL, the decoder) is derived from
//! this.

mod avro;
pub(crate) mod json;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef, TimeUnit};

pub use self::avro::NAMESPACE;
pub(crate) use self::avro::OBJECT_NOTE;

/// The columns that every stored row ends in, after those of its schema: where in which log it
/// stood.
///
/// | column | Arrow type | meaning |
/// |---|---|---|
/// | `_topic_id` | Utf8 | id of the topic's incarnation, as a hyphenated uuid |
/// | `_leader_epoch` | Int32 | leader epoch of the record; -1 where it is not known |
/// | `_partition` | Int32 | Kafka partition |
/// | `_offset` | Int64 | offset of the record |
/// | `_append_time` | Timestamp(µs, UTC) | when the broker appended it |
/// | `_origin` | Utf8, null but for retries | the record that was rejected, as [`Origin`](crate::log::Origin) shows it |
pub const POSITION_COLUMNS: [&str; 6] =
    ["_topic_id", "_leader_epoch", "_partition", "_offset", "_append_time", ORIGIN_COLUMN];

/// The column that says of which rejected record a row is the retry.
pub const ORIGIN_COLUMN: &str = "_origin";

/// The type of a field, in an event and in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text. Arrow `Utf8`.
    Text,
    /// A whole number of 64 bits. Arrow `Int64`.
    Integer,
    /// A number. Arrow `Float64`.
    Number,
    /// True or false. Arrow `Boolean`.
    Boolean,
    /// A point in time: RFC 3339 text in JSON, `timestamp-micros` in Avro. Arrow
    /// `Timestamp(µs, "UTC")`.
    Time,
    /// A free object, kept as canonical JSON text (sorted keys, no white space). Arrow `Utf8`.
    Object,
    /// Bytes; internal topics only. Arrow `Binary`.
    Bytes,
}

impl Kind {
    /// The Arrow type of a column of this kind.
    pub fn arrow(self) -> DataType {
        match self {
            Kind::Text | Kind::Object => DataType::Utf8,
            Kind::Integer => DataType::Int64,
            Kind::Number => DataType::Float64,
            Kind::Boolean => DataType::Boolean,
            Kind::Time => time_type(),
            Kind::Bytes => DataType::Binary,
        }
    }
}

/// The Arrow type of every time column: microseconds, UTC.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// One field of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in JSON, Avro and every table.
    pub name: Arc<str>,
    /// Its type.
    pub kind: Kind,
    /// Whether an event without it, or with null in it, is rejected.
    pub required: bool,
    /// Whether its values are few, thousands at most, so that stores may number them: `x-few-values`.
    pub few_values: bool,
    /// One sentence for people, with the unit where there is one.
    pub doc: Arc<str>,
    /// Names that it had before: producers who still write one of them are read as if it were `name`.
    pub aliases: Vec<Arc<str>>,
    /// The value of events that don't speak of it, written before the field was there; of the type that
    /// JSON has for the kind. Only a required field has one: an optional one is null then.
    pub default: Option<serde_json::Value>,
}

/// The fields of one kind of event, in column order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Its name: the file is `events/<name>.schema.json`.
    pub name: Arc<str>,
    /// One sentence for people.
    pub doc: Arc<str>,
    /// The fields, in column order.
    pub fields: Vec<Field>,
    /// Index of the field that says when the event happened.
    pub event_time: usize,
}

impl Schema {
    /// The Arrow schema of a batch: the event's fields, then [`POSITION_COLUMNS`].
    pub fn arrow(&self) -> SchemaRef {
        let fields =
            self.fields.iter().map(|f| ArrowField::new(&*f.name, f.kind.arrow(), !f.required));
        Arc::new(ArrowSchema::new(fields.chain(position_fields()).collect::<Vec<_>>()))
    }

    /// Index of the field of that name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| &*f.name == name)
    }
}

/// The fields of [`POSITION_COLUMNS`], in their order.
pub fn position_fields() -> [ArrowField; 6] {
    let [topic_id, epoch, partition, offset, append_time, origin] = POSITION_COLUMNS;
    [
        ArrowField::new(topic_id, DataType::Utf8, false),
        ArrowField::new(epoch, DataType::Int32, false),
        ArrowField::new(partition, DataType::Int32, false),
        ArrowField::new(offset, DataType::Int64, false),
        ArrowField::new(append_time, time_type(), false),
        ArrowField::new(origin, DataType::Utf8, true),
    ]
}
