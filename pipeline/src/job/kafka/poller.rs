//! The reader thread: owns the consumer, obeys the job, and polls whatever happens. What it does when told
//! stands in `commands`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem::{Discriminant, discriminant},
    sync::Arc,
    time::{Duration, Instant},
};

use aion_kafka::{Connection, Consumer, Error, Event as Happened, Purpose, TopicPartition};
use aion_schemas::log::{Offset, Partition, Stream};
use aion_sinks::{budget::Budget, fault};
use tokio::sync::mpsc::{
    Receiver, Sender,
    error::{TryRecvError, TrySendError},
};
use uuid::Uuid;

use super::{
    Pulse,
    cutter::Cutter,
    locating::Locating,
    lookups::{Answer, Bounds, Identity, Lookups},
    rows::MakeRows,
    schemas::Schemas,
};
use crate::job::source::{Command, Event, Located, Lookup};

/// The longest a command waits for the thread's attention.
const POLL: Duration = Duration::from_millis(20);
/// How often the topic's id is looked up when nothing waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// And at most, when batches wait.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(20);
/// Events that wait for room before fetching stops.
const MAX_OUTBOX: usize = 4;
/// The same trouble is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// And trouble of another kind after this.
const TELL_OTHER: Duration = Duration::from_secs(1);
/// How long leaving the group may take.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// The state of the reader thread.
pub(super) struct Poller {
    topic: Arc<str>,
    connection: Connection,
    pub(super) consumer: Consumer,
    pub(super) lookups: Lookups,
    pub(super) make_rows: MakeRows,
    /// What is known of writers' schemas; `None` without a registry.
    pub(super) schemas: Option<Schemas>,
    budget: Budget,
    pulse: Pulse,
    pub(super) cutters: BTreeMap<i32, Cutter>,
    /// Records whose rows a sink refuses, and what it says of them.
    pub(super) refused: BTreeMap<Partition, BTreeMap<Offset, String>>,
    /// Given by the group, and not told to the job before the topic's id is known.
    unnamed: BTreeSet<i32>,
    pub(super) outbox: VecDeque<Event>,
    /// Number of the last poll that brought records.
    polled: u64,
    pub(super) is_holding: bool,
    pub(super) look: Look,
    pub(super) locating: Locating,
    told: Option<(Instant, Discriminant<Error>)>,
    pub(super) told_of_schemas: Option<Instant>,
}

/// When the topic's id was asked for.
#[derive(Default)]
pub(super) struct Look {
    pub(super) is_wanted: bool,
    is_out: bool,
    last: Option<Instant>,
}

impl Poller {
    /// A reader of the topic, which goes by this name.
    pub(super) fn new(
        (connection, consumer): (Connection, Consumer),
        lookups: Lookups,
        (make_rows, schemas): (MakeRows, Option<Schemas>),
        budget: Budget,
        (topic, pulse): (Arc<str>, Pulse),
    ) -> Poller {
        Poller {
            topic,
            connection,
            consumer,
            lookups,
            make_rows,
            schemas,
            budget,
            pulse,
            cutters: BTreeMap::new(),
            refused: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            outbox: VecDeque::new(),
            polled: 0,
            is_holding: false,
            look: Look::default(),
            locating: Locating::default(),
            told: None,
            told_of_schemas: None,
        }
    }

