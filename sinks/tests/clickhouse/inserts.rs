//! What a writer sends: how much in one INSERT.

use aion_sinks::{
    clickhouse::Settings,
    conformance::{Log, ROW_BYTES, marks, settle, take},
    sink::Sink,
};

use crate::shared::{Place, range, settings, spec};

/// However much waits: more than 256 MiB of rows would be several blocks to a server, and so several tokens.
#[tokio::test]
async fn no_insert_has_more_bytes_than_it_may() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let settings = Settings { max_bytes: 25 * ROW_BYTES, ..settings() };
    let mut sink = place.house.sink(spec(), settings);
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    for first in [0, 10, 20, 30, 40] {
        take(&mut sink, log.batch(0, first, first + 10)).await;
    }
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 50)]));
    assert_eq!(place.batches().await, [(0, 19), (20, 39), (40, 49)]);
    // A batch that is more by itself is cut.
    take(&mut sink, log.batch(0, 50, 80)).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 80)]));
    assert_eq!(place.batches().await[3], (50, 74));
    assert_eq!(place.offsets(&p0).await, range(0, 80));
}
