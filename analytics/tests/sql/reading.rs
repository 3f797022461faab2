//! What queries see, and how much of the lake they look at.

use aion_analytics::{Engine, Settings, control::Told};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::lake::{TestLake, ask, collect, decision, number, shown};

/// Three flushes: two on one day, one on the day before.
async fn three_files() -> TestLake {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("a", "small", "2026-11-24T10:00:00Z")]).await;
    let morning = [decision("b", "small", "08:00:00.5"), decision("c", "large", "09:00:00.000001")];
    lake.append("decisions", 1, &morning).await;
    lake.append("decisions", 3, &[decision("d", "large", "20:00:00")]).await;
    lake
}

/// How many files the plan of a query reads.
async fn files_read(lake: &TestLake, sql: &str) -> usize {
    shown(&lake.engine(), &format!("explain format indent {sql}")).await.matches(".parquet").count()
}

#[tokio::test]
async fn rows_come_as_they_were_written() {
    let lake = three_files().await;
    let sql = "select task_id, route, timestamp, _partition, _offset, _date \
               from decisions order by _offset";
    let expected = "\
+---------+-------+-----------------------------+------------+---------+------------+
| task_id | route | timestamp                   | _partition | _offset | _date      |
+---------+-------+-----------------------------+------------+---------+------------+
| a       | small | 2026-11-24T10:00:00Z        | 0          | 0       | 2026-11-24 |
| b       | small | 2026-11-25T08:00:00.500Z    | 0          | 1       | 2026-11-25 |
| c       | large | 2026-11-25T09:00:00.000001Z | 0          | 2       | 2026-11-25 |
| d       | large | 2026-11-25T20:00:00Z        | 0          | 3       | 2026-11-25 |
+---------+-------+-----------------------------+------------+---------+------------+";
    assert_eq!(shown(&lake.engine(), sql).await, expected);
}

#[tokio::test]
async fn columns_are_the_schemas_then_the_positions_then_the_date() {
    let lake = TestLake::new();
    let rows = lake.engine().query("select * from decisions").await.unwrap();
    let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names[..3], ["event_id", "task_id", "tenant_id"]);
    let tail =
        ["_topic_id", "_leader_epoch", "_partition", "_offset", "_append_time", "_origin", "_date"];
    assert_eq!(names[names.len() - 7..], tail);
}

/// Each value is looked at once for all of its rows.
#[tokio::test]
async fn searches_in_text_of_few_values_find_each_row() {
    let lake = TestLake::new();
    let models = ["a small model", "", "a model of a good size, 70b", "70b"];
    let row = |n: usize| {
        let mut row = decision(&format!("t-{n}"), "local", "07:00:00");
        let model = models[n % models.len()];
        row["engine_model"] = if model.is_empty() { json!(null) } else { json!(model) };
        row
    };
    let rows: Vec<_> = (0..4000).map(row).collect();
    lake.append("decisions", 0, &rows).await;
    let engine = lake.engine();
    for (condition, count) in [
        ("engine_model like '%70b%'", 2000),
        ("engine_model not like '%70b%'", 1000),
        ("engine_model like '%70b%' or engine_model is null", 3000),
        ("engine_model ~ '^a .*l$'", 1000),
        ("engine_model ilike '%SIZE%' and _offset < 2000", 500),
        ("upper(engine_model) like 'A%' and engine_model <> 'a small model'", 1000),
        ("engine_model like 'z%'", 0),
    ] {
        let sql = format!("select count(*) from decisions where {condition}");
        assert_eq!(number(&engine, &sql).await, count, "{condition}");
    }
}

