//! Rows as bytes, as they come.
//!
//! | form | media type | shape |
//! |---|---|---|
//! | `json` | `application/json` | `{"columns": [{"name", "type"}], "rows": [{..}, ..], "count": n}` |
//! | `jsonl` | `application/x-ndjson` | one object for each row |
//! | `csv` | `text/csv` | RFC 4180 with a header; null is empty, empty text is `""` |
//! | `arrow` | `application/vnd.apache.arrow.stream` | Arrow IPC stream |
//! | `parquet` | `application/vnd.apache.parquet` | one Parquet file |
//!
//! Text is plain `Utf8` in Arrow and Parquet: not every reader knows views.

use std::{io::Write, sync::Arc};

use aion_analytics::{parquet::ParquetStream, tables::sql_type};
use arrow::{
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::StreamWriter,
    json::{WriterBuilder, writer::LineDelimited},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use serde::Deserialize;
use serde_json::json;

use crate::commands::sql::format::Csv;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// One JSON document.
    Json,
    /// JSON lines.
    Jsonl,
    /// Comma-separated values.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

const MEDIA_TYPES: [(&str, Form); 5] = [
    ("application/json", Form::Json),
    ("application/x-ndjson", Form::Jsonl),
    ("text/csv", Form::Csv),
    ("application/vnd.apache.arrow.stream", Form::Arrow),
    ("application/vnd.apache.parquet", Form::Parquet),
];

impl Form {
    /// The first form that an `Accept` header names.
    pub(super) fn accepted(accept: &str) -> Option<Form> {
        accept.split(',').find_map(|one| {
            let kind = one.split(';').next().unwrap_or_default().trim();
            MEDIA_TYPES.iter().find(|(name, _)| *name == kind).map(|(_, form)| *form)
        })
    }

    /// Its name in headers.
    pub(super) fn media_type(self) -> &'static str {
        MEDIA_TYPES.iter().find(|(_, form)| *form == self).map_or("", |(name, _)| name)
    }
}

/// Writes one answer.
pub(super) struct Encoder {
    kind: Kind,
    /// The columns as they are written.
    schema: SchemaRef,
    rows: u64,
}

enum Kind {
    Json { head: Option<Vec<u8>> },
    Jsonl,
    Csv(Csv),
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<ParquetStream>),
}

impl Encoder {
    /// For an answer with these columns.
    pub(super) fn new(form: Form, columns: &SchemaRef) -> Result<Encoder, ArrowError> {
        let schema = Arc::new(plain(columns));
        let kind = match form {
            Form::Json => Kind::Json { head: Some(head(columns)) },
            Form::Jsonl => Kind::Jsonl,
            Form::Csv => Kind::Csv(Csv::new(Arc::clone(columns))),
            Form::Arrow => Kind::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema)?)),
            Form::Parquet => Kind::Parquet(Box::new(ParquetStream::new(&schema)?)),
        };
        Ok(Encoder { kind, schema, rows: 0 })
    }

    /// Appends rows to `out`.
    pub(super) fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        match &mut self.kind {
            Kind::Json { head } => {
                match head.take() {
                    Some(head) => out.extend(head),
                    None => out.extend(b","),
                }
                // Each row is a line, and no line feed stands inside one.
                let lines = lines(rows)?;
                for (at, row) in lines.trim_ascii_end().split(|byte| *byte == b'\n').enumerate() {
                    let between: &[u8] = if at == 0 { b"\n" } else { b",\n" };
                    out.extend(between);
                    out.extend(row);
                }
            }
            Kind::Jsonl => out.extend(lines(rows)?),
            Kind::Csv(csv) => {
                let mut text = String::new();
                csv.rows(rows, &mut text)?;
                out.extend(text.into_bytes());
            }
            Kind::Arrow(writer) => {
                writer.write(&shaped(rows, &self.schema)?)?;
                out.append(writer.get_mut());
            }
            Kind::Parquet(writer) => writer.rows(&shaped(rows, &self.schema)?, out)?,
        }
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Appends what ends an answer.
    pub(super) fn end(self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        match self.kind {
            Kind::Json { head } => {
                out.extend(head.unwrap_or_default());
                // Writing to a Vec can't fail.
                writeln!(out, "],\"count\":{}}}", self.rows).ok();
            }
            Kind::Jsonl => {}
            Kind::Csv(mut csv) => {
                let mut text = String::new();
                csv.end(&mut text);
                out.extend(text.into_bytes());
            }
            Kind::Arrow(mut writer) => {
                writer.finish()?;
                out.append(writer.get_mut());
            }
            Kind::Parquet(writer) => writer.end(out)?,
        }
        Ok(())
    }
}

