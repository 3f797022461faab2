//! The loop of a job: takes the source's events in order, keeps the time, calls the sinks.
//!
//! One task runs it, so nothing here needs a lock. It owns the clock: sinks are told the time.
//! The parts: `assign` (from given to read), `advance` (from read to written), `durable` (from written to
//! committed), `troubles` (what fails and is tried again), `stop` (the end).
//!
//! **Invariant:** a mark passes an offset only after the record there is durable as a row, acknowledged as
//! a dead letter, acknowledged as a gap, or known to be no event (tombstone, marker).
//! **Invariant:** an await here waits for a sink, never for the journal nor for another partition's turn;
//! the source polls on its own thread meanwhile.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::log::{Stream, Timestamp};
use aion_sinks::{budget::Budget, sink::Sink};
use arrow::datatypes::SchemaRef;
use futures::{FutureExt, future::BoxFuture};

use super::{
    JobError,
    advance::AdvanceOne,
    backoff::Backoff,
    departed::Departed,
    gate::Gate,
    journal::Journal,
    reader::{OnceDrained, Phase, Reader, Told},
    recorder::{Outcome, Recorder},
    rules::{Rule, Rules},
    source::{Command, Event, Lookup, Source},
    status::{JobState, JobStatus, Reporter, StatusReader},
    troubles::SinkTrouble,
    waits::Waits,
};

/// Tells the time; the model test has one of its own.
pub(super) trait Clock: Send {
    /// The time that intervals are measured by.
    fn now(&self) -> Instant;
    /// The time of day.
    fn wall(&self) -> Timestamp;
    /// Ends when it is that time.
    fn until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(at.into()))
    }
}

/// What a job is told about itself.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) job: Arc<str>,
    pub(super) topic: Arc<str>,
    /// The columns of a batch.
    pub(super) columns: SchemaRef,
    /// Whether compaction may take records of the topic.
    pub(super) compacted: bool,
    pub(super) max_reject_share: f64,
    /// How long a flush may hold up a rebalance.
    pub(super) revoke_flush: Duration,
    /// How long a row may wait for what others have to store first, while nothing of that comes.
    pub(super) wait_at_most: Duration,
    pub(super) rules: Rules,
}

/// How often the job does what time brings: due flushes, commits, tries of what failed.
const TICK: Duration = Duration::from_millis(50);

/// The longest pause between two tries of a sink: partitions with nothing wrong wait for it, too.
const SINK_AGAIN: Duration = Duration::from_secs(1);
/// How long leaving the group may take after a failure.
const LEAVE: Duration = Duration::from_secs(5);
/// How many names of unknown fields are told apart.
const MAX_UNKNOWN: usize = 64;

/// A sink of the job.
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) sink: Box<dyn Sink>,
    pub(super) backoff: Backoff,
    /// When the log told last that it fails.
    pub(super) told: Option<Instant>,
    pub(super) trouble: Option<SinkTrouble>,
    /// Its rows that wait for what others have to store first.
    pub(super) waits: Waits,
}

/// A running job.
pub(super) struct Job<S, J> {
    pub(super) plan: Plan,
    pub(super) source: S,
    pub(super) recorder: Recorder<J>,
    pub(super) clock: Box<dyn Clock>,
    pub(super) budget: Budget,
    pub(super) places: Vec<Place>,
    pub(super) gate: Gate,
    pub(super) stream: Option<Stream>,
    pub(super) readers: BTreeMap<i32, Reader>,
    pub(super) departed: Departed,
    pub(super) last_run: u64,
    pub(super) counters: Counters,
    pub(super) unknown_fields: Arc<BTreeMap<String, u64>>,
    /// After a report to Kafka failed: when to make the next one.
    pub(super) commit_at: Option<Instant>,
    /// Once a stop is asked for: when it must be over.
    pub(super) stop_by: Option<Instant>,
    pub(super) trouble: Option<(Instant, String)>,
    reporter: Reporter,
}

/// What a job has counted since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) rows_stored: u64,
    pub(super) rejected: u64,
    pub(super) gaps: u64,
    pub(super) rebalances: u64,
}

/// What a loop waits for.
pub(super) enum News {
    Event(Event),
    Recorded(Outcome),
    Time,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    GoOn,
    End,
}

