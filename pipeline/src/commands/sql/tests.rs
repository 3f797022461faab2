#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Instant;

use aion_schemas::{
    catalog::Catalog,
    log::{Offset, Timestamp},
};
use aion_sinks::{
    batch::Batch,
    budget::Reservation,
    lake::{Lake, StoreOptions, TableSpec},
    sink::{Flush, Sink},
};
use clap::Parser;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::*;
use crate::{exit::code_of, place};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: SqlArgs,
}

fn args(words: &[&str]) -> SqlArgs {
    Line::try_parse_from(std::iter::once("sql").chain(words.iter().copied())).unwrap().args
}

/// Runs a command line; returns what it printed, with times as `N ms`.
fn run_line(words: &[&str]) -> (Outcome, String) {
    let mut out = Vec::new();
    let outcome = answer(&args(words), &mut out, false).unwrap();
    let printed = String::from_utf8(out).unwrap();
    let untimed = |line: &str| match line.split_once(" in ") {
        Some((count, _)) if count.ends_with("row") || count.ends_with("rows") => {
            format!("{count} in N ms\n")
        }
        _ => format!("{line}\n"),
    };
    (outcome, printed.lines().map(untimed).collect())
}

/// A data folder with two decisions in it, the second of which attacks the reader's terminal.
fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let topic = Catalog::builtin().table("decisions").unwrap().clone();
    let row = |offset: i64, task: &str, route: &str| {
        json!({
            "task_id": task, "intent": "chat", "route": route, "reason": "policy",
            "tier": "internal", "timestamp": format!("2026-11-25T10:00:0{offset}.5Z"),
            "_topic_id": Uuid::from_u128(7), "_leader_epoch": 0, "_partition": 0, "_offset": offset,
            "_append_time": "2026-11-25T12:00:00Z",
        })
        .to_string()
    };
    let lines = row(0, "a", "small") + &row(1, "b\u{1b}[31m", "large");
    let mut reader =
        arrow::json::ReaderBuilder::new(topic.schema.arrow()).build(lines.as_bytes()).unwrap();
    let rows = reader.next().unwrap().unwrap();
    let stream = aion_schemas::log::Stream { topic: topic.name.clone(), id: Uuid::from_u128(7) };
    let partition = aion_schemas::log::Partition { stream, number: 0 };
    let at = Timestamp(1_764_072_000_000_000);
    let batch = Batch {
        partition: partition.clone(),
        range: Offset(0)..Offset(2),
        epoch: 0,
        appended: Some((at, at)),
        rows,
        memory: Reservation::none(),
    };
    let url = Url::from_directory_path(folder.path().join("lake")).unwrap();
    let schema = topic.schema.arrow();
    let spec = TableSpec { name: "decisions".into(), schema, event_time: "timestamp".into() };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let lake = Lake::open(&url, &StoreOptions::default()).unwrap();
        let mut sink = lake.sink(spec, aion_sinks::lake::Settings::default()).await.unwrap();
        sink.assign(&[partition]).await.unwrap();
        sink.write(batch).await.unwrap();
        let now = Instant::now();
        let deadline = now + Duration::from_mins(1);
        sink.flush(now, Flush::Now { deadline }).await.unwrap();
    });
    folder
}

fn path(folder: &tempfile::TempDir) -> &str {
    folder.path().to_str().unwrap()
}

const DECISIONS: &str = "select task_id, route, timestamp, _offset from decisions order by _offset";

