//! The sink of one table: buffers in front, at most one flush on its way into the log.
//!
//! **Invariant:** a flush runs on its own task and owns the log while it runs, so nothing here waits for it,
//! except [`Flush::Now`] (to its deadline) and `assign` (to the configured patience).
//! **Invariant:** a flush that failed is kept whole and tried again before anything newer.

use std::{sync::Arc, time::Instant};

use aion_schemas::log::{Marks, Partition};
use arrow::datatypes::Schema;
use async_trait::async_trait;
use tokio::task::{JoinError, JoinHandle};

use super::{
    checkpoint,
    flush::{self, Done},
    log::{Log, Table},
};
use crate::{
    batch::Batch,
    buffer::Buffers,
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};

/// Writes batches into one Delta table.
#[derive(Debug)]
pub struct LakeSink {
    table: Arc<Table>,
    table_id: String,
    buffers: Buffers,
    waiting_since: Option<Instant>,
    /// Whether a batch found no room since the last flush began: then what there is goes, however little it is.
    is_full: bool,
    work: Work,
    /// Bytes that the running flush holds.
    flying_bytes: usize,
    /// Became known during a call that then failed; told by the next one.
    untold: Flushed,
}

#[derive(Debug)]
enum Work {
    Idle(Log),
    Running(JoinHandle<Done>),
    Failed(Log, flush::Flush),
    /// The task of a flush panicked.
    Lost,
}

impl LakeSink {
    pub(super) fn new(table: Arc<Table>, log: Log) -> LakeSink {
        LakeSink {
            table,
            table_id: log.table_id.clone(),
            buffers: Buffers::default(),
            waiting_since: None,
            is_full: false,
            work: Work::Idle(log),
            flying_bytes: 0,
            untold: Flushed::default(),
        }
    }

    /// The strings that tests pull on this writer.
    #[cfg(feature = "testing")]
    pub fn rig(&self) -> Arc<super::testing::Rig> {
        Arc::clone(&self.table.store.rig)
    }