impl<S: Source, J: Journal> Job<S, J> {
    /// A job that will read from `source`, and the reading end of its status.
    pub(super) fn new(
        plan: Plan,
        source: S,
        journal: J,
        sinks: Vec<Box<dyn Sink>>,
        (clock, budget): (Box<dyn Clock>, Budget),
    ) -> (Job<S, J>, StatusReader) {
        let first = JobStatus::starting(Arc::clone(&plan.job), Arc::clone(&plan.topic));
        let (reporter, reading) = Reporter::new(first);
        let place = |sink: Box<dyn Sink>| Place {
            name: sink.name(),
            sink,
            backoff: Backoff::up_to(SINK_AGAIN),
            told: None,
            trouble: None,
            waits: Waits::default(),
        };
        let job = Job {
            plan,
            source,
            recorder: Recorder::new(journal),
            clock,
            budget,
            places: sinks.into_iter().map(place).collect(),
            gate: Gate::default(),
            stream: None,
            readers: BTreeMap::new(),
            departed: Departed::default(),
            last_run: 0,
            counters: Counters::default(),
            unknown_fields: Arc::default(),
            commit_at: None,
            stop_by: None,
            trouble: None,
            reporter,
        };
        (job, reading)
    }

    /// Runs until the source says stop, or something failed for good. Leaves the group either way.
    pub(super) async fn run(mut self) -> Result<(), JobError> {
        // A fault of the program in one job shall neither go unseen nor take the others along.
        let driven = AssertUnwindSafe(self.drive()).catch_unwind().await;
        let (is_sound, outcome) = match driven {
            Ok(outcome) => (true, outcome),
            Err(panic) => (false, Err(self.broke(&*panic))),
        };
        let state = match &outcome {
            Ok(()) => JobState::Ended,
            Err(error) => {
                tracing::error!(job = %self.plan.job, "the job stops: {error}");
                match error {
                    JobError::Unwritten { .. } => JobState::Ended,
                    _ => JobState::Failed(error.to_string()),
                }
            }
        };
        // After a failure nothing more is flushed: the next owner starts from the stores' marks.
        let status = JobStatus { state, ..self.status() };
        self.reporter.publish(status);
        if is_sound {
            let all: Vec<i32> = self.readers.keys().copied().collect();
            self.forget(&all);
        }
        let until = self.stop_by.unwrap_or_else(|| self.clock.now() + LEAVE);
        self.source.leave(until).await;
        outcome
    }

    async fn drive(&mut self) -> Result<(), JobError> {
        let mut next_tick = self.clock.now();
        loop {
            let news = self.news(next_tick).await;
            let now = self.clock.now();
            match news {
                News::Event(event) => {
                    if self.obey(event, now).await? == Flow::End {
                        return Ok(());
                    }
                }
                News::Time => {}
                News::Recorded(outcome) => self.recorded(outcome, now).await?,
            }
            if now >= next_tick {
                self.tick(now).await?;
                next_tick = now + TICK;
            }
        }
    }

    /// What comes first: an event, the end of something being written down, or the time.
    pub(super) async fn news(&mut self, until: Instant) -> News {
        tokio::select! {
            biased;
            outcome = self.recorder.next() => News::Recorded(outcome),
            event = self.source.next(until) => event.map_or(News::Time, News::Event),
        }
    }

    async fn obey(&mut self, event: Event, now: Instant) -> Result<Flow, JobError> {
        match event {
            Event::Assigned { stream, partitions } => self.given(stream, &partitions, now).await?,
            Event::Revoked(partitions) => self.hand_over(&partitions, now).await?,
            Event::Lost(partitions) => self.lost(partitions, now).await?,
            Event::Located(located) => self.located(located, now).await?,
            Event::Chunk(chunk) => self.read(chunk, now).await?,
            Event::Looked(lookup) => self.looked(lookup, now).await?,
            Event::OutOfRange { partition, run } => {
                if let Some(reader) = self.reading(partition, run) {
                    reader.once_drained = Some(OnceDrained::StartOver);
                }
                self.go_on_drained(now).await;
            }
            Event::Truncated { partition, run, agreed } => {
                if let Some(reader) = self.reading(partition, run) {
                    reader.cut(agreed);
                    self.source.command(Command::Look).await;
                }
            }
            Event::Decided { partition, decision } => {
                self.decided(&partition, &decision, now).await;
            }
            Event::WaitsForSchema { partition, run, id } => {
                if let Some(reader) = self.reading(partition, run) {
                    reader.wanted_schema = id;
                }
            }
            Event::Trouble(cause) => self.note_trouble(cause),
            Event::Failed { cause, hint } => return Err(self.source_failed(cause, hint)),
            Event::CommitFailed(partitions) => self.commit_failed(&partitions, now),
            Event::Stop { deadline } => {
                self.stop_by = Some(deadline);
                self.stop(now, deadline).await?;
                return Ok(Flow::End);
            }
        }
        Ok(Flow::GoOn)
    }

