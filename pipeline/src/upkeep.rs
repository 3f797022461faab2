//! The lake's upkeep beside the jobs, on a schedule: compaction, retention, vacuum, clean-up of the logs.
//!
//! Every process does it, each at moments of its own. That two meet is no matter: the tables' logs let only
//! one of them have its way.

use std::{collections::BTreeMap, time::Duration};

use aion_sinks::{
    lake::{
        Lake, TableSpec,
        upkeep::{Compaction, Upkeep},
    },
    sink::SinkError,
};
use rand::Rng;
use tokio_util::sync::CancellationToken;

/// What is done, and how often.
#[derive(Clone, Debug)]
pub struct UpkeepConfig {
    /// The time between two rounds, more or less; `None`: never.
    pub every: Option<Duration>,
    /// The days that a table's rows are kept, by event date; all are kept where it isn't named.
    pub keep_days: BTreeMap<String, u32>,
}

/// Does rounds until `shutdown`. A round may stop anywhere; the file that is just being merged is finished first.
pub async fn run(
    lake: Lake,
    tables: Vec<TableSpec>,
    config: UpkeepConfig,
    compaction: Compaction,
    shutdown: CancellationToken,
) {
    let Some(every) = config.every else { return };
    let rounds = async {
        loop {
            // Not at the same moment as other processes that were started together.
            let pause = every.mul_f64(rand::rng().random_range(0.5..1.5));
            tokio::time::sleep(pause).await;
            for table in &tables {
                let keep_days = config.keep_days.get(&table.name).copied();
                if let Err(error) = round(&lake, table, keep_days, &compaction).await {
                    tracing::warn!(table = %table.name, %error, "no upkeep this time");
                }
            }
        }
    };
    shutdown.run_until_cancelled(rounds).await;
}

async fn round(
    lake: &Lake,
    spec: &TableSpec,
    keep_days: Option<u32>,
    compaction: &Compaction,
) -> Result<(), SinkError> {
    let Some(mut table) = lake.upkeep(spec.clone()).await? else { return Ok(()) };
    let expired = match keep_days {
        Some(days) => table.expire(days).await?,
        None => 0,
    };
    let compacted = table.compact(compaction, |_, _| ()).await;
    // Whatever became of that: one file that can't be read doesn't let litter grow.
    let (files, entries) = sweep(&mut table).await?;
    let compacted = compacted?;
    if expired + compacted.removed + files + entries > 0 {
        tracing::info!(
            table = %spec.name, expired, compacted = compacted.removed, into = compacted.added,
            given_up = compacted.given_up, files, entries, "upkeep done"
        );
    }
    Ok(())
}

async fn sweep(table: &mut Upkeep) -> Result<(usize, usize), SinkError> {
    Ok((table.vacuum(false).await?.files, table.clean_log(false).await?.files))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::{sync::Arc, time::Instant};

    use aion_sinks::{
        conformance::{Log, schema, settle, take},
        lake::{Settings, StoreOptions, read::Snapshot},
        sink::Sink,
    };
    use url::Url;

    use super::*;

    const TABLE: &str = "orders";
    /// Rows an hour apart, which end with the sixth day.
    const ROWS: i64 = 14 + 5 * 24;

    fn spec() -> TableSpec {
        TableSpec { name: TABLE.into(), schema: schema(), event_time: "at".into() }
    }

    async fn snapshot(lake: &Lake) -> Arc<Snapshot> {
        lake.table(TABLE).unwrap().snapshot().await.unwrap().unwrap()
    }

    async fn until(lake: &Lake, what: &str, is_so: impl Fn(&Snapshot) -> bool) {
        let start = Instant::now();
        while !is_so(&*snapshot(lake).await) {
            assert!(start.elapsed() < Duration::from_mins(1), "not within a minute: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Two processes keep one lake while a third writes to it; a table that nobody wrote yet is no matter.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rounds_beside_a_writer_leave_few_files_and_the_days_to_keep() {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(folder.path()).unwrap();
        let lake = Lake::open(&url, &StoreOptions::default()).unwrap();
        let shutdown = CancellationToken::new();
        let worth = Compaction { min_files: 2, ..Compaction::default() };
        let rounds = || {
            let keep = UpkeepConfig {
                every: Some(Duration::from_millis(40)),
                keep_days: BTreeMap::from([(TABLE.to_owned(), 2)]),
            };
            let absent = TableSpec { name: "nobody_wrote_it".into(), ..spec() };
            let tables = vec![absent, spec()];
            tokio::spawn(run(lake.clone(), tables, keep, worth.clone(), shutdown.clone()))
        };
        let both = [rounds(), rounds()];

        let log = Log::new().with_step(Duration::from_hours(1));
        let partition = log.partition(0);
        let mut sink = lake.sink(spec(), Settings::default()).await.unwrap();
        sink.assign(std::slice::from_ref(&partition)).await.unwrap();
        for first in 0..ROWS {
            take(&mut sink, log.batch(0, first, first + 1)).await;
            let flushed = settle(&mut sink).await;
            assert!(flushed.moved.is_empty(), "upkeep moves no mark");
        }
        until(&lake, "two days are left, a file each", |found| {
            found.rows() == Some(48) && found.files.len() == 2
        })
        .await;
        let found = snapshot(&lake).await;
        let mark = found.marks[&(partition.stream.id, 0)];
        assert_eq!(mark.offset.get(), ROWS);
        let last = found.files.iter().filter_map(|file| file.date).max().unwrap();
        assert_eq!(found.expired_before, Some(last - 1));

        shutdown.cancel();
        for one in both {
            tokio::time::timeout(Duration::from_secs(30), one).await.unwrap().unwrap();
        }
        let version = snapshot(&lake).await.version;
        for first in ROWS..ROWS + 8 {
            take(&mut sink, log.batch(0, first, first + 1)).await;
            settle(&mut sink).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let found = snapshot(&lake).await;
        assert_eq!((found.version, found.files.len()), (version + 8, 10), "nobody keeps it now");
    }

    #[tokio::test]
    async fn without_a_time_there_are_no_rounds() {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(folder.path()).unwrap();
        let lake = Lake::open(&url, &StoreOptions::default()).unwrap();
        let never = UpkeepConfig { every: None, keep_days: BTreeMap::new() };
        run(lake, vec![spec()], never, Compaction::default(), CancellationToken::new()).await;
    }
}
