//! From read to written: an item at the head of a partition passes the gate, its dead letters and gaps are
//! acknowledged, then every sink takes what it wants of it.

use std::time::Instant;

use aion_schemas::log::Timestamp;
use aion_sinks::sink::{Accepted, SinkError};

use super::{
    JobError,
    assign::stop_diverged,
    dead_letters,
    event_loop::{Counters, Job, Place, Plan},
    gaps::{Gap, GapKind},
    gate::{Gate, Verdict},
    journal::{Journal, Ledger},
    reader::{Item, Phase, Reader, Told},
    rules::Rule,
    source::{Chunk, Command, Source},
};

/// One partition's turn: what it needs of the job, borrowed piecewise.
pub(super) struct AdvanceOne<'a, J> {
    pub(super) plan: &'a Plan,
    pub(super) gate: &'a Gate,
    pub(super) journal: &'a mut J,
    pub(super) places: &'a mut [Place],
    pub(super) counters: &'a mut Counters,
    pub(super) reader: &'a mut Reader,
    pub(super) now: Instant,
    pub(super) noted_at: Timestamp,
}

/// What keeps a partition from going on, where the job has to do something about it.
#[derive(Debug)]
pub(super) enum Stuck {
    /// Nothing, or something that passes by itself.
    No,
    /// The topic's id must be looked up.
    AtGate,
    /// The journal failed; it is tried again later.
    Trouble(String),
    /// A sink failed while it took a batch: what it holds is not known any more.
    StartOver(String),
}

/// What became of the item at the head.
enum Wrote {
    All,
    NoRoom,
    Failed(String),
}

impl<S: Source, J: Journal> Job<S, J> {
    /// Takes a chunk in, behind what waits of its partition.
    pub(super) async fn read(&mut self, chunk: Chunk, now: Instant) -> Result<(), JobError> {
        let number = chunk.batch.partition.number;
        let Some(reader) = self.readers.get_mut(&number) else { return Ok(()) };
        let present = reader.run == chunk.run || !self.plan.rules.hold(Rule::RunsAreTold);
        if !present || reader.phase != Phase::Reading {
            return Ok(());
        }
        reader.high = Some(chunk.high);
        let noted_at = self.clock.wall();
        let rejected = chunk.rejected.len() as u64;
        let letters = chunk.rejected.into_iter();
        let partition = &chunk.batch.partition;
        let entry = |rejected| dead_letters::entry(&self.plan.job, partition, rejected, noted_at);
        let entries = letters.map(entry).collect();
        reader.waiting.push_back(Item {
            polled: Some(chunk.polled),
            entries,
            batch: Some(chunk.batch),
            epochs: chunk.epochs,
            records: chunk.records,
            rejected,
        });
        self.count_unknown(chunk.unknown_fields);
        self.advance(number, now).await
    }

    /// Does what a partition's turn asks of the job: look-ups, pauses, starting over.
    pub(super) async fn follow_up(&mut self, number: i32, stuck: Stuck, now: Instant) {
        match stuck {
            Stuck::No => {}
            Stuck::AtGate => self.source.command(Command::Look).await,
            Stuck::Trouble(cause) => self.note_trouble(cause),
            Stuck::StartOver(cause) => {
                self.note_trouble(cause);
                self.restart(number, now).await;
            }
        }
        let Some(reader) = self.readers.get_mut(&number) else { return };
        let command = if matches!(reader.phase, Phase::Stopped(_)) && reader.told != Told::Halted {
            reader.told = Told::Halted;
            Command::Halt(number)
        } else {
            match reader.wants_pause() {
                Some(true) => {
                    reader.told = Told::Paused;
                    Command::Pause(number)
                }
                Some(false) => {
                    reader.told = Told::Go;
                    Command::Resume(number)
                }
                None => return,
            }
        };
        self.source.command(command).await;
    }
}

