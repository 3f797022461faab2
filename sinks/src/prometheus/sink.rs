//! The sink of one topic: buffers in front, at most one flush on its way.
//!
//! **Invariant:** a flush runs on its own task and has the books of its partitions while it runs, so nothing here waits
//! for it, except [`Flush::Now`] (to its deadline) and `assign` (to the configured patience).
//! **Invariant:** a part that failed is kept whole and tried again before anything newer.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use aion_schemas::log::{Marks, Partition};
use async_trait::async_trait;
use tokio::task::{JoinError, JoinHandle};
use uuid::Uuid;

use super::flush::{self, Book, Ended, Part};
use crate::{
    batch::Batch,
    buffer::Buffers,
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};

/// Adds up the events of one topic.
#[derive(Debug)]
pub struct PrometheusSink {
    work: Arc<flush::Work>,
    id: Uuid,
    buffers: Buffers,
    waiting_since: Option<Instant>,
    owned: BTreeMap<Partition, Owned>,
    /// Numbers assignments, so that a flush of an earlier one isn't taken for one of the present.
    runs: u64,
    state: State,
    /// Bytes that the running flush holds.
    flying_bytes: usize,
    /// Became known during a call that then failed; told by the next one.
    untold: Flushed,
}

#[derive(Debug)]
struct Owned {
    run: u64,
    /// With the flush while one is on its way; `None` also while the partition is being assigned anew.
    book: Option<Book>,
}

type Parts = Vec<(Part, Ended)>;

#[derive(Debug)]
enum State {
    Idle,
    Running(JoinHandle<Parts>),
    Failed(Vec<Part>),
    /// The task of a flush panicked.
    Lost,
}

impl PrometheusSink {
    pub(super) fn new(work: Arc<flush::Work>, id: Uuid) -> PrometheusSink {
        PrometheusSink {
            work,
            id,
            buffers: Buffers::default(),
            waiting_since: None,
            owned: BTreeMap::new(),
            runs: 0,
            state: State::Idle,
            flying_bytes: 0,
            untold: Flushed::default(),
        }
    }

    /// The strings that tests pull on this writer.
    #[cfg(feature = "testing")]
    pub fn rig(&self) -> Arc<crate::lake::testing::Rig> {
        Arc::clone(&self.work.checkpoints.store.rig)
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if self.buffers.is_empty() {
            self.waiting_since = None;
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        self.buffers.bytes() >= self.work.settings.flush_bytes
            || now.saturating_duration_since(since) >= self.work.settings.flush_age
    }

    /// Starts the next flush, or again what failed of the last.
    fn start(&mut self) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => {
                self.waiting_since = None;
                let parts = self.take_parts();
                self.spawn(parts);
            }
            State::Failed(parts) => self.spawn(parts),
            other => self.state = other,
        }
    }

    fn take_parts(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        for (partition, chunk) in self.buffers.take() {
            // Without a book another writer has moved it: its rows are read again.
            let Some(owned) = self.owned.get_mut(&partition) else { continue };
            let (Some(mark), Some(book)) = (chunk.mark(), owned.book.take()) else { continue };
            let (run, id, batches) = (owned.run, Uuid::new_v4(), chunk.batches);
            parts.push(Part { partition, run, book, batches, mark, id, ready: None });
        }
        parts
    }

    fn spawn(&mut self, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        self.flying_bytes = parts.iter().flat_map(|part| &part.batches).map(Batch::bytes).sum();
        self.state = State::Running(tokio::spawn(flush::run(Arc::clone(&self.work), parts)));
    }

    /// Takes in what a flush came to.
    fn absorb(&mut self, joined: Result<Parts, JoinError>) -> Result<(), SinkError> {
        self.flying_bytes = 0;
        let parts = match joined {
            Ok(parts) => parts,
            Err(error) => {
                self.state = State::Lost;
                return Err(lost(&error.to_string()));
            }
        };
        let (mut failed, mut why) = (Vec::new(), None);
        for (part, ended) in parts {
            let owned = self.owned.get_mut(&part.partition);
            let Some(owned) = owned.filter(|owned| owned.run == part.run) else { continue };
            match ended {
                Ended::Durable => {
                    let state = Arc::clone(&part.book.state);
                    self.work.board.show(&part.partition, state, Some(part.mark));
                    owned.book = Some(part.book);
                    self.untold.marks.insert(part.partition, part.mark);
                }
                Ended::Moved => {
                    self.owned.remove(&part.partition);
                    self.work.board.hide(&part.partition);
                    self.untold.moved.push(part.partition);
                }
                Ended::Failed(error) => {
                    failed.push(part);
                    if matches!(error, SinkError::Fatal { .. }) || why.is_none() {
                        why = Some(error);
                    }
                }
            }
        }
        self.state = if failed.is_empty() { State::Idle } else { State::Failed(failed) };
        why.map_or(Ok(()), Err)
    }

    /// Forgets what was to become of partitions. What is shown of them stays: it is checkpointed.
    fn put_down(&mut self, partitions: &[Partition]) {
        self.buffers.revoke(partitions);
        for partition in partitions {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.book = None;
            }
            self.untold.marks.remove(partition);
        }
        if let State::Failed(parts) = &mut self.state {
            parts.retain(|part| !partitions.contains(&part.partition));
            if parts.is_empty() {
                self.state = State::Idle;
            }
        }
        self.untold.moved.retain(|partition| !partitions.contains(partition));
    }

    /// Waits until no flush is under way; what it failed of is tried again by the next `flush`.
    async fn rest(&mut self) -> Result<(), SinkError> {
        let State::Running(task) = &mut self.state else { return Ok(()) };
        let Ok(joined) = tokio::time::timeout(self.work.settings.patience, task).await else {
            return Err(SinkError::Retry {
                doing: "assign partitions of the series".to_owned(),
                cause: "the flush under way has not ended yet".to_owned(),
            });
        };
        match self.absorb(joined) {
            Err(SinkError::Retry { .. }) | Ok(()) => Ok(()),
            Err(fatal) => Err(fatal),
        }
    }

    fn told(&mut self) -> Flushed {
        let told = std::mem::take(&mut self.untold);
        self.buffers.revoke(&told.moved);
        told
    }

    async fn flush_now(&mut self, deadline: Instant) -> Result<Flushed, SinkError> {
        loop {
            match &mut self.state {
                State::Running(task) => {
                    let Ok(joined) = tokio::time::timeout_at(deadline.into(), task).await else {
                        return Ok(self.told());
                    };
                    self.absorb(joined)?;
                }
                State::Idle if self.buffers.is_empty() => return Ok(self.told()),
                State::Idle | State::Failed(_) => self.start(),
                State::Lost => return Err(lost("it was reported before")),
            }
        }
    }

    async fn flush_due(&mut self, now: Instant) -> Result<Flushed, SinkError> {
        let is_due = self.is_due(now);
        if let State::Running(task) = &mut self.state {
            if !task.is_finished() {
                return Ok(self.told());
            }
            let joined = task.await;
            self.absorb(joined)?;
        }
        match &self.state {
            State::Failed(_) => self.start(),
            State::Idle if is_due => self.start(),
            State::Lost => return Err(lost("it was reported before")),
            State::Idle | State::Running(_) => {}
        }
        Ok(self.told())
    }
}

