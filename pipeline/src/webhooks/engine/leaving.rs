//! Partitions that go: deliveries that are under way are waited for, cursors are stored, then the group gets
//! them back. What isn't done in time is done again by the next owner.

use std::time::{Duration, Instant};

use aion_kafka::TopicPartition;

use super::{
    Engine,
    lane::{Key, Working},
    ownership::Granted,
};
use crate::webhooks::{tail::Order, topics::CONTROL};

/// How long the last store of cursors is waited for.
const STORE: Duration = Duration::from_secs(5);

/// A partition on its way out.
#[derive(Debug)]
pub(super) struct Leaving {
    partition: TopicPartition,
    key: Key,
    until: Instant,
    is_storing: bool,
}

impl Engine {
    /// The group wants these back.
    pub(super) fn leave(&mut self, partitions: Vec<TopicPartition>) {
        for partition in partitions {
            if partition.topic.as_ref() == CONTROL {
                self.births.is_leader = false;
            }
            let Some(Granted::Ready(key)) = self.granted.get(&partition).copied() else {
                self.granted.remove(&partition);
                self.tail.order(Order::Release(vec![partition]));
                continue;
            };
            for uid in self.sources.get(&key).map(|one| one.lanes.clone()).unwrap_or_default() {
                if let Some(working) = self.lanes.get_mut(&uid) {
                    working.is_closing = true;
                }
            }
            let until = Instant::now() + self.settings.drain;
            self.leaving.push(Leaving { partition, key, until, is_storing: false });
        }
        self.look_at_leaving();
    }

    /// Whether the group waits for this one to be returned.
    pub(super) fn is_leaving(&self, partition: &TopicPartition) -> bool {
        self.leaving.iter().any(|one| one.partition == *partition)
    }

    /// Lets go of those that are done.
    pub(super) fn look_at_leaving(&mut self) {
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain_mut(|one| !self.has_left(one));
        self.leaving = leaving;
    }

    fn has_left(&mut self, one: &mut Leaving) -> bool {
        let lanes =
            self.sources.get(&one.key).map(|source| source.lanes.clone()).unwrap_or_default();
        let is_late = Instant::now() >= one.until;
        let busy = |uid: &u64| self.lanes.get(uid).is_some_and(|working| working.lane.busy() > 0);
        if !one.is_storing {
            if lanes.iter().any(busy) && !is_late {
                return false;
            }
            self.store_all_of(one.key);
            (one.is_storing, one.until) = (true, Instant::now() + STORE);
        }
        let storing = |uid: &u64| self.lanes.get(uid).is_some_and(|working| working.storing > 0);
        if lanes.iter().any(storing) && Instant::now() < one.until {
            return false;
        }
        self.drop_partition(&one.partition);
        self.tail.order(Order::Release(vec![one.partition.clone()]));
        true
    }

    /// Stores what isn't stored of a partition's cursors.
    pub(super) fn store_all_of(&mut self, key: Key) {
        let Some(source) = self.sources.get(&key) else { return };
        let high = source.high;
        for uid in source.lanes.clone() {
            let is_new = |one: &Working| one.lane.is_dirty() || one.lacks_end(high);
            if self.lanes.get(&uid).is_some_and(is_new) {
                self.store(uid);
            }
        }
    }

    /// Forgets a partition and its cursors, as they are stored.
    pub(super) fn drop_partition(&mut self, partition: &TopicPartition) {
        if partition.topic.as_ref() == CONTROL {
            self.births.is_leader = false;
        }
        if let Some(Granted::Ready(key)) = self.granted.remove(partition)
            && let Some(source) = self.sources.remove(&key)
        {
            for uid in source.lanes {
                self.drop_lane(uid);
            }
        }
        self.leaving.retain(|one| one.partition != *partition);
    }

    /// Forgets a cursor. Answers that are still to come find nobody.
    pub(super) fn drop_lane(&mut self, uid: u64) {
        let Some(working) = self.lanes.remove(&uid) else { return };
        for event in working.held.values().filter_map(|held| held.event.as_ref()) {
            self.held_bytes = self.held_bytes.saturating_sub(event.bytes());
        }
        if let Some(source) = self.sources.get_mut(&working.source) {
            source.lanes.retain(|one| *one != uid);
        }
        if let Some(endpoint) = self.endpoints.get_mut(&working.endpoint) {
            endpoint.lanes.retain(|one| *one != uid);
            endpoint.turn = 0;
            // Whatever was under way isn't counted any more; what it comes to is nobody's.
            endpoint.in_flight = endpoint.in_flight.saturating_sub(working.sending);
            self.in_flight = self.in_flight.saturating_sub(working.sending);
            endpoint.burying = endpoint.burying.saturating_sub(working.burying);
            if working.sending > 0 {
                endpoint.breaker.unprobed();
            }
        }
    }
}
