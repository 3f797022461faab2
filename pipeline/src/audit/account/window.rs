//! A stretch of offsets: what the log has there, and how often each offset is stored.

use super::Run;

/// What the log has at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::audit) enum Seen {
    /// A record with a value.
    Record,
    /// A record without a value.
    Null,
    /// No record: it was read, and nothing came.
    Nothing,
    /// It wasn't read.
    Unread,
}

/// A window over one partition.
#[derive(Debug)]
pub(in crate::audit) struct Window {
    run: Run,
    /// Where the log was read.
    read: Run,
    records: Bits,
    nulls: Bits,
    stored: Bits,
    again: Bits,
    is_empty: bool,
}

impl Window {
    /// A window of which nothing is known yet.
    pub(in crate::audit) fn new(run: Run) -> Window {
        let bits = || Bits::new(run.clone());
        let (records, nulls, stored, again) = (bits(), bits(), bits(), bits());
        Window { read: run.start..run.start, records, nulls, stored, again, is_empty: true, run }
    }

    /// Its offsets.
    pub(in crate::audit) fn run(&self) -> Run {
        self.run.clone()
    }

    /// Whether nothing is stored in it.
    pub(in crate::audit) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Notes that the log was read in this part of it.
    pub(in crate::audit) fn was_read(&mut self, run: Run) {
        self.read = run.start.max(self.run.start)..run.end.min(self.run.end);
    }

    /// Notes a record of the log.
    pub(in crate::audit) fn record(&mut self, offset: i64, is_null: bool) {
        let bits = if is_null { &mut self.nulls } else { &mut self.records };
        bits.set(offset);
    }

    /// Notes a row of the store.
    pub(in crate::audit) fn row(&mut self, offset: i64) {
        self.is_empty = false;
        if self.stored.set(offset) {
            self.again.set(offset);
        }
    }

    /// Whether an offset is stored.
    pub(in crate::audit) fn has_row(&self, offset: i64) -> bool {
        self.stored.get(offset)
    }

    /// How often an offset is stored.
    #[cfg(test)]
    pub(in crate::audit) fn rows(&self, offset: i64) -> u8 {
        self.at(offset).0
    }

    /// How often an offset is stored (2: twice or more), and what the log has there.
    pub(super) fn at(&self, offset: i64) -> (u8, Seen) {
        let stored = u8::from(self.stored.get(offset)) + u8::from(self.again.get(offset));
        let seen = if !self.read.contains(&offset) {
            Seen::Unread
        } else if self.records.get(offset) {
            Seen::Record
        } else if self.nulls.get(offset) {
            Seen::Null
        } else {
            Seen::Nothing
        };
        (stored, seen)
    }
}

/// One bit for each offset of a run.
#[derive(Debug)]
struct Bits {
    run: Run,
    words: Vec<u64>,
}

impl Bits {
    fn new(run: Run) -> Bits {
        let words = (run.end - run.start).max(0) as usize / 64 + 1;
        Bits { run, words: vec![0; words] }
    }

    fn place(&self, offset: i64) -> Option<(usize, u64)> {
        let index = (offset - self.run.start) as usize;
        self.run.contains(&offset).then_some((index / 64, 1 << (index % 64)))
    }

    /// Sets an offset's bit; whether it was set before. Offsets outside are nobody's.
    fn set(&mut self, offset: i64) -> bool {
        let Some((word, bit)) = self.place(offset) else { return false };
        let before = self.words[word] & bit != 0;
        self.words[word] |= bit;
        before
    }

    fn get(&self, offset: i64) -> bool {
        self.place(offset).is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }
}
