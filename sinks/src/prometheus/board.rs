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
        if page::is_shown(&partition.stream.topic, mark) {
            self.compare(partition, &state);
        }
        self.lock().insert(place(partition), Shown { topic_id, state, mark });
    }

    /// Tells of histograms that can't be summed over the partitions.
    fn compare(&self, partition: &Partition, state: &State) {
        let mut compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        for name in compared.differing(state) {
            tracing::warn!(
                "histogram {name} has other buckets in {partition} than in a partition before: sums over both are wrong"
            );
        }
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

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use aion_schemas::log::{Offset, Stream};

    use super::*;
    use crate::prometheus::{
        Kind,
        buckets::tests::state,
        state::{Family, Series, Value},
    };

    /// A page of so many takes long enough to be looked at while it is made.
    const SERIES: usize = 200_000;
    const PAGES: usize = 20;

    /// Their jobs show what they have checkpointed by the same lock.
    #[test]
    fn a_page_under_way_keeps_no_job_waiting() {
        let stream = Stream { topic: "metrics".into(), id: Uuid::from_u128(1) };
        let partition = Partition { stream, number: 0 };
        let board = Board::default();
        board.show(&partition, Arc::new(many()), None);
        let looks: Vec<bool> = (0..PAGES).filter_map(|_| is_free_meanwhile(&board)).collect();
        let free = looks.iter().filter(|is_free| **is_free).count();
        assert!(2 * free >= looks.len(), "the lock was free at {free} of {} looks", looks.len());
    }

    /// Whether the lock is free while a page is made; nothing, where the page was there before.
    fn is_free_meanwhile(board: &Board) -> Option<bool> {
        let begun = Barrier::new(2);
        thread::scope(|scope| {
            let page = scope.spawn(|| {
                begun.wait();
                board.page(Timestamp(0), Duration::MAX)
            });
            begun.wait();
            thread::sleep(Duration::from_millis(3));
            let is_free = board.shown.try_lock().is_ok();
            (!page.is_finished()).then_some(is_free)
        })
    }

    fn many() -> State {
        let series = (0..SERIES).map(|number| Series {
            labels: format!("user=\"{number}\"").into(),
            value: Value::Counter(1.0),
        });
        let family = Family {
            name: "requests_total".into(),
            kind: Kind::Counter,
            help: "Requests.".into(),
            bounds: Arc::default(),
            written: Vec::new(),
            series: series.collect(),
            overflow: None,
            labels: BTreeMap::new(),
            folded: 0,
        };
        State { families: vec![family], ..State::default() }
    }

    /// Before there are retries nothing of theirs is shown, so their buckets differ from nobody's.
    #[test]
    fn buckets_of_a_partition_that_is_not_shown_are_not_compared() {
        let partition = |topic: &str| {
            let stream = Stream { topic: topic.into(), id: Uuid::from_u128(1) };
            Partition { stream, number: 0 }
        };
        let with = |bounds: &[f64]| Arc::new(state("wait", Kind::Histogram, bounds));
        let mark = Some(Mark { offset: Offset(1), epoch: 0 });
        for (retried, told) in [(None, false), (mark, true)] {
            let board = Board::default();
            board.show(&partition("aion.retries.tasks"), with(&[2.0]), retried);
            board.show(&partition("aion.tasks.lifecycle"), with(&[1.0]), mark);
            // Each is told once: a third one is news only where the two were no difference.
            let third = board.compared.lock().map(|mut all| all.differing(&with(&[3.0])).len());
            assert_eq!(third.ok(), Some(usize::from(!told)));
        }
    }
}
