//! Polling never waits for a sink: a job whose sink hangs longer than a member of a group may be silent stays in its
//! group, and reads nothing twice.

use std::time::{Duration, Instant};

use aion_kafka::{Consumer, Event, Limits};
use aion_schemas::log::{Marks, Partition};
use aion_sinks::{
    batch::Batch,
    budget::Budget,
    memory::{MemorySink, Settings, Store},
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};
use async_trait::async_trait;
use tokio::sync::oneshot::{self, Receiver, Sender};

use crate::{Cluster, EVENTS, PATIENCE, stored_up_to};

/// Who doesn't poll for so long is out of the group.
const MAX_POLL: Duration = Duration::from_secs(3);

/// A sink in memory whose first write hangs: it tells that it has begun, and waits until it may go on.
struct Hanging {
    sink: MemorySink,
    hang: Option<(Sender<()>, Receiver<()>)>,
}

#[async_trait]
impl Sink for Hanging {
    fn name(&self) -> &'static str {
        self.sink.name()
    }

    fn store_id(&self) -> String {
        self.sink.store_id()
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        self.sink.assign(partitions).await
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        if let Some((began, go_on)) = self.hang.take() {
            began.send(()).unwrap();
            go_on.await.unwrap();
        }
        self.sink.write(batch).await
    }

    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError> {
        self.sink.flush(now, why).await
    }

    fn revoke(&mut self, partitions: &[Partition]) {
        self.sink.revoke(partitions);
    }
}

/// Polls until partitions come or go, and takes note of it.
fn moved(consumer: &mut Consumer) -> Event {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nothing moved");
        let event = consumer.poll(Duration::from_millis(20));
        if let Some(Event::Assigned(moved) | Event::Revoked(moved) | Event::Lost(moved)) = &event {
            consumer.release(moved).unwrap();
            return event.unwrap();
        }
    }
}

/// Sends single records until the job's reader takes in no more of them: all that it may hand over without waiting is
/// handed over. Answers how many it sent.
async fn fill(cluster: &Cluster, budget: &Budget) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    let (mut sent, mut held, mut same) = (0, budget.held(), 0);
    while same < 4 {
        assert!(Instant::now() < deadline, "{held} bytes are held, and more are taken in");
        cluster.send_events(0, 1);
        sent += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
        same = if budget.held() == held { same + 1 } else { 0 };
        held = budget.held();
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_hangs_costs_no_partition() {
    let mut cluster = Cluster::start(1).await;
    let ms = MAX_POLL.as_millis().to_string();
    for (name, ms) in [
        ("session.timeout.ms", ms.as_str()),
        ("max.poll.interval.ms", ms.as_str()),
        ("heartbeat.interval.ms", "100"),
    ] {
        cluster.connection.properties.insert(name.to_owned(), ms.to_owned());
    }
    let (store, budget) = (Store::new(), Budget::new(64 << 20));
    let (began_in, began) = oneshot::channel();
    let (go_on, go_on_out) = oneshot::channel();
    let sink = Hanging {
        sink: MemorySink::open(&store, Settings::default()),
        hang: Some((began_in, go_on_out)),
    };
    let spec = cluster.spec("tasks", EVENTS);
    let mut job = cluster.run_into(spec, Box::new(sink), budget.clone());
    job.until("it is given the partition", |status| status.rebalances == 1).await;
    // Negative control: a member with the same limits that waits in place of polling.
    let waits = Consumer::open(&cluster.connection, "waits", &[EVENTS], Limits::default());
    let mut waits = waits.unwrap();
    let given = moved(&mut waits);
    assert!(matches!(given, Event::Assigned(_)), "{given:?}");

    cluster.send_events(0, 1);
    tokio::time::timeout(PATIENCE, began).await.expect("the sink is written to").unwrap();
    let sent = 1 + fill(&cluster, &budget).await;
    tokio::time::sleep(2 * MAX_POLL).await;
    let taken = moved(&mut waits);
    assert!(matches!(taken, Event::Lost(_) | Event::Revoked(_)), "{taken:?}");

    go_on.send(()).unwrap();
    job.until("what came meanwhile is stored", stored_up_to(sent)).await;
    cluster.send_events(0, 1);
    let status = job.until("and what comes then", stored_up_to(sent + 1)).await;
    assert_eq!(status.rebalances, 1, "it kept its partition: {status:#?}");
    let expected: Vec<i64> = (0..=sent).collect();
    assert_eq!(store.offsets(&cluster.partition(EVENTS, 0)), expected);
    job.stop().await;
}
