//! A topic is deleted, and the group takes its partitions away: what no store has of them is written down, once it shows
//! that it was the topic that went.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use aion_schemas::log::{Offset, Stream, Timestamp};
use aion_sinks::{
    budget::Budget,
    memory::{MemorySink, Settings, Store},
    sink::Flush,
};
use futures::future::join_all;
use uuid::Uuid;

use super::{
    Balking, LONG, PATIENCE, Started, TOPIC_ID, chunk, lazy, partition, start, start_with, stream,
};
use crate::job::{
    SystemClock,
    event_loop::Clock,
    rules::Rules,
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

fn gap_from(first: i64) -> String {
    format!("test:{TOPIC_ID}:0:{first}:topic_deleted")
}

#[tokio::test]
async fn what_went_with_its_topic_is_written_down_whoever_noticed_first() {
    use Then::{Found, Given, Lost, Revoked, Stored};
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
        // Another process has it, and says so itself.
        (&[Revoked, same, same], None),
        (&[Revoked, same, Stored(30), same], None),
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

/// A clock that is ahead by so many seconds.
struct Ahead(Arc<AtomicU64>);

impl Clock for Ahead {
    fn now(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.0.load(SeqCst))
    }

    fn wall(&self) -> Timestamp {
        SystemClock.wall()
    }
}

#[tokio::test]
async fn a_topic_that_nobody_finds_for_long_is_gone_though_no_other_has_its_name() {
    let (store, journal, secs) = (Store::new(), Balking::default(), Arc::new(AtomicU64::new(0)));
    let calls = Arc::clone(&journal.calls);
    let sink = Box::new(MemorySink::open(&store, Settings::default()));
    let parts: (Box<dyn Clock>, Budget) =
        (Box::new(Ahead(Arc::clone(&secs))), Budget::new(1 << 20));
    let mut job = start_with(parts, (Rules::default(), 1.0, LONG), sink, journal);
    job.script.give(&[0], 5);
    job.until_taken(5).await;
    then(&job, &store, Then::Revoked).await;
    assert_eq!(store.marks()[&partition(0)].offset, Offset(5));
    for minutes in [0, 5, 9] {
        secs.store(60 * minutes, SeqCst);
        then(&job, &store, Then::Found(None)).await;
    }
    assert_eq!(keys(&calls), Vec::<String>::new());
    secs.store(60 * 11, SeqCst);
    then(&job, &store, Then::Found(None)).await;
    assert_eq!(keys(&calls), [gap_from(5)]);
    job.script.stop(Duration::from_secs(10));
    job.end().await.unwrap();
    assert_eq!(keys(&calls), [gap_from(5)]);
}
