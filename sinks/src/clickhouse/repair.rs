//! What is done about a table by hand: offsets that it had once and has no more, and offsets that it has more than once.
//!
//! Old breaks and lost heads are left alone, since somebody may have erased them, until somebody asks that they be filled:
//! by a note, which the job that writes the table finds when it is next given the partition.
//!
//! Batches that have offsets in common stop the job that writes the table. Of copies of one batch all but one row of each
//! offset can go; which of two other batches is right a person has to say. Who deletes [holds](super::hold) repairs.

use std::{ops::Range, time::Duration};

use aion_schemas::log::{Offset, Partition, Stream, show};
use uuid::Uuid;

use super::{
    ClickHouse, Settings, TableSpec, failure::Failure, hold::Hold, ledger::NoteKind, plan,
    survey::Note, table::Table,
};
use crate::sink::SinkError;

/// A `DELETE` is answered once its mutation is done, which begins when the server has a thread for it, and rewrites parts.
const DELETES_WITHIN: Duration = Duration::from_hours(1);

/// Offsets that a table had once and has no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The Kafka partition.
    pub partition: i32,
    /// Which offsets.
    pub range: Range<Offset>,
}

/// A batch of which a table has offsets more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Double {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The Kafka partition.
    pub partition: i32,
    /// The offsets that the batch covers.
    pub range: Range<Offset>,
    /// Whether it is the batch itself that is there again; else it has offsets in common with one before it.
    pub is_copy: bool,
    /// The statement that deletes it, with all copies: what it covers is a break then.
    pub delete: String,
}

impl ClickHouse {
    /// The breaks of a table, of whatever age, and heads that its TTL can't have taken, that nobody has asked to be
    /// filled. An error where it has [`doubles`](ClickHouse::doubles), unless at least once is asked for.
    pub async fn breaks(&self, spec: TableSpec) -> Result<Vec<Break>, SinkError> {
        let settings = Settings { repair_window: Duration::ZERO, ..Settings::default() };
        let name = spec.name.clone();
        let table = self.table(spec, settings);
        let doing = || format!("look which breaks {name} has");
        let partitions = table.ledger.partitions().await;
        let mut breaks = Vec::new();
        for (topic_id, numbers) in partitions.map_err(|failure| failure.error(&doing()))? {
            for (partition, found) in table.survey(topic_id, &numbers).await?.found {
                let lost = found.missed.into_iter().chain(found.lost);
                breaks.extend(lost.map(|range| Break { topic_id, partition, range }));
            }
        }
        Ok(breaks)
    }

    /// Asks the job that writes the table to fill a break when it is next given the partition.
    pub async fn request_repair(&self, spec: TableSpec, one: &Break) -> Result<(), SinkError> {
        let table = self.table(spec, Settings::default());
        let partition = partition(&table, one.topic_id, one.partition);
        let (first, next) = (one.range.start, one.range.end);
        let note = Note { chain_end: first, next, epoch: -1, day: None };
        let noted = table.ledger.note(&partition, NoteKind::Repair(first), note, None).await;
        noted.map_err(|failure| {
            failure.error(&format!("ask for offsets {} of {partition}", show(&one.range)))
        })
    }

    /// The batches of a table that are there again, or have offsets in common with one before them.
    pub async fn doubles(&self, spec: TableSpec) -> Result<Vec<Double>, SinkError> {
        let table = self.table(spec, Settings::default());
        let doing = format!("look what {} has more than once", table.spec.name);
        let failed = |failure: Failure| failure.error(&doing);
        let mut doubles = Vec::new();
        for (topic_id, numbers) in table.ledger.partitions().await.map_err(failed)? {
            let links = table.ledger.links(topic_id, &numbers).await.map_err(failed)?.found;
            for (number, link) in
                links.iter().flat_map(|(n, all)| all.iter().map(move |one| (n, one)))
            {
                let is_over = link.previous.is_some_and(|previous| previous.end > link.first);
                if !link.is_doubled && !is_over {
                    continue;
                }
                let range = link.first..link.end;
                let delete = table.ledger.without(&partition(&table, topic_id, *number), &range);
                let is_copy = link.is_doubled;
                doubles.push(Double { topic_id, partition: *number, range, is_copy, delete });
            }
        }
        Ok(doubles)
    }

