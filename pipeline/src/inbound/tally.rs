//! Requests that have no audit event of their own: counted, and summed up once a minute.
//!
//! | requests | at once | in the sum |
//! |---|---|---|
//! | not authenticated | nothing | one event, with a count for each cause |
//! | beyond the rate of their principal | an event of the first in a minute | an event for each principal, with a count of its others |
//!
//! So whoever floods the gateway writes a few events a minute, whatever comes, and none of what they sent goes
//! untold.
//!
//! **Invariant:** what was counted is taken off when its event is acknowledged, and not before.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    gateway::{WAIT, now},
    metrics::Counters,
    trail,
};

/// How often it is summed up.
pub const SUMMED_UP: Duration = Duration::from_mins(1);
/// So many principals are told apart in a minute; the others are one.
const MOST: usize = 1_000;

/// Requests that were one too many, by principal: those of this minute's first events, with a count of the others.
#[derive(Debug, Default)]
pub struct Tally(Mutex<HashMap<Arc<str>, u64>>);

impl Tally {
    /// A request of a principal was one too many. Whether it is the first of the minute, which has an event of its own;
    /// every other one is counted.
    pub fn is_first(&self, principal: &Arc<str>) -> bool {
        let mut counts = self.counts();
        if !counts.contains_key(principal) && counts.len() < MOST {
            counts.insert(Arc::clone(principal), 0);
            return true;
        }
        drop(counts);
        self.count(principal);
        false
    }

    /// Counts one that has no event.
    pub fn count(&self, principal: &Arc<str>) {
        let mut counts = self.counts();
        let is_told_apart = counts.contains_key(principal) || counts.len() < MOST;
        let whose = if is_told_apart { Arc::clone(principal) } else { trail::GATEWAY.into() };
        *counts.entry(whose).or_default() += 1;
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Arc<str>, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what was counted written, each event with its actor, and once more at `shutdown`.
    pub async fn sum_up<W, F>(
        &self,
        (counters, every): (&Counters, Duration),
        write: W,
        shutdown: CancellationToken,
    ) where
        W: Fn(Arc<str>, Vec<u8>, Instant) -> F,
        F: Future<Output = Result<(), String>>,
    {
        let mut told: BTreeMap<&'static str, u64> = BTreeMap::new();
        loop {
            let pause = tokio::time::sleep(every);
            let is_over = shutdown.run_until_cancelled(pause).await.is_none();
            let until = Instant::now() + WAIT;
            let write = |actor: Arc<str>, event| write(actor, event, until);
            let counts = counters.noise();
            let noise = news(&counts, &told);
            let mut written = Ok(());
            if !noise.is_empty() {
                written = write(trail::GATEWAY.into(), trail::noise(&noise, now())).await;
            }
            if written.is_ok() {
                told = counts;
                written = self.write_excess(write).await;
            }
            if let Err(cause) = written {
                tracing::warn!("commands: the sum of what was refused is put off: {cause}");
            }
            if is_over {
                return;
            }
        }
    }

    /// Writes what was too much of each principal, until one event can't be written.
    async fn write_excess<W, F>(&self, write: W) -> Result<(), String>
    where
        W: Fn(Arc<str>, Vec<u8>) -> F,
        F: Future<Output = Result<(), String>>,
    {
        let counted: Vec<(Arc<str>, u64)> = {
            let mut counts = self.counts();
            counts.retain(|_, count| *count > 0);
            counts.iter().map(|(principal, count)| (Arc::clone(principal), *count)).collect()
        };
        for (principal, count) in counted {
            write(Arc::clone(&principal), trail::too_many(&principal, count, now())).await?;
            let mut counts = self.counts();
            let left = counts.remove(&principal).unwrap_or_default() - count;
            if left > 0 {
                counts.insert(principal, left);
            }
        }
        Ok(())
    }
}

/// What is counted since it was told of.
fn news(
    counts: &BTreeMap<&'static str, u64>,
    told: &BTreeMap<&'static str, u64>,
) -> BTreeMap<&'static str, u64> {
    let new = |(cause, count): (&&'static str, &u64)| {
        let new = count - told.get(cause).copied().unwrap_or_default();
        (new > 0).then_some((*cause, new))
    };
    counts.iter().filter_map(new).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::{Value, json};
    use tokio::sync::mpsc::{self, UnboundedReceiver};

