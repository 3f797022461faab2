//! Partitions that come: whose incarnation they are, where each endpoint stands in them, and from where they
//! are read.
//!
//! A partition is read when the cursors' topic has been read to the end that it had after the partition came:
//! what its last owner stored is known then. The group isn't kept waiting for that.

use std::{sync::Arc, time::Duration};

use aion_kafka::{Admin, Connection, Isolation, Spot, TopicPartition};
use aion_schemas::log::{Offset, Stream};

use super::{
    Done, Engine,
    lane::{Key, Working},
    source::Source,
};
use crate::webhooks::{
    cursor::{Cursor, Lane},
    event::Events,
    fetch::{Found, Outcome},
    pattern::any_matches,
    records::cursor_key,
    tail::{Chunk, Order, Told},
    topics::{CONTROL, CURSORS},
};

/// How long a question to the cluster may take.
const WAIT: Duration = Duration::from_secs(10);
/// The pause before it is asked again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// A partition that the group gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    /// It is being looked up.
    Locating,
    /// It is at work.
    Ready(Key),
}

/// Partitions that are looked up, and wait for what was stored of them.
#[derive(Debug)]
pub(super) struct Waiting {
    partitions: Vec<(TopicPartition, Stream, i64)>,
    /// Their topics aren't there: deleted, and perhaps about to be made anew.
    missing: Vec<TopicPartition>,
    cursor_ends: Vec<i64>,
    control_end: i64,
}

impl Engine {
    /// Hears the thread of the group's member.
    pub(super) fn hear(&mut self, told: Told) -> Result<(), String> {
        match told {
            Told::Assigned(partitions) => {
                // That answers the group; they are started when all is known of them.
                self.tail.order(Order::Release(partitions.clone()));
                self.assigned(partitions);
            }
            Told::Revoked(partitions) => self.leave(partitions),
            Told::Lost(partitions) => {
                for partition in &partitions {
                    self.drop_partition(partition);
                }
                self.tail.order(Order::Release(partitions));
            }
            Told::Chunk(chunk) => self.shelve(chunk),
            Told::OutOfRange(partition) => {
                if let Some(Granted::Ready(key)) = self.granted.get(&partition)
                    && let Some(source) = self.sources.get(key)
                {
                    let (key, at) = (*key, source.end);
                    self.ask_watermarks(key, at, Duration::ZERO);
                }
            }
            Told::Trouble(what) => self.trouble(what),
            Told::Ended(why) => return Err(why),
        }
        Ok(())
    }

    /// Looks partitions up that came.
    pub(super) fn assigned(&mut self, partitions: Vec<TopicPartition>) {
        let (control, partitions): (Vec<_>, Vec<_>) =
            partitions.into_iter().partition(|one| one.topic.as_ref() == CONTROL);
        if !control.is_empty() {
            self.births.is_leader = true;
            self.look_around();
        }
        for partition in &partitions {
            self.granted.insert(partition.clone(), Granted::Locating);
        }
        self.locate(partitions, Duration::ZERO);
    }

    fn locate(&mut self, partitions: Vec<TopicPartition>, pause: Duration) {
        if partitions.is_empty() {
            return;
        }
        let (connection, done) = (self.settings.connection.clone(), self.done.clone());
        let cursors = self.own.lock().positions.len();
        self.questions.spawn(async move {
            tokio::time::sleep(pause).await;
            let asked = tokio::task::spawn_blocking(move || {
                let located = locate(&connection, &partitions, cursors);
                located.map_err(|cause| (partitions, cause.to_string()))
            });
            if let Ok(located) = asked.await {
                drop(done.send(Done::Located(located)));
            }
        });
    }

    pub(super) fn located(&mut self, located: Result<Waiting, (Vec<TopicPartition>, String)>) {
        match located {
            Ok(mut waiting) => {
                self.locate_again(std::mem::take(&mut waiting.missing));
                self.waiting.push(waiting);
                self.admit_located();
            }
            Err((partitions, cause)) => {
                self.trouble(cause);
                self.locate_again(partitions);
            }
        }
    }

    fn locate_again(&mut self, mut partitions: Vec<TopicPartition>) {
        partitions.retain(|one| self.granted.contains_key(one));
        self.locate(partitions, AGAIN);
    }