    /// What time brings.
    async fn tick(&mut self, now: Instant) -> Result<(), JobError> {
        self.forget_troubles(now);
        self.assign_due(now).await?;
        self.locate_again(now).await;
        self.flush_due(now).await?;
        self.advance_all(now).await?;
        self.go_on_drained(now).await;
        self.tell_departed(now).await?;
        self.note_slow_recordings(now);
        self.consult(now).await;
        self.commit_due(now).await;
        let status = self.status();
        self.reporter.publish(status);
        Ok(())
    }

    /// Notes what a look-up of the topic's id found, and lets batches pass that waited for it.
    async fn looked(&mut self, lookup: Lookup, now: Instant) -> Result<(), JobError> {
        if self.stream.is_none() {
            return Ok(());
        }
        self.note_lookup(lookup, now).await;
        let id = self.stream.as_ref().map(|stream| stream.id);
        if lookup.topic_id == id && !self.gate.is_in_doubt() {
            self.count_partitions(lookup.partitions).await;
            self.restart_cut(now).await;
        }
        self.advance_all(now).await
    }

    /// Tells the gate, and takes the topic for another where look-ups agree on that.
    pub(super) async fn note_lookup(&mut self, lookup: Lookup, now: Instant) {
        let Some(id) = self.stream.as_ref().map(|stream| stream.id) else { return };
        let at_once = !self.plan.rules.hold(Rule::SettledBeforeSwitch);
        if let Some(new_id) = self.gate.note(lookup, id, now, at_once) {
            self.recreated(new_id, now).await;
        } else if lookup.topic_id == Some(id) && !self.gate.is_in_doubt() {
            self.departed.topic_found(now);
        }
    }

    pub(super) async fn advance_all(&mut self, now: Instant) -> Result<(), JobError> {
        let waiting = |reader: &&Reader| !reader.waiting.is_empty() || reader.told == Told::Paused;
        let numbers: Vec<i32> =
            self.readers.values().filter(waiting).map(|reader| reader.partition.number).collect();
        for number in numbers {
            self.advance(number, now).await?;
        }
        Ok(())
    }

    /// Moves what waits of a partition as far as it will go.
    pub(super) async fn advance(&mut self, number: i32, now: Instant) -> Result<(), JobError> {
        let Some(reader) = self.readers.get_mut(&number) else { return Ok(()) };
        let mut one = AdvanceOne {
            plan: &self.plan,
            gate: &self.gate,
            recorder: &mut self.recorder,
            places: &mut self.places,
            reader,
            now,
            noted_at: self.clock.wall(),
        };
        let stuck = one.advance().await.map_err(|(sink, error)| self.sink_failed(sink, error))?;
        self.follow_up(number, stuck, now).await;
        Ok(())
    }

    /// The reader of a partition, if that run of it is the present one and is being read.
    pub(super) fn reading(&mut self, partition: i32, run: u64) -> Option<&mut Reader> {
        let reader = self.readers.get_mut(&partition)?;
        (reader.run == run && reader.phase == Phase::Reading).then_some(reader)
    }

    /// Counts fields that the contract doesn't have.
    pub(super) fn count_unknown(&mut self, fields: Vec<(String, u64)>) {
        if fields.is_empty() {
            return;
        }
        let counts = Arc::make_mut(&mut self.unknown_fields);
        for (name, count) in fields {
            let known = counts.contains_key(&name) || counts.len() < MAX_UNKNOWN;
            *counts.entry(if known { name } else { "other".to_owned() }).or_default() += count;
        }
    }

    fn source_failed(&self, cause: String, hint: String) -> JobError {
        JobError::Source { job: Arc::clone(&self.plan.job), cause, hint }
    }

    fn broke(&self, panic: &(dyn Any + Send)) -> JobError {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let cause = text.unwrap_or_else(|| "no word of it".to_owned());
        JobError::Broke { job: Arc::clone(&self.plan.job), cause }
    }

    /// The job at this moment.
    fn status(&self) -> JobStatus {
        let names: Vec<&'static str> = self.places.iter().map(|place| place.name).collect();
        let state = if self.readers.is_empty() { JobState::Starting } else { JobState::Running };
        JobStatus {
            job: Arc::clone(&self.plan.job),
            topic: Arc::clone(&self.plan.topic),
            stream: self.stream.clone(),
            state,
            partitions: self.readers.values().map(|reader| reader.status(&names)).collect(),
            buffered_bytes: self.readers.values().map(Reader::bytes).sum(),
            rows_stored: self.counters.rows_stored,
            rejected: self.counters.rejected,
            unknown_fields: Arc::clone(&self.unknown_fields),
            gaps: self.counters.gaps,
            rebalances: self.counters.rebalances,
            last_poll: self.source.last_poll(),
            trouble: self.trouble().cloned(),
        }
    }
}
