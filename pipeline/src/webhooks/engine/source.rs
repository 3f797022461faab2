//! A partition that this process owns: the records that are in memory, and what is missing of them.
//!
//! The *shelf* holds what the group's member read last, for endpoints that are up to date: one copy, whoever
//! gets it. What lies before it is read again for those who need it, a chunk at a time. Nobody who is slow
//! holds up the shelf: when it is full and somebody is through with it, the oldest records go.

use std::{collections::VecDeque, sync::Arc};

use aion_kafka::TopicPartition;
use aion_schemas::log::Stream;

use crate::webhooks::event::{Event, Events};

/// So many chunks of what lies before the shelf are kept, where there is room for more than one.
const OLD: usize = 4;
/// When so many records are left before the end of the shelf, the next are asked for.
const SOON: usize = 256;

/// An owned partition.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) stream: Stream,
    pub(super) partition: TopicPartition,
    /// The cursors of endpoints in it, by their numbers.
    pub(super) lanes: Vec<u64>,
    /// The number of the reading; 0 before it is started.
    pub(super) run: u64,
    shelf: VecDeque<Arc<Event>>,
    /// All offsets from here to `end` are on the shelf, or have no record.
    start: i64,
    pub(super) end: i64,
    bytes: usize,
    old: VecDeque<Old>,
    pub(super) tail: Demand,
    pub(super) is_tail_asked: bool,
    /// Where records before the shelf are wanted from, and how many.
    pub(super) wanted: Option<(i64, usize)>,
    pub(super) is_old_asked: bool,
    /// The end of the log, as far as known.
    pub(super) high: i64,
}

#[derive(Debug)]
struct Old {
    start: i64,
    end: i64,
    events: Events,
    bytes: usize,
}

/// Whether the next chunk is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Demand {
    None,
    /// Somebody will be through soon.
    Soon,
    /// Somebody waits.
    Now,
}

/// What is known of an offset.
#[derive(Debug)]
pub(super) enum Look {
    /// The first record at or behind it.
    Found(Arc<Event>),
    /// There is none from it to here.
    Nothing(i64),
    /// It has to be read.
    Unread,
}

impl Source {
    pub(super) fn new(stream: Stream, partition: TopicPartition, high: i64) -> Source {
        Source {
            stream,
            partition,
            lanes: Vec::new(),
            run: 0,
            shelf: VecDeque::new(),
            start: 0,
            end: 0,
            bytes: 0,
            old: VecDeque::new(),
            tail: Demand::None,
            is_tail_asked: false,
            wanted: None,
            is_old_asked: false,
            high,
        }
    }

    /// Begins to read at an offset.
    pub(super) fn started(&mut self, at: i64, run: u64) {
        self.shelf.clear();
        (self.start, self.end, self.run, self.bytes) = (at, at, run, 0);
        (self.tail, self.is_tail_asked) = (Demand::None, false);
    }

    /// Puts the next chunk on the shelf.
    pub(super) fn push(&mut self, events: Events, next: i64, most_bytes: usize) {
        for event in events {
            self.bytes += event.bytes();
            self.shelf.push_back(event);
        }
        self.end = self.end.max(next);
        self.high = self.high.max(next);
        (self.tail, self.is_tail_asked) = (Demand::None, false);
        while self.bytes > most_bytes && self.shelf.len() > 1 {
            self.drop_first();
        }
    }

    /// Drops what everybody is through with.
    pub(super) fn trim(&mut self, below: i64) {
        while self.shelf.front().is_some_and(|event| event.offset < below) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(event) = self.shelf.pop_front() {
            self.bytes -= event.bytes();
            self.start = event.offset + 1;
        }
    }

    /// Keeps a chunk that was read again.
    pub(super) fn keep(&mut self, start: i64, end: i64, events: Events, most_bytes: usize) {
        self.is_old_asked = false;
        let bytes = events.iter().map(|event| event.bytes()).sum();
        self.old.push_back(Old { start, end, events, bytes });
        let sum = |old: &VecDeque<Old>| old.iter().map(|one| one.bytes).sum::<usize>();
        while self.old.len() > OLD || (self.old.len() > 1 && sum(&self.old) > most_bytes) {
            self.old.pop_front();
        }
    }

