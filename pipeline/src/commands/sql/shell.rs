//! Runs statements and prints what comes of them.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use super::{
    answering::{Answering, Rows},
    command::{self, Next, Step},
    format::{Format, Printer, harmless_lines, named_apart},
    pager::{self, Paged, Screen},
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
    /// Whether what is longer than the screen goes through a pager.
    pub(super) paging: bool,
    /// Where a person sits at a prompt.
    pub(super) screen: Option<Screen>,
    terminal: bool,
}

impl<W: Write> Shell<W> {
    /// Prints to `out`, which is a terminal or not.
    pub(super) fn new(answering: Answering, out: W, format: Format, terminal: bool) -> Shell<W> {
        Shell { answering, out, format, timing: true, paging: true, screen: None, terminal }
    }

    /// Runs the statements and commands of a text one after the other, until one fails. An error is one of printing.
    pub(super) async fn run(&mut self, text: &str) -> io::Result<Outcome> {
        for step in command::steps(text) {
            let next = match step {
                Step::Command(line) => command::run(line, self)?,
                Step::Statement(statement) => match self.statement(statement).await? {
                    Outcome::Answered => Next::Go,
                    Outcome::Failed => Next::Failed,
                },
            };
            match next {
                Next::Go => {}
                Next::Failed => return Ok(Outcome::Failed),
                Next::Leave => break,
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
        let (format, terminal) = (self.format, self.terminal);
        let timing = self.timing.then_some(begun);
        let mut out = self.paged();
        let shown = match print(answer, &mut out, format, terminal).await {
            Ok(Ok(rows)) => ended(&mut out, format, rows, timing).map(|()| Ok(())),
            other => other.map(|answer| answer.map(drop)),
        };
        match shown.and_then(|shown| out.end().map(|()| shown)) {
            Ok(Ok(())) => Ok(Outcome::Answered),
            Ok(Err(error)) => Ok(failed(&error)),
            // Whoever leaves the pager has seen enough.
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe && self.pages() => {
                Ok(Outcome::Answered)
            }
            Err(cause) => Err(cause),
        }
    }

    /// Where an answer is printed: the pager takes it once it is longer than the screen.
    pub(super) fn paged(&mut self) -> Paged<'_, W> {
        let wanted = self.screen.filter(|_| self.pages());
        let wanted = wanted.and_then(|screen| Some((pager::wanted()?, screen)));
        Paged::new(&mut self.out, wanted)
    }

    fn pages(&self) -> bool {
        self.paging && self.terminal && self.screen.is_some()
    }
}

async fn print(
    mut answer: Rows,
    out: &mut dyn Write,
    format: Format,
    terminal: bool,
) -> io::Result<anyhow::Result<usize>> {
    let schema = match answer.schema() {
        Ok(schema) => schema,
        Err(error) => return Ok(Err(error)),
    };
    if format == Format::Json
        && let Err(why) = named_apart(&schema)
    {
        return Ok(Err(anyhow::Error::msg(why)));
    }
    let mut printer = Printer::new(out, format, terminal, schema);
    loop {
        match answer.next().await {
            Ok(Some(rows)) => printer.rows(&rows)?,
            Ok(None) => return printer.end().map(Ok),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// The last line of a table.
fn ended(
    out: &mut dyn Write,
    format: Format,
    rows: usize,
    begun: Option<Instant>,
) -> io::Result<()> {
    if format != Format::Table {
        return Ok(());
    }
    let time = begun.map_or_else(String::new, |begun| took(begun.elapsed()));
    writeln!(out, "{}{time}", count(rows))
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
