//! An endpoint's cursor in a partition, with the records that it has in hand.

use std::{collections::HashMap, sync::Arc};

use super::source::{Look, Source};
use crate::webhooks::{
    cursor::{Hole, Lane, MAX_HOLES, Millis, Want},
    event::Event,
    policy::Endpoint,
};

/// Names a partition of a topic's incarnation.
pub(super) type Key = (uuid::Uuid, i32);

/// The most records that are asked for, for a hole and for what follows.
const FEW: usize = 64;
const MANY: usize = 512;

/// Holes of all cursors, each of about 300 bytes: cursors that all had as many as they may would take more memory
/// than there is.
const ALL_HOLES: usize = 1 << 17;
/// What each cursor may have all the same.
const LEAST_HOLES: usize = 16;

/// How many holes a cursor may have, of so many cursors that have so many in all.
pub(super) fn most_holes(holes: usize, cursors: usize) -> usize {
    if holes < ALL_HOLES {
        return MAX_HOLES;
    }
    (ALL_HOLES / cursors.max(1)).clamp(LEAST_HOLES, MAX_HOLES)
}

/// A cursor at work.
#[derive(Debug)]
pub(super) struct Working {
    pub(super) endpoint: u32,
    pub(super) source: Key,
    pub(super) lane: Lane,
    /// Records of holes that are in memory, and the last failure of each.
    pub(super) held: HashMap<i64, Held>,
    /// A gap that `next` is about to pass; it waits for the record of it.
    pub(super) has_open_gap: bool,
    /// Stores that aren't acknowledged yet.
    pub(super) storing: usize,
    /// Deliveries that are under way.
    pub(super) sending: usize,
    /// Dead letters that are under way.
    pub(super) burying: usize,
    /// It takes nothing new: its partition is leaving.
    pub(super) is_closing: bool,
    /// The end of the log that was stored last, and when.
    pub(super) told_end: i64,
    pub(super) told_at: Millis,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) event: Option<Arc<Event>>,
    pub(super) error: Option<String>,
}

/// What is next.
#[derive(Debug)]
pub(super) enum Next {
    /// Deliver this hole.
    Send(i64, Arc<Event>),
    /// It has been tried for long enough.
    Bury(i64, Arc<Event>, &'static str),
    /// The log has no such record any more.
    Lost(i64),
    /// Its dead letter has to be read first.
    Letter(i64, (i32, i64)),
}

/// Whether a hole has been tried for long enough, and why.
pub(super) fn spent(hole: &Hole, endpoint: &Endpoint, now: Millis) -> Option<&'static str> {
    if hole.attempts >= endpoint.retry.max_attempts {
        return Some("attempts");
    }
    let age = now.saturating_sub(hole.first_at);
    (hole.first_at > 0 && age > endpoint.max_age.as_millis() as Millis).then_some("age")
}

impl Working {
    pub(super) fn new(endpoint: u32, source: Key, lane: Lane) -> Working {
        Working {
            endpoint,
            source,
            lane,
            held: HashMap::new(),
            has_open_gap: false,
            storing: 0,
            sending: 0,
            burying: 0,
            is_closing: false,
            told_end: 0,
            told_at: 0,
        }
    }

    /// A hole whose time has come.
    pub(super) fn due(
        &mut self,
        source: &mut Source,
        endpoint: &Endpoint,
        now: Millis,
    ) -> Option<Next> {
        let offset = self.lane.due(now)?;
        self.hole(offset, source, endpoint, now)
    }

    /// The hole that was tried least, whatever its time.
    pub(super) fn least(
        &mut self,
        source: &mut Source,
        endpoint: &Endpoint,
        now: Millis,
    ) -> Option<Next> {
        let offset = self.lane.least_tried()?;
        self.hole(offset, source, endpoint, now)
    }