/// The beginning of a JSON document, as far as the first row.
fn head(columns: &Schema) -> Vec<u8> {
    let column =
        |field: &Arc<Field>| json!({"name": field.name(), "type": sql_type(field.data_type())});
    let columns: Vec<_> = columns.fields().iter().map(column).collect();
    let mut text = json!({ "columns": columns }).to_string();
    text.pop();
    text.push_str(",\"rows\":[");
    text.into_bytes()
}

fn lines(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut lines = Vec::new();
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, LineDelimited>(&mut lines);
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    Ok(lines)
}

/// The same columns with plain text.
fn plain(columns: &Schema) -> Schema {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => Field::new(field.name(), DataType::Utf8, field.is_nullable()),
        DataType::BinaryView => Field::new(field.name(), DataType::Binary, field.is_nullable()),
        _ => field.as_ref().clone(),
    };
    Schema::new(columns.fields().iter().map(field).collect::<Vec<_>>())
}

fn shaped(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let pairs = rows.columns().iter().zip(schema.fields());
    let columns = pairs.map(|(column, field)| cast(column, field.data_type()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use arrow::{
        array::{Int64Array, StringViewArray},
        ipc::reader::StreamReader,
    };
    use serde_json::Value;

    use super::*;

    fn batch() -> RecordBatch {
        let columns: [(&str, arrow::array::ArrayRef); 2] = [
            ("n", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("t", Arc::new(StringViewArray::from(vec![Some("a\nb,\u{0}"), Some("")]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn encoded(form: Form, batches: &[RecordBatch]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(form, &batch().schema()).unwrap();
        for batch in batches {
            encoder.rows(batch, &mut out).unwrap();
        }
        encoder.end(&mut out).unwrap();
        out
    }

    #[test]
    fn json_is_one_document() {
        let whole: Value =
            serde_json::from_slice(&encoded(Form::Json, &[batch(), batch()])).unwrap();
        assert_eq!(whole["columns"][1], json!({"name": "t", "type": "varchar"}));
        assert_eq!(whole["rows"][0], json!({"n": 1, "t": "a\nb,\u{0}"}));
        assert_eq!(whole["rows"][3], json!({"n": null, "t": ""}));
        assert_eq!(whole["count"], 4);
        let empty: Value = serde_json::from_slice(&encoded(Form::Json, &[])).unwrap();
        assert_eq!((&empty["rows"], &empty["count"]), (&json!([]), &json!(0)));
    }

    #[test]
    fn lines_and_csv_are_text() {
        let text = |form| String::from_utf8(encoded(form, &[batch()])).unwrap();
        assert_eq!(text(Form::Jsonl).lines().count(), 2);
        assert_eq!(text(Form::Csv), "n,t\n1,\"a\nb,\u{0}\"\n,\"\"\n");
        assert_eq!(String::from_utf8(encoded(Form::Csv, &[])).unwrap(), "n,t\n");
    }

    #[test]
    fn an_arrow_stream_can_be_read_back() {
        let bytes = encoded(Form::Arrow, &[batch(), batch()]);
        let read = StreamReader::try_new(&bytes[..], None).unwrap();
        assert_eq!(read.schema().field(1).data_type(), &DataType::Utf8);
        assert_eq!(read.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 4);
    }

    #[test]
    fn the_first_form_that_is_accepted_is_taken() {
        assert_eq!(Form::accepted("text/html, text/csv;q=0.9"), Some(Form::Csv));
        assert_eq!(Form::accepted("*/*"), None);
        assert_eq!(Form::Parquet.media_type(), "application/vnd.apache.parquet");
    }
}
