//! A cursor as it stands in its topic.
//!
//! ```json
//! {"version":1,"next":120,"control":3,"redo":[[10,20]],
//!  "holes":[[97,2,1700000000000,1700000004000,null,null],[101,0,0,0,"9a3f",[0,17]]]}
//! ```
//!
//! A hole is its offset, the failed attempts, when the first was, when the next may be, the hash of the key
//! in hexadecimal (JSON's numbers have no 64 bits), and the place of its dead letter.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Cursor, Hole, Millis};

const VERSION: u32 = 1;

/// Why a stored cursor can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// It was written by a program that this one is older than.
    #[error("a cursor of version {0}: this program reads version {VERSION}; use a newer one")]
    Newer(u32),
    /// It is something else.
    #[error("no cursor: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    next: i64,
    control: i64,
    redo: Vec<(i64, i64)>,
    holes: Vec<StoredHole>,
}

type StoredHole = (i64, u32, Millis, Millis, Option<String>, Option<(i32, i64)>);

impl Cursor {
    /// The JSON members, for a record of which they are a part.
    pub(crate) fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        let hole = |(offset, hole): (&i64, &Hole)| {
            let key = hole.key.map(|key| format!("{key:x}"));
            (*offset, hole.attempts, hole.first_at, hole.next_at, key, hole.letter)
        };
        let redo = |range: &Range<i64>| (range.start, range.end);
        serde_json::to_value(Stored {
            version: VERSION,
            next: self.next,
            control: self.control,
            redo: self.redo.iter().map(redo).collect(),
            holes: self.holes.iter().map(hole).collect(),
        })
    }

    /// Reads what [`Cursor::to_json`] writes; other members don't matter.
    pub(crate) fn from_json(text: &[u8]) -> Result<Cursor, CursorError> {
        let Versioned { version } = serde_json::from_slice(text)?;
        if version != VERSION {
            return Err(CursorError::Newer(version));
        }
        let stored: Stored = serde_json::from_slice(text)?;
        let hole = |(offset, attempts, first_at, next_at, key, letter): StoredHole| {
            let key = key.and_then(|key| u64::from_str_radix(&key, 16).ok());
            (offset, Hole { attempts, first_at, next_at, key, letter })
        };
        Ok(Cursor {
            next: stored.next,
            holes: stored.holes.into_iter().map(hole).collect(),
            redo: stored.redo.into_iter().map(|(start, end)| start..end).collect(),
            control: stored.control,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_cursor_reads_as_it_was_written() {
        let hole = Hole {
            attempts: 3,
            first_at: 5,
            next_at: 9,
            key: Some(u64::MAX),
            letter: Some((1, 7)),
        };
        let cursor = Cursor {
            next: 1 << 60,
            holes: [(4, Hole::default()), (7, hole)].into(),
            redo: vec![1..3, 5..9],
            control: 12,
        };
        let text = serde_json::to_vec(&cursor.to_json().unwrap()).unwrap();
        assert_eq!(Cursor::from_json(&text).unwrap(), cursor);
    }

    #[test]
    fn a_newer_cursor_is_told_from_a_broken_one() {
        let newer = Cursor::from_json(br#"{"version":2,"shape":"other"}"#).unwrap_err();
        assert!(matches!(newer, CursorError::Newer(2)));
        for broken in ["", "{}", "[]", r#"{"version":1}"#] {
            let error = Cursor::from_json(broken.as_bytes()).unwrap_err();
            assert!(matches!(error, CursorError::Malformed(_)), "{broken}");
        }
    }
}
