//! One group's state machine.
//!
//! | state | leaves it when |
//! |---|---|
//! | Empty | a member joins |
//! | Joining | all members have joined, or the rebalance timeout is over |
//! | Syncing | the leader has handed in the assignments |
//! | Stable | a member joins, changes, leaves or falls silent |

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{ResponseError, protocol::StrBytes};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Who,
    member::{Assigned, Join, Joined, Member, member, millis},
};

/// Members of a group, and those who are about to be.
const MEMBERS: usize = 1_000;

#[derive(Clone, Copy, Default)]
pub(super) enum State {
    #[default]
    Empty,
    Joining(Instant),
    Syncing(Instant),
    Stable,
}

/// A group.
#[derive(Default)]
pub(super) struct Group {
    pub(super) state: State,
    generation: i32,
    pub(super) protocol_type: String,
    pub(super) protocol: StrBytes,
    leader: String,
    pub(super) members: BTreeMap<String, Member>,
    /// Static members: instance to member id.
    instances: HashMap<String, String>,
    /// Ids given out to members who are to join with them, and until when.
    pub(super) expected: HashMap<String, Instant>,
}

impl Group {
    /// Takes a join; the reply may come later.
    pub(super) fn join(&mut self, join: Join, reply: oneshot::Sender<Joined>, now: Instant) {
        let refuse = |reply: oneshot::Sender<Joined>, error, member| {
            // The client may have gone; then nobody wants the answer.
            drop(reply.send(Joined::refused(error, member)));
        };
        if !self.suits(&join) {
            return refuse(reply, ResponseError::InconsistentGroupProtocol, join.member);
        }
        let known = self.members.contains_key(&join.member);
        if !known && self.members.len() + self.expected.len() >= MEMBERS {
            return refuse(reply, ResponseError::GroupMaxSizeReached, join.member);
        }
        if join.member.is_empty() {
            let id =
                format!("{}-{}", join.instance.as_ref().unwrap_or(&join.client), Uuid::new_v4());
            match join.instance.as_ref().and_then(|instance| self.instances.get(instance)) {
                Some(old) => {
                    let old = old.clone();
                    self.replace(&old, id, join, reply, now);
                }
                None if join.id_first && join.instance.is_none() => {
                    self.expected.insert(id.clone(), now + millis(join.session_ms));
                    refuse(reply, ResponseError::MemberIdRequired, id);
                }
                None => self.enter(id, join, reply, now),
            }
        } else if let Some(instance) = &join.instance
            && self.instances.get(instance).is_some_and(|id| *id != join.member)
        {
            refuse(reply, ResponseError::FencedInstanceId, join.member);
        } else if known {
            self.rejoin(join, reply, now);
        } else if self.expected.remove(&join.member).is_some() {
            self.enter(join.member.clone(), join, reply, now);
        } else {
            refuse(reply, ResponseError::UnknownMemberId, join.member);
        }
    }

