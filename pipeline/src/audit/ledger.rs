//! The jobs' own books: dead letters and gaps.
//!
//! Both are read from their topics, up to the end that they have when the audit begins, and from
//! their tables in the lake, which may have what the topics lost. An entry may be there several
//! times: what counts is the distinct `job:topic id:partition:offset`.

use std::collections::{BTreeMap, BTreeSet};

use aion_kafka::{Record, TopicPartition};
use aion_schemas::catalog::{Catalog, DEAD_LETTERS, GAPS};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use roaring::RoaringTreemap;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    account::{Gap, GapKind, Run},
    kafka::Cluster,
    stored::{Entry, Place, Stores},
};

/// Dead letters and gaps by partition.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    rejected: BTreeMap<Place, BTreeMap<String, RoaringTreemap>>,
    gaps: BTreeMap<Place, Vec<Missing>>,
}

/// A gap as a job wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Missing {
    job: String,
    run: Run,
    word: Word,
    /// When, in microseconds since 1970.
    at: i64,
}

/// What a gap's reason means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Says(GapKind),
    /// What was stored of a cut log was taken back: gaps that said so before don't hold any more.
    Replaced,
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
    recorded_at: String,
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

    /// What a job recorded as lost of a partition, but for what is settled.
    pub(super) fn gaps(&self, place: Place, job: &str) -> Vec<Gap> {
        let all = || self.gaps.get(&place).into_iter().flatten().filter(|one| one.job == job);
        let replaced = all().filter(|one| one.word == Word::Replaced);
        let replaced: Vec<(&Run, i64)> = replaced.map(|one| (&one.run, one.at)).collect();
        let mut gaps = Vec::new();
        for one in all() {
            let Word::Says(kind) = one.word else { continue };
            let mut runs = vec![one.run.clone()];
            if kind == GapKind::Diverged {
                for (run, _) in replaced.iter().filter(|(_, at)| *at >= one.at) {
                    runs = runs.into_iter().flat_map(|left| without(left, run)).collect();
                }
            }
            for run in runs {
                let gap = Gap { run, kind };
                if !gaps.contains(&gap) {
                    gaps.push(gap);
                }
            }
        }
        gaps
    }

    fn letter(&mut self, record: &Record<'_>) {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
        let Some((job, place, offset)) = parse_key(key) else {
            return tracing::warn!(offset = %record.offset, "not a dead letter: {key:?}");
        };
        let run = offset..offset.saturating_add(1);
        self.reject(Entry { job: job.to_owned(), place, run, reason: String::new(), at: 0 });
    }

    fn reject(&mut self, entry: Entry) {
        // A negative offset is nobody's.
        let Ok(offset) = u64::try_from(entry.run.start) else { return };
        self.rejected.entry(entry.place).or_default().entry(entry.job).or_default().insert(offset);
    }

    fn gap(&mut self, record: &Record<'_>) {
        let value = record.value.unwrap_or_default();
        match serde_json::from_slice::<GapRecord>(value) {
            Ok(GapRecord { job, topic_id, partition, first, next, reason, recorded_at }) => {
                let place = (topic_id, partition);
                let at = string_to_timestamp_nanos(&recorded_at).map_or(0, |nanos| nanos / 1000);
                self.miss(Entry { job, place, run: first..next, reason, at });
            }
            Err(cause) => tracing::warn!(offset = %record.offset, %cause, "not a gap"),
        }
    }

    fn miss(&mut self, entry: Entry) {
        let word = match &*entry.reason {
            "diverged" => Word::Says(GapKind::Diverged),
            "diverged_kept" => Word::Says(GapKind::Kept),
            "diverged_replaced" => Word::Replaced,
            _ => Word::Says(GapKind::Lost),
        };
        let gaps = self.gaps.entry(entry.place).or_default();
        let gap = Missing { job: entry.job, run: entry.run, word, at: entry.at };
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

/// The parts of a run that aren't in another.
fn without(run: Run, gone: &Run) -> impl Iterator<Item = Run> {
    let before = run.start..run.end.min(gone.start);
    let after = run.start.max(gone.end)..run.end;
    [before, after].into_iter().filter(|part| !part.is_empty())
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
            ledger.reject(Entry { job: job.into(), place, run, reason: String::new(), at: 0 });
        }
        let (own, others) = ledger.rejected(place, "a");
        assert_eq!(own.iter().collect::<Vec<_>>(), [5, 7]);
        assert_eq!(others.iter().collect::<Vec<_>>(), [9]);
        assert_eq!(ledger.other_jobs(place, "a").into_iter().collect::<Vec<_>>(), ["b"]);
        for reason in ["retention", "retention", "diverged"] {
            ledger.miss(Entry { job: "a".into(), place, run: 1..3, reason: reason.into(), at: 0 });
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
        for text in [&*entry("retention"), &entry("retention"), &entry("diverged"), "nonsense"] {
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
        let gap = |kind| Gap { run: 5..9, kind };
        assert_eq!(ledger.gaps((id, 3), "j"), [gap(GapKind::Lost), gap(GapKind::Diverged)]);
        assert!(ledger.gaps((id, 3), "another").is_empty());
    }

    #[test]
    fn what_was_taken_back_is_no_gap_until_the_log_is_cut_again() {
        let place = (Uuid::from_u128(1), 0);
        let mut ledger = Ledger::default();
        let mut note = |reason: &str, run: Run, at| {
            ledger.miss(Entry { job: "a".into(), place, run, reason: reason.into(), at });
            ledger.gaps(place, "a")
        };
        note("diverged", 5..9, 1);
        note("diverged", 6..9, 2);
        let diverged = |run| Gap { run, kind: GapKind::Diverged };
        assert_eq!(note("diverged_replaced", 6..9, 3), [diverged(5..6)]);
        assert_eq!(note("diverged_replaced", 5..9, 4), []);
        assert_eq!(note("diverged", 5..9, 5), [diverged(5..9)]);
        let kept = Gap { run: 5..9, kind: GapKind::Kept };
        assert_eq!(note("diverged_kept", 5..9, 6), [diverged(5..9), kept]);
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
