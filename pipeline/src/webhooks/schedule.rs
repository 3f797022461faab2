//! When a delivery is tried again: exponential backoff with full jitter, within what the policy says.

use std::time::Duration;

/// The `retry` of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The bound of the pause after the first attempt.
    pub initial_interval: Duration,
    /// The bound of any pause.
    pub max_interval: Duration,
    /// Attempts in all, the first one included.
    pub max_attempts: u32,
}

impl Retry {
    /// The longest pause after so many attempts: twice as long after each, up to the bound.
    fn longest(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        let longest = self.initial_interval.saturating_mul(1 << doublings);
        longest.min(self.max_interval)
    }

    /// The pause after so many attempts. `chance` in [0, 1) spreads the attempts of many over the whole
    /// pause, so that a receiver that comes back isn't met by all at once. What the receiver asked for with
    /// `Retry-After` holds, up to the policy's bound.
    pub fn pause(&self, attempts: u32, chance: f64, asked: Option<Duration>) -> Duration {
        let pause = self.longest(attempts).mul_f64(chance.clamp(0.0, 1.0));
        asked.map_or(pause, |asked| asked.clamp(pause, self.max_interval.max(pause)))
    }

    /// The longest time between the first attempt and the last.
    pub fn span(&self) -> Duration {
        let mut span = Duration::ZERO;
        for attempts in 1..self.max_attempts {
            let longest = self.longest(attempts);
            if longest == self.max_interval {
                let left = self.max_attempts - attempts;
                return span.saturating_add(longest.saturating_mul(left));
            }
            span = span.saturating_add(longest);
        }
        span
    }
}

/// Reads `Retry-After`: seconds, or a date of HTTP. What is neither is as if it weren't there, and a date
/// in the past is now.
pub fn retry_after(value: &str, now: std::time::SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are a very long time.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    const RETRY: Retry = Retry {
        initial_interval: Duration::from_secs(1),
        max_interval: Duration::from_mins(1),
        max_attempts: 10,
    };

    #[test]
    fn pauses_double_up_to_the_bound_and_are_spread_over_the_whole() {
        let full = |attempts| RETRY.pause(attempts, 1.0, None).as_secs();
        assert_eq!([1, 2, 3, 6, 7, 40].map(full), [1, 2, 4, 32, 60, 60]);
        assert_eq!(RETRY.pause(3, 0.0, None), Duration::ZERO);
        assert_eq!(RETRY.pause(3, 0.5, None), Duration::from_secs(2));
    }

    #[test]
    fn what_the_receiver_asks_for_holds_within_the_policy() {
        let asked = |seconds| RETRY.pause(2, 0.5, Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!([0, 1, 30, 60, 61, 1_000_000_000_000].map(asked), [1, 1, 30, 60, 60, 60]);
    }

    #[test]
    fn the_span_is_the_sum_of_the_longest_pauses() {
        assert_eq!(RETRY.span(), Duration::from_secs(1 + 2 + 4 + 8 + 16 + 32 + 60 + 60 + 60));
        assert_eq!(Retry { max_attempts: 1, ..RETRY }.span(), Duration::ZERO);
        assert_eq!(
            Retry { max_attempts: u32::MAX, ..RETRY }.span().as_secs() / 60,
            u64::from(u32::MAX) - 6
        );
    }

    #[test]
    fn odd_values_of_retry_after_do_no_harm() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |value| retry_after(value, now);
        assert_eq!(read("120"), Some(Duration::from_mins(2)));
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO), "the past is now");
        assert!(read("1000000000000").unwrap() > Duration::from_secs(1_000_000));
        assert!(read("99999999999999999999999").unwrap() > Duration::from_secs(1_000_000));
        for garbage in ["", "-1", "1.5", "soon", "1e9"] {
            assert_eq!(retry_after(garbage, SystemTime::now()), None, "{garbage:?}");
        }
    }
}
