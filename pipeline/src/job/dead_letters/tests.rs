#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aion_kafka::{Headers, TimeKind};
use aion_schemas::{
    catalog::{Catalog, DEAD_LETTERS},
    decode::{self, Decoder},
    log::Offset,
};
use arrow::array::{Array, AsArray};

use super::*;

#[test]
fn whatever_stands_in_the_topic_becomes_a_row() {
    let catalog = Catalog::builtin();
    let topic = catalog.topic(DEAD_LETTERS).unwrap();
    let mut rows = DeadLetterRows::new(&topic.schema);
    let foreign = Record {
        key: None,
        value: Some(b"\xff\x00"),
        offset: Offset(7),
        epoch: 3,
        append_time: Timestamp(1_000_000),
        time_kind: TimeKind::LogAppend,
        headers: Headers::NONE,
    };
    // Negative control: the decoder of all other topics.
    let Record { value, offset, epoch, append_time, .. } = foreign;
    let plain = decode::Record { value, offset, epoch, append_time, retry: None };
    assert!(matches!(Decoder::new(&topic.schema).push(&plain), Outcome::Rejected(_)));
    assert_eq!(rows.push(&foreign), Outcome::Row);
    assert_eq!(rows.push(&Record { value: None, offset: Offset(8), ..foreign }), Outcome::Row);
    let batch = rows.finish(Uuid::nil(), 2);
    assert_eq!((batch.num_rows(), rows.finish(Uuid::nil(), 2).num_rows()), (2, 0));
    let value = batch.column_by_name("value").unwrap().as_binary::<i32>();
    assert_eq!((value.value(0), value.is_null(1)), (&b"\xff\x00"[..], true));
    let reason = batch.column_by_name("reason").unwrap().as_string::<i32>();
    assert_eq!(reason.value(0), "");
}

#[test]
fn the_key_tells_job_incarnation_partition_and_offset() {
    let stream = aion_schemas::log::Stream { topic: "t".into(), id: Uuid::from_u128(5) };
    let rejected = Rejected {
        offset: Offset(120),
        append_time: Timestamp(0),
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::from_static(b"{")),
        reason: "malformed_json",
        field: Some("intent".into()),
        detail: "cut short".to_owned(),
        schema_id: None,
        retry: None,
    };
    let entry = entry("j", &Partition { stream, number: 4 }, rejected, Timestamp(1));
    assert_eq!(entry.key, "j:00000000-0000-0000-0000-000000000005:4:120");
    assert_eq!(entry.value.as_deref(), Some(&b"{"[..]));
    let header = |name: &str| entry.headers.iter().find(|(found, _)| *found == name);
    assert_eq!(header("reason").unwrap().1, "malformed_json");
    assert_eq!(header("key").unwrap().1, "k");
    assert!(header("schema_id").is_none());
}
