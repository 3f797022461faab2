//! The topic was deleted, and another has its name: its partitions are other partitions now.
//!
//! What was read of the old ones and proven to be theirs can't be read again: it is stored first, however
//! long a sink fails, and each partition is taken up anew once that is done. What waits without a proof
//! may be of the new topic, and is dropped: it will be read again. What was not read of the old ones is
//! lost, and is written down as a gap, up to where they were known to reach; of those that weren't being read just then,
//! or that the group took away before, as `departed` says.

use std::time::Instant;

use aion_schemas::log::{Partition, Stream};
use uuid::Uuid;

use super::{
    event_loop::Job,
    gaps::{Gap, GapKind, RECORDED},
    gate::Verdict,
    journal::Journal,
    reader::{Item, Phase, Reader},
    rules::Rule,
    source::{Command, Source},
};

impl<S: Source, J: Journal> Job<S, J> {
    /// Look-ups agree on another id.
    pub(super) async fn recreated(&mut self, new_id: Uuid, now: Instant) {
        let Some(old) = self.stream.clone() else { return };
        if !self.plan.rules.hold(Rule::StreamIsTopicId) {
            return;
        }
        tracing::warn!(
            job = %self.plan.job, topic = %old.topic, old_id = %old.id, %new_id,
            "the topic was made anew: reading it from its start, as another stream"
        );
        self.stream = Some(Stream { topic: old.topic, id: new_id });
        let started_after = self.plan.rules.hold(Rule::LookupAfterPoll);
        let is_other = |one: &&Reader| one.phase != Phase::Reading && !one.is_leaving();
        let others = self.readers.values().filter(is_other).map(|one| one.partition.number);
        let others: Vec<i32> = others.collect();
        self.note_departures(&others, now);
        self.departed.topic_gone(now);
        let numbers: Vec<i32> = self.readers.keys().copied().collect();
        for number in numbers {
            self.source.command(Command::Halt(number)).await;
            let Some(reader) = self.readers.get_mut(&number) else { continue };
            let stream = reader.partition.stream.clone();
            let was_reading = reader.phase == Phase::Reading;
            let gate = &self.gate;
            reader.leave(|polled| gate.verdict(&stream, polled, started_after) == Verdict::Pass);
            if was_reading {
                self.tell_unread(number);
            }
        }
        self.go_on_drained(now).await;
    }

    /// Has the offsets of a deleted topic's partition written down that no sink will ever have.
    fn tell_unread(&mut self, number: i32) {
        let noted_at = self.clock.wall();
        let Some(reader) = self.readers.get_mut(&number) else { return };
        let (read, end) = (reader.waiting_end(), reader.end);
        let unread = reader.sinks.iter().zip(&self.places).filter_map(|(sink, place)| {
            let range = sink.wanted.max(read)?..end?;
            (range.start < range.end).then_some((place.name, range))
        });
        let gaps = Gap::gather(GapKind::TopicDeleted, unread);
        let entry = |gap: &Gap| {
            gap.tell(&self.plan.job, &reader.partition, RECORDED);
            gap.entry(&self.plan.job, &reader.partition, noted_at)
        };
        let entries: Vec<_> = gaps.iter().map(entry).collect();
        if !entries.is_empty() {
            reader.waiting.push_back(Item::of_entries(entries));
        }
    }

    /// Everything of the old partition is stored: the number stands for a partition of the present topic.
    pub(super) fn take_up_anew(&mut self, number: i32) {
        let Some(stream) = self.stream.clone() else { return };
        self.forget(&[number]);
        let partition = Partition { stream, number };
        self.readers.insert(number, Reader::new(partition, self.places.len()));
    }

    /// Notes how many partitions the topic has, and tells the sinks. The group may leave one here that the present topic
    /// doesn't have; it is looked for only when a look-up tells of it.
    pub(super) async fn count_partitions(&mut self, count: usize) {
        for place in &mut self.places {
            place.sink.topic_has(count);
        }
        for reader in self.readers.values_mut() {
            let number = reader.partition.number;
            let exists = usize::try_from(number).is_ok_and(|number| number < count);
            match reader.phase {
                Phase::Absent if exists => reader.phase = Phase::Assigning,
                Phase::Assigning | Phase::Locating { .. } if !exists => {
                    reader.phase = Phase::Absent;
                    self.source.command(Command::Halt(number)).await;
                }
                _ => {}
            }
        }
    }
}
