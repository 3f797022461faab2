//! Tables about the streams themselves: dead letters, gaps, lag, batches, exports, schemas.

use std::{collections::BTreeMap, sync::Arc};

use aion_analytics::{
    Engine, Error, LogEnds, Settings,
    control::{
        Told,
        exports::{Export, Made},
        schemas::{Registered, SchemaText},
    },
};
use aion_schemas::{
    log::{Offset, Timestamp},
    schema::NAMESPACE,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::lake::{TOPIC_ID, TestLake, ask, decision, number, shown};

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
    // By what the rows are told apart by.
    let of_a = "select count(*) from (select distinct topic_id, \"offset\" from dead_letters where job = 'a')";
    assert_eq!(number(&engine, of_a).await, 2);
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

fn gap(job: &str, first: i64, reason: &str, detail: &str) -> Value {
    json!({"job": job, "topic": "t", "topic_id": "i", "partition": 0, "first": first, "next": 9,
           "reason": reason, "detail": detail, "recorded_at": "2026-11-25T12:00:01Z"})
}

#[tokio::test]
async fn a_gap_that_was_written_twice_is_one() {
    let lake = TestLake::new();
    let stored = [gap("a", 5, "diverged", "first"), gap("a", 6, "diverged", "other")];
    lake.append("gaps", 0, &stored).await;
    let later = [
        gap("a", 5, "diverged", "again"),
        gap("a", 5, "diverged_kept", "settled"),
        gap("b", 5, "diverged", "b"),
    ];
    lake.append("gaps", 2, &later).await;
    let engine = lake.engine();
    assert_eq!(number(&engine, "select count(*) from gaps_raw").await, 5);
    let sql = "select job, \"first\", reason, detail from gaps order by job, \"first\", reason";
    let expected = "\
+-----+-------+---------------+---------+
| job | first | reason        | detail  |
+-----+-------+---------------+---------+
| a   | 5     | diverged      | first   |
| a   | 5     | diverged_kept | settled |
| a   | 6     | diverged      | other   |
| b   | 5     | diverged      | b       |
+-----+-------+---------------+---------+";
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

#[tokio::test]
async fn each_commit_is_a_batch_of_what_it_covered() {
    let lake = TestLake::new();
    assert_eq!(number(&lake.engine(), "select count(*) from batches").await, 0, "no lake yet");
    let rows = |count: i64| -> Vec<Value> {
        (0..count).map(|n| decision(&format!("t{n}"), "small", "10:00:00")).collect()
    };
    lake.append("decisions", 5, &rows(2)).await;
    lake.append("decisions", 7, &rows(1)).await;
    lake.append("dead_letters", 0, &[dead_letter("a", 5, "first")]).await;
    let engine = lake.engine();
    let sql = "select table_name, version, topic, \"partition\", first_offset, next_offset, rows, commit_rows,
                      commit_files, operation from batches order by table_name, version";
    let expected = "\
+--------------+---------+-----------------------+-----------+--------------+-------------+------+-------------+--------------+------------------+
| table_name   | version | topic                 | partition | first_offset | next_offset | rows | commit_rows | commit_files | operation        |
+--------------+---------+-----------------------+-----------+--------------+-------------+------+-------------+--------------+------------------+
| dead_letters | 1       | aion.dead-letters     | 0         | 0            | 1           | 1    | 1           | 1            | STREAMING UPDATE |
| decisions    | 1       | aion.router.decisions | 0         | 5            | 7           | 2    | 2           | 1            | STREAMING UPDATE |
| decisions    | 2       | aion.router.decisions | 0         | 7            | 8           | 1    | 1           | 1            | STREAMING UPDATE |
+--------------+---------+-----------------------+-----------+--------------+-------------+------+-------------+--------------+------------------+";
    assert_eq!(shown(&engine, sql).await, expected);
    let id = format!("select count(*) from batches where topic_id = '{TOPIC_ID}'");
    assert_eq!(number(&engine, &id).await, 3);
    let young = "select count(*) from batches where committed_at > now() - interval '1 hour'";
    assert_eq!(number(&engine, young).await, 3);
    let one = "select count(*) from (select next_offset from batches limit 1)";
    assert_eq!(number(&engine, one).await, 1);
    let meant = "select count(*) from batches b join lag l on l.topic_id = b.topic_id
                 and l.\"partition\" = b.\"partition\" and l.topic = b.topic and l.mark = b.next_offset";
    assert!(number(&engine, meant).await >= 1, "the last one left the mark");
    let columns = "select count(*) from information_schema.columns where table_name = 'batches'";
    assert_eq!(number(&engine, columns).await, 13);
}

#[tokio::test]
async fn a_query_sees_the_batches_of_the_version_that_it_sees() {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("a", "small", "10:00:00")]).await;
    let engine = lake.engine();
    let all = "select (select count(*) from decisions)
                    - (select sum(rows) from batches where table_name = 'decisions')";
    assert_eq!(number(&engine, all).await, 0);
    for first in 1..4 {
        lake.append("decisions", first, &[decision("b", "small", "10:00:01")]).await;
        assert_eq!(number(&engine, all).await, 0);
    }
}