/// In the plan that is carried out: a step of planning that comes too early or too late finds none of them.
#[tokio::test]
async fn searches_in_text_are_made_once_for_each_value() {
    let lake = three_files().await;
    let engine = lake.engine();
    let plan = async |condition: &str| {
        let rows = format!("select count(*) from decisions where {condition}");
        shown(&engine, &format!("explain analyze {rows}")).await
    };
    for (condition, search) in [
        ("reason like '%lic%'", "predicate=once(reason@"),
        ("reason not like '%lic'", "predicate=once(reason@"),
        ("reason ilike '%LIC%'", "predicate=once(reason@"),
        ("reason ~ '^p.*[a-z]y$'", "predicate=once(reason@"),
        ("reason !~ '^q.*[a-z]y$'", "predicate=once(reason@"),
        ("upper(reason) like 'P%'", "predicate=once(upper(reason@"),
        ("reason like '%lic%' and _offset < 3", "once(reason@"),
    ] {
        let plan = plan(condition).await;
        assert!(plan.contains(search), "{condition}: {plan}");
    }
    let plan = plan("reason = 'policy'").await;
    assert!(plan.contains("predicate=reason@") && !plan.contains("once("), "{plan}");
}

#[tokio::test]
async fn counts_read_no_file() {
    let lake = three_files().await;
    for (sql, count) in [
        ("select count(*) from decisions", 4),
        ("select count(*) from decisions where _date = '2026-11-25'", 3),
        ("select count(*) from decisions where _date < date '2026-11-25'", 1),
        ("select count(*) from decisions where _date = '2020-01-01'", 0),
    ] {
        assert_eq!(number(&lake.engine(), sql).await, count, "{sql}");
        assert_eq!(files_read(&lake, sql).await, 0, "{sql}");
    }
}

#[tokio::test]
async fn files_are_skipped_by_date_event_time_and_offset() {
    let lake = three_files().await;
    for (filter, files, rows) in [
        ("true", 3, 4),
        ("_date = '2026-11-25' and task_id > ''", 2, 3),
        ("timestamp >= '2026-11-25T12:00:00Z'", 1, 1),
        ("timestamp > timestamp '2026-11-25 09:00:00'", 2, 2),
        ("timestamp > '2026-11-25T09:00:00.002Z'", 1, 1),
        ("timestamp between '2026-11-24' and '2026-11-25'", 1, 1),
        ("timestamp > now() + interval '100 years'", 0, 0),
        ("_offset = 2", 1, 1),
        ("_offset = 2 or _date = '2026-11-24'", 2, 2),
        ("date_trunc('day', timestamp) = '2026-11-24'", 3, 1),
        ("not (_offset < 3)", 1, 1),
        ("timestamp is null", 3, 0),
    ] {
        let from = format!("from decisions where {filter}");
        assert_eq!(
            number(&lake.engine(), &format!("select count(*) {from}")).await,
            rows,
            "{filter}"
        );
        let read = files_read(&lake, &format!("select task_id {from}")).await;
        assert_eq!(read, files, "{filter}");
    }
}

#[tokio::test]
async fn filters_go_down_into_the_files() {
    let lake = three_files().await;
    let plan = shown(
        &lake.engine(),
        "explain format indent select timestamp from decisions where route = 'large'",
    )
    .await;
    assert!(plan.contains("predicate=route"), "{plan}");
    assert!(!plan.contains("FilterExec"), "{plan}");
    let found = "select count(*) from decisions where route = 'large' and _date = '2026-11-25'";
    assert_eq!(number(&lake.engine(), found).await, 2);
}

#[tokio::test]
async fn least_and_greatest_times_are_right_to_the_microsecond() {
    let lake = three_files().await;
    let sql = "select min(timestamp), max(timestamp) from decisions where _offset in (1, 2)";
    let answer = shown(&lake.engine(), sql).await;
    assert!(
        answer.contains("| 2026-11-25T08:00:00.500Z | 2026-11-25T09:00:00.000001Z |"),
        "{answer}"
    );
}

#[tokio::test]
async fn tables_join_and_times_are_cut() {
    let lake = three_files().await;
    let task = |id, status, time| json!({"task_id": id, "status": status, "timestamp": time});
    lake.append(
        "tasks",
        0,
        &[
            task("b", "completed", "2026-11-25T08:00:02Z"),
            task("d", "failed", "2026-11-25T20:00:09Z"),
            task("z", "failed", "2026-11-25T21:00:00Z"),
        ],
    )
    .await;
    let sql = "select route, status, date_trunc('hour', d.timestamp) as hour, \
               extract(epoch from (t.timestamp - d.timestamp)) as seconds \
               from decisions d join tasks t on t.task_id = d.task_id order by hour";
    let expected = "\
+-------+-----------+----------------------+---------+
| route | status    | hour                 | seconds |
+-------+-----------+----------------------+---------+
| small | completed | 2026-11-25T08:00:00Z | 1.5     |
| large | failed    | 2026-11-25T20:00:00Z | 9.0     |
+-------+-----------+----------------------+---------+";
    assert_eq!(shown(&lake.engine(), sql).await, expected);
}

