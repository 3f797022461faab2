//! How answers look: a table for people, CSV or JSON for programs.
//!
//! | format | shape | null |
//! |---|---|---|
//! | `table` | columns as wide as the first thousand rows need, then count and time; lines within a value stay in its column | `NULL` |
//! | `csv` | RFC 4180 with a header, lines end in `\n` | empty; empty text is `""` |
//! | `json` | JSON lines: one object for each row, keys in column order | `null` |
//!
//! Times are RFC 3339 in UTC. Bytes are text where they are UTF-8, else hexadecimal after `\x`,
//! except in JSON, where they are hexadecimal always.

mod cell;
mod csv;
mod table;

use std::{
    collections::HashSet,
    io::{self, Write},
};

use arrow::{
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    json::{WriterBuilder, writer::LineDelimited},
    record_batch::RecordBatch,
};

use self::table::Table;
pub(crate) use self::{cell::harmless_lines, csv::Csv};

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns side by side, for people.
    Table,
    /// Comma-separated values with a header line.
    Csv,
    /// JSON lines: one object for each row.
    Json,
}

/// Prints one answer.
pub(crate) struct Printer<'a> {
    out: &'a mut dyn Write,
    /// Whether characters could reach a terminal, which obeys some of them.
    terminal: bool,
    kind: Kind,
    rows: usize,
}

enum Kind {
    Table(Table),
    Csv(Csv),
    Json,
}

impl<'a> Printer<'a> {
    /// Starts an answer with these columns.
    pub(crate) fn new(
        out: &'a mut dyn Write,
        format: Format,
        terminal: bool,
        schema: SchemaRef,
    ) -> Printer<'a> {
        let kind = match format {
            Format::Table => Kind::Table(Table::new(schema, terminal)),
            Format::Csv => Kind::Csv(Csv::new(schema)),
            Format::Json => Kind::Json,
        };
        Printer { out, terminal, kind, rows: 0 }
    }

    /// Prints rows, or keeps them until their widths are known.
    pub(crate) fn rows(&mut self, rows: &RecordBatch) -> io::Result<()> {
        self.rows += rows.num_rows();
        let mut text = String::new();
        match &mut self.kind {
            Kind::Table(table) => table.rows(rows, &mut text),
            Kind::Csv(csv) => csv.rows(rows, &mut text),
            Kind::Json => json(rows, &mut text),
        }
        .map_err(io::Error::other)?;
        self.print(&text)
    }

    /// Ends the answer; returns how many rows it had.
    pub(crate) fn end(mut self) -> io::Result<usize> {
        let mut text = String::new();
        match &mut self.kind {
            Kind::Table(table) => table.end(&mut text),
            Kind::Csv(csv) => csv.end(&mut text),
            Kind::Json => {}
        }
        self.print(&text)?;
        Ok(self.rows)
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        if self.terminal {
            self.out.write_all(harmless_lines(text).as_bytes())
        } else {
            self.out.write_all(text.as_bytes())
        }
    }
}

/// Refuses columns of which two have one name: in an object one of them would hide the other.
pub(crate) fn named_apart(columns: &Schema) -> Result<(), String> {
    let mut known = HashSet::new();
    for field in columns.fields() {
        if !known.insert(field.name()) {
            return Err(format!(
                "two columns are named `{0}`, and JSON has room for one of them; give one another name: `.. as other_{0}`",
                field.name()
            ));
        }
    }
    Ok(())
}

fn json(rows: &RecordBatch, text: &mut String) -> Result<(), ArrowError> {
    let mut lines = Vec::new();
    let mut writer =
        WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut lines);
    writer.write(rows)?;
    writer.finish()?;
    text.push_str(&String::from_utf8_lossy(&lines));
    Ok(())
}

#[cfg(test)]
mod tests;
