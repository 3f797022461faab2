//! From what a table has to where a writer goes on: pure, and the whole of the recovery.
//!
//! A chain is the batches of a partition, each beginning where the one before it ended. It has no end of its own: the
//! next wanted offset is the end of the last batch. The head may be gone, by TTL; that is no break. What is gone from the
//! head on, or altogether, although the TTL can't have taken it, is told in the log and by `aion clickhouse repair`.
//!
//! | the table has | a `reached` note has | then |
//! |---|---|---|
//! | nothing | nothing | as `opened` says, else the log's start |
//! | nothing | chain end e | go on from e: the rows expired, or were erased on purpose. If they can't have expired, `opened`..e is told |
//! | a first batch at f, after `opened` | | if what lay before it can't have expired, `opened`..f is told |
//! | a chain to e | e, and next n > e | go on from n: from e to n there are no rows |
//! | a chain to e | e, and next e, of a later epoch than the rows | go on from e: its last record has no row |
//! | a chain to e | less than e, or nothing | go on from e |
//! | a chain to e | chain end c > e, the last batch young | fill e..c, then go on from c |
//! | a chain to e | chain end c > e, the last batch old | go on from c; e..c is reported, if it can't have expired |
//! | a break, the batch before it young | | fill exactly the break, then go on |
//! | a break, the batch before it old | | leave it; it is reported, if it can't have expired |
//! | a break or a tail, old, or a head, and a note `repair` over just that | | as a young break |
//! | two batches that overlap, or a batch with more rows than it was written with | | stop: rows are doubled |
//!
//! While a break is filled, what is stored behind it is left out by offset alone. Whether the log still has just that is told
//! by leader epochs: the mark has that of the last record before the break, `last_ahead` that of the last one behind it.
//!
//! Rows tell the epoch of the last record below a batch's end, also where that record has none: a batch ends at its last
//! row where what comes behind that is of a later epoch, but for one that has to end where it meets others. Whether a
//! hole lies before the end they don't tell, unless each offset has a row.
//!
//! *Young* is a batch that was verified less than the repair window ago: its lease tells. A part that a disk lost is
//! missed at the next start, at once; an old break is far more likely to be rows that somebody erased, which must not
//! come back by themselves. Nor must a head, of whatever age: a table that somebody emptied looks the same.
//!
//! What is gone was stored after the batch before it; when, nothing tells that is left. The batch behind a break may have come
//! hours later, and a note moves on over offsets without rows: by either, what was erased in these hours would come back. So in
//! a partition that gets a batch less than once an hour none is young enough.
//!
//! *Can't have expired* is what begins with rows, or ends in some, of a day that the TTL hasn't reached. Of a table that
//! is older than its TTL only the end can tell, so a lost head shows there only where all is gone that was noted last.
//! Breaks expire as well: a part is dropped once all in it may go, and one that has later rows of another partition outlives
//! a younger one. A break begins with rows no older than the batch before it; where the rule isn't the contract's it is
//! reported all the same.

use std::{collections::VecDeque, iter, ops::Range};

use aion_schemas::log::{Mark, Offset};

use super::insert::day_of;

/// A batch as the chain query shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) first: Offset,
    pub(super) end: Offset,
    /// The greatest leader epoch of its rows.
    pub(super) epoch: i32,
    /// Whether it was written with a row for each of its offsets.
    pub(super) is_dense: bool,
    pub(super) newest_us: i64,
    pub(super) lease: u32,
    /// Where the partition's first batch begins.
    pub(super) head: Offset,
    pub(super) is_last: bool,
    /// Whether it has more rows than it was written with. Fewer is none of our business: somebody erased some.
    pub(super) is_doubled: bool,
    /// What lies before it; `None` for a table's first batch.
    pub(super) previous: Option<Previous>,
}

/// What lies before a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Previous {
    /// The greatest end of all earlier batches.
    pub(super) end: Offset,
    /// Their greatest leader epoch: along a log epochs never fall, so it is that of the last record before `end`.
    pub(super) epoch: i32,
    /// Whether the batch before was written with a row for each of its offsets.
    pub(super) is_dense: bool,
    /// Greatest append time of the batch before.
    pub(super) newest_us: i64,
    /// Its lease.
    pub(super) lease: u32,
}

