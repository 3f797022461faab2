//! The sink of one table: buffers in front, at most one INSERT on its way for each Kafka partition.
//!
//! **Invariant:** an INSERT runs on its own task, so nothing here waits for it, except [`Flush::Now`] (to its
//! deadline) and `assign` (to the configured patience).
//! **Invariant:** a batch that failed is kept whole and tried again before anything newer of its partition.
//! **Invariant:** no INSERT is sent that the table's window has no room for (`pace`), also when partitions are about to
//! leave: what isn't sent is read again.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Instant};

use aion_schemas::log::{Mark, Marks, Offset, Partition, Stream, show};
use async_trait::async_trait;
use futures::{FutureExt, future::select_all};
use tokio::task::JoinError;

use super::{
    Settings, check,
    landing::{Chain, Goes, Landing, Outcome, Unfit},
    lane::{Done, Due, Lane, Narrow, Next, Work, rows_within},
    pace::Pace,
    retries,
    table::{Table, off},
};
use crate::{
    batch::Batch,
    buffer::Buffers,
    sink::{Accepted, Flush, Flushed, Refused, Sink, SinkError},
};

/// Writes batches into one ClickHouse table.
#[derive(Debug)]
pub struct ClickHouseSink {
    table: Arc<Table>,
    buffers: Buffers,
    lanes: BTreeMap<Partition, Lane>,
    /// Whether the table was found to give the guarantee.
    is_checked: bool,
    /// How fast it sends.
    pace: Pace,
    /// Whether a batch was handed back since the last regular flush.
    is_full: bool,
    /// Became known during a call that then failed; told by the next one.
    untold: Flushed,
    /// What the last assignment found gone for good.
    lost: Vec<(Partition, Range<Offset>)>,
}

impl ClickHouseSink {
    pub(super) fn new(table: Arc<Table>) -> ClickHouseSink {
        let Table { spec, settings, .. } = &*table;
        ClickHouseSink {
            pace: Pace::new(&spec.name, spec.partitions, settings),
            table,
            buffers: Buffers::default(),
            lanes: BTreeMap::new(),
            is_checked: false,
            is_full: false,
            untold: Flushed::default(),
            lost: Vec::new(),
        }
    }

    /// The strings that tests pull on this writer.
    #[cfg(feature = "testing")]
    pub fn rig(&self) -> Arc<super::testing::Rig> {
        Arc::clone(&self.table.rig)
    }

    fn held(&self) -> usize {
        self.buffers.bytes() + self.lanes.values().map(|lane| lane.flying_bytes).sum::<usize>()
    }

    /// Starts what is due of an idle partition, or whatever waits of it; or again what failed of it.
    fn start(&mut self, partition: &Partition, now: Instant, is_due_only: bool) {
        let owned = self.lanes.len();
        let Some(lane) = self.lanes.get_mut(partition) else { return };
        if let Work::Failed(_) = lane.work {
            if !self.pace.send(now, owned) {
                return;
            }
            let Work::Failed(landing) = std::mem::replace(&mut lane.work, Work::Lost) else {
                return;
            };
            return launch(&self.table, lane, landing);
        }
        if !matches!(lane.work, Work::Idle(_)) {
            return;
        }
        let skipped = lane.skip(&self.table, partition, &mut self.buffers);
        if let Some(last) = skipped.last() {
            self.untold.marks.insert(partition.clone(), last.mark());
        }
        let waiting = self.buffers.waiting(partition);
        let Some(first) = waiting.first() else {
            lane.since = None;
            return;
        };
        let Next::Write { until } = lane.next(first.range.start) else { return };
        if is_due_only {
            let since = *lane.since.get_or_insert(now);
            let settings = &self.table.settings;
            let due = Due {
                until,
                goes_at_bytes: self.pace.goes_at_bytes(settings),
                rows_wait: self.pace.rows_wait(),
                is_full: self.is_full,
                waited: now.saturating_duration_since(since),
            };
            let is_narrow_due = lane.narrow.is_some_and(|narrow| narrow.is_due(waiting));
            if !is_narrow_due && !due.is_due(settings, waiting) {
                return;
            }
        }
        let has_rows = waiting.iter().any(|batch| batch.rows.num_rows() > 0);
        if has_rows && !off!(self.table, Pace) && !self.pace.send(now, owned) {
            return;
        }
        let found_at = lane.found_at;
        let goes = until.map_or(Goes::Behind, |until| Goes::IntoBreak { until, found_at });
        let until = until.filter(|_| !off!(self.table, Cut));
        let Settings { max_rows, max_bytes, .. } = self.table.settings;
        let mut rows = max_rows.min(rows_within(waiting, max_bytes));
        if waiting.iter().any(retries::are_in) {
            rows = rows.min(retries::MAX_ROWS);
        }
        rows = lane.narrow.map_or(rows, |narrow| narrow.rows.min(rows));
        let batches = self.buffers.take_some(partition, until, rows);
        let Work::Idle(chain) = std::mem::replace(&mut lane.work, Work::Lost) else { return };
        lane.since = None;
        launch(&self.table, lane, Landing::new(partition.clone(), batches, chain, goes));
    }

