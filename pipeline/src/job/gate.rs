//! The gate before the sinks: is the topic still the one that a batch was read from?
//!
//! Kafka's consumers know topics by name. A topic that is deleted and made anew goes on under the same
//! name, and fetches go on silently once it has grown past the old position. Only the topic's id tells.
//!
//! **Invariant:** a batch passes only when a look-up that *started after its last poll* found the id it
//! was read under. An id never comes back, so the topic was that one for all the time in between.
//! **Invariant:** once a look-up found another id, or none, nothing passes until several in a row, over
//! some time, agree on one: a broker whose metadata lags may name an id of the past.
//!
//! What is assumed: a broker that serves records of the topic made anew is not outlived by one that still
//! names the old id to a look-up started later. Such a broker lags behind the deletion, the creation and
//! the new partition's leadership, all three; if it does, and is the only one asked, the records that were
//! polled meanwhile pass under the old id. A look-up that disagrees ends that at once.

use std::time::{Duration, Instant};

use aion_schemas::log::Stream;
use uuid::Uuid;

use super::source::Lookup;

/// So many look-ups in a row settle a doubt.
const AGREEING: u32 = 3;
/// And they are spread over this time at least.
const SPREAD: Duration = Duration::from_secs(1);

/// What look-ups say.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The id, and the poll that the newest look-up started after, of those that no doubt came before.
    proven: Option<(Uuid, u64)>,
    /// Whether a look-up disagreed, and that isn't settled.
    is_in_doubt: bool,
    /// The last look-ups, as far as they agree.
    row: Option<Row>,
}

#[derive(Debug)]
struct Row {
    topic_id: Option<Uuid>,
    since: Instant,
    last: Instant,
    count: u32,
}

impl Row {
    /// Whether so many agree, over so long.
    fn agrees(&self, count: u32, spread: Duration) -> bool {
        self.count >= count && self.last.saturating_duration_since(self.since) >= spread
    }
}

/// Whether a batch may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Pass,
    /// A later look-up will tell.
    Wait,
}

impl Gate {
    /// Notes a look-up; answers the id that has taken the place of `current`, once that is settled.
    /// `at_once` takes a single word for it, which is for the model's negative control.
    pub(super) fn note(
        &mut self,
        lookup: Lookup,
        current: Uuid,
        now: Instant,
        at_once: bool,
    ) -> Option<Uuid> {
        match &mut self.row {
            Some(row) if row.topic_id == lookup.topic_id => {
                row.count += 1;
                row.last = now;
            }
            _ => {
                let Lookup { topic_id, .. } = lookup;
                self.row = Some(Row { topic_id, since: now, last: now, count: 1 });
            }
        }
        self.is_in_doubt |= lookup.topic_id != Some(current);
        let agree = |row: &Row| row.agrees(AGREEING, SPREAD);
        if self.is_in_doubt && !at_once && !self.row.as_ref().is_some_and(agree) {
            return None;
        }
        let id = lookup.topic_id?;
        self.is_in_doubt = false;
        if id != current {
            return Some(id);
        }
        self.proven = Some((id, lookup.after_poll));
        None
    }

    /// Something else than a look-up found another id: nothing passes until look-ups agree. Said again
    /// by each partition, it doesn't keep those that agree from settling it.
    pub(super) fn doubt(&mut self) {
        if !self.is_in_doubt {
            self.is_in_doubt = true;
            self.row = None;
        }
    }