    /// Deletes the copies of a batch: one row of each offset stays. An error where it is there more than once still, as it
    /// is where the hold was over, or where another mutation of the table is under way. Of a replicated table none are: it
    /// takes no statement that asks the table itself which rows go.
    pub async fn delete_copies(
        &self,
        spec: TableSpec,
        one: &Double,
        hold: &Hold,
    ) -> Result<(), SinkError> {
        let table = self.table(spec, Settings::default());
        let partition = partition(&table, one.topic_id, one.partition);
        let doing = format!("delete copies of offsets {} of {partition}", show(&one.range));
        refuse_replicated(&table, &doing, &one.delete).await?;
        refuse_beside_others(&table, &doing).await?;
        if hold.until() == 0 {
            let cause = "the hold on repairs was over before it was renewed".to_owned();
            return Err(SinkError::Retry { doing, cause });
        }
        let sql = table.ledger.without_copies(&partition, &one.range);
        let while_held = format!("{sql} AND toUnixTimestamp(now()) < {}", hold.until());
        let id = table.ledger.deletes_as();
        let sent = table.ledger.client.delete(&while_held, &id, DELETES_WITHIN).await;
        sent.map_err(|failure| match failure.error(&doing) {
            SinkError::Fatal { doing, cause, .. } => {
                let hint = format!("an account that may delete rows runs this: {sql}");
                SinkError::Fatal { doing, cause, hint }
            }
            passes => passes,
        })?;
        let look = table.ledger.overlapping(&partition, (one.range.start, one.range.end)).await;
        let found = look.map_err(|failure| failure.error(&doing))?.found;
        let is_left =
            found.iter().any(|batch| batch.is_doubled && (batch.first..batch.end) == one.range);
        if !is_left {
            return Ok(());
        }
        let hint = format!(
            "parts may have been merged meanwhile, or another repair may have begun: try again; where the copies differ, delete them all, and have the \
             break filled that they leave: {}",
            one.delete
        );
        let cause = "it is there more than once still".to_owned();
        Err(SinkError::Fatal { doing, cause, hint })
    }
}

/// An error where replicas would each ask for themselves which rows go. `delete` takes all copies out by their offsets.
async fn refuse_replicated(table: &Table, doing: &str, delete: &str) -> Result<(), SinkError> {
    let live = plan::live(&table.ledger.client, &table.spec.name).await;
    let live = live.map_err(|failure| failure.error(doing))?;
    let is_replicated = live.is_some_and(|live| live.is_replicated());
    if !is_replicated {
        return Ok(());
    }
    Err(SinkError::Fatal {
        doing: doing.to_owned(),
        cause: "a replicated table takes no statement that tells one copy from the other"
            .to_owned(),
        hint: format!(
            "an account that may delete rows deletes them all, and has the break filled that they leave: {delete}"
        ),
    })
}

/// An error while other mutations of the table are under way. One that was sent by somebody who waits no longer is one of
/// them.
async fn refuse_beside_others(table: &Table, doing: &str) -> Result<(), SinkError> {
    let refused = |cause: String, hint: String| {
        Err(SinkError::Fatal { doing: doing.to_owned(), cause, hint })
    };
    let name = &table.spec.name;
    let count = match table.ledger.mutations().await {
        Err(failure @ Failure::Refused { code: 497, .. }) => {
            let hint = "GRANT SELECT ON system.mutations TO the account of [clickhouse]".to_owned();
            return refused(failure.text(), hint);
        }
        asked => asked.map_err(|failure| failure.error(doing))?,
    };
    if count == 0 {
        return Ok(());
    }
    let cause = format!(
        "mutations of {name} are under way ({count}), and may change which rows are copies"
    );
    let hint = format!(
        "run it again once none is left of SELECT * FROM system.mutations WHERE table = '{name}' AND NOT is_done; one \
         that fails there stays until KILL MUTATION"
    );
    refused(cause, hint)
}

fn partition(table: &Table, topic_id: Uuid, number: i32) -> Partition {
    let stream = Stream { topic: table.spec.name.as_str().into(), id: topic_id };
    Partition { stream, number }
}
