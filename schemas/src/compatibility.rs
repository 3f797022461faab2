//! Whether schemas of different ages go together: what one writes, the other reads.
//!
//! The rules are those of Avro's schema resolution, as schema registries apply them: a verdict over
//! all events that a writer might send. One union branch or symbol that the reader doesn't take is
//! enough to say no.
//!
//! Deliberately absent: JSON Schema and Protobuf. Crate `apache-avro` has a checker too; it isn't
//! used since it takes a type that one schema defines in place and the other by name for two
//! different ones, ignores aliases of names, and doesn't say where schemas differ.

mod avro;
mod compare;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use self::{
    avro::AvroSchema,
    compare::{Difference, DifferenceKind, differences},
};

/// Which schemas a new one has to go together with, and in which direction.
///
/// | level | the new schema reads what was written with | what the new one writes is read by |
/// |---|---|---|
/// | `NONE` | | |
/// | `BACKWARD` | the last version | |
/// | `BACKWARD_TRANSITIVE` | every version | |
/// | `FORWARD` | | the last version |
/// | `FORWARD_TRANSITIVE` | | every version |
/// | `FULL` | the last version | the last version |
/// | `FULL_TRANSITIVE` | every version | every version |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the table above says them")]
pub enum Level {
    None,
    Backward,
    BackwardTransitive,
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

impl Level {
    /// Every level.
    pub const ALL: [Level; 7] = [
        Level::None,
        Level::Backward,
        Level::BackwardTransitive,
        Level::Forward,
        Level::ForwardTransitive,
        Level::Full,
        Level::FullTransitive,
    ];

    /// Its name, as registries write it.
    pub const fn name(self) -> &'static str {
        match self {
            Level::None => "NONE",
            Level::Backward => "BACKWARD",
            Level::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Level::Forward => "FORWARD",
            Level::ForwardTransitive => "FORWARD_TRANSITIVE",
            Level::Full => "FULL",
            Level::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Those of the earlier versions, oldest first, that a new schema is compared with.
    pub fn compared<T>(self, earlier: &[T]) -> &[T] {
        match self {
            Level::None => &[],
            _ if self.is_transitive() => earlier,
            _ => &earlier[earlier.len().saturating_sub(1)..],
        }
    }

    /// Whether every version is compared, not only the last.
    pub fn is_transitive(self) -> bool {
        matches!(self, Level::BackwardTransitive | Level::ForwardTransitive | Level::FullTransitive)
    }

    fn directions(self) -> &'static [Direction] {
        match self {
            Level::None => &[],
            Level::Backward | Level::BackwardTransitive => &[Direction::Backward],
            Level::Forward | Level::ForwardTransitive => &[Direction::Forward],
            Level::Full | Level::FullTransitive => &[Direction::Backward, Direction::Forward],
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        Level::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Level::ALL.iter().map(|level| level.name()).collect();
            format!("no compatibility level {text:?}; known are {}", known.join(", "))
        })
    }
}

/// Who reads what whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The new schema reads what an earlier version wrote.
    Backward,
    /// An earlier version reads what the new schema writes.
    Forward,
}

/// Why a new schema doesn't go together with an earlier version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The earlier version.
    pub version: u32,
    /// Which of the two can't read the other.
    pub direction: Direction,
    /// What stands in the way.
    pub difference: Difference,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version;
        match self.direction {
            Direction::Backward => {
                write!(f, "the new schema can't read version {version}: {}", self.difference)
            }
            Direction::Forward => {
                write!(f, "version {version} can't read the new schema: {}", self.difference)
            }
        }
    }
}

/// Compares a new schema with the earlier versions, oldest first, as `level` asks; the last version's
/// conflicts come first. None: they go together.
pub fn check(level: Level, new: &AvroSchema, earlier: &[(u32, AvroSchema)]) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for (version, old) in level.compared(earlier).iter().rev() {
        for &direction in level.directions() {
            let found = match direction {
                Direction::Backward => differences(old, new),
                Direction::Forward => differences(new, old),
            };
            conflicts.extend(found.into_iter().map(|difference| Conflict {
                version: *version,
                direction,
                difference,
            }));
        }
    }
    conflicts
}