    /// Whether the topic's id is in doubt.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt
    }

    /// Whether the last look-ups, over so long, found no topic of the name.
    pub(super) fn is_missing_for(&self, time: Duration) -> bool {
        let is_missing = |row: &Row| row.topic_id.is_none() && row.agrees(AGREEING, time);
        self.row.as_ref().is_some_and(is_missing)
    }

    /// Whether what was read from the stream by poll number `polled` may pass.
    pub(super) fn verdict(&self, stream: &Stream, polled: u64, started_after: bool) -> Verdict {
        let is_proven = match self.proven {
            Some((id, after_poll)) => id == stream.id && (after_poll >= polled || !started_after),
            None => false,
        };
        if is_proven && !self.is_in_doubt { Verdict::Pass } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(id: u128) -> Uuid {
        Uuid::from_u128(id)
    }

    fn lookup(after_poll: u64, topic_id: Option<u128>) -> Lookup {
        Lookup { after_poll, topic_id: topic_id.map(id), partitions: 1 }
    }

    fn stream(of: u128) -> Stream {
        Stream { topic: "t".into(), id: id(of) }
    }

    #[test]
    fn only_a_lookup_that_started_after_the_poll_opens() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.verdict(&stream(1), 0, true), Verdict::Wait);
        assert_eq!(gate.note(lookup(4, Some(1)), id(1), now, false), None);
        assert_eq!(gate.verdict(&stream(1), 4, true), Verdict::Pass);
        assert_eq!(gate.verdict(&stream(1), 5, true), Verdict::Wait);
        assert_eq!(gate.verdict(&stream(2), 4, true), Verdict::Wait);
    }

    #[test]
    fn a_doubt_that_every_partition_repeats_is_settled_all_the_same() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let half = SPREAD / 2;
        for (number, told) in [None, None, Some(id(2))].into_iter().enumerate() {
            gate.doubt();
            let at = now + half * number as u32;
            assert_eq!(gate.note(lookup(4, Some(2)), id(1), at, false), told);
        }
    }

    #[test]
    fn a_new_id_is_told_once_several_lookups_agree() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.note(lookup(4, Some(2)), id(1), now, false), None);
        assert_eq!(gate.note(lookup(4, Some(2)), id(1), now + SPREAD, false), None);
        assert_eq!(gate.note(lookup(4, Some(2)), id(1), now + SPREAD, false), Some(id(2)));
        let mut hasty = Gate::default();
        for _ in 0..9 {
            assert_eq!(hasty.note(lookup(4, Some(2)), id(1), now, false), None, "all at one time");
        }
    }

    #[test]
    fn one_word_of_another_id_holds_everything_and_changes_nothing() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.note(lookup(4, Some(2)), id(2), now, false);
        for stale in [Some(1), None] {
            assert_eq!(gate.note(lookup(5, stale), id(2), now, false), None);
            assert_eq!(gate.verdict(&stream(2), 4, true), Verdict::Wait);
            for at in [now, now, now + SPREAD] {
                assert_eq!(gate.verdict(&stream(2), 4, true), Verdict::Wait);
                assert_eq!(gate.note(lookup(6, Some(2)), id(2), at, false), None);
            }
            assert_eq!(gate.verdict(&stream(2), 6, true), Verdict::Pass);
        }
    }

    #[test]
    fn a_topic_is_missing_while_no_lookup_finds_it() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let minutes = |minutes| now + Duration::from_mins(minutes);
        let missing = |gate: &Gate, minutes| gate.is_missing_for(Duration::from_mins(minutes));
        for at in [0, 1] {
            gate.note(lookup(1, None), id(1), minutes(at), false);
        }
        assert!(!missing(&gate, 1), "two are not enough");
        gate.note(lookup(1, None), id(1), minutes(2), false);
        assert!(missing(&gate, 2) && !missing(&gate, 3), "between the first and the last of them");
        gate.note(lookup(1, Some(1)), id(1), minutes(3), false);
        assert!(!missing(&gate, 0));
        gate.note(lookup(1, None), id(1), minutes(9), false);
        assert!(!missing(&gate, 0));
    }

    #[test]
    fn an_id_that_was_left_too_early_is_taken_up_again() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        for at in [now, now, now + SPREAD] {
            assert_eq!(gate.note(lookup(1, Some(2)), id(1), at, false).is_some(), at > now);
        }
        for at in [now, now, now + SPREAD] {
            assert_eq!(gate.note(lookup(1, Some(1)), id(2), at, false).is_some(), at > now);
        }
    }
}
