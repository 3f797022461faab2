//! What topics there are, and births: where an endpoint that is new, or a pattern that is, begins.
//!
//! The member that has the control log's partition writes a birth before anybody delivers by it, with the
//! ends of all partitions that newly match. Whatever isn't in a birth came later, and begins at its start.

#[cfg(test)]
mod model;

use std::{collections::HashSet, sync::Arc, time::Duration};

use aion_kafka::{Admin, Connection, Isolation, Producer, Spot, TopicIdentity, TopicPartition};
use aion_schemas::{
    catalog::Catalog,
    log::{Offset, Stream},
};
use tokio::sync::mpsc::UnboundedSender;

use super::{Done, Engine, store::write};
use crate::webhooks::{
    control::{Born, Control, Controls},
    pattern::{Pattern, any_matches, is_internal},
    tail::Order,
    topics::{CONTROL, CURSORS, DEAD_LETTERS},
};

/// How long a question to the cluster may take.
const WAIT: Duration = Duration::from_secs(10);

/// What is known of the cluster's topics.
#[derive(Debug, Default)]
pub(super) struct Births {
    pub(super) is_leader: bool,
    is_asking: bool,
    /// The number of the policy: what was asked for another one lacks topics.
    policy: u64,
    /// Births that were written and aren't read yet.
    open: HashSet<Arc<str>>,
    subscribed: Vec<String>,
}

/// A birth that isn't written yet.
#[derive(Debug)]
struct Missing {
    endpoint: Arc<str>,
    patterns: Vec<String>,
    new: Vec<TopicIdentity>,
}

/// What the cluster says.
#[derive(Debug)]
pub(super) struct Discovered {
    policy: u64,
    topics: Vec<TopicIdentity>,
    /// Topics that were asked for by their names, whether there are any or not.
    doubted: Vec<TopicIdentity>,
    ends: Vec<(TopicPartition, i64)>,
    cursor_ends: Vec<i64>,
    control_end: i64,
    letters: Option<Stream>,
}

impl Engine {
    /// There is another policy.
    pub(super) fn policy_changed(&mut self) {
        self.births.policy += 1;
        self.look_around();
    }

    /// Asks which topics there are that somebody wants, and where the logs of ours end.
    pub(super) fn look_around(&mut self) {
        if self.births.is_asking {
            return;
        }
        self.births.is_asking = true;
        let patterns: Vec<Pattern> =
            self.endpoints.values().flat_map(|one| one.config.patterns.clone()).collect();
        let owned: Vec<_> = self.sources.values().map(|one| one.partition.clone()).collect();
        let (connection, catalog) =
            (self.settings.connection.clone(), Arc::clone(&self.settings.catalog));
        let (done, policy) = (self.done.clone(), self.births.policy);
        let cursors = self.own.lock().positions.len();
        let doubted = self.deleted.doubted();
        self.questions.spawn_blocking(move || {
            let wanted = (&*catalog, &*patterns, &*doubted);
            let discovered = discover(&connection, wanted, owned, cursors);
            let discovered = discovered.map(|found| Discovered { policy, ..found });
            drop(done.send(Done::Discovered(discovered.map_err(|cause| cause.to_string()))));
        });
    }

    pub(super) fn discovered(&mut self, discovered: Result<Discovered, String>) {
        self.births.is_asking = false;
        let discovered = match discovered {
            Ok(discovered) => discovered,
            Err(cause) => return self.trouble(cause),
        };
        if discovered.policy != self.births.policy {
            // A birth by it would leave out what the new policy matches, as if that came later.
            return self.look_around();
        }
        if !self.births.is_leader {
            self.deleted.forget_doubts();
        }
        self.statuses.change(|status| status.trouble = None);
        self.letters_stream.clone_from(&discovered.letters);
        let mut names: Vec<_> = discovered.topics.iter().map(|one| one.topic.clone()).collect();
        names.sort_unstable();
        if names != self.births.subscribed {
            self.births.subscribed.clone_from(&names);
            names.insert(0, CONTROL.to_owned());
            self.tail.order(Order::Subscribe(names));
        }
        // First: the ends are those of the topics that are there now.
        self.forget_recreated(&discovered.topics);
        for (partition, end) in &discovered.ends {
            let found = self.sources.values_mut().find(|one| one.partition == *partition);
            if let Some(source) = found {
                source.high = source.high.max(*end);
            }
        }
        self.remember_ends();
        let is_read = self.own.lock().controls.next >= discovered.control_end;
        if self.births.is_leader && is_read {
            self.write_births(&discovered.topics);
        }
        if self.births.is_leader
            && self.own.has_reached(&discovered.cursor_ends, discovered.control_end)
        {
            self.close_deleted(&discovered.topics, &discovered.doubted);
        }
    }

