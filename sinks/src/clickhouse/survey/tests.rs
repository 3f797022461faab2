//! Each row of the module's table.
#![allow(clippy::unwrap_used)]

use super::*;

const NOW: u32 = 100_000;
const YOUTH: Youth = Youth { now: NOW, lease_s: 60, window_s: 3600 };
/// Of a batch that followed on a verify a minute ago, and one hours ago.
const YOUNG: u32 = NOW;
const OLD: u32 = NOW - 4000;
const DAY_US: i64 = 86_400_000_000;

/// The last batch, after others that it follows on.
fn last(end: i64, lease: u32) -> Link {
    Link {
        first: Offset(end - 10),
        end: Offset(end),
        epoch: 3,
        newest_us: 5 * DAY_US,
        lease,
        is_last: true,
        is_doubled: false,
        previous: None,
    }
}

/// A batch at `first` that follows on a break from `before` on.
fn broken(before: i64, first: i64, lease: u32) -> Link {
    let previous = Previous { end: Offset(before), newest_us: 4 * DAY_US, lease };
    Link {
        first: Offset(first),
        is_last: false,
        previous: Some(previous),
        ..last(first + 10, YOUNG)
    }
}

fn reached(chain_end: i64, next: i64) -> Notes {
    let (chain_end, next) = (Offset(chain_end), Offset(next));
    let reached = Some(Note { chain_end, next, epoch: 2, day: Some(7) });
    Notes { reached, ..Notes::default() }
}

fn mark(offset: i64, epoch: i32) -> Mark {
    Mark { offset: Offset(offset), epoch }
}

fn range(first: i64, end: i64) -> Range<Offset> {
    Offset(first)..Offset(end)
}

fn found(links: &[Link], notes: &Notes) -> Found {
    survey(links, notes, YOUTH).unwrap()
}

#[test]
fn nothing_at_all_is_a_table_that_has_never_seen_the_partition() {
    assert_eq!(found(&[], &Notes::default()), Found::default());
}

#[test]
fn an_opened_table_begins_where_it_was_agreed() {
    let opened = Note { chain_end: Offset(5), next: Offset(5), epoch: -1, day: Some(9) };
    let at = found(&[], &Notes { opened: Some(opened), ..Notes::default() });
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(5, -1)), Some(Offset(5)), Some(9)));
    assert!(at.is_open);
    // Poison before the first row: what was read is further on than where the batch begins.
    let reached = Note { next: Offset(40), epoch: 1, day: None, ..opened };
    let at =
        found(&[], &Notes { opened: Some(opened), reached: Some(reached), ..Notes::default() });
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(40, 1)), Some(Offset(5)), Some(9)));
    let at = found(&[], &Notes { reached: Some(reached), ..Notes::default() });
    assert_eq!((at.mark, at.chain_end, at.is_open), (Some(mark(40, 1)), Some(Offset(5)), false));
}

#[test]
fn expired_rows_are_not_read_again() {
    let at = found(&[], &reached(500, 520));
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(520, 2)), Some(Offset(500)), Some(7)));
}

#[test]
fn the_chain_decides_where_no_note_says_more() {
    for notes in [Notes::default(), reached(40, 60), reached(100, 100)] {
        let at = found(&[last(100, YOUNG)], &notes);
        assert_eq!(
            (at.mark, at.chain_end, at.day),
            (Some(mark(100, 3)), Some(Offset(100)), Some(5))
        );
        assert!(at.ahead.is_empty() && at.lost.is_empty());
    }
}

#[test]
fn offsets_without_rows_after_the_chain_are_not_read_again() {
    let at = found(&[last(100, OLD)], &reached(100, 130));
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(130, 2)), Some(Offset(100)), Some(5)));
}

#[test]
fn a_young_tail_is_filled_to_where_it_was_and_no_further() {
    let at = found(&[last(60, YOUNG)], &reached(100, 110));
    assert_eq!((at.mark, at.chain_end), (Some(mark(60, -1)), Some(Offset(60))));
    assert_eq!(at.ahead, [Segment { range: range(100, 100), day: None }]);
}

