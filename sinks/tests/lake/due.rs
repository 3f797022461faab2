//! When a flush is due: by the bytes that wait, or by how long they have waited.

use std::time::{Duration, Instant};

use aion_schemas::log::Marks;
use aion_sinks::{
    conformance::{Log, ROW_BYTES, marks, take},
    lake::Settings,
    sink::{Accepted, Flush, Sink},
};

use crate::shared::{Place, settings};

const HOUR: Duration = Duration::from_hours(1);

/// What is stored of `rows` rows, written as two batches, once the job has looked in at these times. A flush is due
/// with ten rows, or after an hour.
async fn stored(log: &Log, rows: i64, looks: &[Duration]) -> Marks {
    let (place, p0) = (Place::new(), log.partition(0));
    let ten_or_an_hour = Settings { flush_bytes: 10 * ROW_BYTES, flush_age: HOUR, ..settings() };
    let mut sink = place.open_with(ten_or_an_hour).await;
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut sink, log.batch(0, 0, 5)).await;
    take(&mut sink, log.batch(0, 5, rows)).await;
    let start = Instant::now();
    for look in looks {
        sink.flush(start + *look, Flush::Due).await.unwrap();
    }
    // Waits for the flush that was started, if any was, and forgets what no flush took.
    sink.assign(std::slice::from_ref(&p0)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_is_due_by_size_or_by_age() {
    let (log, nothing) = (Log::new(), Marks::new());
    let p0 = log.partition(0);
    let almost = HOUR.checked_sub(Duration::from_nanos(1)).unwrap();
    assert_eq!(stored(&log, 9, &[Duration::ZERO]).await, nothing, "too few and too young");
    assert_eq!(stored(&log, 9, &[Duration::ZERO, almost]).await, nothing, "too young");
    assert_eq!(stored(&log, 10, &[Duration::ZERO]).await, marks([(&p0, 10)]), "enough");
    assert_eq!(stored(&log, 9, &[Duration::ZERO, HOUR]).await, marks([(&p0, 9)]), "old enough");
    assert_eq!(stored(&log, 9, &[HOUR]).await, nothing, "the age counts from the first look");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_no_room_for_a_batch_is_due_however_little_and_young_it_is() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let sizes = Settings { flush_bytes: 10 * ROW_BYTES, hold_bytes: 20 * ROW_BYTES, ..settings() };
    let mut sink = place.open_with(Settings { flush_age: HOUR, ..sizes }).await;
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut sink, log.batch(0, 0, 9)).await;
    let now = Instant::now();
    assert_eq!(sink.flush(now, Flush::Due).await.unwrap().marks, Marks::new());
    let refused = sink.write(log.batch(0, 9, 21)).await.unwrap();
    assert!(matches!(refused, Accepted::Busy(_)), "{refused:?}");
    sink.flush(now, Flush::Due).await.unwrap();
    let stored = sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    assert_eq!(stored, marks([(&p0, 9)]));
    // And no more than that: what comes next waits again.
    take(&mut sink, log.batch(0, 9, 12)).await;
    sink.flush(now, Flush::Due).await.unwrap();
    assert_eq!(sink.assign(std::slice::from_ref(&p0)).await.unwrap(), marks([(&p0, 9)]));
}
