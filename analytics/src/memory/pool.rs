//! The pool, and who gets how much of it.
//!
//! | who | of all |
//! |---|---|
//! | those who can go to temporary files, such as sorts and groups | five eighths together, each an equal share; where nobody sorts also beyond it, as much as is left free then, of which a quarter stays free |
//! | those who merge the files of a sort, and open as many at once as they get memory for | five eighths together, each an equal share, or what each sort keeps back if that is more |
//! | those who can't go to files, such as whoever merges the sorted rows of several sorts | what is left |
//!
//! Of the groups of a question half are those that go to files last and have most (the others give on what they have), so
//! equal shares alone would send them to files with half of the memory unused. What some have beyond their share others find
//! missing, but for half of a share, which each reservation gets in any case: whoever reads its files again has one for
//! the files and one for what it makes of them, and can't do without either.
//!
//! An eighth is kept for the last ones, who can neither wait nor go to files, as long as they don't have it: else they would
//! find nothing left, and the query would fail though it is one that spills.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use datafusion::{
    common::{DataFusionError, Result},
    execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
};

/// What a consumer does when it gets no more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Goes to files.
    Spiller,
    /// Merges fewer files of a sort at once.
    FileMerge,
    /// Fails.
    Other,
}

/// As the engine names whoever merges the files of a sort.
const FILE_MERGE: &str = "ExternalSorterMerge";

impl Kind {
    fn of(consumer: &MemoryConsumer) -> Kind {
        if consumer.can_spill() {
            Kind::Spiller
        } else if consumer.name().starts_with(FILE_MERGE) {
            Kind::FileMerge
        } else {
            Kind::Other
        }
    }
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Pool {
    bytes: usize,
    merge_bytes: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// What each one has that can spill, by the consumer's id.
    spillers: HashMap<usize, usize>,
    file_merges: usize,
    by_file_merges: usize,
    by_others: usize,
}

impl Taken {
    fn by(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        match Kind::of(consumer) {
            Kind::Spiller => self.spillers.entry(consumer.id()).or_default(),
            Kind::FileMerge => &mut self.by_file_merges,
            Kind::Other => &mut self.by_others,
        }
    }

    fn by_spillers(&self) -> usize {
        self.spillers.values().sum()
    }

    fn all(&self) -> usize {
        self.by_spillers() + self.by_file_merges + self.by_others
    }
}

impl Pool {
    /// So much for all, of which each sort keeps back `merge_bytes`.
    pub(crate) fn new(bytes: usize, merge_bytes: usize) -> Pool {
        Pool { bytes, merge_bytes, taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left to the holder of a reservation.
    fn left(&self, taken: &Taken, reservation: &MemoryReservation) -> usize {
        let left = self.bytes.saturating_sub(taken.all());
        let eighth = self.bytes / 8;
        match Kind::of(reservation.consumer()) {
            Kind::Spiller => self.left_to_spiller(taken, reservation),
            Kind::FileMerge => {
                let share = (eighth * 5 / taken.file_merges.max(1)).max(self.merge_bytes);
                let for_others = eighth.saturating_sub(taken.by_others);
                left.saturating_sub(for_others).min(share.saturating_sub(reservation.size()))
            }
            Kind::Other => left,
        }
    }

    fn left_to_spiller(&self, taken: &Taken, reservation: &MemoryReservation) -> usize {
        let eighth = self.bytes / 8;
        let kept_back = (taken.file_merges * self.merge_bytes).min(eighth * 2);
        let by_rest = taken.by_file_merges.max(kept_back) + taken.by_others.max(eighth);
        let together = (eighth * 5).min(self.bytes.saturating_sub(by_rest));
        // A sort that has gone over to its files leaves its share to them.
        let sharers = taken.spillers.len().max(taken.file_merges).max(1);
        let share = together / sharers;
        let until_share = share.saturating_sub(reservation.size());
        if taken.file_merges > 0 {
            return until_share;
        }
        let until_half = (share / 2).saturating_sub(reservation.size());
        let free = together.saturating_sub(taken.by_spillers());
        let held = taken.spillers.get(&reservation.consumer().id()).copied().unwrap_or_default();
        let as_much_stays_free = free.saturating_sub(held) / 2;
        let beyond_share = as_much_stays_free.min(free.saturating_sub(together / 4));
        until_half.max(until_share.min(free)).max(beyond_share)
    }
}

impl MemoryPool for Pool {
    fn name(&self) -> &'static str {
        "queries"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        let mut taken = self.taken();
        match Kind::of(consumer) {
            Kind::Spiller => _ = taken.spillers.insert(consumer.id(), 0),
            Kind::FileMerge => taken.file_merges += 1,
            Kind::Other => (),
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut taken = self.taken();
        match Kind::of(consumer) {
            Kind::Spiller => _ = taken.spillers.remove(&consumer.id()),
            Kind::FileMerge => taken.file_merges -= 1,
            Kind::Other => (),
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        *self.taken().by(reservation.consumer()) += additional;
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        *self.taken().by(reservation.consumer()) -= shrink;
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut taken = self.taken();
        let consumer = reservation.consumer();
        let left = self.left(&taken, reservation);
        if additional > left {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} has {} bytes and wants {additional} more, of {left} that are left to it",
                consumer.name(),
                reservation.size(),
            )));
        }
        *taken.by(consumer) += additional;
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.taken().all()
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
        let pool: Arc<dyn MemoryPool> = Arc::new(Pool::new(800, 20));
        let sort = |name| MemoryConsumer::new(name).with_can_spill(true).register(&pool);
        let (one, two) = (sort("one"), sort("two"));
        while one.try_grow(5).is_ok() {}
        while two.try_grow(5).is_ok() {}
        assert_eq!((one.size(), two.size()), (250, 250));
        let merge = MemoryConsumer::new("merge").register(&pool);
        assert!(merge.try_grow(300).is_ok());
        assert!(merge.try_grow(1).is_err());
        // What others have beyond three eighths, sorts get only once it is given back.
        drop((one, two));
        assert!(merge.try_grow(460).is_ok());
        let late = sort("late");
        assert!(late.try_grow(41).is_err() && late.try_grow(40).is_ok());
        drop(merge);
        assert!(late.try_grow(460).is_ok());
        assert_eq!(pool.reserved(), 500);
    }