#[test]
fn an_old_tail_is_left_and_reported() {
    let at = found(&[last(60, OLD)], &reached(100, 110));
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(110, 2)), Some(Offset(100)), Some(7)));
    assert_eq!(at.lost, [range(60, 100)]);
}

#[test]
fn young_breaks_are_filled_one_after_the_other() {
    let links = [broken(20, 30, YOUNG), broken(50, 70, YOUNG), last(100, YOUNG)];
    let at = found(&links, &Notes::default());
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(20, -1)), Some(Offset(20)), Some(4)));
    let segments = [
        Segment { range: range(30, 50), day: Some(4) },
        Segment { range: range(70, 100), day: Some(5) },
    ];
    assert_eq!(at.ahead, segments);
}

#[test]
fn a_break_and_a_tail_are_both_filled() {
    let at = found(&[broken(20, 30, YOUNG), last(60, YOUNG)], &reached(100, 100));
    let segments = [
        Segment { range: range(30, 60), day: Some(5) },
        Segment { range: range(100, 100), day: None },
    ];
    assert_eq!((at.mark, at.ahead), (Some(mark(20, -1)), segments.into()));
}

#[test]
fn an_old_break_is_left_and_reported() {
    let at = found(&[broken(20, 30, OLD), last(100, YOUNG)], &Notes::default());
    assert_eq!((at.mark, at.lost), (Some(mark(100, 3)), vec![range(20, 30)]));
    assert!(at.ahead.is_empty());
}

#[test]
fn an_old_break_is_filled_where_somebody_wants_just_that() {
    let links = [broken(20, 30, OLD), broken(50, 70, OLD), last(100, YOUNG)];
    let notes = Notes { wanted: vec![range(50, 70), range(20, 31)], ..Notes::default() };
    let at = found(&links, &notes);
    assert_eq!((at.mark, at.lost), (Some(mark(50, -1)), vec![range(20, 30)]));
    assert_eq!(at.ahead, [Segment { range: range(70, 100), day: Some(5) }]);
    let tail = Notes { wanted: vec![range(60, 100)], ..reached(100, 110) };
    let at = found(&[last(60, OLD)], &tail);
    assert_eq!((at.mark, at.lost), (Some(mark(60, -1)), vec![]));
}

#[test]
fn the_last_batch_may_itself_follow_on_a_break() {
    let link = Link { is_last: true, ..broken(20, 30, YOUNG) };
    let at = found(&[link], &Notes::default());
    assert_eq!((at.mark, at.chain_end), (Some(mark(20, -1)), Some(Offset(20))));
    assert_eq!(at.ahead, [Segment { range: range(30, 40), day: Some(5) }]);
}

#[test]
fn batches_that_overlap_are_told() {
    let links = [broken(35, 30, YOUNG), last(100, YOUNG)];
    let overlap = survey(&links, &Notes::default(), YOUTH).unwrap_err();
    assert_eq!(overlap, Overlap(range(30, 35)));
}

#[test]
fn a_batch_that_is_there_twice_is_told() {
    let previous = Previous { end: Offset(30), newest_us: 4 * DAY_US, lease: YOUNG };
    let double = Link {
        first: Offset(30),
        is_last: false,
        is_doubled: true,
        previous: Some(previous),
        ..last(40, YOUNG)
    };
    let overlap = survey(&[double, last(100, YOUNG)], &Notes::default(), YOUTH).unwrap_err();
    assert_eq!(overlap, Overlap(range(30, 40)));
}

#[test]
fn young_is_by_the_lease_that_the_batch_before_was_written_under() {
    let limit = NOW + YOUTH.lease_s - YOUTH.window_s;
    assert!(!YOUTH.is_young(limit));
    assert!(YOUTH.is_young(limit + 1));
}
