//! Batches of text as large as their text is.
//!
//! Sorted text is views into the buffers that it came in: each batch has all of these, and whoever merges batches would count them all
//! for each. So is what a window over rows passes on to a sort. What is left of that is the batch's own text.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, GenericByteViewArray, types::ByteViewType},
    datatypes::{DataType, Schema},
    record_batch::RecordBatch,
};
use datafusion::{common::Result, execution::SendableRecordBatchStream};
use futures::{Stream, StreamExt};

/// Less isn't worth copying the text.
const LOOSE_BYTES: usize = 64 << 10;

/// Whether there is text that could be larger than it is.
pub(super) fn applies(schema: &Schema) -> bool {
    schema.fields().iter().any(|field| is_view(field.data_type()))
}

fn is_view(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8View | DataType::BinaryView)
}

/// The same rows.
pub(super) fn compacted(
    rows: SendableRecordBatchStream,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    rows.map(|batch| {
        let batch = batch?;
        let columns = batch.columns().iter().map(column).collect();
        Ok(RecordBatch::try_new_with_options(
            batch.schema(),
            columns,
            &arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
        )?)
    })
}

fn column(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Utf8View => tight(values.as_string_view()).unwrap_or_else(|| Arc::clone(values)),
        DataType::BinaryView => {
            tight(values.as_binary_view()).unwrap_or_else(|| Arc::clone(values))
        }
        _ => Arc::clone(values),
    }
}

fn tight<T: ByteViewType>(values: &GenericByteViewArray<T>) -> Option<ArrayRef> {
    let has: usize = values.data_buffers().iter().map(arrow::buffer::Buffer::capacity).sum();
    let is_loose = has > 2 * values.total_buffer_bytes_used() + LOOSE_BYTES;
    is_loose.then(|| Arc::new(values.gc()) as ArrayRef)
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;

    use super::*;

    #[test]
    fn a_few_texts_of_a_large_buffer_get_one_of_their_own() {
        let long = "x".repeat(1000);
        let all: ArrayRef = Arc::new(StringViewArray::from(vec![long.as_str(); 1000]));
        assert!(all.get_array_memory_size() > 1_000_000);
        let few = all.slice(10, 3);
        assert!(few.get_array_memory_size() > 1_000_000);
        let tight = column(&few);
        assert!(tight.get_array_memory_size() < 10_000);
        assert_eq!(&tight, &few);
        assert!(Arc::ptr_eq(&column(&all), &all));
    }
}
