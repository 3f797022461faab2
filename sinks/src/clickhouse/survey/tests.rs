//! Each row of the module's table.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

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
        is_dense: true,
        newest_us: 5 * DAY_US,
        lease,
        head: Offset(0),
        is_last: true,
        is_doubled: false,
        previous: None,
    }
}

/// A batch at `first` that follows on a break from `before` on.
fn broken(before: i64, first: i64, lease: u32) -> Link {
    let previous =
        Previous { end: Offset(before), epoch: 2, is_dense: true, newest_us: 4 * DAY_US, lease };
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
    survey(links, notes, YOUTH, Kept::Forever).unwrap()
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

/// The last batch is of epoch 3 and ends at 100. A hole may lie there where not each offset has a row.
#[test]
fn a_batch_with_a_row_for_each_offset_ends_right_behind_a_record() {
    let behind = |offset: i64, epoch| Mark::behind_hole(Offset(offset), Some(epoch));
    let sparse = |link: Link| Link { is_dense: false, ..link };
    assert_eq!(found(&[last(100, OLD)], &Notes::default()).mark, Some(mark(100, 3)));
    let at = found(&[sparse(last(100, OLD))], &Notes::default());
    assert_eq!(at.mark, Some(behind(100, 3)));
    let at = found(&[sparse(last(60, YOUNG))], &reached(100, 110));
    assert_eq!(at.mark, Some(behind(60, 3)), "before a tail");
    let break_behind = |is_dense| {
        let link = broken(20, 30, YOUNG);
        let previous = link.previous.map(|previous| Previous { is_dense, ..previous });
        found(&[Link { previous, ..link }, sparse(last(100, YOUNG))], &Notes::default())
    };
    assert_eq!(break_behind(true).mark, Some(mark(20, 2)));
    assert_eq!(break_behind(false).mark, Some(behind(20, 2)), "before a break");
    assert_eq!(break_behind(false).last_ahead, Some(behind(100, 3)), "and behind it");
    let unknown = Link { epoch: -1, ..sparse(last(100, OLD)) };
    assert_eq!(found(&[unknown], &Notes::default()).mark, Some(mark(100, -1)));
}

/// The rows end at 100 with epoch 3; of the last record below, which may have no row, a note can know more.
#[test]
fn of_the_same_place_the_later_epoch_is_that_of_the_last_record() {
    let behind = |offset: i64, epoch| Mark::behind_hole(Offset(offset), Some(epoch));
    let found = |next: i64, epoch: i32| {
        let note = Note { chain_end: Offset(100), next: Offset(next), epoch, day: None };
        found(&[last(100, OLD)], &Notes { reached: Some(note), ..Notes::default() }).mark
    };
    assert_eq!(found(100, 4), Some(mark(100, 4)));
    assert_eq!(found(100, behind(100, 4).epoch), Some(behind(100, 4)));
    for epoch in [-1, 2, 3, behind(100, 3).epoch] {
        assert_eq!(found(100, epoch), Some(mark(100, 3)), "{epoch}");
    }
    assert_eq!(found(110, behind(110, 4).epoch), Some(behind(110, 4)));
}

#[test]
fn offsets_without_rows_after_the_chain_are_not_read_again() {
    let at = found(&[last(100, OLD)], &reached(100, 130));
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(130, 2)), Some(Offset(100)), Some(5)));
}

#[test]
fn a_young_tail_is_filled_to_where_it_was_and_no_further() {
    let at = found(&[last(60, YOUNG)], &reached(100, 110));
    assert_eq!((at.mark, at.chain_end), (Some(mark(60, 3)), Some(Offset(60))));
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
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(20, 2)), Some(Offset(20)), Some(4)));
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
    assert_eq!((at.mark, at.ahead), (Some(mark(20, 2)), segments.into()));
}

/// However young the batch behind it is: between the two it may have been erased.
#[test]
fn an_old_break_is_left_and_reported() {
    let at = found(&[broken(20, 30, OLD), last(100, YOUNG)], &Notes::default());
    assert_eq!((at.mark, at.lost), (Some(mark(100, 3)), vec![range(20, 30)]));
    assert!(at.ahead.is_empty());
}