#[tokio::test]
async fn a_log_that_is_damaged_is_an_error() {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("a", "small", "10:00:00")]).await;
    lake.append("decisions", 1, &[decision("a", "small", "10:00:00")]).await;
    lake.append("dead_letters", 0, &[dead_letter("a", 5, "first")]).await;
    let engine = lake.engine();
    assert_eq!(number(&engine, "select count(*) from batches").await, 3);
    let log = lake.open().table("decisions").unwrap().root().join("_delta_log/").unwrap();
    let entry = log.to_file_path().unwrap().join(format!("{:020}.json", 1));
    std::fs::write(entry, "{\"commitInfo\":").unwrap();
    // Grouped it comes through what threads share.
    let grouped = "select table_name, count(*) from batches group by table_name";
    for sql in ["select * from batches", grouped] {
        let refused = ask(&engine, sql).await.unwrap_err();
        assert!(matches!(refused, Error::Read { .. }), "{sql}: {refused:?}");
        assert!(refused.to_string().contains("the log of table decisions"), "{sql}: {refused}");
    }
    // And is read by who asks for it only.
    for others in [
        "table_name = 'dead_letters'",
        "table_name in ('gaps', 'dead_letters') and version > 0",
        "table_name <> 'decisions' and next_offset = 1",
    ] {
        let sql = format!("select count(*) from batches where {others}");
        assert_eq!(number(&engine, &sql).await, 1, "{others}");
    }
    let either = "select count(*) from batches where table_name = 'dead_letters' or version = 1";
    assert!(ask(&engine, either).await.is_err());
}

fn export(number: u32, state: &'static str) -> Export {
    Export {
        id: format!("exp_{number}"),
        dataset: "decisions".to_owned(),
        state,
        attempt: number,
        source: "lake".to_owned(),
        start: Some(Timestamp(1_764_072_000_000_000)),
        end: Some(Timestamp(1_764_075_600_000_000)),
        request: "{}".to_owned(),
        made: None,
        error: None,
        requested_at: Some(Timestamp(1_764_080_000_000_000)),
        finished_at: None,
    }
}

fn with_exports(told: Vec<Result<Export, String>>) -> (TestLake, Engine) {
    let lake = TestLake::new();
    let exports = Some(Told::new(move || stream::iter(told.clone()).boxed()));
    let engine = Engine::open(Settings { exports, ..lake.settings() }).unwrap();
    (lake, engine)
}

#[tokio::test]
async fn exports_are_as_their_keeper_tells() {
    let made = Made { rows: 9, files: 2, bytes: 300, gaps: 1, digest: "0f".to_owned() };
    let error = Some(("expired".to_owned(), "it is gone".to_owned()));
    let told = vec![
        Ok(Export { made: Some(made), ..export(1, "succeeded") }),
        Ok(Export { error, ..export(2, "failed") }),
    ];
    let (_lake, engine) = with_exports(told);
    let sql = "select id, state, attempt, rows, files, bytes, gaps, digest, error_code, error,
                      interval_end > interval_start as later
               from exports order by id";
    let expected = "\
+-------+-----------+---------+------+-------+-------+------+--------+------------+------------+-------+
| id    | state     | attempt | rows | files | bytes | gaps | digest | error_code | error      | later |
+-------+-----------+---------+------+-------+-------+------+--------+------------+------------+-------+
| exp_1 | succeeded | 1       | 9    | 2     | 300   | 1    | 0f     |            |            | true  |
| exp_2 | failed    | 2       |      |       |       |      |        | expired    | it is gone | true  |
+-------+-----------+---------+------+-------+-------+------+--------+------------+------------+-------+";
    assert_eq!(shown(&engine, sql).await, expected);
    let columns = "select count(*) from information_schema.columns where table_name = 'exports'";
    assert_eq!(number(&engine, columns).await, 17);
    assert!(engine.tables().iter().any(|table| table.name == "exports"));
}