    /// A topic that was deleted and made anew is another one.
    fn forget_recreated(&mut self, topics: &[TopicIdentity]) {
        let is_stale = |stream: &Stream| {
            let found = topics.iter().find(|one| *one.topic == *stream.topic);
            found.is_some_and(|one| one.id.is_some_and(|id| id != stream.id))
        };
        // What the group wants back goes by itself, and comes again: the group waits for its return.
        let stays = |one: &TopicPartition| !self.is_leaving(one);
        let stale = self.sources.iter();
        let stale = stale.filter(|(_, one)| is_stale(&one.stream) && stays(&one.partition));
        let (keys, partitions): (Vec<_>, Vec<_>) =
            stale.map(|(key, one)| (*key, one.partition.clone())).unzip();
        if !partitions.is_empty() {
            tracing::warn!("webhooks: a topic was made anew; it is delivered from its start");
            for (key, partition) in keys.into_iter().zip(&partitions) {
                // What is unsettled becomes a gap by that.
                self.store_all_of(key);
                self.drop_partition(partition);
            }
            self.assigned(partitions);
        }
    }

    /// Writes the births that are missing.
    fn write_births(&mut self, topics: &[TopicIdentity]) {
        let catalog = Arc::clone(&self.settings.catalog);
        let mut missing = Vec::new();
        {
            let own = self.own.lock();
            for endpoint in self.endpoints.values() {
                let id = &endpoint.config.id;
                let is_known = own.controls.patterns(id) == Some(&endpoint.patterns[..]);
                if is_known || self.births.open.contains(id) {
                    continue;
                }
                let wanted = (&**id, &endpoint.config.patterns[..]);
                let new = newly_matched(&own.controls, wanted, topics, &catalog);
                let (endpoint, patterns) = (Arc::clone(id), endpoint.patterns.clone());
                missing.push(Missing { endpoint, patterns, new });
            }
        }
        if !missing.is_empty() {
            self.births.open.extend(missing.iter().map(|one| Arc::clone(&one.endpoint)));
            let (connection, done) = (self.settings.connection.clone(), self.done.clone());
            let producer = Arc::clone(&self.producer);
            // One question for all of them: there may be a thousand.
            self.questions.spawn_blocking(move || {
                give_birth(&connection, missing, (&producer, &done));
            });
        }
    }

    pub(super) fn birth_written(&mut self, endpoint: &Arc<str>, outcome: Result<(), String>) {
        if let Err(cause) = outcome {
            self.births.open.remove(endpoint);
            self.trouble(format!("write to {CONTROL}: {cause}; it is tried again"));
        }
    }

    /// Something new stands in the control log.
    pub(super) fn heard_controls(&mut self) {
        self.births.open.clear();
        self.hear_switches();
        self.open_missing_lanes();
        self.obey_controls();
        for id in self.endpoints.keys().copied().collect::<Vec<_>>() {
            self.pump(id);
        }
        self.tell();
    }
}

/// The topics that a birth of an endpoint with these patterns speaks of: those that it begins at the end of.
fn newly_matched(
    controls: &Controls,
    (endpoint, patterns): (&str, &[Pattern]),
    topics: &[TopicIdentity],
    catalog: &Catalog,
) -> Vec<TopicIdentity> {
    let before: Vec<_> = controls
        .patterns(endpoint)
        .into_iter()
        .flatten()
        .filter_map(|text| Pattern::new(text, catalog).ok())
        .collect();
    let is_new = |one: &&TopicIdentity| {
        let is_known = one.id.is_none_or(|id| controls.was_born(endpoint, id));
        !is_known
            && any_matches(patterns, &one.topic, catalog)
            // It was matched, and came later.
            && !any_matches(&before, &one.topic, catalog)
    };
    topics.iter().filter(is_new).cloned().collect()
}

