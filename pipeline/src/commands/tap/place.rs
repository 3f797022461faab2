//! Where a tap begins.

use std::str::FromStr;

use aion_kafka::Spot;

use crate::audit::Since;

/// Where a tap begins, in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first record that there is.
    Beginning,
    /// Behind the last.
    End,
    /// At the first that was appended then or later.
    Time(Since),
    /// At this offset.
    Offset(i64),
    /// So many before the end.
    Last(i64),
}

impl From {
    /// What has to be asked of the cluster besides the first and the next offset.
    pub(super) fn spot(self) -> Option<Spot> {
        match self {
            From::Time(since) => Some(Spot::At(since.time())),
            _ => None,
        }
    }

    /// The offset to begin at in a log of `first..next`; `found` is the answer for [`From::spot`].
    pub(super) fn offset(self, first: i64, next: i64, found: Option<i64>) -> i64 {
        let wanted = match self {
            From::Beginning => first,
            From::End => next,
            From::Time(_) => found.unwrap_or(first),
            From::Offset(offset) => offset,
            From::Last(count) => next.saturating_sub(count),
        };
        wanted.clamp(first, next.max(first))
    }
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<From, String> {
        match text {
            "beginning" | "start" => return Ok(From::Beginning),
            "end" => return Ok(From::End),
            _ => {}
        }
        if let Ok(number) = text.parse::<i64>() {
            let is_last = text.starts_with('-');
            return Ok(if is_last {
                From::Last(number.saturating_neg())
            } else {
                From::Offset(number)
            });
        }
        text.parse().map(From::Time).map_err(|why: &str| {
            format!("not beginning, end, an offset such as 1200 or -10; {why}")
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<From>().unwrap().offset(100, 200, Some(150))
    }

    #[test]
    fn a_place_is_within_the_log() {
        for (text, offset) in [
            ("beginning", 100),
            ("end", 200),
            ("120", 120),
            ("7", 100),
            ("999", 200),
            ("-10", 190),
            ("-0", 200),
            ("-999", 100),
            ("2h", 150),
            ("2026-03-14T09:26:53Z", 150),
        ] {
            assert_eq!(at(text), offset, "{text}");
        }
        for bad in ["", "yesterday", "1.5", "--3"] {
            assert!(bad.parse::<From>().unwrap_err().contains("beginning"), "{bad}");
        }
    }
}
