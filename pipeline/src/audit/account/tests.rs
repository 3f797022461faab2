#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;

use super::*;

thread_local! {
    static LETTERS_WIN: Cell<bool> = const { Cell::new(false) };
}

/// Whether the negative control of this thread has a dead letter win over a row.
pub(super) fn letters_win() -> bool {
    LETTERS_WIN.get()
}

/// A partition that the tests describe, and what is said of it.
#[derive(Clone, Debug)]
struct Case {
    /// Offsets of the log, each with whether its value is null.
    log: Vec<(i64, bool)>,
    read: Run,
    stored: Vec<i64>,
    rejected: Vec<u64>,
    elsewhere: Vec<u64>,
    retried: Vec<u64>,
    passed_over: Vec<u64>,
    gaps: Vec<Gap>,
    holes: Holes,
    nulls_are_rows: bool,
}

impl Case {
    /// Ten records, all stored.
    fn exact() -> Case {
        Case {
            log: (0..10).map(|offset| (offset, false)).collect(),
            read: 0..10,
            stored: (0..10).collect(),
            rejected: vec![],
            elsewhere: vec![],
            retried: vec![],
            passed_over: vec![],
            gaps: vec![],
            holes: Holes::Final,
            nulls_are_rows: false,
        }
    }

    /// Books it in windows of so many offsets.
    fn booked(&self, window: i64, all: Run) -> Tally {
        let rejected = self.rejected.iter().copied().collect();
        let elsewhere = self.elsewhere.iter().copied().collect();
        let retried = self.retried.iter().copied().collect();
        let passed_over = self.passed_over.iter().copied().collect();
        let facts = Facts {
            rejected: &rejected,
            rejected_elsewhere: &elsewhere,
            retried: &retried,
            passed_over: &passed_over,
            gaps: &self.gaps,
            holes: self.holes,
            nulls_are_rows: self.nulls_are_rows,
        };
        let mut tally = Tally::default();
        let mut at = all.start;
        while at < all.end {
            let run = at..(at + window).min(all.end);
            at = run.end;
            let mut window = Window::new(run.clone());
            window.was_read(self.read.clone());
            for (offset, is_null) in self.log.iter().filter(|(offset, _)| run.contains(offset)) {
                window.record(*offset, *is_null);
            }
            let retried = self.retried.iter().map(|offset| *offset as i64);
            let rows = self.stored.iter().copied().chain(retried);
            rows.filter(|o| run.contains(o)).for_each(|o| window.row(o));
            facts.book(&window, &mut tally);
        }
        tally
    }

    fn tally(&self) -> Tally {
        let whole = self.booked(1000, 0..20);
        assert_eq!(whole, self.booked(3, 0..20), "windows change nothing");
        let sum = whole.exact()
            + whole.other_job
            + whole.doubtful
            + whole.kept
            + whole.missing
            + whole.stored_twice
            + whole.not_in_log
            + whole.diverged;
        assert_eq!(sum, whole.judged, "every judged offset has one fate");
        assert_eq!(whole.judged, (self.read.end - self.read.start) as u64);
        whole
    }

    fn without(mut self, offset: i64) -> Case {
        self.stored.retain(|stored| *stored != offset);
        self
    }

    fn log_without(mut self, gone: Run) -> Case {
        self.log.retain(|(offset, _)| !gone.contains(offset));
        self
    }
}

fn ranges(tally: &Tally, wrong: Wrong) -> Vec<[i64; 2]> {
    let runs = tally.wrong.get(&wrong).into_iter().flat_map(|found| &found.runs);
    runs.map(|run| [run.start, run.end]).collect()
}

fn gap(run: Run, diverged: bool) -> Gap {
    Gap { run, kind: if diverged { GapKind::Diverged } else { GapKind::Lost } }
}

#[test]
fn what_is_stored_once_is_exact() {
    let tally = Case::exact().tally();
    assert!(tally.wrong.is_empty());
    assert_eq!((tally.judged, tally.stored, tally.exact()), (10, 10, 10));
}

#[test]
fn a_record_that_is_nowhere_is_missing() {
    let tally = Case::exact().without(4).without(5).without(8).tally();
    assert_eq!(ranges(&tally, Wrong::Missing), [[4, 6], [8, 9]]);
    assert_eq!((tally.missing, tally.stored), (3, 7));
}

#[test]
fn a_record_that_is_two_rows_is_stored_twice() {
    let mut case = Case::exact();
    case.stored.extend([3, 3, 7]);
    let tally = case.tally();
    assert_eq!(ranges(&tally, Wrong::StoredTwice), [[3, 4], [7, 8]]);
    assert_eq!((tally.stored_twice, tally.stored), (2, 8));
}

#[test]
fn a_dead_letter_stands_for_a_row_and_a_row_wins_over_it() {
    let mut case = Case::exact().without(4);
    case.rejected = vec![4, 4, 5];
    let tally = case.tally();
    assert!(tally.wrong.is_empty());
    assert_eq!((tally.stored, tally.dead_letters), (9, 1));
}

/// Negative control: an upgrade stored what an older version had rejected, and the books have fewer rows than the table.
#[test]
fn if_letters_won_the_books_would_not_have_every_row() {
    let mut case = Case::exact().without(4);
    case.rejected = vec![4, 5, 6];
    let rows = case.stored.len() as u64;
    assert_eq!(case.tally().stored, rows);
    LETTERS_WIN.set(true);
    let tally = case.tally();
    LETTERS_WIN.set(false);
    assert_eq!((tally.stored, tally.dead_letters), (rows - 2, 3));
}

