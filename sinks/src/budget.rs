//! A bound on the bytes that decoded rows may hold, whoever holds them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// An eighth of a budget is kept for those who share it: one for each of them.
const KEPT: usize = 8;

/// A count of bytes with a limit, shared by jobs of the process.
///
/// | held by all | held by the job itself | it is spent |
/// |---|---|---|
/// | less than seven eighths | any | no |
/// | more | less than its own part of the last eighth | no |
/// | more | as much or more | yes |
///
/// So who holds little goes on, whatever the others wait for, and all of them together stay within the limit.
#[derive(Clone, Debug)]
pub struct Budget {
    all: Arc<Count>,
    /// What is held through this share alone; its limit is what is kept for it.
    own: Arc<Count>,
    /// What all may hold before it matters who holds it.
    common: usize,
}

#[derive(Debug)]
struct Count {
    limit: usize,
    held: AtomicUsize,
}

impl Count {
    fn to(limit: usize) -> Arc<Count> {
        Arc::new(Count { limit, held: AtomicUsize::new(0) })
    }

    fn is_reached(&self, limit: usize) -> bool {
        self.held.load(Ordering::Relaxed) >= limit
    }
}

impl Budget {
    /// A budget of `limit` bytes that nobody has a share of: it is spent when the limit is reached.
    pub fn new(limit: usize) -> Budget {
        Budget { all: Count::to(limit), own: Count::to(0), common: limit }
    }

    /// The same budget, as one of so many jobs has it. Clones are the same share.
    #[must_use]
    pub fn share(&self, jobs: usize) -> Budget {
        let kept = self.limit() / KEPT;
        let own = Count::to(kept / jobs.max(1));
        Budget { all: Arc::clone(&self.all), own, common: self.limit() - kept }
    }

    /// Whether there is no more for this job: a reader pauses, and asks again when something was given back.
    pub fn is_spent(&self) -> bool {
        self.all.is_reached(self.common) && self.own.is_reached(self.own.limit)
    }

    /// The bytes held now, by all.
    pub fn held(&self) -> usize {
        self.all.held.load(Ordering::Relaxed)
    }

    /// The limit in bytes, for all.
    pub fn limit(&self) -> usize {
        self.all.limit
    }

    /// Takes `bytes`, even beyond the limit: rows that exist already must go somewhere. Readers look
    /// at [`Budget::is_spent`] before they make more, so the overshoot is one batch a reader.
    pub fn take(&self, bytes: usize) -> Reservation {
        self.all.held.fetch_add(bytes, Ordering::Relaxed);
        self.own.held.fetch_add(bytes, Ordering::Relaxed);
        Reservation { held: Some(Arc::new(Held { budget: self.clone(), bytes })) }
    }
}

/// Bytes taken from a [`Budget`], given back when the last clone is dropped: batches that share their
/// columns share this too, so that the bytes count once.
#[derive(Clone, Debug, Default)]
pub struct Reservation {
    held: Option<Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    budget: Budget,
    bytes: usize,
}

impl Reservation {
    /// Holds nothing.
    pub fn none() -> Reservation {
        Reservation::default()
    }

    /// Takes more of the same budget, for what is made of these bytes.
    #[must_use]
    pub fn more(&self, bytes: usize) -> Reservation {
        self.held.as_ref().map(|held| held.budget.take(bytes)).unwrap_or_default()
    }

    /// The bytes held.
    pub fn bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.bytes)
    }

    /// The limit in bytes of the budget that they are taken from; `None` where nothing is.
    pub fn limit(&self) -> Option<usize> {
        self.held.as_ref().map(|held| held.budget.limit())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.all.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.own.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_reservation_count_once_and_the_last_gives_back() {
        let budget = Budget::new(10);
        let first = budget.take(10);
        let second = first.clone();
        assert!(budget.is_spent());
        drop(first);
        assert_eq!((budget.held(), second.bytes()), (10, 10));
        let more = second.more(5);
        drop(second);
        assert_eq!((budget.held(), more.bytes()), (5, 5));
        drop(more);
        assert_eq!((budget.held(), Reservation::none().more(5).bytes()), (0, 0));
    }

    #[test]
    fn a_reservation_knows_the_limit_of_its_budget() {
        assert_eq!(Budget::new(10).take(1).more(1).limit(), Some(10));
        assert_eq!(Reservation::none().limit(), None);
    }

    #[test]
    fn who_holds_little_goes_on_whatever_the_others_hold() {
        // Twenty are kept, ten for each.
        let budget = Budget::new(160);
        let (one, other) = (budget.share(2), budget.share(2));
        let most = one.take(139);
        assert!(!one.is_spent(), "nobody has to wait while there is enough for all");
        let more = most.more(1);
        assert!(one.clone().is_spent() && !other.is_spent());
        let little = other.take(9);
        assert!(!other.is_spent());
        let last = little.more(1);
        assert!(other.is_spent());
        assert_eq!(budget.held(), 150, "what is kept for one is not the other's");
        drop((little, last));
        assert!(one.is_spent() && !other.is_spent());
        drop(more);
        assert!(!one.is_spent());
        drop(most);
        assert_eq!((budget.held(), one.held(), other.held()), (0, 0, 0));
    }

    #[test]
    fn without_a_share_whoever_holds_all_holds_up_the_others() {
        let budget = Budget::new(160);
        let all = budget.clone().take(160);
        assert!(budget.is_spent());
        drop(all);
        // Of one that is too small for shares each has nothing of its own.
        let small = Budget::new(9);
        let (one, other) = (small.share(2), small.share(2));
        let most = one.take(8);
        assert!(one.is_spent() && other.is_spent());
        drop(most);
    }
}
