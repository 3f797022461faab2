//! Plain column buffers of a batch in the making, one per field of the contract, with rollback.
//!
//! **Invariant:** between records every column has the same number of rows; within one, a column has
//! at most one more. So a column's own length says whether its field was seen, and taking a record
//! back is cutting every column to the number of whole rows.

#![expect(
    clippy::inline_always,
    reason = "what a value costs is a few instructions, a tenth of the Avro decoder each as a call"
)]

mod texts;

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, BooleanBufferBuilder, Float64Array, Int64Array,
        TimestampMicrosecondArray,
    },
    buffer::{BooleanBuffer, NullBuffer},
};
use serde_json::Value;

pub(super) use self::texts::Texts;
use super::reject::{Fault, Reason};
use crate::schema::{Field, Kind};

/// The columns of a batch in the making, without those of the position.
#[derive(Debug)]
pub(super) struct Columns {
    list: Vec<Column>,
    rows: usize,
    default_bytes: usize,
}

/// One column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    required: bool,
    default: Option<DefaultValue>,
    pub(super) values: Values,
    /// The rows that are null. A value costs nothing here, a null one number.
    nulls: Vec<u32>,
}

/// What a column gets of a record that doesn't speak of its field.
#[derive(Debug)]
enum DefaultValue {
    Text(Box<str>),
    Integer(i64),
    Number(f64),
    Boolean(bool),
}

/// The values of a column, nulls among them as empty or zero.
#[derive(Debug)]
pub(super) enum Values {
    Text(Texts),
    Object(Texts),
    Bytes(Texts),
    Integer(Vec<i64>),
    Time(Vec<i64>),
    Number(Vec<f64>),
    Boolean(BooleanBufferBuilder),
}

impl Columns {
    pub(super) fn new(fields: &[Field]) -> Columns {
        let list: Vec<Column> = fields.iter().map(Column::new).collect();
        let text = |column: &Column| match &column.default {
            Some(DefaultValue::Text(text)) => text.len(),
            _ => 0,
        };
        let default_bytes = list.iter().map(text).sum();
        Columns { list, rows: 0, default_bytes }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn bytes(&self) -> usize {
        self.list.iter().map(Column::bytes).sum()
    }

    /// The bytes that defaults add to a record at most.
    pub(super) fn default_bytes(&self) -> usize {
        self.default_bytes
    }

    pub(super) fn list(&self) -> &[Column] {
        &self.list
    }

    /// The column of a field that begins in the present record.
    pub(super) fn open(&mut self, index: usize, at: usize) -> Result<&mut Column, Fault> {
        let column = &mut self.list[index];
        if column.values.len() > self.rows {
            return Err(Fault::new(Reason::DuplicateKey, at, "a field that stands there twice"));
        }
        Ok(column)
    }

    /// The columns, in the order of their fields, to each of which the present record adds one value.
    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut Column> {
        self.list.iter_mut()
    }

    /// Fills columns that the present record didn't speak of.
    pub(super) fn fill(&mut self, at: usize) -> Result<(), Fault> {
        for (index, column) in self.list.iter_mut().enumerate() {
            if column.values.len() == self.rows && !column.push_default() {
                column.push_null(at).map_err(|fault| fault.within(index))?;
            }
        }
        Ok(())
    }

    /// Closes the present record as a row.
    pub(super) fn commit(&mut self) {
        self.rows += 1;
    }

    /// Takes the present record back.
    pub(super) fn roll_back(&mut self) {
        for column in &mut self.list {
            column.truncate(self.rows);
        }
    }

    /// Turns the rows into Arrow arrays and starts anew.
    pub(super) fn finish(&mut self) -> Vec<ArrayRef> {
        self.rows = 0;
        self.list.iter_mut().map(Column::finish).collect()
    }
}

impl Column {
    fn new(field: &Field) -> Column {
        Column {
            name: Arc::clone(&field.name),
            required: field.required,
            default: field.default.as_ref().and_then(|value| DefaultValue::new(field.kind, value)),
            values: Values::new(field.kind),
            nulls: Vec::new(),
        }
    }

    /// Appends a null, unless the field is required.
    #[inline(always)]
    pub(super) fn push_null(&mut self, at: usize) -> Result<(), Fault> {
        if self.required {
            let what = "a required field is missing or null";
            return Err(Fault::new(Reason::MissingField, at, what));
        }
        let row = self.values.push_empty();
        self.nulls.push(row as u32);
        Ok(())
    }

    /// Appends the default; `false` where the column has none.
    fn push_default(&mut self) -> bool {
        match (&mut self.values, &self.default) {
            (Values::Text(texts) | Values::Object(texts), Some(DefaultValue::Text(text))) => {
                texts.push(text.as_bytes());
            }
            (Values::Integer(values), Some(DefaultValue::Integer(value))) => values.push(*value),
            (Values::Number(values), Some(DefaultValue::Number(value))) => values.push(*value),
            (Values::Boolean(values), Some(DefaultValue::Boolean(value))) => values.append(*value),
            _ => return false,
        }
        true
    }

