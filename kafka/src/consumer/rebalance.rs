//! Rebalances: what the group offers and takes back, and the caller's answers.
//!
//! **Invariant:** librdkafka gets one answer per rebalance, when the caller has answered for every partition; until
//! then the group waits, and no other member gets what is to be released.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use aion_schemas::log::Offset;
use rdkafka::bindings::{self as rd, rd_kafka_resp_err_t as Code};

use super::{Consumer, Event, check_position, held::Held};
use crate::{
    Error, TopicPartition,
    native::{self, PartitionList, Queue},
};

/// A rebalance that waits for answers.
pub(super) struct Rebalance {
    kind: Kind,
    unanswered: BTreeSet<TopicPartition>,
    start: Vec<(TopicPartition, Offset, i32)>,
    /// Started partitions that go.
    stop: Vec<TopicPartition>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Assign,
    Revoke,
}

impl Consumer {
    /// Starts reading a partition at the next wanted offset; `epoch` is the leader epoch of the record before it, -1
    /// if not known.
    ///
    /// Answers [`Event::Assigned`]; reading begins when all partitions of that event have their answer. A partition
    /// that was released though the group left it here can be started again at any time.
    pub fn start(
        &mut self,
        partition: &TopicPartition,
        at: Offset,
        epoch: i32,
    ) -> Result<(), Error> {
        let doing = || format!("start {partition} at {at}");
        check_position(at, doing)?;
        let start = (partition.clone(), at, epoch);
        if let Some(open) = &mut self.rebalance
            && open.unanswered.contains(partition)
        {
            if open.kind == Kind::Revoke {
                return Err(Error::configuration(
                    doing(),
                    "the group takes the partition back",
                ));
            }
            open.unanswered.remove(partition);
            open.start.push(start);
            return self.finish_rebalance();
        }
        if self.held.contains_key(partition) {
            return Err(Error::configuration(
                doing(),
                "it is started already; seek moves it",
            ));
        }
        if !self.granted.contains(partition) {
            let detail = "the group hasn't assigned it to this member".to_owned();
            return Err(Error::NotMember {
                doing: doing(),
                detail,
            });
        }
        self.assign(&[start])
    }

    /// Stops reading partitions and drops what is queued of them.
    ///
    /// Answers [`Event::Revoked`] and [`Event::Lost`], or [`Event::Assigned`] for partitions that shall stay unread.
    pub fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        let mut stop = Vec::new();
        for partition in partitions {
            let started = self
                .held
                .remove(partition)
                .inspect(|held| held.queue.wake(false));
            let of = match &mut self.rebalance {
                Some(open) if open.unanswered.contains(partition) => {
                    open.unanswered.remove(partition);
                    &mut open.stop
                }
                _ => &mut stop,
            };
            if started.is_some() {
                of.push(partition.clone());
            }
        }
        let finished = self.finish_rebalance();
        if !stop.is_empty() {
            self.unassign(&stop)?;
        }
        finished
    }

    /// Takes up a rebalance of librdkafka's; one without partitions is answered here.
    pub(super) fn rebalancing(&mut self, native: &native::Event) -> Option<Event> {
        let partitions: Vec<_> = native
            .partitions()
            .into_iter()
            .map(|entry| entry.partition)
            .collect();
        let kind = if native.code() == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS as i32 {
            Kind::Assign
        } else {
            Kind::Revoke
        };
        if self
            .rebalance
            .take()
            .is_some_and(|open| !open.unanswered.is_empty())
        {
            tracing::warn!(
                group = self.group,
                "a rebalance was replaced before it was answered"
            );
        }
        self.rebalance = Some(Rebalance {
            kind,
            unanswered: partitions.iter().cloned().collect(),
            start: Vec::new(),
            stop: Vec::new(),
        });
        if partitions.is_empty() {
            return self.finish_rebalance().err().map(Event::Failed);
        }
        if kind == Kind::Assign {
            self.granted.extend(partitions.iter().cloned());
            return Some(Event::Assigned(partitions));
        }
        for partition in &partitions {
            self.granted.remove(partition);
            if let Some(held) = self.held.get_mut(partition) {
                held.leave();
            }
        }
        Some(if self.client.assignment_lost() {
            Event::Lost(partitions)
        } else {
            Event::Revoked(partitions)
        })
    }

    /// Gives librdkafka its answer once every partition has its own.
    fn finish_rebalance(&mut self) -> Result<(), Error> {
        let Some(open) = self.rebalance.take_if(|open| open.unanswered.is_empty()) else {
            return Ok(());
        };
        // Everything stopped when the rebalance began and resumes with the answer: at librdkafka's position.
        self.held.values_mut().for_each(Held::go_back);
        match open.kind {
            Kind::Assign => self.assign(&open.start)?,
            Kind::Revoke => self.unassign(&open.stop)?,
        }
        Ok(())
    }

    fn assign(&mut self, start: &[(TopicPartition, Offset, i32)]) -> Result<(), Error> {
        let mut list = PartitionList::with_capacity(start.len());
        let mut held = Vec::with_capacity(start.len());
        for (partition, at, epoch) in start {
            list.push(partition, at.get(), *epoch)?;
            // Cut off from the common queue before it starts, so that no record takes the wrong way.
            let queue = Queue::partition(&self.client, partition)?;
            queue.wake(true);
            held.push((partition.clone(), Held::new(queue, *at, *epoch)));
        }
        let doing = || format!("start {} partitions of group {}", start.len(), self.group);
        self.client
            .assign(&list)
            .map_err(|(code, reason)| Error::of(code, doing(), reason))?;
        self.held.extend(held);
        self.settle(Instant::now());
        Ok(())
    }

    fn unassign(&mut self, stop: &[TopicPartition]) -> Result<(), Error> {
        let list = PartitionList::of(stop)?;
        let doing = || format!("release {} partitions of group {}", stop.len(), self.group);
        self.client
            .unassign(&list)
            .map_err(|(code, reason)| Error::of(code, doing(), reason))?;
        self.settle(Instant::now());
        Ok(())
    }

    /// Leaves the group: answers what is open, and the last rebalance, by giving everything back.
    pub(super) fn leave(&mut self, wait: Duration) {
        let deadline = Instant::now() + wait;
        if let Some(open) = self.rebalance.take() {
            let mut stop = open.stop;
            if open.kind == Kind::Revoke {
                let started = |partition: &TopicPartition| self.held.contains_key(partition);
                stop.extend(open.unanswered.into_iter().filter(started));
                self.held.retain(|partition, _| !stop.contains(partition));
                self.give_back(&stop);
            } else if let Err((_, reason)) = self.client.assign(&PartitionList::with_capacity(0)) {
                tracing::debug!(reason, "while leaving the group");
            }
        }
        if let Err((_, reason)) = self.client.leave(&self.queue) {
            tracing::debug!(reason, "while leaving the group");
            return;
        }
        while !self.client.has_left() && Instant::now() < deadline {
            let Some(event) = self.queue.poll(Duration::from_millis(50)) else {
                continue;
            };
            if event.kind() == rd::RD_KAFKA_EVENT_REBALANCE {
                let stop: Vec<_> = std::mem::take(&mut self.held).into_keys().collect();
                self.give_back(&stop);
            }
        }
    }

    fn give_back(&self, stop: &[TopicPartition]) {
        match PartitionList::of(stop).map(|list| self.client.unassign(&list)) {
            Ok(Ok(())) => {}
            Ok(Err((_, reason))) => tracing::debug!(reason, "while leaving the group"),
            Err(error) => tracing::debug!(%error, "while leaving the group"),
        }
    }
}
