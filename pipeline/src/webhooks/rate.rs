//! Deliveries a second, at most: a bucket of tokens.

use super::cursor::Millis;

/// How much of a second's deliveries may come at once.
const BURST: f64 = 0.1;

/// A bucket.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_ms: f64,
    most: f64,
    tokens: f64,
    at: Millis,
}

impl Rate {
    /// A full bucket.
    pub fn new(per_second: f64, now: Millis) -> Rate {
        Rate::bursting(per_second, per_second * BURST, now)
    }

    /// A full bucket of so many tokens, of which there may come as many at once.
    pub fn bursting(per_second: f64, burst: f64, now: Millis) -> Rate {
        let most = burst.max(1.0);
        Rate { per_ms: per_second / 1_000.0, most, tokens: most, at: now }
    }

    /// Takes a token, or says when there will be one.
    pub fn take(&mut self, now: Millis) -> Result<(), Millis> {
        let passed = now.saturating_sub(self.at).max(0) as f64;
        self.tokens = (self.tokens + passed * self.per_ms).min(self.most);
        self.at = now.max(self.at);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(now + (((1.0 - self.tokens) / self.per_ms).ceil() as Millis).max(1))
    }

    /// Gives a token back that wasn't used.
    pub fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate_gets_through() {
        let mut rate = Rate::new(50.0, 0);
        let taken = (0..10_000).filter(|now| rate.take(*now).is_ok()).count();
        assert!((495..=506).contains(&taken), "{taken} in 10 s");
    }

    #[test]
    fn a_slow_rate_says_when() {
        let mut rate = Rate::new(0.5, 0);
        assert_eq!(rate.take(0), Ok(()));
        assert_eq!(rate.take(0), Err(2_000));
        assert_eq!(rate.take(1_999), Err(2_000));
        assert_eq!(rate.take(2_000), Ok(()));
        rate.give_back();
        assert_eq!(rate.take(2_000), Ok(()));
    }
}
