//! A topic before its windows are read: what its log and its table say of themselves.
//!
//! A table is filled from its topic and from the topic of retries, and has the marks of both: which is whose is told
//! by the topic's id, and for ids of the past by rows, those of retries being the ones with an origin.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aion_schemas::log::Timestamp;
use anyhow::bail;
use uuid::Uuid;

use super::{
    account::{Holes, Run},
    kafka::{Bounds, Cluster},
    retries::Retried,
    scope::{Place as Audited, Scope},
    stored::{Place, Rows, Stores},
};

type Marks = BTreeMap<Place, i64>;

/// A topic before its windows are read: what the log and the table say of themselves.
pub(super) struct Look<'a> {
    pub(super) audited: &'a Audited,
    /// The topic's id; none where there is no such topic.
    pub(super) id: Option<Uuid>,
    pub(super) holes: Holes,
    pub(super) bounds: Vec<Bounds>,
    /// Marks from before the rows were counted, and from after.
    pub(super) marks: Marks,
    pub(super) later: Marks,
    pub(super) census: BTreeMap<Place, Rows>,
    /// The records that the table has retries of, whichever topic this is.
    pub(super) retried: Retried,
    pub(super) is_whole: bool,
}

/// Looks at everything in scope, in the order that makes an audit sound.
pub(super) fn looks<'a>(
    scope: &'a Scope,
    cluster: &Cluster,
    stores: &Stores,
    since: Option<Timestamp>,
) -> anyhow::Result<Vec<Look<'a>>> {
    let mut ids = Vec::new();
    for audited in &scope.places {
        ids.push(cluster.identity(&audited.topic.name)?.id);
    }
    let marks = stores.marks()?;
    let mut counted = Vec::new();
    for audited in &scope.places {
        counted.push(stores.census(&audited.topic, since)?);
    }
    let later = stores.marks()?;
    let mut looks = Vec::new();
    let all: Vec<_> = scope.places.iter().zip(ids).zip(counted).collect();
    for ((audited, id), census) in &all {
        let (audited, id) = (*audited, *id);
        let topic = &audited.topic;
        let table = scope.catalog.table(&topic.table).unwrap_or(topic);
        // A table has the marks of its topic and of the topic of retries, by ids alone.
        let is_other = |((other, _), _): &&((&Audited, _), _)| {
            other.topic.table == topic.table && other.topic.name != topic.name
        };
        let other = all.iter().find(is_other).map(|((_, id), census)| (*id, census));
        let is_own = |place: &Place| {
            let is_others = other.as_ref().is_some_and(|(id, census)| {
                *id == Some(place.0) || (census.contains_key(place) && !topic.is_retries())
            });
            let is_known = id == Some(place.0) || census.contains_key(place);
            is_known || !(is_others || topic.is_retries())
        };
        let identity = cluster.identity(&topic.name)?;
        let bounds = match identity.id {
            None => Vec::new(),
            // What a table's TTL may have taken is looked at as what the log has no more.
            Some(_) => cluster.bounds(&identity, since.max(stores.kept_since(topic)?))?,
        };
        if id != identity.id || cluster.identity(&topic.name)?.id != id {
            bail!("topic {} was made anew while it was looked at: audit again", topic.name);
        }
        looks.push(Look {
            audited,
            id,
            holes: if id.is_some() { cluster.holes(&topic.name) } else { Holes::Unknown },
            bounds,
            marks: own(&marks, &table.name, is_own),
            later: own(&later, &table.name, is_own),
            census: census.clone(),
            retried: Retried::of(stores, topic)?,
            is_whole: since.is_none(),
        });
    }
    Ok(looks)
}

/// Of the marks of the table that goes by a topic's name, those that are one's own.
fn own(marks: &BTreeMap<Arc<str>, Marks>, table: &str, is_own: impl Fn(&Place) -> bool) -> Marks {
    let marks = marks.get(table).into_iter().flatten();
    marks.filter(|(place, _)| is_own(place)).map(|(place, mark)| (*place, *mark)).collect()
}

impl Look<'_> {
    /// The partitions with a log, then those of which only rows are left.
    pub(super) fn places(&self) -> impl Iterator<Item = (Place, Option<Bounds>)> {
        let logs = self.id.into_iter().flat_map(|id| {
            (0..).zip(&self.bounds).map(move |(number, bounds)| ((id, number), Some(*bounds)))
        });
        let marked = self.marks.keys().filter(|_| self.is_whole);
        let is_asked = self.is_whole && !self.audited.topic.is_retries();
        let retried = self.retried.places().filter(move |_| is_asked);
        let stored = self.census.keys().chain(marked).chain(retried);
        let stored: BTreeSet<Place> = stored.copied().collect();
        let has_log = |(id, number): &Place| {
            Some(*id) == self.id && usize::try_from(*number).is_ok_and(|n| n < self.bounds.len())
        };
        logs.chain(
            stored.into_iter().filter(move |place| !has_log(place)).map(|place| (place, None)),
        )
    }

    /// What is looked at of a partition: from the first row, or the log's start, up to the mark.
    pub(super) fn sweep(&self, place: Place, bounds: Option<Bounds>) -> Sweep {
        let rows = self.extent(place);
        let Some(bounds) = bounds else {
            let all = rows.unwrap_or(0..0);
            return Sweep { all: all.clone(), log: all.end..all.end };
        };
        let mark = self.marks.get(&place).copied().unwrap_or(bounds.since);
        let next = mark.min(bounds.next).max(bounds.since);
        let stored = rows.filter(|_| self.is_whole).map_or(bounds.since, |rows| rows.start);
        Sweep { all: stored.min(bounds.since)..next, log: bounds.since..next }
    }

    /// From the first offset of a partition that is stored, as it stood or by a retry, to the last.
    fn extent(&self, place: Place) -> Option<Run> {
        let rows = self.census.get(&place).map(|rows| rows.first..rows.last.saturating_add(1));
        let retried = self.retried.at(place);
        let ends = retried.min().zip(retried.max()).filter(|_| !self.audited.topic.is_retries());
        let retried = ends.map(|(first, last)| first as i64..(last as i64).saturating_add(1));
        let both = rows.into_iter().chain(retried);
        both.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
    }

    /// The number of offsets to look at, for the progress bar.
    pub(super) fn length(&self) -> u64 {
        let length = |(place, bounds)| self.sweep(place, bounds).all;
        self.places().map(length).map(|all| all.end.saturating_sub(all.start).max(0) as u64).sum()
    }
}

/// The offsets of a partition to look at, and the part of them that the log has.
pub(super) struct Sweep {
    pub(super) all: Run,
    pub(super) log: Run,
}
