//! Retries: rows that say in `_origin` of which rejected record they are the copy. Each lands once.
//!
//! What is looked at with each lease of a batch:
//!
//! | the table has | a retry | a record that fills a break |
//! |---|---|---|
//! | a row with that `_origin` | is left out | is left out |
//! | the record itself as a row | is left out | |
//! | neither, and is past the record | lands | |
//! | neither, and has yet to pass the record, or a break with it is to be filled | waits: a later build may read it | |
//! | no row with that `_origin`, and one may be on its way whose writer doesn't know of the break | | waits until it has landed, or can't |
//!
//! It waits also where the record's topic was deleted: rows that were read of it before may be on their way still. One that
//! waits in vain is taken back by the job, as a dead letter: so what is behind it in the chain lands.
//!
//! Two retries of a record are of one chain: a topic of retries has one partition, and of all INSERTs that begin at one
//! offset the server takes one. What was looked at holds until this batch, or a rival's, lands.
//!
//! A retry and the record itself are of two chains, and no token decides between them. What the table is past, the
//! record's own chain doesn't write again but to fill a break. Leases and looks keep these apart:
//!
//! | the retry looks | it | what fills the break |
//! |---|---|---|
//! | before there is a break, or a request to fill it | lands within a lease and the time of an INSERT, or never | looks for it no sooner than that after the break was found, and leaves the record out |
//! | after that, before the record is there | waits | lands |
//! | after the record has landed | is left out | |
//!
//! What remains: a break is to be filled for the repair window, or for as long as a request holds; then it counts as erased, and
//! the table as past it. Who has begun to fill it doesn't look at that again. So if this time ends between that start and the
//! record's landing, and a retry of it is looked at after the time has ended, within a lease and the time of an INSERT before
//! that landing, both may land. `aion audit` tells of such a record as stored twice.
//!
//! **Invariant:** the look at how far the table is comes before the look for rows: what the first finds passed and
//! the second doesn't find stored never will be by itself.
//! **Invariant:** a batch is looked at after its lease began: what lands late goes by a look that is no older than that.
//! **Invariant:** what may have landed of a batch is looked for before that, as it was sent: its own rows would be left
//! out as stored. If it lands behind that look all the same, what is sent now has another number of rows under one token, and
//! its writer starts over.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use aion_schemas::log::{Offset, Origin, Partition};
use uuid::Uuid;

use super::{
    failure::Failure,
    landing::Goes,
    survey::Found,
    table::{Table, off},
};
use crate::{
    batch::Batch,
    origins::{of_rows, without},
    sink::{Refused, SinkError},
};

/// So many rows at most go in a batch of retries: each is named in a question.
pub(super) const MAX_ROWS: usize = 1000;

/// Whether rows of the batch are retries.
pub(super) fn are_in(batch: &Batch) -> bool {
    let mut are = false;
    of_rows(&batch.rows, |_, _| are = true);
    are
}

/// Leaves out the rows that would store a record twice.
pub(super) async fn leave_out(
    table: &Table,
    partition: &Partition,
    batches: &mut [Batch],
    goes: Goes,
) -> Result<(), SinkError> {
    if off!(table, Origins) {
        return Ok(());
    }
    let mut origins = BTreeSet::new();
    for batch in batches.iter() {
        of_rows(&batch.rows, |_, origin| origins.insert(origin));
    }
    let mut retried = BTreeSet::new();
    if let Goes::IntoBreak { found_at, .. } = goes
        && let Some((first, last)) = batches.first().zip(batches.last())
    {
        let range = first.range.start..last.range.end;
        retried = retried_in(table, partition, range, found_at).await?;
    }
    if origins.is_empty() && retried.is_empty() {
        return Ok(());
    }
    let (stored, ahead) = settled(table, partition, &origins).await?;
    wait_for(table, partition, batches, &ahead)?;
    let mut seen = BTreeSet::new();
    for batch in batches {
        let mut dropped = BTreeSet::new();
        of_rows(&batch.rows, |row, origin| {
            if stored.contains(&origin) || !seen.insert(origin) {
                dropped.insert(row);
            }
        });
        for row in 0..batch.rows.num_rows() {
            if batch.offset_of(row).is_some_and(|offset| retried.contains(&offset)) {
                dropped.insert(row);
            }
        }
        batch.rows = without(&batch.rows, &dropped)?;
    }
    Ok(())
}

