//! Writes a small lake table and prints what a reader must find in it, as one JSON object.
//!
//! `cargo run --release -p aion-sinks --example lake_table -- FOLDER [ROWS] | python tests/lake/readers.py`

use std::{path::PathBuf, time::Duration};

use aion_sinks::{
    conformance::{Log, schema, settle, take},
    lake::{Lake, Settings, StoreOptions, TableSpec},
    sink::Sink,
};
use anyhow::{Context, bail};
use url::Url;

const PARTITIONS: i32 = 3;
/// Batches of each partition, each a flush of its own.
const BATCHES: i64 = 25;

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
    let settings = Settings { checkpoint_every: 10, ..Settings::default() };
    let mut sink = lake.sink(spec, settings).await?;

    let each = rows / i64::from(PARTITIONS) / BATCHES;
    let log = Log::new().with_step(Duration::from_hours(3 * 24) / (each * BATCHES) as u32);
    let partitions: Vec<_> = (0..PARTITIONS).map(|number| log.partition(number)).collect();
    sink.assign(&partitions).await?;
    for batch in 0..BATCHES {
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