    /// Takes in what a batch came to.
    fn absorb(
        &mut self,
        partition: &Partition,
        joined: Result<Done, JoinError>,
    ) -> Result<(), SinkError> {
        let Some(lane) = self.lanes.get_mut(partition) else { return Ok(()) };
        lane.flying_bytes = 0;
        let (landing, outcome) = match joined {
            Ok(done) => done,
            Err(error) => {
                lane.work = Work::Lost;
                return Err(lost(&error.to_string()));
            }
        };
        if let Some(took) = landing.took {
            self.pace.ended(took, landing.is_crowded);
        }
        match outcome {
            Ok(Outcome::Stored(mark)) => {
                let (rows, max_rows) = (landing.rows(), self.table.settings.max_rows);
                lane.narrow = lane.narrow.and_then(|narrow| narrow.taken(rows, max_rows));
                lane.work = Work::Idle(landing.chain);
                self.untold.marks.insert(partition.clone(), mark);
                Ok(())
            }
            Ok(Outcome::Moved) => {
                self.lanes.remove(partition);
                self.untold.moved.push(partition.clone());
                Ok(())
            }
            Ok(Outcome::Unfit { why, cause }) => self.narrow(partition, landing, (why, cause)),
            Err(error) => {
                lane.flying_bytes = landing.bytes();
                lane.work = Work::Failed(landing);
                Err(error)
            }
        }
    }

    /// A batch that the server doesn't take goes in halves; a row that it doesn't take alone is told.
    fn narrow(
        &mut self,
        partition: &Partition,
        mut landing: Landing,
        (why, cause): (Unfit, String),
    ) -> Result<(), SinkError> {
        let Some(lane) = self.lanes.get_mut(partition) else { return Ok(()) };
        let (rows, end) = (landing.rows(), landing.mark().offset);
        let narrow = Narrow::after(lane.narrow, rows, end);
        if why == Unfit::Row && (narrow.is_none() || off!(self.table, Halves)) {
            let mut offsets = landing.batches.iter().filter_map(|batch| batch.offset_of(0));
            let Some(offset) = offsets.next() else { return Ok(()) };
            self.lanes.remove(partition);
            self.untold.refused.push(Refused { partition: partition.clone(), offset, cause });
            return Ok(());
        }
        lane.narrow = narrow.or(lane.narrow);
        if rows > 1 {
            let table = &self.table.spec.name;
            tracing::warn!(table, %partition, rows, "not taken whole: {cause}");
        }
        let doing = landing.doing(&self.table);
        lane.work = Work::Idle(std::mem::take(&mut landing.chain));
        self.buffers.put_back(partition, landing.batches);
        match why {
            Unfit::Row => Ok(()),
            Unfit::Size if rows > 1 => Err(SinkError::Retry { doing, cause }),
            // Nothing is wrong with it, so it is no dead letter: there may be more memory, or a higher limit.
            Unfit::Size => {
                let cause = format!(
                    "{cause}; it is a single row, which is sent again as it is, and what follows in its partition waits"
                );
                Err(SinkError::Retry { doing, cause })
            }
        }
    }

