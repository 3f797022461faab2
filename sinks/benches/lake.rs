//! CPU time of encoding and committing rows into a lake table, per row.
//!
//! `cargo bench -p aion-sinks --bench lake -- [ROWS] [BATCH_ROWS]`

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aion_sinks::{
    conformance::{Log, schema, settle, take},
    lake::{Lake, Settings, TableSpec},
    sink::Sink,
};
use url::Url;

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<i64>().ok());
    let rows = numbers.next().unwrap_or(1_000_000);
    let batch_rows = numbers.next().unwrap_or(4096);
    let runtime = tokio::runtime::Runtime::new()?;
    for flush_rows in [rows / 4, rows / 16] {
        runtime.block_on(run(rows, batch_rows, flush_rows))?;
    }
    Ok(())
}

async fn run(rows: i64, batch_rows: i64, flush_rows: i64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let url = Url::from_directory_path(folder.path()).map_err(|()| anyhow::anyhow!("no URL"))?;
    let lake = Lake::open(&url, &HashMap::new())?;
    let spec = TableSpec { name: "orders".into(), schema: schema(), event_time: "at".into() };
    let mut sink =
        lake.sink(spec, Settings { hold_bytes: usize::MAX, ..Settings::default() }).await?;
    let log = Log::new().with_step(Duration::from_millis(1));
    sink.assign(&[log.partition(0)]).await?;

    let (mut cpu_s, mut wall, mut written) = (0.0, Duration::ZERO, 0);
    while written < rows {
        let end = (written + flush_rows).min(rows);
        let mut batches = Vec::new();
        while written < end {
            let next = (written + batch_rows).min(end);
            batches.push(log.batch(0, written, next));
            written = next;
        }
        let (cpu_before, start) = (cpu_seconds()?, Instant::now());
        for batch in batches {
            take(&mut sink, batch).await;
        }
        settle(&mut sink).await;
        cpu_s += cpu_seconds()? - cpu_before;
        wall += start.elapsed();
    }

    let snapshot = lake.table("orders")?.snapshot().await?;
    let bytes: u64 = snapshot.iter().flat_map(|s| &s.files).map(|file| file.size).sum();
    println!(
        "{rows} rows in flushes of {flush_rows}: {:.0} ns CPU a row, {:.0} ns wall, {:.1} bytes a row",
        cpu_s * 1e9 / rows as f64,
        wall.as_nanos() as f64 / rows as f64,
        bytes as f64 / rows as f64,
    );
    Ok(())
}

/// User and system time of this process so far.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}