/// What is told as lost of a table that keeps rows so, and where it goes on; its clock is behind day 7.
fn lost(links: &[Link], notes: &Notes, kept: Kept) -> (Vec<Range<Offset>>, Option<Mark>) {
    assert!(misses_some(links, notes), "its TTL is asked for");
    let youth = Youth { now: 7 * 86_400 + 1, ..YOUTH };
    let at = survey(links, notes, youth, kept).unwrap();
    assert!(at.ahead.is_empty());
    (at.lost, at.mark)
}

/// The batch before it ends on day 4.
#[test]
fn a_break_that_may_have_expired_is_no_loss() {
    let links = [broken(20, 30, OLD), last(100, OLD)];
    let told = |kept| lost(&links, &Notes::default(), kept);
    for kept in [Kept::Forever, Kept::Days(4), Kept::Unknown] {
        assert_eq!(told(kept), (vec![range(20, 30)], Some(mark(100, 3))), "{kept:?}");
    }
    assert_eq!(told(Kept::Days(3)), (vec![], Some(mark(100, 3))));
    let whole = [broken(30, 30, OLD), last(100, OLD)];
    assert!(!misses_some(&whole, &reached(100, 110)));
}

/// The last batch ends on day 5, what was noted behind it on day 7.
#[test]
fn a_tail_that_may_have_expired_is_no_loss() {
    let links = [last(60, OLD)];
    let told = |kept| lost(&links, &reached(100, 110), kept);
    for kept in [Kept::Forever, Kept::Days(3), Kept::Days(1), Kept::Unknown] {
        assert_eq!(told(kept), (vec![range(60, 100)], Some(mark(110, 2))), "{kept:?}");
    }
    assert_eq!(told(Kept::Days(0)), (vec![], Some(mark(110, 2))));
}

/// It is filled or asked for whatever the TTL says: what it takes of it again is stored all the same.
#[test]
fn what_is_filled_is_not_held_against_the_ttl() {
    let (young, old) = ([broken(20, 30, YOUNG)], [broken(20, 30, OLD)]);
    let wanted = Notes { wanted: vec![range(20, 30)], ..Notes::default() };
    for (links, notes) in [(&young, &Notes::default()), (&old, &wanted)] {
        let links = [links[0], last(100, YOUNG)];
        let at = survey(&links, notes, YOUTH, Kept::Days(0)).unwrap();
        assert_eq!((at.mark, at.lost), (Some(mark(20, 2)), vec![]));
    }
}

#[test]
fn an_old_break_is_filled_where_somebody_wants_just_that() {
    let links = [broken(20, 30, OLD), broken(50, 70, OLD), last(100, YOUNG)];
    let notes = Notes { wanted: vec![range(50, 70), range(20, 31)], ..Notes::default() };
    let at = found(&links, &notes);
    assert_eq!((at.mark, at.lost), (Some(mark(50, 2)), vec![range(20, 30)]));
    assert_eq!(at.ahead, [Segment { range: range(70, 100), day: Some(5) }]);
    let tail = Notes { wanted: vec![range(60, 100)], ..reached(100, 110) };
    let at = found(&[last(60, OLD)], &tail);
    assert_eq!((at.mark, at.lost), (Some(mark(60, 3)), vec![]));
}

#[test]
fn the_last_batch_may_itself_follow_on_a_break() {
    let link = Link { is_last: true, ..broken(20, 30, YOUNG) };
    let at = found(&[link], &Notes::default());
    assert_eq!((at.mark, at.chain_end), (Some(mark(20, 2)), Some(Offset(20))));
    assert_eq!(at.ahead, [Segment { range: range(30, 40), day: Some(5) }]);
}

