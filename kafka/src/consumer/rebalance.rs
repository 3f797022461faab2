//! Rebalances: what the group offers and takes back, and the caller's answers.
//!
//! **Invariant:** librdkafka gets one answer per rebalance, when the caller has answered for every
//! partition; until then the group waits, and no other member gets what is to be released.

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
    partitions: Vec<TopicPartition>,
    unanswered: BTreeSet<TopicPartition>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Assign,
    Revoke,
}

/// Whose partitions are whose, apart from what is being read (`Consumer::held`).
#[derive(Default)]
pub(super) struct Ownership {
    /// What the group has given to this member, started or not.
    granted: BTreeSet<TopicPartition>,
    /// What librdkafka's assignment has: it refuses to add twice or to remove what isn't there.
    live: BTreeSet<TopicPartition>,
    /// What has to leave librdkafka's assignment though the group leaves it here.
    stopping: BTreeSet<TopicPartition>,
    /// The rebalance that the group waits for.
    open: Option<Rebalance>,
}

impl Ownership {
    /// Whether nothing is this member's, and nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.granted.is_empty() && self.live.is_empty() && self.open.is_none()
    }
}

impl Consumer {
    /// Starts reading a partition at the next wanted offset; `epoch` is the leader epoch of the
    /// last record before it, as a [`Mark`](aion_schemas::log::Mark) has it.
    ///
    /// Answers [`Event::Assigned`]; reading begins when all partitions of that event have their
    /// answer. A partition that was released though the group left it here can be started again at
    /// any time.
    pub fn start(
        &mut self,
        partition: &TopicPartition,
        at: Offset,
        epoch: i32,
    ) -> Result<(), Error> {
        let doing = || format!("start {partition} at {at}");
        check_position(at, doing)?;
        if self.held.contains_key(partition) {
            return Err(Error::configuration(doing(), "it is started already; seek moves it"));
        }
        if !self.owned.granted.contains(partition) {
            let detail = "the group hasn't assigned it to this member".to_owned();
            return Err(Error::NotMember { doing: doing(), detail });
        }
        // Cut off from the common queue before it starts, so that no record takes the wrong way.
        let queue = Queue::partition(&self.client, partition)?;
        queue.wake(true);
        self.held.insert(partition.clone(), Held::new(queue, at, epoch));
        self.answer(std::slice::from_ref(partition))
    }

