//! CPU time of encoding and committing rows into a lake table, per row; nine columns of an event and five of its place.
//!
//! `cargo bench -p aion-sinks --bench lake -- [ROWS] [BATCH_ROWS]`

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::{
    log::{Offset, Partition},
    schema::{position_fields, time_type},
};
use aion_sinks::{
    batch::Batch,
    budget::Budget,
    conformance::{EPOCH_US, Log, settle, take},
    lake::{Lake, Settings, StoreOptions, TableSpec},
    sink::Sink,
};
use anyhow::{Context, ensure};
use arrow::{
    array::{
        ArrayRef, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
        new_null_array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use url::Url;

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<i64>().ok());
    let rows = numbers.next().unwrap_or(1_000_000);
    let batch_rows = numbers.next().unwrap_or(4096);
    let runtime = tokio::runtime::Runtime::new()?;
    for flush_rows in [rows, rows / 4, rows / 16] {
        runtime.block_on(run(rows, batch_rows, flush_rows))?;
    }
    Ok(())
}

async fn run(rows: i64, batch_rows: i64, flush_rows: i64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let url = Url::from_directory_path(folder.path()).ok().context("the folder has no URL")?;
    let lake = Lake::open(&url, &StoreOptions::default())?;
    let spec = TableSpec { name: "decisions".into(), schema: schema(), event_time: "at".into() };
    let settings = Settings { hold_bytes: usize::MAX, ..Settings::default() };
    let mut sink = lake.sink(spec, settings).await?;
    let partition = Log::new().partition(0);
    sink.assign(std::slice::from_ref(&partition)).await?;

    let (mut cpu_s, mut wall, mut written) = (0.0, Duration::ZERO, 0);
    while written < rows {
        let end = (written + flush_rows).min(rows);
        let mut batches = Vec::new();
        while written < end {
            let next = (written + batch_rows).min(end);
            batches.push(batch(&partition, written, next)?);
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

    let snapshot = lake.table("decisions")?.snapshot().await?.context("there is no table")?;
    ensure!(snapshot.rows() == Some(rows as u64), "the table has {:?} rows", snapshot.rows());
    let bytes: u64 = snapshot.files.iter().map(|file| file.size).sum();
    println!(
        "{rows} rows, {flush_rows} a flush: {:.0} ns CPU a row, {:.0} ns wall, {:.1} bytes a row",
        cpu_s * 1e9 / rows as f64,
        wall.as_nanos() as f64 / rows as f64,
        bytes as f64 / rows as f64,
    );
    Ok(())
}

fn schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("task_id", DataType::Utf8, false),
        Field::new("tenant_id", DataType::Utf8, false),
        Field::new("intent", DataType::Utf8, false),
        Field::new("route", DataType::Utf8, false),
        Field::new("tier", DataType::Utf8, false),
        Field::new("size", DataType::Int64, false),
        Field::new("latency_ms", DataType::Float64, false),
        Field::new("cost", DataType::Float64, true),
        Field::new("at", time_type(), false),
    ];
    fields.extend(position_fields());
    Arc::new(Schema::new(fields))
}

fn batch(partition: &Partition, first: i64, end: i64) -> anyhow::Result<Batch> {
    let offsets = || first..end;
    let count = offsets().count();
    let texts = |name: &'static str, kinds: u64| -> ArrayRef {
        let values = offsets().map(|offset| format!("{name}-{}", mix(offset, kinds) % kinds));
        Arc::new(StringArray::from_iter_values(values))
    };
    let ids = offsets().map(|offset| {
        let (a, b) = (mix(offset, 1), mix(offset, 2));
        uuid::Uuid::from_u64_pair(a, b).to_string()
    });
    let times = |spread: u64| -> ArrayRef {
        let times = offsets().map(|o| EPOCH_US + o * 1000 + (mix(o, 3) % spread) as i64);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let numbers = |salt| offsets().map(move |o| (mix(o, salt) % 100_000) as f64 / 100.0);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(ids)),
        texts("tenant", 200),
        texts("intent", 12),
        texts("route", 4),
        texts("tier", 3),
        Arc::new(Int64Array::from_iter_values(offsets().map(|o| (mix(o, 5) % 10_000) as i64))),
        Arc::new(Float64Array::from_iter_values(numbers(6))),
        Arc::new(numbers(7).map(|n| (n > 300.0).then_some(n)).collect::<Float64Array>()),
        times(2_000_000),
        Arc::new(StringArray::from(vec![partition.stream.id.to_string(); count])),
        Arc::new(Int32Array::from(vec![4; count])),
        Arc::new(Int32Array::from(vec![partition.number; count])),
        Arc::new(Int64Array::from_iter_values(offsets())),
        times(1000),
        new_null_array(&DataType::Utf8, count),
    ];
    let rows = RecordBatch::try_new(schema(), columns)?;
    Ok(Batch {
        partition: partition.clone(),
        range: Offset(first)..Offset(end),
        epoch: 4,
        appended: None,
        memory: Budget::new(usize::MAX).take(rows.get_array_memory_size()),
        rows,
    })
}

/// A number that looks random and depends on its input alone.
fn mix(offset: i64, salt: u64) -> u64 {
    let mut x = (offset as u64).wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// User and system time of this process so far.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}
