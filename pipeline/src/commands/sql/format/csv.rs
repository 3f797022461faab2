//! Comma-separated values, as RFC 4180 has them, with plain line feeds.

use arrow::{datatypes::SchemaRef, error::ArrowError, record_batch::RecordBatch};

use super::cell::Cells;

/// An answer as CSV.
pub(crate) struct Csv {
    schema: SchemaRef,
    headed: bool,
}

impl Csv {
    /// Of these columns.
    pub(crate) fn new(schema: SchemaRef) -> Csv {
        Csv { schema, headed: false }
    }

    /// Adds rows.
    pub(crate) fn rows(&mut self, rows: &RecordBatch, text: &mut String) -> Result<(), ArrowError> {
        self.end(text);
        let columns: Vec<_> =
            rows.columns().iter().map(|column| Cells::new(column)).collect::<Result<_, _>>()?;
        for row in 0..rows.num_rows() {
            line(columns.iter().map(|column| column.text(row)), text);
        }
        Ok(())
    }

    /// Makes sure that the header stands, also over no rows.
    pub(crate) fn end(&mut self, text: &mut String) {
        if !std::mem::replace(&mut self.headed, true) {
            line(self.schema.fields().iter().map(|field| Some(field.name().clone())), text);
        }
    }
}

fn line(values: impl Iterator<Item = Option<String>>, text: &mut String) {
    for (index, value) in values.enumerate() {
        if index > 0 {
            text.push(',');
        }
        match value {
            None => {}
            Some(value) if value.is_empty() || value.contains([',', '"', '\n', '\r']) => {
                text.extend(["\"", &value.replace('"', "\"\""), "\""]);
            }
            Some(value) => text.push_str(&value),
        }
    }
    text.push('\n');
}
