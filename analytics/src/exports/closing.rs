//! Up to which offsets a boundary in time reaches, fixed once.
//!
//! A partition is closed at a boundary once it is known which of its records were appended before it: when a later
//! one is stored, or when there is none left to come. It is the first stored offset that was appended at the boundary
//! or later; where there is none, the end of the log, seen when the clock was past the boundary.
//!
//! **Invariant:** pure: what was found is judged here, and asked for elsewhere.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use aion_schemas::log::{Offset, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use uuid::Uuid;

use super::time::rfc3339;

/// How long the clock must be past a boundary before an idle partition is closed by it: brokers' clocks differ.
pub const CLOCKS_DIFFER: Duration = Duration::from_mins(1);

/// A partition of a stream: topic id, number.
pub type Place = (Uuid, i32);

/// For each partition the first offset that doesn't belong to it any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vector(pub BTreeMap<Place, Offset>);

/// What is known of a partition.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The first stored offset that was appended at the boundary or later.
    pub first_after: Option<Offset>,
    /// How far the store has it.
    pub mark: Option<Offset>,
    /// What Kafka says of it; `None` of a topic that is gone.
    pub log: Option<LogSeen>,
}

/// A partition's log, as it was before the marks were read.
#[derive(Clone, Copy, Debug)]
pub struct LogSeen {
    /// The first offset that is still there.
    pub start: Offset,
    /// The end that readers of committed records see.
    pub stable_end: Offset,
    /// The end with open transactions.
    pub end: Offset,
}

/// Why a boundary can't be closed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// The store hasn't read so far.
    Behind {
        /// The topic's table.
        table: Arc<str>,
        /// The partition.
        place: Place,
        /// How many offsets are missing.
        by: i64,
    },
    /// A transaction is open, which may hide records.
    Transaction {
        /// The topic's table.
        table: Arc<str>,
        /// The partition.
        place: Place,
    },
    /// The boundary lies ahead, or not far enough back.
    Early {
        /// When it may be closed.
        not_before: Timestamp,
    },
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Open::Behind { table, place: (id, number), by } => write!(
                f,
                "table {table} is {by} offsets behind the log (topic id {id}, partition {number})"
            ),
            Open::Transaction { table, place: (id, number) } => write!(
                f,
                "a transaction is open in the topic of {table} (topic id {id}, partition {number})"
            ),
            Open::Early { not_before } => {
                write!(f, "it closes at {} at the earliest", rfc3339(*not_before))
            }
        }
    }
}

/// Whether a boundary lies so far ahead that no record of any broker can have been appended after it.
pub fn too_early(boundary: Timestamp, now: Timestamp) -> Result<(), Open> {
    let differ = CLOCKS_DIFFER.as_micros() as i64;
    if now.0.saturating_add(differ) < boundary.0 {
        return Err(Open::Early { not_before: Timestamp(boundary.0.saturating_add(differ)) });
    }
    Ok(())
}

/// Judges the partitions of a table at a boundary; `now` was taken before Kafka was asked.
pub fn close(
    table: &Arc<str>,
    boundary: Timestamp,
    now: Timestamp,
    seen: &BTreeMap<Place, Seen>,
) -> Result<Vector, Open> {
    let not_before = Timestamp(boundary.0.saturating_add(CLOCKS_DIFFER.as_micros() as i64));
    let mut vector = Vector::default();
    for (place, seen) in seen {
        vector.0.insert(*place, partition(table, *place, seen, now, not_before)?);
    }
    Ok(vector)
}

fn partition(
    table: &Arc<str>,
    place: Place,
    seen: &Seen,
    now: Timestamp,
    not_before: Timestamp,
) -> Result<Offset, Open> {
    if let Some(first) = seen.first_after {
        return Ok(first);
    }
    if now < not_before {
        return Err(Open::Early { not_before });
    }
    // Of a topic that is gone nothing more can come.
    let Some(log) = seen.log else { return Ok(seen.mark.unwrap_or(Offset::ZERO)) };
    if log.stable_end < log.end {
        return Err(Open::Transaction { table: Arc::clone(table), place });
    }
    // A store without a mark begins where the log does. One that has a mark moves it over what the log lost; until then
    // it may hold rows from there that aren't durable.
    let reached = seen.mark.unwrap_or(log.start);
    if reached < log.end {
        return Err(Open::Behind { table: Arc::clone(table), place, by: log.end - reached });
    }
    Ok(log.end)
}