    /// Takes up the partitions of which everything is read that was stored.
    pub(super) fn admit_located(&mut self) {
        let own = Arc::clone(&self.own);
        let is_ready = |one: &mut Waiting| own.has_reached(&one.cursor_ends, one.control_end);
        let ready: Vec<_> = self.waiting.extract_if(.., is_ready).collect();
        for (partition, stream, end) in ready.into_iter().flat_map(|one| one.partitions) {
            if self.granted.get(&partition) != Some(&Granted::Locating) {
                continue;
            }
            let key = (stream.id, partition.partition);
            self.granted.insert(partition.clone(), Granted::Ready(key));
            self.sources.insert(key, Source::new(stream, partition, end));
            self.open_lanes(key);
        }
    }

    /// Takes up the cursors that a partition lacks: of new endpoints, of births that were waited for.
    pub(super) fn open_missing_lanes(&mut self) {
        for key in self.sources.keys().copied().collect::<Vec<_>>() {
            self.open_lanes(key);
        }
    }

    fn open_lanes(&mut self, key: Key) {
        let Some(source) = self.sources.get(&key) else { return };
        let stream = source.stream.clone();
        let have: Vec<u32> =
            source.lanes.iter().filter_map(|uid| Some(self.lanes.get(uid)?.endpoint)).collect();
        let catalog = &self.settings.catalog;
        let wanting = self.endpoints.iter().filter(|(id, endpoint)| {
            !have.contains(id) && any_matches(&endpoint.config.patterns, &stream.topic, catalog)
        });
        let mut opened = Vec::new();
        for (id, endpoint) in wanting {
            match self.cursor(&endpoint.config.id, &endpoint.patterns, &stream, key) {
                Ok(None) => {}
                Ok(Some(cursor)) => opened.push((*id, cursor)),
                Err(cause) => self.trouble(cause),
            }
        }
        for (id, cursor) in opened {
            let uid = self.number();
            let lane = Lane::new(cursor);
            if let Some(at) = lane.next_due().filter(|at| *at > 0) {
                self.wake_at(at, id);
            }
            self.lanes.insert(uid, Working::new(id, key, lane));
            if let Some(source) = self.sources.get_mut(&key) {
                source.lanes.push(uid);
            }
            if let Some(endpoint) = self.endpoints.get_mut(&id) {
                endpoint.lanes.push(uid);
            }
            self.obey(uid);
        }
        self.start_reading(key);
        self.pump_source(key);
    }

    /// Where an endpoint stands in a partition; `None` before its birth.
    fn cursor(
        &self,
        endpoint: &str,
        patterns: &[String],
        stream: &Stream,
        (topic, partition): Key,
    ) -> Result<Option<Cursor>, String> {
        let own = self.own.lock();
        let key = cursor_key(endpoint, stream, partition);
        if let Some(value) = own.cursors.get(key.as_bytes()) {
            let cursor = Cursor::from_json(value).map_err(|cause| format!("cursor {key}: {cause}"));
            return cursor.map(Some);
        }
        let start = own.controls.start(endpoint, patterns, topic, partition);
        Ok(start.map(|next| Cursor { next, ..Cursor::default() }))
    }

    /// Has the partition read from the furthest cursor on; others catch up with it.
    fn start_reading(&mut self, key: Key) {
        let Some(source) = self.sources.get(&key).filter(|one| one.run == 0) else { return };
        let nexts =
            source.lanes.iter().filter_map(|uid| Some(self.lanes.get(uid)?.lane.cursor().next));
        if let Some(at) = nexts.max() {
            self.read_from(key, at);
        }
    }

    pub(super) fn read_from(&mut self, key: Key, at: i64) {
        let run = self.number();
        let Some(source) = self.sources.get_mut(&key) else { return };
        source.started(at, run);
        let (partition, stream) = (source.partition.clone(), source.stream.clone());
        self.tail.order(Order::Start { partition, stream, at, run });
    }

    fn shelve(&mut self, chunk: Chunk) {
        let Some(Granted::Ready(key)) = self.granted.get(&chunk.partition).copied() else { return };
        let most = self.shelf_bytes();
        let Some(source) = self.sources.get_mut(&key).filter(|one| one.run == chunk.run) else {
            return;
        };
        source.push(chunk.events, chunk.next, most);
        self.pump_source(key);
        let Some(source) = self.sources.get_mut(&key) else { return };
        let nexts =
            source.lanes.iter().filter_map(|uid| Some(self.lanes.get(uid)?.lane.cursor().next));
        source.trim(nexts.min().unwrap_or(i64::MAX));
    }

