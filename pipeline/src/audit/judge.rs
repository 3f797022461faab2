//! The audit itself, topic by topic and window by window.
//!
//! The order of looks is what makes it sound while writers go on:
//!
//! 1. topic ids, then the lake's marks: below a mark everything must be there from now on;
//! 2. which partitions the tables have, then the marks again: rows at or above *these* are wrong;
//! 3. the logs' ends: they lie at or above the first marks, else a log was cut;
//! 4. dead letters and gaps: they are acknowledged before a mark passes their offsets;
//! 5. the windows, from the log's start to the first marks; 6. the topic ids again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use aion_schemas::{
    catalog::{DEAD_LETTERS, Topic},
    log::Timestamp,
};
use anyhow::bail;
use roaring::RoaringTreemap;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    account::{Facts, Gap, Holes, Run, Tally, Window, Wrong},
    kafka::{Bounds, Cluster, Log},
    ledger::Ledger,
    progress::Progress,
    report::{Doubt, PartitionReport, Report, TopicReport, Verdict, rfc3339},
    scope::{Place as Audited, Scope},
    since::now,
    stored::{Place, Rows, Stores},
};

/// Offsets of a window: two MiB of bits.
pub(super) const WINDOW: i64 = 1 << 22;

type Marks = BTreeMap<Place, i64>;

/// Audits all that is in scope. It blocks, for as long as reading the logs takes.
pub(super) fn audit(
    scope: &Scope,
    progress: &Progress,
    cancel: &CancellationToken,
) -> anyhow::Result<Report> {
    let (began, clock) = (now(), Instant::now());
    let since = scope.since.map(super::Since::time);
    let cluster = Cluster::open(&scope.connection, cancel)?;
    let stores = Stores::open(scope, cancel)?;
    let looks = looks(scope, &cluster, &stores, since)?;
    progress.reads_books();
    let ledger = Ledger::read(&cluster, &stores, &scope.catalog)?;
    progress.starts(looks.iter().map(Look::length).sum());
    let (cluster, stores, ledger, window) = (&cluster, &stores, &ledger, scope.window);
    let judge = Judge { cluster, stores, ledger, window, progress, cancel };
    let topics = looks.iter().map(|look| judge.topic(look)).collect::<Result<Vec<_>, _>>()?;
    progress.ends();
    let verdict = topics.iter().map(|topic| topic.verdict).max().unwrap_or_default();
    Ok(Report {
        audited_at: rfc3339(began),
        seconds: clock.elapsed().as_secs_f64(),
        since: since.map(rfc3339),
        verdict,
        topics,
    })
}

/// A topic before its windows are read: what the log and the table say of themselves.
struct Look<'a> {
    audited: &'a Audited,
    /// The topic's id; none where there is no such topic.
    id: Option<Uuid>,
    holes: Holes,
    bounds: Vec<Bounds>,
    /// Marks from before the rows were counted, and from after.
    marks: Marks,
    later: Marks,
    census: BTreeMap<Place, Rows>,
    is_whole: bool,
}

fn looks<'a>(
    scope: &'a Scope,
    cluster: &Cluster,
    stores: &Stores,
    since: Option<Timestamp>,
) -> anyhow::Result<Vec<Look<'a>>> {
    let mut ids = Vec::new();
    for audited in &scope.places {
        ids.push(cluster.identity(&audited.topic.name)?.id);
    }
    let mut marks = stores.marks()?;
    let mut counted = Vec::new();
    for audited in &scope.places {
        counted.push(stores.census(&audited.topic, since)?);
    }
    let mut later = stores.marks()?;
    let mut looks = Vec::new();
    for ((audited, id), census) in scope.places.iter().zip(ids).zip(counted) {
        let topic = &audited.topic;
        let identity = cluster.identity(&topic.name)?;
        let bounds = match identity.id {
            None => Vec::new(),
            Some(_) => cluster.bounds(&identity, since)?,
        };
        if id != identity.id || cluster.identity(&topic.name)?.id != id {
            bail!("topic {} was made anew while it was looked at: audit again", topic.name);
        }
        looks.push(Look {
            audited,
            id,
            holes: if id.is_some() { cluster.holes(&topic.name) } else { Holes::Unknown },
            bounds,
            marks: marks.remove(&topic.name).unwrap_or_default(),
            later: later.remove(&topic.name).unwrap_or_default(),
            census,
            is_whole: since.is_none(),
        });
    }
    Ok(looks)
}

