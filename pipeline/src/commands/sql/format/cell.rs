//! One value as text.

use std::{borrow::Cow, fmt::Write};

use arrow::{
    array::{Array, AsArray},
    datatypes::DataType,
    error::ArrowError,
    util::display::{ArrayFormatter, DurationFormat, FormatOptions},
};

/// Reads the values of one column as text.
pub(super) struct Cells<'a> {
    column: &'a dyn Array,
    formatter: ArrayFormatter<'a>,
}

const OPTIONS: FormatOptions<'static> =
    FormatOptions::new().with_display_error(true).with_duration_format(DurationFormat::Pretty);

impl<'a> Cells<'a> {
    /// Of a column.
    pub(super) fn new(column: &'a dyn Array) -> Result<Cells<'a>, ArrowError> {
        Ok(Cells { column, formatter: ArrayFormatter::try_new(column, &OPTIONS)? })
    }

    /// The value in a row; `None` for null.
    pub(super) fn text(&self, row: usize) -> Option<String> {
        // A column of type null has no null buffer to look into.
        if self.column.is_null(row) || *self.column.data_type() == DataType::Null {
            return None;
        }
        Some(match self.column.data_type() {
            DataType::Binary => bytes(self.column.as_binary::<i32>().value(row)),
            DataType::BinaryView => bytes(self.column.as_binary_view().value(row)),
            _ => self.formatter.value(row).to_string(),
        })
    }
}

/// Bytes as text where they are text, else in hexadecimal.
fn bytes(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut text = "\\x".to_owned();
    for byte in bytes {
        // Writing to a String can't fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

/// Text on one line, without characters that a terminal obeys.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    escape(text, is_harmful)
}

/// The same where lines end as they should.
pub(crate) fn harmless_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && is_harmful(c))
}

fn escape(text: &str, is_harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Control characters move the cursor, recolour, retitle or send keys; marks of direction and
/// characters without width make text read as what it isn't.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
