//! Bounded waiting between tries of something that fails in a way that passes.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// When to try again: after 100 ms, then twice as long each time, 10 s at most.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    wait: Option<Duration>,
    until: Option<Instant>,
}

impl Backoff {
    /// Notes a failure at `now`.
    pub(super) fn failed(&mut self, now: Instant) {
        let wait = self.wait.map_or(FIRST, |wait| (wait * 2).min(LONGEST));
        (self.wait, self.until) = (Some(wait), Some(now + wait));
    }

    /// Notes a success.
    pub(super) fn succeeded(&mut self) {
        *self = Backoff::default();
    }

    /// Whether it isn't time yet.
    pub(super) fn waits(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether the last try failed.
    pub(super) fn is_failing(&self) -> bool {
        self.wait.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_its_bound_and_ends_with_success() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(now);
        assert!(backoff.waits(now) && !backoff.waits(now + FIRST));
        for _ in 0..20 {
            backoff.failed(now);
        }
        assert!(!backoff.waits(now + LONGEST));
        backoff.succeeded();
        assert!(!backoff.waits(now));
    }
}
