use super::{END_MICROS, parse};
use crate::decode::Reason;

fn micros(text: &str) -> i64 {
    parse(text.as_bytes()).unwrap_or_else(|flaw| panic!("{text}: {flaw:?}"))
}

fn reason(text: &str) -> Reason {
    match parse(text.as_bytes()) {
        Ok(micros) => panic!("{text} was taken as {micros}"),
        Err((reason, _)) => reason,
    }
}

#[test]
fn reads_what_rfc_3339_allows() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01T00:00:00+00:00", 0),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1970-01-01T23:59:00+23:59", 0),
        ("2026-11-25T03:04:05.6Z", 1_795_575_845_600_000),
        ("2026-11-25T08:34:05.6+05:30", 1_795_575_845_600_000),
        ("2024-02-29T12:00:00Z", 1_709_208_000_000_000),
        ("2000-02-29T00:00:00Z", 951_782_400_000_000),
        ("2261-12-31T23:59:59.999999999Z", END_MICROS - 1),
    ] {
        assert_eq!(micros(text), expected, "{text}");
    }
}

#[test]
fn drops_digits_below_the_microsecond() {
    for (fraction, expected) in
        [("", 0), (".1", 100_000), (".000001", 1), (".0000019", 1), (".123456789", 123_456)]
    {
        assert_eq!(micros(&format!("1970-01-01T00:00:00{fraction}Z")), expected, "{fraction}");
    }
}

#[test]
fn a_leap_second_is_the_first_second_of_the_next_month() {
    let next = micros("2017-01-01T00:00:00.25Z");
    for text in [
        "2016-12-31T23:59:60.25Z",
        "2016-12-31T18:59:60.25-05:00",
        "2017-01-01T08:59:60.25+09:00",
        "2016-12-31T00:00:60.25-23:59",
    ] {
        assert_eq!(micros(text), next, "{text}");
    }
    for text in [
        "2016-12-30T23:59:60Z",
        "2016-12-31T23:58:60Z",
        "2016-12-31T22:59:60Z",
        "2016-12-31T23:59:60+01:00",
        "2016-12-31T23:59:61Z",
    ] {
        assert_eq!(reason(text), Reason::BadTime, "{text}");
    }
}

#[test]
fn refuses_what_is_not_rfc_3339() {
    for text in [
        "",
        "now",
        "2026-11-25",
        "2026-11-25T03:04Z",
        "2026-11-25 03:04:05Z",
        "2026-11-25T03:04:05",
        "2026-11-25T03:04:05.Z",
        "2026-11-25T03:04:05,5Z",
        "2026-11-25T03:04:05.1234567890Z",
        "2026-11-25T03:04:05+0100",
        "2026-11-25T03:04:05+01",
        "2026-11-25T03:04:05+24:00",
        "2026-11-25T03:04:05+01:60",
        "2026-11-25T03:04:05ZZ",
        "2026-11-25T03:04:05Z ",
        " 2026-11-25T03:04:05Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T0a:00:00Z",
        "+026-01-01T00:00:00Z",
        "２026-01-01T00:00:00Z",
    ] {
        assert_eq!(reason(text), Reason::BadTime, "{text}");
    }
}

#[test]
fn refuses_years_that_nanoseconds_do_not_reach() {
    for text in [
        "0000-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999999Z",
        "1970-01-01T00:00:00+00:01",
        "2262-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ] {
        assert_eq!(reason(text), Reason::TimeOutOfBounds, "{text}");
    }
}
