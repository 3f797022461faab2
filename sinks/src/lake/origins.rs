//! Retries: rows that say in `_origin` of which rejected record they are the copy. Each lands once, however often
//! somebody sends it.
//!
//! | as of the version that the put builds on, the table has | the retry |
//! |---|---|
//! | a row with that `_origin` | is skipped |
//! | the record itself as a row | is skipped |
//! | neither, and its mark has passed the record | lands |
//! | neither, and its mark has yet to pass the record | lands, with a transaction by which the record is skipped |
//!
//! The last is a process that died between a dead letter and the mark after it: a later build may read the record.
//! The transaction is `<topic id>/<partition>/retried/<offset>`, and there are as many as there are such retries.
//!
//! **Invariant:** what a put builds on was looked at: entries that come in between are looked at before the next try.
//! **Invariant:** a flush without retries reads no file.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aion_schemas::{
    log::{Offset, Origin, Partition},
    schema::ORIGIN_COLUMN,
};
use arrow::{
    array::{AsArray, types},
    record_batch::RecordBatch,
};
use uuid::Uuid;

use super::{
    actions::{Add, Line, Stats, Txn},
    kernel,
    log::Log,
    peek::{Columns, peek},
    read::partition_of,
};
use crate::{
    buffer::Chunks,
    origins::{of_rows, without},
    sink::SinkError,
};

/// The columns that say which record a row is, and of which it is a retry.
const PLACE: [&str; 4] = ["_topic_id", "_partition", "_offset", ORIGIN_COLUMN];

/// The rows of one flush that must not land, and what to look for before it does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    /// The records whose retries are to land.
    landing: BTreeSet<Origin>,
    /// Of those that wait, the ones that the table has.
    stored: BTreeSet<Origin>,
    /// Records that were retried before the mark passed them, by their partition.
    overtaken: BTreeMap<Partition, BTreeSet<i64>>,
}

impl Origins {
    /// Looks which of the waiting rows the table has already. From here on the log keeps what others add.
    pub(crate) async fn look(log: &mut Log, chunks: &Chunks) -> Result<Origins, SinkError> {
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(super::testing::Protection::Origins) {
            return Ok(Origins::default());
        }
        let mut waiting = BTreeSet::new();
        for batch in chunks.values().flat_map(|chunk| &chunk.batches) {
            of_rows(&batch.rows, |_, origin| waiting.insert(origin));
        }
        log.added = None;
        let mut stored = BTreeSet::new();
        if !waiting.is_empty() {
            log.refresh().await?;
            log.added = Some(Vec::new());
            stored = find(log, files(log).await?, &waiting).await?;
        }
        let overtaken = chunks.iter().filter_map(|(partition, chunk)| {
            let from = chunk.after.map_or(Offset::ZERO, |mark| mark.offset);
            let offsets = log.overtaken(partition, from);
            (!offsets.is_empty()).then(|| (partition.clone(), offsets))
        });
        let overtaken = overtaken.collect();
        let landing = waiting.difference(&stored).copied().collect();
        Ok(Origins { landing, stored, overtaken })
    }

    /// Whether others have meanwhile stored what this would store again. Called before each put.
    pub(crate) async fn are_forestalled(
        &self,
        log: &mut Log,
        first: &BTreeMap<Partition, Option<Offset>>,
    ) -> Result<bool, SinkError> {
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(super::testing::Protection::Origins) {
            return Ok(false);
        }
        for (partition, from) in first {
            let now = log.overtaken(partition, from.unwrap_or(Offset::ZERO));
            if !now.is_empty() && self.overtaken.get(partition) != Some(&now) {
                return Ok(true);
            }
        }
        if self.landing.is_empty() {
            return Ok(false);
        }
        // Read anew from a checkpoint: nobody has looked at what came in between.
        let Some(added) = log.added.take() else { return Ok(true) };
        // Files that say the same as those in whose place they are were looked at with them.
        let new = added.iter().filter(|add| add.data_change).cloned().collect();
        let found = find(log, new, &self.landing).await;
        log.added = Some(if found.is_ok() { Vec::new() } else { added });
        Ok(!found?.is_empty())
    }

    /// The rows that are to be stored, of those that wait; `seen` are the origins met before in this flush.
    pub(crate) fn keep(
        &self,
        partition: &Partition,
        rows: &RecordBatch,
        seen: &mut BTreeSet<Origin>,
    ) -> Result<RecordBatch, SinkError> {
        let mut dropped = BTreeSet::new();
        of_rows(rows, |row, origin| {
            if self.stored.contains(&origin) || !seen.insert(origin) {
                dropped.insert(row);
            }
        });
        if let Some(overtaken) = self.overtaken.get(partition) {
            let offsets = offsets(rows).into_iter().flatten().enumerate();
            dropped.extend(offsets.filter(|(_, at)| overtaken.contains(at)).map(|(row, _)| row));
        }
        without(rows, &dropped)
    }

