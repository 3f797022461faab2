//! The job's loop against a source that answers at once, for what needs no schedule.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use aion_schemas::log::{Marks, Offset, Partition, Stream, Timestamp};
use aion_sinks::{
    batch::Batch,
    budget::{Budget, Reservation},
    memory::{Fault, MemorySink, Settings, Store},
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};
use arrow::{
    array::Int64Array,
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::{sync::Notify, task::JoinHandle};
use uuid::Uuid;

use super::{
    JobError, SystemClock,
    appeal::Decision,
    event_loop::{Clock, Job, Plan},
    journal::{Entry, Journal, NotAcknowledged, Recorded},
    rules::{Rule, Rules},
    source::{Chunk, Command, Event, Located, Lookup, Rejected, Source},
    status::{JobState, PartitionState, StatusReader},
};

mod departed;
mod refusals;
mod room;

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than any test takes.
const LONG: Duration = Duration::from_hours(1);
const TOPIC_ID: Uuid = Uuid::from_u128(7);

/// What the test tells the job, and what the job said.
#[derive(Clone, Default)]
struct Script {
    events: Arc<Mutex<VecDeque<Event>>>,
    said: Arc<Mutex<Vec<Command>>>,
    news: Arc<Notify>,
    /// Where the logs begin, if not at 0.
    begin: Arc<Mutex<i64>>,
    /// Where the logs end, if not at 100.
    end: Arc<Mutex<Option<i64>>>,
    /// The topic that is found, if not the first one.
    found: Arc<Mutex<Option<Uuid>>>,
    /// By so many seconds the job's clock is ahead.
    ahead: Arc<AtomicU64>,
}

impl Script {
    fn tell(&self, event: Event) {
        self.events.lock().unwrap().push_back(event);
        self.news.notify_one();
    }

    fn stop(&self, within: Duration) {
        self.tell(Event::Stop { deadline: Instant::now() + self.ahead() + within });
    }

    fn ahead(&self) -> Duration {
        Duration::from_secs(self.ahead.load(SeqCst))
    }

    /// Gives the partitions to the job, and `rows` records of each.
    fn give(&self, partitions: &[i32], rows: i64) {
        self.tell(Event::Assigned { stream: stream(), partitions: partitions.to_vec() });
        for (number, run) in partitions.iter().zip(1..) {
            self.tell(Event::Chunk(chunk(*number, run, 0..rows)));
        }
    }

    fn commits(&self) -> Vec<(i32, Offset)> {
        let said = self.said.lock().unwrap();
        let commits = said.iter().filter_map(|command| match command {
            Command::Commit { marks, .. } => Some(marks.clone()),
            _ => None,
        });
        commits.flatten().map(|(number, offset, _)| (number, offset)).collect()
    }
}

#[async_trait]
impl Source for Script {
    async fn next(&mut self, until: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.lock().unwrap().pop_front() {
                return Some(event);
            }
            let until = until.checked_sub(self.ahead()).unwrap();
            if tokio::time::timeout_at(until.into(), self.news.notified()).await.is_err() {
                return None;
            }
        }
    }

    async fn command(&mut self, command: Command) {
        let topic_id = Some(self.found.lock().unwrap().unwrap_or(TOPIC_ID));
        let lookup = Lookup { after_poll: 1, topic_id, partitions: 9 };
        let mut events = self.events.lock().unwrap();
        match &command {
            Command::Locate { partition, run } if *partition < 9 => {
                let end = self.end.lock().unwrap().unwrap_or(100);
                let bounds = Offset(*self.begin.lock().unwrap())..Offset(end);
                let located = Located { partition: *partition, run: *run, topic_id, bounds };
                events.push_front(Event::Located(located));
            }
            Command::Look => events.push_back(Event::Looked(lookup)),
            _ => {}
        }
        self.said.lock().unwrap().push(command);
    }

    async fn leave(&mut self, _: Instant) {}

    fn last_poll(&self) -> Option<Instant> {
        None
    }
}

/// The machine's clocks, of which one may be ahead.
struct Ahead(Script);

impl Clock for Ahead {
    fn now(&self) -> Instant {
        Instant::now() + self.0.ahead()
    }

