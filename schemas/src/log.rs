//! Words for places in a log, shared by every crate: stream, partition, offset, mark, origin.
//!
//! **Invariant:** a stream is a topic *id*, never a name. A topic deleted and made anew is another
//! stream, so its offsets cannot be taken for those of the old one.
//! **Invariant:** an [`Offset`] is always the *next wanted* one, so ranges are half-open and a
//! subtraction is a count.

use std::{collections::BTreeMap, fmt, ops::Range, str::FromStr, sync::Arc};

use uuid::Uuid;

/// The next wanted position in a partition's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The first position a log can have.
    pub const ZERO: Offset = Offset(0);

    /// The plain number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

impl std::ops::Sub for Offset {
    type Output = i64;

    fn sub(self, earlier: Offset) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Shows a half-open range of offsets as `120..480`.
pub fn show(range: &Range<Offset>) -> String {
    format!("{}..{}", range.start, range.end)
}

/// One incarnation of a topic: its name, and the id that the broker gave it when it was created.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's id; another one after the topic was deleted and created anew.
    pub id: Uuid,
}

/// One partition of a stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The stream it belongs to.
    pub stream: Stream,
    /// Its number, from 0.
    pub number: i32,
}

impl Partition {
    /// The key under which stores keep this partition's mark: `<topic id>/<partition>`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.stream.id, self.number)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream.topic, self.number)
    }
}

/// The record that a retry is a copy of: where it stood, whatever became of it since.
///
/// As text, `<topic id>/<partition>/<offset>`: in that form it is in column `_origin` and in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The id of its topic.
    pub topic_id: Uuid,
    /// Its partition.
    pub partition: i32,
    /// Its own offset.
    pub offset: Offset,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic_id, self.partition, self.offset)
    }
}

impl FromStr for Origin {
    type Err = NoOrigin;

    /// Reads what [`Origin`] shows, and nothing else: one record has one spelling, or it would land twice.
    fn from_str(text: &str) -> Result<Origin, NoOrigin> {
        let parse = || {
            let mut parts = text.split('/');
            let (id, partition, offset) = (parts.next()?, parts.next()?, parts.next()?);
            let offset = Offset(offset.parse().ok()?);
            let topic_id = Uuid::parse_str(id).ok()?;
            Some(Origin { topic_id, partition: partition.parse().ok()?, offset })
        };
        let valid = |origin: &Origin| {
            origin.partition >= 0 && origin.offset >= Offset::ZERO && origin.to_string() == text
        };
        parse().filter(valid).ok_or(NoOrigin)
    }
}

/// The text names no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not <topic id>/<partition>/<offset>")]
pub struct NoOrigin;

/// How far a place has a partition: the next offset it wants, and the leader epoch of the last record
/// before it.
///
/// That record may stand right before the mark, or before a *hole*: offsets without a record, such as
/// transactions' markers, aborted records, and what compaction took. The difference counts where a log is
/// looked at for having been cut. What left the hole may be of a later leader than the record, and then the
/// record's epoch ends below the mark in a log that was never cut: that alone says nothing. So the one number
/// that stores keep says both:
///
/// | `epoch` | the last record below the mark |
/// |---|---|
/// | E >= 0 | has epoch E, and stands right before it |
/// | -1 | isn't known |
/// | -(E + 2) | has epoch E, and a hole may lie between the two |
///
/// A build that knows no holes wrote -1 there, and takes other negative numbers for epochs that no log has: it stops the
/// partition as cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The next offset wanted.
    pub offset: Offset,
    /// The leader epoch of the last record below `offset`, as the table says.
    pub epoch: i32,
}

impl Mark {
    /// A mark whose leader epoch is not known.
    pub const fn at(offset: Offset) -> Mark {
        Mark { offset, epoch: -1 }
    }

    /// A mark that a hole may lie before, behind a record of this epoch, if it is known.
    pub const fn behind_hole(offset: Offset, epoch: Option<i32>) -> Mark {
        match epoch {
            Some(epoch) if epoch >= 0 => Mark { offset, epoch: (-2_i32).saturating_sub(epoch) },
            _ => Mark::at(offset),
        }
    }

    /// A mark at the first offset that a log has: no record stands below. As epochs begin at 0, a record of a later one
    /// that is found there one day tells that the log was cut.
    pub const fn at_log_start(offset: Offset) -> Mark {
        Mark::behind_hole(offset, Some(0))
    }

    /// The leader epoch of the last record below the mark, wherever that stands.
    pub const fn record_epoch(self) -> Option<i32> {
        match self.epoch {
            -1 => None,
            behind_hole if behind_hole < -1 => Some(-2 - behind_hole),
            epoch => Some(epoch),
        }
    }

    /// Whether its epoch is known, and a hole may lie between the record that has it and the mark.
    pub const fn is_behind_hole(self) -> bool {
        self.epoch < -1
    }
}

/// Marks by partition.
pub type Marks = BTreeMap<Partition, Mark>;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From Kafka's milliseconds.
    pub const fn from_millis(ms: i64) -> Timestamp {
        Timestamp(ms.saturating_mul(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_keeps_the_epoch_behind_a_hole() {
        let at = Offset(7);
        for epoch in [0, 1, 2, 1_000_000] {
            let (plain, behind) = (Mark { offset: at, epoch }, Mark::behind_hole(at, Some(epoch)));
            assert_eq!((plain.record_epoch(), plain.is_behind_hole()), (Some(epoch), false));
            assert_eq!((behind.record_epoch(), behind.is_behind_hole()), (Some(epoch), true));
            assert!(behind.epoch < -1, "no epoch of a log, and not unknown");
        }
        assert_eq!(Mark::behind_hole(at, Some(0)).epoch, -2);
        assert_eq!(Mark::behind_hole(at, Some(i32::MAX)).epoch, i32::MIN, "nothing overflows");
        for epoch in [None, Some(-1), Some(-3)] {
            let unknown = Mark::behind_hole(at, epoch);
            assert_eq!((unknown.epoch, unknown.record_epoch()), (-1, None));
            assert!(!unknown.is_behind_hole() && unknown == Mark::at(at));
        }
    }

    #[test]
    fn an_origin_has_one_spelling() {
        let origin = Origin { topic_id: Uuid::from_u128(7), partition: 3, offset: Offset(41) };
        let text = "00000000-0000-0000-0000-000000000007/3/41";
        assert_eq!(origin.to_string(), text);
        assert_eq!(text.parse(), Ok(origin));
        for other in ["/3/41", "/03/41", "/3/+41", "/3/41/", "/-3/41", "/3/-1", "/3", "//"] {
            let id = origin.topic_id;
            let is_same = format!("{id}{other}").parse() == Ok(origin);
            assert_eq!(is_same, other == "/3/41", "{other}");
        }
        let braced = format!("{{{}}}/3/41", origin.topic_id);
        assert_eq!(braced.parse::<Origin>(), Err(NoOrigin));
    }
}