/// Records that the table has yet to pass, with how far it has their partition.
type Ahead = BTreeMap<Origin, Option<Offset>>;

/// The offsets of what fills a break that was found then which the table has by retries. Those that had been looked at by then
/// have landed, or are refused: until that is so, it passes.
async fn retried_in(
    table: &Table,
    partition: &Partition,
    range: Range<Offset>,
    found_at: u32,
) -> Result<BTreeSet<Offset>, SinkError> {
    let failed = |failure: Failure| failure.error(&doing(table, partition));
    // Before the look for them: a table's first retry is looked at after its note, so if there is none, with the break in sight.
    let may_have = table.ledger.has_others(partition.stream.id).await.map_err(failed)?;
    let look = table.ledger.retried(partition, range).await.map_err(failed)?;
    let on_its_way = table.settings.lease + table.settings.max_execution;
    let over = found_at.saturating_add(on_its_way.as_secs() as u32);
    if may_have && look.now <= over && !off!(table, RetriesOnTheirWay) {
        return Err(SinkError::Retry {
            doing: doing(table, partition),
            cause: format!(
                "a break is filled in {} s: until then retries of its records may be on their way",
                over - look.now + 1
            ),
        });
    }
    Ok(look.found)
}

/// Those of the records that are stored, and those that are ahead. The others are past, and never will be stored by
/// themselves.
async fn settled(
    table: &Table,
    partition: &Partition,
    origins: &BTreeSet<Origin>,
) -> Result<(BTreeSet<Origin>, Ahead), SinkError> {
    if origins.is_empty() {
        return Ok((BTreeSet::new(), Ahead::new()));
    }
    let mut of_topics = BTreeMap::<Uuid, BTreeSet<i32>>::new();
    for origin in origins {
        of_topics.entry(origin.topic_id).or_default().insert(origin.partition);
    }
    let mut marks = BTreeMap::<(Uuid, i32), Offset>::new();
    for (topic_id, numbers) in of_topics {
        let numbers: Vec<i32> = numbers.into_iter().collect();
        let found = table.survey(topic_id, &numbers).await?.found;
        let mark = |(number, at): (i32, Found)| Some(((topic_id, number), at.mark?.offset));
        marks.extend(found.into_iter().filter_map(mark));
    }
    let stored = table.ledger.stored(origins).await;
    let stored = stored.map_err(|failure| failure.error(&doing(table, partition)))?;
    let mark_of = |origin: &Origin| marks.get(&(origin.topic_id, origin.partition)).copied();
    let open = origins.difference(&stored).map(|origin| (*origin, mark_of(origin)));
    let ahead = open.filter(|(origin, mark)| mark.is_none_or(|mark| mark <= origin.offset));
    let ahead = ahead.collect();
    Ok((stored, ahead))
}

/// Fails where retries wait; tells all of them.
fn wait_for(
    table: &Table,
    partition: &Partition,
    batches: &[Batch],
    ahead: &Ahead,
) -> Result<(), SinkError> {
    let mut rows = Vec::new();
    for batch in batches {
        of_rows(&batch.rows, |row, origin| {
            if let (Some(at), Some(offset)) = (ahead.get(&origin), batch.offset_of(row)) {
                let has = at.map_or("nothing".to_owned(), |at| format!("what lies below {at}"));
                let cause = format!(
                    "a retry of record {origin}, which the table is not past: of its partition it has {has}"
                );
                rows.push(Refused { partition: partition.clone(), offset, cause });
            }
        });
    }
    let Some(Refused { offset, cause, .. }) = rows.first() else { return Ok(()) };
    let cause = format!(
        "offset {offset} waits until the table is past that record, and what is behind it waits as well: {cause}; it lands \
         when that partition goes on, or somebody has it go on (`aion dead-letters accept`), and is a dead letter again \
         where nothing comes for long"
    );
    Err(SinkError::Waits { doing: doing(table, partition), cause, rows })
}

fn doing(table: &Table, partition: &Partition) -> String {
    format!("look which retries of {partition} {} has", table.spec.name)
}
