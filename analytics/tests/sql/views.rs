//! The views, against the same computed here by hand.

use std::{collections::BTreeMap, fmt::Write};

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
};
use serde_json::{Value, json};

use crate::lake::{TestLake, ask, decision, number, shown};

fn task(id: &str, status: &str, second: i64, latency_ms: Option<i64>, retries: i64) -> Value {
    let time = format!("2026-11-25T10:{:02}:{:02}Z", second / 60, second % 60);
    json!({"task_id": id, "status": status, "timestamp": time, "latency_ms": latency_ms,
           "retries": retries})
}

/// The value at 95 % of sorted values, between its neighbours.
fn p95(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = (values.len().checked_sub(1)?) as f64 * 0.95;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

#[tokio::test]
async fn task_latency_is_what_a_hand_computes() {
    let lake = TestLake::new();
    let events: Vec<(i64, &str, Option<i64>, i64)> = (0..400)
        .map(|n| {
            let status = ["succeeded", "failed", "running"][(n % 3) as usize];
            let latency = (n % 7 != 0).then_some((n * 7919) % 1000);
            ((n * 13) % 300, status, latency, n % 4)
        })
        .collect();
    let rows = events
        .iter()
        .map(|(at, status, latency, retries)| task("t", status, *at, *latency, *retries));
    let rows: Vec<_> = rows.collect();
    lake.append("tasks", 0, &rows).await;

    let mut windows: BTreeMap<(i64, &str), (i64, Vec<f64>, i64)> = BTreeMap::new();
    for (at, status, latency, retries) in &events {
        for start in [at / 30 * 30, at / 30 * 30 - 30] {
            let window = windows.entry((start, status)).or_default();
            window.0 += 1;
            window.1.extend(latency.map(|ms| ms as f64));
            window.2 += retries;
        }
    }
    // The engine interpolates quantiles to some four digits behind the point.
    let mut wanted = String::new();
    for ((start, status), (events, values, retries)) in &mut windows {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let p95 = p95(values).unwrap();
        writeln!(wanted, "{start} {status} {events} {mean:.6} {p95:.2} {retries}").unwrap();
    }
    let sql = "select cast(extract(epoch from window_start) - extract(epoch from \
               timestamp '2026-11-25 10:00:00') as bigint) as start, status, events, average_ms, p95_ms, \
               retries, extract(epoch from window_end - window_start) as width \
               from task_latency order by start, status";
    let mut seen = String::new();
    for rows in ask(&lake.engine(), sql).await.unwrap() {
        let status = cast(rows.column(1), &DataType::Utf8).unwrap();
        let whole = |at: usize, row| rows.column(at).as_primitive::<Int64Type>().value(row);
        let real = |at: usize, row| rows.column(at).as_primitive::<Float64Type>().value(row);
        for row in 0..rows.num_rows() {
            let status = status.as_string::<i32>().value(row);
            writeln!(
                seen,
                "{} {status} {} {:.6} {:.2} {}",
                whole(0, row),
                whole(2, row),
                real(3, row),
                real(4, row),
                whole(5, row)
            )
            .unwrap();
            assert!((real(6, row) - 60.0).abs() < 1e-9);
        }
    }
    assert_eq!(seen, wanted);
    let bounded = "select sum(events) from task_latency \
                   where window_start between '2026-11-25T10:01:00Z' and '2026-11-25T10:02:00Z'";
    let inside =
        |((start, _), _): &(&(i64, &str), &(i64, Vec<f64>, i64))| (60..=120).contains(start);
    let expected: i64 = windows.iter().filter(inside).map(|(_, window)| window.0).sum();
    assert_eq!(number(&lake.engine(), bounded).await, expected);
}

#[tokio::test]
async fn a_filter_on_a_windows_start_skips_files() {
    let lake = TestLake::new();
    lake.append("tasks", 0, &[task("a", "succeeded", 10, Some(5), 0)]).await;
    lake.append("tasks", 1, &[task("b", "succeeded", 2000, Some(5), 0)]).await;
    let sql = "explain format indent select * from task_latency \
               where window_start >= '2026-11-25T10:30:00Z'";
    let plan = shown(&lake.engine(), sql).await;
    assert_eq!(plan.matches(".parquet").count(), 2, "one file, once for each half: {plan}");
}

#[tokio::test]
async fn a_decision_has_the_last_end_of_its_task() {
    let lake = TestLake::new();
    lake.append(
        "decisions",
        0,
        &[
            decision("a", "local", "10:00:00"),
            decision("b", "cloud", "10:00:01"),
            decision("c", "cloud", "10:00:02"),
            decision("a", "cloud", "10:00:30"),
        ],
    )
    .await;
    lake.append(
        "tasks",
        0,
        &[
            task("a", "failed", 20, Some(20_000), 0),
            task("a", "running", 50, None, 1),
            task("a", "succeeded", 60, Some(60_000), 1),
            task("b", "running", 5, None, 0),
            task("b", "cancelled", 9, Some(8000), 0),
            task("z", "succeeded", 9, Some(1), 0),
        ],
    )
    .await;
    let columns = "task_id, route, outcome, latency_ms, retries, _offset";
    let sql = format!("select {columns} from decision_outcomes order by _offset");
    let expected = "\
+---------+-------+-----------+------------+---------+---------+
| task_id | route | outcome   | latency_ms | retries | _offset |
+---------+-------+-----------+------------+---------+---------+
| a       | local | succeeded | 60000      | 1       | 0       |
| b       | cloud | cancelled | 8000       | 0       | 1       |
| c       | cloud |           |            |         | 2       |
| a       | cloud | succeeded | 60000      | 1       | 3       |
+---------+-------+-----------+------------+---------+---------+";
    assert_eq!(shown(&lake.engine(), &sql).await, expected);
    let ended = "select count(*) from decision_outcomes \
                where decided_at >= '2026-11-25T10:00:02Z' and outcome = 'succeeded'";
    assert_eq!(number(&lake.engine(), ended).await, 1);
}
