//! How many bytes values take, row by row: of text its length, whoever else holds the buffer that it lies in.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, OffsetSizeTrait},
    buffer::OffsetBuffer,
    compute::cast,
    datatypes::DataType,
    downcast_dictionary_array,
    record_batch::RecordBatch,
};
use datafusion::{common::Result, logical_expr::ColumnarValue};

/// What a value takes beside its bytes: where it begins, a view, a number.
const FIXED_BYTES: u64 = 8;
const VIEW_BYTES: u64 = 16;

/// A number for each row, or the same for all.
#[derive(Debug)]
pub(super) enum Each<T> {
    /// The same for all rows.
    Same(T),
    /// One for each row.
    Row(Vec<T>),
}

impl<T: Copy> Each<T> {
    /// That of a row.
    pub(super) fn at(&self, row: usize) -> T {
        match self {
            Each::Same(one) => *one,
            Each::Row(all) => all[row],
        }
    }
}

/// How many bytes the values of an argument take.
pub(super) fn of_argument(argument: &ColumnarValue) -> Result<Each<u64>> {
    Ok(match argument {
        ColumnarValue::Array(values) => Each::Row(of_each(values)),
        ColumnarValue::Scalar(value) => Each::Same(of_each(&value.to_array()?)[0]),
    })
}

/// How long the texts of an argument are.
pub(super) fn lengths(argument: &ColumnarValue) -> Result<Each<u64>> {
    let beside = match argument.data_type() {
        DataType::Utf8View => VIEW_BYTES,
        _ => FIXED_BYTES,
    };
    Ok(match of_argument(argument)? {
        Each::Same(size) => Each::Same(size.saturating_sub(beside)),
        Each::Row(sizes) => {
            Each::Row(sizes.iter().map(|size| size.saturating_sub(beside)).collect())
        }
    })
}

/// How many items the lists of an argument have.
pub(super) fn items(argument: &ColumnarValue) -> Result<Each<u64>> {
    Ok(match argument {
        ColumnarValue::Array(lists) => Each::Row(items_of_each(lists)),
        ColumnarValue::Scalar(list) => Each::Same(items_of_each(&list.to_array()?)[0]),
    })
}

fn items_of_each(lists: &ArrayRef) -> Vec<u64> {
    match lists.data_type() {
        DataType::List(_) => lists.as_list::<i32>().offsets().lengths().map(|n| n as u64).collect(),
        DataType::LargeList(_) => {
            lists.as_list::<i64>().offsets().lengths().map(|n| n as u64).collect()
        }
        DataType::FixedSizeList(_, length) => vec![*length as u64; lists.len()],
        _ => vec![0; lists.len()],
    }
}

/// The whole numbers of an argument; zero for null.
pub(super) fn whole_numbers(argument: &ColumnarValue) -> Result<Each<i64>> {
    let read = |values: &ArrayRef| -> Result<Vec<i64>> {
        let values = cast(values, &DataType::Int64)?;
        let numbers = values.as_primitive::<arrow::datatypes::Int64Type>();
        Ok(numbers.iter().map(Option::unwrap_or_default).collect())
    };
    Ok(match argument {
        ColumnarValue::Array(values) => Each::Row(read(values)?),
        ColumnarValue::Scalar(value) => Each::Same(read(&value.to_array()?)?[0]),
    })
}

/// How many bytes the rows of a batch take.
pub(crate) fn of_rows(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(of_all).sum()
}

/// How many bytes the values of a column take.
pub(super) fn of_all(values: &ArrayRef) -> usize {
    of_each(values).iter().sum::<u64>() as usize
}

/// How many bytes each value takes.
pub(super) fn of_each(values: &ArrayRef) -> Vec<u64> {
    let rows = values.len();
    match values.data_type() {
        DataType::Utf8 => of_lengths(values.as_string::<i32>().offsets()),
        DataType::LargeUtf8 => of_lengths(values.as_string::<i64>().offsets()),
        DataType::Binary => of_lengths(values.as_binary::<i32>().offsets()),
        DataType::LargeBinary => of_lengths(values.as_binary::<i64>().offsets()),
        DataType::Utf8View => of_views(values.as_string_view().views()),
        DataType::BinaryView => of_views(values.as_binary_view().views()),
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            of_lists(lists.offsets(), lists.values())
        }
        DataType::LargeList(_) => {
            let lists = values.as_list::<i64>();
            of_lists(lists.offsets(), lists.values())
        }
        DataType::Map(..) => {
            let maps = values.as_map();
            let entries = Arc::new(maps.entries().clone()) as ArrayRef;
            of_lists(maps.offsets(), &entries)
        }
        DataType::Struct(_) => sums(rows, values.as_struct().columns()),
        DataType::FixedSizeList(..) => {
            let lists = values.as_fixed_size_list();
            let (items, length) = (of_each(lists.values()), lists.value_length() as usize);
            (0..rows).map(|row| items[row * length..(row + 1) * length].iter().sum()).collect()
        }
        DataType::Dictionary(..) => of_dictionary(values),
        other => vec![other.primitive_width().map_or(FIXED_BYTES, |width| width as u64); rows],
    }
}

fn of_lengths<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> Vec<u64> {
    offsets.lengths().map(|length| length as u64 + FIXED_BYTES).collect()
}

/// The lower half of a view's first word is the length of its text.
fn of_views(views: &[u128]) -> Vec<u64> {
    views.iter().map(|view| u64::from(*view as u32) + VIEW_BYTES).collect()
}

fn of_lists<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, items: &ArrayRef) -> Vec<u64> {
    let items = of_each(items);
    let list = |pair: &[O]| {
        let (from, to) = (pair[0].as_usize(), pair[1].as_usize());
        items[from..to].iter().sum::<u64>() + FIXED_BYTES
    };
    offsets.windows(2).map(list).collect()
}

fn sums(rows: usize, columns: &[ArrayRef]) -> Vec<u64> {
    let mut sums = vec![0; rows];
    for column in columns {
        for (sum, size) in sums.iter_mut().zip(of_each(column)) {
            *sum += size;
        }
    }
    sums
}

fn of_dictionary(values: &ArrayRef) -> Vec<u64> {
    downcast_dictionary_array!(
        values => {
            let known = of_each(values.values());
            values.keys_iter().map(|key| key.map_or(FIXED_BYTES, |key| known[key])).collect()
        },
        _ => vec![FIXED_BYTES; values.len()]
    )
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, ListArray, StringArray, StringViewArray},
        datatypes::{Int32Type, Int64Type},
    };

    use super::*;

    #[test]
    fn a_value_takes_its_bytes_and_no_more_of_its_buffer() {
        let long = "x".repeat(100);
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some(long.as_str()), None, Some("")]));
        assert_eq!(of_each(&text), [108, 8, 8]);
        assert_eq!(of_each(&text.slice(1, 2)), [8, 8]);
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![Some(long.as_str()), None]));
        assert_eq!(of_each(&views), [116, 16]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        assert_eq!(of_each(&numbers), [8, 8]);
    }

    #[test]
    fn lists_take_what_is_in_them() {
        let lists = [Some(vec![Some(1), Some(2)]), None, Some(vec![])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        assert_eq!(of_each(&lists), [24, 8, 8]);
        assert_eq!(of_each(&lists.slice(1, 1)), [8]);
    }

    #[test]
    fn a_dictionary_takes_the_values_that_it_stands_for() {
        let text = arrow::array::DictionaryArray::<Int32Type>::from_iter(["aa", "b", "aa"]);
        assert_eq!(of_each(&(Arc::new(text) as ArrayRef)), [10, 9, 10]);
    }
}
