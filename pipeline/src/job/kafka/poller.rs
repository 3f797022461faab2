//! The reader thread: owns the consumer, obeys the job, and polls whatever happens.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem::{Discriminant, discriminant},
    sync::Arc,
    time::{Duration, Instant},
};

use aion_kafka::{Connection, Consumer, Error, Event as Happened, Purpose, TopicPartition, Wait};
use aion_schemas::log::{Mark, Offset, Partition, Stream};
use aion_sinks::budget::Budget;
use tokio::sync::mpsc::{Receiver, Sender, error::TrySendError};
use uuid::Uuid;

use super::{
    Pulse,
    cutter::Cutter,
    lookups::{Answer, Lookups, Question},
    rows::MakeRows,
};
use crate::job::source::{Command, Event, Located, Lookup};

/// The longest a command waits for the thread's attention.
const POLL: Duration = Duration::from_millis(20);
/// How often the topic's id is looked up when nothing waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// And at most, when batches wait.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(20);
/// When a question that failed is put again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Events that wait for room before fetching stops.
const MAX_OUTBOX: usize = 4;
/// The same trouble is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// And trouble of another kind after this.
const TELL_OTHER: Duration = Duration::from_secs(1);
/// How long a commit may hold the thread up when partitions are leaving.
const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// How long leaving the group may take.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// The state of the reader thread.
pub(super) struct Poller {
    topic: Arc<str>,
    connection: Connection,
    consumer: Consumer,
    lookups: Lookups,
    make_rows: MakeRows,
    budget: Budget,
    pulse: Pulse,
    cutters: BTreeMap<i32, Cutter>,
    /// Given by the group, and not told to the job before the topic's id is known.
    unnamed: BTreeSet<i32>,
    outbox: VecDeque<Event>,
    /// Number of the last poll that brought records.
    polled: u64,
    is_holding: bool,
    look: Look,
    again: Vec<(Instant, Question)>,
    told: Option<(Instant, Discriminant<Error>)>,
}

/// When the topic's id was asked for.
#[derive(Default)]
struct Look {
    is_wanted: bool,
    is_out: bool,
    last: Option<Instant>,
}

impl Poller {
    /// A reader of the topic, which goes by this name.
    pub(super) fn new(
        (connection, consumer): (Connection, Consumer),
        lookups: Lookups,
        make_rows: MakeRows,
        budget: Budget,
        (topic, pulse): (Arc<str>, Pulse),
    ) -> Poller {
        Poller {
            topic,
            connection,
            consumer,
            lookups,
            make_rows,
            budget,
            pulse,
            cutters: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            outbox: VecDeque::new(),
            polled: 0,
            is_holding: false,
            look: Look::default(),
            again: Vec::new(),
            told: None,
        }
    }