impl Look<'_> {
    /// The partitions with a log, then those of which only rows are left.
    fn places(&self) -> impl Iterator<Item = (Place, Option<Bounds>)> {
        let logs = self.id.into_iter().flat_map(|id| {
            (0..).zip(&self.bounds).map(move |(number, bounds)| ((id, number), Some(*bounds)))
        });
        let marked = self.marks.keys().filter(|_| self.is_whole);
        let stored: BTreeSet<Place> = self.census.keys().chain(marked).copied().collect();
        let has_log = |(id, number): &Place| {
            Some(*id) == self.id && usize::try_from(*number).is_ok_and(|n| n < self.bounds.len())
        };
        logs.chain(
            stored.into_iter().filter(move |place| !has_log(place)).map(|place| (place, None)),
        )
    }

    /// What is looked at of a partition: from the first row, or the log's start, up to the mark.
    fn sweep(&self, place: Place, bounds: Option<Bounds>) -> Sweep {
        let rows = self.census.get(&place).copied();
        let Some(bounds) = bounds else {
            let all = rows.map_or(0..0, |rows| rows.first..rows.last.saturating_add(1));
            return Sweep { all: all.clone(), log: all.end..all.end };
        };
        let mark = self.marks.get(&place).copied().unwrap_or(bounds.since);
        let next = mark.min(bounds.next).max(bounds.since);
        let stored = rows.filter(|_| self.is_whole).map_or(bounds.since, |rows| rows.first);
        Sweep { all: stored.min(bounds.since)..next, log: bounds.since..next }
    }

    /// The number of offsets to look at, for the progress bar.
    fn length(&self) -> u64 {
        let length = |(place, bounds)| self.sweep(place, bounds).all;
        self.places().map(length).map(|all| all.end.saturating_sub(all.start).max(0) as u64).sum()
    }
}

/// The offsets of a partition to look at, and the part of them that the log has.
struct Sweep {
    all: Run,
    log: Run,
}

struct Judge<'a> {
    cluster: &'a Cluster,
    stores: &'a Stores,
    ledger: &'a Ledger,
    window: i64,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Judge<'_> {
    fn topic(&self, look: &Look<'_>) -> anyhow::Result<TopicReport> {
        let Audited { topic, job } = look.audited;
        let mut partitions = Vec::new();
        for (place, bounds) in look.places() {
            partitions.push(self.partition(look, place, bounds)?);
        }
        if self.cluster.identity(&topic.name)?.id != look.id {
            partitions.iter_mut().for_each(forget_log);
        }
        let partitions: Vec<_> = partitions.into_iter().map(PartitionReport::concluded).collect();
        let verdict = partitions.iter().map(|one| one.verdict).max().unwrap_or(Verdict::Exact);
        Ok(TopicReport {
            topic: Arc::clone(&topic.name),
            table: Arc::clone(&topic.table),
            job: job.clone(),
            verdict,
            partitions,
        })
    }

    fn partition(
        &self,
        look: &Look<'_>,
        place: Place,
        bounds: Option<Bounds>,
    ) -> anyhow::Result<PartitionReport> {
        let Audited { topic, job } = look.audited;
        let sweep = look.sweep(place, bounds);
        let (rejected, rejected_elsewhere) = self.ledger.rejected(place, job);
        let gaps = self.ledger.gaps(place, job);
        let facts = facts(look, &rejected, &rejected_elsewhere, &gaps);
        let log = bounds.map(|_| self.cluster.log(&topic.name, place.1, sweep.log.start));
        let mut tally = self.sweep(topic, place, &sweep, log, &facts)?;
        self.beyond_mark(look, place, &mut tally)?;
        let mark = look.marks.get(&place).copied();
        let mut report = PartitionReport {
            topic_id: place.0,
            partition: place.1,
            log: bounds.map(|bounds| (bounds.first..bounds.next).into()),
            mark,
            range: bounds.map(|_| sweep.log.clone().into()),
            tally,
            pending: 0,
            verdict: Verdict::Exact,
            reasons: Vec::new(),
            findings: Vec::new(),
        };
        match bounds {
            Some(bounds) => with_log(&mut report, bounds, mark, look.is_whole),
            None => without_log(&mut report, look),
        }
        if report.tally.other_job > 0 {
            let others: Vec<_> = self.ledger.other_jobs(place, job).into_iter().collect();
            let detail = format!(
                "{} offsets have a dead letter of {} and none of {job}: was the job renamed?",
                report.tally.other_job,
                others.join(", ")
            );
            report.doubt(Doubt::OtherJob, detail);
        }
        Ok(report)
    }

    /// Books every offset, window by window.
    fn sweep(
        &self,
        topic: &Topic,
        place: Place,
        sweep: &Sweep,
        mut log: Option<Log<'_>>,
        facts: &Facts<'_>,
    ) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        let mut at = sweep.all.start;
        while at < sweep.all.end {
            if self.cancel.is_cancelled() {
                bail!("the audit was stopped");
            }
            // A window is read or it isn't: one that began before the log's start would be neither.
            let until = if at < sweep.log.start { sweep.log.start } else { sweep.all.end };
            let mut window = Window::new(at..at.saturating_add(self.window).min(until));
            self.stores.fill(topic, place, &mut window)?;
            let next = window.run().end;
            let has_log = at >= sweep.log.start;
            match &mut log {
                Some(log) if has_log => log.fill(&mut window)?,
                _ => {}
            }
            facts.book(&window, &mut tally);
            let skipped = !has_log && window.is_empty() && next < until;
            let from = at;
            at = if skipped {
                // Rows may be far apart where no log connects them.
                self.stores.rows(topic, place, &(next..until))?.1.unwrap_or(until)
            } else {
                next
            };
            self.progress.passed(at.saturating_sub(from).max(0) as u64);
        }
        Ok(tally)
    }

    /// Rows at or above the mark of a later look than theirs: no flush puts them there.
    fn beyond_mark(&self, look: &Look<'_>, place: Place, tally: &mut Tally) -> anyhow::Result<()> {
        let Some(rows) = look.census.get(&place) else { return Ok(()) };
        let mark = look.later.get(&place).copied().unwrap_or(i64::MIN);
        if rows.last < mark {
            return Ok(());
        }
        let run = rows.first.max(mark)..rows.last.saturating_add(1);
        let (count, first) = self.stores.rows(&look.audited.topic, place, &run)?;
        tally.found(Wrong::BeyondMark, first.unwrap_or(run.start)..run.end, count);
        Ok(())
    }
}