/// What lies before a break and what lies behind it are of epochs that the log must have there: 2 and 3.
#[test]
fn a_cut_shows_before_a_break_and_behind_it() {
    let links = [broken(20, 30, YOUNG), last(100, YOUNG)];
    let ends = |notes: &Notes| {
        let at = found(&links, notes);
        (at.mark, at.last_ahead)
    };
    let by_rows = (Some(mark(20, 2)), Some(mark(100, 3)));
    assert_eq!(ends(&Notes::default()), by_rows);
    // A note of an earlier release behind a transaction's marker knows no epoch, the rows do.
    let note = |next: i64, epoch: i32| {
        let note = Note { chain_end: Offset(100), next: Offset(next), epoch, day: None };
        Notes { reached: Some(note), ..Notes::default() }
    };
    assert_eq!(ends(&note(100, -1)), by_rows);
    assert_eq!(ends(&note(130, -1)), by_rows);
    assert_eq!(ends(&note(130, 4)), (Some(mark(20, 2)), Some(mark(130, 4))));
    let behind = Mark::behind_hole(Offset(130), Some(4));
    assert_eq!(ends(&note(130, behind.epoch)), (Some(mark(20, 2)), Some(behind)));
    // A break at the end of all has nothing behind it, nor has one of a partition that has nothing else.
    assert_eq!(found(&[last(60, YOUNG)], &reached(100, 110)).last_ahead, None);
    let head = Notes { wanted: vec![range(0, 100)], ..since_yesterday(100) };
    assert_eq!(found(&[], &head).last_ahead, None);
    assert_eq!(found(&[last(100, YOUNG)], &Notes::default()).last_ahead, None, "no break");
    // What lies before a tail that is left alone is no further than the note.
    let tail = found(&[broken(20, 30, YOUNG), last(60, OLD)], &reached(100, 110));
    assert_eq!((tail.mark, tail.last_ahead), (Some(mark(20, 2)), Some(mark(110, 2))));
}

#[test]
fn batches_that_overlap_are_told() {
    let links = [broken(35, 30, YOUNG), last(100, YOUNG)];
    let overlap = survey(&links, &Notes::default(), YOUTH, Kept::Forever).unwrap_err();
    assert_eq!(overlap, Overlap(range(30, 35)));
}

#[test]
fn a_batch_that_is_there_twice_is_told() {
    let previous =
        Previous { end: Offset(30), epoch: 2, is_dense: true, newest_us: 4 * DAY_US, lease: YOUNG };
    let double = Link {
        first: Offset(30),
        is_last: false,
        is_doubled: true,
        previous: Some(previous),
        ..last(40, YOUNG)
    };
    let links = [double, last(100, YOUNG)];
    let overlap = survey(&links, &Notes::default(), YOUTH, Kept::Forever).unwrap_err();
    assert_eq!(overlap, Overlap(range(30, 40)));
}

#[test]
fn young_is_by_the_lease_that_the_batch_before_was_written_under() {
    let limit = NOW + YOUTH.lease_s - YOUTH.window_s;
    assert!(!YOUTH.is_young(limit));
    assert!(YOUTH.is_young(limit + 1));
}

/// A partition whose first batch began at 0, the day before, and that was noted today at `chain_end`.
fn since_yesterday(chain_end: i64) -> Notes {
    let today = (NOW / 86_400) as i32;
    let note = |at: i64, day: i32| {
        Some(Note { chain_end: Offset(at), next: Offset(at), epoch: 2, day: Some(day) })
    };
    Notes { opened: note(0, today - 1), reached: note(chain_end, today), wanted: Vec::new() }
}

/// The last batch of a partition whose first one begins at `head`.
fn headed(head: i64, end: i64) -> [Link; 1] {
    [Link { head: Offset(head), ..last(end, YOUNG) }]
}

/// What is told of the head of a partition that was noted at `noted`.
fn missed(links: &[Link], noted: i64, kept: Kept) -> Option<Range<Offset>> {
    let at = survey(links, &since_yesterday(noted), YOUTH, kept).unwrap();
    assert_eq!(at.lost, [], "who emptied a table isn't told so as a loss at every start");
    at.missed
}

