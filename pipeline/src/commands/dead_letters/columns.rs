//! Columns of an answer, whatever form of text or number the engine chose for them.

use arrow::{
    array::AsArray,
    compute,
    datatypes::{DataType, Int64Type, TimestampMicrosecondType},
    record_batch::RecordBatch,
};

pub(super) fn texts(rows: &RecordBatch, column: usize) -> anyhow::Result<Vec<Option<String>>> {
    let texts = compute::cast(rows.column(column), &DataType::Utf8)?;
    Ok(texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect())
}

pub(super) fn integers(rows: &RecordBatch, column: usize) -> anyhow::Result<Vec<Option<i64>>> {
    let integers = compute::cast(rows.column(column), &DataType::Int64)?;
    Ok(integers.as_primitive::<Int64Type>().iter().collect())
}

/// Microseconds since 1970.
pub(super) fn times(rows: &RecordBatch, column: usize) -> anyhow::Result<Vec<Option<i64>>> {
    let times = compute::cast(rows.column(column), &aion_schemas::schema::time_type())?;
    Ok(times.as_primitive::<TimestampMicrosecondType>().iter().collect())
}

pub(super) fn bytes(rows: &RecordBatch, column: usize) -> anyhow::Result<Vec<Option<Vec<u8>>>> {
    let bytes = compute::cast(rows.column(column), &DataType::Binary)?;
    Ok(bytes.as_binary::<i32>().iter().map(|bytes| bytes.map(<[u8]>::to_vec)).collect())
}