impl Link {
    /// What its rows say of the place where it ends.
    fn mark(&self) -> Mark {
        mark_by_rows(self.end, self.epoch, self.is_dense)
    }
}

impl Previous {
    fn mark(&self) -> Mark {
        mark_by_rows(self.end, self.epoch, self.is_dense)
    }
}

fn mark_by_rows(end: Offset, epoch: i32, is_dense: bool) -> Mark {
    if is_dense { Mark { offset: end, epoch } } else { Mark::behind_hole(end, Some(epoch)) }
}

/// What somebody noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) chain_end: Offset,
    pub(super) next: Offset,
    /// The leader epoch of the last record below `next`, as a [`Mark`] has it.
    pub(super) epoch: i32,
    /// `None` before the first batch.
    pub(super) day: Option<i32>,
}

impl Note {
    fn mark(&self) -> Mark {
        Mark { offset: self.next, epoch: self.epoch }
    }
}

/// The notes of a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) opened: Option<Note>,
    pub(super) reached: Option<Note>,
    /// Breaks that somebody wants filled, however old they are.
    pub(super) wanted: Vec<Range<Offset>>,
}

/// What decides whether a batch is young.
#[derive(Clone, Copy, Debug)]
pub(super) struct Youth {
    /// The server's time, in seconds.
    pub(super) now: u32,
    /// How long after a verify its lease runs.
    pub(super) lease_s: u32,
    /// How long after its verify a batch is young.
    pub(super) window_s: u32,
}

impl Youth {
    /// A batch was verified after the lease was made that its rows carry.
    fn is_young(self, lease: u32) -> bool {
        u64::from(lease) + u64::from(self.window_s) > u64::from(self.now) + u64::from(self.lease_s)
    }
}

/// How long a table keeps rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Forever,
    /// So many days after their append.
    Days(u32),
    /// By a rule that isn't the contract's.
    Unknown,
}

impl Kept {
    /// Whether rows may be gone by the rule of which these days are known: none of the days has to be there at that time.
    fn may_have_taken(self, days: impl IntoIterator<Item = i32>, now: u32) -> bool {
        days.into_iter().all(|day| !self.keeps(day, now))
    }

    /// Whether rows of that day have to be there at that time, in seconds.
    fn keeps(self, day: i32, now: u32) -> bool {
        match self {
            Kept::Forever => true,
            Kept::Days(days) => i64::from(now) < (i64::from(day) + i64::from(days)) * 24 * 60 * 60,
            Kept::Unknown => false,
        }
    }
}

/// Batches that are stored further on than where a writer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// What they cover; an empty range is a place where a batch has to end.
    pub(super) range: Range<Offset>,
    /// The day of what follows on them, where it is known.
    pub(super) day: Option<i32>,
}

/// Where a writer goes on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The first offset that is wanted; `None` where the table has never seen the partition.
    pub(super) mark: Option<Mark>,
    /// Where the next batch begins.
    pub(super) chain_end: Option<Offset>,
    /// The day of the next batch.
    pub(super) day: Option<i32>,
    /// Whether it is agreed where the first batch begins.
    pub(super) is_open: bool,
    /// What is stored further on, in order.
    pub(super) ahead: VecDeque<Segment>,
    /// Where that ends: by its epoch it is found that the log was cut there, and has other records than those that are
    /// left out as stored. `None` where nothing is.
    pub(super) last_ahead: Option<Mark>,
    /// Breaks that are left alone.
    pub(super) lost: Vec<Range<Offset>>,
    /// What the table had before its first row, or altogether, and its TTL can't have taken. A table that somebody emptied
    /// looks so at every start: it is told, and recorded nowhere.
    pub(super) missed: Option<Range<Offset>>,
}

/// Two batches have offsets in common, or are the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overlap(pub(super) Range<Offset>);

