//! A bound on the bytes that decoded rows may hold, whoever holds them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A count of bytes with a limit, shared by jobs of the process.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget { shared: Arc::new(Shared { limit, held: AtomicUsize::new(0) }) }
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
        self.shared.held.fetch_add(bytes, Ordering::Relaxed);
        Reservation { held: Some(Arc::new(Held { shared: Arc::clone(&self.shared), bytes })) }
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
        self.shared.held.fetch_sub(self.bytes, Ordering::Relaxed);
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
}
