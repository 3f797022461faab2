//! The gate before the sinks: is the topic still the one that a batch was read from?
//!
//! Kafka's consumers know topics by name. A topic that is deleted and made anew goes on under the same
//! name, and fetches go on silently once it has grown past the old position. Only the topic's id tells.
//!
//! **Invariant:** a batch passes only when a look-up that *started after its last poll* found the id it
//! was read under. An id never comes back, so the topic was that one for all the time in between.

use aion_schemas::log::Stream;
use uuid::Uuid;

use super::source::Lookup;

/// What the newest look-up says.
#[derive(Debug, Default)]
pub(super) struct Gate {
    latest: Option<Lookup>,
    /// Ids that were superseded: a broker that lags may still name them.
    retired: Vec<Uuid>,
}

/// Whether a batch may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Pass,
    /// A later look-up will tell.
    Wait,
}

/// How many superseded ids are remembered: a topic made anew more often within a broker's lag isn't one.
const MAX_RETIRED: usize = 64;

impl Gate {
    /// Notes a look-up; answers the id that has taken the place of `current`, if one has.
    pub(super) fn note(&mut self, lookup: Lookup, current: Option<&Stream>) -> Option<Uuid> {
        let newer = self.latest.is_none_or(|latest| latest.after_poll <= lookup.after_poll);
        let id = lookup.topic_id.filter(|id| !self.retired.contains(id));
        if !newer || (id.is_none() && lookup.topic_id.is_some()) {
            return None;
        }
        self.latest = Some(lookup);
        id.filter(|id| current.is_some_and(|stream| stream.id != *id))
    }

    /// Notes that the topic of this id is gone for good.
    pub(super) fn retire(&mut self, id: Uuid) {
        if self.retired.len() == MAX_RETIRED {
            self.retired.remove(0);
        }
        self.retired.push(id);
    }

    /// Whether the id belongs to an incarnation that is gone.
    pub(super) fn is_retired(&self, id: Uuid) -> bool {
        self.retired.contains(&id)
    }

    /// Whether what was read from the stream by poll number `polled` may pass.
    pub(super) fn verdict(&self, stream: &Stream, polled: u64, started_after: bool) -> Verdict {
        match self.latest {
            Some(lookup)
                if lookup.topic_id == Some(stream.id)
                    && (lookup.after_poll >= polled || !started_after) =>
            {
                Verdict::Pass
            }
            _ => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(after_poll: u64, id: u128) -> Lookup {
        Lookup { after_poll, topic_id: Some(Uuid::from_u128(id)), partitions: 1 }
    }

    fn stream(id: u128) -> Stream {
        Stream { topic: "t".into(), id: Uuid::from_u128(id) }
    }

    #[test]
    fn only_a_lookup_that_started_after_the_poll_opens() {
        let mut gate = Gate::default();
        assert_eq!(gate.verdict(&stream(1), 0, true), Verdict::Wait);
        assert_eq!(gate.note(lookup(4, 1), Some(&stream(1))), None);
        assert_eq!(gate.verdict(&stream(1), 4, true), Verdict::Pass);
        assert_eq!(gate.verdict(&stream(1), 5, true), Verdict::Wait);
        assert_eq!(gate.verdict(&stream(2), 4, true), Verdict::Wait);
    }

    #[test]
    fn a_new_id_is_told_and_the_old_one_never_comes_back() {
        let mut gate = Gate::default();
        assert_eq!(gate.note(lookup(4, 2), Some(&stream(1))), Some(Uuid::from_u128(2)));
        gate.retire(Uuid::from_u128(1));
        assert_eq!(gate.note(lookup(9, 1), Some(&stream(2))), None);
        assert_eq!(gate.verdict(&stream(2), 4, true), Verdict::Pass);
    }
}