/// A break, with the mark where it begins and the day of what fills it.
struct Hole {
    range: Range<Offset>,
    mark: Mark,
    day: Option<i32>,
}

/// Whether offsets are missing that a table had: before its first batch, between two, or behind the last.
pub(super) fn misses_some(links: &[Link], notes: &Notes) -> bool {
    let is_behind_break = |link: &Link| link.previous.is_some_and(|before| before.end < link.first);
    let has_tail = |note: Note| links.iter().all(|link| link.end < note.chain_end);
    missing_head(links, notes).is_some()
        || links.iter().any(is_behind_break)
        || notes.reached.is_some_and(has_tail)
}

/// What the notes say that a partition had before its first batch; where it has none, all that it had.
fn missing_head(links: &[Link], notes: &Notes) -> Option<Range<Offset>> {
    let opened = notes.opened?.chain_end;
    let first = links.first().map(|link| link.head);
    // A note without a day is of somebody who has seen no batch.
    let reached = notes.reached.filter(|note| note.day.is_some());
    let end = first.or(reached.map(|note| note.chain_end))?;
    (opened < end).then_some(opened..end)
}

/// The days of the rows that a head began with, and of those that it ended in, where that was noted.
fn days_of_head(head: &Range<Offset>, notes: &Notes) -> impl Iterator<Item = i32> + use<> {
    let is_within = |note: &Note| head.start < note.chain_end && note.chain_end <= head.end;
    let (first, last) = (notes.opened, notes.reached.filter(is_within));
    [first, last].into_iter().flatten().filter_map(|note| note.day)
}

/// Takes out what says that offsets are there more than once, so that the chain goes on behind the furthest of them;
/// the first of what was taken out.
pub(super) fn without_overlaps(links: &mut [Link]) -> Option<Range<Offset>> {
    let mut first = None;
    for link in links {
        let mut twice = link.is_doubled.then_some(link.first..link.end);
        link.is_doubled = false;
        if let Some(previous) = &mut link.previous
            && previous.end > link.first
        {
            twice = Some(link.first..previous.end.min(link.end));
            if previous.end >= link.end {
                // The last record is another batch's: this one's epoch says nothing of it, and it may be the newer one.
                link.end = previous.end;
                link.epoch = -1;
                link.newest_us = link.newest_us.max(previous.newest_us);
            }
            previous.end = link.first;
        }
        first = first.or(twice);
    }
    first
}

/// Decides by the table above.
pub(super) fn survey(
    links: &[Link],
    notes: &Notes,
    youth: Youth,
    kept: Kept,
) -> Result<Found, Overlap> {
    let head = missing_head(links, notes);
    let wanted = head.clone().filter(|range| notes.wanted.contains(range));
    let is_missed = |range: &Range<Offset>| {
        wanted.is_none() && !kept.may_have_taken(days_of_head(range, notes), youth.now)
    };
    let missed = head.filter(is_missed);
    let Some(last) = links.iter().find(|link| link.is_last) else {
        return Ok(of_notes(notes, wanted, missed));
    };
    let is_filled =
        |range: &Range<Offset>, lease: u32| youth.is_young(lease) || notes.wanted.contains(range);
    let is_lost = |began: i32, ended: Option<i32>| {
        kept == Kept::Unknown || !kept.may_have_taken(iter::once(began).chain(ended), youth.now)
    };
    if let Some(double) = links.iter().find(|link| link.is_doubled) {
        return Err(Overlap(double.first..double.end));
    }
    let day = notes.opened.and_then(|note| note.day);
    let before_all = |range: Range<Offset>| Hole { mark: Mark::at(range.start), range, day };
    let mut holes: Vec<Hole> = wanted.into_iter().map(before_all).collect();
    let mut gone: Vec<Range<Offset>> = Vec::new();
    let mut end = last.end;
    for link in links {
        let Some(previous) = link.previous.filter(|previous| previous.end != link.first) else {
            continue;
        };
        if previous.end > link.first {
            return Err(Overlap(link.first..previous.end.min(link.end)));
        }
        end = end.max(previous.end);
        let range = previous.end..link.first;
        let day = day_of(previous.newest_us);
        if is_filled(&range, previous.lease) {
            holes.push(Hole { range, mark: previous.mark(), day: Some(day) });
        } else if is_lost(day, None) {
            gone.push(range);
        }
    }
    let by_rows = Mark { offset: end, ..last.mark() };
    let mut at = Found {
        mark: Some(by_rows),
        chain_end: Some(end),
        day: Some(day_of(last.newest_us)),
        is_open: true,
        ahead: VecDeque::new(),
        last_ahead: None,
        lost: gone,
        missed,
    };
    let mut tail = None;
    match notes.reached {
        Some(note) if note.chain_end > end && is_filled(&(end..note.chain_end), last.lease) => {
            tail = Some(Segment { range: note.chain_end..note.chain_end, day: None });
            holes.push(Hole { range: end..note.chain_end, mark: by_rows, day: at.day });
        }
        Some(note) if note.chain_end > end => {
            if is_lost(day_of(last.newest_us), note.day) {
                at.lost.push(end..note.chain_end);
            }
            at.mark = Some(note.mark());
            at.chain_end = Some(note.chain_end);
            at.day = note.day.or(at.day);
        }
        Some(note) if note.chain_end == end && says_more(note, by_rows) => {
            at.mark = Some(note.mark());
        }
        _ => {}
    }
    // A note may know no epoch, such as one of an earlier release behind a transaction's marker; the rows have theirs.
    let stored = at.mark.filter(|mark| mark.record_epoch().is_some()).unwrap_or(by_rows);
    Ok(with_holes(at, &holes, tail, stored))
}

