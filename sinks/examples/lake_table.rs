//! Writes a small lake table and prints what a reader must find in it, as one JSON object.
//!
//! `cargo run --release -p aion-sinks --example lake_table -- FOLDER [ROWS] | python tests/lake/readers.py`

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aion_sinks::{
    conformance::{Log, schema, settle, take},
    lake::{Lake, Settings, StoreOptions, TableSpec, upkeep::Compaction},
    sink::Sink,
};
use anyhow::{Context, bail};
use url::Url;

const PARTITIONS: i32 = 3;
/// Batches of each partition, each a flush of its own.
const BATCHES: i64 = 25;
/// So many from the end the table is compacted, and its log begins: readers have to know from a checkpoint which files are
/// no longer part of it. The last ones bring another checkpoint, made from that one.
const AFTER_CLEANUP: i64 = 12;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else { bail!("usage: lake_table FOLDER [ROWS]") };
    let rows: i64 = arguments.next().map_or(Ok(30_000), |rows| rows.parse())?;
    std::fs::create_dir_all(&folder)?;
    let folder = PathBuf::from(&folder).canonicalize()?;
    let url = Url::from_directory_path(&folder).ok().context("the folder has no URL")?;
    let lake = Lake::open(&url, &StoreOptions::default())?;
    let spec = TableSpec { name: "orders".into(), schema: schema(), event_time: "at".into() };
    let settings = |checkpoint_every| Settings { checkpoint_every, ..Settings::default() };
    let mut sink = lake.sink(spec.clone(), settings(1000)).await?;

    let each = rows / i64::from(PARTITIONS) / BATCHES;
    let log = Log::new().with_step(Duration::from_hours(3 * 24) / (each * BATCHES) as u32);
    let partitions: Vec<_> = (0..PARTITIONS).map(|number| log.partition(number)).collect();
    sink.assign(&partitions).await?;
    for batch in 0..BATCHES {
        if batch == BATCHES - AFTER_CLEANUP {
            drop(sink);
            begin_anew(&lake, spec.clone(), &folder.join("orders/_delta_log")).await?;
            // The versions of what was removed look free to a writer that was there before.
            sink = lake.sink(spec.clone(), settings(10)).await?;
            sink.assign(&partitions).await?;
        }
        for number in 0..PARTITIONS {
            take(&mut sink, log.batch(number, batch * each, (batch + 1) * each)).await;
        }
        settle(&mut sink).await;
    }

    let snapshot = lake.table("orders")?.snapshot().await?.context("the table is not there")?;
    let last = each * BATCHES;
    println!(
        "{{\"table\":\"{}\",\"version\":{},\"rows\":{},\"offset_sum\":{},\"partitions\":{PARTITIONS},\"days\":{}}}",
        folder.join("orders").display(),
        snapshot.version,
        snapshot.rows().context("a file without its count")?,
        i64::from(PARTITIONS) * last * (last - 1) / 2,
        snapshot
            .files
            .iter()
            .map(|file| file.date)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
    );
    Ok(())
}

/// Compacts the table, and leaves nothing of its log but a checkpoint, as if weeks had passed.
async fn begin_anew(lake: &Lake, spec: TableSpec, log: &Path) -> anyhow::Result<()> {
    let mut upkeep = lake.upkeep(spec).await?.context("the table is not there")?;
    let compacted = upkeep.compact(&Compaction::default(), |_, _| ()).await?;
    if compacted.added == 0 {
        bail!("no files were compacted");
    }
    let version = upkeep.checkpoint().await?;
    for entry in 0..version {
        std::fs::remove_file(log.join(format!("{entry:020}.json")))?;
    }
    Ok(())
}
