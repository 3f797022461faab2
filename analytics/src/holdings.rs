//! Memory that is counted as a query's own until it ends: rows that it cloned from the tail, and long constants.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::{
    error::Result,
    execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation},
};

/// What a query holds; dropped with it.
#[derive(Debug, Default)]
pub(crate) struct Holdings(Mutex<Vec<MemoryReservation>>);

impl Holdings {
    /// Holds so many bytes more, or fails where the queries' memory doesn't have them.
    pub(crate) fn take(&self, pool: &Arc<dyn MemoryPool>, what: &str, bytes: usize) -> Result<()> {
        let reservation = MemoryConsumer::new(what).register(pool);
        reservation.try_grow(bytes)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
        Ok(())
    }
}
