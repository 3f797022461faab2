//! What is durable of an endpoint's way through one partition, and what may happen to it.
//!
//! An endpoint has to get every offset from its start on. Of these,
//!
//! | offset | is |
//! |---|---|
//! | at `next` or above | not looked at yet |
//! | in a range of `redo` | asked for once more by an operator, not looked at yet |
//! | in `holes` | opened: to be delivered, being delivered, or waiting for its next try |
//! | any other | settled: delivered, or kept as a dead letter |
//!
//! So a cursor that is stored late tells of fewer settled offsets than there are, never of more: after a
//! crash, or from a process that should be gone, it leads to deliveries that were made before, with the same
//! idempotency key, and to no loss.
//!
//! **Invariant:** an offset leaves `holes` only when its delivery was answered with success, when its dead
//! letter is acknowledged, or when a gap that names it is.
//! **Invariant:** a cursor is bounded: [`MAX_HOLES`] holes and [`MAX_REDO`] ranges, whatever happens.

mod json;
#[cfg(test)]
mod model;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
};

pub use self::json::CursorError;

/// The most offsets of a cursor that are opened.
pub const MAX_HOLES: usize = 1_024;
/// The most ranges that an operator has asked for once more.
pub const MAX_REDO: usize = 64;

/// Milliseconds since 1970.
pub type Millis = i64;

/// The durable part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The first offset that wasn't looked at yet.
    pub next: i64,
    /// The offsets below that aren't settled.
    pub holes: BTreeMap<i64, Hole>,
    /// Offsets that are to be delivered once more, in the order in which they were asked for.
    pub redo: Vec<Range<i64>>,
    /// The next control record that this cursor hasn't obeyed.
    pub control: i64,
}

/// An offset that isn't settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hole {
    /// The attempts that failed.
    pub attempts: u32,
    /// When the first of them was made; 0 before.
    pub first_at: Millis,
    /// When the next may be made; 0 is at once.
    pub next_at: Millis,
    /// A hash of the record's key, where the order of a key matters.
    pub key: Option<u64>,
    /// Where its dead letter stands, when it is delivered once more from there.
    pub letter: Option<(i32, i64)>,
}

/// Where to look for the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// At or behind this offset, for the first time.
    Next(i64),
    /// At or behind this offset and below the other, once more.
    Redo(i64, i64),
}

impl Want {
    /// The offset to begin at.
    pub fn offset(self) -> i64 {
        match self {
            Want::Next(offset) | Want::Redo(offset, _) => offset,
        }
    }
}

/// A cursor at work: which holes are busy, which wait for what.
#[derive(Clone, Debug)]
pub struct Lane {
    cursor: Cursor,
    /// Holes that may be tried at their time, by that time. Those that are busy or wait for an earlier
    /// record of their key aren't here.
    ready: BTreeSet<(Millis, i64)>,
    busy: BTreeSet<i64>,
    /// The holes of each key; only the first may go. Empty unless the order matters.
    keys: HashMap<u64, BTreeSet<i64>>,
    is_dirty: bool,
}

impl Lane {
    /// Takes up a cursor where it stands.
    pub fn new(cursor: Cursor) -> Lane {
        let mut lane = Lane {
            cursor: Cursor { holes: BTreeMap::new(), ..cursor },
            ready: BTreeSet::new(),
            busy: BTreeSet::new(),
            keys: HashMap::new(),
            is_dirty: false,
        };
        for (offset, hole) in cursor.holes {
            lane.insert(offset, hole);
        }
        lane
    }

    /// The durable part as it is now.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether it has changed since it was last asked; it is asked when it is about to be stored.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    /// Whether it would have to be stored.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// It couldn't be stored after all.
    pub fn set_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// Where the next record to open is looked for; none while there are too many holes.
    pub fn wants(&self) -> Option<Want> {
        if self.cursor.holes.len() >= MAX_HOLES {
            return None;
        }
        Some(match self.cursor.redo.first() {
            Some(range) => Want::Redo(range.start, range.end),
            None => Want::Next(self.cursor.next),
        })
    }

    /// Opens the record that was found for a [`Want`]: at its offset or the first behind it.
    pub fn open(&mut self, want: Want, offset: i64, key: Option<u64>) {
        self.pass(want, offset + 1);
        // One that is asked for once more may be a hole already.
        if !self.cursor.holes.contains_key(&offset) {
            self.insert(offset, Hole { key, ..Hole::default() });
        }
    }

    /// Notes that below `to` there is nothing for a [`Want`] (any more).
    pub fn pass(&mut self, want: Want, to: i64) {
        self.is_dirty = true;
        match want {
            Want::Next(_) => self.cursor.next = self.cursor.next.max(to),
            Want::Redo(start, _) => {
                if let Some(range) =
                    self.cursor.redo.first_mut().filter(|range| range.start == start)
                {
                    range.start = to.min(range.end);
                    if range.is_empty() {
                        self.cursor.redo.remove(0);
                    }
                }
            }
        }
    }

    /// The first hole that may be tried now.
    pub fn due(&self, now: Millis) -> Option<i64> {
        self.ready.first().filter(|(at, _)| *at <= now).map(|(_, offset)| *offset)
    }

    /// Whether a hole may be tried now.
    pub fn is_due(&self, offset: i64, now: Millis) -> bool {
        let at = self.cursor.holes.get(&offset).map(|hole| hole.next_at);
        at.is_some_and(|at| at <= now && self.ready.contains(&(at, offset)))
    }

    /// The hole that was tried least, of those that wait for their time or may go: what a probe takes, so
    /// that a record that always fails stops nobody.
    pub fn least_tried(&self) -> Option<i64> {
        let attempts = |offset: &i64| self.cursor.holes.get(offset).map_or(0, |hole| hole.attempts);
        self.ready
            .iter()
            .map(|(_, offset)| *offset)
            .min_by_key(|offset| (attempts(offset), *offset))
    }

