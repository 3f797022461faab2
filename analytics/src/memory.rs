//! The memory that queries share.
//!
//! Those who can go to temporary files, such as sorts, may have three quarters together, each an equal share; those who
//! can't have what is left. A sort that holds all of its share would leave nothing to whoever merges sorted rows behind it,
//! and that one can neither wait nor go to files: the query would fail though it is one that spills.

mod compact;
mod growth;
mod guarded;
mod held;
mod pieces;
mod reckoning;
mod sizes;

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use datafusion::{
    common::{DataFusionError, Result},
    execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
};

pub(crate) use self::{growth::Makings, guarded::guarded, sizes::of_rows};

/// What is made at a time, of all the memory that there is for queries. The pool doesn't count it: it is gone, or counted by
/// whoever keeps it, before the next.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "units stand last in names")]
pub(crate) struct Limits {
    /// What a function may make of the rows that it gets at once.
    pub(crate) at_once_bytes: usize,
    /// What a projection makes at once, where rows are shorter.
    pub(crate) piece_bytes: usize,
    /// A row.
    pub(crate) row_bytes: usize,
    /// What a sort keeps back, to merge what it has put on disk.
    pub(crate) merge_bytes: usize,
}

/// What can be made at once however little memory there is: a batch of short texts is no less.
const LEAST_BYTES: usize = 4 << 20;

impl Limits {
    /// Of so much for all.
    pub(crate) fn of(memory_bytes: usize) -> Limits {
        Limits {
            at_once_bytes: (memory_bytes / 16).max(LEAST_BYTES),
            piece_bytes: memory_bytes / 64,
            row_bytes: (memory_bytes / 8).max(LEAST_BYTES),
            merge_bytes: (memory_bytes / 32).min(10 << 20),
        }
    }

    /// A row is longer than one may be.
    pub(crate) fn too_long(&self, bytes: usize) -> DataFusionError {
        DataFusionError::ResourcesExhausted(format!(
            "a row has {bytes} bytes, of {} that one may have",
            self.row_bytes
        ))
    }
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Pool {
    bytes: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// How many there are that can spill.
    spillers: usize,
    by_spillers: usize,
    by_others: usize,
}

impl Pool {
    /// So much for all.
    pub(crate) fn new(bytes: usize) -> Pool {
        Pool { bytes, taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each spiller's share.
    fn share(&self, taken: &Taken) -> usize {
        let together = (self.bytes / 4 * 3).min(self.bytes.saturating_sub(taken.by_others));
        together / taken.spillers.max(1)
    }
}

impl MemoryPool for Pool {
    fn name(&self) -> &'static str {
        "queries"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.taken().spillers += usize::from(consumer.can_spill());
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.taken().spillers -= usize::from(consumer.can_spill());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let mut taken = self.taken();
        if reservation.consumer().can_spill() {
            taken.by_spillers += additional;
        } else {
            taken.by_others += additional;
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut taken = self.taken();
        if reservation.consumer().can_spill() {
            taken.by_spillers -= shrink;
        } else {
            taken.by_others -= shrink;
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut taken = self.taken();
        let consumer = reservation.consumer();
        let left = if consumer.can_spill() {
            self.share(&taken).saturating_sub(reservation.size())
        } else {
            self.bytes.saturating_sub(taken.by_spillers + taken.by_others)
        };
        if additional > left {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} has {} bytes and wants {additional} more, of {left} that are left to it",
                consumer.name(),
                reservation.size(),
            )));
        }
        if consumer.can_spill() {
            taken.by_spillers += additional;
        } else {
            taken.by_others += additional;
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        let taken = self.taken();
        taken.by_spillers + taken.by_others
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.reserved(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn sorts_that_hold_all_they_may_leave_room_to_whoever_merges() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Pool::new(1000));
        let sort = |name| MemoryConsumer::new(name).with_can_spill(true).register(&pool);
        let (one, two) = (sort("one"), sort("two"));
        while one.try_grow(5).is_ok() {}
        while two.try_grow(5).is_ok() {}
        assert_eq!((one.size(), two.size()), (375, 375));
        let merge = MemoryConsumer::new("merge").register(&pool);
        assert!(merge.try_grow(250).is_ok());
        assert!(merge.try_grow(1).is_err());
        // What others have beyond their quarter, sorts get only once it is given back.
        drop((one, two));
        assert!(merge.try_grow(700).is_ok());
        let late = sort("late");
        assert!(late.try_grow(51).is_err() && late.try_grow(50).is_ok());
        drop(merge);
        assert!(late.try_grow(700).is_ok());
        assert_eq!(pool.reserved(), 750);
    }
}
