//! Consumer groups of the classic protocol: the coordinator's side of join, sync, heartbeat, leave.
//!
//! Assignments are made by the clients; the broker only passes them on, so every assignor works.
//!
//! **Invariant:** a commit is judged and written under the same lock that changes generations, so a
//! member of an earlier generation can't commit once a later one has begun.
//! **Invariant:** groups live in memory. After a restart members join anew; their committed offsets
//! are still there, and an earlier member's id is not known any more.

mod group;
mod member;
mod view;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError, messages::describe_groups_response::DescribedGroup, protocol::StrBytes,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use self::group::Group;
pub(crate) use self::member::{Join, Joined};
use crate::{
    flusher::lock,
    offsets::{Committed, Offsets},
};

/// Session timeouts that are taken.
const SESSION_MS: std::ops::RangeInclusive<i32> = 100..=1_800_000;
/// Groups at a time.
const GROUPS: usize = 10_000;

/// Who a member says to be.
pub(crate) struct Who<'a> {
    pub(crate) member: &'a str,
    pub(crate) instance: Option<&'a str>,
    pub(crate) generation: i32,
}

/// All groups of the broker.
pub(crate) struct Groups {
    groups: Mutex<HashMap<String, Group>>,
    offsets: Arc<Offsets>,
}

impl Groups {
    /// No groups yet, over the offsets that groups have committed.
    pub(crate) fn new(offsets: Arc<Offsets>) -> Groups {
        Groups { groups: Mutex::default(), offsets }
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        lock(&self.groups)
    }

    /// Joins a group and waits for the generation.
    pub(crate) async fn join(&self, name: &str, join: Join) -> Joined {
        let member = join.member.clone();
        if name.is_empty() {
            return Joined::refused(ResponseError::InvalidGroupId, member);
        }
        if !SESSION_MS.contains(&join.session_ms) {
            return Joined::refused(ResponseError::InvalidSessionTimeout, member);
        }
        let (reply, joined) = oneshot::channel();
        {
            let mut groups = self.groups();
            if groups.len() >= GROUPS && !groups.contains_key(name) {
                return Joined::refused(ResponseError::GroupMaxSizeReached, member);
            }
            groups.entry(name.to_owned()).or_default().join(join, reply, Instant::now());
        }
        // A reply that is dropped is that of a member who asked again, or was removed.
        joined.await.unwrap_or(Joined::refused(ResponseError::UnknownMemberId, member))
    }

    /// Hands in the leader's assignments and waits for the member's own.
    pub(crate) async fn sync(
        &self,
        name: &str,
        who: &Who<'_>,
        assignments: Vec<(StrBytes, Bytes)>,
    ) -> Result<Bytes, ResponseError> {
        let (reply, assigned) = oneshot::channel();
        {
            let mut groups = self.groups();
            let group = groups.get_mut(name).ok_or(ResponseError::UnknownMemberId)?;
            group.sync(who, assignments, reply, Instant::now())?;
        }
        assigned.await.unwrap_or(Err(ResponseError::RebalanceInProgress))
    }

    /// Keeps a member alive and tells it whether to join anew.
    pub(crate) fn heartbeat(&self, name: &str, who: &Who<'_>) -> Result<(), ResponseError> {
        let mut groups = self.groups();
        let group = groups.get_mut(name).ok_or(ResponseError::UnknownMemberId)?;
        group.heartbeat(who, Instant::now())
    }

    /// Removes a member, named by its id or, with an empty id, by its instance.
    pub(crate) fn leave(
        &self,
        name: &str,
        member: &str,
        instance: Option<&str>,
    ) -> Result<(), ResponseError> {
        let mut groups = self.groups();
        let group = groups.get_mut(name).ok_or(ResponseError::UnknownMemberId)?;
        group.leave(member, instance, Instant::now())
    }

    /// Writes a commit of a member of the present generation, or of nobody's while there are no
    /// members.
    pub(crate) fn commit(
        &self,
        name: &str,
        who: &Who<'_>,
        places: Vec<((Uuid, i32), Committed)>,
    ) -> Result<u64, ResponseError> {
        let mut groups = self.groups();
        match groups.get_mut(name) {
            Some(group) if !group.is_empty() || who.generation >= 0 => {
                group.may_commit(who, Instant::now())?;
            }
            None if who.generation >= 0 => return Err(ResponseError::UnknownMemberId),
            _ => {}
        }
        self.offsets.commit(name, places)
    }

    /// Lets time pass: sessions end, rebalances go on without those who are late.
    pub(crate) fn tick(&self, now: Instant) {
        self.groups().retain(|_, group| {
            group.tick(now);
            !group.is_idle()
        });
    }

    /// Name, protocol type and state of all groups that have members or offsets.
    pub(crate) fn list(&self) -> Vec<(String, String, &'static str)> {
        let groups = self.groups();
        let mut known = self.offsets.groups();
        known.extend(groups.keys().cloned());
        let about = |name: String| match groups.get(&name) {
            Some(group) => (name, group.protocol_type().to_owned(), group.state()),
            None => (name, "consumer".to_owned(), "Empty"),
        };
        known.into_iter().map(about).collect()
    }

    /// A group's state and members; state "Dead" if there is none.
    pub(crate) fn describe(&self, name: &str) -> DescribedGroup {
        let groups = self.groups();
        if let Some(group) = groups.get(name) {
            return group.describe();
        }
        let known = !self.offsets.places(name).is_empty();
        let state = if known { "Empty" } else { "Dead" };
        DescribedGroup::default().with_group_state(StrBytes::from_static_str(state))
    }

    /// Forgets a group that has no members.
    pub(crate) fn delete(&self, name: &str) -> Result<u64, ResponseError> {
        let mut groups = self.groups();
        if groups.get(name).is_some_and(|group| !group.is_empty()) {
            return Err(ResponseError::NonEmptyGroup);
        }
        let known = groups.remove(name).is_some() || !self.offsets.places(name).is_empty();
        if !known {
            return Err(ResponseError::GroupIdNotFound);
        }
        self.offsets.forget(name)
    }
}
