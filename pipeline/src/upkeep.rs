//! The lake's upkeep beside the jobs, on a schedule: compaction, retention, vacuum, clean-up of the logs.
//!
//! Every process does it, each at moments of its own. That two meet is no matter: the tables' logs let only
//! one of them have its way.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aion_schemas::catalog::Topic;
use aion_sinks::{
    lake::{
        Lake,
        upkeep::{Compaction, Upkeep},
    },
    sink::SinkError,
};
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::platform::table_spec;

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
    topics: Vec<Arc<Topic>>,
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
            for topic in &topics {
                let keep_days = config.keep_days.get(&*topic.table).copied();
                if let Err(error) = round(&lake, topic, keep_days, &compaction).await {
                    tracing::warn!(table = %topic.table, %error, "no upkeep this time");
                }
            }
        }
    };
    shutdown.run_until_cancelled(rounds).await;
}

async fn round(
    lake: &Lake,
    topic: &Topic,
    keep_days: Option<u32>,
    compaction: &Compaction,
) -> Result<(), SinkError> {
    let Some(mut table) = lake.upkeep(table_spec(topic)).await? else { return Ok(()) };
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
            table = %topic.table, expired, compacted = compacted.removed, into = compacted.added,
            given_up = compacted.given_up, files, entries, "upkeep done"
        );
    }
    Ok(())
}

async fn sweep(table: &mut Upkeep) -> Result<(usize, usize), SinkError> {
    Ok((table.vacuum(false).await?.files, table.clean_log(false).await?.files))
}