#[async_trait]
impl Sink for PrometheusSink {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn store_id(&self) -> String {
        self.id.to_string()
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        self.rest().await?;
        self.put_down(partitions);
        let (mut marks, mut books) = (Marks::new(), Vec::new());
        for partition in partitions {
            let (book, mark) = self.work.open(partition).await?;
            books.push((partition, book, mark));
        }
        for (partition, book, mark) in books {
            self.runs += 1;
            self.work.board.show(partition, Arc::clone(&book.state), mark);
            self.owned.insert(partition.clone(), Owned { run: self.runs, book: Some(book) });
            marks.extend(mark.map(|mark| (partition.clone(), mark)));
        }
        self.buffers.assign(partitions, &marks);
        Ok(marks)
    }

    /// Shows none of them: a partition of the topic that has the name now may be shown in the same place.
    async fn marks_of(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        self.rest().await?;
        self.revoke(partitions);
        let mut marks = Marks::new();
        for partition in partitions {
            let found = self.work.checkpoints.load(partition).await?;
            marks.extend(found.map(|found| (partition.clone(), found.checkpoint.mark())));
        }
        Ok(marks)
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        let held = self.buffers.bytes() + self.flying_bytes;
        if held > 0 && held + batch.bytes() > self.work.settings.hold_bytes {
            return Ok(Accepted::Busy(batch));
        }
        self.buffers.push(batch)?;
        Ok(Accepted::Taken)
    }

    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError> {
        match why {
            Flush::Due => self.flush_due(now).await,
            Flush::Now { deadline } => self.flush_now(deadline).await,
        }
    }

    fn revoke(&mut self, partitions: &[Partition]) {
        self.put_down(partitions);
        for partition in partitions {
            self.owned.remove(partition);
            self.work.board.hide(partition);
        }
    }
}

impl Drop for PrometheusSink {
    /// Whoever owns the partitions next shows them.
    fn drop(&mut self) {
        self.owned.keys().for_each(|partition| self.work.board.hide(partition));
    }
}

fn lost(cause: &str) -> SinkError {
    SinkError::Fatal {
        doing: "flush".to_owned(),
        cause: format!("the task of the flush ended before its time: {cause}"),
        hint: "restart; rows that were not durable are read again".to_owned(),
    }
}
