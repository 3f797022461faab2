//! From when on: a time, or how long ago.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use aion_schemas::log::Timestamp;
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;

/// The beginning of what is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A point in time.
    At(Timestamp),
    /// So long before the audit.
    Ago(Duration),
}

impl Since {
    /// The time that it means now.
    pub fn time(self) -> Timestamp {
        match self {
            Since::At(time) => time,
            Since::Ago(ago) => Timestamp(now().0.saturating_sub_unsigned(ago.as_micros() as u64)),
        }
    }
}

/// The clock's time; a clock set before 1970 counts as 1970.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Since, Self::Err> {
        const HELP: &str =
            "not a time such as 2026-01-31T12:00:00Z and not a duration such as 90s, 30m, 2h or 7d";
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit_s = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => {
                let nanos = string_to_timestamp_nanos(text).map_err(|_| HELP)?;
                return Ok(Since::At(Timestamp(nanos.div_euclid(1000))));
            }
        };
        let number: u64 = number.parse().map_err(|_| HELP)?;
        // Some centuries: more than any log has.
        let seconds = number.checked_mul(unit_s).filter(|s| *s < 1 << 34).ok_or(HELP)?;
        Ok(Since::Ago(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_read() {
        let time = Since::At(Timestamp(1_769_860_800_000_000));
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00"] {
            assert_eq!(text.parse(), Ok(time), "{text}");
        }
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(text.parse(), Ok(Since::Ago(Duration::from_secs(seconds))));
        }
        for bad in ["", "h", "2w", "-2h", "yesterday", "99999999999d"] {
            assert!(bad.parse::<Since>().is_err(), "{bad}");
        }
    }
}
