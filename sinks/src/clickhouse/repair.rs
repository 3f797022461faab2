//! Old breaks, and lost heads: offsets that a table had once and has no more. They are left alone, since somebody may have erased
//! them, until somebody asks that they be filled: by a note, which the job that writes the table finds when it is next
//! given the partition.

use std::{ops::Range, time::Duration};

use aion_schemas::log::{Offset, Partition, Stream, show};
use uuid::Uuid;

use super::{ClickHouse, Settings, TableSpec, ledger::NoteKind, survey::Note};
use crate::sink::SinkError;

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

impl ClickHouse {
    /// The breaks of a table, of whatever age, and heads that its TTL can't have taken, that nobody has asked to be
    /// filled.
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
        let name = spec.name.clone();
        let table = self.table(spec, Settings::default());
        let stream = Stream { topic: name.as_str().into(), id: one.topic_id };
        let partition = Partition { stream, number: one.partition };
        let (first, next) = (one.range.start, one.range.end);
        let note = Note { chain_end: first, next, epoch: -1, day: None };
        let noted = table.ledger.note(&partition, NoteKind::Repair(first), note, None).await;
        noted.map_err(|failure| {
            failure.error(&format!("ask for offsets {} of {partition}", show(&one.range)))
        })
    }
}