    #[test]
    fn merges_of_files_leave_room_to_other_sorts_and_to_whoever_merges_their_rows() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Pool::new(800, 20));
        let sort = || {
            let sort = MemoryConsumer::new("ExternalSorter").with_can_spill(true);
            (sort.register(&pool), MemoryConsumer::new(FILE_MERGE).register(&pool))
        };
        let ((done, files), (going_on, in_memory)) = (sort(), sort());
        drop(done);
        while files.try_grow(5).is_ok() {}
        assert_eq!(files.size(), 250);
        while going_on.try_grow(5).is_ok() {}
        assert_eq!(going_on.size(), 225);
        assert!(in_memory.try_grow(226).is_err() && in_memory.try_grow(225).is_ok());
        let rows = MemoryConsumer::new("SortPreservingMergeExec[0]").register(&pool);
        assert!(rows.try_grow(60).is_ok());
        // The eighth is for those, not beside what they have.
        assert!(in_memory.try_grow(1).is_err());
        assert!(rows.try_grow(40).is_ok() && rows.try_grow(1).is_err());
    }

    fn group(pool: &Arc<dyn MemoryPool>) -> MemoryReservation {
        MemoryConsumer::new("groups").with_can_spill(true).register(pool)
    }

    fn fill(reservation: &MemoryReservation) -> usize {
        while reservation.try_grow(1).is_ok() {}
        reservation.size()
    }

    /// A question that groups has a spiller of each kind for each thread, and only the last ones fill up.
    #[test]
    fn groups_take_what_others_leave() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Pool::new(800, 20));
        let groups = [(); 4].map(|()| group(&pool));
        // A share is 125. As much is free as the first has.
        assert_eq!(groups.each_ref().map(fill), [250, 125, 125, 62]);
        groups[0].free();
        assert_eq!(groups.each_ref().map(fill), [125; 4]);
        // Questions that come later find half of a share, which is 62 by then.
        let late = [(); 4].map(|()| group(&pool));
        assert_eq!(late.each_ref().map(fill), [31; 4]);
        drop((groups, late));
        assert_eq!(pool.reserved(), 0);
        // Where somebody sorts nobody has more than a share.
        let sort = MemoryConsumer::new(FILE_MERGE).register(&pool);
        let three = [(); 3].map(|()| group(&pool));
        assert_eq!(three.each_ref().map(fill), [166; 3]);
        drop(sort);
    }

    /// One who reads its files again makes a table of them, and neither can go to files once more.
    #[test]
    fn what_is_made_of_files_finds_memory_beside_them() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Pool::new(800, 20));
        let groups = [(); 4].map(|()| group(&pool));
        let tables = groups.each_ref().map(MemoryReservation::new_empty);
        assert_eq!(groups.each_ref().map(fill), [250, 125, 125, 62]);
        assert_eq!(tables.each_ref().map(fill), [62; 4]);
    }

    /// Whoever comes later finds what each sort keeps back, and something to sort in.
    #[test]
    fn merges_of_files_leave_room_to_later_sorts() {
        let pool: Arc<dyn MemoryPool> = Arc::new(Pool::new(800, 20));
        let merge = || MemoryConsumer::new(FILE_MERGE).register(&pool);
        let early = [merge(), merge()];
        for files in &early {
            while files.try_grow(5).is_ok() {}
        }
        assert_eq!(pool.reserved(), 500);
        let late: Vec<_> = (0..30).map(|_| merge()).collect();
        assert!(late[0].try_grow(20).is_ok() && late[0].try_grow(1).is_err());
        assert!(late[1].try_grow(20).is_ok());
        let sort = MemoryConsumer::new("ExternalSorter").with_can_spill(true).register(&pool);
        assert!(sort.try_grow(5).is_ok() && sort.try_grow(1).is_err());
    }
}
