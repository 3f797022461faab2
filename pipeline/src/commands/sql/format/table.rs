//! A table of text: as wide as its first rows need, so that any number of rows can follow.

use arrow::{datatypes::SchemaRef, error::ArrowError, record_batch::RecordBatch};
use unicode_width::UnicodeWidthStr;

use super::cell::{Cells, harmless};

/// Rows that decide how wide the columns are.
const ROWS_MEASURED: usize = 1000;
/// The widest a value may be on a terminal, in columns of text.
const TERMINAL_WIDTH: usize = 100;

/// An answer as a table.
pub(super) struct Table {
    schema: SchemaRef,
    /// On a terminal long values are cut; elsewhere they are whole.
    terminal: bool,
    /// Rows that wait for their widths.
    waiting: Vec<Vec<String>>,
    /// Known once the header is printed.
    widths: Option<Vec<usize>>,
    cut: bool,
}

impl Table {
    /// Of these columns.
    pub(super) fn new(schema: SchemaRef, terminal: bool) -> Table {
        Table { schema, terminal, waiting: Vec::new(), widths: None, cut: false }
    }

    /// Adds rows.
    pub(super) fn rows(&mut self, rows: &RecordBatch, text: &mut String) -> Result<(), ArrowError> {
        let columns: Vec<_> =
            rows.columns().iter().map(|column| Cells::new(column)).collect::<Result<_, _>>()?;
        for row in 0..rows.num_rows() {
            let cells: Vec<_> = columns.iter().map(|column| self.cell(column.text(row))).collect();
            match &self.widths {
                Some(widths) => self.line(&cells, widths, text),
                None => self.waiting.push(cells),
            }
            if self.waiting.len() >= ROWS_MEASURED {
                self.head(text);
            }
        }
        Ok(())
    }

    /// Prints what still waits, and the last line.
    pub(super) fn end(&mut self, text: &mut String) {
        self.head(text);
        if let Some(widths) = &self.widths {
            rule(widths, text);
        }
        if self.cut {
            text.push_str("long values are cut; --format csv or json prints them whole\n");
        }
    }

    fn cell(&mut self, value: Option<String>) -> String {
        let value = value.map_or_else(|| "NULL".to_owned(), |value| harmless(&value).into_owned());
        if !self.terminal || value.width() <= TERMINAL_WIDTH {
            return value;
        }
        self.cut = true;
        value.chars().take(TERMINAL_WIDTH - 1).chain(['…']).collect()
    }

    /// Prints the header, once, and the rows that waited for it.
    fn head(&mut self, text: &mut String) {
        if self.widths.is_some() {
            return;
        }
        let names: Vec<String> =
            self.schema.fields().iter().map(|field| harmless(field.name()).into_owned()).collect();
        let mut widths: Vec<usize> = names.iter().map(|name| name.width()).collect();
        for row in &self.waiting {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        rule(&widths, text);
        self.line(&names, &widths, text);
        rule(&widths, text);
        for row in std::mem::take(&mut self.waiting) {
            self.line(&row, &widths, text);
        }
        self.widths = Some(widths);
    }

    fn line(&self, cells: &[String], widths: &[usize], text: &mut String) {
        for ((cell, width), field) in cells.iter().zip(widths).zip(self.schema.fields()) {
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            let number = field.data_type().is_numeric();
            let (before, after) = if number { (&*padding, "") } else { ("", &*padding) };
            text.extend(["| ", before, cell, after, " "]);
        }
        text.push_str("|\n");
    }
}

fn rule(widths: &[usize], text: &mut String) {
    for width in widths {
        text.push('+');
        text.extend(std::iter::repeat_n('-', width + 2));
    }
    text.push_str("+\n");
}
