//! The memory of rows that a query cloned from the tail: counted as the query's own until it ends.

use std::sync::{Mutex, PoisonError};

use datafusion::{
    catalog::Session,
    error::Result,
    execution::memory_pool::{MemoryConsumer, MemoryReservation},
};

/// What a query holds; dropped with it.
#[derive(Debug, Default)]
pub(crate) struct Holdings(Mutex<Vec<MemoryReservation>>);

impl Holdings {
    /// Holds so many bytes more, or fails where the queries' memory doesn't have them.
    pub(crate) fn take(&self, state: &dyn Session, bytes: usize) -> Result<()> {
        let consumer = MemoryConsumer::new("rows that are not committed yet");
        let reservation = consumer.register(&state.runtime_env().memory_pool);
        reservation.try_grow(bytes)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
        Ok(())
    }
}
