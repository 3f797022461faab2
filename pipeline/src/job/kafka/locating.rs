//! Whose bounds are to be asked for: one question for each partition at most, and one at a time.
//!
//! **Invariant:** only the newest run of a partition is asked for, and only until it is answered or nobody
//! wants it any more: questions can't pile up, however long a broker is silent.
//! **Invariant:** a partition whose question failed goes behind those that have not failed: one without a
//! leader, which takes all the time that a question may, delays another by one question at most.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How much longer each failure makes the pause before a question is put again.
const STEP: Duration = Duration::from_millis(500);
/// The number of failures after which it doesn't grow any more.
const STEPS: u32 = 10;

/// The questions that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Locating {
    wanted: BTreeMap<i32, Wanted>,
    /// The question that is being asked, which nobody may want any more.
    asked: Option<(i32, u64)>,
}

#[derive(Debug)]
struct Wanted {
    run: u64,
    failures: u32,
    due: Instant,
}

impl Locating {
    /// Wants the bounds of a partition for a run, in place of an earlier one. Wanted twice is wanted once.
    pub(super) fn want(&mut self, partition: i32, run: u64, now: Instant) {
        let wanted = self.wanted.entry(partition).or_insert(Wanted { run, failures: 0, due: now });
        wanted.run = run;
    }

    /// Nobody wants the bounds of this partition any more.
    pub(super) fn forget(&mut self, partition: i32) {
        self.wanted.remove(&partition);
    }

    /// The partition and run to ask for now; `None` while another question is out, or none is due.
    pub(super) fn next(&mut self, now: Instant) -> Option<(i32, u64)> {
        if self.asked.is_some() {
            return None;
        }
        let due = self.wanted.iter().filter(|(_, wanted)| wanted.due <= now);
        let (partition, first) = due.min_by_key(|(_, wanted)| (wanted.failures, wanted.due))?;
        self.asked = Some((*partition, first.run));
        self.asked
    }

    /// Notes an answer; whether it is to the question that is wanted now.
    pub(super) fn answered(&mut self, partition: i32, run: u64) -> bool {
        self.asked = None;
        let is_present = self.wanted.get(&partition).is_some_and(|wanted| wanted.run == run);
        if is_present {
            self.wanted.remove(&partition);
        }
        is_present
    }

    /// Notes that the question could not be answered; it is put again later, if it is still wanted.
    pub(super) fn failed(&mut self, partition: i32, now: Instant) {
        self.asked = None;
        if let Some(wanted) = self.wanted.get_mut(&partition) {
            wanted.failures = (wanted.failures + 1).min(STEPS);
            wanted.due = now + STEP * wanted.failures;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_one_question_however_often_it_is_wanted() {
        let (mut locating, now) = (Locating::default(), Instant::now());
        for run in 1..=9 {
            locating.want(0, run, now);
            locating.want(0, run, now);
        }
        assert_eq!(locating.next(now), Some((0, 9)));
        assert_eq!(locating.next(now), None, "one is out");
        locating.want(0, 10, now);
        assert!(!locating.answered(0, 9), "an answer to an earlier run is none");
        assert_eq!(locating.next(now), Some((0, 10)));
        assert!(locating.answered(0, 10));
        assert_eq!(locating.next(now + STEP * STEPS), None);
    }

    #[test]
    fn one_that_fails_goes_behind_the_others() {
        let (mut locating, now) = (Locating::default(), Instant::now());
        locating.want(0, 1, now);
        assert_eq!(locating.next(now), Some((0, 1)));
        locating.want(1, 2, now);
        locating.failed(0, now);
        let later = now + STEP * STEPS;
        assert_eq!(locating.next(later), Some((1, 2)));
        assert!(locating.answered(1, 2));
        assert_eq!(locating.next(now), None, "not at once");
        assert_eq!(locating.next(later), Some((0, 1)));
    }

    #[test]
    fn what_nobody_wants_any_more_is_not_asked_again() {
        let (mut locating, now) = (Locating::default(), Instant::now());
        locating.want(0, 1, now);
        assert_eq!(locating.next(now), Some((0, 1)));
        locating.forget(0);
        locating.failed(0, now);
        assert_eq!(locating.next(now + STEP * STEPS), None);
    }
}
