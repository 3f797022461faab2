//! A sink in memory, for tests of what stands above sinks: crashes, zombies and faults without a disk.
//!
//! The durable part is a [`Store`] that outlives the sink: drop the [`MemorySink`] and the process has
//! crashed; open another on the same store and it has come back. Two sinks on one store are two
//! processes that both believe to own a partition.
//!
//! **Invariant:** rows land together with the mark, and only if the mark is still the one that they follow.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aion_schemas::log::{Mark, Marks, Partition};
use arrow::{
    array::{AsArray, types::Int64Type},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use uuid::Uuid;

use crate::{
    batch::Batch,
    buffer::{self, Buffers, Chunk, Chunks},
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};

/// What the next call of a sink on the store runs into. Each is used up by the call that meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A write is handed back.
    Busy,
    /// A flush fails, and nothing of it landed.
    Retry,
    /// A flush fails after the rows of its first partition landed.
    Torn,
    /// A flush fails after everything landed.
    Unacknowledged,
    /// A flush finds all its partitions moved, and nothing of it lands.
    Moved,
    /// An assignment fails.
    RetryAssign,
    /// A flush fails for good, and nothing of it landed.
    Fatal,
}

/// What outlives a crash: rows and marks, and the faults that a test has scripted.
#[derive(Clone, Debug, Default)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: Vec<(Partition, RecordBatch)>,
    /// With each mark, the flush that wrote it.
    marks: BTreeMap<Partition, (Mark, Uuid)>,
    faults: VecDeque<Fault>,
    met: Vec<Fault>,
    stalled: bool,
}

impl Store {
    /// An empty store.
    pub fn new() -> Store {
        Store::default()
    }

    /// Appends a fault to the script.
    pub fn script(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// The faults that nothing has met so far.
    pub fn faults_left(&self) -> usize {
        self.lock().faults.len()
    }

    /// The faults that calls have met, in order.
    pub fn faults_met(&self) -> Vec<Fault> {
        self.lock().met.clone()
    }

    /// While stalled, flushes neither land nor fail.
    pub fn stall(&self, stalled: bool) {
        self.lock().stalled = stalled;
    }

    /// The stored marks.
    pub fn marks(&self) -> Marks {
        self.lock().marks.iter().map(|(partition, (mark, _))| (partition.clone(), *mark)).collect()
    }

    /// The stored rows, in the order in which they landed.
    pub fn rows(&self) -> Vec<RecordBatch> {
        self.lock().rows.iter().map(|(_, rows)| rows.clone()).collect()
    }

    /// The stored rows of a partition, in the order in which they landed.
    pub fn rows_of(&self, partition: &Partition) -> Vec<RecordBatch> {
        let inner = self.lock();
        let rows = inner.rows.iter().filter(|(of, _)| of == partition);
        rows.map(|(_, rows)| rows.clone()).collect()
    }

    /// The offsets stored of a partition, in the order in which they landed.
    pub fn offsets(&self, partition: &Partition) -> Vec<i64> {
        let inner = self.lock();
        let rows = inner.rows.iter().filter(|(of, _)| of == partition);
        rows.flat_map(|(_, rows)| offsets(rows)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Uses up the next fault if it is one of `kinds`.
    fn meet(&mut self, kinds: &[Fault]) -> Option<Fault> {
        let next = *self.faults.front()?;
        if !kinds.contains(&next) {
            return None;
        }
        self.met.push(next);
        self.faults.pop_front()
    }

    /// Lands a chunk together with its mark; `None` when another writer has moved the mark.
    fn land(&mut self, partition: &Partition, chunk: &Chunk, flush: &InFlight) -> Option<Mark> {
        let mark = chunk.mark()?;
        let stored = self.marks.get(partition).copied();
        if stored.is_some_and(|(_, by)| by == flush.id) {
            return Some(mark); // an earlier try of this flush
        }
        let same_mark = stored.map(|(mark, _)| mark.offset) == chunk.after.map(|mark| mark.offset);
        if flush.fenced && !same_mark {
            return None;
        }
        let rows = chunk.batches.iter().filter(|batch| batch.rows.num_rows() > 0);
        self.rows.extend(rows.map(|batch| (partition.clone(), batch.rows.clone())));
        self.marks.insert(partition.clone(), (mark, flush.id));
        Some(mark)
    }
}

/// The limits of a [`MemorySink`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// A flush is due when this many bytes wait.
    pub flush_bytes: usize,
    /// A flush is due when the first row has waited this long.
    pub flush_age: Duration,
    /// Above this many bytes held, writes are handed back.
    pub hold_bytes: usize,
    /// How many further [`Flush::Due`] calls pass between the start of a flush and its landing.
    pub delay: usize,
    /// Whether a flush checks the stored marks. `false` is for negative controls only: it takes out
    /// the protection against zombies.
    pub fenced: bool,
    /// Whether what waits for a partition is dropped when it is assigned or revoked. `false` is for
    /// negative controls only.
    pub forgets: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            flush_bytes: 1 << 20,
            flush_age: Duration::from_millis(100),
            hold_bytes: 4 << 20,
            delay: 0,
            fenced: true,
            forgets: true,
        }
    }
}

/// One process's sink on a [`Store`].
#[derive(Debug)]
pub struct MemorySink {
    store: Store,
    settings: Settings,
    buffers: Buffers,
    waiting_since: Option<Instant>,
    in_flight: Option<InFlight>,
    /// Became known during a call that then failed; told by the next one.
    untold: Flushed,
}

#[derive(Debug)]
struct InFlight {
    id: Uuid,
    chunks: Chunks,
    delay: usize,
    fenced: bool,
}

