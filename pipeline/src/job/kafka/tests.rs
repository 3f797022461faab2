#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{SystemTime, UNIX_EPOCH};

use aion_embedded::{Broker, Fsync, Settings};
use aion_kafka::{Admin, NewTopic, Outcome, Outgoing, Producer};
use aion_schemas::{
    catalog::Catalog,
    decode::Decoder,
    log::{Mark, Offset, Partition, Timestamp},
};

use super::*;
use crate::job::times::rfc3339;

const EVENTS: &str = "aion.tasks.lifecycle";
const PATIENCE: Duration = Duration::from_secs(30);

fn event() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let time = rfc3339(Timestamp(now.as_micros() as i64));
    format!(r#"{{"task_id":"t","status":"queued","timestamp":"{time}"}}"#)
}

/// The topic, with so many records of this value.
fn fill(connection: &Connection, value: &str, count: usize) {
    let admin = Admin::open(connection, PATIENCE).unwrap();
    let new = NewTopic { topic: EVENTS, partitions: 1, replication: 1, configs: &[] };
    assert_eq!(admin.create_topics(&[new]).unwrap(), [Outcome::Done]);
    let producer = Producer::open(connection, "test").unwrap();
    let message = Outgoing {
        topic: EVENTS,
        partition: Some(0),
        value: Some(value.as_bytes()),
        ..Outgoing::default()
    };
    for _ in 0..count {
        producer.send(&message, |placed| assert!(placed.is_ok(), "{placed:?}")).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Ten events are full here. One fetch brings more, of which none may become a dead letter, or be passed over.
#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_beside_others_is_fetched_again() {
    const FULL: usize = 10;
    const COUNT: i64 = 95;
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { fsync: Fsync::Never, ..Settings::new(folder.path().join("kafka")) };
    let broker = Broker::start(settings).await.unwrap();
    let connection = Connection::to(broker.address().to_string());
    let event = event();
    fill(&connection, &event, COUNT as usize);

    let topic = Catalog::builtin().topic(EVENTS).unwrap().clone();
    let (schema, full_at_bytes) = (Arc::clone(&topic.schema), FULL * event.len());
    let rows: MakeRows = Box::new(move || {
        let mut decoder = Decoder::new(&schema);
        decoder.fill_at(full_at_bytes);
        Box::new(decoder)
    });
    let opening = Opening {
        connection: &connection,
        group: "g",
        topic: &topic,
        rows,
        registry: None,
        budget: Budget::new(1 << 20),
        shutdown: CancellationToken::new(),
        stop_within: PATIENCE,
        limits: Limits::default(),
    };
    let mut source = KafkaSource::open(opening).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut next = Offset::ZERO;
    while next < Offset(COUNT) {
        match source.next(deadline).await {
            Some(Event::Assigned { stream, .. }) => {
                let (partition, at) = (Partition { stream, number: 0 }, Mark::at(Offset::ZERO));
                source.command(Command::Start { partition, run: 1, at }).await;
            }
            Some(Event::Chunk(chunk)) => {
                assert_eq!(chunk.batch.range.start, next);
                next = chunk.batch.range.end;
                let rows = chunk.batch.rows.num_rows();
                assert_eq!(rows as i64, next - chunk.batch.range.start, "{:?}", chunk.rejected);
                assert!(rows <= FULL, "{rows} rows are more than it has room for");
            }
            Some(Event::Failed { cause, .. }) => panic!("{cause}"),
            Some(_) => {}
            None => panic!("nothing came behind {next}"),
        }
    }
    assert_eq!(next, Offset(COUNT));
    source.leave(deadline).await;
    broker.stop().await.unwrap();
}
