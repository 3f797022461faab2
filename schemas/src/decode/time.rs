//! RFC 3339 text to microseconds since 1970, UTC.
//!
//! Accepted: `YYYY-MM-DD`, `T` or `t`, `HH:MM:SS`, up to nine digits of a fraction, then `Z`, `z` or
//! `+HH:MM` / `-HH:MM` up to 23:59. Digits after the sixth are dropped, never rounded up.
//! A second of 60 is accepted where UTC can have a leap second, which is the end of a month's last
//! day, and names the same instant as the first second of the next month, as POSIX counts time.

use super::reject::Reason;

/// The first instant that a time column takes: the start of 1970.
pub(super) const FIRST_MICROS: i64 = 0;
/// The first instant after the last: the start of 2262, so that every time fits 64 bits of nanoseconds.
pub(super) const END_MICROS: i64 = days_from_civil(2262, 1, 1) * DAY_MICROS;
pub(super) const DAY_MICROS: i64 = 86_400 * 1_000_000;

type Flaw = (Reason, &'static str);

const SHAPE: Flaw =
    (Reason::BadTime, "not a time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z");
const DATE: Flaw = (Reason::BadTime, "a date that the calendar doesn't have");
const CLOCK: Flaw = (Reason::BadTime, "a time of day that the clock doesn't have");
const FRACTION: Flaw = (Reason::BadTime, "a fraction of a second of no digits or more than nine");
const LEAP: Flaw = (Reason::BadTime, "a second of 60 where UTC has no leap second");
const OFFSET: Flaw = (Reason::BadTime, "an offset from UTC that isn't Z, +HH:MM or -HH:MM");
const ERA: Flaw = (Reason::TimeOutOfBounds, "a time before 1970 or after 2261");

/// The instant that `text` names.
pub(super) fn parse(text: &[u8]) -> Result<i64, Flaw> {
    let (head, rest) = text.split_first_chunk::<19>().ok_or(SHAPE)?;
    let marks = [head[4], head[7], head[10] | 0x20, head[13], head[16]];
    if marks != *b"--t::" {
        return Err(SHAPE);
    }
    let number = |at: usize| two_digits(head[at], head[at + 1]);
    let (Some(century), Some(year)) = (number(0), number(2)) else {
        return Err(SHAPE);
    };
    let (Some(month), Some(day)) = (number(5), number(8)) else {
        return Err(SHAPE);
    };
    let (Some(hour), Some(minute), Some(second)) = (number(11), number(14), number(17)) else {
        return Err(SHAPE);
    };
    let year = century * 100 + year;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return Err(DATE);
    }
    if hour > 23 || minute > 59 || second > 60 {
        return Err(CLOCK);
    }
    let (fraction, zone) = fraction_micros(rest)?;
    let offset_minutes = offset_minutes(zone)?;
    let days = days_from_civil(year, month, day);
    let seconds = days * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second;
    if second == 60 && !is_month_boundary(seconds, year, month) {
        return Err(LEAP);
    }
    within_era(seconds * 1_000_000 + fraction)
}

/// Refuses instants that a time column doesn't take.
pub(super) fn within_era(micros: i64) -> Result<i64, Flaw> {
    if (FIRST_MICROS..END_MICROS).contains(&micros) { Ok(micros) } else { Err(ERA) }
}

fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
}

/// The fraction in microseconds, and what follows it.
fn fraction_micros(rest: &[u8]) -> Result<(i64, &[u8]), Flaw> {
    let Some((b'.', digits)) = rest.split_first() else {
        return Ok((0, rest));
    };
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return Err(FRACTION);
    }
    let (digits, zone) = digits.split_at(count);
    let mut micros = 0;
    for place in 0..6 {
        micros = micros * 10 + digits.get(place).map_or(0, |b| i64::from(b - b'0'));
    }
    Ok((micros, zone))
}

fn offset_minutes(zone: &[u8]) -> Result<i64, Flaw> {
    match *zone {
        [b'Z' | b'z'] => Ok(0),
        [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] => {
            match (two_digits(h1, h0), two_digits(m1, m0)) {
                (Some(hours @ 0..=23), Some(minutes @ 0..=59)) => {
                    let total = hours * 60 + minutes;
                    Ok(if sign == b'-' { -total } else { total })
                }
                _ => Err(OFFSET),
            }
        }
        _ => Err(OFFSET),
    }
}

/// Whether these seconds since 1970 are 00:00:00 UTC of this or the next month's first day. Other months
/// can't be meant: an offset moves a time by less than a day.
const fn is_month_boundary(seconds: i64, year: i64, month: i64) -> bool {
    let first = days_from_civil(year, month, 1);
    let next = first + days_in_month(year, month);
    seconds == first * 86_400 || seconds == next * 86_400
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar, year 0 or later.
///
/// Counts years from March, so that the leap day is the last day of its year.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 153 days in every five months from March; 719,468 days from 0000-03-01 to 1970-01-01.
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests;