/// As JSON: `{"<topic id>/<partition>": offset}`.
impl Serialize for Vector {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(
            self.0.iter().map(|((id, number), offset)| (format!("{id}/{number}"), offset.0)),
        )
    }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Vector, D::Error> {
        let read = BTreeMap::<String, i64>::deserialize(from)?;
        let places = read.into_iter().map(|(key, offset)| {
            let place = key
                .split_once('/')
                .and_then(|(id, number)| Some((Uuid::parse_str(id).ok()?, number.parse().ok()?)));
            let wrong = || D::Error::custom(format!("{key:?} is no <topic id>/<partition>"));
            Ok((place.ok_or_else(wrong)?, Offset(offset)))
        });
        places.collect::<Result<_, _>>().map(Vector)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const BOUNDARY: Timestamp = Timestamp(1_000_000_000);
    const LATER: Timestamp = Timestamp(1_060_000_000);

    fn log(start: i64, stable: i64, end: i64) -> LogSeen {
        LogSeen { start: Offset(start), stable_end: Offset(stable), end: Offset(end) }
    }

    fn judge(now: Timestamp, seen: Seen) -> Result<i64, Open> {
        let place = (Uuid::nil(), 0);
        let vector = close(&"decisions".into(), BOUNDARY, now, &BTreeMap::from([(place, seen)]))?;
        Ok(vector.0[&place].0)
    }

    #[test]
    fn a_later_row_closes_at_once() {
        let seen =
            Seen { first_after: Some(Offset(7)), mark: Some(Offset(9)), log: Some(log(0, 20, 25)) };
        assert_eq!(judge(Timestamp(0), seen), Ok(7));
    }

    #[test]
    fn an_idle_partition_closes_at_its_end_once_clocks_agree() {
        let idle = Seen { mark: Some(Offset(20)), log: Some(log(0, 20, 20)), ..Seen::default() };
        assert_eq!(judge(LATER, idle.clone()), Ok(20));
        assert!(matches!(judge(Timestamp(LATER.0 - 1), idle), Err(Open::Early { .. })));
    }

    #[test]
    fn long_before_its_boundary_nobody_is_asked() {
        let minute = 60_000_000;
        assert_eq!(too_early(BOUNDARY, Timestamp(BOUNDARY.0 - minute)), Ok(()));
        let early = too_early(BOUNDARY, Timestamp(BOUNDARY.0 - minute - 1));
        assert_eq!(early, Err(Open::Early { not_before: LATER }));
    }

    #[test]
    fn a_partition_that_never_had_anything_closes() {
        assert_eq!(judge(LATER, Seen { log: Some(log(0, 0, 0)), ..Seen::default() }), Ok(0));
        let lost = Seen { log: Some(log(50, 50, 50)), ..Seen::default() };
        assert_eq!(judge(LATER, lost), Ok(50), "retention took all of it");
        let half = Seen { mark: Some(Offset(40)), log: Some(log(50, 50, 50)), ..Seen::default() };
        assert!(
            matches!(judge(LATER, half), Err(Open::Behind { by: 10, .. })),
            "its mark has to move"
        );
    }

    #[test]
    fn a_store_behind_the_log_keeps_it_open() {
        let behind = Seen { mark: Some(Offset(18)), log: Some(log(0, 20, 20)), ..Seen::default() };
        assert!(matches!(judge(LATER, behind), Err(Open::Behind { by: 2, .. })));
    }

    #[test]
    fn an_open_transaction_keeps_it_open() {
        let hidden = Seen { mark: Some(Offset(20)), log: Some(log(0, 20, 22)), ..Seen::default() };
        assert!(matches!(judge(LATER, hidden), Err(Open::Transaction { .. })));
    }

    #[test]
    fn a_topic_that_is_gone_ends_at_its_mark() {
        let gone = Seen { mark: Some(Offset(12)), ..Seen::default() };
        assert_eq!(judge(LATER, gone), Ok(12));
    }

    #[test]
    fn a_vector_is_read_as_it_was_written() {
        let vector = Vector(BTreeMap::from([((Uuid::from_u128(7), 3), Offset(5))]));
        let text = serde_json::to_string(&vector).unwrap();
        assert_eq!(serde_json::from_str::<Vector>(&text).unwrap(), vector);
        assert!(serde_json::from_str::<Vector>(r#"{"x":1}"#).is_err());
    }
}