    fn wall(&self) -> Timestamp {
        SystemClock.wall()
    }

    fn until(&self, at: Instant) -> BoxFuture<'static, ()> {
        SystemClock.until(at.checked_sub(self.0.ahead()).unwrap())
    }
}

/// A journal that takes everything.
struct Open;

impl Journal for Open {
    fn record(&mut self, _: Vec<Entry>) -> Recorded {
        Box::pin(async { Ok(()) })
    }
}

/// A journal that never answers, or refuses every second entry of its first call.
#[derive(Clone, Default)]
struct Balking {
    silent: bool,
    /// The keys that it was handed, call by call.
    calls: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Journal for Balking {
    fn record(&mut self, mut entries: Vec<Entry>) -> Recorded {
        let mut calls = self.calls.lock().unwrap();
        calls.push(entries.iter().map(|entry| entry.key.clone()).collect());
        if self.silent {
            return Box::pin(std::future::pending());
        }
        let is_first = calls.len() == 1;
        Box::pin(async move {
            let mut number = 0;
            entries.retain(|_| {
                number += 1;
                is_first && number % 2 == 0
            });
            if entries.is_empty() {
                return Ok(());
            }
            let topic = entries[0].ledger.topic();
            Err(NotAcknowledged { topic, cause: "refused".to_owned(), entries })
        })
    }
}

fn stream() -> Stream {
    Stream { topic: "events".into(), id: TOPIC_ID }
}

fn partition(number: i32) -> Partition {
    Partition { stream: stream(), number }
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("_offset", DataType::Int64, false)]))
}

fn chunk(number: i32, run: u64, range: std::ops::Range<i64>) -> Chunk {
    let offsets = Int64Array::from_iter_values(range.clone());
    let records = offsets.len() as u64;
    let batch = Batch {
        partition: partition(number),
        range: Offset(range.start)..Offset(range.end),
        epoch: 0,
        appended: None,
        rows: RecordBatch::try_new(columns(), vec![Arc::new(offsets)]).unwrap(),
        memory: Reservation::none(),
    };
    let epochs = vec![(Offset(range.start), 0)];
    let (rejected, unknown_fields, high) = (Vec::new(), Vec::new(), Offset(100));
    Chunk { run, polled: 1, batch, epochs, records, rejected, unknown_fields, high }
}

/// A job that runs, and what the test holds of it.
struct Started {
    script: Script,
    status: StatusReader,
    done: JoinHandle<Result<(), JobError>>,
}

fn start(sink: Box<dyn Sink>, journal: impl Journal + 'static) -> Started {
    start_within(1.0, sink, journal)
}

/// A job without a protection.
fn start_without(
    rule: Option<Rule>,
    sink: Box<dyn Sink>,
    journal: impl Journal + 'static,
) -> Started {
    start_by((Rules { without: rule }, 1.0, LONG), sink, journal)
}

/// A job that stops a partition of which more than this share is rejected.
fn start_within(
    max_reject_share: f64,
    sink: Box<dyn Sink>,
    journal: impl Journal + 'static,
) -> Started {
    start_by((Rules::default(), max_reject_share, LONG), sink, journal)
}

/// The rules, the greatest share of rejected records, and how long a row may wait in vain.
type How = (Rules, f64, Duration);

fn start_by(how: How, sink: Box<dyn Sink>, journal: impl Journal + 'static) -> Started {
    start_with(Budget::new(1 << 20), how, sink, journal)
}

/// A job with so much memory, or a share of it.
fn start_with(
    budget: Budget,
    (rules, max_reject_share, wait_at_most): How,
    sink: Box<dyn Sink>,
    journal: impl Journal + 'static,
) -> Started {
    let script = Script::default();
    let plan = Plan {
        job: "test".into(),
        topic: "events".into(),
        columns: columns(),
        compacted: false,
        max_reject_share,
        revoke_flush: Duration::from_secs(1),
        wait_at_most,
        rules,
    };
    let parts: (Box<dyn Clock>, Budget) = (Box::new(Ahead(script.clone())), budget);
    let (job, status) = Job::new(plan, script.clone(), journal, vec![sink], parts);
    Started { script, status, done: tokio::spawn(job.run()) }
}