    /// Runs until the job gives no more commands, all of which are obeyed first; then leaves the group.
    pub(super) fn run(mut self, events: &Sender<Event>, mut commands: Receiver<Command>) {
        loop {
            self.pulse.beat();
            loop {
                match commands.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return self.consumer.close(LEAVE_WAIT),
                }
            }
            self.take_answers();
            self.ask_what_is_due(Instant::now());
            if let Some(happened) = self.consumer.poll(POLL) {
                self.note(happened);
            }
            self.tend_schemas(Instant::now());
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

    fn note(&mut self, happened: Happened) {
        match happened {
            Happened::Assigned(given) => {
                fault::point("job.assigned");
                self.unnamed.extend(given.iter().map(|one| one.partition));
                self.look.is_wanted = true;
            }
            Happened::Revoked(gone) => {
                fault::point("job.revoked");
                let known = self.taken(&gone);
                self.outbox.extend((!known.is_empty()).then_some(Event::Revoked(known)));
            }
            Happened::Lost(gone) => {
                fault::point("job.lost");
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
                tracing::warn!(
                    topic = %partition.topic,
                    partition = partition.partition,
                    offset = wanted.get(),
                    detail,
                    "the log was cut"
                );
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
            Happened::CommitFailed { partitions, error } => {
                let numbers = partitions.iter().map(|one| one.partition).collect();
                self.commit_failed(numbers, &error);
            }
            Happened::Failed(error) => self.trouble(&error),
        }
    }

    /// The group takes partitions; answers those that the job knows of. The others are given back here.
    fn taken(&mut self, gone: &[TopicPartition]) -> Vec<i32> {
        let (unknown, known): (Vec<_>, Vec<_>) =
            gone.iter().cloned().partition(|one| self.unnamed.remove(&one.partition));
        for one in &known {
            self.forget(one.partition);
        }
        if !unknown.is_empty()
            && let Err(error) = self.consumer.release(&unknown)
        {
            self.trouble(&error);
        }
        known.into_iter().map(|one| one.partition).collect()
    }

    /// A commit failed: the job reports the marks again, if the partitions are still its own.
    pub(super) fn commit_failed(&mut self, numbers: Vec<i32>, error: &Error) {
        self.outbox.push_back(Event::CommitFailed(numbers));
        match error {
            Error::NotMember { .. } => tracing::debug!(%error),
            error => self.trouble(error),
        }
    }

    fn take_answers(&mut self) {
        while let Some(answer) = self.lookups.answer() {
            match answer {
                Answer::Identity { after_poll, found } => {
                    self.look.is_out = false;
                    match found {
                        Ok(Identity { topic_id, partitions }) => {
                            self.name_given(topic_id);
                            let lookup = Lookup { after_poll, topic_id, partitions };
                            self.outbox.push_back(Event::Looked(lookup));
                        }
                        Err(error) => self.trouble(&error),
                    }
                }
                Answer::Bounds { partition, run, found: Ok(found) } => {
                    if self.locating.answered(partition, run) {
                        let Bounds { topic_id, offsets: bounds } = found;
                        let located = Located { partition, run, topic_id, bounds };
                        self.outbox.push_back(Event::Located(located));
                    }
                }
                Answer::Decision { partition, found: Ok(decision) } => {
                    let decided = decision.map(|decision| Event::Decided { partition, decision });
                    self.outbox.extend(decided);
                }
                Answer::Decision { found: Err(error), .. } => self.trouble(&error),
                Answer::Bounds { partition, found: Err(error), .. } => {
                    self.locating.failed(partition, Instant::now());
                    self.trouble(&error);
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
            self.look.is_out = self.lookups.ask_identity(self.polled);
        }
        if let Some((partition, run)) = self.locating.next(now)
            && !self.lookups.ask_bounds(partition, run)
        {
            self.locating.failed(partition, now);
        }
    }

    /// Stops fetching while there is no room for more, and lets `poll` sleep meanwhile.
    fn hold_if_full(&mut self) {
        let hold = self.budget.is_spent() || self.outbox.len() >= MAX_OUTBOX;
        if hold == self.is_holding {
            return;
        }
        self.is_holding = hold;
        let running = self.cutters.iter().filter(|(_, cutter)| cutter.is_open());
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
        let mut failed = Vec::new();
        for (number, cutter) in &mut self.cutters {
            if !cutter.is_open() || cutter.room() == 0 {
                continue;
            }
            let name = TopicPartition { topic: Arc::clone(&self.topic), partition: *number };
            let room = cutter.room();
            let fetched = self.consumer.fetch(&name, room, |record| cutter.take(&record));
            self.polled += 1;
            cutter.fetched(fetched, self.polled, Instant::now());
            if let Some(at) = cutter.take_left() {
                // What is full is cut at this turn.
                failed.extend(self.consumer.seek(&name, at.offset, at.epoch).err());
            }
            if cutter.wanted.is_some() {
                // It stands until the schema is known, and what it has fetched beyond is fetched again.
                self.consumer.pause(&name);
            }
        }
        for error in failed {
            self.trouble(&error);
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
    pub(super) fn trouble(&mut self, error: &Error) {
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

    pub(super) fn name(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition }
    }
}
