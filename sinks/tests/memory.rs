//! The memory sink passes the suite of all sinks, and its scripted faults do what they say.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use aion_sinks::{
    conformance::{Log, Subject, marks, settle, take},
    memory::{Fault, MemorySink, Settings, Store},
    sink::{Accepted, Flush, Sink, SinkError},
};
use arrow::array::{AsArray, types};
use async_trait::async_trait;

struct Memory(Store);

fn settings(hold_bytes: usize) -> Settings {
    Settings { flush_age: Duration::ZERO, hold_bytes, ..Settings::default() }
}

#[async_trait]
impl Subject for Memory {
    type Sink = MemorySink;

    async fn open(&self, hold_bytes: usize) -> MemorySink {
        MemorySink::open(&self.0, settings(hold_bytes))
    }

    async fn rows(&self) -> Vec<(String, i32, i64)> {
        let mut all = Vec::new();
        for rows in self.0.rows() {
            let topic_ids = rows.column_by_name("_topic_id").unwrap().as_string::<i32>();
            let partitions = rows.column_by_name("_partition").unwrap();
            let partitions = partitions.as_primitive::<types::Int32Type>();
            let offsets = rows.column_by_name("_offset").unwrap();
            let offsets = offsets.as_primitive::<types::Int64Type>();
            all.extend((0..rows.num_rows()).map(|row| {
                (topic_ids.value(row).to_owned(), partitions.value(row), offsets.value(row))
            }));
        }
        all
    }

    fn stall(&self, stalled: bool) {
        self.0.stall(stalled);
    }
}

aion_sinks::conformance_tests!(Memory(Store::new()));

async fn one_flush(sink: &mut MemorySink) -> Result<aion_sinks::sink::Flushed, SinkError> {
    let deadline = Instant::now() + Duration::from_secs(1);
    sink.flush(Instant::now(), Flush::Now { deadline }).await
}

#[tokio::test]
async fn faults_are_met_in_order_and_lose_nothing() {
    for fault in [Fault::Retry, Fault::Torn, Fault::Unacknowledged] {
        let (store, log) = (Store::new(), Log::new());
        let (p0, p1) = (log.partition(0), log.partition(1));
        let mut sink = MemorySink::open(&store, settings(1 << 20));
        sink.assign(&[p0.clone(), p1.clone()]).await.unwrap();
        take(&mut sink, log.batch(0, 0, 5)).await;
        take(&mut sink, log.batch(1, 0, 5)).await;
        store.script(fault);
        let failed = one_flush(&mut sink).await;
        assert!(matches!(failed, Err(SinkError::Retry { .. })), "{fault:?}: {failed:?}");
        let landed = match fault {
            Fault::Torn => marks([(&p0, 5)]),
            Fault::Unacknowledged => marks([(&p0, 5), (&p1, 5)]),
            _ => marks([]),
        };
        assert_eq!(store.marks(), landed, "{fault:?}");
        assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 5), (&p1, 5)]), "{fault:?}");
        assert_eq!(store.offsets(&p0), [0, 1, 2, 3, 4]);
        assert_eq!(store.offsets(&p1), [0, 1, 2, 3, 4]);
        assert_eq!(store.faults_left(), 0);
    }
}

#[tokio::test]
async fn scripted_busy_and_moved() {
    let (store, log) = (Store::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = MemorySink::open(&store, settings(1 << 20));
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    store.script(Fault::Busy);
    let Accepted::Busy(batch) = sink.write(log.batch(0, 0, 5)).await.unwrap() else {
        panic!("the script says busy");
    };
    take(&mut sink, batch).await;
    store.script(Fault::Moved);
    assert_eq!(one_flush(&mut sink).await.unwrap().moved, std::slice::from_ref(&p0));
    assert_eq!(store.offsets(&p0), [0_i64; 0]);
    assert!(sink.write(log.batch(0, 5, 6)).await.is_err(), "it wants assign first");
}

#[tokio::test]
async fn a_delayed_flush_lands_after_so_many_calls() {
    let (store, log) = (Store::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = MemorySink::open(&store, Settings { delay: 2, ..settings(1 << 20) });
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut sink, log.batch(0, 0, 5)).await;
    for _ in 0..3 {
        assert!(sink.flush(Instant::now(), Flush::Due).await.unwrap().marks.is_empty());
        assert!(store.marks().is_empty());
    }
    let flushed = sink.flush(Instant::now(), Flush::Due).await.unwrap();
    assert_eq!(flushed.marks, marks([(&p0, 5)]));
}

/// Negative control: without the check of the stored mark, a sleeper doubles rows.
#[tokio::test]
async fn without_the_fence_a_sleeper_doubles() {
    let (store, log) = (Store::new(), Log::new());
    let p0 = log.partition(0);
    let mut sleeper = MemorySink::open(&store, Settings { fenced: false, ..settings(1 << 20) });
    let mut owner = MemorySink::open(&store, settings(1 << 20));
    sleeper.assign(std::slice::from_ref(&p0)).await.unwrap();
    owner.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut sleeper, log.batch(0, 0, 2)).await;
    take(&mut owner, log.batch(0, 0, 3)).await;
    settle(&mut owner).await;
    settle(&mut sleeper).await;
    assert_eq!(store.offsets(&p0), [0, 1, 2, 0, 1]);
}