    /// What is to be done with a hole, once its record is in hand.
    pub(super) fn hole(
        &mut self,
        offset: i64,
        source: &mut Source,
        endpoint: &Endpoint,
        now: Millis,
    ) -> Option<Next> {
        let hole = self.lane.hole(offset)?;
        let spent = spent(hole, endpoint, now);
        let held = self.held.get(&offset).and_then(|held| held.event.clone());
        let event = match (held, hole.letter) {
            (Some(event), _) => event,
            (None, Some(letter)) => return Some(Next::Letter(offset, letter)),
            (None, None) => match source.look(offset, FEW) {
                Look::Found(event) if event.offset == offset => event,
                Look::Found(_) | Look::Nothing(_) => return Some(Next::Lost(offset)),
                Look::Unread => return None,
            },
        };
        Some(match spent {
            Some(reason) => Next::Bury(offset, event, reason),
            None => Next::Send(offset, event),
        })
    }

    /// Opens the next record, and answers it if it may go at once; none while so many are opened.
    pub(super) fn fresh(
        &mut self,
        source: &mut Source,
        endpoint: &Endpoint,
        (now, most_holes): (Millis, usize),
    ) -> Option<Next> {
        loop {
            if self.has_open_gap || self.lane.cursor().holes.len() >= most_holes {
                return None;
            }
            let want = self.lane.wants()?;
            let event = match source.look(want.offset(), MANY) {
                Look::Unread => return None,
                Look::Nothing(to) => {
                    self.lane.pass(want, to);
                    continue;
                }
                Look::Found(event) => event,
            };
            if let Want::Redo(_, end) = want
                && event.offset >= end
            {
                self.lane.pass(want, end);
                continue;
            }
            let offset = event.offset;
            self.lane.open(want, offset, endpoint.ordered.then(|| event.key_hash()));
            if self.lane.is_due(offset, now) {
                return Some(Next::Send(offset, event));
            }
            // It waits for an earlier record of its key, or is under way already.
        }
    }

    /// A hole is settled.
    pub(super) fn settled(&mut self, offset: i64) {
        self.lane.settled(offset);
        self.held.remove(&offset);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::OnceLock;

    use aion_kafka::TopicPartition;
    use aion_schemas::{
        catalog::Catalog,
        log::{Stream, Timestamp},
    };
    use tokio::sync::OnceCell;
    use uuid::Uuid;

    use super::*;
    use crate::webhooks::{cursor::Cursor, policy::Policy};

    fn endpoint() -> Arc<Endpoint> {
        let policy = "webhooks:\n- {url: \"https://a.example/\", secret: a-secret-for-tests-only, topics: [t], \
                      retry: {initial_interval: 1s, max_interval: 1s, max_attempts: 2}}\n";
        Arc::clone(&Policy::parse(policy, &Catalog::builtin()).unwrap().endpoints[0])
    }

    fn source(count: i64) -> Source {
        let stream = Stream { topic: "t".into(), id: Uuid::from_u128(1) };
        let event = |offset| Event {
            stream: stream.clone(),
            partition: 0,
            offset,
            time: Timestamp(0),
            key: None,
            value: None,
            body: OnceCell::new(),
            id: OnceLock::new(),
        };
        let mut source = Source::new(stream.clone(), TopicPartition::new("t", 0), count);
        source.started(0, 1);
        source.push((0..count).map(|offset| Arc::new(event(offset))).collect(), count, usize::MAX);
        source
    }

    #[test]
    fn a_cursor_opens_no_more_than_its_share() {
        let (endpoint, mut source) = (endpoint(), source(10));
        let mut working = Working::new(1, (Uuid::from_u128(1), 0), Lane::new(Cursor::default()));
        let mut open = |working: &mut Working, most| {
            while let Some(Next::Send(offset, _)) = working.fresh(&mut source, &endpoint, (1, most))
            {
                working.lane.begin(offset);
            }
            working.lane.cursor().next
        };
        assert_eq!(open(&mut working, 3), 3);
        working.settled(1);
        assert_eq!(open(&mut working, 3), 4, "one was settled");
        assert_eq!(open(&mut working, MAX_HOLES), 10);
    }

    #[test]
    fn shares_are_bounded_once_all_have_too_many() {
        assert_eq!(most_holes(0, 1_000_000), MAX_HOLES);
        assert_eq!(most_holes(ALL_HOLES - 1, 4_000), MAX_HOLES);
        assert_eq!(most_holes(ALL_HOLES, 4_000), 32);
        assert_eq!(most_holes(2 * ALL_HOLES, 1_000_000), LEAST_HOLES);
        assert_eq!(most_holes(ALL_HOLES, 100), MAX_HOLES);
    }
}
