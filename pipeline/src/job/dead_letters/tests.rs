#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aion_kafka::{Headers, TimeKind};
use aion_schemas::{
    catalog::{Catalog, DEAD_LETTERS},
    decode::{self, Decoder, Retry},
    log::{Offset, Origin, Stream},
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
fn rows_that_arrow_has_no_offsets_for_are_left_for_the_next_batch() {
    let catalog = Catalog::builtin();
    let mut rows = DeadLetterRows::new(&catalog.topic(DEAD_LETTERS).unwrap().schema);
    rows.bytes = MAX_BATCH_BYTES - 1;
    assert!(!rows.is_full());
    let letter = Record {
        key: None,
        value: Some(b"x"),
        offset: Offset(7),
        epoch: 3,
        append_time: Timestamp(1_000_000),
        time_kind: TimeKind::LogAppend,
        headers: Headers::NONE,
    };
    assert_eq!(rows.push(&letter), Outcome::Row);
    assert!(rows.is_full());
    assert_eq!(rows.finish(Uuid::nil(), 2).num_rows(), 1);
    assert!(!rows.is_full());
}

/// A record that was rejected, of a writer whose schema has this id.
fn rejected(schema_id: Option<u32>, retry: Option<Retry>) -> Rejected {
    Rejected {
        offset: Offset(120),
        append_time: Timestamp(1_000_001),
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::from_static(b"{")),
        reason: "malformed_json",
        field: Some("intent".into()),
        detail: "cut short".to_owned(),
        schema_id,
        retry,
    }
}

fn letter_of(rejected: Rejected) -> Entry {
    let stream = Stream { topic: "t".into(), id: Uuid::from_u128(5) };
    entry("j", &Partition { stream, number: 4 }, rejected, Timestamp(2_000_002))
}

#[test]
fn the_key_and_the_headers_tell_all_that_is_known() {
    let origin = Origin { topic_id: Uuid::from_u128(6), partition: 1, offset: Offset(3) };
    let entry = letter_of(rejected(Some(7), Some(Retry { origin, append_time: Timestamp(3) })));
    assert_eq!(entry.key, "j:00000000-0000-0000-0000-000000000005:4:120");
    assert_eq!(entry.value.as_deref(), Some(&b"{"[..]));
    let headers: Vec<_> = entry
        .headers
        .iter()
        .map(|(name, value)| (*name, std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(
        headers,
        [
            ("job", "j"),
            ("topic", "t"),
            ("topic_id", "00000000-0000-0000-0000-000000000005"),
            ("partition", "4"),
            ("offset", "120"),
            ("reason", "malformed_json"),
            ("field", "intent"),
            ("detail", "cut short"),
            ("schema_id", "7"),
            ("append_time", "1970-01-01T00:00:01.000001Z"),
            ("rejected_at", "1970-01-01T00:00:02.000002Z"),
            ("key", "k"),
            ("origin", "00000000-0000-0000-0000-000000000006/1/3"),
            ("origin_append_time", "1970-01-01T00:00:00.000003Z"),
        ]
    );
}

#[test]
fn what_is_not_known_has_no_header() {
    let plain = rejected(None, None);
    let entry = letter_of(Rejected { key: None, field: None, detail: String::new(), ..plain });
    let names: Vec<_> = entry.headers.iter().map(|(name, _)| *name).collect();
    let always =
        ["job", "topic", "topic_id", "partition", "offset", "reason", "append_time", "rejected_at"];
    assert_eq!(names, always);
}