    /// The last time in this column, unless it is null or this is no column of times.
    pub(super) fn last_time(&self) -> Option<i64> {
        let Values::Time(times) = &self.values else {
            return None;
        };
        let time = *times.last()?;
        (self.nulls.last() != Some(&(times.len() as u32 - 1))).then_some(time)
    }

    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        while self.nulls.last().is_some_and(|row| *row as usize >= rows) {
            self.nulls.pop();
        }
    }

    fn bytes(&self) -> usize {
        let validity = if self.nulls.is_empty() { 0 } else { self.values.len().div_ceil(8) };
        self.values.bytes() + validity
    }

    fn finish(&mut self) -> ArrayRef {
        let nulls = self.finish_nulls();
        match &mut self.values {
            Values::Text(texts) | Values::Object(texts) => texts.finish_text(nulls),
            Values::Bytes(texts) => texts.finish_bytes(nulls),
            Values::Integer(values) => Arc::new(Int64Array::new(renew(values).into(), nulls)),
            Values::Time(values) => {
                let array = TimestampMicrosecondArray::new(renew(values).into(), nulls);
                Arc::new(array.with_timezone("UTC"))
            }
            Values::Number(values) => Arc::new(Float64Array::new(renew(values).into(), nulls)),
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
        }
    }

    fn finish_nulls(&mut self) -> Option<NullBuffer> {
        if self.nulls.is_empty() {
            return None;
        }
        let rows = self.values.len();
        let mut validity = vec![u64::MAX; rows.div_ceil(64)];
        for row in self.nulls.drain(..) {
            validity[row as usize / 64] &= !(1 << (row % 64));
        }
        Some(BooleanBuffer::new(validity.into(), 0, rows).into())
    }
}

impl DefaultValue {
    /// Of a value that the contract was checked to have for the kind.
    fn new(kind: Kind, value: &Value) -> Option<DefaultValue> {
        Some(match kind {
            Kind::Text => DefaultValue::Text(value.as_str()?.into()),
            Kind::Object => DefaultValue::Text(value.to_string().into()),
            Kind::Integer => DefaultValue::Integer(value.as_i64()?),
            Kind::Number => DefaultValue::Number(value.as_f64()?),
            Kind::Boolean => DefaultValue::Boolean(value.as_bool()?),
            Kind::Time | Kind::Bytes => return None,
        })
    }
}

impl Values {
    fn new(kind: Kind) -> Values {
        match kind {
            Kind::Text => Values::Text(Texts::new()),
            Kind::Object => Values::Object(Texts::new()),
            Kind::Bytes => Values::Bytes(Texts::new()),
            Kind::Integer => Values::Integer(Vec::new()),
            Kind::Time => Values::Time(Vec::new()),
            Kind::Number => Values::Number(Vec::new()),
            Kind::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Values::Text(texts) | Values::Object(texts) | Values::Bytes(texts) => texts.len(),
            Values::Integer(values) | Values::Time(values) => values.len(),
            Values::Number(values) => values.len(),
            Values::Boolean(values) => values.len(),
        }
    }

    /// Appends a value that says nothing; answers its row.
    #[inline]
    fn push_empty(&mut self) -> usize {
        match self {
            Values::Text(texts) | Values::Object(texts) | Values::Bytes(texts) => {
                texts.push_empty();
                texts.len() - 1
            }
            Values::Integer(values) | Values::Time(values) => {
                values.push(0);
                values.len() - 1
            }
            Values::Number(values) => {
                values.push(0.0);
                values.len() - 1
            }
            Values::Boolean(values) => {
                values.append(false);
                values.len() - 1
            }
        }
    }

    fn truncate(&mut self, rows: usize) {
        match self {
            Values::Text(texts) | Values::Object(texts) | Values::Bytes(texts) => {
                texts.truncate(rows);
            }
            Values::Integer(values) | Values::Time(values) => values.truncate(rows),
            Values::Number(values) => values.truncate(rows),
            Values::Boolean(values) => values.truncate(rows.min(values.len())),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Values::Text(texts) | Values::Object(texts) | Values::Bytes(texts) => texts.size(),
            Values::Integer(values) | Values::Time(values) => size_of_val(&**values),
            Values::Number(values) => size_of_val(&**values),
            Values::Boolean(values) => values.len().div_ceil(8),
        }
    }
}

/// Takes a buffer out and leaves an empty one with room for as much again and half more: batches of one partition
/// are alike, if not the same, and growing step by step copies everything twice.
pub(super) fn renew<T>(buffer: &mut Vec<T>) -> Vec<T> {
    let room = buffer.len() + buffer.len() / 2;
    let mut full = std::mem::replace(buffer, Vec::with_capacity(room));
    // The byte budget counts what is used, so what isn't must stay small beside it.
    if full.capacity() > full.len() + full.len() / 4 {
        full.shrink_to_fit();
    }
    full
}