    use super::*;

    type Sums = UnboundedReceiver<(Arc<str>, Value)>;

    /// Sums up every few milliseconds; each second event can't be written. What is written comes out.
    fn summing(tally: &Arc<Tally>, counters: &Arc<Counters>, stop: &CancellationToken) -> Sums {
        let (out, sums) = mpsc::unbounded_channel();
        let (tally, counters, stop) = (Arc::clone(tally), Arc::clone(counters), stop.clone());
        tokio::spawn(async move {
            let turn = AtomicU64::new(0);
            let write = |actor: Arc<str>, event: Vec<u8>, _| {
                let is_taken = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
                let written = is_taken.then_some(()).ok_or_else(|| "no".to_owned());
                if written.is_ok() {
                    out.send((actor, serde_json::from_slice(&event).unwrap())).unwrap();
                }
                std::future::ready(written)
            };
            let every = Duration::from_millis(5);
            tally.sum_up((&counters, every), write, stop).await;
        });
        sums
    }

    /// What all events say, by actor and name.
    async fn all(mut sums: Sums) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        while let Some((actor, event)) = sums.recv().await {
            assert_eq!(event["actor_id"], *actor);
            let requests = &event["context"]["requests"];
            let each = match requests.as_object() {
                Some(causes) => causes.iter().map(|(cause, n)| (cause.clone(), n)).collect(),
                None => vec![(actor.to_string(), requests)],
            };
            for (name, count) in each {
                *all.entry(name).or_default() += count.as_u64().unwrap();
            }
        }
        all
    }

    #[tokio::test]
    async fn every_request_is_told_of_once_though_kafka_may_not_take_it_at_first() {
        let (tally, counters) = (Arc::new(Tally::default()), Arc::new(Counters::default()));
        let stop = CancellationToken::new();
        let mut sums = summing(&tally, &counters, &stop);
        let principals: Vec<Arc<str>> = ["ann", "bob", "eve"].map(Arc::from).to_vec();
        let mut firsts = BTreeMap::new();
        counters.unauthenticated("signature");
        let (_, event) = sums.recv().await.unwrap();
        assert_eq!(event["action"], "inbound.unauthenticated");
        assert_eq!(event["context"], json!({"requests": {"signature": 1}, "of_the_last_s": 60}));
        for round in 0..300 {
            counters.unauthenticated(["signature", "credential"][round % 2]);
            let principal = &principals[round % 3];
            let first = u64::from(tally.is_first(principal));
            *firsts.entry(principal.to_string()).or_insert(0) += first;
            if round % 30 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        // It sums up until nothing is left, and once more as it stops.
        while tally.counts().values().any(|count| *count > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.cancel();
        let mut summed = all(sums).await;
        assert_eq!(
            (summed.remove("signature"), summed.remove("credential")),
            (Some(150), Some(150))
        );
        for (principal, first) in firsts {
            assert!(first >= 1, "{principal}");
            assert_eq!(first + summed.remove(&principal).unwrap_or(0), 100, "{principal}");
        }
        assert!(summed.is_empty(), "{summed:?}");
    }

    #[test]
    fn the_first_of_a_minute_has_an_event_and_more_principals_than_are_told_apart_are_one() {
        let tally = Tally::default();
        let name = |number: usize| Arc::<str>::from(number.to_string());
        for number in 0..MOST {
            assert!(tally.is_first(&name(number)) && !tally.is_first(&name(number)));
        }
        assert!(!tally.is_first(&name(MOST)) && !tally.is_first(&name(MOST + 1)));
        let counts = tally.counts();
        assert_eq!((counts.len(), counts[trail::GATEWAY]), (MOST + 1, 2));
        assert_eq!(counts["7"], 1);
    }
}