impl<J: Journal> AdvanceOne<'_, J> {
    /// Moves items on until one can't go further.
    pub(super) async fn advance(&mut self) -> Result<Stuck, (&'static str, SinkError)> {
        if self.reader.backoff.waits(self.now) {
            return Ok(Stuck::No);
        }
        while let Some(item) = self.reader.waiting.front() {
            if !self.may_pass(item) {
                return Ok(Stuck::AtGate);
            }
            if self.is_too_much_rejected() {
                return Ok(Stuck::No);
            }
            self.stop_where_epochs_differ();
            if let Err(cause) = self.acknowledge_entries(true).await {
                return Ok(Stuck::Trouble(cause));
            }
            match self.write_front().await? {
                Wrote::All => {}
                Wrote::NoRoom => return Ok(Stuck::No),
                Wrote::Failed(cause) => return Ok(Stuck::StartOver(cause)),
            }
            if let Err(cause) = self.acknowledge_entries(false).await {
                return Ok(Stuck::Trouble(cause));
            }
            self.reader.waiting.pop_front();
        }
        Ok(Stuck::No)
    }

    fn may_pass(&self, item: &Item) -> bool {
        let Some(polled) = item.polled else { return true };
        if !self.plan.rules.hold(Rule::StreamIsTopicId) {
            return true;
        }
        let started_after = self.plan.rules.hold(Rule::LookupAfterPoll);
        self.gate.verdict(&self.reader.partition.stream, polled, started_after) == Verdict::Pass
    }

    /// Counts the item at the head once, and stops the partition when too much was rejected.
    fn is_too_much_rejected(&mut self) -> bool {
        let Some(item) = self.reader.waiting.front_mut() else { return false };
        let records = std::mem::take(&mut item.records);
        let rejected = std::mem::take(&mut item.rejected);
        let max = self.plan.max_reject_share;
        let Some(share) = self.reader.reject_share.count(records, rejected, max) else {
            return false;
        };
        let why = format!(
            "{:.0} % of the last records of {} were rejected, more than the {:.0} % allowed: look at \
             {}, then put the producer or the registry right, or raise max_reject_share",
            share * 100.0,
            self.reader.partition,
            max * 100.0,
            Ledger::DeadLetters.topic(),
        );
        tracing::error!(job = %self.plan.job, "{why}");
        self.reader.stop(why);
        true
    }

    /// Compares the log's epochs with marks that were not proven so far. Where they differ, the item at
    /// the head becomes the entry that says so, and the partition stops.
    fn stop_where_epochs_differ(&mut self) {
        let Some(item) = self.reader.waiting.front() else { return };
        let Some(end) = item.batch.as_ref().map(|batch| batch.range.end) else { return };
        let mut missing = Vec::new();
        for (sink, place) in self.reader.sinks.iter_mut().zip(self.places.iter()) {
            let Some(mark) = sink.unproven else { continue };
            let from = sink.differs_from(end, &item.epochs, self.plan.compacted);
            missing.extend(from.map(|from| (place.name, from..mark.offset)));
        }
        if !missing.is_empty() && self.plan.rules.hold(Rule::EveryMarkChecked) {
            let gaps = Gap::gather(GapKind::Diverged, missing);
            stop_diverged(self.reader, &gaps, &self.plan.job, self.noted_at);
        }
    }

    /// Has the entries of the item at the head written down. `before` its batch is written; the other way
    /// round only when the model test has taken the rule out.
    async fn acknowledge_entries(&mut self, before: bool) -> Result<(), String> {
        let Some(item) = self.reader.waiting.front_mut() else { return Ok(()) };
        let Some(first) = item.entries.first() else { return Ok(()) };
        let (rule, count) = match first.ledger {
            Ledger::DeadLetters => (Rule::DeadLetterBeforeMark, &mut self.counters.rejected),
            Ledger::Gaps => (Rule::GapBeforeMark, &mut self.counters.gaps),
        };
        if self.plan.rules.hold(rule) != before {
            return Ok(());
        }
        if let Err(error) = self.journal.record(&item.entries).await {
            self.reader.backoff.failed(self.now);
            return Err(error.to_string());
        }
        *count += item.entries.len() as u64;
        item.entries.clear();
        self.reader.backoff.succeeded();
        Ok(())
    }

    /// Hands the batch at the head to every sink, each the part that it wants. What a sink took is noted,
    /// so a second try goes on where the first had to stop.
    async fn write_front(&mut self) -> Result<Wrote, (&'static str, SinkError)> {
        self.reader.is_busy = false;
        let Some(Item { batch: Some(batch), .. }) = self.reader.waiting.front() else {
            return Ok(Wrote::All);
        };
        let rules = self.plan.rules;
        for (sink, place) in self.reader.sinks.iter_mut().zip(self.places.iter_mut()) {
            let sliced = rules.hold(Rule::SliceAtEachMark);
            let part = if sliced { sink.part_of(batch) } else { Some(batch.clone()) };
            let Some(part) = part else { continue };
            let rows = part.rows.num_rows() as u64;
            if rows == 0 && !rules.hold(Rule::MarksWithoutRows) {
                continue;
            }
            match place.sink.write(part).await {
                Ok(Accepted::Taken) => sink.took(batch.range.end, rows),
                Ok(Accepted::Busy(_)) => self.reader.is_busy = true,
                Err(error @ SinkError::Retry { .. }) => {
                    return Ok(Wrote::Failed(format!("{}: {error}", place.name)));
                }
                Err(error) => return Err((place.name, error)),
            }
        }
        Ok(if self.reader.is_busy { Wrote::NoRoom } else { Wrote::All })
    }
}