    /// When the first of the holes that wait may be tried.
    pub fn next_due(&self) -> Option<Millis> {
        self.ready.first().map(|(at, _)| *at)
    }

    /// All holes that aren't busy and don't wait for one before them.
    pub fn waiting(&self) -> impl Iterator<Item = i64> + '_ {
        self.ready.iter().map(|(_, offset)| *offset)
    }

    /// The state of a hole.
    pub fn hole(&self, offset: i64) -> Option<&Hole> {
        self.cursor.holes.get(&offset)
    }

    /// A hole is being delivered, or made a dead letter: it is nobody else's until one of the calls below.
    pub fn begin(&mut self, offset: i64) {
        if let Some(hole) = self.cursor.holes.get(&offset) {
            self.ready.remove(&(hole.next_at, offset));
            self.busy.insert(offset);
        }
    }

    /// How many holes are busy.
    pub fn busy(&self) -> usize {
        self.busy.len()
    }

    /// The delivery was answered with success, or the dead letter or the gap is acknowledged.
    pub fn settled(&mut self, offset: i64) {
        if !self.busy.remove(&offset) {
            return;
        }
        let Some(hole) = self.cursor.holes.remove(&offset) else { return };
        self.is_dirty = true;
        if let Some(key) = hole.key {
            if let Some(line) = self.keys.get_mut(&key) {
                line.remove(&offset);
            }
            self.line_up(key);
        }
    }

    /// The attempt that began at `began` failed; the next may be made at `next_at`.
    pub fn failed(&mut self, offset: i64, began: Millis, next_at: Millis) {
        self.is_dirty = true;
        if let Some(hole) = self.cursor.holes.get_mut(&offset) {
            hole.attempts = hole.attempts.saturating_add(1);
            if hole.first_at == 0 {
                hole.first_at = began;
            }
        }
        self.postponed(offset, next_at);
    }

    /// Nothing was tried, or it says nothing of the receiver: it may be at `next_at`.
    pub fn postponed(&mut self, offset: i64, next_at: Millis) {
        if !self.busy.remove(&offset) {
            return;
        }
        let Some(hole) = self.cursor.holes.get_mut(&offset) else { return };
        hole.next_at = next_at;
        match hole.key {
            Some(key) => self.line_up(key),
            None => {
                self.ready.insert((next_at, offset));
            }
        }
    }

    /// Obeys the control record at `control`: these ranges are delivered once more, as far as they were
    /// looked at. Whether there was room; if not, nothing has changed.
    pub fn redo(&mut self, control: i64, ranges: &[Range<i64>]) -> bool {
        if self.cursor.control > control {
            return true;
        }
        if self.cursor.redo.len() + ranges.len() > MAX_REDO {
            return false;
        }
        for range in ranges {
            let range = range.start.max(0)..range.end.min(self.cursor.next);
            if !range.is_empty() {
                self.cursor.redo.push(range);
            }
        }
        self.obeyed(control);
        true
    }

    /// Obeys the control record at `control`: these offsets are delivered once more, from their dead
    /// letters. Whether there was room; if not, nothing has changed.
    pub fn reopen(&mut self, control: i64, letters: &[(i64, (i32, i64))]) -> bool {
        if self.cursor.control > control {
            return true;
        }
        if self.cursor.holes.len() + letters.len() > MAX_HOLES {
            return false;
        }
        for (offset, letter) in letters {
            // What wasn't looked at yet comes by itself.
            if *offset < self.cursor.next && !self.cursor.holes.contains_key(offset) {
                self.insert(*offset, Hole { letter: Some(*letter), ..Hole::default() });
            }
        }
        self.obeyed(control);
        true
    }

    /// A hole's dead letter is of no use: its record is looked for where it was.
    pub fn forget_letter(&mut self, offset: i64) {
        self.is_dirty = true;
        if let Some(hole) = self.cursor.holes.get_mut(&offset) {
            hole.letter = None;
        }
        self.postponed(offset, 0);
    }

    /// The log was cut below `next`: what is written there now wasn't looked at.
    pub fn rewind(&mut self, to: i64) {
        if to < self.cursor.next {
            self.cursor.next = to;
            self.is_dirty = true;
        }
    }

    /// The control record at `control` asks nothing of this cursor, or was obeyed.
    pub fn obeyed(&mut self, control: i64) {
        if control >= self.cursor.control {
            self.cursor.control = control + 1;
            self.is_dirty = true;
        }
    }

    fn insert(&mut self, offset: i64, hole: Hole) {
        let (key, next_at) = (hole.key, hole.next_at);
        self.cursor.holes.insert(offset, hole);
        match key {
            Some(key) => {
                self.keys.entry(key).or_default().insert(offset);
                self.line_up(key);
            }
            None => {
                self.ready.insert((next_at, offset));
            }
        }
    }

    /// Lets the first hole of a key go, and only that, once none of them is busy.
    fn line_up(&mut self, key: u64) {
        let Some(line) = self.keys.get(&key) else { return };
        let Some(first) = line.first().copied() else {
            self.keys.remove(&key);
            return;
        };
        let is_busy = line.iter().any(|offset| self.busy.contains(offset));
        // One that was let go may have got another before it: asked for once more.
        let stale = line.iter().skip(1).find_map(|offset| {
            let at = (self.cursor.holes.get(offset)?.next_at, *offset);
            self.ready.contains(&at).then_some(at)
        });
        if let Some(stale) = stale {
            self.ready.remove(&stale);
        }
        if let Some(hole) = self.cursor.holes.get(&first).filter(|_| !is_busy) {
            self.ready.insert((hole.next_at, first));
        }
    }
}
