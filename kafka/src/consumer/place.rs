//! Where a partition is read, and whether the log below is still the one that was read there.
//!
//! Whether it was cut is asked of the broker, by the leader epoch E of the last record below the position: where do
//! the records up to E end?
//!
//! | the answer | right behind that record | behind a hole ([`Mark`]) |
//! |---|---|---|
//! | at the position or above | it wasn't cut | it wasn't cut |
//! | at an offset N below | it was | what left the hole may be of a later leader, so it is read from N on: a record between N and the position tells that it was cut; without one reading goes on |
//! | the broker doesn't know | it was | nothing can be told: reading goes on |
//!
//! The client may ask by itself, about where it stands when another leads. So an answer that lies no further down may be
//! one about another place, and the same is asked a few times before nothing more is asked.
//!
//! **Invariant:** a search begins further down than the one before it, or again a few times, so they end.

use aion_schemas::log::{Mark, Offset};

/// A position, and what is known of the log below it.
pub(super) struct Place {
    /// The next wanted offset, and the leader epoch of the last record below.
    mark: Mark,
    /// From here on a record below the position is looked for.
    searched_from: Option<Offset>,
    /// How often it was asked again about the same place.
    again: u8,
}

/// How often it is.
const AGAIN: u8 = 5;

/// What a record below the position says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Below {
    /// The log was cut: both logs agree up to `end`, no further.
    Cut { end: Offset },
    /// Nothing: it is of the part that both logs have.
    Agreed,
    /// That the client has gone back by itself.
    Strayed,
}

impl Place {
    pub(super) fn new(position: Offset, epoch: i32) -> Place {
        Place { mark: Mark { offset: position, epoch }, searched_from: None, again: 0 }
    }

    pub(super) fn position(&self) -> Offset {
        self.mark.offset
    }

    pub(super) fn is_searching(&self) -> bool {
        self.searched_from.is_some()
    }

    /// Where to read, and the leader epoch to compare the log with; -1 for none.
    pub(super) fn target(&self) -> (Offset, i32) {
        let at = self.searched_from.unwrap_or(self.mark.offset);
        // Below the first of all offsets nothing can be cut.
        let known = self.mark.record_epoch().filter(|_| at > Offset::ZERO);
        (at, known.unwrap_or(-1))
    }

    /// Notes that everything below `next` was handed over, to a record of this epoch.
    pub(super) fn passed(&mut self, next: Offset, epoch: i32) {
        self.mark.offset = next;
        (self.searched_from, self.again) = (None, 0);
        if epoch >= 0 {
            self.mark.epoch = epoch;
        }
    }

    /// Notes that nothing is left to read below an offset; false where that lies below the position, and no record
    /// was found that tells of a cut.
    pub(super) fn ended(&mut self, at: Offset) -> bool {
        if at < self.mark.offset && self.searched_from.is_some() {
            return false;
        }
        (self.searched_from, self.again) = (None, 0);
        if at > self.mark.offset {
            // Transactions' markers and compacted records are passed.
            self.mark = Mark::behind_hole(at, self.mark.record_epoch());
        }
        true
    }

    /// What a record below the position says.
    pub(super) fn below(&self, offset: Offset, epoch: i32) -> Below {
        let from = self.searched_from.filter(|from| *from <= offset);
        match (from, self.mark.record_epoch()) {
            (Some(end), Some(last)) if epoch > last => Below::Cut { end },
            (Some(_), Some(_)) => Below::Agreed,
            _ => Below::Strayed,
        }
    }

    /// Takes note that by the broker the records up to the last epoch end below where it is read; `None` where it
    /// doesn't say where. False if that tells that the log was cut; else the target is another one now.
    pub(super) fn search(&mut self, end: Option<Offset>) -> bool {
        if !self.mark.is_behind_hole() {
            return false;
        }
        let (before, _) = self.target();
        match end {
            Some(end) if end < before => (self.searched_from, self.again) = (Some(end), 0),
            Some(_) if self.is_searching() && self.again < AGAIN => self.again += 1,
            _ => *self = Place::new(self.mark.offset, -1),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last record below 10 is of epoch 2, and the broker says that such records end at 7.
    fn searching() -> Place {
        let mut place = Place::new(Offset(10), Mark::behind_hole(Offset(10), Some(2)).epoch);
        assert_eq!(place.target(), (Offset(10), 2));
        assert!(place.search(Some(Offset(7))));
        assert_eq!((place.target(), place.position()), ((Offset(7), 2), Offset(10)));
        place
    }

    #[test]
    fn nothing_is_compared_at_offset_zero() {
        let start = |at| Mark::at_log_start(Offset(at)).epoch;
        assert_eq!(Place::new(Offset(0), start(0)).target(), (Offset(0), -1));
        assert_eq!(Place::new(Offset(5), start(5)).target(), (Offset(5), 0));
    }

    #[test]
    fn right_behind_a_record_the_broker_decides() {
        let mut place = Place::new(Offset(10), 2);
        for end in [Some(Offset(7)), None] {
            assert!(!place.search(end));
            assert_eq!(place.target(), (Offset(10), 2));
        }
    }

    #[test]
    fn behind_a_hole_a_record_below_the_position_decides() {
        let place = searching();
        for offset in 7..10 {
            assert_eq!(place.below(Offset(offset), 3), Below::Cut { end: Offset(7) });
            assert_eq!(place.below(Offset(offset), 2), Below::Agreed);
        }
        assert_eq!(place.below(Offset(6), 3), Below::Strayed);
        assert_eq!(Place::new(Offset(10), 2).below(Offset(9), 3), Below::Strayed);
    }

    #[test]
    fn behind_a_hole_without_a_record_reading_goes_on() {
        let mut place = searching();
        place.passed(Offset(13), 4);
        assert_eq!(place.target(), (Offset(13), 4), "a record beyond");
        assert!(!place.search(Some(Offset(7))), "which it is right behind");
        for end in [10, 12] {
            let mut place = searching();
            assert!(place.ended(Offset(end)), "the end of the log");
            assert_eq!(place.target(), (Offset(end), 2), "of the same last record");
            assert!(place.search(Some(Offset(7))), "still behind a hole");
        }
    }

    #[test]
    fn a_log_that_ends_below_the_position_is_no_answer() {
        let mut place = searching();
        assert!(!place.ended(Offset(8)));
        assert_eq!(place.position(), Offset(10));
        assert!(Place::new(Offset(10), 2).ended(Offset(8)), "nothing is looked for there");
    }

    #[test]
    fn a_search_goes_down_or_ends() {
        let mut place = searching();
        assert!(place.search(Some(Offset(5))), "it was cut again");
        assert_eq!(place.target(), (Offset(5), 2));
        for _ in 0..AGAIN {
            assert!(place.search(Some(Offset(8))), "an answer about another place");
            assert_eq!(place.target(), (Offset(5), 2), "which is asked again");
        }
        assert!(place.search(Some(Offset(5))), "and not for ever");
        assert_eq!(place.target(), (Offset(10), -1), "nothing to compare with");
        let mut place = searching();
        assert!(place.search(None) && !place.is_searching());
        assert_eq!(place.target(), (Offset(10), -1));
    }

    #[test]
    fn the_end_of_a_log_lies_behind_a_hole() {
        let mut place = Place::new(Offset(10), 2);
        assert!(place.ended(Offset(10)));
        assert!(!place.search(Some(Offset(7))), "no hole");
        assert!(place.ended(Offset(11)));
        assert_eq!(place.target(), (Offset(11), 2));
        assert!(place.search(Some(Offset(10))));
    }
}
