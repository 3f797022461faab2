//! Can this table give the guarantee? Looked at before the first partition is assigned.
//!
//! | looked at | refused when | because |
//! |---|---|---|
//! | engine | not MergeTree | Replacing and its like drop rows when parts merge; Distributed splits an INSERT; a replicated table's tokens live in Keeper, for which nothing is proven |
//! | partition key | not `_batch_day` | a batch would be several parts |
//! | `non_replicated_deduplication_window` | less than four times the parts that come while an INSERT may be on its way | a token would be forgotten before its writer is refused |
//! | constraint `lease` | missing | a writer that slept would not be refused |
//! | columns | one missing, or of another type | rows would lose it |
//! | materialized views that read from it | any | their rows are not counted by anybody: said in a warning |

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use aion_schemas::clickhouse::{LEASE, LEDGER_COLUMNS, MARKS};

use super::{
    Settings,
    failure::Failure,
    landing::Table,
    plan::{self, Live},
};
use crate::sink::SinkError;

/// What to do about a table that isn't as it has to be.
const HINT: &str = "run `aion clickhouse plan` to see what differs, and `aion clickhouse apply`";

/// Refuses a table that can't give the guarantee; learns how long it keeps rows.
pub(super) async fn table(table: &Table) -> Result<(), SinkError> {
    let client = &table.ledger.client;
    let name = &table.spec.name;
    let database = &client.server().database;
    let doing = format!("look at {database}.{name}");
    let refused =
        |cause: String| SinkError::Fatal { doing: doing.clone(), cause, hint: HINT.to_owned() };
    let failed = |failure: Failure| failure.error(&doing);
    let live = plan::live(client, name).await.map_err(failed)?;
    let Some(live) = live else { return Err(refused("there is no such table".to_owned())) };
    if plan::live(client, MARKS).await.map_err(failed)?.is_none() {
        return Err(refused(format!("there is no table {database}.{MARKS} beside it")));
    }
    if let Some(cause) = unfit(&live, least_window(table.spec.partitions, &table.settings)) {
        return Err(refused(cause));
    }
    let fields = table.spec.schema.fields().iter().map(|field| field.name().as_str());
    let missing = fields.chain(LEDGER_COLUMNS).find(|name| !live.columns.contains_key(*name));
    if let Some(column) = missing {
        return Err(refused(format!("it has no column {column}")));
    }
    if !live.readers.is_empty() {
        tracing::warn!(
            table = name,
            views = live.readers.join(", "),
            "materialized views read from the table: their rows are exactly once only where the target has a \
             deduplication window too"
        );
    }
    table.kept_days.store(live.kept_days().unwrap_or(0), Relaxed);
    Ok(())
}

/// So many tokens a table must remember: four times the parts that come while an INSERT may still be on its way.
pub fn least_window(partitions: usize, settings: &Settings) -> u64 {
    let on_its_way = settings.lease + settings.max_execution;
    let every = settings.flush_age.max(Duration::from_secs(1));
    4 * partitions.max(1) as u64 * on_its_way.as_secs().div_ceil(every.as_secs()).max(1)
}

/// What keeps a table from giving the guarantee.
pub(super) fn unfit(live: &Live, least_window: u64) -> Option<String> {
    let window = live.setting("non_replicated_deduplication_window").unwrap_or(0);
    if live.engine != "MergeTree" {
        let engine = &live.engine;
        return Some(format!("its engine is {engine}: exactly once is given into MergeTree only"));
    }
    if live.partition_key != "_batch_day" {
        let key = &live.partition_key;
        return Some(format!("its partition key is {key:?}, where it must be _batch_day"));
    }
    if window < least_window {
        return Some(format!(
            "non_replicated_deduplication_window is {window}, and with this many partitions and this \
             flush_age_s it must be {least_window} at least"
        ));
    }
    (!live.has_lease()).then(|| format!("it has no constraint {LEASE} CHECK _lease > now()"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_outlasts_whatever_is_on_its_way() {
        let settings = Settings::default();
        assert_eq!(least_window(4, &settings), 4 * 4 * 24);
        let quick = Settings { flush_age: Duration::ZERO, ..settings };
        assert_eq!(least_window(64, &quick), 4 * 64 * 120);
    }
}
