//! Tables about the streams themselves: dead letters, gaps, lag.

use std::{collections::BTreeMap, sync::Arc};

use aion_analytics::{Engine, LogEnds};
use aion_schemas::log::Offset;
use serde_json::{Value, json};

use crate::lake::{TOPIC_ID, TestLake, decision, number, shown};

fn dead_letter(job: &str, offset: i64, detail: &str) -> Value {
    json!({"job": job, "topic": "t", "topic_id": "i", "partition": 0, "offset": offset,
           "reason": "not_json", "detail": detail, "append_time": "2026-11-25T12:00:00Z",
           "rejected_at": "2026-11-25T12:00:01Z"})
}

#[tokio::test]
async fn a_dead_letter_that_was_written_twice_is_one() {
    let lake = TestLake::new();
    lake.append("dead_letters", 0, &[dead_letter("a", 5, "first"), dead_letter("a", 6, "other")])
        .await;
    lake.append("dead_letters", 2, &[dead_letter("a", 5, "again"), dead_letter("b", 5, "b")]).await;
    let engine = lake.engine();
    assert_eq!(number(&engine, "select count(*) from dead_letters").await, 3);
    assert_eq!(number(&engine, "select count(*) from dead_letters_raw").await, 4);
    let sql = "select job, \"offset\", detail from dead_letters order by job, \"offset\"";
    let expected = "\
+-----+--------+--------+
| job | offset | detail |
+-----+--------+--------+
| a   | 5      | first  |
| a   | 6      | other  |
| b   | 5      | b      |
+-----+--------+--------+";
    assert_eq!(shown(&engine, sql).await, expected);
}

#[tokio::test]
async fn lag_is_the_distance_between_mark_and_end() {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("a", "small", "10:00:00")]).await;
    let partition = lake.partition("decisions");
    let topic = Arc::clone(&partition.stream.topic);
    let sql = "select topic, topic_id, partition, mark, end_offset, lag from lag";
    let without = shown(&lake.engine(), sql).await;
    assert!(
        without
            .contains(&format!("| {topic} | {TOPIC_ID} | 0         | 1    |            |     |")),
        "{without}"
    );

    let mut settings = lake.settings();
    settings.ends = Some(LogEnds::new(move |topics| {
        assert!(topics.contains(&topic));
        Ok(BTreeMap::from([(partition.clone(), Offset(0)..Offset(42))]))
    }));
    let engine = Engine::open(settings).unwrap();
    assert_eq!(number(&engine, "select lag from lag").await, 41);
    assert_eq!(number(&engine, "select end_offset from lag where partition = 0").await, 42);
}

#[tokio::test]
async fn a_broker_that_is_away_leaves_the_ends_open() {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("a", "small", "10:00:00")]).await;
    let mut settings = lake.settings();
    settings.ends = Some(LogEnds::new(|_| Err("connection refused".into())));
    let engine = Engine::open(settings).unwrap();
    assert_eq!(number(&engine, "select count(*) from lag where lag is null and mark = 1").await, 1);
}