    /// Whether the join's protocols go with what the other members speak.
    fn suits(&self, join: &Join) -> bool {
        let mut others = self.members.iter().filter(|(id, member)| {
            **id != join.member && (member.instance.is_none() || member.instance != join.instance)
        });
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return false;
        }
        if others.clone().next().is_none() {
            return true;
        }
        let common = |(name, _): &(StrBytes, Bytes)| others.all(|(_, other)| other.speaks(name));
        self.protocol_type == join.protocol_type && join.protocols.iter().any(common)
    }

    fn enter(&mut self, id: String, join: Join, reply: oneshot::Sender<Joined>, now: Instant) {
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.members.insert(id, member(join, Some(reply), now));
        self.rebalance(now);
    }

    /// A known member joins again: because it was told to, or because it has changed.
    fn rejoin(&mut self, join: Join, reply: oneshot::Sender<Joined>, now: Instant) {
        let id = join.member.clone();
        let Some(present) = self.members.get_mut(&id) else {
            return;
        };
        let same = present.protocols == join.protocols;
        let assignment = std::mem::take(&mut present.assignment);
        *present = Member { assignment, ..member(join, Some(reply), now) };
        let stays = match self.state {
            State::Syncing(_) => same,
            State::Stable => same && self.leader != id,
            State::Empty | State::Joining(_) => false,
        };
        if stays {
            self.tell(&id, now);
        } else {
            self.rebalance(now);
        }
    }

    /// A static member came back after a restart: it takes its old place under a new id, which
    /// fences the old one.
    fn replace(
        &mut self,
        old: &str,
        id: String,
        join: Join,
        reply: oneshot::Sender<Joined>,
        now: Instant,
    ) {
        let Some(mut gone) = self.members.remove(old) else {
            return self.enter(id, join, reply, now);
        };
        let fenced = ResponseError::FencedInstanceId;
        if let Some(waiting) = gone.joining.take() {
            drop(waiting.send(Joined::refused(fenced, old.to_owned())));
        }
        if let Some(waiting) = gone.syncing.take() {
            drop(waiting.send(Err(fenced)));
        }
        let same = gone.protocols == join.protocols;
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        let assignment = gone.assignment;
        let present = Member { assignment, ..member(join, Some(reply), now) };
        self.members.insert(id.clone(), present);
        let led = self.leader == old;
        if led {
            self.leader.clone_from(&id);
        }
        if !(same && matches!(self.state, State::Stable)) {
            return self.rebalance(now);
        }
        // Named as its own leader it would assign anew; the old id keeps it a follower.
        let leader = if led { old.to_owned() } else { self.leader.clone() };
        let protocol = Some(self.protocol.clone());
        let (generation, members) = (self.generation, Vec::new());
        if let Some(reply) = self.members.get_mut(&id).and_then(|member| member.joining.take()) {
            let joined = Joined { error: None, generation, protocol, leader, member: id, members };
            drop(reply.send(joined));
        }
    }

    /// Begins a rebalance, or goes on with it.
    fn rebalance(&mut self, now: Instant) {
        if !matches!(self.state, State::Joining(_)) {
            for member in self.members.values_mut() {
                if let Some(waiting) = member.syncing.take() {
                    drop(waiting.send(Err(ResponseError::RebalanceInProgress)));
                }
            }
            self.state = State::Joining(now + self.patience());
        }
        self.try_complete(false, now);
    }

    fn patience(&self) -> Duration {
        self.members.values().map(|member| member.rebalance).max().unwrap_or_default()
    }

    /// Ends the rebalance when all have joined, or, when it is `late`, without those who haven't.
    fn try_complete(&mut self, late: bool, now: Instant) {
        let all = self.members.values().all(|member| member.joining.is_some());
        let complete = all && self.expected.is_empty();
        if !late && !complete {
            return;
        }
        // Static members may be away for their session timeout; they keep their place.
        let instances = &mut self.instances;
        self.members.retain(|_, member| member.joining.is_some() || member.instance.is_some());
        instances.retain(|_, id| self.members.contains_key(id));
        let joined = |member: &Member| member.joining.is_some();
        let Some(first) = self.members.iter().find(|(_, member)| joined(member)) else {
            if self.members.is_empty() {
                self.state = State::Empty;
                self.generation += 1;
            } else {
                self.state = State::Joining(now + self.patience());
            }
            return;
        };
        if !self.members.get(&self.leader).is_some_and(joined) {
            self.leader.clone_from(first.0);
        }
        self.protocol = self.vote();
        self.generation += 1;
        self.state = State::Syncing(now + self.patience());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.tell(&id, now);
        }
    }

    /// The protocol that all speak and most prefer.
    fn vote(&self) -> StrBytes {
        let common = |name: &StrBytes| self.members.values().all(|member| member.speaks(name));
        let mut votes: BTreeMap<StrBytes, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().map(|(name, _)| name).find(|name| common(name));
            if let Some(choice) = choice {
                *votes.entry(choice.clone()).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name).unwrap_or_default()
    }

    /// Tells a member who waits the present generation.
    fn tell(&mut self, id: &str, now: Instant) {
        let all = self.members.iter().filter(|_| self.leader == id).map(|(id, member)| {
            (id.clone(), member.instance.clone(), member.metadata(&self.protocol))
        });
        let joined = Joined {
            error: None,
            generation: self.generation,
            protocol: Some(self.protocol.clone()),
            leader: self.leader.clone(),
            member: id.to_owned(),
            members: all.collect(),
        };
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.expires = now + member.session;
        if let Some(reply) = member.joining.take() {
            drop(reply.send(joined));
        }
    }

    fn check(&mut self, who: &Who<'_>, now: Instant) -> Result<&mut Member, ResponseError> {
        if let Some(instance) = who.instance {
            let id = self.instances.get(instance).ok_or(ResponseError::UnknownMemberId)?;
            if id != who.member {
                return Err(ResponseError::FencedInstanceId);
            }
        }
        let generation = self.generation;
        let member = self.members.get_mut(who.member).ok_or(ResponseError::UnknownMemberId)?;
        if who.generation != generation {
            return Err(ResponseError::IllegalGeneration);
        }
        member.expires = now + member.session;
        Ok(member)
    }

    /// Takes a sync; the leader's brings the assignments of all.
    pub(super) fn sync(
        &mut self,
        who: &Who<'_>,
        assignments: Vec<(StrBytes, Bytes)>,
        reply: oneshot::Sender<Assigned>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let state = self.state;
        let leads = self.leader == who.member;
        let member = self.check(who, now)?;
        match state {
            State::Empty => return Err(ResponseError::UnknownMemberId),
            State::Joining(_) => return Err(ResponseError::RebalanceInProgress),
            State::Stable => {
                drop(reply.send(Ok(member.assignment.clone())));
                return Ok(());
            }
            State::Syncing(_) => member.syncing = Some(reply),
        }
        if leads {
            let mut assignments: HashMap<StrBytes, Bytes> = assignments.into_iter().collect();
            self.state = State::Stable;
            for (id, member) in &mut self.members {
                member.assignment = assignments.remove(id.as_bytes()).unwrap_or_default();
                if let Some(waiting) = member.syncing.take() {
                    member.expires = now + member.session;
                    drop(waiting.send(Ok(member.assignment.clone())));
                }
            }
        }
        Ok(())
    }

    /// Keeps a member alive.
    pub(super) fn heartbeat(&mut self, who: &Who<'_>, now: Instant) -> Result<(), ResponseError> {
        self.check(who, now)?;
        match self.state {
            State::Joining(_) => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Whether a member may commit: not between a generation's start and its assignment.
    pub(super) fn may_commit(&mut self, who: &Who<'_>, now: Instant) -> Result<(), ResponseError> {
        self.check(who, now)?;
        match self.state {
            State::Syncing(_) => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Removes a member at its own, or an operator's, wish.
    pub(super) fn leave(
        &mut self,
        member: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if self.expected.remove(member).is_some() {
            if matches!(self.state, State::Joining(_)) {
                self.try_complete(false, now);
            }
            return Ok(());
        }
        let id = match instance {
            None => member.to_owned(),
            Some(instance) => {
                let id = self.instances.get(instance).ok_or(ResponseError::UnknownMemberId)?;
                if !member.is_empty() && id != member {
                    return Err(ResponseError::FencedInstanceId);
                }
                id.clone()
            }
        };
        if !self.members.contains_key(&id) {
            return Err(ResponseError::UnknownMemberId);
        }
        self.remove(&[id], now);
        Ok(())
    }

    fn remove(&mut self, ids: &[String], now: Instant) {
        for id in ids {
            // Dropping the member drops what it waits for, which answers it.
            self.members.remove(id);
            self.instances.retain(|_, member| member != id);
        }
        if self.members.is_empty() {
            self.state = State::Empty;
            self.generation += 1;
        } else {
            self.rebalance(now);
        }
    }

    /// Removes the silent and the late.
    pub(super) fn tick(&mut self, now: Instant) {
        let expected = self.expected.len();
        self.expected.retain(|_, until| *until > now);
        let waits = |member: &Member| member.joining.is_some() || member.syncing.is_some();
        let late = matches!(self.state, State::Syncing(until) if until <= now);
        let gone = |member: &Member| !waits(member) && (member.expires <= now || late);
        let members = self.members.iter();
        let gone: Vec<String> =
            members.filter(|(_, member)| gone(member)).map(|(id, _)| id.clone()).collect();
        if !gone.is_empty() {
            tracing::info!(members = ?gone, "members fell silent and leave their group");
            self.remove(&gone, now);
        }
        if let State::Joining(until) = self.state
            && (until <= now || self.expected.len() < expected)
        {
            self.try_complete(until <= now, now);
        }
    }
}
