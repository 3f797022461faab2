//! Runs statements and prints what comes of them.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use super::{
    answering::{Answering, Rows},
    format::{Format, Printer, harmless_lines},
};

/// What became of statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All were answered.
    Answered,
    /// One failed, and said so.
    Failed,
}

/// Who answers, and where answers go.
pub(super) struct Shell<W> {
    pub(super) answering: Answering,
    pub(super) out: W,
    pub(super) format: Format,
    /// Whether tables end with the time that the answer took.
    pub(super) timing: bool,
    terminal: bool,
}

impl<W: Write> Shell<W> {
    /// Prints to `out`, which is a terminal or not.
    pub(super) fn new(answering: Answering, out: W, format: Format, terminal: bool) -> Shell<W> {
        Shell { answering, out, format, timing: true, terminal }
    }

    /// Runs statements one after the other, until one fails. An error is one of printing.
    pub(super) async fn run<'a>(
        &mut self,
        statements: impl Iterator<Item = &'a str>,
    ) -> io::Result<Outcome> {
        for statement in statements {
            if self.statement(statement).await? == Outcome::Failed {
                return Ok(Outcome::Failed);
            }
        }
        Ok(Outcome::Answered)
    }

    /// Runs one statement and prints its answer, or why there is none.
    pub(super) async fn statement(&mut self, statement: &str) -> io::Result<Outcome> {
        let begun = Instant::now();
        let answer = match self.answering.query(statement).await {
            Ok(answer) => answer,
            Err(error) => return Ok(failed(&error)),
        };
        match self.print(answer).await? {
            Ok(rows) => {
                if self.format == Format::Table {
                    let count = count(rows);
                    let time = if self.timing { took(begun.elapsed()) } else { String::new() };
                    writeln!(self.out, "{count}{time}")?;
                }
                self.out.flush()?;
                Ok(Outcome::Answered)
            }
            Err(error) => {
                self.out.flush()?;
                Ok(failed(&error))
            }
        }
    }

    async fn print(&mut self, mut answer: Rows) -> io::Result<anyhow::Result<usize>> {
        let schema = match answer.schema() {
            Ok(schema) => schema,
            Err(error) => return Ok(Err(error)),
        };
        let mut printer = Printer::new(&mut self.out, self.format, self.terminal, schema);
        loop {
            match answer.next().await {
                Ok(Some(rows)) => printer.rows(&rows)?,
                Ok(None) => return printer.end().map(Ok),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}

fn failed(error: &anyhow::Error) -> Outcome {
    eprintln!("error: {}", said(error));
    Outcome::Failed
}

/// An error as it is said. It may quote stored text: a value that can't be cast, for one.
fn said(error: &anyhow::Error) -> String {
    harmless_lines(&format!("{error:#}")).into_owned()
}

fn count(rows: usize) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

fn took(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!(" in {} ms", time.as_millis())
    } else {
        format!(" in {:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use aion_analytics::Error;

    use super::said;

    #[test]
    fn an_error_can_not_command_a_terminal() {
        let error = Error::Query("can't cast '\u{1b}]0;owned\u{7}'\nto Int32".into());
        assert_eq!(said(&error.into()), "can't cast '\\u{1b}]0;owned\\u{7}'\nto Int32");
    }
}