#[tokio::test]
async fn a_keeper_that_is_away_is_an_error_and_without_one_there_is_no_table() {
    let told = vec![Ok(export(1, "queued")), Err("connection refused".to_owned())];
    let (lake, engine) = with_exports(told);
    let refused = ask(&engine, "select id from exports").await.unwrap_err().to_string();
    assert_eq!(refused, "read the exports: connection refused");
    let many = (0..5000).map(|n| Ok(export(n, "queued"))).collect();
    let (_other, engine) = with_exports(many);
    assert_eq!(number(&engine, "select count(distinct id) from exports").await, 5000);
    let none = ask(&lake.engine(), "select id from exports").await.unwrap_err().to_string();
    assert!(none.contains("exports"), "{none}");
    assert!(lake.engine().tables().iter().all(|table| table.name != "exports"));
}

#[tokio::test]
async fn schemas_are_those_of_the_contract_and_of_the_registry() {
    let lake = TestLake::new();
    let text: Arc<str> =
        lake.catalog.table("decisions").unwrap().schema.avro_text(NAMESPACE).into();
    let other = SchemaText {
        topic: "aion.router.decisions".into(),
        table: "decisions".into(),
        subject: Some("aion.router.decisions-value".to_owned()),
        format: "avro",
        registered: Some(Registered { version: 1, id: 7, is_deleted: true }),
        text: "\"int\"".into(),
    };
    let registered = Some(Registered { version: 2, id: 9, is_deleted: false });
    let same = SchemaText { registered, text, ..other.clone() };
    let told = vec![Ok(other), Ok(same)];
    let registered = Some(Told::new(move || stream::iter(told.clone()).boxed()));
    let engine = Engine::open(Settings { registered, ..lake.settings() }).unwrap();
    let sql = "select source, subject, format, version, id, deleted, length(text) > 100 as long from schemas
               where table_name = 'decisions' order by source, format desc, version";
    let expected = "\
+----------+-----------------------------+-------------+---------+----+---------+-------+
| source   | subject                     | format      | version | id | deleted | long  |
+----------+-----------------------------+-------------+---------+----+---------+-------+
| contract | aion.router.decisions-value | json_schema |         |    |         | true  |
| contract | aion.router.decisions-value | avro        |         |    |         | true  |
| registry | aion.router.decisions-value | avro        | 1       | 7  | true    | false |
| registry | aion.router.decisions-value | avro        | 2       | 9  | false   | true  |
+----------+-----------------------------+-------------+---------+----+---------+-------+";
    assert_eq!(shown(&engine, sql).await, expected);
    // What sha256sum says of `"int"`.
    let print = "select count(*) from schemas where id = 7
                 and fingerprint = '3f2b87a9fe7cc9b13835598c3981cd45e3e355309e5090aa0933d7becb6fba45'";
    assert_eq!(number(&engine, print).await, 1);
    let current = "select r.id from schemas r join schemas c on r.fingerprint = c.fingerprint and r.topic = c.topic
                   where r.source = 'registry' and c.source = 'contract'";
    assert_eq!(number(&engine, current).await, 9);
    let internal = "select count(*) from schemas where topic = 'aion.gaps' and subject is null and format = 'json_schema'";
    assert_eq!(number(&engine, internal).await, 1);
    let topics = "select count(distinct topic) from schemas where source = 'contract'";
    assert_eq!(number(&engine, topics).await, lake.catalog.topics.len() as i64);
    let columns = "select count(*) from information_schema.columns where table_name = 'schemas'";
    assert_eq!(number(&engine, columns).await, 10);
}

#[tokio::test]
async fn a_registry_that_is_away_is_an_error_and_without_one_the_contract_is_there() {
    let lake = TestLake::new();
    let ours = number(&lake.engine(), "select count(*) from schemas").await;
    assert!(ours > lake.catalog.topics.len() as i64);
    let none = "select count(*) from schemas where source = 'registry'";
    assert_eq!(number(&lake.engine(), none).await, 0);
    let registered =
        Some(Told::new(|| stream::iter([Err("connection refused".to_owned())]).boxed()));
    let engine = Engine::open(Settings { registered, ..lake.settings() }).unwrap();
    let refused = ask(&engine, "select text from schemas").await.unwrap_err().to_string();
    assert_eq!(refused, "read the schemas of the registry: connection refused");
}
