//! Retries, as an auditor sees them: rows that say which rejected record they are, and records of a topic of
//! retries that may have been passed over.
//!
//! The record that a row of a retry names counts as stored, by that row. A record of the topic of retries
//! without a row is right where its record is stored all the same, by another retry or by itself, and where
//! it is for another job.

use std::collections::{BTreeMap, HashMap};

use aion_kafka::Record;
use aion_schemas::catalog::Topic;
use roaring::RoaringTreemap;
use uuid::Uuid;

use super::{
    account::{Run, Tally, Window, Wrong},
    stored::{Place, Stores},
};

/// The records of which a table has a retry.
#[derive(Debug, Default)]
pub(super) struct Retried {
    once: BTreeMap<Place, RoaringTreemap>,
    /// Of those, the ones that it has more than once.
    again: BTreeMap<Place, RoaringTreemap>,
}

/// A record of a topic of retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) offset: i64,
    /// The job that is to take it.
    job: String,
    /// The record that it repeats, as its header names it.
    origin: String,
}

impl Retried {
    /// Asks a table for all of them.
    pub(super) fn of(stores: &Stores, topic: &Topic) -> anyhow::Result<Retried> {
        let mut retried = Retried::default();
        stores.origins(topic, |origin, rows| retried.add(origin, rows))?;
        Ok(retried)
    }

    fn add(&mut self, origin: &str, rows: i64) {
        let Some((place, offset)) = parse(origin) else { return };
        self.once.entry(place).or_default().insert(offset);
        if rows > 1 {
            self.again.entry(place).or_default().insert(offset);
        }
    }

    /// The partitions of which there are any.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.once.keys()
    }

    /// The records of a partition.
    pub(super) fn at(&self, place: Place) -> RoaringTreemap {
        self.once.get(&place).cloned().unwrap_or_default()
    }

    /// Counts the rows that are retries of a window's records.
    pub(super) fn fill(&self, place: Place, window: &mut Window) {
        let Run { start, end } = window.run();
        let (start, end) = (start.max(0) as u64, end.max(0) as u64);
        for offsets in [self.once.get(&place), self.again.get(&place)].into_iter().flatten() {
            let mut within = offsets.iter();
            within.advance_to(start);
            within.take_while(|offset| *offset < end).for_each(|at| window.row(at as i64));
        }
    }

    /// Which of the records of a topic of retries may be without a row.
    pub(super) fn passed_over(
        &self,
        stores: &Stores,
        (topic, job): (&Topic, &str),
        sent: &[Sent],
        window: &Window,
    ) -> anyhow::Result<RoaringTreemap> {
        let mut passed = RoaringTreemap::new();
        for one in sent.iter().filter(|one| !window.has_row(one.offset)) {
            let Some((place, offset)) = parse(&one.origin) else { continue };
            let is_stored = self.once.get(&place).is_some_and(|all| all.contains(offset));
            let at = offset as i64;
            if one.job != job
                || is_stored
                || stores.rows(topic, place, &(at..at.saturating_add(1)))?.0 > 0
            {
                passed.insert(one.offset as u64);
            }
        }
        Ok(passed)
    }
}

impl Sent {
    /// What a record's headers say.
    pub(super) fn of(record: &Record<'_>) -> Sent {
        let text = |name| {
            let value = record.headers.get(name).flatten().unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        Sent { offset: record.offset.get(), job: text("job"), origin: text("origin") }
    }
}

/// Rows that name another record than the one that was sent are of no record at all.
pub(super) fn compare(rows: &[(i64, String)], sent: &[Sent], tally: &mut Tally) {
    let sent: HashMap<i64, &str> = sent.iter().map(|one| (one.offset, &*one.origin)).collect();
    for (offset, origin) in rows {
        if sent.get(offset).is_some_and(|sent| sent != origin) {
            tally.found(Wrong::NotInLog, *offset..offset.saturating_add(1), 1);
        }
    }
}

/// Reads `<topic id>/<partition>/<offset>`.
fn parse(origin: &str) -> Option<(Place, u64)> {
    let mut parts = origin.split('/');
    let id = Uuid::parse_str(parts.next()?).ok()?;
    let place = (id, parts.next()?.parse().ok()?);
    let offset = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((place, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000-0000-0000-0000-000000000001";

    #[test]
    fn a_retry_counts_for_its_record_and_two_of_them_are_too_many() {
        let mut retried = Retried::default();
        retried.add(&format!("{ID}/2/5"), 1);
        retried.add(&format!("{ID}/2/6"), 2);
        retried.add("nonsense", 1);
        let place = (Uuid::from_u128(1), 2);
        let mut window = Window::new(4..7);
        retried.fill(place, &mut window);
        assert_eq!([4, 5, 6].map(|offset| window.rows(offset)), [0, 1, 2]);
        assert_eq!(retried.at(place).iter().collect::<Vec<_>>(), [5, 6]);
        assert_eq!(retried.places().collect::<Vec<_>>(), [&place]);
    }

    #[test]
    fn a_row_that_names_another_record_is_wrong() {
        let sent = |offset, origin: &str| Sent { offset, job: "j".into(), origin: origin.into() };
        let sent = [sent(0, "a"), sent(1, "b")];
        let mut tally = Tally::default();
        compare(&[(0, "a".into()), (1, "c".into()), (2, "d".into())], &sent, &mut tally);
        assert_eq!(
            tally.wrong[&Wrong::NotInLog].runs,
            vec![1..2],
            "unread offsets aren't compared"
        );
    }
}
