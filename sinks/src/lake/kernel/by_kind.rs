//! The file of a checkpoint, with row groups for each kind of action.
//!
//! For a week a table remembers each file that was taken out of it, so after some thousand commits and their
//! compaction most of a checkpoint are `remove` actions. Nobody needs them but who vacuums, and who opens a table or asks it
//! something needs one other kind at a time. Lying among the others, they are decoded each time. In row groups of their own
//! they are passed over: a group's statistics say that nothing in it is an `add`. So opening and a query take what
//! the table is, not how long its history is.
//!
//! **Invariant:** every action that the kernel gives is in the file once. In which order means nothing to a reader.

use arrow::{
    array::{AsArray, BooleanArray},
    compute::{and, filter_record_batch, is_not_null, not, or},
    datatypes::SchemaRef,
    error::ArrowError,
    record_batch::RecordBatch,
};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_writer::{
            ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
        },
    },
    basic::Compression,
    errors::Result,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
};

/// Rows of a group, at most.
const GROUP_ROWS: usize = 1 << 20;

/// A file that is being written.
pub(super) struct ByKind {
    file: SerializedFileWriter<Vec<u8>>,
    columns: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// What is neither added nor removed: few rows, which everybody reads.
    others: Group,
    adds: Group,
    removes: Group,
}

/// A row group of one kind: encoded as rows come, and put into the file when it is full.
#[derive(Default)]
struct Group {
    writers: Vec<ArrowColumnWriter>,
    rows: usize,
}

impl ByKind {
    /// Begins a file whose rows are like these.
    pub(super) fn new(schema: SchemaRef) -> Result<ByKind> {
        // Snappy: the one compression that every reader of checkpoints has.
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let options = ArrowWriterOptions::new().with_properties(properties);
        let writer =
            ArrowWriter::try_new_with_options(Vec::new(), SchemaRef::clone(&schema), options)?;
        let (file, columns) = writer.into_serialized_writer()?;
        let [others, adds, removes] = [Group::default(), Group::default(), Group::default()];
        Ok(ByKind { file, columns, schema, others, adds, removes })
    }

    /// Takes rows of any kinds.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let (added, removed) = (has(rows, "add")?, has(rows, "remove")?);
        let other = not(&or(&added, &removed)?)?;
        let kinds =
            [(&mut self.others, other), (&mut self.adds, added), (&mut self.removes, removed)];
        for (group, kind) in kinds {
            let rows = filter_record_batch(rows, &kind)?;
            group.write(&rows, &self.schema, &self.columns)?;
            if group.rows >= GROUP_ROWS {
                group.finish(&mut self.file)?;
            }
        }
        Ok(())
    }

    /// The bytes of the whole file.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        for group in [&mut self.others, &mut self.adds, &mut self.removes] {
            group.finish(&mut self.file)?;
        }
        self.file.into_inner()
    }
}

impl Group {
    fn write(
        &mut self,
        rows: &RecordBatch,
        schema: &SchemaRef,
        columns: &ArrowRowGroupWriterFactory,
    ) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if self.writers.is_empty() {
            // Its place in the file matters to encryption alone.
            self.writers = columns.create_column_writers(0)?;
        }
        let mut writers = self.writers.iter_mut();
        for (field, column) in schema.fields().iter().zip(rows.columns()) {
            for (leaf, writer) in compute_leaves(field, column)?.iter().zip(&mut writers) {
                writer.write(leaf)?;
            }
        }
        self.rows += rows.num_rows();
        Ok(())
    }

    fn finish(&mut self, file: &mut SerializedFileWriter<Vec<u8>>) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = file.next_row_group()?;
        for writer in std::mem::take(self).writers {
            writer.close()?.append_to_row_group(&mut group)?;
        }
        group.close()?;
        Ok(())
    }
}

/// Which rows are actions of that kind: those of files have a path.
fn has(rows: &RecordBatch, kind: &str) -> Result<BooleanArray> {
    let action = rows.column_by_name(kind).and_then(|column| column.as_struct_opt());
    let path = action.and_then(|action| action.column_by_name("path"));
    let (Some(action), Some(path)) = (action, path) else {
        return Err(ArrowError::SchemaError(format!("no {kind}.path in a checkpoint")).into());
    };
    Ok(and(&is_not_null(action)?, &is_not_null(path)?)?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use arrow::{
        array::{Array, ArrayRef, Int64Array, StringArray, StructArray},
        datatypes::{DataType, Field, Fields},
    };
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    /// Rows of a kind each: the path of a file that is added or removed, or else a transaction.
    fn rows(of: &[(&str, &str)]) -> RecordBatch {
        let path = Fields::from(vec![Field::new("path", DataType::Utf8, true)]);
        let files = |kind: &str| -> ArrayRef {
            let paths = of.iter().map(|(one, path)| (*one == kind).then_some(*path));
            let paths: StringArray = paths.collect();
            let valid = paths.nulls().cloned();
            Arc::new(StructArray::new(path.clone(), vec![Arc::new(paths)], valid))
        };
        let txns = of.iter().map(|(kind, at)| (*kind == "txn").then(|| at.parse().unwrap()));
        let txns = Arc::new(txns.collect::<Int64Array>()) as ArrayRef;
        let columns = [("txn", txns), ("add", files("add")), ("remove", files("remove"))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, of)| (name, of, true)))
            .unwrap()
    }

    /// Each row group of a file: how many of its rows are transactions, added files, removed files.
    fn groups(file: &Bytes) -> Vec<[i64; 3]> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap();
        let count = |group: &parquet::file::metadata::RowGroupMetaData| {
            [0, 1, 2].map(|column| {
                let nulls = group.column(column).statistics().unwrap().null_count_opt().unwrap();
                group.num_rows() - nulls as i64
            })
        };
        builder.metadata().row_groups().iter().map(count).collect()
    }

    fn written(batches: &[RecordBatch]) -> Bytes {
        let mut file = ByKind::new(batches[0].schema()).unwrap();
        for rows in batches {
            file.write(rows).unwrap();
        }
        file.finish().unwrap().into()
    }

    #[test]
    fn what_comes_mixed_lies_apart_and_is_whole() {
        let first = [("add", "a"), ("txn", "1"), ("remove", "x"), ("remove", "y")];
        let file = written(&[rows(&first), rows(&[("txn", "2"), ("add", "b")])]);
        assert_eq!(groups(&file), [[2, 0, 0], [0, 2, 0], [0, 0, 2]]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let found: Vec<RecordBatch> = reader.map(|rows| rows.unwrap()).collect();
        let wanted = rows(&[
            ("txn", "1"),
            ("txn", "2"),
            ("add", "a"),
            ("add", "b"),
            ("remove", "x"),
            ("remove", "y"),
        ]);
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn a_kind_that_is_not_there_has_no_group() {
        let file = written(&[rows(&[("txn", "1")]), rows(&[("add", "a")])]);
        assert_eq!(groups(&file), [[1, 0, 0], [0, 1, 0]]);
    }

    #[test]
    fn a_group_that_is_full_is_followed_by_another() {
        let half = rows(&vec![("remove", "x"); GROUP_ROWS / 2]);
        let file = written(&[half.clone(), rows(&[("add", "a")]), half, rows(&[("remove", "y")])]);
        assert_eq!(groups(&file), [[0, 0, GROUP_ROWS as i64], [0, 1, 0], [0, 0, 1]]);
    }

    #[test]
    fn a_file_without_its_kinds_is_refused() {
        let rows = rows(&[("txn", "1")]).project(&[0, 1]).unwrap();
        assert!(ByKind::new(rows.schema()).unwrap().write(&rows).is_err());
    }
}