    /// Looks for the first record at or behind an offset. What is missing is wanted from now on.
    pub(super) fn look(&mut self, at: i64, most: usize) -> Look {
        if at >= self.start && self.run > 0 {
            let first = self.shelf.partition_point(|event| event.offset < at);
            if self.shelf.len() - first < SOON {
                self.tail = self.tail.max(Demand::Soon);
            }
            if let Some(event) = self.shelf.get(first) {
                return Look::Found(Arc::clone(event));
            }
            if at < self.end {
                return Look::Nothing(self.end);
            }
            self.tail = Demand::Now;
            return Look::Unread;
        }
        for old in &self.old {
            if (old.start..old.end).contains(&at) {
                let first = old.events.partition_point(|event| event.offset < at);
                return match old.events.get(first) {
                    Some(event) => Look::Found(Arc::clone(event)),
                    None => Look::Nothing(old.end),
                };
            }
        }
        if self.wanted.is_none() {
            self.wanted = Some((at, most));
        }
        Look::Unread
    }

    /// Whether the next chunk should be asked for.
    pub(super) fn asks_tail(&self, most_bytes: usize) -> bool {
        let has_room = self.bytes < most_bytes;
        !self.is_tail_asked
            && self.run > 0
            && (self.tail == Demand::Now || (self.tail == Demand::Soon && has_room))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use aion_schemas::log::Timestamp;
    use tokio::sync::OnceCell;
    use uuid::Uuid;

    use super::*;

    fn stream() -> Stream {
        Stream { topic: "t".into(), id: Uuid::from_u128(1) }
    }

    fn events(offsets: &[i64]) -> Events {
        let event = |offset: &i64| Event {
            stream: stream(),
            partition: 0,
            offset: *offset,
            time: Timestamp(0),
            key: None,
            value: None,
            body: OnceCell::new(),
            id: OnceLock::new(),
        };
        offsets.iter().map(|offset| Arc::new(event(offset))).collect()
    }

    fn found(look: &Look) -> i64 {
        match look {
            Look::Found(event) => event.offset,
            Look::Nothing(to) => -to,
            Look::Unread => i64::MIN,
        }
    }

    fn source() -> Source {
        let mut source = Source::new(stream(), TopicPartition::new("t", 0), 100);
        source.started(10, 1);
        source
    }

    #[test]
    fn offsets_are_found_passed_over_or_wanted() {
        let mut source = source();
        source.push(events(&[10, 12, 13]), 16, usize::MAX);
        assert_eq!(found(&source.look(11, 1)), 12, "a hole of the log");
        assert_eq!(found(&source.look(14, 1)), -16, "nothing up to the end");
        assert_eq!(found(&source.look(16, 1)), i64::MIN);
        assert!(source.asks_tail(0), "somebody waits");
        assert_eq!(found(&source.look(9, 1)), i64::MIN);
        assert_eq!(source.wanted, Some((9, 1)));
        source.keep(5, 10, events(&[6]), usize::MAX);
        assert_eq!((found(&source.look(5, 1)), found(&source.look(7, 1))), (6, -10));
    }

    #[test]
    fn a_full_shelf_drops_its_oldest_and_those_who_need_them_read_again() {
        let mut source = source();
        source.push(events(&[10, 11, 12, 13]), 14, 2 * 512);
        assert_eq!(found(&source.look(12, 1)), 12);
        assert_eq!(found(&source.look(11, 1)), i64::MIN);
        assert_eq!(source.wanted, Some((11, 1)));
        source.keep(4, 5, events(&[4]), 512);
        source.keep(3, 4, events(&[3]), 512);
        assert_eq!(found(&source.look(3, 1)), 3);
        assert_eq!(found(&source.look(4, 1)), i64::MIN, "no room for both");
        source.trim(13);
        assert_eq!((found(&source.look(13, 1)), source.start), (13, 13));
    }
}