    /// Stops reading partitions and drops what is queued of them.
    ///
    /// Answers [`Event::Revoked`] and [`Event::Lost`], or [`Event::Assigned`] for partitions that
    /// shall stay unread.
    pub fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        for partition in partitions {
            if let Some(held) = self.held.remove(partition) {
                held.queue.wake(false);
            }
            if self.owned.live.contains(partition) {
                self.owned.stopping.insert(partition.clone());
            }
        }
        self.answer(partitions)
    }

    /// Takes up a rebalance of librdkafka's; one without partitions is answered here.
    pub(super) fn rebalancing(&mut self, native: &native::Event) -> Option<Event> {
        let entries = native.partitions();
        let mut partitions: Vec<_> = entries.into_iter().map(|entry| entry.partition).collect();
        partitions.sort_unstable();
        let kind = if native.code() == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS as i32 {
            Kind::Assign
        } else {
            Kind::Revoke
        };
        if self.owned.open.is_some() {
            tracing::warn!(group = self.group(), "a rebalance was replaced before it was answered");
        }
        let unanswered = partitions.iter().cloned().collect();
        self.owned.open = Some(Rebalance { kind, partitions: partitions.clone(), unanswered });
        if partitions.is_empty() {
            return self.finish_rebalance().err().map(Event::Failed);
        }
        if kind == Kind::Assign {
            self.owned.granted.extend(partitions.iter().cloned());
            return Some(Event::Assigned(partitions));
        }
        for partition in &partitions {
            self.owned.granted.remove(partition);
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

    /// Notes the caller's answers, and passes them on as far as that can be done now.
    fn answer(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        if let Some(open) = &mut self.owned.open {
            open.unanswered.retain(|partition| !partitions.contains(partition));
        }
        self.finish_rebalance()?;
        self.reconcile()?;
        self.settle(Instant::now());
        Ok(())
    }

    /// Gives librdkafka its answer once every partition has its own.
    fn finish_rebalance(&mut self) -> Result<(), Error> {
        let Some(open) = self.owned.open.take_if(|open| open.unanswered.is_empty()) else {
            return Ok(());
        };
        // Everything stopped when the rebalance began and resumes with the answer: at librdkafka's
        // position.
        self.held.values_mut().for_each(Held::go_back);
        let owned = |partition: &TopicPartition| self.owned.live.contains(partition);
        match open.kind {
            Kind::Assign => {
                let starting = self.starting().into_iter().filter(|one| !owned(one)).collect();
                self.assign(starting)
            }
            Kind::Revoke => {
                let stop: Vec<_> = open.partitions.into_iter().filter(owned).collect();
                self.unassign(&stop)
            }
        }
    }

    /// Brings librdkafka's assignment to what the caller wants, for partitions that no rebalance is
    /// about.
    ///
    /// Not while one is open: librdkafka would take any change for its answer. A rebalance that
    /// librdkafka has begun is waiting in the queue, so that is looked at first.
    pub(super) fn reconcile(&mut self) -> Result<(), Error> {
        if self.owned.stopping.is_empty() && self.starting().is_empty() {
            return Ok(());
        }
        self.take_events();
        if self.owned.open.is_some() {
            return Ok(());
        }
        let mut stop: BTreeSet<_> = std::mem::take(&mut self.owned.stopping);
        // One that librdkafka gave up for want of an offset starts again only by leaving and coming
        // back.
        stop.extend(self.starting());
        stop.retain(|partition| self.owned.live.contains(partition));
        if !stop.is_empty() {
            self.unassign(&stop.into_iter().collect::<Vec<_>>())?;
        }
        let starting = self.starting();
        if starting.is_empty() { Ok(()) } else { self.assign(starting) }
    }

    fn starting(&self) -> Vec<TopicPartition> {
        let starting = self.held.iter().filter(|(_, held)| held.is_starting());
        starting.map(|(partition, _)| partition.clone()).collect()
    }

    fn assign(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Error> {
        let mut list = PartitionList::with_capacity(partitions.len());
        for partition in &partitions {
            if let Some(held) = self.held.get(partition) {
                let (at, epoch) = held.target();
                list.push(partition, at.get(), epoch)?;
            }
        }
        let doing = || format!("start {} partitions of group {}", partitions.len(), self.group());
        let holding = self.client.hold_back(&list, true).map_err(|code| (code, String::new()));
        if let Err((code, reason)) = holding.and_then(|()| self.client.assign(&list)) {
            let error = Error::of(code, doing(), reason);
            self.held.retain(|partition, _| !partitions.contains(partition));
            return Err(error);
        }
        for partition in partitions {
            if let Some(held) = self.held.get_mut(&partition) {
                held.started();
            }
            self.owned.live.insert(partition);
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), Error> {
        let list = PartitionList::of(partitions)?;
        let doing = || format!("release {} partitions of group {}", partitions.len(), self.group());
        let outcome =
            self.client.unassign(&list).map_err(|(code, reason)| Error::of(code, doing(), reason));
        for partition in partitions {
            self.owned.live.remove(partition);
            self.owned.stopping.remove(partition);
        }
        outcome
    }

    /// Leaves the group: answers what is open, and the last rebalance, by giving everything back.
    pub(super) fn leave(&mut self, wait: Duration) {
        let deadline = Instant::now() + wait;
        self.held.clear();
        if let Some(open) = self.owned.open.take() {
            match open.kind {
                Kind::Revoke => self.give_back(open.partitions),
                Kind::Assign => {
                    if let Err((_, reason)) = self.client.assign(&PartitionList::with_capacity(0)) {
                        tracing::debug!(reason, "while leaving the group");
                    }
                }
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
                self.give_back(self.owned.live.iter().cloned().collect());
            }
        }
    }

    fn give_back(&mut self, mut partitions: Vec<TopicPartition>) {
        partitions.retain(|partition| self.owned.live.contains(partition));
        if let Err(error) = self.unassign(&partitions) {
            tracing::debug!(%error, "while leaving the group");
        }
    }
}
