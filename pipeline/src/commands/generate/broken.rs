//! Messages that are broken in the ways in which messages break: for dead letters and for tests.
//!
//! **Invariant:** which message is broken, and how, follows from its number alone, so counts are
//! exact.

use std::fmt;

use aion_schemas::log::Timestamp;

use super::event::{Event, Topic, Value};

/// A way of being broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// The body ends in the middle.
    Truncated,
    /// A first byte that belongs to no encoding.
    UnknownEncoding,
    /// A text that isn't UTF-8.
    InvalidUtf8,
    /// The time of a clock that was never set.
    TimeOutOfBounds,
    /// A required field of another type.
    WrongType,
    /// A required field isn't there.
    MissingField,
    /// A time that isn't RFC 3339.
    BadTime,
}

impl Breakage {
    /// Every way. The first [`Breakage::BINARY`] exist in Avro too; the others only in JSON.
    pub const ALL: [Breakage; 7] = [
        Breakage::Truncated,
        Breakage::UnknownEncoding,
        Breakage::InvalidUtf8,
        Breakage::TimeOutOfBounds,
        Breakage::WrongType,
        Breakage::MissingField,
        Breakage::BadTime,
    ];
    /// How many of [`Breakage::ALL`] exist in Avro.
    pub const BINARY: usize = 4;

    const fn name(self) -> &'static str {
        match self {
            Breakage::Truncated => "truncated",
            Breakage::UnknownEncoding => "unknown_encoding",
            Breakage::InvalidUtf8 => "invalid_utf8",
            Breakage::TimeOutOfBounds => "time_out_of_bounds",
            Breakage::WrongType => "wrong_type",
            Breakage::MissingField => "missing_field",
            Breakage::BadTime => "bad_time",
        }
    }

    /// What is to be broken before the event is encoded.
    pub fn break_event(self, event: &mut Event) {
        let field = spoiled_field(event.topic);
        match self {
            Breakage::TimeOutOfBounds => {
                set(event, "timestamp", Value::Time(Timestamp(event.time.0 % 60_000_000)));
            }
            Breakage::BadTime => set(event, "timestamp", Value::Word("31.12.2025 23:59")),
            Breakage::WrongType => {
                set(event, field, Value::Object(vec![("unexpected", Value::Boolean(true))]));
            }
            Breakage::MissingField => event.fields.retain(|(name, _)| *name != field),
            Breakage::Truncated | Breakage::UnknownEncoding | Breakage::InvalidUtf8 => {}
        }
    }

    /// What is to be broken in the encoded body, which contains the key's text.
    pub fn break_body(self, body: &mut Vec<u8>, key: &[u8]) {
        match self {
            Breakage::Truncated => body.truncate(body.len() * 2 / 3),
            Breakage::UnknownEncoding => body.insert(0, 0x01),
            Breakage::InvalidUtf8 => {
                let at = body.windows(key.len().max(1)).position(|window| window == key);
                if let Some(byte) = at.and_then(|at| body.get_mut(at)) {
                    *byte = 0xff; // stands in no UTF-8 text
                }
            }
            Breakage::TimeOutOfBounds
            | Breakage::WrongType
            | Breakage::MissingField
            | Breakage::BadTime => {}
        }
    }
}

impl fmt::Display for Breakage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A required field that isn't the key, so that the key stays readable.
const fn spoiled_field(topic: Topic) -> &'static str {
    match topic {
        Topic::Decisions => "route",
        Topic::Tasks => "status",
        Topic::Metrics => "value",
        Topic::Audit => "action",
    }
}

fn set(event: &mut Event, name: &str, to: Value) {
    if let Some((_, value)) = event.fields.iter_mut().find(|(field, _)| *field == name) {
        *value = to;
    }
}

/// The share of messages to break, exact to a millionth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    const WHOLE: u64 = 1_000_000;

    /// How many of the first `count` messages are broken.
    pub const fn of(self, count: u64) -> u64 {
        (count as u128 * self.0 as u128 / Share::WHOLE as u128) as u64
    }

    /// How message `number` (from 0) is to be broken, if at all: every way in turn.
    pub fn breakage(self, number: u64, ways: &[Breakage]) -> Option<Breakage> {
        let before = self.of(number);
        let is_broken = self.of(number + 1) > before;
        ways.get(before as usize % ways.len().max(1)).copied().filter(|_| is_broken)
    }
}

impl std::str::FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Share, Self::Err> {
        match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => {
                Ok(Share((share * Share::WHOLE as f64).round() as u64))
            }
            _ => Err("a share is a number from 0 to 1, such as 0.02"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_share_is_exact_and_spread_evenly() {
        for (share, count, broken) in
            [("0.02", 10_000, 200), ("0.333", 1_000, 333), ("0", 500, 0), ("1", 70, 70)]
        {
            let share: Share = share.parse().unwrap();
            let numbers =
                || (0..count).filter(|number| share.breakage(*number, &Breakage::ALL).is_some());
            assert_eq!(numbers().count(), broken);
            assert_eq!(share.of(count), broken as u64);
            let first_half = numbers().filter(|number| *number < count / 2).count();
            assert!(first_half.abs_diff(broken / 2) <= 1);
        }
        assert!(
            "1.01".parse::<Share>().is_err()
                && "-0.1".parse::<Share>().is_err()
                && "x".parse::<Share>().is_err()
        );
    }

    #[test]
    fn every_way_of_breaking_gets_its_turn() {
        let share: Share = "0.14".parse().unwrap();
        let broken: Vec<_> =
            (0..1_000).filter_map(|number| share.breakage(number, &Breakage::ALL)).collect();
        assert!(Breakage::ALL.iter().all(|way| broken.iter().filter(|b| *b == way).count() == 20));
    }
}