    /// Sends to everybody who has a cursor in the partition.
    pub(super) fn pump_source(&mut self, key: Key) {
        let Some(source) = self.sources.get(&key) else { return };
        let ids: Vec<_> =
            source.lanes.iter().filter_map(|uid| Some(self.lanes.get(uid)?.endpoint)).collect();
        for id in ids {
            self.pump(id);
        }
    }

    /// Asks for what was wanted while sending.
    pub(super) fn serve_demands(&mut self) {
        let mut demands = std::mem::take(&mut self.demands);
        demands.sort_unstable();
        demands.dedup();
        let most = self.shelf_bytes();
        for key in demands.drain(..) {
            let Some(source) = self.sources.get_mut(&key) else { continue };
            if source.asks_tail(most) {
                source.is_tail_asked = true;
                self.tail.order(Order::More(source.partition.clone()));
            }
            if !source.is_old_asked
                && let Some((at, most)) = source.wanted.take()
            {
                source.is_old_asked = true;
                self.fetcher.ask(crate::webhooks::fetch::Wanted {
                    stream: source.stream.clone(),
                    partition: source.partition.partition,
                    at,
                    most,
                });
            }
        }
        self.demands = demands;
    }

    /// Records that were read again.
    pub(super) fn found(&mut self, found: Found) {
        let Found { wanted, outcome } = found;
        let key = (wanted.stream.id, wanted.partition);
        if !self.sources.contains_key(&key) {
            return self.found_letters(&wanted, outcome);
        }
        match outcome {
            Outcome::Read(events, next) => self.found_old(key, wanted.at, events, next),
            Outcome::Gone => self.ask_watermarks(key, wanted.at, Duration::ZERO),
            Outcome::Failed(cause) => {
                if let Some(source) = self.sources.get_mut(&key) {
                    source.is_old_asked = false;
                }
                self.trouble(cause);
                self.pump_source(key);
            }
        }
    }

    fn found_old(&mut self, key: Key, at: i64, events: Events, next: i64) {
        let most = self.shelf_bytes();
        if let Some(source) = self.sources.get_mut(&key) {
            source.keep(at, next, events, most);
        }
        self.pump_source(key);
    }
}

/// Asks the cluster.
fn locate(
    connection: &Connection,
    partitions: &[TopicPartition],
    cursors: usize,
) -> Result<Waiting, aion_kafka::Error> {
    let admin = Admin::open(connection, WAIT)?;
    let mut names: Vec<_> = partitions.iter().map(|one| &*one.topic).collect();
    names.sort_unstable();
    names.dedup();
    let ids = admin.topic_ids(&names)?;
    let next = |partition: TopicPartition| (partition, Spot::Next);
    let own = (0..cursors as i32).map(|number| TopicPartition::new(CURSORS, number));
    let own: Vec<_> = own.chain([TopicPartition::new(CONTROL, 0)]).map(next).collect();
    let mut cursor_ends: Vec<_> =
        admin.offsets(&own, Isolation::Committed)?.into_iter().map(Offset::get).collect();
    let control_end = cursor_ends.pop().unwrap_or(0);
    let stream = |partition: &TopicPartition| {
        let id = ids.iter().find(|one| *one.topic == *partition.topic)?.id?;
        Some((partition.clone(), Stream { topic: Arc::clone(&partition.topic), id }))
    };
    let found: Vec<_> = partitions.iter().filter_map(stream).collect();
    let is_missing = |one: &&TopicPartition| !found.iter().any(|(there, _)| there == *one);
    let missing = partitions.iter().filter(is_missing).cloned().collect();
    let spots: Vec<_> = found.iter().map(|(one, _)| next(one.clone())).collect();
    let ends = admin.offsets(&spots, Isolation::Committed)?;
    let partitions =
        found.into_iter().zip(ends).map(|((one, stream), end)| (one, stream, end.get())).collect();
    Ok(Waiting { partitions, missing, cursor_ends, control_end })
}
