//! From read to written: an item at the head of a partition passes the gate, its dead letters and gaps are
//! acknowledged, then every sink takes what it wants of it.

use std::time::Instant;

use aion_schemas::log::{Stream, Timestamp};
use aion_sinks::sink::{Accepted, SinkError};

use super::{
    JobError,
    appeal::Question,
    assign::stop_diverged,
    dead_letters,
    event_loop::{Job, Place, Plan},
    gaps::{Gap, GapKind},
    gate::{Gate, Verdict},
    journal::{Entry, Journal, Ledger},
    reader::{Item, Phase, Reader, Told},
    recorder::{Outcome, Recorder},
    rules::Rule,
    source::{Chunk, Command, Rejected, Source},
};

/// What waits in a job may take one of so many parts of the memory before partitions pause that wait for the journal.
const WAITING_SHARE: usize = 8;

/// One partition's turn: what it needs of the job, borrowed piecewise.
pub(super) struct AdvanceOne<'a, J> {
    pub(super) plan: &'a Plan,
    pub(super) gate: &'a Gate,
    pub(super) recorder: &'a mut Recorder<J>,
    pub(super) places: &'a mut [Place],
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
        let counts = |one: &Rejected| one.offset >= reader.accepted_below;
        let rejected = chunk.rejected.iter().filter(|one| counts(one)).count() as u64;
        let accepted = chunk.rejected.len() as u64 - rejected;
        let letters = chunk.rejected.into_iter();
        let partition = &chunk.batch.partition;
        let entry = |rejected| dead_letters::entry(&self.plan.job, partition, rejected, noted_at);
        let entries = letters.map(entry).collect();
        reader.waiting.push_back(Item {
            polled: Some(chunk.polled),
            entries,
            recording: None,
            batch: Some(chunk.batch),
            epochs: chunk.epochs,
            records: chunk.records.saturating_sub(accepted),
            rejected,
            high: Some(chunk.high),
            is_told_anew: false,
        });
        self.count_unknown(chunk.unknown_fields);
        self.advance(number, now).await
    }

    /// Entries are written down, or not: what waits behind them goes on, or they are tried again later.
    pub(super) async fn recorded(
        &mut self,
        outcome: Outcome,
        now: Instant,
    ) -> Result<(), JobError> {
        let Outcome { partition, ticket, result } = outcome;
        self.recorder.note(result.is_ok(), now);
        let failed = match result {
            Ok(()) => Vec::new(),
            Err(failed) => {
                self.note_trouble(failed.to_string());
                failed.entries
            }
        };
        if self.departed.is_recording(ticket) {
            self.counters.gaps += self.departed.recorded(failed);
            return Ok(());
        }
        if let Some(reader) = self.readers.get_mut(&partition)
            && let Some(item) = reader.waiting.front_mut()
            && let Some(recording) = item.recording.take_if(|one| one.ticket == ticket)
        {
            reader.is_unrecorded = !failed.is_empty();
            let count = match recording.ledger {
                Ledger::DeadLetters => &mut self.counters.rejected,
                Ledger::Gaps => &mut self.counters.gaps,
            };
            if !item.is_told_anew {
                *count += recording.count.saturating_sub(failed.len()) as u64;
            }
            item.entries = failed;
        }
        self.advance(partition, now).await
    }

    /// Tells of entries that wait long to be written down, and has their partitions pause.
    pub(super) fn note_slow_recordings(&mut self, now: Instant) {
        let mut slow = self.departed.recording.filter(|one| one.is_slow(now));
        for reader in self.readers.values_mut() {
            let recording = reader.waiting.front().and_then(|item| item.recording);
            if let Some(recording) = recording.filter(|one| one.is_slow(now)) {
                reader.is_unrecorded = true;
                slow = Some(recording);
            }
        }
        if let Some(cause) = slow.and_then(|recording| self.recorder.slow(recording, now)) {
            self.note_trouble(cause);
        }
    }

    /// Does what a partition's turn asks of the job: look-ups, pauses, starting over.
    pub(super) async fn follow_up(&mut self, number: i32, stuck: Stuck, now: Instant) {
        match stuck {
            Stuck::No => {}
            Stuck::AtGate => self.source.command(Command::Look).await,
            Stuck::StartOver(cause) => {
                self.note_trouble(cause);
                self.restart(number, now).await;
            }
        }
        let is_crowded = self.plan.rules.hold(Rule::WaitingIsBounded) && self.is_crowded(number);
        let Some(reader) = self.readers.get_mut(&number) else { return };
        let command = if matches!(reader.phase, Phase::Stopped(_)) && reader.told != Told::Halted {
            reader.told = Told::Halted;
            Command::Halt(number)
        } else {
            match reader.wants_pause(is_crowded) {
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

    /// Whether a partition waits for the journal while what waits, of all partitions, takes so much that a journal which is
    /// silent would soon have all of the memory. As a rule it answers within milliseconds, and what is read meanwhile is
    /// far less.
    fn is_crowded(&self, number: i32) -> bool {
        let waiting = || self.readers.values().map(Reader::bytes).sum::<usize>();
        self.readers.get(&number).is_some_and(Reader::waits_for_journal)
            && waiting() >= self.budget.limit() / WAITING_SHARE
    }
}

impl<J: Journal> AdvanceOne<'_, J> {
    /// Moves items on until one can't go further.
    pub(super) async fn advance(&mut self) -> Result<Stuck, (&'static str, SinkError)> {
        if self.reader.is_cut() {
            return Ok(Stuck::AtGate);
        }
        while let Some(item) = self.reader.waiting.front() {
            if !self.may_pass(item) {
                return Ok(Stuck::AtGate);
            }
            if item.polled.is_some() {
                self.reader.end = self.reader.end.max(item.high);
            }
            if self.is_too_much_rejected() {
                return Ok(Stuck::No);
            }
            self.stop_where_epochs_differ();
            if !self.is_recorded(true) {
                return Ok(Stuck::No);
            }
            match self.write_front().await? {
                Wrote::All => {}
                Wrote::NoRoom => return Ok(Stuck::No),
                Wrote::Failed(cause) => return Ok(Stuck::StartOver(cause)),
            }
            if !self.is_recorded(false) {
                return Ok(Stuck::No);
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
        let Stream { topic, .. } = &self.reader.partition.stream;
        let why = format!(
            "{:.0} % of the last records of {} were rejected, more than the {:.0} % allowed ({}): if \
             they are good, put the schemas right and start again; if not, `aion dead-letters accept \
             {} {topic} {}` makes dead letters of them",
            share * 100.0,
            self.reader.partition,
            max * 100.0,
            example(&item.entries),
            self.plan.job,
            self.reader.partition.number,
        );
        let (stream, number) = (&self.reader.partition.stream, self.reader.partition.number);
        tracing::error!(job = %self.plan.job, topic = %stream.topic, partition = number, "{why}");
        self.reader.stop(why);
        self.reader.asks = Some((Question::Rejects, self.now));
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
            stop_diverged(self.reader, &gaps, &self.plan.job, (self.now, self.noted_at));
        }
    }

    /// Whether the entries of the item at the head are written down; begins it where that is not under
    /// way. `before` its batch is written; the other way round only when the model test has taken the
    /// rule out.
    fn is_recorded(&mut self, before: bool) -> bool {
        let number = self.reader.partition.number;
        let Some(item) = self.reader.waiting.front_mut() else { return true };
        let under_way = item.recording.map(|recording| recording.ledger);
        let rule = match under_way.or(item.entries.first().map(|entry| entry.ledger)) {
            None => return true,
            Some(Ledger::DeadLetters) => Rule::DeadLetterBeforeMark,
            Some(Ledger::Gaps) => Rule::GapBeforeMark,
        };
        if self.plan.rules.hold(rule) != before {
            return true;
        }
        if item.recording.is_none() {
            item.recording = self.recorder.begin(number, &mut item.entries, self.now);
        }
        false
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
                Ok(Accepted::Taken) => {
                    let newest = batch.appended.map(|(_, newest)| newest);
                    sink.took(batch.range.end, rows, newest);
                }
                Ok(Accepted::Busy(_)) => self.reader.is_busy = true,
                Err(error) if error.passes() => {
                    return Ok(Wrote::Failed(format!("{}: {error}", place.name)));
                }
                Err(error) => return Err((place.name, error)),
            }
        }
        Ok(if self.reader.is_busy { Wrote::NoRoom } else { Wrote::All })
    }
}

/// One of the rejected records, in words.
fn example(entries: &[Entry]) -> String {
    let text = |entry: &Entry, wanted: &str| {
        let header = entry.headers.iter().find(|(name, _)| *name == wanted);
        header.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    };
    let Some(first) = entries.first() else { return "none at hand".to_owned() };
    let [offset, reason, field, detail] =
        ["offset", "reason", "field", "detail"].map(|name| text(first, name));
    let field = if field.is_empty() { field } else { format!(" {field}") };
    format!("such as offset {offset}: {reason}{field}, {detail}")
}
