//! A topic is deleted, and the group takes its partitions away: what no store has of them is written down, once it shows
//! that it was the topic that went.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use aion_schemas::log::{Marks, Offset, Partition, Stream};
use aion_sinks::{
    batch::Batch,
    memory::{MemorySink, Settings, Store},
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};
use async_trait::async_trait;
use futures::future::join_all;
use uuid::Uuid;

use super::{Balking, PATIENCE, Started, TOPIC_ID, chunk, lazy, partition, start, stream};
use crate::job::{
    JobError,
    source::{Event, Lookup},
};

const NEW_ID: Uuid = Uuid::from_u128(8);

/// What happens to a partition of which five of a hundred records are stored.
#[derive(Clone, Copy, Debug)]
enum Then {
    Revoked,
    Lost,
    /// The group gives it, of the topic that has this id by now.
    Given(Uuid),
    /// A look-up finds this topic, or none.
    Found(Option<Uuid>),
    /// A second goes by.
    Later,
    /// So many minutes do.
    Minutes(u64),
    /// Another process stores what follows, up to here.
    Stored(i64),
}

/// Look-ups that are believed.
const fn settled(id: Uuid) -> [Then; 4] {
    [Then::Found(Some(id)), Then::Found(Some(id)), Then::Later, Then::Found(Some(id))]
}