/// Whether a note is of a place further on than the rows, or knows of a record behind the last row. Along a log epochs
/// never fall, so of two for one place the later is that of the last record.
fn says_more(note: Note, by_rows: Mark) -> bool {
    let mark = note.mark();
    mark.offset > by_rows.offset || mark.record_epoch() > by_rows.record_epoch()
}

/// A writer that fills breaks begins at the first, and leaves out what is stored between them, up to the mark `stored`.
fn with_holes(mut at: Found, holes: &[Hole], tail: Option<Segment>, stored: Mark) -> Found {
    let Some(first) = holes.first() else { return at };
    let ends = holes.iter().skip(1).map(|hole| (hole.range.start, hole.day));
    let ends = ends.chain(at.chain_end.map(|end| (end, at.day)));
    let mut ahead: VecDeque<Segment> = holes
        .iter()
        .zip(ends)
        .map(|(hole, (end, day))| Segment { range: hole.range.end..end, day })
        .collect();
    if let Some(tail) = tail {
        // The break is at the end of all, so nothing is stored behind it.
        ahead.pop_back();
        ahead.push_back(tail);
    }
    at.last_ahead = ahead.iter().any(|segment| !segment.range.is_empty()).then_some(stored);
    at.mark = Some(first.mark);
    at.chain_end = Some(first.range.start);
    at.day = first.day;
    at.ahead = ahead;
    at
}

/// Without rows the notes are all there is.
fn of_notes(notes: &Notes, wanted: Option<Range<Offset>>, missed: Option<Range<Offset>>) -> Found {
    if let Some(range) = wanted {
        let behind = Segment { range: range.end..range.end, day: None };
        return Found {
            mark: Some(Mark::at(range.start)),
            chain_end: Some(range.start),
            day: notes.opened.and_then(|note| note.day),
            is_open: true,
            ahead: VecDeque::from([behind]),
            ..Found::default()
        };
    }
    let reached = notes.reached;
    let mark = reached.map(|note| note.mark());
    let opened = notes.opened;
    let last = reached.filter(|note| note.day.is_some()).or(opened).or(reached);
    let Some(last) = last else { return Found::default() };
    Found {
        mark: mark.or(Some(Mark::at(last.next))),
        chain_end: Some(last.chain_end),
        day: last.day,
        is_open: last.day.is_some(),
        missed,
        ..Found::default()
    }
}

#[cfg(test)]
#[path = "survey/tests.rs"]
mod tests;
