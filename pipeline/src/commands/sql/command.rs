//! Commands beside SQL, which start with a backslash: at the prompt, and in a text of statements.

use std::io::{self, Write};

use aion_analytics::{
    statements,
    tables::{ColumnInfo, TableInfo},
};
use aion_schemas::suggest::nearest;
use clap::ValueEnum;
use unicode_width::UnicodeWidthStr;

use super::{format::Format, shell::Shell};

/// What the prompt says when it opens, and to `\?`.
pub(super) const HELP: &str = r"
Statements end with `;`, over as many lines as you like. Tab completes names.
  \d            the tables
  \d TABLE      the columns of a table, with what they mean
  \format KIND  table, csv or json
  \timing       show or hide how long answers take
  \pset pager   whether what is longer than the screen goes through $PAGER: on, off
  \?            this help
  \q            leave (so does Ctrl-D; Ctrl-C drops what was typed, or stops a query)
";

/// Whether the prompt, or a text of statements, goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    /// It can't be done, and that was said.
    Failed,
    Leave,
}

/// A part of a text of statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Statement(&'a str),
    Command(&'a str),
}

/// The parts of a text: a line that begins with a backslash is a command, where it isn't inside a statement or a comment.
pub(super) fn steps(text: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let (mut start, mut at) = (0, 0);
    // Whether there was nothing but white space and comments since `start`, and nothing but white space in this line.
    let (mut is_between, mut is_new_line) = (true, true);
    while at < text.len() {
        let token = statements::token(&text[at..]);
        if token == "\\" && is_between && is_new_line {
            let end = text[at..].find('\n').map_or(text.len(), |line| at + line + 1);
            steps.push(Step::Command(text[at..end].trim()));
            (start, at) = (end, end);
            continue;
        }
        if token == ";" {
            steps.extend((!is_between).then(|| Step::Statement(text[start..at].trim())));
            (start, is_between) = (at + 1, true);
        } else {
            is_between &= statements::is_blank(token);
        }
        is_new_line = token.ends_with('\n') || (is_new_line && token.trim().is_empty());
        at += token.len();
    }
    steps.extend((!is_between).then(|| Step::Statement(text[start..].trim())));
    steps
}

/// Whether a line is a command rather than SQL.
pub(super) fn is_command(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('\\') || matches!(line.trim_end_matches(';'), "quit" | "exit" | "help")
}

/// Carries out a command.
pub(super) fn run<W: Write>(line: &str, shell: &mut Shell<W>) -> io::Result<Next> {
    let mut words = line.trim().trim_end_matches(';').split_whitespace();
    let (command, argument) = (words.next().unwrap_or_default(), words.next());
    match (command, argument) {
        (r"\q" | "quit" | "exit", _) => return Ok(Next::Leave),
        (r"\?" | r"\h" | "help", _) => shell.out.write_all(HELP.as_bytes())?,
        (r"\d" | r"\dt", None) => shown(shell, list)?,
        (r"\d", Some(name)) => {
            shown(shell, |tables, out| describe(tables, name, out))?;
            if !shell.answering.tables().iter().any(|table| table.name == name) {
                return Ok(Next::Failed);
            }
        }
        (r"\timing", _) => {
            shell.timing = !shell.timing;
            let state = if shell.timing { "shown" } else { "hidden" };
            writeln!(shell.out, "times are {state}")?;
        }
        (r"\pset", Some("pager")) => {
            shell.paging = match words.next() {
                None => !shell.paging,
                Some(state) => state == "on",
            };
            let state = if shell.paging { "used" } else { "not used" };
            writeln!(shell.out, "the pager is {state}")?;
        }
        (r"\format", Some(kind)) => match Format::from_str(kind, true) {
            Ok(format) => shell.format = format,
            Err(_) => return failed(shell, "formats: table, csv, json"),
        },
        _ => return failed(shell, &format!(r"no command {command}; \? lists them")),
    }
    shell.out.flush()?;
    Ok(Next::Go)
}

fn failed<W: Write>(shell: &mut Shell<W>, why: &str) -> io::Result<Next> {
    writeln!(shell.out, "{why}")?;
    shell.out.flush()?;
    Ok(Next::Failed)
}

/// Prints what is told of the tables, by the pager where it is long.
fn shown<W: Write>(
    shell: &mut Shell<W>,
    tell: impl Fn(&[TableInfo], &mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let mut text = Vec::new();
    tell(shell.answering.tables(), &mut text)?;
    let mut out = shell.paged();
    let written = out.write_all(&text);
    match written.and_then(|()| out.end()) {
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe && shell.screen.is_some() => Ok(()),
        shown => shown,
    }
}

fn list(tables: &[TableInfo], out: &mut Vec<u8>) -> io::Result<()> {
    let width = tables.iter().map(|table| table.name.width()).max().unwrap_or_default();
    for table in tables {
        writeln!(out, "  {:width$}  {}", table.name, table.doc)?;
    }
    Ok(())
}

fn describe(tables: &[TableInfo], name: &str, out: &mut Vec<u8>) -> io::Result<()> {
    let Some(table) = tables.iter().find(|table| table.name == name) else {
        let names = tables.iter().map(|table| table.name.as_str());
        return match nearest(name, names) {
            Some(near) => writeln!(out, "no table `{name}`; did you mean `{near}`?"),
            None => writeln!(out, r"no table `{name}`; \d lists them"),
        };
    };
    let width = |text: fn(&ColumnInfo) -> &str| {
        table.columns.iter().map(|column| text(column).width()).max().unwrap_or_default()
    };
    let (names, types) = (width(|column| &column.name), width(|column| &column.sql_type));
    writeln!(out, "{}: {}", table.name, table.doc)?;
    for column in &table.columns {
        let null = if column.nullable { "null" } else { "" };
        writeln!(
            out,
            "  {:names$}  {:types$}  {null:4}  {}",
            column.name, column.sql_type, column.doc
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Step, is_command, steps};

    #[test]
    fn lines_that_begin_with_a_backslash_are_commands_between_statements() {
        let (command, statement) = (Step::Command, Step::Statement);
        assert_eq!(steps(r"\d decisions"), [command(r"\d decisions")]);
        assert_eq!(
            steps("select 1;\n-- all\n \\d\r\n\\timing\nselect\n2"),
            [statement("select 1"), command(r"\d"), command(r"\timing"), statement("select\n2")]
        );
        for one in ["select '\n\\d'", "/*\n\\d\n*/ select 1", "select 1\n\\d", "/**/ \\d"] {
            assert_eq!(steps(one), [statement(one)]);
        }
        assert_eq!(steps("/* a\n*/\n\\d ';\n;\n\\q"), [command(r"\d ';"), command(r"\q")]);
        assert!(steps("; -- a\n;\n/* \n\\d").is_empty());
    }

    #[test]
    fn a_long_text_is_looked_at_once() {
        let begun = Instant::now();
        let open = "select 1".to_owned() + &"\n\\d".repeat((1 << 20) / 3);
        assert_eq!(steps(&open), [Step::Statement(&open)]);
        let many = "select 1;\n\\d\n".repeat((1 << 20) / 13);
        assert_eq!(steps(&many).len(), 2 * ((1 << 20) / 13));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn commands_are_told_from_sql() {
        for command in [r"\d", r" \q ", "exit", "quit;", "help", r"\nonsense"] {
            assert!(is_command(command), "{command}");
        }
        for sql in ["select 1", "select '\\d'", "exits", "", "--"] {
            assert!(!is_command(sql), "{sql}");
        }
    }
}
