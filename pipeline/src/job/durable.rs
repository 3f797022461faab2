//! From written to committed: flushes, what they made durable, and the report of it to Kafka.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use aion_schemas::log::Partition;
use aion_sinks::sink::{Flush, Flushed, Refused, SinkError};
use futures::future::join_all;

use super::{
    JobError,
    event_loop::Job,
    journal::Journal,
    marks,
    reader::Reader,
    rules::Rule,
    source::{Command, Source},
};

/// The pause before a report that failed is made again.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

impl<S: Source, J: Journal> Job<S, J> {
    /// The regular flush: starts what is due and notes what became durable; never waits.
    pub(super) async fn flush_due(&mut self, now: Instant) -> Result<(), JobError> {
        // With the budget spent nothing more is read, and a partition that has to be drained goes on only
        // then: waiting for rows to be due would be for nothing.
        let waits_for_flush = |reader: &Reader| {
            reader.once_drained.is_some() && reader.waiting.is_empty() && !reader.is_drained()
        };
        let hurry = self.budget.is_spent() || self.readers.values().any(waits_for_flush);
        let why = if hurry { Flush::Now { deadline: now } } else { Flush::Due };
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            if place.backoff.waits(now) {
                continue;
            }
            let outcome = place.sink.flush(now, why).await;
            self.flushed(at, outcome, now).await?;
        }
        Ok(())
    }

    /// Has all sinks write everything, side by side, and waits to the deadline at most. A sink that fails
    /// in a way that passes leaves its rows to the next owner.
    pub(super) async fn flush_now(
        &mut self,
        now: Instant,
        deadline: Instant,
    ) -> Result<(), JobError> {
        let why = Flush::Now { deadline };
        let flushes = self.places.iter_mut().map(|place| place.sink.flush(now, why));
        let outcomes = join_all(flushes).await;
        for (at, outcome) in outcomes.into_iter().enumerate() {
            self.flushed(at, outcome, now).await?;
        }
        Ok(())
    }

    /// Stores what can be stored until the deadline, and has the marks committed before anything else.
    pub(super) async fn flush_and_commit(
        &mut self,
        now: Instant,
        deadline: Instant,
    ) -> Result<(), JobError> {
        self.flush_now(now, deadline).await?;
        self.commit(true).await;
        Ok(())
    }

    /// The regular report, unless the last one has just failed.
    pub(super) async fn commit_due(&mut self, now: Instant) {
        if self.commit_at.is_none_or(|at| at <= now) {
            self.commit_at = None;
            self.commit(false).await;
        }
    }

    /// A report did not reach Kafka: it is made again a little later.
    pub(super) fn commit_failed(&mut self, partitions: &[i32], now: Instant) {
        if !self.plan.rules.hold(Rule::FailedCommitIsRepeated) {
            return;
        }
        self.commit_at = Some(now + COMMIT_AGAIN);
        for number in partitions {
            if let Some(reader) = self.readers.get_mut(number) {
                reader.committed = None;
            }
        }
    }

    /// Reports the least mark of every partition where it has moved since the last report.
    pub(super) async fn commit(&mut self, wait: bool) {
        let names: Vec<&'static str> = self.places.iter().map(|place| place.name).collect();
        let least = self.plan.rules.hold(Rule::CommitLeastMark);
        let (mut marks, now) = (Vec::new(), self.clock.now());
        // The offsets of a topic that is gone say nothing about the one that has its name.
        for reader in self.readers.values_mut().filter(|reader| !reader.is_leaving()) {
            let stored = reader.sinks.iter().map(|sink| sink.stored.map(|mark| mark.offset));
            let offset =
                if least { marks::committable(&reader.sinks) } else { stored.flatten().max() };
            if offset.is_none() || offset == reader.committed {
                continue;
            }
            reader.committed = offset;
            reader.committed_at = Some(now);
            let id = reader.partition.stream.id;
            let text = marks::metadata(id, names.iter().copied().zip(&reader.sinks));
            marks.extend(offset.map(|offset| (reader.partition.number, offset, text)));
        }
        if !marks.is_empty() {
            self.source.command(Command::Commit { marks, wait }).await;
        }
    }

    /// Notes what a flush of sink number `at` brought.
    async fn flushed(
        &mut self,
        at: usize,
        outcome: Result<Flushed, SinkError>,
        now: Instant,
    ) -> Result<(), JobError> {
        let place = &mut self.places[at];
        let flushed = match outcome {
            Ok(flushed) => flushed,
            Err(error) if error.passes() => {
                place.backoff.failed(now);
                self.sink_troubled(at, &error);
                if let SinkError::Waits { rows, .. } = error {
                    let in_vain = self.places[at].waits.note(rows, now, self.plan.wait_at_most);
                    self.refuse(at, in_vain, now).await;
                }
                return Ok(());
            }
            Err(error) => return Err(self.sink_failed(self.places[at].name, error)),
        };
        // An empty answer says nothing: what was begun may still fail.
        if !flushed.marks.is_empty() || !flushed.moved.is_empty() || !flushed.refused.is_empty() {
            self.sink_stored(at);
        }
        self.places[at].waits.stored(&flushed.marks);
        let is_current = |reader: &Reader, of: &Partition| reader.partition == *of;
        for (partition, mark) in &flushed.marks {
            let reader = self.readers.get_mut(&partition.number);
            if let Some(reader) = reader.filter(|reader| is_current(reader, partition)) {
                self.counters.rows_stored += reader.sinks[at].durable(*mark);
            }
        }
        self.refuse(at, flushed.refused, now).await;
        if !self.plan.rules.hold(Rule::MovedIsAssignedAnew) {
            return Ok(());
        }
        for partition in &flushed.moved {
            let reader = self.readers.get_mut(&partition.number);
            if reader.is_some_and(|reader| is_current(reader, partition)) {
                tracing::info!(
                    job = %self.plan.job, topic = %partition.stream.topic,
                    partition = partition.number, sink = self.places[at].name,
                    "another writer has moved the mark"
                );
                self.restart(partition.number, now).await;
            }
        }
        Ok(())
    }

    /// Has the records of rows that sink number `at` doesn't take read again, as rejected ones.
    async fn refuse(&mut self, at: usize, rows: Vec<Refused>, now: Instant) {
        let sink = self.places[at].name;
        let mut numbers = BTreeSet::new();
        for Refused { partition, offset, cause } in rows {
            let reader = self.readers.get(&partition.number);
            if reader.is_none_or(|reader| reader.partition != partition) {
                continue;
            }
            tracing::warn!(
                job = %self.plan.job, %partition, %offset, sink,
                "a row is refused, its record becomes a dead letter: {cause}"
            );
            numbers.insert(partition.number);
            let cause = format!("{sink}: {cause}");
            self.source.command(Command::Refuse { partition, offset, cause }).await;
        }
        for number in numbers {
            self.restart(number, now).await;
        }
    }
}