async fn then(job: &Started, store: &Store, step: Then) {
    let find = |id: Uuid| *job.script.found.lock().unwrap() = Some(id);
    let event = match step {
        Then::Revoked => Event::Revoked(vec![0]),
        Then::Lost => Event::Lost(vec![0]),
        Then::Given(id) => {
            find(id);
            Event::Assigned { stream: Stream { id, ..stream() }, partitions: vec![0] }
        }
        Then::Found(topic_id) => {
            if let Some(id) = topic_id {
                find(id);
            }
            Event::Looked(Lookup { after_poll: 1, topic_id, partitions: 9 })
        }
        Then::Later => return tokio::time::sleep(Duration::from_millis(1100)).await,
        Then::Minutes(minutes) => {
            job.script.ahead.fetch_add(60 * minutes, SeqCst);
            return;
        }
        Then::Stored(end) => {
            let (deadline, mut sink) = (Instant::now() + PATIENCE, lazy(store));
            let mark = sink.assign(&[partition(0)]).await.unwrap()[&partition(0)];
            sink.write(chunk(0, 1, mark.offset.get()..end).batch).await.unwrap();
            sink.flush(Instant::now(), Flush::Now { deadline }).await.unwrap();
            return;
        }
    };
    job.script.tell(event);
    while !job.script.events.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The keys of what the job writes down while this happens, and until it has stopped.
async fn written_down(steps: &[Then]) -> Vec<String> {
    let (store, journal) = (Store::new(), Balking::default());
    let calls = Arc::clone(&journal.calls);
    let mut job = start(Box::new(MemorySink::open(&store, Settings::default())), journal);
    job.script.give(&[0], 5);
    let stored = tokio::time::timeout(PATIENCE, job.status.wait_for(|one| one.rows_stored == 5));
    stored.await.unwrap().unwrap();
    for step in steps {
        then(&job, &store, *step).await;
    }
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    keys(&calls)
}

fn keys(calls: &Mutex<Vec<Vec<String>>>) -> Vec<String> {
    calls.lock().unwrap().concat()
}

/// Waits until something is written down.
async fn until_told(calls: &Mutex<Vec<Vec<String>>>) {
    let deadline = Instant::now() + PATIENCE;
    while keys(calls).is_empty() {
        assert!(Instant::now() < deadline, "nothing is written down");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn gap_from(first: i64) -> String {
    format!("test:{TOPIC_ID}:0:{first}:topic_deleted")
}

#[tokio::test]
async fn what_went_with_its_topic_is_written_down_whoever_noticed_first() {
    use Then::{Found, Given, Lost, Minutes, Revoked, Stored};
    let anew = settled(NEW_ID);
    let same = Found(Some(TOPIC_ID));
    let cases: &[(&[Then], Option<i64>)] = &[
        (&[Revoked, Found(None)], Some(5)),
        (&[Found(None), Revoked], Some(5)),
        (&[Found(None), Lost], Some(5)),
        (&[Lost], Some(5)),
        // Given again before look-ups are believed.
        (&[Revoked, Given(NEW_ID)], Some(5)),
        (&[Revoked, same, Found(None), Given(NEW_ID)], Some(5)),
        // Nobody else may have it so far.
        (&[Revoked, same, same], Some(5)),
        (&[Revoked, same, Stored(30), Minutes(9), same], Some(30)),
        // Another process has it, and says so itself.
        (&[Revoked, same, Minutes(10), same], None),
        (&[Revoked, Stored(30), Minutes(10), same], None),
        // It had, until a moment before.
        (&[Revoked, Stored(30)], Some(30)),
        (&[Lost, Stored(100)], None),
        // It is read here again.
        (&[Revoked, Given(TOPIC_ID)], Some(5)),
    ];
    let run = |(steps, first): &(&[Then], Option<i64>)| {
        let (steps, first) = ([*steps, &anew[..]].concat(), *first);
        async move { (written_down(&steps).await, steps, first) }
    };
    for (keys, steps, first) in join_all(cases.iter().map(run)).await {
        let expected: Vec<String> = first.map(gap_from).into_iter().collect();
        assert_eq!(keys, expected, "{steps:?}");
    }
}

#[tokio::test]
async fn what_a_store_could_not_take_in_time_of_a_topic_that_is_gone_is_written_down() {
    let (store, journal) = (Store::new(), Balking::default());
    let calls = Arc::clone(&journal.calls);
    let mut job = start(lazy(&store), journal);
    job.script.give(&[0], 5);
    job.until_taken(5).await;
    store.stall(true);
    for step in settled(NEW_ID) {
        then(&job, &store, step).await;
    }
    then(&job, &store, Then::Revoked).await;
    let is_gone = job.status.wait_for(|one| one.partitions.is_empty());
    tokio::time::timeout(PATIENCE, is_gone).await.unwrap().unwrap();
    store.stall(false);
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert!(store.offsets(&partition(0)).is_empty());
    assert_eq!(keys(&calls), [gap_from(5), gap_from(0)], "what was not read, then what was");
}

#[tokio::test]
async fn what_was_read_is_stored_though_the_name_has_passed_on_twice() {
    let (store, journal) = (Store::new(), Balking::default());
    let calls = Arc::clone(&journal.calls);
    let mut job = start(lazy(&store), journal);
    job.script.give(&[0], 5);
    job.until_taken(5).await;
    store.stall(true);
    for step in [settled(NEW_ID), settled(Uuid::from_u128(9))].concat() {
        then(&job, &store, step).await;
    }
    store.stall(false);
    let stored = tokio::time::timeout(PATIENCE, job.status.wait_for(|one| one.rows_stored == 5));
    assert!(matches!(stored.await, Ok(Some(_))), "{:#?}", job.status.now());
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert_eq!(store.offsets(&partition(0)), [0, 1, 2, 3, 4]);
    assert_eq!(keys(&calls), [gap_from(5)]);
}

#[tokio::test]
async fn a_topic_that_nobody_finds_for_long_is_gone_though_no_other_has_its_name() {
    let (store, journal) = (Store::new(), Balking::default());
    let calls = Arc::clone(&journal.calls);
    let mut job = start(Box::new(MemorySink::open(&store, Settings::default())), journal);
    job.script.give(&[0], 5);
    job.until_taken(5).await;
    then(&job, &store, Then::Revoked).await;
    assert_eq!(store.marks()[&partition(0)].offset, Offset(5));
    // Each time so many more; the stores are asked at the last.
    for minutes in [0, 5, 4, 3] {
        then(&job, &store, Then::Minutes(minutes)).await;
        then(&job, &store, Then::Found(None)).await;
    }
    assert_eq!(keys(&calls), Vec::<String>::new());
    then(&job, &store, Then::Minutes(3)).await;
    until_told(&calls).await;
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert_eq!(keys(&calls), [gap_from(5)]);
}

/// What was on its way into a store when the topic went.
#[tokio::test]
async fn the_stores_are_asked_once_nothing_can_be_on_its_way_into_them() {
    let (store, journal) = (Store::new(), Balking::default());
    let calls = Arc::clone(&journal.calls);
    let mut job = start(Box::new(MemorySink::open(&store, Settings::default())), journal);
    job.script.give(&[0], 5);
    let stored = tokio::time::timeout(PATIENCE, job.status.wait_for(|one| one.rows_stored == 5));
    stored.await.unwrap().unwrap();
    for step in [&[Then::Revoked][..], &settled(NEW_ID), &[Then::Minutes(2)]].concat() {
        then(&job, &store, step).await;
    }
    // Time enough for some ticks.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(keys(&calls), Vec::<String>::new());
    then(&job, &store, Then::Stored(30)).await;
    then(&job, &store, Then::Minutes(1)).await;
    until_told(&calls).await;
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert_eq!(keys(&calls), [gap_from(30)]);
}

/// A sink that may be stuck when it is asked for its marks.
struct Asked {
    inner: Box<dyn Sink>,
    is_stuck: Arc<AtomicBool>,
}

#[async_trait]
impl Sink for Asked {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn store_id(&self) -> String {
        self.inner.store_id()
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        if self.is_stuck.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        self.inner.assign(partitions).await
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        self.inner.write(batch).await
    }

    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError> {
        self.inner.flush(now, why).await
    }

    fn revoke(&mut self, partitions: &[Partition]) {
        self.inner.revoke(partitions);
    }
}

/// How a stop ends that has a second to say what went with a topic.
async fn stopped(journal: Balking, asks_are_answered: bool) -> Result<(), JobError> {
    let (store, is_stuck) = (Store::new(), Arc::new(AtomicBool::new(false)));
    let inner = Box::new(MemorySink::open(&store, Settings::default()));
    let mut job = start(Box::new(Asked { inner, is_stuck: Arc::clone(&is_stuck) }), journal);
    job.script.give(&[0], 5);
    let stored = tokio::time::timeout(PATIENCE, job.status.wait_for(|one| one.rows_stored == 5));
    stored.await.unwrap().unwrap();
    for step in [&[Then::Revoked][..], &settled(NEW_ID)].concat() {
        then(&job, &store, step).await;
    }
    is_stuck.store(!asks_are_answered, SeqCst);
    job.script.stop(Duration::from_secs(1));
    job.end().await
}

#[tokio::test]
async fn a_stop_names_what_it_could_not_say_of_a_topic_that_is_gone() {
    stopped(Balking::default(), true).await.unwrap();
    let silent = Balking { silent: true, ..Balking::default() };
    let (no_journal, no_store) =
        tokio::join!(stopped(silent, true), stopped(Balking::default(), false));
    for (ended, what) in [(no_journal, "1 on their way to aion.gaps"), (no_store, "events/0")] {
        let text = ended.unwrap_err().to_string();
        assert!(text.contains("losses that are not written down"), "{text}");
        assert!(text.contains(what) && !text.contains("again"), "{text}");
    }
}