#[test]
fn a_query_prints_a_table() {
    let data = data();
    let (outcome, printed) = run_line(&[DECISIONS, "--data", path(&data)]);
    let expected = r"
+-------------+-------+--------------------------+---------+
| task_id     | route | timestamp                | _offset |
+-------------+-------+--------------------------+---------+
| a           | small | 2026-11-25T10:00:00.500Z |       0 |
| b\u{1b}[31m | large | 2026-11-25T10:00:01.500Z |       1 |
+-------------+-------+--------------------------+---------+
2 rows in N ms
";
    assert_eq!(printed, expected.trim_start());
    assert_eq!(outcome, Outcome::Answered);
}

#[test]
fn csv_and_json_are_for_programs() {
    let data = data();
    let (_, csv) = run_line(&[DECISIONS, "--data", path(&data), "--format", "csv"]);
    let expected = "task_id,route,timestamp,_offset\n\
                    a,small,2026-11-25T10:00:00.500Z,0\n\
                    b\u{1b}[31m,large,2026-11-25T10:00:01.500Z,1\n";
    assert_eq!(csv, expected);
    let lake = data.path().join("lake");
    let sql = "select task_id, tenant_id from decisions where _offset = 0";
    let (_, json) = run_line(&[sql, "--lake", lake.to_str().unwrap(), "--format", "json"]);
    assert_eq!(json, "{\"task_id\":\"a\",\"tenant_id\":null}\n");
}

#[test]
fn a_file_of_statements_runs_to_the_first_error() {
    let data = data();
    let file = data.path().join("statements.sql");
    fs::write(&file, "select 1 as a; -- one;\nselect nothing; select 3;").unwrap();
    let line = ["-f", file.to_str().unwrap(), "--data", path(&data), "--format", "csv"];
    assert_eq!(run_line(&line), (Outcome::Failed, "a\n1\n".into()));
    fs::write(&file, "select 1 as a;\n\nselect 2 as b").unwrap();
    assert_eq!(run_line(&line), (Outcome::Answered, "a\n1\nb\n2\n".into()));
}

/// It would look like a lake without rows.
#[test]
fn a_folder_without_tables_is_no_lake() {
    let data = tempfile::tempdir().unwrap();
    for line in [["select 1", "--data", path(&data)], ["select 1", "--lake", path(&data)]] {
        let error = answer(&args(&line), Vec::new(), false).unwrap_err();
        assert_eq!(code_of(&error), Exit::Data);
    }
    assert!(!data.path().join("lake").exists(), "reading makes nothing");
}

#[test]
fn a_statement_may_begin_with_a_comment() {
    let data = data();
    let line = ["-- how many\nselect count(*) as n from decisions", "--data", path(&data)];
    assert!(run_line(&line).1.contains("| 2 |"));
}

#[test]
fn a_null_of_no_type_is_shown_as_null() {
    let data = data();
    let line = ["select null as a, 1 as b", "--data", path(&data), "--format", "csv"];
    assert_eq!(run_line(&line).1, "a,b\n,1\n");
}

#[test]
fn nothing_to_open_names_the_command_that_makes_some() {
    for line in [
        ["select 1", "--data", "/nonexistent/aion"],
        ["select 1", "--lake", "/nonexistent/aion"],
        ["select 1", "--lake", "file:///nonexistent/aion"],
    ] {
        let error = answer(&args(&line), Vec::new(), false).unwrap_err();
        assert_eq!(code_of(&error), Exit::Data);
        assert!(error.to_string().contains("`aion dev` makes one"), "{error}");
    }
}

#[test]
fn a_wrong_command_line_is_refused() {
    for wrong in [
        &["select 1", "--file", "x"][..],
        &["--data", "a", "--lake", "b"],
        &["--format", "xml"],
        &["--memory", "much"],
        &["select 1", "--lake", "a", "--data", "b"],
    ] {
        let line = std::iter::once("sql").chain(wrong.iter().copied());
        assert!(Line::try_parse_from(line).is_err(), "{wrong:?}");
    }
    let data = data();
    let missing = args(&["--file", "/nonexistent/x.sql", "--data", path(&data)]);
    let error = answer(&missing, Vec::new(), false).unwrap_err();
    assert_eq!(code_of(&error), Exit::Usage);
}

/// Takes some bytes, then is closed, like `head`.
struct Closing(usize);

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            None => Err(io::ErrorKind::BrokenPipe.into()),
            Some(left) => {
                self.0 = left;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let data = data();
    let sql = "select value from range(0, 100000000)";
    let begun = Instant::now();
    let outcome = answer(&args(&[sql, "--data", path(&data)]), Closing(100_000), false).unwrap();
    assert_eq!(outcome, Outcome::Answered);
    assert!(begun.elapsed() < Duration::from_secs(30), "the query went on: {:?}", begun.elapsed());
}

#[test]
fn memory_and_time_are_bounded_by_the_command_line() {
    let data = data();
    let endless = "select count(*) from range(0, 3000000000) a, range(0, 3000000000) b";
    assert_eq!(run_line(&[endless, "--data", path(&data), "--timeout", "1"]).0, Outcome::Failed);
}

#[test]
fn commands_describe_tables_and_change_the_format() {
    let data = data();
    let engine = open_lake(&args(&["--data", path(&data)])).unwrap();
    let answering = Answering::Here(Box::new(engine));
    let mut shell = Shell::new(answering, Vec::new(), Format::Table, false);
    let mut say = |line: &str| {
        shell.out.clear();
        let next = command::run(line, &mut shell).unwrap();
        (next, String::from_utf8(shell.out.clone()).unwrap())
    };
    let (_, tables) = say(r"\d");
    assert!(tables.lines().any(|line| line.starts_with("  decisions ")), "{tables}");
    assert!(tables.contains("  lag  "), "{tables}");
    let (_, columns) = say(r"\d decisions");
    assert!(columns.contains("  task_id ") && columns.contains("Id of the task"), "{columns}");
    assert!(columns.contains("timestamptz") && columns.contains("_date"), "{columns}");
    let (_, unknown) = say(r"\d decision");
    assert_eq!(unknown, "no table `decision`; did you mean `decisions`?\n");
    assert_eq!(say(r"\nonsense").1, "no command \\nonsense; \\? lists them\n");
    assert_eq!(say(r"\timing").1, "times are hidden\n");
    assert!(say(r"\?").1.contains(r"\q"));
    assert_eq!(say("exit;").0, command::Next::Leave);
    say(r"\format csv");
    assert_eq!(shell.format, Format::Csv);
    assert!(!shell.timing);
}

#[test]
fn sizes_are_read() {
    assert_eq!(bytes("512MiB"), Ok(512 << 20));
    assert_eq!(bytes("4g"), Ok(4 << 30));
    assert_eq!(bytes("2048 KB"), Ok(2 << 20));
    assert_eq!(bytes("1048576"), Ok(1 << 20));
    for bad in ["", "MiB", "12 parsecs", "-1", "1k", "99999999999999999999", "99999999999GiB"] {
        assert!(bytes(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_file_is_found_relative_to_where_one_stands() {
    assert!(place::folder_url(Path::new("data")).unwrap().path().ends_with("/data/"));
}