impl MemorySink {
    /// Opens a sink on the store, as a process does when it starts.
    pub fn open(store: &Store, settings: Settings) -> MemorySink {
        MemorySink {
            store: store.clone(),
            settings,
            buffers: Buffers::default(),
            waiting_since: None,
            in_flight: None,
            untold: Flushed::default(),
        }
    }

    fn held(&self) -> usize {
        let in_flight = self.in_flight.as_ref().map_or(0, |flush| buffer::bytes(&flush.chunks));
        self.buffers.bytes() + in_flight
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if self.buffers.is_empty() {
            self.waiting_since = None;
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        self.buffers.bytes() >= self.settings.flush_bytes
            || now.saturating_duration_since(since) >= self.settings.flush_age
    }

    fn start(&mut self) {
        self.waiting_since = None;
        let chunks = self.buffers.take();
        let (delay, fenced) = (self.settings.delay, self.settings.fenced);
        self.in_flight = Some(InFlight { id: Uuid::new_v4(), chunks, delay, fenced });
    }

    /// Lands the flush that is under way; keeps it when it fails.
    fn land(&mut self) -> Result<(), SinkError> {
        let Some(mut flush) = self.in_flight.take() else { return Ok(()) };
        let mut inner = self.store.lock();
        let kinds = [Fault::Retry, Fault::Torn, Fault::Unacknowledged, Fault::Moved, Fault::Fatal];
        let fault = inner.meet(&kinds);
        let refused = matches!(fault, Some(Fault::Retry | Fault::Fatal));
        let chunks = std::mem::take(&mut flush.chunks);
        for (at, (partition, chunk)) in chunks.iter().enumerate() {
            if refused || (fault == Some(Fault::Torn) && at > 0) {
                break;
            }
            let landed = match fault {
                Some(Fault::Moved) => None,
                _ => inner.land(partition, chunk, &flush),
            };
            if matches!(fault, None | Some(Fault::Moved)) {
                tell(&mut self.untold, &self.buffers, partition, landed);
            }
        }
        drop(inner);
        if matches!(fault, None | Some(Fault::Moved)) {
            return Ok(());
        }
        let error = failure(&format!("flush {} partitions", chunks.len()), fault);
        flush.chunks = chunks;
        self.in_flight = Some(flush);
        Err(error)
    }

    fn told(&mut self) -> Flushed {
        let flushed = std::mem::take(&mut self.untold);
        self.buffers.revoke(&flushed.moved);
        flushed
    }

    fn forget(&mut self, partitions: &[Partition]) {
        if !self.settings.forgets {
            return;
        }
        self.buffers.revoke(partitions);
        for partition in partitions {
            if let Some(flush) = &mut self.in_flight {
                flush.chunks.remove(partition);
            }
            self.untold.marks.remove(partition);
        }
        self.untold.moved.retain(|partition| !partitions.contains(partition));
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn store_id(&self) -> String {
        "memory".to_owned()
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        self.forget(partitions);
        let mut inner = self.store.lock();
        if let fault @ Some(_) = inner.meet(&[Fault::RetryAssign]) {
            return Err(failure("read the marks", fault));
        }
        let stored = |partition: &Partition| {
            let (mark, _) = inner.marks.get(partition)?;
            Some((partition.clone(), *mark))
        };
        let marks: Marks = partitions.iter().filter_map(stored).collect();
        drop(inner);
        // All are new, unless it doesn't forget.
        let new: Vec<_> =
            partitions.iter().filter(|one| !self.buffers.owns(one)).cloned().collect();
        self.buffers.assign(&new, &marks);
        Ok(marks)
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        if self.store.lock().meet(&[Fault::Busy]).is_some() {
            return Ok(Accepted::Busy(batch));
        }
        let held = self.held();
        if held > 0 && held + batch.bytes() > self.settings.hold_bytes {
            return Ok(Accepted::Busy(batch));
        }
        self.buffers.push(batch)?;
        Ok(Accepted::Taken)
    }

    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError> {
        if let Flush::Now { deadline } = why {
            while self.store.lock().stalled {
                if Instant::now() >= deadline {
                    return Ok(self.told());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.land()?;
            self.start();
            self.land()?;
            return Ok(self.told());
        }
        if self.store.lock().stalled {
            return Ok(self.told());
        }
        match &mut self.in_flight {
            Some(flush) if flush.delay > 0 => flush.delay -= 1,
            Some(_) => self.land()?,
            None => {}
        }
        if self.in_flight.is_none() && self.is_due(now) {
            self.start();
            if self.settings.delay == 0 {
                self.land()?;
            }
        }
        Ok(self.told())
    }

    fn revoke(&mut self, partitions: &[Partition]) {
        self.forget(partitions);
    }
}

fn tell(told: &mut Flushed, owned: &Buffers, partition: &Partition, landed: Option<Mark>) {
    match landed {
        _ if !owned.owns(partition) => {}
        Some(mark) => drop(told.marks.insert(partition.clone(), mark)),
        None => told.moved.push(partition.clone()),
    }
}

fn failure(doing: &str, fault: Option<Fault>) -> SinkError {
    let cause = "scripted by the test".to_owned();
    match fault {
        Some(Fault::Fatal) => SinkError::Fatal {
            doing: doing.to_owned(),
            cause,
            hint: "change the script".to_owned(),
        },
        _ => SinkError::Retry { doing: doing.to_owned(), cause },
    }
}

fn offsets(rows: &RecordBatch) -> Vec<i64> {
    let Some(column) = rows.column_by_name("_offset") else { return Vec::new() };
    column.as_primitive::<Int64Type>().values().to_vec()
}
