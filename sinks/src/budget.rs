//! One bound on the bytes that decoded rows may hold in this process, whoever holds them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A count of bytes with a limit, shared by all jobs of the process.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    held: AtomicUsize,
    /// What this is a part of.
    whole: Option<Budget>,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget::made(limit, None)
    }

    /// A part of it with a limit of its own: what is held there is held here too, and only its own limit makes it spent.
    #[must_use]
    pub fn part(&self, limit: usize) -> Budget {
        Budget::made(limit, Some(self.clone()))
    }

    fn made(limit: usize, whole: Option<Budget>) -> Budget {
        Budget { shared: Arc::new(Shared { limit, held: AtomicUsize::new(0), whole }) }
    }

    /// Whether the limit is reached: a reader pauses, and asks again when something was given back.
    pub fn is_spent(&self) -> bool {
        self.held() >= self.shared.limit
    }

    /// The bytes held now.
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Takes `bytes`, even beyond the limit: rows that exist already must go somewhere. Readers look
    /// at [`Budget::is_spent`] before they make more, so the overshoot is one batch a reader.
    pub fn take(&self, bytes: usize) -> Reservation {
        self.shared.hold(bytes);
        Reservation { held: Some(Arc::new(Held { shared: Arc::clone(&self.shared), bytes })) }
    }
}

impl Shared {
    fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.shared.hold(bytes);
        }
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.shared.give_back(bytes);
        }
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
    shared: Arc<Shared>,
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
        let budget = self.held.as_ref().map(|held| Budget { shared: Arc::clone(&held.shared) });
        budget.map(|budget| budget.take(bytes)).unwrap_or_default()
    }

    /// The bytes held.
    pub fn bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.bytes)
    }

    /// The limit in bytes of the budget that they are taken from; `None` where nothing is.
    pub fn limit(&self) -> Option<usize> {
        self.held.as_ref().map(|held| held.shared.limit)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.give_back(self.bytes);
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
    fn a_reservation_knows_the_limit_of_its_own_budget() {
        let part = Budget::new(20).part(10);
        assert_eq!(part.take(1).more(1).limit(), Some(10));
        assert_eq!(Reservation::none().limit(), None);
    }

    #[test]
    fn a_part_is_spent_by_itself_and_counts_in_the_whole() {
        let whole = Budget::new(20);
        let (one, other) = (whole.part(10), whole.part(10));
        let held = one.take(15);
        let more = held.more(2);
        assert!(one.is_spent() && !other.is_spent() && !whole.is_spent());
        assert_eq!((one.held(), other.held(), whole.held()), (17, 0, 17));
        drop((held, more));
        assert_eq!((one.held(), whole.held()), (0, 0));
    }
}
