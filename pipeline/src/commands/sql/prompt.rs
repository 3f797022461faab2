//! The prompt: edits lines, keeps them between sessions, gathers statements over several lines.

use std::{
    env, fs,
    io::{self, Write},
    path::PathBuf,
};

use aion_analytics::{statements, tables::TableInfo};
use rustyline::{
    Config, Context, Editor, Helper, completion::Completer, error::ReadlineError,
    highlight::Highlighter, hint::Hinter, history::DefaultHistory, validate::Validator,
};
use tokio::runtime::Runtime;

use super::{
    command::{self, HELP, Next},
    pager::Screen,
    shell::{Outcome, Shell},
};

/// Lines that are kept.
const HISTORY_LINES: usize = 2000;

const KEYWORDS: [&str; 32] = [
    "and",
    "asc",
    "avg",
    "between",
    "by",
    "case",
    "count",
    "date_bin",
    "date_trunc",
    "desc",
    "distinct",
    "else",
    "end",
    "explain",
    "from",
    "group",
    "having",
    "interval",
    "is",
    "join",
    "like",
    "limit",
    "max",
    "min",
    "not",
    "null",
    "order",
    "select",
    "sum",
    "then",
    "when",
    "where",
];

/// Runs the prompt until the person leaves. What failed is said at once, so leaving is a success.
pub(super) fn run<W: Write>(shell: &mut Shell<W>, runtime: &Runtime) -> io::Result<Outcome> {
    let mut editor = editor(shell.answering.tables()).map_err(io_error)?;
    let history = history_file();
    if let Some(file) = &history {
        // The first session has none yet.
        editor.load_history(file).ok();
    }
    writeln!(shell.out, "{HELP}\n{}", shell.answering.rows_are())?;
    let outcome = converse(shell, runtime, &mut editor);
    if let Some(file) = &history
        && let Err(cause) = editor.save_history(file)
    {
        eprintln!("aion: keep the history in {}: {cause}", file.display());
    }
    outcome.map(|()| Outcome::Answered)
}

fn converse<W: Write>(
    shell: &mut Shell<W>,
    runtime: &Runtime,
    editor: &mut Editor<Names, DefaultHistory>,
) -> io::Result<()> {
    let mut typed = String::new();
    loop {
        let prompt = if typed.is_empty() { "aion> " } else { "   -> " };
        let line = editor.readline(prompt);
        shell.screen = screen(editor);
        match line {
            Ok(line) if typed.is_empty() && command::is_command(&line) => {
                remember(editor, &line);
                if command::run(&line, shell)? == Next::Leave {
                    return Ok(());
                }
            }
            Ok(line) => {
                typed.push_str(&line);
                typed.push('\n');
                typed = answer(shell, runtime, editor, &typed)?;
            }
            Err(ReadlineError::Interrupted) => typed.clear(),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(cause) => return Err(io_error(cause)),
        }
    }
}

/// The size of the terminal, which may have changed.
fn screen(editor: &mut Editor<Names, DefaultHistory>) -> Option<Screen> {
    let (columns, rows) = editor.dimensions()?;
    Some(Screen { columns: columns.into(), rows: rows.into() })
}

/// Runs the statements that are complete; returns what is still being typed.
fn answer<W: Write>(
    shell: &mut Shell<W>,
    runtime: &Runtime,
    editor: &mut Editor<Names, DefaultHistory>,
    typed: &str,
) -> io::Result<String> {
    let split = statements::split(typed);
    if !split.complete.is_empty() {
        remember(editor, typed.trim());
    }
    for statement in split.complete {
        let stopped = runtime.block_on(async {
            tokio::select! {
                outcome = shell.statement(statement) => outcome.map(|_| false),
                _ = tokio::signal::ctrl_c() => Ok(true),
            }
        })?;
        if stopped {
            writeln!(shell.out, "stopped")?;
        }
    }
    if statements::is_blank(split.rest) {
        return Ok(String::new());
    }
    Ok(format!("{}\n", split.rest))
}

fn remember(editor: &mut Editor<Names, DefaultHistory>, line: &str) {
    // A line that isn't kept is no reason to end the session.
    editor.add_history_entry(line).ok();
}