    fn held(&self) -> usize {
        self.buffers.bytes() + self.flying_bytes
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if self.buffers.is_empty() {
            self.waiting_since = None;
            self.is_full = false;
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        self.is_full
            || self.buffers.bytes() >= self.table.settings.flush_bytes
            || now.saturating_duration_since(since) >= self.table.settings.flush_age
    }

    /// Starts the next flush, or again the one that failed.
    fn start(&mut self) {
        self.work = match std::mem::replace(&mut self.work, Work::Lost) {
            Work::Idle(log) => {
                self.waiting_since = None;
                self.is_full = false;
                let flush = flush::Flush::new(self.buffers.take());
                self.spawn(log, flush)
            }
            Work::Failed(log, flush) => self.spawn(log, flush),
            other => other,
        };
    }

    fn spawn(&mut self, log: Log, flush: flush::Flush) -> Work {
        self.flying_bytes = flush.bytes();
        Work::Running(tokio::spawn(async move {
            let mut done = flush.run(log).await;
            checkpoint::start_if_due(&mut done.log);
            done
        }))
    }

    /// Takes in what a flush came to.
    fn absorb(&mut self, joined: Result<Done, JoinError>) -> Result<(), SinkError> {
        self.flying_bytes = 0;
        let mut done = match joined {
            Ok(done) => done,
            Err(error) => {
                self.work = Work::Lost;
                return Err(lost(&error.to_string()));
            }
        };
        done.rest.retain(|partition| self.buffers.owns(partition));
        done.marks.retain(|partition, _| self.buffers.owns(partition));
        done.moved.retain(|partition| self.buffers.owns(partition));
        // Theirs until it is told: the caller may hand over batches of them meanwhile, which the next
        // flush finds moved again.
        done.moved.retain(|partition| !self.untold.moved.contains(partition));
        self.untold.marks.extend(done.marks);
        self.untold.moved.extend(done.moved);
        if done.rest.is_empty() {
            self.work = Work::Idle(done.log);
        } else {
            self.flying_bytes = done.rest.bytes();
            self.work = Work::Failed(done.log, done.rest);
        }
        done.error.map_or(Ok(()), Err)
    }

    fn forget(&mut self, partitions: &[Partition]) {
        self.buffers.revoke(partitions);
        if let Work::Failed(_, flush) = &mut self.work {
            flush.retain(|partition| !partitions.contains(partition));
            self.flying_bytes = flush.bytes();
        }
        self.untold.marks.retain(|partition, _| !partitions.contains(partition));
        self.untold.moved.retain(|partition| !partitions.contains(partition));
    }

    /// Waits until no flush is under way; what it failed of is tried again by the next `flush`.
    async fn rest(&mut self) -> Result<(), SinkError> {
        let Work::Running(task) = &mut self.work else { return Ok(()) };
        let Ok(joined) = tokio::time::timeout(self.table.settings.patience, task).await else {
            return Err(SinkError::Retry {
                doing: format!("assign partitions of {}", self.table.contract.spec.name),
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
        if let Work::Failed(_, flush) = &mut self.work {
            flush.retain(|partition| !told.moved.contains(partition));
            self.flying_bytes = flush.bytes();
        }
        told
    }

    async fn flush_now(&mut self, deadline: Instant) -> Result<Flushed, SinkError> {
        loop {
            match &mut self.work {
                Work::Running(task) => {
                    let Ok(joined) = tokio::time::timeout_at(deadline.into(), task).await else {
                        return Ok(self.told());
                    };
                    self.absorb(joined)?;
                }
                Work::Idle(_) if self.buffers.is_empty() => return Ok(self.told()),
                Work::Idle(_) | Work::Failed(..) => self.start(),
                Work::Lost => return Err(lost("it was reported before")),
            }
        }
    }

    async fn flush_due(&mut self, now: Instant) -> Result<Flushed, SinkError> {
        let is_due = self.is_due(now);
        if let Work::Running(task) = &mut self.work {
            if !task.is_finished() {
                return Ok(self.told());
            }
            let joined = task.await;
            self.absorb(joined)?;
        }
        match &self.work {
            Work::Failed(..) => self.start(),
            Work::Idle(_) if is_due => self.start(),
            Work::Lost => return Err(lost("it was reported before")),
            Work::Idle(_) | Work::Running(_) => {}
        }
        #[cfg(feature = "testing")]
        if self.table.store.rig.is_off(super::testing::Protection::OwnTask) {
            self.rest().await?;
        }
        Ok(self.told())
    }

    fn check_columns(&self, batch: &Batch) -> Result<(), SinkError> {
        let (ours, theirs) = (&self.table.contract.spec.schema, batch.rows.schema());
        if Arc::ptr_eq(ours, &theirs) || same_columns(ours, &theirs) {
            return Ok(());
        }
        Err(SinkError::Fatal {
            doing: format!(
                "write rows of {} to {}",
                batch.partition, self.table.contract.spec.name
            ),
            cause: "their columns are not those of the table".to_owned(),
            hint: "this is a fault of the program, please report it".to_owned(),
        })
    }
}

#[async_trait]
impl Sink for LakeSink {
    fn name(&self) -> &'static str {
        "lake"
    }

    fn store_id(&self) -> String {
        self.table_id.clone()
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        self.rest().await?;
        self.forget(partitions);
        let log = match &mut self.work {
            Work::Idle(log) | Work::Failed(log, _) => log,
            Work::Running(_) | Work::Lost => return Err(lost("it was reported before")),
        };
        log.refresh().await?;
        let mark = |partition: &Partition| Some((partition.clone(), log.mark(partition)?));
        let marks: Marks = partitions.iter().filter_map(mark).collect();
        self.buffers.assign(partitions, &marks);
        Ok(marks)
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        let held = self.held();
        if held > 0 && held + batch.bytes() > self.table.settings.hold_bytes {
            self.is_full = true;
            return Ok(Accepted::Busy(batch));
        }
        self.check_columns(&batch)?;
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
        self.forget(partitions);
    }
}

fn same_columns(ours: &Schema, theirs: &Schema) -> bool {
    let pairs = || ours.fields().iter().zip(theirs.fields());
    ours.fields().len() == theirs.fields().len()
        && pairs().all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type())
}

fn lost(cause: &str) -> SinkError {
    SinkError::Fatal {
        doing: "flush".to_owned(),
        cause: format!("the task of the flush ended before its time: {cause}"),
        hint: "restart; rows that were not durable are read again".to_owned(),
    }
}