#[tokio::test]
async fn an_empty_lake_has_empty_tables() {
    let engine = TestLake::new().engine();
    // The contract has schemas before there are rows.
    for table in engine.tables().iter().filter(|table| table.name != "schemas") {
        let count = format!("select count(*) from {}", table.name);
        assert_eq!(number(&engine, &count).await, 0, "{}", table.name);
        let rows = ask(&engine, &format!("select * from {}", table.name)).await.unwrap();
        assert_eq!(rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 0);
    }
}

#[tokio::test]
async fn the_listed_columns_are_those_of_the_tables() {
    let engine = TestLake::new().engine();
    for table in engine.tables() {
        let answer = engine.query(&format!("select * from {}", table.name)).await.unwrap();
        let real: Vec<_> = answer.schema().fields().iter().map(|field| field.name()).collect();
        let listed: Vec<_> = table.columns.iter().map(|column| &column.name).collect();
        assert_eq!(real, listed, "{}", table.name);
        assert!(table.columns.iter().all(|c| !c.doc.is_empty() && !c.sql_type.is_empty()));
    }
}

#[tokio::test]
async fn a_query_sees_one_snapshot_while_others_write() {
    let lake = TestLake::new();
    let long = "x".repeat(200);
    let many: Vec<_> =
        (0..20_000).map(|n| decision(&format!("{n}{long}"), "small", "10:00:00")).collect();
    lake.append("decisions", 0, &many).await;
    let engine = lake.engine();
    // More rows than fit between the query and its reader, so that it is still reading afterwards.
    let mut answer = engine.query("select task_id from decisions").await.unwrap();
    let first = answer.try_next().await.unwrap().unwrap().num_rows();
    lake.append("decisions", 20_000, &[decision("new", "small", "10:00:01")]).await;
    let rest: usize =
        collect(answer).await.unwrap().iter().map(arrow::array::RecordBatch::num_rows).sum();
    assert_eq!(first + rest, 20_000);
    let twice = "select (select count(*) from decisions) - (select count(task_id) from decisions)";
    assert_eq!(number(&engine, twice).await, 0);
    assert_eq!(number(&engine, "select count(*) from decisions").await, 20_001);
}

#[tokio::test]
async fn the_catalog_can_be_looked_at() {
    let engine = TestLake::new().engine();
    let tables = shown(&engine, "show tables").await;
    for name in ["decisions", "tasks", "metrics", "audit", "dead_letters", "gaps", "lag"] {
        assert!(tables.contains(&format!(" {name} ")), "{name} in {tables}");
    }
    assert!(shown(&engine, "describe decisions").await.contains("_date"));
    let columns = "select count(*) from information_schema.columns where table_name = 'decisions'";
    assert!(number(&engine, columns).await > 6);
    assert!(shown(&engine, "explain select 1").await.contains("plan"));
    let cte = "with decided as (select 1 as one) select one from decided";
    assert_eq!(number(&engine, cte).await, 1);
}

#[tokio::test]
async fn the_queries_of_the_handbook_are_answered() {
    let lake = three_files().await;
    let exports = Some(Told::new(|| stream::empty().boxed()));
    let engine = Engine::open(Settings { exports, ..lake.settings() }).unwrap();
    let handbook = include_str!("../../../docs/sql.md");
    let queries: Vec<_> = handbook.split("```sql\n").skip(1).collect();
    assert!(queries.len() >= 5);
    for query in queries {
        let query = query.split("```").next().unwrap().trim().trim_end_matches(';');
        shown(&engine, query).await;
    }
}