fn editor(tables: &[TableInfo]) -> Result<Editor<Names, DefaultHistory>, ReadlineError> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(rustyline::CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Names::of(tables)));
    Ok(editor)
}

/// `$XDG_STATE_HOME/aion/sql_history`, by default below `~/.local/state`; none without a home.
fn history_file() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")))?;
    let folder = state.join("aion");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("sql_history"))
}

fn io_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(cause) => cause,
        other => io::Error::other(other),
    }
}

/// Completes the names of tables and columns, and the words of SQL.
struct Names {
    /// Each table with its columns.
    tables: Vec<(String, Vec<String>)>,
    /// All of those, and the words.
    all: Vec<String>,
}

impl Names {
    fn of(tables: &[TableInfo]) -> Names {
        let columns =
            |table: &TableInfo| table.columns.iter().map(|one| one.name.clone()).collect();
        let tables: Vec<(String, Vec<String>)> =
            tables.iter().map(|table| (table.name.clone(), columns(table))).collect();
        let names = tables.iter().flat_map(|(table, columns)| columns.iter().chain([table]));
        let mut all: Vec<String> = names.cloned().chain(KEYWORDS.map(str::to_owned)).collect();
        all.sort();
        all.dedup();
        Names { tables, all }
    }

    /// Where the word before the cursor starts, and the names that it may become: after `from` and `join`
    /// tables, after the name of a table and a dot its columns.
    fn candidates(&self, line: &str, cursor: usize) -> (usize, Vec<String>) {
        let typed = &line[..cursor];
        let start = word_start(typed);
        let (before, word) = (&typed[..start], typed[start..].to_lowercase());
        let asked = |name: &&String| name.starts_with(&word);
        let only =
            |names: &mut dyn Iterator<Item = &String>| names.filter(asked).cloned().collect();
        if let Some(owner) = before.strip_suffix('.') {
            let owner = owner[word_start(owner)..].to_lowercase();
            if let Some((_, columns)) = self.tables.iter().find(|(name, _)| *name == owner) {
                return (start, only(&mut columns.iter()));
            }
        }
        let previous = before.trim_end();
        let previous = previous[word_start(previous)..].to_lowercase();
        if matches!(&*previous, "from" | "join" | r"\d") {
            return (start, only(&mut self.tables.iter().map(|(name, _)| name)));
        }
        if word.is_empty() {
            return (start, Vec::new());
        }
        (start, only(&mut self.all.iter()))
    }
}

/// Where the last word begins.
fn word_start(text: &str) -> usize {
    let between = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '\\'));
    text.rfind(between).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8))
}

impl Completer for Names {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(line, cursor))
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}
impl Validator for Names {}
impl Helper for Names {}

#[cfg(test)]
mod tests {
    use super::Names;

    fn names() -> Names {
        let table = |name: &str, columns: &[&str]| {
            (name.to_owned(), columns.iter().map(|&column| column.to_owned()).collect())
        };
        let tables = vec![table("decisions", &["task_id", "tier"]), table("tasks", &["task_id"])];
        let all = ["decisions", "describe", "task_id", "tasks", "tier"].map(str::to_owned).into();
        Names { tables, all }
    }

    #[test]
    fn the_word_before_the_cursor_is_completed() {
        let names = names();
        let complete = |line: &str| names.candidates(line, line.len());
        assert_eq!(complete("select TA"), (7, vec!["task_id".into(), "tasks".into()]));
        assert_eq!(complete("select d.task_"), (9, vec!["task_id".into()]));
        assert_eq!(complete("é·de").1.len(), 2);
        assert_eq!(complete("select ").1.len(), 0);
    }

    #[test]
    fn a_place_that_wants_a_table_or_its_column_gets_no_other_name() {
        let names = names();
        let complete = |line: &str| names.candidates(line, line.len()).1;
        assert_eq!(complete("select 1 from "), ["decisions", "tasks"]);
        assert_eq!(complete("select 1 FROM t"), ["tasks"]);
        assert_eq!(complete(r"\d d"), ["decisions"]);
        assert_eq!(complete("select decisions."), ["task_id", "tier"]);
        assert_eq!(complete("select tasks.ti"), Vec::<String>::new());
    }
}