#[test]
fn a_dead_letter_of_another_job_proves_nothing() {
    let mut case = Case::exact().without(4).without(5);
    (case.elsewhere, case.rejected) = (vec![4, 5], vec![5]);
    let tally = case.tally();
    assert!(tally.wrong.is_empty());
    assert_eq!((tally.other_job, tally.dead_letters), (1, 1));
}

#[test]
fn a_null_is_a_tombstone_and_has_no_row() {
    let mut case = Case::exact().without(4);
    case.log[4].1 = true;
    assert_eq!(case.tally().tombstones, 1);
    case.stored.push(4);
    assert_eq!(ranges(&case.tally(), Wrong::NotInLog), [[4, 5]]);
    case.nulls_are_rows = true;
    assert!(case.tally().wrong.is_empty());
    let lost = case.without(4).tally();
    assert_eq!(ranges(&lost, Wrong::Missing), [[4, 5]], "there nulls are rows");
}

#[test]
fn what_no_reader_gets_and_nobody_stored_is_a_hole() {
    let tally = Case::exact().log_without(3..5).without(3).without(4).tally();
    assert!(tally.wrong.is_empty());
    assert_eq!((tally.holes, tally.stored), (2, 8));
}

#[test]
fn a_row_at_a_hole_is_wrong_unless_compaction_took_the_record() {
    let mut case = Case::exact().log_without(3..5).without(3);
    assert_eq!(ranges(&case.tally(), Wrong::NotInLog), [[4, 5]], "an aborted record, say");
    case.holes = Holes::Compacted;
    assert!(case.tally().wrong.is_empty());
    case.stored.push(4);
    assert_eq!(ranges(&case.tally(), Wrong::StoredTwice), [[4, 5]], "once is fine, twice isn't");
    case.stored.pop();
    case.holes = Holes::Unknown;
    let tally = case.tally();
    assert!(tally.wrong.is_empty());
    assert_eq!(tally.doubtful, 1);
}

#[test]
fn what_a_gap_covers_is_not_missing() {
    let mut case = Case::exact().without(2).without(3).without(4);
    case.gaps = vec![gap(2..4, false)];
    let tally = case.tally();
    assert_eq!(tally.gaps, 2);
    assert_eq!(ranges(&tally, Wrong::Missing), [[4, 5]]);
}

#[test]
fn where_the_log_was_cut_rows_are_wrong() {
    let mut case = Case::exact().without(9);
    case.gaps = vec![gap(7..10, true)];
    let tally = case.tally();
    assert_eq!(ranges(&tally, Wrong::Diverged), [[7, 10]]);
    assert_eq!((tally.diverged, tally.missing, tally.stored), (3, 0, 7));
    let mut case = Case::exact().without(9);
    case.gaps = vec![gap(7..10, true), Gap { run: 7..9, kind: GapKind::Kept }];
    let tally = case.tally();
    assert_eq!((tally.kept, tally.diverged, tally.unprovable()), (2, 1, 2));
}

#[test]
fn where_the_log_is_gone_only_repetitions_are_wrong() {
    let mut case = Case::exact().log_without(0..6);
    case.read = 6..10;
    case.stored.push(1);
    let tally = case.without(2).tally();
    assert_eq!(ranges(&tally, Wrong::StoredTwice), [[1, 2]]);
    assert_eq!((tally.expired, tally.expired_twice, tally.judged), (4, 1, 4));
}

#[test]
fn ranges_are_bounded_and_counted_beyond() {
    let mut case = Case::exact();
    case.log = (0..1000).map(|offset| (offset, false)).collect();
    case.read = 0..1000;
    case.stored = (0..1000).filter(|offset| offset % 2 == 0).collect();
    let found = case.booked(64, 0..1000).wrong.remove(&Wrong::Missing).unwrap();
    assert_eq!((found.offsets, found.runs.len(), found.more), (500, 100, true));
}

#[test]
fn a_record_that_a_retry_stored_is_stored_once_and_not_by_both() {
    let mut case = Case::exact();
    (case.stored, case.rejected) = ((0..8).collect(), vec![8, 9]);
    case.retried = vec![8];
    let tally = case.booked(3, 0..10);
    assert_eq!((tally.stored, tally.retried, tally.dead_letters), (8, 1, 1));
    assert_eq!((tally.judged, tally.exact()), (10, 10));
    case.stored.push(8);
    assert_eq!(case.booked(3, 0..10).wrong[&Wrong::StoredTwice].runs, vec![8..9]);
    case.stored.pop();
    case.retried = vec![8, 8];
    assert_eq!(case.booked(3, 0..10).wrong[&Wrong::StoredTwice].runs, vec![8..9]);
    (case.retried, case.log) = (vec![8], vec![]);
    assert!(case.booked(3, 0..10).wrong.contains_key(&Wrong::NotInLog), "a retry of nothing");
}

#[test]
fn a_retry_that_is_passed_over_needs_a_reason() {
    let mut case = Case::exact();
    case.stored = (0..9).collect();
    assert_eq!(case.booked(4, 0..10).missing, 1);
    case.passed_over = vec![9];
    let tally = case.booked(4, 0..10);
    assert_eq!((tally.stored, tally.passed_over, tally.missing, tally.exact()), (9, 1, 0, 10));
}
