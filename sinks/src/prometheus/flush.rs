//! One flush: add up, put, know what became of it; partition by partition, side by side.

use std::{sync::Arc, time::Duration};

use aion_schemas::log::{Mark, Partition};
use bytes::Bytes;
use futures::future::join_all;
use uuid::Uuid;

use super::{
    Settings,
    board::Board,
    checkpoint::{self, Checkpoints, KEPT},
    source::Source,
    state::State,
    tally::Tally,
};
use crate::{
    batch::Batch,
    fault,
    lake::{Clock, Moment},
    sink::SinkError,
    store::Put,
};

/// A put that took so long may have come after what followed it was removed.
const SLOW_PUT: Duration = Duration::from_mins(1);
/// Levels that nobody has reported for so long are forgotten, once they aren't shown any more.
const FORGET_LEVELS: Duration = Duration::from_hours(1);
/// Old checkpoints are looked for after so many new ones.
const CLEAN_EVERY: u64 = 50;

/// What every flush of a topic needs.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) checkpoints: Checkpoints,
    pub(super) source: Source,
    pub(super) settings: Settings,
    pub(super) board: Board,
}

/// What is known of a partition by its owner.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) tally: Tally,
    /// As of the checkpoint.
    pub(super) state: Arc<State>,
    /// The checkpoint's number, 0 where there is none.
    pub(super) number: u64,
    /// When that was known to be the newest.
    pub(super) looked: Moment,
}

/// A partition's part of a flush.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) partition: Partition,
    /// Of which assignment it is.
    pub(super) run: u64,
    pub(super) book: Book,
    pub(super) batches: Vec<Batch>,
    pub(super) mark: Mark,
    /// What says that a checkpoint is this flush's.
    pub(super) id: Uuid,
    /// What is to be put, once all is added up.
    pub(super) ready: Option<Ready>,
}

/// A checkpoint as it is stored, and as it is shown once it is.
pub(super) type Ready = (Bytes, Arc<State>);

/// What became of a part.
#[derive(Debug)]
pub(super) enum Ended {
    /// Its checkpoint is there.
    Durable,
    /// Another writer has gone on from the same checkpoint.
    Moved,
    /// It may be there or not: to be tried again.
    Failed(SinkError),
}

impl Work {
    pub(super) fn clock(&self) -> Clock {
        #[cfg(feature = "testing")]
        return self.checkpoints.store.rig.clock.clone();
        #[cfg(not(feature = "testing"))]
        Clock::default()
    }

    /// What the owner of a partition begins with.
    pub(super) async fn open(
        &self,
        partition: &Partition,
    ) -> Result<(Book, Option<Mark>), SinkError> {
        let looked = self.clock().now();
        self.checkpoints.prepare(partition).await?;
        let found = self.checkpoints.load(partition).await?;
        let (number, mark, state) = match found {
            None => (0, None, State::default()),
            Some(found) => (found.number, Some(found.checkpoint.mark()), found.checkpoint.state),
        };
        let tally = Tally::new(state, self.source, &self.settings);
        let state = Arc::new(tally.state.clone());
        Ok((Book { tally, state, number, looked }, mark))
    }
}

/// Carries out the parts of a flush.
pub(super) async fn run(work: Arc<Work>, parts: Vec<Part>) -> Vec<(Part, Ended)> {
    join_all(parts.into_iter().map(|part| one(Arc::clone(&work), part))).await
}

async fn one(work: Arc<Work>, part: Part) -> (Part, Ended) {
    let adding = Arc::clone(&work);
    // Adding up a second of a busy topic, and writing and copying thousands of series, would hold up other tasks.
    let added = tokio::task::spawn_blocking(move || add_up(&adding, part)).await;
    let (mut part, ready) = match added {
        Ok((part, Ok(ready))) => (part, ready),
        Ok((part, Err(error))) => return (part, Ended::Failed(error)),
        // A panic while adding up: the task ends as this thread did.
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    #[cfg(feature = "testing")]
    if work.checkpoints.store.rig.is_off(crate::lake::testing::Protection::Checkpointed) {
        let state = Arc::new(part.book.tally.state.clone());
        work.board.show(&part.partition, state, Some(part.mark));
    }
    let ended = match put(&work, &mut part, ready).await {
        Ok(ended) => ended,
        Err(error) => Ended::Failed(error),
    };
    let is_due = matches!(ended, Ended::Durable) && part.book.number.is_multiple_of(CLEAN_EVERY);
    if is_due && let Err(error) = work.checkpoints.clean(&part.partition).await {
        tracing::warn!("old checkpoints stay: {error}");
    }
    (part, ended)
}

fn add_up(work: &Work, mut part: Part) -> (Part, Result<Ready, SinkError>) {
    if let Some(ready) = &part.ready {
        let ready = ready.clone();
        return (part, Ok(ready));
    }
    let tally = &mut part.book.tally;
    // Taken: the rows give their memory back before the store is waited for.
    for batch in std::mem::take(&mut part.batches) {
        work.source.add_up(&batch.rows, tally);
    }
    let forget = FORGET_LEVELS.max(work.settings.stale_after);
    tally.forget_levels(forget.as_micros() as i64);
    let bytes = checkpoint::encode(&part.partition, (part.mark, part.id), &tally.state);
    let ready = bytes.map(|bytes| (bytes, Arc::new(tally.state.clone())));
    part.ready = ready.as_ref().ok().cloned();
    (part, ready)
}

async fn put(work: &Work, part: &mut Part, (bytes, state): Ready) -> Result<Ended, SinkError> {
    let (checkpoints, clock) = (&work.checkpoints, work.clock());
    if clock.now().since(part.book.looked) > KEPT / 2 {
        let looked = clock.now();
        let newest = checkpoints.newest(&part.partition).await?;
        // Above it may be an earlier try of this flush: the put will tell.
        if newest > part.book.number + 1 {
            return Ok(Ended::Moved);
        }
        part.book.looked = looked;
    }
    let number = number(work, part);
    let began = clock.now();
    fault::point("prometheus.before_put");
    let put = checkpoints.put(&part.partition, number, bytes).await?;
    fault::point("prometheus.after_put");
    if put == Put::Exists {
        let found = checkpoints.read(&part.partition, number).await?;
        if found.is_none_or(|found| found.flush != part.id) {
            return Ok(Ended::Moved);
        }
    }
    if clock.now().since(began) > SLOW_PUT && checkpoints.newest(&part.partition).await? != number {
        return Ok(Ended::Moved);
    }
    part.book.number = number;
    part.book.looked = began;
    part.book.state = state;
    Ok(Ended::Durable)
}

/// The number of the checkpoint that is to be put.
fn number(work: &Work, part: &Part) -> u64 {
    #[cfg(feature = "testing")]
    if work.checkpoints.store.rig.is_off(crate::lake::testing::Protection::Number) {
        return part.mark.offset.get().unsigned_abs();
    }
    #[cfg(not(feature = "testing"))]
    let _ = work;
    part.book.number + 1
}
