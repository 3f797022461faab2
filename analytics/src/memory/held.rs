//! Counts what passes to an operator that keeps it and doesn't count it itself, until that operator lets go of its input.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{Array, ArrayData},
    buffer::Buffer,
    datatypes::DataType,
    record_batch::RecordBatch,
};
use datafusion::{
    common::Result,
    execution::{
        SendableRecordBatchStream,
        memory_pool::{MemoryConsumer, MemoryPool},
    },
};
use futures::{Stream, StreamExt};

use super::sizes::of_rows;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The texts that views stand for; whoever keeps the views counts those alone.
    TextOfViews,
    /// Everything.
    All,
    /// For each row, all rows so far.
    Squared,
}

/// The same rows, counted.
pub(super) fn counted(
    rows: SendableRecordBatchStream,
    what: What,
    pool: &Arc<dyn MemoryPool>,
) -> impl Stream<Item = Result<RecordBatch>> + Send + use<> {
    let held = MemoryConsumer::new("rows that are kept until all are seen").register(pool);
    let (mut known, mut so_far) = (HashSet::new(), 0);
    rows.map(move |batch| {
        let batch = batch?;
        let more = if what == What::Squared {
            so_far += of_rows(&batch);
            batch.num_rows().saturating_mul(so_far)
        } else {
            let columns = batch.columns().iter();
            let views_only = what == What::TextOfViews;
            columns.map(|column| buffers(&column.to_data(), views_only, &mut known)).sum()
        };
        held.try_grow(more)?;
        Ok(batch)
    })
}

/// The bytes of buffers that aren't known yet. Batches share them: a page of text is one buffer.
fn buffers(values: &ArrayData, views_only: bool, known: &mut HashSet<usize>) -> usize {
    let is_view = matches!(values.data_type(), DataType::Utf8View | DataType::BinaryView);
    let skipped = match (views_only, is_view) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => values.buffers().len(),
    };
    let mut is_new = |buffer: &&Buffer| known.insert(buffer.data_ptr().as_ptr() as usize);
    let here: usize = values.buffers()[skipped..]
        .iter()
        .filter(|buffer| is_new(buffer))
        .map(Buffer::capacity)
        .sum();
    let below = values.child_data().iter().map(|child| buffers(child, views_only, known));
    here + below.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn a_buffer_that_batches_share_is_counted_once() {
        let text = StringViewArray::from(vec!["a text that is no part of its view"; 3]);
        let mut known = HashSet::new();
        let first = buffers(&text.slice(0, 1).to_data(), true, &mut known);
        assert!(first >= 34);
        assert_eq!(buffers(&text.slice(1, 2).to_data(), true, &mut known), 0);
        let numbers = Int64Array::from(vec![1, 2]);
        assert_eq!(buffers(&numbers.to_data(), true, &mut known), 0);
        assert!(buffers(&numbers.to_data(), false, &mut known) >= 16);
    }
}
