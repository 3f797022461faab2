//! When which message is due: pure functions of a count and of times that the caller measured.

use std::time::Duration;

/// A steady pace of sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    per_second: f64,
}

impl Pace {
    /// Shorter waits than this aren't worth a system call; the messages go in small groups instead.
    const SHORTEST_WAIT: Duration = Duration::from_millis(1);

    pub(super) const fn new(per_second: f64) -> Pace {
        Pace { per_second }
    }

    /// How long to wait before message `number` (from 0), `elapsed` after the first was due.
    ///
    /// A sender that fell behind doesn't wait until it has caught up: the pace is kept on average.
    pub(super) fn wait(self, number: u64, elapsed: Duration) -> Option<Duration> {
        let due =
            Duration::try_from_secs_f64(number as f64 / self.per_second).unwrap_or(Duration::MAX);
        let wait = due.saturating_sub(elapsed);
        (wait >= Pace::SHORTEST_WAIT).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of the messages sent before a virtual clock passes `end`, where each send takes
    /// `cost`.
    fn sent_before(end: Duration, rate: f64, cost: impl Fn(u64) -> Duration) -> u64 {
        let (pace, mut clock, mut number) = (Pace::new(rate), Duration::ZERO, 0);
        while clock < end {
            clock += pace.wait(number, clock).unwrap_or_default() + cost(number);
            number += 1;
        }
        number
    }

    #[test]
    fn the_rate_is_kept_on_average() {
        let second = Duration::from_secs(1);
        for rate in [1.0, 50.0, 1_000.0, 30_000.0] {
            let sent = sent_before(10 * second, rate, |_| Duration::from_micros(1)) as f64;
            assert!((sent - 10.0 * rate).abs() <= 1.0 + rate * 0.001, "{sent} at {rate}");
        }
    }

    #[test]
    fn a_stall_is_caught_up_and_then_the_pace_is_back() {
        let stall = |number| Duration::from_micros(if number == 100 { 2_000_000 } else { 5 });
        let sent = sent_before(Duration::from_secs(10), 100.0, stall);
        assert!((999..=1_001).contains(&sent), "{sent}");
        assert_eq!(Pace::new(100.0).wait(150, Duration::from_secs(3)), None);
        assert_eq!(
            Pace::new(100.0).wait(400, Duration::from_secs(3)),
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn extreme_rates_neither_overflow_nor_divide_by_zero() {
        assert!(Pace::new(f64::MIN_POSITIVE).wait(u64::MAX, Duration::ZERO).is_some());
        assert_eq!(Pace::new(f64::MAX).wait(u64::MAX, Duration::ZERO), None);
    }
}
