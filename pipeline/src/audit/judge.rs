//! The audit itself, topic by topic and window by window.
//!
//! The order of looks is what makes it sound while writers go on:
//!
//! 1. topic ids, then the lake's marks: below a mark everything must be there from now on;
//! 2. which partitions the tables have, then the marks again: rows at or above *these* are wrong;
//! 3. the logs' ends: they lie at or above the first marks, else a log was cut;
//! 4. dead letters and gaps: they are acknowledged before a mark passes their offsets;
//! 5. the windows, from the log's start to the first marks; 6. the topic ids again.

use std::{sync::Arc, time::Instant};

use aion_analytics::exports::time::rfc3339;
use aion_schemas::catalog::{DEAD_LETTERS, RETRIES};
use anyhow::bail;
use roaring::RoaringTreemap;
use tokio_util::sync::CancellationToken;

use super::{
    account::{Facts, Tally, Window, Wrong},
    kafka::{Bounds, Cluster, Log},
    ledger::Ledger,
    look::{Look, Sweep, looks},
    progress::Progress,
    report::{Doubt, PartitionReport, Report, TopicReport, Verdict},
    retries::compare,
    scope::{Place as Audited, Scope},
    since::now,
    stored::{Place, Stores},
};

/// Offsets of a window: two MiB of bits.
pub(super) const WINDOW: i64 = 1 << 22;

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
    let ledger = Ledger::read(&cluster, &stores, &scope.catalog, scope.sink())?;
    progress.starts(looks.iter().map(Look::length).sum());
    let (cluster, stores, ledger, window) = (&cluster, &stores, &ledger, scope.window);
    let sink = scope.sink();
    let judge = Judge { cluster, stores, ledger, sink, window, progress, cancel };
    let mut topics = looks.iter().map(|look| judge.topic(look)).collect::<Result<Vec<_>, _>>()?;
    // A cluster may be older than topics of retries.
    topics.retain(|topic| !topic.topic.starts_with(RETRIES) || !topic.partitions.is_empty());
    progress.ends();
    let verdict = topics.iter().map(|topic| topic.verdict).max().unwrap_or_default();
    Ok(Report {
        audited_at: rfc3339(began),
        seconds: clock.elapsed().as_secs_f64(),
        since: since.map(rfc3339),
        verdict,
        topics,
        compared: Vec::new(),
    })
}

struct Judge<'a> {
    cluster: &'a Cluster,
    stores: &'a Stores,
    ledger: &'a Ledger,
    sink: &'static str,
    window: i64,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Judge<'_> {
    fn topic(&self, look: &Look<'_>) -> anyhow::Result<TopicReport> {
        let Audited { topic, job, guarantee } = look.audited;
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
            sink: self.sink,
            guarantee: *guarantee,
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
        let Audited { topic, job, .. } = look.audited;
        let sweep = look.sweep(place, bounds);
        let (rejected, rejected_elsewhere) = self.ledger.rejected(place, job);
        let gaps = self.ledger.gaps(place, job);
        let retried = look.retried.at(place);
        let facts = Facts {
            rejected: &rejected,
            rejected_elsewhere: &rejected_elsewhere,
            retried: &retried,
            passed_over: &RoaringTreemap::new(),
            gaps: &gaps,
            holes: look.holes,
            nulls_are_rows: &*topic.name == DEAD_LETTERS,
        };
        let log = bounds.map(|_| self.cluster.log(&topic.name, place.1, sweep.log.start));
        let mut tally = self.sweep(look, place, &sweep, log, &facts)?;
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
        if report.tally.kept > 0 {
            let detail = format!(
                "the log was cut, and an operator lets {} offsets stand as they are stored: `aion sql \
                 \"select * from gaps where reason = 'diverged_kept'\"`",
                report.tally.kept
            );
            report.doubt(Doubt::Kept, detail);
        }
        Ok(report)
    }

    /// Books every offset, window by window.
    fn sweep(
        &self,
        look: &Look<'_>,
        place: Place,
        sweep: &Sweep,
        log: Option<Log<'_>>,
        facts: &Facts<'_>,
    ) -> anyhow::Result<Tally> {
        let (topic, mut tally) = (&look.audited.topic, Tally::default());
        let mut log = log.map(|log| if topic.is_retries() { log.of_retries() } else { log });
        let mut at = sweep.all.start;
        while at < sweep.all.end {
            if self.cancel.is_cancelled() {
                bail!("the audit was stopped");
            }
            // A window is read or it isn't: one that began before the log's start would be neither.
            let until = if at < sweep.log.start { sweep.log.start } else { sweep.all.end };
            let mut window = Window::new(at..at.saturating_add(self.window).min(until));
            let rows = self.rows(look, place, &mut window)?;
            let next = window.run().end;
            let has_log = at >= sweep.log.start;
            match &mut log {
                Some(log) if has_log => log.fill(&mut window)?,
                _ => {}
            }
            let sent = log.as_mut().map(|log| log.sent(next)).unwrap_or_default();
            compare(&rows, &sent, &mut tally);
            let job = (&**topic, &*look.audited.job);
            let passed_over = &look.retried.passed_over(self.stores, job, &sent, &window)?;
            Facts { passed_over, ..*facts }.book(&window, &mut tally);
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

    /// Notes what is stored in a window; of a topic of retries, also what its rows say that they repeat.
    fn rows(
        &self,
        look: &Look<'_>,
        place: Place,
        window: &mut Window,
    ) -> anyhow::Result<Vec<(i64, String)>> {
        let topic = &look.audited.topic;
        if topic.is_retries() {
            return self.stores.fill_retries(topic, place, window);
        }
        self.stores.fill(topic, place, window)?;
        look.retried.fill(place, window);
        Ok(Vec::new())
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
        let detail = format!(
            "nothing asked for is stored yet, {} offsets wait: audit again after the next flush",
            report.pending
        );
        report.doubt(Doubt::NotSettled, detail);
    } else if is_whole && mark.is_some_and(|mark| mark > 0) {
        let detail = if bounds.since > bounds.first {
            format!("the table's TTL takes what the log has below {}", bounds.since)
        } else {
            format!("the log has nothing below {} any more", bounds.first)
        };
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