fn facts<'a>(
    look: &Look<'_>,
    rejected: &'a RoaringTreemap,
    rejected_elsewhere: &'a RoaringTreemap,
    gaps: &'a [Gap],
) -> Facts<'a> {
    let nulls_are_rows = &*look.audited.topic.name == DEAD_LETTERS;
    Facts { rejected, rejected_elsewhere, gaps, holes: look.holes, nulls_are_rows }
}

/// What there is to say of a partition whose log is there.
fn with_log(report: &mut PartitionReport, bounds: Bounds, mark: Option<i64>, is_whole: bool) {
    let wanted = mark.unwrap_or(bounds.first).max(bounds.since);
    report.pending = (bounds.next - wanted).max(0) as u64;
    if let Some(mark) = mark.filter(|mark| *mark > bounds.next) {
        let run = bounds.next..mark;
        report.tally.found(Wrong::BeyondLog, run.clone(), (run.end - run.start) as u64);
    }
    if report.tally.doubtful > 0 {
        let detail = format!(
            "{} rows lie where the log has no record, and the cluster doesn't say whether the \
             topic is compacted: allow DescribeConfigs on it",
            report.tally.doubtful
        );
        report.doubt(Doubt::PolicyUnknown, detail);
    }
    if let Some(mark) = mark.filter(|mark| *mark < bounds.first) {
        let detail = format!(
            "the log lost {mark}..{} before they were stored; the job writes a gap down when it \
             goes on",
            bounds.first
        );
        return report.doubt(Doubt::LostUnread, detail);
    }
    if report.tally.judged > 0 {
        return;
    }
    if report.pending > 0 {
        let detail = format!("nothing asked for is stored yet, {} offsets wait", report.pending);
        report.doubt(Doubt::NotSettled, detail);
    } else if is_whole && mark.is_some_and(|mark| mark > 0) {
        let detail = format!("the log has nothing below {} any more", bounds.first);
        report.doubt(Doubt::Expired, detail);
    }
}

/// What there is to say of rows whose log is gone.
fn without_log(report: &mut PartitionReport, look: &Look<'_>) {
    let topic = &look.audited.topic.name;
    let what = match look.id {
        None => format!("there is no topic {topic} any more"),
        Some(id) if id == report.topic_id => format!("{topic} has no such partition any more"),
        Some(_) => format!("{topic} was made anew since: its log is another one"),
    };
    let detail = format!("{what}; only whether rows are there twice was looked at");
    report.doubt(Doubt::NoLog, detail);
}

/// The log that was read wasn't that of the rows: what only it could tell is taken back.
fn forget_log(report: &mut PartitionReport) {
    let kept = [Wrong::StoredTwice, Wrong::BeyondMark];
    report.tally.wrong.retain(|wrong, _| kept.contains(wrong));
    report.doubt(Doubt::MadeAnew, "the topic was made anew while it was read: audit again");
}

#[cfg(test)]
mod tests;
