//! Times in headers and entries: RFC 3339 with microseconds, in UTC, as people and other tools read them.

use aion_schemas::log::Timestamp;

const DAY_MICROS: i64 = 86_400_000_000;

/// A time as RFC 3339 with microseconds, in UTC.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let (days, micros) = (time.0.div_euclid(DAY_MICROS), time.0.rem_euclid(DAY_MICROS));
    let (year, month, day) = civil(days);
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{micros:06}Z")
}

/// Days since 1970-01-01 as year, month, day of the Gregorian calendar, counted in years from 1 March,
/// so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let calendar_month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(calendar_month <= 2), calendar_month, date)
}

/// Reads what [`rfc3339`] writes, and nothing else.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let digits = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hours, minutes, seconds) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let seconds = (hours * 60 + minutes) * 60 + seconds;
    let time =
        Timestamp(days(year, month, day) * DAY_MICROS + seconds * 1_000_000 + digits(20, 26)?);
    // Written again it must be the same: that refuses other forms and days that no month has.
    (rfc3339(time) == text).then_some(time)
}

/// The reverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_people_and_read_back() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_767_225_599_999_999, "2025-12-31T23:59:59.999999Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(rfc3339(Timestamp(time)), text);
            assert_eq!(parse_rfc3339(text), Some(Timestamp(time)));
        }
        for bad in [
            "",
            "2025-02-30T00:00:00.000000Z",
            "2025-12-31T23:59:59Z",
            "x",
            "é025-12-31T23:59:59.999999Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
