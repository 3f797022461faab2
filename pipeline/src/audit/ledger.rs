//! The jobs' own books: dead letters and gaps.
//!
//! Both are read from their topics, up to the end that they have when the audit begins, and from
//! their tables in the lake, which may have what the topics lost. An entry may be there several
//! times: what counts is the distinct `job:topic id:partition:offset`.

use std::collections::{BTreeMap, BTreeSet};

use aion_kafka::{Record, TopicPartition};
use aion_schemas::catalog::{Catalog, DEAD_LETTERS, GAPS};
use roaring::RoaringTreemap;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    account::Gap,
    kafka::Cluster,
    stored::{Entry, Place, Stores},
};

/// The word of a gap whose rows aren't what the log says.
const DIVERGED: &str = "diverged";

/// Dead letters and gaps by partition.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    rejected: BTreeMap<Place, BTreeMap<String, RoaringTreemap>>,
    gaps: BTreeMap<Place, Vec<(String, Gap)>>,
}

/// A gap as its topic has it.
#[derive(Deserialize)]
struct GapRecord {
    job: String,
    topic_id: Uuid,
    partition: i32,
    first: i64,
    next: i64,
    reason: String,
}

impl Ledger {
    /// Reads the books, as far as they concern a sink.
    pub(super) fn read(
        cluster: &Cluster,
        stores: &Stores,
        catalog: &Catalog,
        sink: &str,
    ) -> anyhow::Result<Ledger> {
        let mut ledger = Ledger::default();
        if let Some(topic) = catalog.topic(DEAD_LETTERS) {
            stores.dead_letters(topic, |entry| ledger.reject(entry))?;
            each(cluster, DEAD_LETTERS, |record| ledger.letter(record))?;
        }
        if let Some(topic) = catalog.topic(GAPS) {
            stores.gaps(topic, |entry| ledger.miss(entry))?;
            each(cluster, GAPS, |record| {
                if concerns(record, sink) {
                    ledger.gap(record);
                }
            })?;
        }
        Ok(ledger)
    }

    /// The offsets of a partition that this job rejected, and those that others did.
    pub(super) fn rejected(&self, place: Place, job: &str) -> (RoaringTreemap, RoaringTreemap) {
        let (mut own, mut others) = (RoaringTreemap::new(), RoaringTreemap::new());
        for (name, offsets) in self.rejected.get(&place).into_iter().flatten() {
            if name == job { own |= offsets } else { others |= offsets }
        }
        (own, others)
    }

    /// The jobs besides this one that rejected something of a partition.
    pub(super) fn other_jobs(&self, place: Place, job: &str) -> BTreeSet<&str> {
        let jobs = self.rejected.get(&place).into_iter().flat_map(BTreeMap::keys);
        jobs.map(String::as_str).filter(|name| *name != job).collect()
    }

    /// What a job recorded as lost of a partition.
    pub(super) fn gaps(&self, place: Place, job: &str) -> Vec<Gap> {
        let gaps = self.gaps.get(&place).into_iter().flatten();
        gaps.filter(|(name, _)| name == job).map(|(_, gap)| gap.clone()).collect()
    }

    fn letter(&mut self, record: &Record<'_>) {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
        let Some((job, place, offset)) = parse_key(key) else {
            return tracing::warn!(offset = %record.offset, "not a dead letter: {key:?}");
        };
        let run = offset..offset.saturating_add(1);
        self.reject(Entry { job: job.to_owned(), place, run, reason: String::new() });
    }

    fn reject(&mut self, entry: Entry) {
        // A negative offset is nobody's.
        let Ok(offset) = u64::try_from(entry.run.start) else { return };
        self.rejected.entry(entry.place).or_default().entry(entry.job).or_default().insert(offset);
    }

    fn gap(&mut self, record: &Record<'_>) {
        let value = record.value.unwrap_or_default();
        match serde_json::from_slice::<GapRecord>(value) {
            Ok(GapRecord { job, topic_id, partition, first, next, reason }) => {
                let place = (topic_id, partition);
                self.miss(Entry { job, place, run: first..next, reason });
            }
            Err(cause) => tracing::warn!(offset = %record.offset, %cause, "not a gap"),
        }
    }

