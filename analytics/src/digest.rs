//! What a row says, as one number: the same from every store, whatever engine reads it.
//!
//! A row is written as bytes, column after column:
//!
//! | value | bytes |
//! |---|---|
//! | null | 0 |
//! | text, or an object's text | 1, its length in bytes (8, little endian), its bytes |
//! | integer, time in microseconds since 1970 | 1, its 8 bytes, little endian |
//! | number | 1, the 8 bytes of the double, little endian; -0 as 0 |
//! | boolean | 1, then 0 or 1 |
//!
//! The number is FNV-1a of those bytes, 128 bits wide. Many rows have the sum of theirs, modulo 2^128: the order in which
//! a store keeps them doesn't count.
//!
//! **Invariant:** pure: it knows no store.

use std::fmt;

use aion_schemas::schema::Kind;
use arrow::{
    array::{Array, ArrayRef, AsArray, types},
    compute::cast,
    datatypes::{DataType, TimeUnit},
    error::ArrowError,
    record_batch::RecordBatch,
};

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// Which columns a row has.
#[derive(Clone, Debug)]
pub struct Layout(Vec<Kind>);

impl Layout {
    /// Columns of these kinds, in this order.
    pub fn new(kinds: impl Iterator<Item = Kind>) -> Layout {
        Layout(kinds.collect())
    }

    /// The number of each row. The columns may be of any type that can be read as their kind.
    pub fn numbers(&self, columns: &[ArrayRef]) -> Result<Vec<u128>, ArrowError> {
        if columns.len() != self.0.len() {
            let what = format!("{} columns, {} are wanted", columns.len(), self.0.len());
            return Err(ArrowError::SchemaError(what));
        }
        let mut numbers = vec![FNV_OFFSET; columns.first().map_or(0, Array::len)];
        for (kind, column) in self.0.iter().zip(columns) {
            add(*kind, column, &mut numbers)?;
        }
        Ok(numbers)
    }
}

/// The number of many rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    sum: u128,
    /// How many they are.
    pub rows: u64,
}

impl Digest {
    /// Takes rows in.
    pub fn add(&mut self, layout: &Layout, rows: &RecordBatch) -> Result<(), ArrowError> {
        for number in layout.numbers(rows.columns())? {
            self.sum = self.sum.wrapping_add(number);
        }
        self.rows += rows.num_rows() as u64;
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

fn add(kind: Kind, column: &ArrayRef, numbers: &mut [u128]) -> Result<(), ArrowError> {
    let plain = match kind {
        Kind::Text | Kind::Object => DataType::Utf8,
        Kind::Bytes => DataType::Binary,
        Kind::Integer => DataType::Int64,
        Kind::Number => DataType::Float64,
        Kind::Boolean => DataType::Boolean,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    };
    let column = &cast(column, &plain)?;
    match kind {
        Kind::Text | Kind::Object => {
            let texts = column.as_string::<i32>();
            each(column, numbers, |row, number| mix_long(number, texts.value(row).as_bytes()));
        }
        Kind::Bytes => {
            let bytes = column.as_binary::<i32>();
            each(column, numbers, |row, number| mix_long(number, bytes.value(row)));
        }
        Kind::Integer => {
            let values = column.as_primitive::<types::Int64Type>();
            each(column, numbers, |row, number| {
                mix_word(number, values.value(row).cast_unsigned());
            });
        }
        Kind::Number => {
            let values = column.as_primitive::<types::Float64Type>();
            each(column, numbers, |row, number| {
                mix_word(number, (values.value(row) + 0.0).to_bits());
            });
        }
        Kind::Boolean => {
            let values = column.as_boolean();
            each(column, numbers, |row, number| mix(number, &[u8::from(values.value(row))]));
        }
        Kind::Time => {
            let values = column.as_primitive::<types::TimestampMicrosecondType>();
            each(column, numbers, |row, number| {
                mix_word(number, values.value(row).cast_unsigned());
            });
        }
    }
    Ok(())
}

/// Takes one column of all rows in.
fn each(column: &ArrayRef, numbers: &mut [u128], write: impl Fn(usize, &mut u128)) {
    for (row, number) in numbers.iter_mut().enumerate() {
        if column.is_null(row) {
            mix(number, &[0]);
        } else {
            mix(number, &[1]);
            write(row, number);
        }
    }
}

fn mix_long(number: &mut u128, bytes: &[u8]) {
    mix_word(number, bytes.len() as u64);
    mix(number, bytes);
}

/// Takes eight bytes in, little endian: those that end in zeros at once, since a zero only multiplies.
fn mix_word(number: &mut u128, word: u64) {
    let zeros = word.leading_zeros() as usize / 8;
    mix(number, &word.to_le_bytes()[..8 - zeros]);
    *number = number.wrapping_mul(ZEROS[zeros]);
}

fn mix(number: &mut u128, bytes: &[u8]) {
    for byte in bytes {
        *number = (*number ^ u128::from(*byte)).wrapping_mul(FNV_PRIME);
    }
}

/// What so many zeros multiply by.
const ZEROS: [u128; 9] = {
    let mut powers = [1_u128; 9];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1].wrapping_mul(FNV_PRIME);
        at += 1;
    }
    powers
};

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a as others compute it: of nothing, and of `a`.
    #[test]
    fn it_is_fnv() {
        let mut number = FNV_OFFSET;
        mix(&mut number, b"a");
        assert_eq!(number, 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn words_are_their_bytes() {
        let edges = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, u64::MAX << bit]);
        for word in edges.chain([0, 0x0102_0304_0506_0708, 0x00ff_0000_0000_0100]) {
            let (mut at_once, mut one_by_one) = (FNV_OFFSET, FNV_OFFSET);
            mix_word(&mut at_once, word);
            mix(&mut one_by_one, &word.to_le_bytes());
            assert_eq!(at_once, one_by_one, "{word:x}");
        }
    }
}
