//! Bounded waiting between tries of something that fails in a way that passes.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// When to try again: after 100 ms, then twice as long each time, 10 s at most unless said.
#[derive(Debug)]
pub(super) struct Backoff {
    longest: Duration,
    wait: Option<Duration>,
    until: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::up_to(LONGEST)
    }
}

impl Backoff {
    /// One that waits no longer than this.
    pub(super) fn up_to(longest: Duration) -> Backoff {
        Backoff { longest, wait: None, until: None }
    }

    /// Notes a failure at `now`.
    pub(super) fn failed(&mut self, now: Instant) {
        let wait = self.wait.map_or(FIRST, |wait| (wait * 2).min(self.longest));
        (self.wait, self.until) = (Some(wait), Some(now + wait));
    }

    /// Notes a success.
    pub(super) fn succeeded(&mut self) {
        *self = Backoff::up_to(self.longest);
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
        let now = Instant::now();
        for longest in [LONGEST, Duration::from_secs(1)] {
            let mut backoff = Backoff::up_to(longest);
            backoff.failed(now);
            assert!(backoff.waits(now) && !backoff.waits(now + FIRST));
            for _ in 0..20 {
                backoff.failed(now);
            }
            assert!(backoff.waits(now + longest / 2) && !backoff.waits(now + longest));
            backoff.succeeded();
            assert!(!backoff.waits(now));
        }
    }
}
