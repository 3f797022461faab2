use uuid::Uuid;

use super::*;
use crate::audit::report::Finding;

/// A partition of which nothing was judged, with a log and a mark.
fn report(mark: Option<i64>, judged: u64) -> PartitionReport {
    PartitionReport {
        topic_id: Uuid::from_u128(1),
        partition: 0,
        log: None,
        mark,
        range: None,
        tally: Tally { judged, stored: judged, ..Tally::default() },
        pending: 0,
        verdict: Verdict::Exact,
        reasons: Vec::new(),
        findings: Vec::new(),
    }
}

fn bounds(first: i64, next: i64, since: i64) -> Bounds {
    Bounds { first, next, since }
}

/// The verdict, what is pending, and the reasons.
fn concluded(
    mark: Option<i64>,
    judged: u64,
    bounds: Bounds,
    is_whole: bool,
) -> (Verdict, u64, Vec<Doubt>) {
    let mut report = report(mark, judged);
    with_log(&mut report, bounds, mark, is_whole);
    let report = report.concluded();
    (report.verdict, report.pending, report.reasons.iter().map(|one| one.reason).collect())
}

#[test]
fn what_lies_above_the_mark_is_pending_and_not_wrong() {
    assert_eq!(concluded(Some(60), 60, bounds(0, 100, 0), true), (Verdict::Exact, 40, vec![]));
}

#[test]
fn an_empty_log_that_nobody_wanted_is_exact() {
    assert_eq!(concluded(None, 0, bounds(0, 0, 0), true), (Verdict::Exact, 0, vec![]));
}

#[test]
fn a_partition_of_which_nothing_is_stored_is_not_settled() {
    let settled = (Verdict::NotProvable, 70, vec![Doubt::NotSettled]);
    assert_eq!(concluded(None, 0, bounds(30, 100, 30), true), settled);
    let recent = (Verdict::NotProvable, 20, vec![Doubt::NotSettled]);
    assert_eq!(concluded(Some(60), 0, bounds(0, 100, 80), false), recent, "lag beyond --since");
}

#[test]
fn a_log_without_anything_below_the_mark_has_expired() {
    let expired = (Verdict::NotProvable, 0, vec![Doubt::Expired]);
    assert_eq!(concluded(Some(100), 0, bounds(100, 100, 100), true), expired);
    let nothing_new = (Verdict::Exact, 0, vec![]);
    assert_eq!(concluded(Some(100), 0, bounds(100, 100, 100), false), nothing_new);
}

#[test]
fn what_a_ttl_has_taken_is_not_missed() {
    let expired = (Verdict::NotProvable, 0, vec![Doubt::Expired]);
    assert_eq!(concluded(Some(100), 0, bounds(0, 100, 100), true), expired);
    let mut whole = report(Some(100), 0);
    with_log(&mut whole, bounds(0, 100, 100), Some(100), true);
    let detail = &whole.reasons[0].detail;
    assert_eq!(detail, "the table's TTL takes what the log has below 100");
    assert_eq!(concluded(Some(100), 40, bounds(0, 100, 60), true), (Verdict::Exact, 0, vec![]));
}

#[test]
fn what_the_log_lost_before_it_was_stored_is_told() {
    let lost = (Verdict::NotProvable, 60, vec![Doubt::LostUnread]);
    assert_eq!(concluded(Some(10), 0, bounds(40, 100, 40), true), lost);
}

#[test]
fn a_mark_beyond_the_end_of_the_log_is_wrong() {
    let mut report = report(Some(120), 100);
    with_log(&mut report, bounds(0, 100, 0), Some(120), true);
    let report = report.concluded();
    assert_eq!((report.verdict, report.pending), (Verdict::Wrong, 0));
    let [Finding { kind: Wrong::BeyondLog, ranges }] = &report.findings[..] else {
        panic!("{:?}", report.findings);
    };
    assert_eq!((ranges.offsets, ranges.runs.len()), (20, 1));
}

#[test]
fn what_only_another_log_could_tell_is_taken_back() {
    let mut report = report(Some(9), 9);
    report.tally.found(Wrong::Missing, 1..2, 1);
    report.tally.found(Wrong::StoredTwice, 3..4, 1);
    forget_log(&mut report);
    let report = report.concluded();
    let kinds: Vec<Wrong> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Wrong::StoredTwice]);
    assert_eq!(report.reasons[0].reason, Doubt::MadeAnew);
}