#[test]
fn a_lost_head_is_told_where_it_cannot_have_expired() {
    // What began yesterday is there for two days, whatever was noted last.
    for kept in [Kept::Forever, Kept::Days(2)] {
        assert_eq!(missed(&headed(30, 100), 100, kept), Some(range(0, 30)));
        assert_eq!(missed(&headed(0, 100), 100, kept), None);
        assert_eq!(missed(&[], 100, kept), Some(range(0, 100)));
    }
    // By now it may have gone. What ended today is there, and that tells only where nothing else is left of it.
    let one = Kept::Days(1);
    assert_eq!(missed(&headed(30, 100), 100, one), None);
    assert_eq!(missed(&headed(30, 100), 30, one), Some(range(0, 30)));
    assert_eq!(missed(&[], 100, one), Some(range(0, 100)));
    for kept in [Kept::Days(0), Kept::Unknown] {
        assert_eq!(missed(&headed(30, 100), 30, kept), None);
        assert_eq!(missed(&[], 100, kept), None);
    }
    assert_eq!(found(&headed(30, 100), &since_yesterday(100)).mark, Some(mark(100, 3)));
    assert_eq!(found(&[], &since_yesterday(100)).mark, Some(mark(100, 2)));
}

#[test]
fn a_lost_head_is_filled_where_somebody_wants_just_that() {
    let yesterday = since_yesterday(0).opened.unwrap().day;
    let wanted = |end| Notes { wanted: vec![range(0, end)], ..since_yesterday(100) };
    let at = found(&headed(30, 100), &wanted(30));
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(0, -1)), Some(Offset(0)), yesterday));
    assert_eq!(
        (at.ahead, at.missed),
        ([Segment { range: range(30, 100), day: Some(5) }].into(), None)
    );
    let at = found(&[], &wanted(100));
    assert_eq!((at.mark, at.chain_end, at.day), (Some(mark(0, -1)), Some(Offset(0)), yesterday));
    assert!(at.is_open, "its beginning stands");
    assert_eq!(
        (at.ahead, at.missed),
        ([Segment { range: range(100, 100), day: None }].into(), None)
    );
    // Of another extent it isn't what was asked for.
    assert_eq!(found(&headed(31, 100), &wanted(30)).missed, Some(range(0, 31)));
}

#[test]
fn what_is_there_twice_stops_nobody_where_that_is_allowed_and_breaks_still_show() {
    // 0..100 lies over the last batch, 80..90, and before it something was lost.
    let over = Link { is_doubled: true, ..broken(20, 30, OLD) };
    let at_the_end = Link {
        previous: Some(Previous {
            end: Offset(100),
            epoch: 2,
            is_dense: true,
            newest_us: 4 * DAY_US,
            lease: YOUNG,
        }),
        ..last(90, YOUNG)
    };
    let mut links = [over, at_the_end];
    assert!(survey(&links, &Notes::default(), YOUTH, Kept::Forever).is_err());
    assert_eq!(without_overlaps(&mut links), Some(range(30, 40)));
    let found = found(&links, &Notes::default());
    assert_eq!(found.mark, Some(mark(100, -1)), "behind the furthest");
    assert_eq!(found.chain_end, Some(Offset(100)));
    assert_eq!(found.lost, [range(20, 30)]);
    assert_eq!(without_overlaps(&mut links), None, "nothing is left of it");
}

/// A zombie of epoch 3 lands within what a later epoch has stored: by its epoch the log would seem to have been cut there.
#[test]
fn what_lies_within_another_batch_says_nothing_of_the_last_record() {
    let over = |before: i64, newest_us: i64| {
        let previous =
            Previous { end: Offset(before), epoch: 2, is_dense: true, newest_us, lease: YOUNG };
        let mut links = [Link { previous: Some(previous), ..last(20, YOUNG) }];
        without_overlaps(&mut links);
        let found = found(&links, &Notes::default());
        (found.mark, found.day)
    };
    assert_eq!(over(100, 6 * DAY_US), (Some(mark(100, -1)), Some(6)));
    assert_eq!(over(20, 4 * DAY_US), (Some(mark(20, -1)), Some(5)), "either may be the last");
    // Where it goes beyond, the last record is its own.
    assert_eq!(over(19, 6 * DAY_US), (Some(mark(20, 3)), Some(5)));
}
