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
        Reservation { shared: Some(Arc::clone(&self.shared)), bytes }
    }
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug, Default)]
pub struct Reservation {
    shared: Option<Arc<Shared>>,
    bytes: usize,
}

impl Reservation {
    /// Holds nothing.
    pub fn none() -> Reservation {
        Reservation::default()
    }

    /// The bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.held.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}