/// A sink that writes when it is told to, not before.
fn lazy(store: &Store) -> Box<dyn Sink> {
    let settings = Settings { flush_age: Duration::from_hours(1), ..Settings::default() };
    Box::new(MemorySink::open(store, settings))
}

impl Started {
    async fn until_taken(&mut self, end: i64) {
        let taken = |status: &super::status::JobStatus| {
            let mut all = status.partitions.iter();
            !status.partitions.is_empty() && all.all(|one| one.position == Some(Offset(end)))
        };
        let waited = tokio::time::timeout(PATIENCE, self.status.wait_for(taken)).await;
        assert!(matches!(waited, Ok(Some(_))), "{:#?}", self.status.now());
    }

    async fn end(self) -> Result<(), JobError> {
        tokio::time::timeout(PATIENCE, self.done).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_stop_goes_on_trying_until_everything_is_written() {
    let store = Store::new();
    let mut job = start(lazy(&store), Open);
    job.script.give(&[0], 5);
    job.until_taken(5).await;
    for _ in 0..3 {
        store.script(Fault::Retry);
    }
    let script = job.script.clone();
    script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert_eq!(store.offsets(&partition(0)), [0, 1, 2, 3, 4]);
    assert_eq!(script.commits(), [(0, Offset(5))]);
}

#[tokio::test]
async fn a_stop_names_what_it_could_not_write() {
    let store = Store::new();
    let mut job = start(lazy(&store), Open);
    job.script.give(&[0, 3], 5);
    job.until_taken(5).await;
    store.stall(true);
    job.script.stop(Duration::from_millis(300));
    let status = job.status.clone();
    let error = job.end().await.unwrap_err();
    assert!(matches!(error, JobError::Unwritten { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("memory 0..5 of events") && text.contains("again"), "{text}");
    assert_eq!(status.now().state, JobState::Ended);
}

#[tokio::test]
async fn a_report_that_failed_is_made_again() {
    let store = Store::new();
    let mut job = start(Box::new(MemorySink::open(&store, Settings::default())), Open);
    job.script.give(&[0], 5);
    job.until_taken(5).await;
    let script = job.script.clone();
    let reported = async |times: usize| {
        let deadline = Instant::now() + PATIENCE;
        while script.commits().len() < times {
            assert!(Instant::now() < deadline, "{:?}", script.commits());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    reported(1).await;
    script.tell(Event::CommitFailed(vec![0]));
    reported(2).await;
    assert_eq!(script.commits(), [(0, Offset(5)); 2]);
}

/// A chunk whose first records can't become rows.
fn poisoned(number: i32, run: u64, count: i64) -> Chunk {
    let letter = |offset| Rejected {
        offset: Offset(offset),
        append_time: Timestamp(0),
        key: None,
        value: None,
        reason: "poison",
        field: None,
        detail: String::new(),
        schema_id: None,
        retry: None,
    };
    let mut chunk = chunk(number, run, count..count + 5);
    chunk.batch.range.start = Offset(0);
    chunk.records += count as u64;
    chunk.rejected = (0..count).map(letter).collect();
    chunk
}

#[tokio::test]
async fn a_silent_journal_holds_up_its_partition_alone() {
    let (store, journal) = (Store::new(), Balking { silent: true, ..Balking::default() });
    let mut job = start(lazy(&store), journal);
    job.script.tell(Event::Assigned { stream: stream(), partitions: vec![0, 1] });
    job.script.tell(Event::Chunk(poisoned(0, 1, 3)));
    job.script.tell(Event::Chunk(chunk(1, 2, 0..5)));
    let taken = |status: &super::status::JobStatus| {
        status.partitions.iter().any(|one| one.partition == 1 && one.position == Some(Offset(5)))
    };
    let waited = tokio::time::timeout(PATIENCE, job.status.wait_for(taken)).await;
    assert!(matches!(waited, Ok(Some(_))), "{:#?}", job.status.now());
    // Neither a rebalance nor a stop waits for it.
    job.script.tell(Event::Revoked(vec![1]));
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert_eq!(store.offsets(&partition(1)), [0, 1, 2, 3, 4]);
    assert!(store.offsets(&partition(0)).is_empty(), "its letters are not written down");
}

#[tokio::test]
async fn only_letters_that_failed_are_written_again() {
    let (store, journal) = (Store::new(), Balking::default());
    let calls = Arc::clone(&journal.calls);
    let mut job = start(lazy(&store), journal);
    job.script.tell(Event::Assigned { stream: stream(), partitions: vec![0] });
    job.script.tell(Event::Chunk(poisoned(0, 1, 4)));
    job.until_taken(9).await;
    assert_eq!(job.status.now().rejected, 4);
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    let calls = calls.lock().unwrap();
    let key = |offset: usize| format!("test:{TOPIC_ID}:0:{offset}");
    assert_eq!(*calls, [(0..4).map(key).collect::<Vec<_>>(), vec![key(1), key(3)]]);
}

#[tokio::test]
async fn rows_that_retention_took_meanwhile_survive_a_failing_sink() {
    let store = Store::new();
    let mut job = start(lazy(&store), Open);
    job.script.give(&[0], 5);
    job.until_taken(5).await;
    for _ in 0..3 {
        store.script(Fault::Retry);
    }
    job.script.tell(Event::OutOfRange { partition: 0, run: 1 });
    let stored = |status: &super::status::JobStatus| status.rows_stored == 5;
    let waited = tokio::time::timeout(PATIENCE, job.status.wait_for(stored)).await;
    assert!(matches!(waited, Ok(Some(_))), "{:#?}", job.status.now());
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert_eq!(store.offsets(&partition(0)), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_partition_that_the_topic_does_not_have_is_not_looked_for() {
    let store = Store::new();
    let job = start(lazy(&store), Open);
    let script = job.script.clone();
    script.tell(Event::Assigned { stream: stream(), partitions: vec![12] });
    script.tell(Event::Looked(Lookup { after_poll: 0, topic_id: Some(TOPIC_ID), partitions: 9 }));
    script.stop(Duration::from_secs(10));
    let status = job.status.clone();
    job.end().await.unwrap();
    let state = status.now().partitions[0].state.clone();
    assert!(matches!(state, PartitionState::Paused(why) if why.contains("no such")), "{state:?}");
}

/// Reads three thousand broken records and five good ones; whether the partition stops, and how many letters there are.
async fn reads_what_is_broken(max_reject_share: f64) -> (bool, usize) {
    let (store, journal) = (Store::new(), Balking { silent: false, ..Balking::default() });
    let letters = Arc::clone(&journal.calls);
    let mut job = start_within(max_reject_share, lazy(&store), journal);
    job.script.tell(Event::Assigned { stream: stream(), partitions: vec![0] });
    job.script.tell(Event::Chunk(poisoned(0, 1, 3000)));
    let decided = job.status.wait_for(|status| {
        let is_read = status.partitions.iter().any(|one| one.position == Some(Offset(3005)));
        status.stopped().next().is_some() || is_read
    });
    let status = tokio::time::timeout(PATIENCE, decided).await.unwrap().unwrap();
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    let letters: BTreeSet<String> = letters.lock().unwrap().iter().flatten().cloned().collect();
    (status.stopped().next().is_some(), letters.len())
}

/// And its negative control: with no bound to it, what a broken registry makes unreadable all goes by as dead letters.
#[tokio::test]
async fn without_a_bound_on_rejects_everything_becomes_a_dead_letter() {
    let (stops, _) = reads_what_is_broken(0.5).await;
    assert!(stops);
    assert_eq!(reads_what_is_broken(1.0).await, (false, 3000));
}

#[tokio::test]
async fn a_partition_that_stopped_goes_on_by_a_decision_that_covers_what_it_rejects() {
    let (store, journal) = (Store::new(), Balking { silent: false, ..Balking::default() });
    let letters = Arc::clone(&journal.calls);
    let mut job = start_within(0.5, lazy(&store), journal);
    let script = job.script.clone();
    script.tell(Event::Assigned { stream: stream(), partitions: vec![0] });
    let mut run = 1;
    let mut reads = async |decided: Option<i64>, stops: bool| {
        if let Some(below) = decided {
            let decision = Decision::Accept { below };
            script.tell(Event::Decided { partition: partition(0), decision });
            let runs = |said: &Vec<Command>| {
                said.iter()
                    .filter_map(|one| match one {
                        Command::Start { run, .. } => Some(*run),
                        _ => None,
                    })
                    .next_back()
            };
            let deadline = Instant::now() + PATIENCE;
            while runs(&script.said.lock().unwrap()).is_none_or(|now| now <= run) {
                assert!(Instant::now() < deadline, "it doesn't start over");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            run = runs(&script.said.lock().unwrap()).unwrap();
            let goes_on = job.status.wait_for(|status| status.stopped().next().is_none());
            tokio::time::timeout(PATIENCE, goes_on).await.unwrap().unwrap();
        }
        script.tell(Event::Chunk(poisoned(0, run, 3000)));
        let waited = job.status.wait_for(|status| {
            let has_stopped = status.stopped().next().is_some();
            let is_read = status.partitions.iter().any(|one| one.position == Some(Offset(3005)));
            if stops { has_stopped } else { is_read }
        });
        tokio::time::timeout(PATIENCE, waited).await.unwrap().unwrap()
    };
    let status = reads(None, true).await;
    let (_, why) = status.stopped().next().unwrap();
    assert!(why.contains("`aion dead-letters accept test events 0`"), "{why}");
    // Half of them isn't enough, and what was heard before is no news.
    reads(Some(700), true).await;
    let accept = |below| Decision::Accept { below };
    script.tell(Event::Decided { partition: partition(0), decision: accept(700) });
    script.tell(Event::Decided { partition: partition(3), decision: accept(9000) });
    let other = Decision::Keep { first: 0, below: 9000 };
    script.tell(Event::Decided { partition: partition(0), decision: other });
    reads(Some(3000), false).await;
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    let said = script.said.lock().unwrap();
    let key = format!("test:{TOPIC_ID}:0");
    assert!(
        said.iter().any(|one| matches!(one, Command::Consult { key: asked, .. } if *asked == key))
    );
    assert_eq!(store.offsets(&partition(0)).len(), 5);
    let letters: usize = letters.lock().unwrap().iter().map(Vec::len).sum();
    assert!(letters >= 3000, "{letters}");
}

#[tokio::test]
async fn a_cut_log_stops_until_a_person_keeps_what_is_stored_of_it() {
    let store = Store::new();
    let mut job = start(lazy(&store), Open);
    job.script.give(&[0], 120);
    job.until_taken(120).await;
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert_eq!(store.offsets(&partition(0)).len(), 120);

    // The log ends at 100 now.
    let journal = Balking::default();
    let entries = Arc::clone(&journal.calls);
    let mut job = start(lazy(&store), journal);
    let script = job.script.clone();
    script.tell(Event::Assigned { stream: stream(), partitions: vec![0] });
    let stopped = job.status.wait_for(|status| status.stopped().next().is_some());
    let status = tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
    let (_, why) = status.stopped().next().unwrap();
    assert!(why.contains("`aion diverged keep test events 0`"), "{why}");
    let asked = format!("test:{TOPIC_ID}:0:diverged");
    let deadline = Instant::now() + PATIENCE;
    let is_asked = || {
        let said = script.said.lock().unwrap();
        said.iter().any(|one| matches!(one, Command::Consult { key, .. } if *key == asked))
    };
    while !is_asked() {
        assert!(Instant::now() < deadline, "nobody is asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Accepting rejects is another matter.
    let decided = |decision| script.tell(Event::Decided { partition: partition(0), decision });
    decided(Decision::Accept { below: 500 });
    *script.end.lock().unwrap() = Some(130);
    decided(Decision::Keep { first: 100, below: 120 });
    let started = || {
        let said = script.said.lock().unwrap();
        said.iter().find_map(|one| match one {
            Command::Start { at, run, .. } => Some((*at, *run)),
            _ => None,
        })
    };
    while started().is_none() {
        assert!(Instant::now() < deadline, "it doesn't go on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (at, run) = started().unwrap();
    assert_eq!((at.offset, at.epoch), (Offset(120), -1), "the log's epochs are settled");
    script.tell(Event::Chunk(chunk(0, run, 115..130)));
    job.until_taken(130).await;
    script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert_eq!(store.offsets(&partition(0)), (0..130).collect::<Vec<i64>>());
    let keys: Vec<String> = entries.lock().unwrap().concat();
    let entry = |first: i64, word: &str| format!("test:{TOPIC_ID}:0:{first}:{word}");
    assert!(keys.contains(&entry(100, "diverged")), "{keys:?}");
    assert_eq!(keys.last(), Some(&entry(100, "diverged_kept")), "{keys:?}");
}

/// A sink with a fault of the program.
struct Broken;

#[async_trait]
impl Sink for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn store_id(&self) -> String {
        "broken".to_owned()
    }

    async fn assign(&mut self, _: &[Partition]) -> Result<Marks, SinkError> {
        panic!("the last words");
    }

    async fn write(&mut self, _: Batch) -> Result<Accepted, SinkError> {
        Ok(Accepted::Taken)
    }

    async fn flush(&mut self, _: Instant, _: Flush) -> Result<Flushed, SinkError> {
        Ok(Flushed::default())
    }

    fn revoke(&mut self, _: &[Partition]) {}
}

#[tokio::test]
async fn a_job_that_breaks_says_so() {
    let job = start(Box::new(Broken), Open);
    job.script.give(&[0], 5);
    let status = job.status.clone();
    let error = job.end().await.unwrap_err();
    assert!(matches!(error, JobError::Broke { .. }), "{error}");
    assert!(matches!(&status.now().state, JobState::Failed(why) if why.contains("the last words")));
}

/// A sink whose store can't be reached: a flush begins, and fails by the next look.
#[derive(Clone, Default)]
struct Unreachable {
    tries: Arc<AtomicUsize>,
    is_back: Arc<AtomicBool>,
    /// Its try doesn't end.
    is_stuck: Arc<AtomicBool>,
    under_way: bool,
    marks: Marks,
}

#[async_trait]
impl Sink for Unreachable {
    fn name(&self) -> &'static str {
        "far"
    }

    fn store_id(&self) -> String {
        "far".to_owned()
    }

    async fn assign(&mut self, _: &[Partition]) -> Result<Marks, SinkError> {
        Ok(Marks::new())
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        self.marks.insert(batch.partition.clone(), batch.mark());
        Ok(Accepted::Taken)
    }

    async fn flush(&mut self, _: Instant, _: Flush) -> Result<Flushed, SinkError> {
        self.under_way = !self.under_way && !self.marks.is_empty();
        if self.under_way || self.marks.is_empty() || self.is_stuck.load(SeqCst) {
            return Ok(Flushed::default());
        }
        if self.is_back.load(SeqCst) {
            let marks = std::mem::take(&mut self.marks);
            return Ok(Flushed { marks, ..Flushed::default() });
        }
        self.tries.fetch_add(1, SeqCst);
        Err(SinkError::Retry { doing: "write".to_owned(), cause: "no route".to_owned() })
    }

    fn revoke(&mut self, _: &[Partition]) {}
}

#[tokio::test]
async fn a_store_that_is_away_is_asked_ever_less_often() {
    let sink = Unreachable::default();
    let mut job = start(Box::new(sink.clone()), Open);
    job.script.give(&[0], 5);
    let waited = tokio::time::timeout(PATIENCE, job.status.wait_for(|now| now.trouble.is_some()));
    assert!(waited.await.is_ok(), "{:#?}", job.status.now());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tries = sink.tries.load(SeqCst);
    assert!((2..=7).contains(&tries), "after 0.1 s, 0.3, 0.7, 1.5, 2.5: {tries}");
    assert_eq!(job.status.now().trouble.as_deref(), Some("far: write: no route"));
    // One try that doesn't end: nothing fails meanwhile, and nothing is well.
    sink.is_stuck.store(true, SeqCst);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(job.status.now().trouble.as_deref(), Some("far: write: no route"));
    sink.is_stuck.store(false, SeqCst);
    sink.is_back.store(true, SeqCst);
    let stored = |now: &super::status::JobStatus| now.rows_stored == 5 && now.trouble.is_none();
    let waited = tokio::time::timeout(PATIENCE, job.status.wait_for(stored)).await;
    assert!(waited.is_ok(), "{:#?}", job.status.now());
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
}
