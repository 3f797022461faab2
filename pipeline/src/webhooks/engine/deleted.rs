//! Cursors of topics that were deleted and made anew: what waited in them is a gap.
//!
//! The member that has the control log's partition looks for them among all that is stored, so it doesn't
//! matter who had the partitions, nor whether anybody ran at that time. Where a log ended is known from what
//! its owner stored last.
//!
//! **Invariant:** a cursor goes when its gaps are acknowledged, not before.
//! **Invariant:** a topic counts as deleted when its name has another id. One that isn't listed may come back,
//! and its cursors with it.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use aion_kafka::{Outgoing, TopicIdentity};
use aion_schemas::{catalog::GAPS, log::Stream};
use bytes::Bytes;
use uuid::Uuid;

use super::{Done, Engine, lane::Working, now, store::write};
use crate::webhooks::{
    cursor::{Cursor, Millis},
    records::{self, About},
    topics::CURSORS,
};

/// How old the end of a log may become that is stored with a cursor that doesn't move.
const OLDEST_END: Millis = 30_000;

/// Cursors of topics that are gone.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    /// As they were at the last look: whoever had a partition may be about to store where it came to.
    seen: HashMap<Bytes, Bytes>,
    /// Those that are closed, with the gaps that aren't acknowledged yet.
    closing: HashMap<Bytes, usize>,
}

impl Engine {
    /// Stores where the logs end that somebody is behind in.
    pub(super) fn remember_ends(&mut self) {
        let before = now() - OLDEST_END;
        for working in self.lanes.values_mut() {
            let high = self.sources.get(&working.source).map_or(0, |source| source.high);
            if working.told_at <= before && working.lacks_end(high) {
                working.lane.set_dirty();
            }
        }
    }

    /// Closes the cursors of topics whose names have other ids by now.
    pub(super) fn close_deleted(&mut self, topics: &[TopicIdentity]) {
        let ids: HashMap<&str, Uuid> =
            topics.iter().filter_map(|one| Some((one.topic.as_str(), one.id?))).collect();
        let live: HashSet<String> = ids.values().map(Uuid::to_string).collect();
        let found: HashMap<Bytes, Bytes> = {
            let own = self.own.lock();
            let stale = own.cursors.iter().filter(|(key, value)| {
                topic_id(key).is_some_and(|id| !live.contains(id))
                    && about(value).is_some_and(|about| ids.contains_key(about.topic.as_str()))
            });
            stale.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let before = std::mem::replace(&mut self.deleted.seen, found.clone());
        self.deleted.closing.retain(|key, _| found.contains_key(key));
        for (key, value) in found {
            if before.get(&key) == Some(&value) && !self.deleted.closing.contains_key(&key) {
                self.close(&key, &value);
            }
        }
    }

    /// Records what a cursor's endpoint will not get.
    fn close(&mut self, key: &Bytes, value: &[u8]) {
        let (Some(about), Ok(cursor)) = (about(value), Cursor::from_json(value)) else { return };
        let Ok(id) = about.topic_id.parse() else { return };
        let stream = Stream { topic: about.topic.as_str().into(), id };
        let gaps = unsettled(&cursor, about.end);
        self.deleted.closing.insert(key.clone(), gaps.len());
        if gaps.is_empty() {
            return self.forget_cursor(key);
        }
        for Range { start, end } in gaps {
            let known = self.endpoints.values_mut().find(|one| *one.config.id == *about.endpoint);
            if let Some(endpoint) = known {
                endpoint.counters.lost += (end - start).unsigned_abs();
            }
            let detail = format!(
                "webhook {} will not get offsets {start}..{end}: the topic was deleted and made anew",
                about.endpoint
            );
            tracing::error!(topic = %about.topic, partition = about.partition, "{detail}");
            let by = (self.settings.group.as_str(), about.endpoint.as_str());
            let why = ("topic_deleted", detail.as_str());
            let (gap_key, value) =
                records::gap(by, (&stream, about.partition), (start, end), why, now());
            let key = key.clone();
            let written = move |outcome| Done::GapOfDeleted { key, outcome };
            write((&self.producer, &self.done), (GAPS, &gap_key), &value, written);
        }
    }

    pub(super) fn gap_of_deleted_written(&mut self, key: &Bytes, outcome: Result<(), String>) {
        if let Err(cause) = outcome {
            // The next look finds the cursor once more.
            self.deleted.closing.remove(key);
            return self.trouble(format!("write to {GAPS}: {cause}; it is tried again"));
        }
        let Some(left) = self.deleted.closing.get_mut(key) else { return };
        *left -= 1;
        if *left == 0 {
            self.forget_cursor(key);
        }
    }

    /// Takes a cursor out of its topic. Where that fails, the next owner of the control log closes it again.
    fn forget_cursor(&self, key: &Bytes) {
        let message = Outgoing { topic: CURSORS, key: Some(key), ..Outgoing::default() };
        if let Err(cause) = self.producer.send(&message, |_| {}) {
            self.trouble(format!("write to {CURSORS}: {cause}"));
        }
    }
}

impl Working {
    /// Whether it is behind, and the end of the log that is stored with it isn't the newest.
    pub(super) fn lacks_end(&self, high: i64) -> bool {
        self.told_end != high && self.lane.cursor().next < high
    }
}

/// The topic's id in a cursor's key, which is `endpoint:topic id:partition`.
fn topic_id(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.rsplit(':').nth(1)
}

fn about(value: &[u8]) -> Option<About> {
    serde_json::from_slice(value).ok()
}

/// The offsets below `end` that a cursor's endpoint hasn't got. What has a dead letter is delivered from that,
/// and what was asked for once more was delivered before.
fn unsettled(cursor: &Cursor, end: i64) -> Vec<Range<i64>> {
    let holes = cursor.holes.iter().filter(|(_, hole)| hole.letter.is_none());
    let holes = holes.map(|(offset, _)| *offset..offset + 1);
    let rest = Some(cursor.next..end).filter(|rest| !rest.is_empty());
    let mut ranges: Vec<Range<i64>> = Vec::new();
    for range in holes.chain(rest) {
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::cursor::Hole;

    #[test]
    fn what_is_unsettled_is_told_in_ranges() {
        let hole = |letter| Hole { letter, ..Hole::default() };
        let holes = [(3, None), (4, None), (6, Some((0, 1))), (9, None)];
        let holes = holes.into_iter().map(|(offset, letter)| (offset, hole(letter))).collect();
        let cursor = Cursor { next: 10, holes, redo: Vec::from_iter([0..2, 5..6]), control: 7 };
        assert_eq!(unsettled(&cursor, 12), [3..5, 9..12]);
        assert_eq!(unsettled(&cursor, 10), [3..5, 9..10]);
        assert_eq!(unsettled(&cursor, 0), [3..5, 9..10], "the end isn't known");
        assert_eq!(unsettled(&Cursor { next: 10, ..Cursor::default() }, 10), []);
    }

    #[test]
    fn the_topics_id_is_found_in_a_key() {
        assert_eq!(topic_id(b"an:endpoint:6b849121:3"), Some("6b849121"));
        assert_eq!(topic_id(b"nothing"), None);
    }
}
