//! The bound on memory: a job whose sink stands still stops fetching, whatever waits in the log, and no other job with
//! it.

use std::time::{Duration, Instant};

use aion::job::JobSpec;
use aion_kafka::Limits;
use aion_schemas::log::Offset;
use aion_sinks::{
    budget::Budget,
    memory::{Settings, Store},
};

use crate::{Cluster, EVENTS, PATIENCE, event, stored_up_to};

/// What the job may hold.
const LIMIT: usize = 1 << 20;
/// And beyond it, since rows that exist must go somewhere: a chunk that was being read, which is cut at
/// 8 MiB, and the batches of 1 MB that passed that.
const BOUND: usize = LIMIT + (8 << 20) + (3 << 20);
/// Four times as much waits in the log.
const COUNT: usize = 4 * BOUND / EVENT_BYTES;
const EVENT_BYTES: usize = 10_000;

/// A cluster with so many events in one partition.
async fn filled(count: usize) -> Cluster {
    let mut cluster = Cluster::start(1).await;
    // Compressed, one fetch would hold all of it.
    cluster.connection.properties.insert("compression.type".into(), "none".into());
    cluster.new_producer();
    let text = "x".repeat(EVENT_BYTES);
    let event = event().replace('}', &format!(r#","metadata":{{"text":"{text}"}}}}"#));
    cluster.send(0, &vec![Some(event.as_str()); count]);
    cluster
}

/// A job of that name, whose client holds little.
fn spec(cluster: &Cluster, name: &str) -> JobSpec {
    let limits =
        Limits { queued_bytes: 128 << 10, partition_fetch_bytes: 64 << 10, ..Limits::default() };
    JobSpec { limits, ..cluster.spec(name, EVENTS) }
}

/// The sink itself never says no: it is the budget alone that stops the reader.
fn takes_all() -> Settings {
    Settings { hold_bytes: usize::MAX, ..Settings::default() }
}

/// The bytes held once they are spent and have not changed for a second; while the sink stands still, nothing is given back.
async fn settled(budget: &Budget) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let (mut held, mut since) = (0, Instant::now());
    while !budget.is_spent() || since.elapsed() < Duration::from_secs(1) {
        assert!(Instant::now() < deadline, "{} bytes are held", budget.held());
        tokio::time::sleep(Duration::from_millis(20)).await;
        if budget.held() != held {
            (held, since) = (budget.held(), Instant::now());
        }
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stalled_sink_is_handed_stays_within_the_budget() {
    let cluster = filled(COUNT).await;
    let (store, budget) = (Store::new(), Budget::new(LIMIT));
    store.stall(true);
    let mut job = cluster.run(spec(&cluster, "tasks"), (&store, takes_all()), budget.clone());
    let held = settled(&budget).await;
    assert!(held <= BOUND, "{held} bytes are held");
    let end = Offset(COUNT as i64);
    let status = job.handle.status.now();
    assert!(status.partitions[0].position < Some(end), "all of it was read: {status:#?}");
    assert!(status.is_well() && store.rows().is_empty());

    store.stall(false);
    job.until("all of it stored", stored_up_to(end.get())).await;
    let expected: Vec<i64> = (0..end.get()).collect();
    assert_eq!(store.offsets(&cluster.partition(EVENTS, 0)), expected);
    job.stop().await;
    assert_eq!(budget.held(), 0);
}

/// How far a job got beside one whose sink stands still.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    All,
    /// The memory is spent, and nobody took any or gave any back since.
    NoMemory,
    /// Not there, for another reason.
    Less,
}

/// The sink of one job stands still, and the job has read all that it may. Then another begins to read the same: how far it
/// got within this time. Both have everything once the sink goes on.
async fn another_reads_on(one: &Budget, other: &Budget, within: Duration) -> Got {
    const EACH: usize = 4 * LIMIT / EVENT_BYTES;
    let cluster = filled(EACH).await;
    let (still, store) = (Store::new(), Store::new());
    still.stall(true);
    let mut first = cluster.run(spec(&cluster, "still"), (&still, takes_all()), one.clone());
    let held = settled(one).await;
    let settings = Settings::default();
    let mut second = cluster.run(spec(&cluster, "tasks"), (&store, settings), other.clone());
    let all = || stored_up_to(EACH as i64);
    let waited = tokio::time::timeout(within, second.handle.status.wait_for(all())).await;
    let got = match waited {
        Ok(Some(_)) => Got::All,
        _ if other.is_spent() && one.held() == held && store.rows().is_empty() => Got::NoMemory,
        _ => Got::Less,
    };
    assert!(still.rows().is_empty());
    still.stall(false);
    first.until("what waited is stored", all()).await;
    second.until("all of it is stored", all()).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(one.held(), 0);
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_sink_stands_still_leaves_another_its_share() {
    let budget = Budget::new(LIMIT);
    let got = another_reads_on(&budget.share(2), &budget.share(2), PATIENCE).await;
    assert_eq!(got, Got::All);
}

/// Negative control.
#[tokio::test(flavor = "multi_thread")]
async fn without_shares_a_job_whose_sink_stands_still_stops_the_others() {
    let budget = Budget::new(LIMIT);
    let got = another_reads_on(&budget, &budget, Duration::from_secs(5)).await;
    assert_eq!(got, Got::NoMemory);
}
