//! Cursors of topics that were deleted: what waited in them is a gap.
//!
//! The member that has the control log's partition looks for them among all that is stored, so it doesn't
//! matter who had the partitions, nor whether anybody ran at that time. Where a log ended is known from what
//! its owner stored last.
//!
//! **Invariant:** a cursor goes when its gaps are acknowledged, not before.
//! **Invariant:** a topic counts as deleted when its name has another id, or when the cluster said [`LOOKS`] times in
//! a row that it has none of that name, asked for it by name: a broker that has just started may not know all yet, and
//! one that doesn't tell us of a topic says that, not that there is none.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
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

/// How often in a row a topic isn't there, one look after the other, until it counts as deleted for good.
const LOOKS: u32 = 6;

/// Cursors of topics that are gone.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    /// Topics of cursors that weren't among those that somebody wants, and how often in a row the cluster said that
    /// there is none of that name.
    doubted: BTreeMap<String, u32>,
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

    /// Closes the cursors of topics whose names have other ids by now, or none for good.
    pub(super) fn close_deleted(&mut self, topics: &[TopicIdentity], doubted: &[TopicIdentity]) {
        let known = topics.iter().chain(doubted);
        let ids: HashMap<&str, Uuid> =
            known.filter_map(|one| Some((one.topic.as_str(), one.id?))).collect();
        let live: HashSet<String> = ids.values().map(Uuid::to_string).collect();
        let stale: Vec<(Bytes, Bytes, String)> = {
            let own = self.own.lock();
            let stale = own
                .cursors
                .iter()
                .filter(|(key, _)| topic_id(key).is_some_and(|id| !live.contains(id)));
            stale
                .filter_map(|(key, value)| Some((key.clone(), value.clone(), about(value)?.topic)))
                .collect()
        };
        self.deleted.doubt(stale.iter().map(|(_, _, topic)| topic.as_str()), &ids, doubted);
        let is_gone = |topic: &str| ids.contains_key(topic) || self.deleted.is_gone(topic);
        let found: HashMap<Bytes, Bytes> = stale
            .into_iter()
            .filter(|(_, _, topic)| is_gone(topic))
            .map(|(key, value, _)| (key, value))
            .collect();
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
                "webhook {} will not get offsets {start}..{end}: the topic was deleted",
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

impl Deleted {
    /// The topics that the cluster is to be asked for by their names.
    pub(super) fn doubted(&self) -> Vec<String> {
        self.doubted.keys().cloned().collect()
    }

    /// Somebody else looks: what was seen isn't seen again and again.
    pub(super) fn forget_doubts(&mut self) {
        self.doubted.clear();
    }

    /// Notes which topics have stale cursors, and what the cluster said of those that were asked for.
    fn doubt<'a>(
        &mut self,
        stale: impl Iterator<Item = &'a str>,
        ids: &HashMap<&str, Uuid>,
        asked: &[TopicIdentity],
    ) {
        let is_missing =
            |topic: &str| asked.iter().any(|one| one.topic == topic && one.id.is_none());
        let before = std::mem::take(&mut self.doubted);
        for topic in stale.filter(|topic| !ids.contains_key(topic)) {
            let looks = before.get(topic).copied().unwrap_or(0);
            let looks = if is_missing(topic) { looks + 1 } else { 0 };
            self.doubted.insert(topic.to_owned(), looks);
        }
    }

    fn is_gone(&self, topic: &str) -> bool {
        self.doubted.get(topic).is_some_and(|looks| *looks >= LOOKS)
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
    fn a_topic_is_gone_when_the_cluster_has_said_so_again_and_again() {
        let none = |topic: &str| TopicIdentity { topic: topic.to_owned(), id: None, partitions: 0 };
        let ids = HashMap::from([("anew", Uuid::from_u128(1))]);
        let mut deleted = Deleted::default();
        let mut look = |asked: &[TopicIdentity]| {
            deleted.doubt(["gone", "anew"].into_iter(), &ids, asked);
            (deleted.doubted(), deleted.is_gone("gone"))
        };
        assert_eq!(
            look(&[]),
            (vec!["gone".to_owned()], false),
            "that it wasn't listed says nothing"
        );
        for _ in 1..LOOKS {
            assert!(!look(&[none("gone")]).1);
        }
        assert!(!look(&[]).1, "it was not asked for: from the beginning");
        for _ in 1..LOOKS {
            assert!(!look(&[none("gone")]).1);
        }
        assert!(look(&[none("gone")]).1);
        deleted.doubt(["anew"].into_iter(), &ids, &[]);
        assert!(deleted.doubted().is_empty() && !deleted.is_gone("gone"));
    }

    #[test]
    fn the_topics_id_is_found_in_a_key() {
        assert_eq!(topic_id(b"an:endpoint:6b849121:3"), Some("6b849121"));
        assert_eq!(topic_id(b"nothing"), None);
    }
}
