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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The next offset wanted.
    pub offset: Offset,
    /// The leader epoch of the last record below `offset`; -1 where it is not known.
    pub epoch: i32,
}

impl Mark {
    /// A mark whose leader epoch is not known.
    pub const fn at(offset: Offset) -> Mark {
        Mark { offset, epoch: -1 }
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
