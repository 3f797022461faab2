//! What may be shown: the checkpointed series of the partitions that this process owns.
//!
//! **Invariant:** a partition is shown from its assignment to its revocation, always as of a checkpoint.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aion_schemas::log::{Mark, Partition, Timestamp};
use uuid::Uuid;

use super::{buckets::Compared, page, state::State};

/// The series of all topics of this process; clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct Board {
    shown: Arc<Mutex<BTreeMap<Place, Shown>>>,
    compared: Arc<Mutex<Compared>>,
}

/// A topic's name and the number of a partition.
type Place = (Arc<str>, i32);

/// What is shown of a partition.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    topic_id: Uuid,
    pub(super) state: Arc<State>,
    pub(super) mark: Option<Mark>,
}

impl Board {
    /// The page that Prometheus reads. With many series that is work for a thread of its own; nobody waits for it.
    pub fn page(&self, now: Timestamp, stale_after: Duration) -> String {
        let shown = self.lock().clone();
        page::write(&shown, now, stale_after)
    }

    /// The marks of what is shown, by topic and partition.
    pub fn marks(&self) -> BTreeMap<(Arc<str>, i32), Option<Mark>> {
        self.lock().iter().map(|(place, shown)| (place.clone(), shown.mark)).collect()
    }

    pub(super) fn show(&self, partition: &Partition, state: Arc<State>, mark: Option<Mark>) {
        let topic_id = partition.stream.id;
        let mut compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        for name in compared.differing(&state) {
            tracing::warn!(
                "histogram {name} has other buckets in {partition} than in a partition before: sums over both are wrong"
            );
        }
        drop(compared);
        self.lock().insert(place(partition), Shown { topic_id, state, mark });
    }

    pub(super) fn hide(&self, partition: &Partition) {
        let mut shown = self.lock();
        let place = place(partition);
        // A topic made anew may already stand in its place.
        if shown.get(&place).is_some_and(|one| one.topic_id == partition.stream.id) {
            shown.remove(&place);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(partition: &Partition) -> Place {
    (Arc::clone(&partition.stream.topic), partition.number)
}
