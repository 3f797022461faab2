//! Taking back: what was stored of a log that was cut since, so that its new records can be stored instead.

use std::{ops::Range, sync::Arc};

use aion_schemas::{
    log::{Offset, Origin, Partition},
    schema::ORIGIN_COLUMN,
};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, types};

use super::{
    Swap, Swapped, Upkeep,
    compact::{Keeps, merge, rows},
};
use crate::{
    lake::actions::{Add, Stats},
    sink::SinkError,
};

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenBack {
    /// So many rows are out of the table, and the mark is where the range begins.
    Done {
        /// Rows that went.
        rows: u64,
    },
    /// The mark isn't at the end of the range: the job has gone on, or somebody has done this before.
    Moved {
        /// Where it is.
        mark: Option<Offset>,
    },
}

impl Upkeep {
    /// Takes the rows of a range of offsets out of the table and sets the mark back to its start, in one entry. The
    /// range ends at the mark. Rows of retries whose record lies in it go too. Until a vacuum the rows are still in
    /// older versions of the table.
    pub async fn take_back(
        &mut self,
        partition: &Partition,
        range: Range<Offset>,
    ) -> Result<TakenBack, SinkError> {
        loop {
            self.log.refresh().await?;
            let mark = self.log.mark(partition).map(|mark| mark.offset);
            if mark != Some(range.end) {
                return Ok(TakenBack::Moved { mark });
            }
            if self.log.rules.append_only {
                let (cause, hint) = ("delta.appendOnly is set", "unset it");
                return Err(self.refused("take rows out of", cause, hint));
            }
            let (version, _, files) = self.files().await?;
            let changes = self.log.set_back(partition, range.start);
            let written = self.log.table.clock.now();
            let (inputs, adds, gone) = self.without(files, partition, range.start).await?;
            let swap = Swap::new("DELETE", version, inputs, adds, written).with(changes);
            if swap.put(&mut self.log).await? == Swapped::Done {
                return Ok(TakenBack::Done { rows: gone });
            }
            // Somebody has compacted the files meanwhile, or moved the mark: what is there now is looked at.
        }
    }

    /// The files that have such rows, those in their place, and how many rows are in the first only.
    async fn without(
        &self,
        files: Vec<Add>,
        partition: &Partition,
        from: Offset,
    ) -> Result<(Vec<Add>, Vec<Add>, u64), SinkError> {
        let (mut inputs, mut adds, mut gone) = (Vec::new(), Vec::new(), 0);
        let of = partition.clone();
        let keeps: Keeps = Arc::new(move |rows| kept(rows, &of, from));
        for file in files.into_iter().filter(|file| may_have(file, partition, from)) {
            let stated = rows(&file);
            let group = [file];
            let rest = merge(&self.log.table, &group, Some(Arc::clone(&keeps))).await?;
            let [file] = group;
            let left = rest.as_ref().map_or(Some(0), |rest| rows(&rest.add));
            if left.is_some() && left == stated {
                continue;
            }
            gone += stated.unwrap_or(0).saturating_sub(left.unwrap_or(0));
            if let Some(rest) = rest {
                let add = rest.add;
                self.log.table.store.put_files(vec![(add.path.clone(), rest.bytes)]).await?;
                adds.push(add);
            }
            inputs.push(file);
        }
        Ok((inputs, adds, gone))
    }
}

/// The rows that stay.
fn kept(rows: &RecordBatch, partition: &Partition, from: Offset) -> BooleanArray {
    let column = |name| rows.column_by_name(name);
    let id = partition.stream.id.to_string();
    let ids = column("_topic_id").and_then(|ids| ids.as_string_opt::<i32>());
    let numbers = column("_partition").and_then(|all| all.as_primitive_opt::<types::Int32Type>());
    let offsets = column("_offset").and_then(|all| all.as_primitive_opt::<types::Int64Type>());
    let origins = column(ORIGIN_COLUMN).and_then(|all| all.as_string_opt::<i32>());
    let is_taken = |row: usize| {
        let is_record = ids.is_some_and(|ids| ids.value(row) == id)
            && numbers.is_some_and(|all| all.value(row) == partition.number)
            && offsets.is_some_and(|all| all.value(row) >= from.get());
        let origin = origins.filter(|all| all.is_valid(row));
        let origin = origin.and_then(|all| all.value(row).parse::<Origin>().ok());
        let is_retry = origin.is_some_and(|origin| {
            (origin.topic_id, origin.partition) == (partition.stream.id, partition.number)
                && origin.offset >= from
        });
        is_record || is_retry
    };
    (0..rows.num_rows()).map(|row| Some(!is_taken(row))).collect()
}

/// Whether a file may have such rows, going by what its writer said of it.
fn may_have(file: &Add, partition: &Partition, from: Offset) -> bool {
    let stats = file.stats.as_deref().and_then(|stats| serde_json::from_str::<Stats>(stats).ok());
    let Some(stats) = stats else { return true };
    let bound = |of: &serde_json::Map<String, serde_json::Value>, name| of.get(name)?.as_i64();
    let number = i64::from(partition.number);
    let is_below = bound(&stats.max_values, "_offset").is_some_and(|last| last < from.get())
        || bound(&stats.min_values, "_partition").is_some_and(|least| least > number)
        || bound(&stats.max_values, "_partition").is_some_and(|most| most < number);
    let nulls = stats.null_count.get(ORIGIN_COLUMN).and_then(serde_json::Value::as_u64);
    let has_no_retries = nulls.is_some() && nulls == stats.num_records;
    !(is_below && has_no_retries)
}
