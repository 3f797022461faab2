//! Retries: rows that say in `_origin` of which rejected record they are the copy. Each lands once.
//!
//! What is looked at before a batch is sent for the first time:
//!
//! | the table has | a retry | a record that fills a break |
//! |---|---|---|
//! | a row with that `_origin` | is left out | is left out |
//! | the record itself as a row | is left out | |
//! | neither, and is past the record | lands | |
//! | neither, and has yet to pass the record | waits: a later build may read it | |
//!
//! It waits also where the record's topic was deleted: rows that were read of it before may be on their way still. One that
//! waits in vain is taken back by the job, as a dead letter: so what is behind it in the chain lands.
//!
//! That is sound with the chain. The batches of a partition of retries follow on each other, and of all INSERTs that
//! begin at one offset the server takes one: what was looked at holds until this batch, or a rival's, lands. A topic
//! of retries has one partition, so all retries of a table are one chain. And what the table is past, the record's own
//! chain doesn't write again but to fill a break, which looks here too.
//!
//! **Invariant:** the look at how far the table is comes before the look for rows: what the first finds passed and
//! the second doesn't find stored never will be by itself.
//! **Invariant:** a batch is looked at once. Sent again it is the same rows, or it would miss those that have landed.

use std::collections::{BTreeMap, BTreeSet};

use aion_schemas::log::{Offset, Origin, Partition};
use uuid::Uuid;

use super::{
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
    if let Goes::IntoBreak { .. } = goes
        && let Some((first, last)) = batches.first().zip(batches.last())
    {
        let range = first.range.start..last.range.end;
        let look = table.ledger.retried(partition, range).await;
        retried = look.map_err(|failure| failure.error(&doing(table, partition)))?;
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
