//! Requests a second of many senders: a bucket of tokens for each, and a bound on how many there are.

use std::{collections::HashMap, hash::Hash};

use crate::webhooks::rate::Rate;

/// So many senders have a bucket of their own. Beyond it, those with a full one are forgotten, which changes nothing;
/// where that makes no room, newcomers share one.
const MOST: usize = 10_000;
/// How long a bucket takes to fill from empty.
const FULL_MS: i64 = 1_000;

/// The buckets.
#[derive(Debug)]
pub struct Rates<K> {
    of: HashMap<K, Bucket>,
    shared: Option<Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    per_second: f64,
    at: i64,
}

impl<K> Default for Rates<K> {
    fn default() -> Rates<K> {
        Rates { of: HashMap::new(), shared: None }
    }
}

impl<K: Clone + Eq + Hash> Rates<K> {
    /// Takes a token of a sender's, or says in how many seconds there will be one. A second's worth may come
    /// at once.
    pub fn take(&mut self, of: &K, per_second: f64, now_ms: i64) -> Result<(), u64> {
        if self.of.len() >= MOST && !self.of.contains_key(of) {
            self.of.retain(|_, bucket| now_ms - bucket.at < FULL_MS);
        }
        let new = || Bucket {
            rate: Rate::bursting(per_second, per_second, now_ms),
            per_second,
            at: now_ms,
        };
        let bucket = if self.of.len() < MOST || self.of.contains_key(of) {
            let bucket = self.of.entry(of.clone()).or_insert_with(new);
            if bucket.per_second.to_bits() != per_second.to_bits() {
                *bucket = new(); // the policy says something else by now
            }
            bucket
        } else {
            self.shared.get_or_insert_with(new)
        };
        bucket.at = now_ms;
        let wait_ms = |until: i64| (until - now_ms).max(1) as u64;
        bucket.rate.take(now_ms).map_err(|until| wait_ms(until).div_ceil(1_000))
    }
}

impl<K: Eq + Hash> Rates<K> {
    /// Gives a token back that turned out not to count.
    pub fn give_back(&mut self, of: &K) {
        if let Some(bucket) = self.of.get_mut(of).or(self.shared.as_mut()) {
            bucket.rate.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_has_a_rate_of_its_own() {
        let mut rates = Rates::default();
        let taken = (0..20).filter(|_| rates.take(&"a", 10.0, 0).is_ok()).count();
        assert_eq!(taken, 10);
        assert_eq!(rates.take(&"a", 10.0, 0), Err(1));
        assert_eq!(rates.take(&"b", 10.0, 0), Ok(()));
        assert_eq!(rates.take(&"a", 10.0, 100), Ok(()), "one more after a tenth of a second");
        assert_eq!(rates.take(&"a", 10.0, 100), Err(1));
        assert_eq!(rates.take(&"a", 20.0, 100), Ok(()), "the policy has changed");
    }

    #[test]
    fn more_senders_than_there_is_room_for_share_what_one_may() {
        let mut rates = Rates::default();
        for sender in 0..MOST {
            assert_eq!(rates.take(&sender, 1.0, 0), Ok(()));
        }
        assert_eq!(rates.take(&MOST, 1.0, 0), Ok(()));
        assert_eq!(rates.take(&(MOST + 1), 1.0, 0), Err(1), "the one before took it");
        rates.give_back(&MOST);
        assert_eq!(rates.take(&(MOST + 1), 1.0, 0), Ok(()), "which didn't count");
        assert_eq!(rates.of.len(), MOST);
        assert_eq!(rates.take(&MOST, 1.0, 2_000), Ok(()), "those before are forgotten");
        assert_eq!(rates.of.len(), 1);
    }
}
