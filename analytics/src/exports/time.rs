//! Times as exports state them: RFC 3339 in UTC.

use aion_schemas::log::Timestamp;
use arrow::{compute::kernels::cast_utils::string_to_timestamp_nanos, temporal_conversions};

/// A time with microseconds, in UTC.
pub fn rfc3339(time: Timestamp) -> String {
    let shown = temporal_conversions::timestamp_us_to_datetime(time.0);
    shown.map_or_else(
        || time.0.to_string(),
        |shown| shown.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
    )
}

/// Reads a time that says its zone; times below the microsecond are refused, since rows have none.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    let has_zone =
        text.ends_with(['Z', 'z']) || text.get(19..).is_some_and(|rest| rest.contains(['+', '-']));
    if !has_zone {
        return Err(format!(
            "{text:?} doesn't say its time zone: write it in RFC 3339, such as 2026-11-23T05:00:00Z"
        ));
    }
    let nanos = string_to_timestamp_nanos(text)
        .map_err(|_| format!("{text:?} is no time in RFC 3339, such as 2026-11-23T05:00:00Z"))?;
    if nanos % 1000 != 0 {
        return Err(format!("{text:?}: microseconds are the finest that rows have"));
    }
    Ok(Timestamp(nanos / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_any_zone_and_written_in_utc() {
        let read = |text: &str| parse(text).map(rfc3339);
        assert_eq!(read("2026-11-23T05:00:00Z"), Ok("2026-11-23T05:00:00.000000Z".into()));
        assert_eq!(read("2026-11-23T06:00:00+01:00"), Ok("2026-11-23T05:00:00.000000Z".into()));
        assert_eq!(read("2026-11-23 05:00:00.5Z"), Ok("2026-11-23T05:00:00.500000Z".into()));
        for bad in ["2026-11-23T05:00:00", "2026-11-23", "tomorrow", "", "2026-13-01T00:00:00Z"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("2026-11-23T05:00:00.0000001Z").is_err());
    }
}
