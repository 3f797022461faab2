//! What 100,000 series cost: to add up a second of events, to checkpoint, to show, to compress; and what it costs those
//! who add up that somebody looks all the time.
//!
//! `cargo bench --workspace --bench prometheus -- [SERIES]`

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use aion_schemas::{
    log::{Offset, Partition, Stream, Timestamp},
    schema::{position_fields, time_type},
};
use aion_sinks::{
    batch::Batch,
    budget::Reservation,
    conformance::{EPOCH_US, settle, take},
    lake::Lake,
    prometheus::{Series, Settings, board::Board, source::Source},
    sink::Sink,
    store::StoreOptions,
};
use anyhow::{Context, ensure};
use arrow::{
    array::{
        ArrayRef, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
        new_null_array,
    },
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use flate2::{Compression, write::GzEncoder};
use url::Url;
use uuid::Uuid;

const PARTITIONS: i32 = 4;

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<i64>().ok());
    let series = numbers.next().unwrap_or(100_000);
    tokio::runtime::Runtime::new()?.block_on(run(series))
}

async fn run(series: i64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let url = Url::from_directory_path(folder.path()).ok().context("the folder has no URL")?;
    let lake = Lake::open(&url, &StoreOptions::default())?;
    let settings = Settings {
        flush_age: Duration::ZERO,
        hold_bytes: usize::MAX,
        max_series: usize::MAX,
        max_series_per_metric: usize::MAX,
        ..Settings::default()
    };
    let board = Board::default();
    let stream = Stream { topic: "metrics".into(), id: Uuid::new_v4() };
    let mut sink = Series::open(&lake).await?.sink("metrics", Source::Runtime, settings, &board)?;
    let partitions: Vec<Partition> =
        (0..PARTITIONS).map(|number| Partition { stream: stream.clone(), number }).collect();
    sink.assign(&partitions).await?;

    let each = series / i64::from(PARTITIONS);
    let mut first = 0;
    let mut add_up = async |what: &str| -> anyhow::Result<()> {
        let batches = partitions.iter().map(|one| batch(one, first, each));
        let batches = batches.collect::<anyhow::Result<Vec<_>>>()?;
        first += each;
        let start = Instant::now();
        for batch in batches {
            take(&mut sink, batch).await;
        }
        settle(&mut sink).await;
        let took = start.elapsed();
        println!("{series} events, {what}: added up and checkpointed in {} ms", took.as_millis());
        Ok(())
    };
    add_up("all of them new").await?;
    for _ in 0..3 {
        add_up("all of them known").await?;
    }
    show(&board, each * i64::from(PARTITIONS))?;
    let (is_over, pages) = (AtomicBool::new(false), AtomicU32::new(0));
    let looking = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                compressed(&board.page(Timestamp(EPOCH_US), Duration::MAX)).ok();
                pages.fetch_add(1, Ordering::Relaxed);
            }
        });
        let handle = tokio::runtime::Handle::current();
        let added = tokio::task::block_in_place(|| {
            (0..3).try_for_each(|_| handle.block_on(add_up("while pages are made without a pause")))
        });
        is_over.store(true, Ordering::Relaxed);
        added
    });
    println!("{} pages meanwhile", pages.into_inner());
    looking
}

/// How long a page takes, and its compression.
fn show(board: &Board, wanted: i64) -> anyhow::Result<()> {
    let (mut best, mut best_compressed) = (Duration::MAX, Duration::MAX);
    let (mut bytes, mut compressed_bytes) = (0, 0);
    for _ in 0..7 {
        let start = Instant::now();
        let page = board.page(Timestamp(EPOCH_US), Duration::MAX);
        best = best.min(start.elapsed());
        let shown = page.lines().filter(|line| line.starts_with("aion_runtime_")).count();
        ensure!(shown as i64 == wanted, "{shown} series are shown");
        let start = Instant::now();
        (bytes, compressed_bytes) = (page.len(), compressed(&page)?.len());
        best_compressed = best_compressed.min(start.elapsed());
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{wanted} series: a page of {bytes} bytes in {:.1} ms, compressed to {compressed_bytes} in {:.1} ms more",
        ms(best),
        ms(best_compressed)
    );
    Ok(())
}

/// As the process answers.
fn compressed(page: &str) -> anyhow::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::with_capacity(page.len() / 8), Compression::fast());
    out.write_all(page.as_bytes())?;
    Ok(out.finish()?)
}

/// One event of each series of a partition.
fn batch(partition: &Partition, first: i64, count: i64) -> anyhow::Result<Batch> {
    let rows = count as usize;
    let numbers = || 0..count;
    let times = || -> ArrayRef {
        let times = numbers().map(|_| EPOCH_US);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let labels = numbers().map(|n| format!(r#"{{"code":{},"user":"user-{n}"}}"#, n % 7));
    let components = numbers().map(|n| format!("router-{}-{}", partition.number, n % 5));
    let metrics = numbers().map(|n| format!("requests_{}_total", n % 50));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(components)),
        Arc::new(StringArray::from_iter_values(metrics)),
        Arc::new(Float64Array::from_iter_values(numbers().map(|n| (n % 10) as f64))),
        Arc::new(StringArray::from_iter_values(labels)),
        times(),
        Arc::new(StringArray::from(vec!["counter"; rows])),
        new_null_array(&DataType::Utf8, rows),
        Arc::new(StringArray::from(vec![partition.stream.id.to_string(); rows])),
        Arc::new(Int32Array::from(vec![1; rows])),
        Arc::new(Int32Array::from(vec![partition.number; rows])),
        Arc::new(Int64Array::from_iter_values(first..first + count)),
        times(),
        new_null_array(&DataType::Utf8, rows),
    ];
    let mut fields = vec![
        Field::new("component", DataType::Utf8, false),
        Field::new("metric", DataType::Utf8, false),
        Field::new("value", DataType::Float64, false),
        Field::new("labels", DataType::Utf8, true),
        Field::new("timestamp", time_type(), false),
        Field::new("kind", DataType::Utf8, true),
        Field::new("unit", DataType::Utf8, true),
    ];
    fields.extend(position_fields());
    Ok(Batch {
        partition: partition.clone(),
        range: Offset(first)..Offset(first + count),
        epoch: 1,
        appended: None,
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?,
        memory: Reservation::none(),
    })
}