/// Asks the cluster.
fn discover(
    connection: &Connection,
    (catalog, patterns, doubted): (&Catalog, &[Pattern], &[String]),
    owned: Vec<TopicPartition>,
    cursors: usize,
) -> Result<Discovered, aion_kafka::Error> {
    let admin = Admin::open(connection, WAIT)?;
    let names = admin.topics()?;
    let is_wanted =
        |name: &&String| !is_internal(name, catalog) && any_matches(patterns, name, catalog);
    let wanted: Vec<_> = names.iter().filter(is_wanted).map(String::as_str).collect();
    let mut topics = admin.topic_ids(&wanted)?;
    topics.retain(|one| one.id.is_some());
    let doubted: Vec<_> = doubted.iter().map(String::as_str).collect();
    // One that we may not be told of says nothing of the others.
    let alone = |topic: &&str| admin.topic_ids(&[topic]).unwrap_or_default();
    let doubted =
        admin.topic_ids(&doubted).unwrap_or_else(|_| doubted.iter().flat_map(alone).collect());
    let letters = admin.topic_ids(&[DEAD_LETTERS])?;
    let letters = letters
        .into_iter()
        .find_map(|one| Some(Stream { topic: DEAD_LETTERS.into(), id: one.id? }));
    let next = |partition: TopicPartition| (partition, Spot::Next);
    let own = (0..cursors as i32).map(|number| TopicPartition::new(CURSORS, number));
    let own: Vec<_> = own.chain([TopicPartition::new(CONTROL, 0)]).map(next).collect();
    let mut cursor_ends: Vec<_> =
        admin.offsets(&own, Isolation::Committed)?.into_iter().map(Offset::get).collect();
    let control_end = cursor_ends.pop().unwrap_or(0);
    // One that is gone in the meantime is no reason to know nothing of the others.
    let spots: Vec<_> = owned.into_iter().map(next).collect();
    let found = admin.offsets(&spots, Isolation::Committed).unwrap_or_default();
    let ends = spots.into_iter().zip(found).map(|((one, _), end)| (one, end.get())).collect();
    Ok(Discovered { policy: 0, topics, doubted, ends, cursor_ends, control_end, letters })
}

/// Writes births, with the ends that the logs have now.
fn give_birth(
    connection: &Connection,
    missing: Vec<Missing>,
    (producer, done): (&Producer, &UnboundedSender<Done>),
) {
    let mut topics: Vec<&TopicIdentity> = missing.iter().flat_map(|one| &one.new).collect();
    topics.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
    topics.dedup_by(|a, b| a.topic == b.topic);
    let born = ends(connection, &topics).map_err(|cause| cause.to_string());
    for Missing { endpoint, patterns, new } in missing {
        let name = Arc::clone(&endpoint);
        let written = move |outcome| Done::BirthWritten { endpoint: name, outcome };
        match &born {
            Err(cause) => drop(done.send(written(Err(cause.clone())))),
            Ok(born) => {
                let is_new = |one: &&Born| new.iter().any(|new| new.topic == one.topic);
                let topics = born.iter().filter(is_new).cloned().collect();
                let birth = Control::Birth { endpoint: Arc::clone(&endpoint), patterns, topics };
                let value = serde_json::to_vec(&birth).unwrap_or_default();
                write((producer, done), (CONTROL, &endpoint), &value, written);
            }
        }
    }
}

/// The ends of topics.
fn ends(
    connection: &Connection,
    topics: &[&TopicIdentity],
) -> Result<Vec<Born>, aion_kafka::Error> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let admin = Admin::open(connection, WAIT)?;
    let mut born = Vec::with_capacity(topics.len());
    for topic in topics {
        let Some(id) = topic.id else { continue };
        let at = |number: i32| (TopicPartition::new(&topic.topic, number), Spot::Next);
        let spots: Vec<_> = (0..topic.partitions as i32).map(at).collect();
        let found = admin.offsets(&spots, Isolation::Committed)?;
        let ends = found.into_iter().map(Offset::get).collect();
        born.push(Born { topic: topic.topic.clone(), id, ends });
    }
    Ok(born)
}
