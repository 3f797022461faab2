//! Whether an endpoint is worth trying: after some failures in a row it is left alone, and one delivery at a
//! time finds out whether it is back.
//!
//! | state | new deliveries | ends with |
//! |---|---|---|
//! | closed | as many as the window has room for | `FAILURES` failures without a success between them |
//! | open | none | its pause, which grows with each probe that fails |
//! | half open | one, the probe | its answer |

use super::{cursor::Millis, schedule::Retry};

/// So many failures in a row open it.
const FAILURES: u32 = 5;
/// The least pause between probes.
const LEAST: Millis = 100;

/// The breaker of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    since: Millis,
    until: Millis,
    probes: u32,
    is_probing: bool,
}

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Anything.
    Any,
    /// One delivery, to find out.
    Probe,
    /// Nothing.
    Nothing,
}

impl Breaker {
    /// What may be sent at `now`.
    pub fn permit(&self, now: Millis) -> Permit {
        match &self.open {
            None => Permit::Any,
            Some(open) if !open.is_probing && open.until <= now => Permit::Probe,
            Some(_) => Permit::Nothing,
        }
    }

    /// A probe is on its way.
    pub fn probe(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_probing = true;
        }
    }

    /// The probe turned out to say nothing of the endpoint: another may go.
    pub fn unprobed(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_probing = false;
        }
    }

    /// An attempt succeeded.
    pub fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    /// An attempt failed; answers when the next probe may go, where the breaker is open.
    pub fn failed(&mut self, now: Millis, retry: &Retry, chance: f64) -> Option<Millis> {
        self.failures = self.failures.saturating_add(1);
        match &mut self.open {
            None if self.failures < FAILURES => None,
            None => {
                let until = now + pause(retry, 1, chance);
                self.open = Some(Open { since: now, until, probes: 0, is_probing: false });
                Some(until)
            }
            // An answer that was under way when it opened is no probe.
            Some(open) if !open.is_probing => Some(open.until),
            Some(open) => {
                open.is_probing = false;
                open.probes = open.probes.saturating_add(1);
                open.until = now + pause(retry, open.probes + 1, chance);
                Some(open.until)
            }
        }
    }

    /// Since when the endpoint has been left alone.
    pub fn open_since(&self) -> Option<Millis> {
        self.open.map(|open| open.since)
    }
}

fn pause(retry: &Retry, attempts: u32, chance: f64) -> Millis {
    (retry.pause(attempts, chance, None).as_millis() as Millis).max(LEAST)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RETRY: Retry = Retry {
        initial_interval: Duration::from_secs(1),
        max_interval: Duration::from_secs(8),
        max_attempts: 9,
    };

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES - 1 {
            assert_eq!(breaker.failed(0, &RETRY, 1.0), None);
        }
        breaker.succeeded();
        for _ in 0..FAILURES - 1 {
            breaker.failed(0, &RETRY, 1.0);
            assert_eq!(breaker.permit(0), Permit::Any, "a success begins anew");
        }
        assert_eq!(breaker.failed(0, &RETRY, 1.0), Some(1_000));
        assert_eq!(breaker.permit(999), Permit::Nothing);
        assert_eq!(breaker.permit(1_000), Permit::Probe);
        breaker.probe();
        assert_eq!(breaker.permit(1_000), Permit::Nothing, "one only");
        assert_eq!(breaker.failed(1_000, &RETRY, 1.0), Some(3_000));
        breaker.probe();
        breaker.succeeded();
        assert_eq!(breaker.permit(3_000), Permit::Any);
    }

    #[test]
    fn answers_that_were_under_way_dont_lengthen_the_pause() {
        let mut breaker = Breaker::default();
        for _ in 0..40 {
            breaker.failed(0, &RETRY, 1.0);
        }
        assert_eq!(breaker.permit(1_000), Permit::Probe);
    }

    #[test]
    fn pauses_of_probes_grow_up_to_the_policys_bound() {
        let mut breaker = Breaker::default();
        let mut now = 0;
        for _ in 0..FAILURES {
            now = breaker.failed(0, &RETRY, 1.0).unwrap_or(0);
        }
        for _ in 0..20 {
            breaker.probe();
            now = breaker.failed(now, &RETRY, 1.0).unwrap_or(0);
        }
        let next = breaker.failed(now, &RETRY, 1.0);
        assert_eq!(next, Some(now), "no probe was out");
        breaker.probe();
        assert_eq!(breaker.failed(now, &RETRY, 0.0), Some(now + LEAST));
    }
}