    /// Runs until the job leaves, or is gone.
    pub(super) fn run(mut self, events: &Sender<Event>, mut commands: Receiver<Command>) {
        loop {
            self.pulse.beat();
            while let Ok(command) = commands.try_recv() {
                if matches!(command, Command::Leave) {
                    return self.consumer.close(LEAVE_WAIT);
                }
                self.obey(command);
            }
            if commands.is_closed() {
                return self.consumer.close(LEAVE_WAIT);
            }
            self.take_answers();
            self.ask_what_is_due(Instant::now());
            if let Some(happened) = self.consumer.poll(POLL) {
                self.note(happened);
            }
            self.hold_if_full();
            if !self.is_holding {
                self.fetch();
            }
            self.cut_what_is_due();
            if !self.deliver(events) {
                return self.consumer.close(LEAVE_WAIT);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let outcome = match command {
            Command::Locate { partition, run } => {
                self.ask(Question::Bounds { partition, run });
                Ok(())
            }
            Command::Start { partition, run, at } => self.start(partition, run, at),
            Command::Halt(number) => self.halt(number),
            Command::Pause(number) | Command::Resume(number) => {
                self.pause(number, matches!(command, Command::Pause(_)));
                Ok(())
            }
            Command::Look => {
                self.look.is_wanted = true;
                Ok(())
            }
            Command::Commit { marks, wait } => self.commit(marks, wait),
            Command::Release(numbers) => {
                let partitions: Vec<_> = numbers.iter().map(|at| self.name(*at)).collect();
                for number in numbers {
                    self.cutters.remove(&number);
                }
                self.consumer.release(&partitions)
            }
            Command::Leave => Ok(()),
        };
        match outcome {
            Ok(()) => {}
            // Its partitions are somebody else's by now; the group says so in an event of its own.
            Err(error @ Error::NotMember { .. }) => tracing::debug!(%error),
            Err(error) => self.trouble(&error),
        }
    }

    fn start(&mut self, partition: Partition, run: u64, at: Mark) -> Result<(), Error> {
        let name = self.name(partition.number);
        match self.consumer.position(&name) {
            Some(_) => self.consumer.seek(&name, at.offset, at.epoch)?,
            None => self.consumer.start(&name, at.offset, at.epoch)?,
        }
        if self.is_holding {
            self.consumer.pause(&name);
        } else {
            self.consumer.resume(&name);
        }
        let number = partition.number;
        self.cutters.insert(number, Cutter::new(partition, run, at, (self.make_rows)()));
        Ok(())
    }

    /// Stops reading a partition that stays owned. One that was never started gets its answer by this.
    fn halt(&mut self, number: i32) -> Result<(), Error> {
        self.cutters.remove(&number);
        let name = self.name(number);
        if self.consumer.position(&name).is_some() {
            self.consumer.pause(&name);
            return Ok(());
        }
        self.consumer.release(&[name])
    }

    fn pause(&mut self, number: i32, pause: bool) {
        let name = self.name(number);
        let Some(cutter) = self.cutters.get_mut(&number) else { return };
        cutter.is_paused = pause;
        if pause || self.is_holding {
            self.consumer.pause(&name);
        } else {
            self.consumer.resume(&name);
        }
    }

    fn commit(&self, marks: Vec<(i32, Offset, String)>, wait: bool) -> Result<(), Error> {
        let named = |(number, offset, text)| (self.name(number), offset, text);
        let marks: Vec<_> = marks.into_iter().map(named).collect();
        let wait = if wait { Wait::UpTo(COMMIT_WAIT) } else { Wait::Async };
        self.consumer.commit(&marks, wait)
    }

    fn note(&mut self, happened: Happened) {
        match happened {
            Happened::Assigned(given) => {
                self.unnamed.extend(given.iter().map(|one| one.partition));
                self.look.is_wanted = true;
            }
            Happened::Revoked(gone) => {
                let known = self.taken(&gone);
                self.outbox.extend((!known.is_empty()).then_some(Event::Revoked(known)));
            }
            Happened::Lost(gone) => {
                let known = self.taken(&gone);
                self.outbox.extend((!known.is_empty()).then_some(Event::Lost(known)));
            }
            Happened::OutOfRange { partition, .. } => {
                if let Some(mut cutter) = self.cutters.remove(&partition.partition) {
                    // What was read before may be gone from the log: it goes to the job first.
                    self.outbox.extend(cutter.cut(&self.budget).map(Event::Chunk));
                    let (partition, run) = (partition.partition, cutter.run);
                    self.outbox.push_back(Event::OutOfRange { partition, run });
                }
            }
            Happened::Truncated { partition, wanted, end, detail } => {
                tracing::warn!(%partition, %wanted, detail, "the log was cut");
                if let Some(cutter) = self.cutters.remove(&partition.partition) {
                    // Where the broker doesn't say how far both agree, they differ in the last record at least.
                    let agreed = end.unwrap_or(Offset(wanted.get().saturating_sub(1).max(0)));
                    let (partition, run) = (partition.partition, cutter.run);
                    self.outbox.push_back(Event::Truncated { partition, run, agreed });
                }
            }
            Happened::Failed(error) if error.is_fatal() => self.outbox.push_back(Event::Failed {
                cause: error.to_string(),
                hint: "this client can't go on; restart the process".to_owned(),
            }),
            Happened::CommitFailed { error: error @ Error::NotMember { .. }, .. } => {
                tracing::debug!(%error);
            }
            Happened::Failed(error) | Happened::CommitFailed { error, .. } => self.trouble(&error),
        }
    }

    /// The group takes partitions; answers those that the job knows of. The others are given back here.
    fn taken(&mut self, gone: &[TopicPartition]) -> Vec<i32> {
        let (unknown, known): (Vec<_>, Vec<_>) =
            gone.iter().cloned().partition(|one| self.unnamed.remove(&one.partition));
        for one in &known {
            self.cutters.remove(&one.partition);
        }
        if !unknown.is_empty()
            && let Err(error) = self.consumer.release(&unknown)
        {
            self.trouble(&error);
        }
        known.into_iter().map(|one| one.partition).collect()
    }

    fn take_answers(&mut self) {
        while let Some(answer) = self.lookups.answer() {
            match answer {
                Answer::Identity { after_poll, topic_id } => {
                    self.look.is_out = false;
                    self.name_given(topic_id);
                    self.outbox.push_back(Event::Looked(Lookup { after_poll, topic_id }));
                }
                Answer::Bounds { partition, run, topic_id, bounds } => {
                    let located = Located { partition, run, topic_id, bounds };
                    self.outbox.push_back(Event::Located(located));
                }
                Answer::Failed(question, error) => {
                    self.trouble(&error);
                    match question {
                        Question::Identity { .. } => self.look.is_out = false,
                        bounds @ Question::Bounds { .. } => {
                            self.again.push((Instant::now() + ASK_AGAIN, bounds));
                        }
                    }
                }
            }
        }
    }

    /// Tells the job of partitions that waited for the topic's id.
    fn name_given(&mut self, topic_id: Option<Uuid>) {
        if self.unnamed.is_empty() {
            return;
        }
        let Some(id) = topic_id else { return };
        let partitions = std::mem::take(&mut self.unnamed).into_iter().collect();
        let stream = Stream { topic: Arc::clone(&self.topic), id };
        self.outbox.push_back(Event::Assigned { stream, partitions });
    }

    fn ask_what_is_due(&mut self, now: Instant) {
        let since = self.look.last.map(|last| now.saturating_duration_since(last));
        let wanted = self.look.is_wanted || !self.unnamed.is_empty();
        let every = if wanted { LOOK_AT_MOST_EVERY } else { LOOK_EVERY };
        if !self.look.is_out && since.is_none_or(|since| since >= every) {
            self.look.is_wanted = false;
            self.look.last = Some(now);
            self.look.is_out = self.lookups.ask(Question::Identity { after_poll: self.polled });
        }
        let due = |(at, _): &mut (Instant, Question)| *at <= now;
        let again: Vec<_> = self.again.extract_if(.., due).collect();
        for (_, question) in again {
            self.ask(question);
        }
    }

    fn ask(&mut self, question: Question) {
        if !self.lookups.ask(question.clone()) {
            self.again.push((Instant::now() + ASK_AGAIN, question));
        }
    }

    /// Stops fetching while there is no room for more, and lets `poll` sleep meanwhile.
    fn hold_if_full(&mut self) {
        let hold = self.budget.is_spent() || self.outbox.len() >= MAX_OUTBOX;
        if hold == self.is_holding {
            return;
        }
        self.is_holding = hold;
        let running = self.cutters.iter().filter(|(_, cutter)| !cutter.is_paused);
        let names: Vec<_> = running.map(|(number, _)| self.name(*number)).collect();
        for name in names {
            if hold {
                self.consumer.pause(&name);
            } else {
                self.consumer.resume(&name);
            }
        }
    }

    fn fetch(&mut self) {
        for (number, cutter) in &mut self.cutters {
            if cutter.is_paused || cutter.room() == 0 {
                continue;
            }
            let name = TopicPartition { topic: Arc::clone(&self.topic), partition: *number };
            let room = cutter.room();
            let fetched = self.consumer.fetch(&name, room, |record| cutter.take(&record));
            self.polled += 1;
            cutter.fetched(fetched, self.polled, Instant::now());
        }
    }

    fn cut_what_is_due(&mut self) {
        let now = Instant::now();
        for cutter in self.cutters.values_mut().filter(|cutter| cutter.is_due(now)) {
            self.outbox.extend(cutter.cut(&self.budget).map(Event::Chunk));
        }
    }

    /// Hands events over as far as there is room; `false` when the job is gone.
    fn deliver(&mut self, events: &Sender<Event>) -> bool {
        while let Some(event) = self.outbox.pop_front() {
            match events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        true
    }

    /// Tells the job of a failure that is tried again, not more often than people can read. Of a burst
    /// the first says most: "all brokers are down" follows every reason.
    fn trouble(&mut self, error: &Error) {
        let (now, kind) = (Instant::now(), discriminant(error));
        if let Some((at, last)) = self.told {
            let wait = if last == kind { TELL_AGAIN } else { TELL_OTHER };
            if now.saturating_duration_since(at) < wait {
                return;
            }
        }
        self.told = Some((now, kind));
        let text = self.connection.explain(error, Purpose::Consume);
        self.outbox.push_back(Event::Trouble(text));
    }

    fn name(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition }
    }
}
