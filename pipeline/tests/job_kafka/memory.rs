//! The bound on memory: a job whose sink stands still stops fetching, whatever waits in the log.

use std::time::{Duration, Instant};

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

/// The bytes held once they have not changed for a second; while the sink stands still, nothing is given back.
async fn settled(budget: &Budget) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let (mut held, mut since) = (0, Instant::now());
    while held < LIMIT || since.elapsed() < Duration::from_secs(1) {
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
    let mut cluster = Cluster::start(1).await;
    // Compressed, one fetch would hold all of it.
    cluster.connection.properties.insert("compression.type".into(), "none".into());
    cluster.new_producer();
    let text = "x".repeat(EVENT_BYTES);
    let event = event().replace('}', &format!(r#","metadata":{{"text":"{text}"}}}}"#));
    cluster.send(0, &vec![Some(event.as_str()); COUNT]);

    let (store, budget) = (Store::new(), Budget::new(LIMIT));
    store.stall(true);
    // The sink itself never says no: it is the budget alone that stops the reader.
    let settings = Settings { hold_bytes: usize::MAX, ..Settings::default() };
    let mut spec = cluster.spec("tasks", EVENTS);
    spec.limits =
        Limits { queued_bytes: 128 << 10, partition_fetch_bytes: 64 << 10, ..Limits::default() };
    let mut job = cluster.run(spec, (&store, settings), budget.clone());
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
