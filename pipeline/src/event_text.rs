//! A row of the contract as the JSON that its event was.

use std::fmt::Write as _;

use aion_schemas::{
    log::Timestamp,
    schema::{Kind, Schema},
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float64Type, Int64Type, TimestampMicrosecondType},
};

use crate::job::times::rfc3339;

/// An event of the contract as JSON text, its fields in the contract's order.
pub(crate) fn event_text(schema: &Schema, row: &RecordBatch) -> String {
    let mut text = String::from("{");
    for (field, column) in schema.fields.iter().zip(row.columns()) {
        if column.is_null(0) {
            continue;
        }
        if text.len() > 1 {
            text.push(',');
        }
        let _ok = write!(text, "\"{}\":", field.name);
        push_value(&mut text, field.kind, column.as_ref());
    }
    text + "}"
}

fn push_value(text: &mut String, kind: Kind, column: &dyn Array) {
    let quoted = |value: &str| serde_json::Value::from(value).to_string();
    let value = match kind {
        Kind::Text => quoted(column.as_string::<i32>().value(0)),
        Kind::Object => column.as_string::<i32>().value(0).to_owned(),
        Kind::Integer => column.as_primitive::<Int64Type>().value(0).to_string(),
        Kind::Number => format!("{:?}", column.as_primitive::<Float64Type>().value(0)),
        Kind::Boolean => column.as_boolean().value(0).to_string(),
        Kind::Time => {
            let time = column.as_primitive::<TimestampMicrosecondType>().value(0);
            quoted(&rfc3339(Timestamp(time)))
        }
        Kind::Bytes => quoted(&text_of(column.as_binary::<i32>().value(0))),
    };
    text.push_str(&value);
}

/// Text as it is, other bytes in hexadecimal.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
            let _ok = write!(text, "{byte:02x}");
            text
        }),
    }
}
