//! A report for people.

use std::io::{self, Write};

use aion_schemas::catalog::RETRIES;
use aion_sinks::clickhouse::guarantee::Guarantee;
use indicatif::HumanCount;
use unicode_width::UnicodeWidthStr;

use super::{
    account::{Ranges, Run, Tally, Wrong},
    report::{Bounds, Compared, PartitionReport, Report, TopicReport, Verdict},
};

/// Of a finding so many stretches are printed; `--json` has more.
const RANGES: usize = 8;

const HEAD: [&str; 12] = [
    "topic",
    "partition",
    "log",
    "judged",
    "stored",
    "dead letters",
    "tombstones",
    "holes",
    "gaps",
    "wrong",
    "pending",
    "verdict",
];
/// Columns from here to the last are numbers, and stand to the right.
const NUMBERS: std::ops::Range<usize> = 1..11;

/// Prints the table, then a line for all that isn't exact, then the sum of it.
pub(super) fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for topic in &report.topics {
        let shown = topic.partitions.iter().filter(|partition| !is_idle(topic, partition));
        rows.extend(shown.map(|partition| row(topic, partition)));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: [usize; 12] = std::array::from_fn(width);
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let pad = " ".repeat(width - cell.width());
            let is_number = NUMBERS.contains(&column);
            let (left, right) = if is_number { (&*pad, &**cell) } else { (&**cell, &*pad) };
            line.extend([left, right, "  "]);
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)?;
    for topic in &report.topics {
        for partition in &topic.partitions {
            explain(topic, partition, out)?;
        }
    }
    compared(&report.compared, out)?;
    sum_up(report, out)
}

/// What two stores say of the same records: a line for each topic, and one for each partition where they differ.
fn compared(all: &[Compared], out: &mut impl Write) -> io::Result<()> {
    for partition in all.iter().filter(|one| one.differing.offsets > 0) {
        let (topic, number) = (&partition.topic, partition.partition);
        let what = "the lake and clickhouse say different things of";
        writeln!(out, "{topic}/{number}: wrong: {what} {}", list(&partition.differing))?;
    }
    let mut topics: Vec<&str> = all.iter().map(|one| &*one.topic).collect();
    topics.dedup();
    for topic in topics {
        let of = || all.iter().filter(|one| &*one.topic == topic);
        if of().any(|one| one.differing.offsets > 0) {
            continue;
        }
        let rows = HumanCount(of().map(|one| one.rows).sum());
        writeln!(out, "{topic}: the lake and clickhouse say the same of {rows} rows")?;
    }
    Ok(())
}

/// Whether nobody ever sent a retry there.
fn is_idle(topic: &TopicReport, partition: &PartitionReport) -> bool {
    let has_no_log = partition.log.is_some_and(|log| log.next == 0);
    topic.topic.starts_with(RETRIES) && has_no_log && partition.verdict == Verdict::Exact
}

fn row(topic: &TopicReport, partition: &PartitionReport) -> [String; 12] {
    let range =
        |bounds: Option<Bounds>| bounds.map_or_else(|| "-".into(), |b| show(&(b.first..b.next)));
    let count = |count: u64| HumanCount(count).to_string();
    let tally = &partition.tally;
    [
        name(topic, partition),
        partition.partition.to_string(),
        range(partition.log),
        range(partition.range),
        count(tally.stored + tally.retried),
        count(tally.dead_letters),
        count(tally.tombstones),
        count(tally.holes + tally.passed_over),
        count(tally.gaps),
        count(partition.findings.iter().map(|finding| finding.ranges.offsets).sum()),
        count(partition.pending),
        words(partition.verdict).to_owned(),
    ]
}

/// The topic's name; with its id where the log is another incarnation's, or none.
fn name(topic: &TopicReport, partition: &PartitionReport) -> String {
    let place = if topic.sink == "lake" { "" } else { " in clickhouse" };
    match partition.log {
        Some(_) => format!("{}{place}", topic.topic),
        None => format!("{}{place} (id {})", topic.topic, partition.topic_id),
    }
}

fn explain(
    topic: &TopicReport,
    partition: &PartitionReport,
    out: &mut impl Write,
) -> io::Result<()> {
    let place = format!("{}/{}", name(topic, partition), partition.partition);
    for finding in &partition.findings {
        let what = meaning(finding.kind, topic.guarantee);
        writeln!(out, "{place}: wrong: {what}: {}", list(&finding.ranges))?;
    }
    for reason in &partition.reasons {
        writeln!(out, "{place}: not provable: {}", reason.detail)?;
    }
    let Tally { retried, passed_over, .. } = partition.tally;
    if retried > 0 {
        writeln!(out, "{place}: {} of the stored by retries of dead letters", HumanCount(retried))?;
    }
    if passed_over > 0 {
        let count = HumanCount(passed_over);
        writeln!(out, "{place}: {count} retries without a row: stored before, or another job's")?;
    }
    let (expired, log) = (partition.tally.expired, partition.log);
    if let Some(log) = log.filter(|_| expired > 0) {
        let expired = HumanCount(expired);
        writeln!(
            out,
            "{place}: {expired} rows are older than its log, which begins at {}",
            log.first
        )?;
    }
    Ok(())
}

