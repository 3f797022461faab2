//! `aion dead-letters list`.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray},
    record_batch::RecordBatch,
};
use indicatif::HumanCount;

use super::{
    Filter,
    letters::{self, Case, State},
};
use crate::{
    args::jobs::PlaceArgs,
    commands::sql::format::{Format, Printer},
};

/// What is shown of a detail in a table.
const DETAIL_CHARS: usize = 60;

/// The arguments of `aion dead-letters list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// Count them by reason instead.
    #[arg(long)]
    by_reason: bool,
    /// Those that are stored by now, too.
    #[arg(long)]
    all: bool,
    /// At most so many lines [default: 50 in a table, else all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// How they are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    place: PlaceArgs,
}

const TABLE_LINES: usize = 50;

/// Runs it.
pub(super) fn run(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let place = args.place.open()?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let found = runtime.block_on(async {
        args.filter.check(&place).await?;
        letters::find(&place, &args.filter.sql()).await
    })?;
    match print(args, &found.0, found.1, &mut io::stdout().lock()) {
        // `| head` has what it wanted.
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed.context("print the dead letters")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(
    args: &ListArgs,
    found: &[Case],
    sees_waiting: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let cases: Vec<&Case> =
        found.iter().filter(|case| args.all || case.state != State::Stored).collect();
    let rows = if args.by_reason { by_reason(found) } else { one_by_one(args, &cases) };
    let rows = rows.map_err(io::Error::other)?;
    let limit = match args.format {
        Format::Table => args.limit.unwrap_or(TABLE_LINES),
        _ => args.limit.unwrap_or(usize::MAX),
    };
    let shown = rows.slice(0, rows.num_rows().min(limit));
    let terminal = io::stdout().is_terminal();
    let mut printer = Printer::new(out, args.format, terminal, shown.schema());
    printer.rows(&shown)?;
    printer.end()?;
    if args.format == Format::Table {
        let left = rows.num_rows() - shown.num_rows();
        if left > 0 {
            writeln!(out, "{} more: --limit shows them", HumanCount(left as u64))?;
        }
        writeln!(out, "{}", sum(found, args.all || args.by_reason))?;
    }
    if !sees_waiting {
        eprintln!("aion: no broker was asked: retries that wait for their job show as open");
    }
    Ok(())
}

/// How many there are of each state.
pub(super) fn sum(cases: &[Case], all: bool) -> String {
    let count = |state| cases.iter().filter(|case| case.state == state).count() as u64;
    let (open, retried, stored) = (count(State::Open), count(State::Retried), count(State::Stored));
    let hidden = if stored > 0 && !all { " (--all shows them)" } else { "" };
    format!(
        "{} open, {} retried, {} stored by now{hidden}",
        HumanCount(open),
        HumanCount(retried),
        HumanCount(stored)
    )
}

fn one_by_one(args: &ListArgs, cases: &[&Case]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let texts = |text: &dyn Fn(&Case) -> Option<String>| -> ArrayRef {
        Arc::new(cases.iter().map(|case| text(case)).collect::<StringArray>())
    };
    let numbers = |number: &dyn Fn(&Case) -> Option<i64>| -> ArrayRef {
        Arc::new(cases.iter().map(|case| number(case)).collect::<Int64Array>())
    };
    let times = |time: &dyn Fn(&Case) -> i64| -> ArrayRef {
        let times = TimestampMicrosecondArray::from_iter_values(cases.iter().map(|one| time(one)));
        Arc::new(times.with_timezone("UTC"))
    };
    let field = texts(&|case| case.letter.field.as_deref().map(str::to_owned));
    let (state, reason) = (
        texts(&|case| Some(case.state.word().to_owned())),
        texts(&|case| Some(case.letter.reason.to_string())),
    );
    let (rejected_at, key) =
        (times(&|case| case.letter.rejected_at.0), texts(&|case| Some(case.letter.key())));
    let letters = numbers(&|case| i64::try_from(case.letters).ok());
    if args.format == Format::Table {
        return RecordBatch::try_from_iter_with_nullable([
            ("rejected_at", rejected_at, true),
            ("state", state, true),
            ("rejected", letters, true),
            ("reason", reason, true),
            ("field", field, true),
            ("detail", texts(&|case| Some(shortened(&case.letter.detail))), true),
            ("key", key, true),
        ]);
    }
    RecordBatch::try_from_iter_with_nullable([
        ("key", key, true),
        ("state", state, true),
        ("rejected", letters, true),
        ("job", texts(&|case| Some(case.letter.job.to_string())), true),
        ("topic", texts(&|case| Some(case.letter.topic.to_string())), true),
        ("topic_id", texts(&|case| Some(case.letter.at.topic_id.to_string())), true),
        ("partition", numbers(&|case| Some(case.letter.at.partition.into())), true),
        ("offset", numbers(&|case| Some(case.letter.at.offset.get())), true),
        ("reason", reason, true),
        ("field", field, true),
        ("detail", texts(&|case| Some(case.letter.detail.clone())), true),
        ("schema_id", numbers(&|case| case.letter.schema_id), true),
        ("append_time", times(&|case| case.letter.append_time.0), true),
        ("rejected_at", rejected_at, true),
        ("origin", texts(&|case| Some(case.letter.first.origin.to_string())), true),
    ])
}

fn shortened(detail: &str) -> String {
    match detail.char_indices().nth(DETAIL_CHARS) {
        Some((end, _)) => format!("{}…", &detail[..end]),
        None => detail.to_owned(),
    }
}

/// Counts by job, topic, reason and field, the most first.
fn by_reason(cases: &[Case]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut groups = BTreeMap::<[&str; 4], ([i32; 3], i64)>::new();
    for Case { letter, state, .. } in cases {
        let field = letter.field.as_deref().unwrap_or_default();
        let group = [&*letter.job, &*letter.topic, &*letter.reason, field];
        let (counts, latest) = groups.entry(group).or_insert(([0; 3], i64::MIN));
        counts[*state as usize] += 1;
        *latest = (*latest).max(letter.rejected_at.0);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (counts, _))| std::cmp::Reverse(counts.iter().sum::<i32>()));
    let text = |at: usize| -> ArrayRef {
        let texts = groups.iter().map(|(group, _)| Some(group[at]).filter(|text| !text.is_empty()));
        Arc::new(texts.collect::<StringArray>())
    };
    let count = |at: usize| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(groups.iter().map(|(_, (counts, _))| counts[at])))
    };
    let latest = groups.iter().map(|(_, (_, latest))| *latest);
    let latest = TimestampMicrosecondArray::from_iter_values(latest).with_timezone("UTC");
    RecordBatch::try_from_iter_with_nullable([
        ("job", text(0), true),
        ("topic", text(1), true),
        ("reason", text(2), true),
        ("field", text(3), true),
        ("open", count(0), true),
        ("retried", count(1), true),
        ("stored", count(2), true),
        ("latest", Arc::new(latest) as ArrayRef, true),
    ])
}
