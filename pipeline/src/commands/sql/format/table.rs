//! A table of text: as wide as its first rows need, so that any number of rows can follow.
//!
//! **Invariant:** what follows a value's line breaks can't pass for a row: it stays in its column, and a line of the value
//! that isn't the last ends with `+` where a space is otherwise, as in psql.

use arrow::{datatypes::SchemaRef, error::ArrowError, record_batch::RecordBatch};
use unicode_width::UnicodeWidthStr;

use super::cell::{Cells, harmless, harmless_lines};

/// Rows that decide how wide the columns are.
const ROWS_MEASURED: usize = 1000;
/// The widest a value may be on a terminal, in columns of text.
const TERMINAL_WIDTH: usize = 100;
/// The most lines that a value may have there.
const TERMINAL_LINES: usize = 200;
/// Stands for what was cut.
const CUT: char = '…';

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
        let value =
            value.map_or_else(|| "NULL".to_owned(), |value| harmless_lines(&value).into_owned());
        if !self.terminal {
            return value;
        }
        let shown = shortened(&value);
        self.cut |= shown != value;
        shown
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
                *width = cell.split('\n').map(str::width).fold(*width, usize::max);
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

    /// One row, over as many lines as its longest value has.
    fn line(&self, cells: &[String], widths: &[usize], text: &mut String) {
        let mut columns: Vec<_> = cells.iter().map(|cell| cell.split('\n').peekable()).collect();
        loop {
            for ((lines, width), field) in columns.iter_mut().zip(widths).zip(self.schema.fields())
            {
                let line = lines.next().unwrap_or_default();
                let padding = " ".repeat(width.saturating_sub(line.width()));
                let number = field.data_type().is_numeric();
                let (before, after) = if number { (&*padding, "") } else { ("", &*padding) };
                let margin = if lines.peek().is_some() { "+" } else { " " };
                text.extend(["| ", before, line, after, margin]);
            }
            text.push_str("|\n");
            if columns.iter_mut().all(|lines| lines.peek().is_none()) {
                return;
            }
        }
    }
}

/// As much of a value as a terminal gets.
fn shortened(value: &str) -> String {
    let mut lines = value.split('\n');
    let line = |line: &str| {
        if line.width() <= TERMINAL_WIDTH {
            return line.to_owned();
        }
        line.chars().take(TERMINAL_WIDTH - 1).chain([CUT]).collect()
    };
    let mut shown: Vec<String> = lines.by_ref().take(TERMINAL_LINES).map(line).collect();
    if lines.next().is_some() {
        shown.push(CUT.to_string());
    }
    shown.join("\n")
}

fn rule(widths: &[usize], text: &mut String) {
    for width in widths {
        text.push('+');
        text.extend(std::iter::repeat_n('-', width + 2));
    }
    text.push_str("+\n");
}