    /// The transactions by which records are skipped that no mark has passed yet.
    pub(crate) fn txns(&self, log: &Log) -> Vec<Line> {
        let is_ahead = |origin: &&Origin| {
            let next = log.next(origin.topic_id, origin.partition);
            next.is_none_or(|next| next <= origin.offset)
        };
        let txn = |origin: &Origin| {
            let app_id = format!("{}{}", retried(origin.topic_id, origin.partition), origin.offset);
            Line { txn: Some(Txn { app_id, version: origin.offset.get() }), ..Line::default() }
        };
        self.landing.iter().filter(is_ahead).map(txn).collect()
    }

    /// Whether retries land.
    pub(crate) fn any_lands(&self) -> bool {
        !self.landing.is_empty()
    }
}

/// How the ids begin under which a partition's retried records are, of which the offset follows.
pub(crate) fn retried(topic_id: Uuid, partition: i32) -> String {
    format!("{topic_id}/{partition}/retried/")
}

/// The partition and the offset that stand in such an id.
pub(crate) fn retried_of(app_id: &str) -> Option<((Uuid, i32), Offset)> {
    let (partition, offset) = app_id.split_once("/retried/")?;
    Some((partition_of(partition)?, Offset(offset.parse().ok()?)))
}

/// Every file of the newest version.
async fn files(log: &Log) -> Result<Vec<Add>, SinkError> {
    let table = Arc::clone(&log.table);
    super::blocking(move || {
        let opened = kernel::open(&table.engine, table.store.root())?;
        kernel::files(&table.engine, &opened)
    })
    .await
}

/// Which of the records the files have, as rows or as origins of rows.
async fn find(
    log: &Log,
    files: Vec<Add>,
    wanted: &BTreeSet<Origin>,
) -> Result<BTreeSet<Origin>, SinkError> {
    let mut found = BTreeSet::new();
    let partitions = wanted.iter().map(|origin| (origin.topic_id, origin.partition)).collect();
    for file in &files {
        let stats: Stats =
            file.stats.as_deref().and_then(|s| serde_json::from_str(s).ok()).unwrap_or_default();
        let has_rows = may_have_rows(&stats, wanted, &partitions);
        let columns = match (has_rows, may_have_origins(&stats)) {
            (false, false) => continue,
            (true, _) => Columns::OfAll(&PLACE),
            // Nothing is read of a file that is older than the column.
            (false, true) => Columns::Of(ORIGIN_COLUMN),
        };
        peek(&log.table.store, file, columns, |rows| {
            of_rows(rows, |_, origin| {
                if wanted.contains(&origin) {
                    found.insert(origin);
                }
            });
            if has_rows {
                found.extend(places(rows).filter(|place| wanted.contains(place)));
            }
        })
        .await?;
    }
    Ok(found)
}

/// Whether some of the records may be rows of the file, going by its partitions and offsets.
fn may_have_rows(
    stats: &Stats,
    wanted: &BTreeSet<Origin>,
    partitions: &BTreeSet<(Uuid, i32)>,
) -> bool {
    let range = |name: &str| {
        let bound = |of: &serde_json::Map<String, serde_json::Value>| of.get(name)?.as_i64();
        Some(bound(&stats.min_values)?..=bound(&stats.max_values)?)
    };
    let numbers = range("_partition").unwrap_or(i64::MIN..=i64::MAX);
    let offsets = range("_offset").unwrap_or(i64::MIN..=i64::MAX);
    partitions.iter().filter(|(_, number)| numbers.contains(&i64::from(*number))).any(|place| {
        let (topic_id, partition) = *place;
        let at = |offset: &i64| Origin { topic_id, partition, offset: Offset(*offset) };
        !offsets.is_empty()
            && wanted.range(at(offsets.start())..=at(offsets.end())).next().is_some()
    })
}

/// Whether rows of the file may be retries: not when it says that it has as many nulls as rows.
fn may_have_origins(stats: &Stats) -> bool {
    let nulls = stats.null_count.get(ORIGIN_COLUMN).and_then(serde_json::Value::as_u64);
    nulls.is_none() || nulls != stats.num_records
}

fn offsets(rows: &RecordBatch) -> Option<impl Iterator<Item = i64>> {
    let column = rows.column_by_name("_offset")?.as_primitive_opt::<types::Int64Type>()?;
    Some(column.values().iter().copied())
}

/// Where each row stood.
fn places(rows: &RecordBatch) -> impl Iterator<Item = Origin> {
    let column = |name| rows.column_by_name(name);
    let ids = column("_topic_id").and_then(|ids| ids.as_string_opt::<i32>());
    let numbers = column("_partition").and_then(|n| n.as_primitive_opt::<types::Int32Type>());
    let row = move |(row, offset)| {
        let topic_id = Uuid::parse_str(ids?.value(row)).ok()?;
        Some(Origin { topic_id, partition: numbers?.value(row), offset: Offset(offset) })
    };
    offsets(rows).into_iter().flatten().enumerate().filter_map(row)
}