    fn miss(&mut self, entry: Entry) {
        let gap = Gap { run: entry.run, diverged: entry.reason == DIVERGED };
        let gaps = self.gaps.entry(entry.place).or_default();
        let gap = (entry.job, gap);
        if !gaps.contains(&gap) {
            gaps.push(gap);
        }
    }
}

/// Whether a gap is one of this sink; one that doesn't say is everybody's.
fn concerns(record: &Record<'_>, sink: &str) -> bool {
    let sinks = record.headers.get("sinks").flatten();
    let sinks = sinks.and_then(|sinks| std::str::from_utf8(sinks).ok());
    sinks.is_none_or(|sinks| sinks.split(',').any(|one| one == sink))
}

/// Reads all that a topic has now; nothing where there is no such topic.
fn each(cluster: &Cluster, topic: &str, mut take: impl FnMut(&Record<'_>)) -> anyhow::Result<()> {
    let identity = cluster.identity(topic)?;
    if identity.id.is_none() {
        return Ok(());
    }
    for (number, bounds) in (0..).zip(cluster.bounds(&identity, None)?) {
        let partition = TopicPartition::new(topic, number);
        cluster.each(&partition, bounds.first..bounds.next, &mut take)?;
    }
    Ok(())
}

/// Reads `job:topic id:partition:offset`; a job's name may have colons of its own.
fn parse_key(key: &str) -> Option<(&str, Place, i64)> {
    let mut parts = key.rsplitn(4, ':');
    let offset = parts.next()?.parse().ok()?;
    let partition = parts.next()?.parse().ok()?;
    let id = Uuid::parse_str(parts.next()?).ok()?;
    Some((parts.next()?, (id, partition), offset))
}

#[cfg(test)]
mod tests {
    use aion_kafka::{Headers, TimeKind};
    use aion_schemas::log::{Offset, Timestamp};

    use super::*;

    #[test]
    fn entries_count_once_and_by_job() {
        let place = (Uuid::from_u128(1), 2);
        let mut ledger = Ledger::default();
        for (job, offset) in [("a", 5), ("a", 5), ("a", 7), ("b", 9)] {
            let run = offset..offset + 1;
            ledger.reject(Entry { job: job.into(), place, run, reason: String::new() });
        }
        let (own, others) = ledger.rejected(place, "a");
        assert_eq!(own.iter().collect::<Vec<_>>(), [5, 7]);
        assert_eq!(others.iter().collect::<Vec<_>>(), [9]);
        assert_eq!(ledger.other_jobs(place, "a").into_iter().collect::<Vec<_>>(), ["b"]);
        for reason in ["retention", "retention", DIVERGED] {
            ledger.miss(Entry { job: "a".into(), place, run: 1..3, reason: reason.into() });
        }
        assert_eq!(ledger.gaps(place, "a").len(), 2);
        assert!(ledger.gaps(place, "b").is_empty());
    }

    #[test]
    fn gaps_are_read_as_jobs_write_them() {
        let id = Uuid::from_u128(7);
        let entry = |reason: &str| {
            format!(
                r#"{{"job":"j","topic":"t","topic_id":"{id}","partition":3,"first":5,"next":9,
                    "reason":"{reason}","detail":"x","recorded_at":"2026-01-31T12:00:00.000000Z"}}"#
            )
        };
        let mut ledger = Ledger::default();
        for text in [&*entry("retention"), &entry("retention"), &entry(DIVERGED), "nonsense"] {
            ledger.gap(&Record {
                key: None,
                value: Some(text.as_bytes()),
                offset: Offset(0),
                epoch: -1,
                append_time: Timestamp(0),
                time_kind: TimeKind::LogAppend,
                headers: Headers::NONE,
            });
        }
        let gap = |diverged| Gap { run: 5..9, diverged };
        assert_eq!(ledger.gaps((id, 3), "j"), [gap(false), gap(true)]);
        assert!(ledger.gaps((id, 3), "another").is_empty());
    }

    #[test]
    fn a_key_names_job_topic_partition_and_offset() {
        let id = Uuid::from_u128(7);
        assert_eq!(parse_key(&format!("a:b:{id}:3:12")), Some(("a:b", (id, 3), 12)));
        for bad in ["", "x", "a:b:c:d", &format!("{id}:1:2"), &format!("a:{id}:1:")] {
            assert_eq!(parse_key(bad), None, "{bad}");
        }
    }
}