fn meaning(wrong: Wrong, guarantee: Guarantee) -> &'static str {
    match wrong {
        Wrong::Missing => "neither stored nor a dead letter",
        Wrong::StoredTwice if guarantee == Guarantee::AtLeastOnce => {
            "stored more than once, which `guarantee` in the configuration allows"
        }
        Wrong::StoredTwice => "stored more than once",
        Wrong::NotInLog => "stored, and the log has no record that becomes a row",
        Wrong::Diverged => "the log was cut there, and has other records than were stored",
        Wrong::BeyondMark => "stored at or above the table's own mark",
        Wrong::BeyondLog => "marked as stored, and the log ends before",
    }
}

fn list(ranges: &Ranges) -> String {
    let mut shown: Vec<String> = ranges.runs.iter().take(RANGES).map(show).collect();
    if ranges.more || ranges.runs.len() > RANGES {
        shown.push("...".to_owned());
    }
    let plural = if ranges.offsets == 1 { "" } else { "s" };
    format!("{} ({} offset{plural})", shown.join(", "), HumanCount(ranges.offsets))
}

/// Offsets are positions: they are printed as other tools print them.
fn show(run: &Run) -> String {
    format!("{}..{}", run.start, run.end)
}

fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Exact => "exact",
        Verdict::NotProvable => "not provable",
        Verdict::Wrong => "wrong",
    }
}

fn sum_up(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let all = || report.topics.iter().flat_map(|topic| &topic.partitions);
    let judged = HumanCount(all().map(|partition| partition.tally.judged).sum());
    let pending: u64 = all().map(|partition| partition.pending).sum();
    let since = report.since.as_ref().map_or_else(String::new, |since| format!(" since {since}"));
    let seconds = report.seconds;
    match report.verdict {
        Verdict::Exact => write!(
            out,
            "exact: each of {judged} offsets{since} is one row, or has its reason not to be"
        )?,
        Verdict::NotProvable => write!(
            out,
            "not provable: {judged} offsets{since} were judged and are right, others can't be"
        )?,
        Verdict::Wrong => {
            let places = all().filter(|partition| partition.verdict == Verdict::Wrong).count();
            let (of, plural) = (all().count(), if places == 1 { "" } else { "s" });
            write!(
                out,
                "wrong: {places} partition{plural} of {of}; {judged} offsets{since} were judged"
            )?;
        }
    }
    let pending = if pending > 0 {
        format!("; {} are still to be stored", HumanCount(pending))
    } else {
        String::new()
    };
    writeln!(out, "{pending} ({seconds:.1} s)")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use uuid::Uuid;

    use super::*;

    fn partition(partition: i32, tally: Tally, log: Option<Bounds>) -> PartitionReport {
        PartitionReport {
            topic_id: Uuid::nil(),
            partition,
            log,
            mark: Some(90),
            range: log.map(|_| (20..90).into()),
            tally,
            pending: 1234,
            verdict: Verdict::Exact,
            reasons: Vec::new(),
            findings: Vec::new(),
        }
        .concluded()
    }

    #[test]
    fn doubles_are_wrong_and_said_to_be_allowed_where_they_are() {
        let of = |guarantee| meaning(Wrong::StoredTwice, guarantee);
        assert_eq!(of(Guarantee::ExactlyOnce), "stored more than once");
        assert!(of(Guarantee::AtLeastOnce).contains("in the configuration allows"));
    }

    #[test]
    fn a_report_is_a_table_and_a_line_for_what_is_not_exact() {
        let log = Some((20..1324).into());
        let exact = Tally { judged: 70, stored: 69, holes: 1, expired: 20, ..Tally::default() };
        let mut wrong = Tally { judged: 70, stored: 61, missing: 9, ..Tally::default() };
        (0..9).for_each(|n| wrong.found(Wrong::Missing, 30 + 2 * n..31 + 2 * n, 1));
        let partitions = vec![partition(0, exact, log), partition(10, wrong, log)];
        let verdict = Verdict::Wrong;
        let (topic, table, job) = ("a.topic".into(), "t".into(), "t-lake".into());
        let guarantee = Guarantee::ExactlyOnce;
        let sink = "lake";
        let topics = vec![TopicReport { topic, table, job, sink, guarantee, verdict, partitions }];
        let (audited_at, since) = (String::new(), None);
        let compared = Vec::new();
        let report = Report { audited_at, seconds: 0.25, since, verdict, topics, compared };
        let mut out = Vec::new();
        print(&report, &mut out).unwrap();
        let expected = "\
topic    partition       log  judged  stored  dead letters  tombstones  holes  gaps  wrong  pending  verdict
a.topic          0  20..1324  20..90      69             0           0      1     0      0    1,234  exact
a.topic         10  20..1324  20..90      61             0           0      0     0      9    1,234  wrong

a.topic/0: 20 rows are older than its log, which begins at 20
a.topic/10: wrong: neither stored nor a dead letter: 30..31, 32..33, 34..35, 36..37, 38..39, 40..41, 42..43, \
44..45, ... (9 offsets)
wrong: 1 partition of 2; 140 offsets were judged; 2,468 are still to be stored (0.2 s)
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
