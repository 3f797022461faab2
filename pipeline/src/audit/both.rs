//! Several stores in one audit: each is judged by the log, then two of them by each other.
//!
//! The log says which offsets a store must have, and not what its rows must say; two stores that were written by jobs
//! that know nothing of each other, in other formats, and say the same of every record, do.
//!
//! **Invariant:** memory is that of one window of offsets, of each store.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use aion_schemas::{catalog::Topic, schema::Kind};
use anyhow::bail;
use tokio_util::sync::CancellationToken;

use super::{
    account::Ranges,
    digest::Row,
    judge,
    progress::Progress,
    report::{Compared, Report, Verdict},
    scope::Scope,
    since::Since,
    stored::{Place, Stores},
};

/// Offsets whose rows are compared at a time.
const WINDOW: i64 = 1 << 17;

/// Audits every store of the scopes; there is one at least.
pub(super) fn audit(
    scopes: &[Scope],
    progress: &Progress,
    cancel: &CancellationToken,
) -> anyhow::Result<Report> {
    let clock = Instant::now();
    let mut whole: Option<Report> = None;
    for scope in scopes {
        let report = judge::audit(scope, progress, cancel)?;
        whole = Some(match whole.take() {
            None => report,
            Some(mut whole) => {
                whole.topics.extend(report.topics);
                whole.verdict = whole.verdict.max(report.verdict);
                whole
            }
        });
    }
    let Some(mut whole) = whole else { bail!("no job writes into a store that can be audited") };
    if let [lake, house] = scopes {
        whole.compared = compare(lake, house, cancel)?;
        if whole.compared.iter().any(|one| one.differing.offsets > 0) {
            whole.verdict = Verdict::Wrong;
        }
    }
    whole.seconds = clock.elapsed().as_secs_f64();
    Ok(whole)
}

/// Compares what both stores have of the topics that jobs write into both.
fn compare(
    lake: &Scope,
    house: &Scope,
    cancel: &CancellationToken,
) -> anyhow::Result<Vec<Compared>> {
    let since = lake.since.map(Since::time);
    let (lake_rows, house_rows) = (Stores::open(lake, cancel)?, Stores::open(house, cancel)?);
    let both = Both { lake: &lake_rows, house: &house_rows, cancel };
    let (lake_marks, house_marks) = (lake_rows.marks()?, house_rows.marks()?);
    let mut compared = Vec::new();
    for audited in &lake.places {
        let topic = &audited.topic;
        let is_text = topic.schema.fields.iter().all(|field| field.kind != Kind::Bytes);
        let is_in_both = house.places.iter().any(|other| other.topic.name == topic.name);
        if topic.internal || !is_text || !is_in_both {
            continue;
        }
        let (Some(ours), Some(theirs)) =
            (lake_marks.get(&topic.name), house_marks.get(&topic.name))
        else {
            continue;
        };
        let first = lake_rows.census(topic, since)?;
        let other = house_rows.census(topic, since)?;
        let all: BTreeSet<&Place> = first.keys().chain(other.keys()).collect();
        for place in all {
            let starts = [first.get(place), other.get(place)];
            let start = starts.iter().flatten().map(|rows| rows.first).min().unwrap_or(0);
            // What one of them has yet to get says nothing.
            let Some(end) = ours.get(place).zip(theirs.get(place)).map(|(a, b)| *a.min(b)) else {
                continue;
            };
            if start < end {
                compared.push(both.partition(topic, *place, start..end)?);
            }
        }
    }
    Ok(compared)
}

struct Both<'a> {
    lake: &'a Stores,
    house: &'a Stores,
    cancel: &'a CancellationToken,
}

impl Both<'_> {
    fn partition(
        &self,
        topic: &Topic,
        place: Place,
        run: std::ops::Range<i64>,
    ) -> anyhow::Result<Compared> {
        let mut compared = Compared {
            topic: Arc::clone(&topic.name),
            topic_id: place.0,
            partition: place.1,
            range: run.clone().into(),
            rows: 0,
            digest: String::new(),
            only_lake: 0,
            only_clickhouse: 0,
            differing: Ranges::default(),
        };
        let (mut digest, mut at) = (0_u128, run.start);
        while at < run.end {
            if self.cancel.is_cancelled() {
                bail!("the audit was stopped");
            }
            let window = at..at.saturating_add(WINDOW).min(run.end);
            at = window.end;
            let mut ours = self.lake.digests(topic, place, &window)?;
            let mut theirs = self.house.digests(topic, place, &window)?;
            if ours.is_empty() && theirs.is_empty() {
                let rest = at..run.end;
                let next = |of: &Stores| of.rows(topic, place, &rest).map(|(_, first)| first);
                let firsts = [next(self.lake)?, next(self.house)?];
                at = firsts.into_iter().flatten().min().unwrap_or(run.end);
                continue;
            }
            ours.sort_unstable();
            theirs.sort_unstable();
            merge(&ours, &theirs, &mut compared, &mut digest);
        }
        compared.digest = format!("{digest:032x}");
        Ok(compared)
    }
}

/// Compares rows that are sorted by offset. An offset that is there twice is the single store's matter.
fn merge(ours: &[Row], theirs: &[Row], compared: &mut Compared, digest: &mut u128) {
    let (mut ours, mut theirs) = (ours.iter().peekable(), theirs.iter().peekable());
    while let (Some(one), Some(other)) = (ours.peek(), theirs.peek()) {
        match one.0.cmp(&other.0) {
            std::cmp::Ordering::Less => {
                compared.only_lake += 1;
                ours.next();
            }
            std::cmp::Ordering::Greater => {
                compared.only_clickhouse += 1;
                theirs.next();
            }
            std::cmp::Ordering::Equal => {
                compared.rows += 1;
                *digest = digest.wrapping_add(one.1);
                if one.1 != other.1 {
                    compared.differing.add(one.0..one.0 + 1, 1);
                }
                ours.next();
                theirs.next();
            }
        }
    }
    compared.only_lake += ours.count() as u64;
    compared.only_clickhouse += theirs.count() as u64;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn rows_are_compared_by_their_offset() {
        let mut compared = Compared {
            topic: "t".into(),
            topic_id: Uuid::nil(),
            partition: 0,
            range: (0..9).into(),
            rows: 0,
            digest: String::new(),
            only_lake: 0,
            only_clickhouse: 0,
            differing: Ranges::default(),
        };
        let mut digest = 0;
        let (ours, theirs) = ([(1, 10), (2, 20), (4, 40)], [(2, 21), (3, 30), (4, 40), (5, 50)]);
        merge(&ours, &theirs, &mut compared, &mut digest);
        assert_eq!((compared.rows, digest), (2, 60));
        assert_eq!((compared.only_lake, compared.only_clickhouse), (1, 2));
        assert_eq!(compared.differing.runs, std::slice::from_ref(&(2..3)));
    }
}