    /// Takes in everything that has ended; the first failure is the answer.
    async fn absorb_ended(&mut self) -> Result<(), SinkError> {
        let mut failed = None;
        let all: Vec<Partition> = self.lanes.keys().cloned().collect();
        for partition in all {
            let Some(lane) = self.lanes.get_mut(&partition) else { continue };
            let joined = match &mut lane.work {
                Work::Running(task) if task.is_finished() => task.await,
                Work::Lost => return Err(lost("it was reported before")),
                _ => continue,
            };
            if let Err(error) = self.absorb(&partition, joined) {
                let is_worse = matches!(error, SinkError::Fatal { .. });
                if is_worse || failed.is_none() {
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Waits until an INSERT of one of the partitions has ended; `None` when none is under way, or the deadline
    /// has come.
    async fn one_ended(
        &mut self,
        of: &[Partition],
        deadline: Instant,
    ) -> Option<(Partition, Result<Done, JoinError>)> {
        let running = self.lanes.iter_mut().filter_map(|(partition, lane)| match &mut lane.work {
            Work::Running(task) if of.contains(partition) => {
                Some(task.map(|joined| (partition.clone(), joined)))
            }
            _ => None,
        });
        let running: Vec<_> = running.collect();
        if running.is_empty() {
            return None;
        }
        let first = tokio::time::timeout_at(deadline.into(), select_all(running)).await;
        first.ok().map(|(ended, ..)| ended)
    }

    async fn flush_now(&mut self, deadline: Instant) -> Result<Flushed, SinkError> {
        let all: Vec<Partition> = self.lanes.keys().cloned().collect();
        for partition in &all {
            self.start(partition, Instant::now(), false);
        }
        let mut failed = None;
        while let Some((partition, joined)) = self.one_ended(&all, deadline).await {
            match self.absorb(&partition, joined) {
                Ok(()) => self.start(&partition, Instant::now(), false),
                // Its next try is the next call's: the job pauses before it.
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        failed.map_or_else(|| Ok(self.told()), Err)
    }

    fn flush_due(&mut self, now: Instant) -> Flushed {
        let all: Vec<Partition> = self.lanes.keys().cloned().collect();
        for partition in &all {
            self.start(partition, now, true);
        }
        self.is_full = false;
        self.told()
    }

    fn told(&mut self) -> Flushed {
        let mut told = std::mem::take(&mut self.untold);
        told.marks.retain(|one, _| !told.moved.contains(one));
        self.buffers.revoke(&told.moved);
        let refused: Vec<_> = told.refused.iter().map(|one| one.partition.clone()).collect();
        self.buffers.revoke(&refused);
        told
    }

    fn forget(&mut self, partitions: &[Partition]) {
        self.buffers.revoke(partitions);
        for partition in partitions {
            self.lanes.remove(partition);
            self.untold.marks.remove(partition);
        }
        self.untold.moved.retain(|partition| !partitions.contains(partition));
        self.untold.refused.retain(|one| !partitions.contains(&one.partition));
        self.lost.retain(|(partition, _)| !partitions.contains(partition));
    }

    /// Waits until nothing is under way for these partitions.
    async fn rest(&mut self, partitions: &[Partition]) -> Result<(), SinkError> {
        let deadline = Instant::now() + self.table.settings.patience;
        while let Some((partition, joined)) = self.one_ended(partitions, deadline).await {
            match self.absorb(&partition, joined) {
                Err(error) if !error.passes() => return Err(error),
                Err(_) | Ok(()) => {}
            }
        }
        let is_running = |lane: &Lane| matches!(lane.work, Work::Running(_));
        if partitions.iter().filter_map(|one| self.lanes.get(one)).any(is_running) {
            return Err(SinkError::Retry {
                doing: format!("assign partitions of {}", self.table.spec.name),
                cause: "an INSERT under way has not ended yet".to_owned(),
            });
        }
        Ok(())
    }

    /// Looks where the partitions of one topic go on.
    async fn look(&mut self, stream: &Stream, numbers: &[i32]) -> Result<Marks, SinkError> {
        let survey = self.table.survey(stream.id, numbers).await?;
        let mut marks = Marks::new();
        for (number, found) in survey.found {
            let partition = Partition { stream: stream.clone(), number };
            if let Some(range) = found.missed {
                tracing::warn!(
                    table = self.table.spec.name, %partition, offsets = show(&range),
                    "the table begins behind these, which it had, and its TTL can't have taken them: erased, or lost with \
                     a disk; `aion clickhouse repair` has them written again"
                );
            }
            for range in found.lost {
                tracing::warn!(
                    table = self.table.spec.name, %partition, offsets = show(&range),
                    "these were stored once and are gone: erased, or lost with a disk; `aion clickhouse repair` \
                     has them written again"
                );
                self.lost.push((partition.clone(), range));
            }
            let chain = Chain {
                end: found.chain_end,
                day: found.day,
                is_open: found.is_open,
                lease: Some(survey.lease),
                noted: None,
            };
            let lane = Lane::new(chain, found.ahead, found.last_ahead, survey.now);
            self.lanes.insert(partition.clone(), lane);
            marks.extend(found.mark.map(|mark: Mark| (partition, mark)));
        }
        Ok(marks)
    }
}

fn launch(table: &Arc<Table>, lane: &mut Lane, mut landing: Landing) {
    lane.flying_bytes = landing.bytes();
    let table = Arc::clone(table);
    lane.work = Work::Running(tokio::spawn(async move {
        let outcome = landing.run(&table).await;
        (landing, outcome)
    }));
}

#[async_trait]
impl Sink for ClickHouseSink {
    fn name(&self) -> &'static str {
        "clickhouse"
    }

    fn store_id(&self) -> String {
        let server = self.table.ledger.client.server();
        format!("{}{}.{}", server.addresses(), server.database, self.table.spec.name)
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        self.rest(partitions).await?;
        self.forget(partitions);
        if !self.is_checked {
            let live = check::table(&self.table).await?;
            self.pace.remembers(live.window());
            self.is_checked = true;
        }
        let mut streams = BTreeMap::<Stream, Vec<i32>>::new();
        for partition in partitions {
            streams.entry(partition.stream.clone()).or_default().push(partition.number);
        }
        let mut marks = Marks::new();
        for (stream, numbers) in &streams {
            marks.extend(self.look(stream, numbers).await?);
        }
        self.buffers.assign(partitions, &marks);
        Ok(marks)
    }

    fn topic_has(&mut self, partitions: usize) {
        self.pace.filled_by(partitions);
    }

    fn take_lost(&mut self) -> Vec<(Partition, Range<Offset>)> {
        std::mem::take(&mut self.lost)
    }

    fn stored_ahead(&self, partition: &Partition) -> Vec<Range<Offset>> {
        let ahead = self.lanes.get(partition).map(|lane| &lane.ahead);
        ahead.into_iter().flatten().map(|segment| segment.range.clone()).collect()
    }

    fn last_ahead(&self, partition: &Partition) -> Option<Mark> {
        self.lanes.get(partition)?.last_ahead
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        let held = self.held();
        if held > 0 && held + batch.bytes() > self.table.settings.hold_bytes {
            self.is_full = true;
            return Ok(Accepted::Busy(batch));
        }
        self.buffers.push(batch)?;
        Ok(Accepted::Taken)
    }

    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError> {
        self.absorb_ended().await?;
        match why {
            Flush::Due => Ok(self.flush_due(now)),
            Flush::Now { deadline } => self.flush_now(deadline).await,
        }
    }

    fn revoke(&mut self, partitions: &[Partition]) {
        self.forget(partitions);
    }
}

fn lost(cause: &str) -> SinkError {
    SinkError::Fatal {
        doing: "insert".to_owned(),
        cause: format!("the task of an INSERT ended before its time: {cause}"),
        hint: "restart; rows that were not durable are read again".to_owned(),
    }
}
