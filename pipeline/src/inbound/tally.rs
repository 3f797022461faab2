//! Requests that have no audit event of their own: counted, and summed up once a minute.
//!
//! | requests | at once | in the sum |
//! |---|---|---|
//! | not authenticated | nothing | one event, with a count for each cause |
//! | beyond the rate of their principal | an event of the first in a minute | an event for each principal, with a count of its others |
//!
//! So whoever floods the gateway writes a few events a minute, whatever comes, and none of what they sent goes
//! untold. Events are made here and written by one task, one after the other, so no request waits for them, and none is
//! lost with its connection.
//!
//! **Invariant:** what was counted is taken off as its event is made, and the event is written, the same bytes with the
//! same id, until it is acknowledged: what isn't known to be written may be there twice, and is one by its id.
//! **Invariant:** nothing newer is written before that; it is counted.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
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

/// Requests that were one too many, and the events that tell of requests.
#[derive(Debug, Default)]
pub struct Tally {
    untold: Mutex<Untold>,
    /// There is an event of a first one.
    first: Notify,
}

#[derive(Debug, Default)]
struct Untold {
    /// By principal, since the last sum: those that had a first one, with a count of the others.
    counts: HashMap<Arc<str>, u64>,
    /// Actors and events that aren't acknowledged, in order. Sums are added once it was empty, so there are three times
    /// `MOST` at most, and a few.
    events: VecDeque<(Arc<str>, Vec<u8>)>,
}

/// Up to where it is summed up.
struct Summed {
    noise: BTreeMap<&'static str, u64>,
    at: Instant,
}

impl Tally {
    /// A request of a principal was one too many: the first of the minute has `event`, every other one is counted.
    pub fn was_too_many(&self, principal: &Arc<str>, event: impl FnOnce() -> Vec<u8>) {
        let mut untold = self.untold();
        if let Some(count) = untold.counts.get_mut(principal) {
            *count += 1;
        } else if untold.counts.len() < MOST {
            untold.counts.insert(Arc::clone(principal), 0);
            untold.events.push_back((Arc::clone(principal), event()));
            self.first.notify_one();
        } else {
            *untold.counts.entry(trail::GATEWAY.into()).or_default() += 1;
        }
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has events written, each with its actor: of first ones at once, of what was counted each time that `every` has
    /// passed, and all of it once more at `shutdown`. `write` says what became of an event, however long that takes;
    /// from `shutdown` on 10 s are left.
    pub async fn sum_up<W, F>(
        &self,
        (counters, every): (&Counters, Duration),
        write: W,
        shutdown: CancellationToken,
    ) where
        W: Fn(Arc<str>, Vec<u8>) -> F,
        F: Future<Output = Result<(), String>>,
    {
        let mut summed = Summed { noise: BTreeMap::new(), at: Instant::now() };
        let mut due = summed.at + every;
        let mut is_put_off = false;
        let mut too_late = pin!(async {
            shutdown.cancelled().await;
            tokio::time::sleep(WAIT).await;
        });
        loop {
            let is_over = tokio::select! {
                biased;
                () = shutdown.cancelled() => true,
                () = tokio::time::sleep_until(due) => false,
                () = self.first.notified(), if !is_put_off => false,
            };
            let is_due = is_over || Instant::now() >= due;
            let round = async {
                self.write(&write).await?;
                if is_due {
                    self.sum(counters, &mut summed);
                    self.write(&write).await?;
                }
                Ok::<(), String>(())
            };
            let written = tokio::select! {
                biased;
                written = round => written,
                () = &mut too_late => {
                    let count = self.untold().events.len();
                    tracing::warn!("commands: {count} events of refusals are perhaps not written");
                    return;
                }
            };
            is_put_off = written.is_err();
            if let Err(cause) = written {
                tracing::warn!("commands: an event of what was refused is put off: {cause}");
            }
            if is_over {
                return;
            }
            if is_due {
                due = Instant::now() + every;
            }
        }
    }

    /// Makes events of what was counted since `summed`.
    fn sum(&self, counters: &Counters, summed: &mut Summed) {
        let (counts, until, at) = (counters.noise(), Instant::now(), now());
        let span_s = until.duration_since(summed.at).as_secs_f64().round().max(1.0) as u64;
        let noise = news(&counts, &summed.noise);
        *summed = Summed { noise: counts, at: until };
        let mut untold = self.untold();
        if !noise.is_empty() {
            let event = trail::noise(&noise, at, span_s);
            untold.events.push_back((trail::GATEWAY.into(), event));
        }
        for (principal, count) in std::mem::take(&mut untold.counts) {
            if count > 0 {
                let event = trail::too_many(&principal, count, at, span_s);
                untold.events.push_back((principal, event));
            }
        }
    }

    /// Writes events until there is none, or one isn't known to be written.
    async fn write<W, F>(&self, write: &W) -> Result<(), String>
    where
        W: Fn(Arc<str>, Vec<u8>) -> F,
        F: Future<Output = Result<(), String>>,
    {
        while let Some((actor, event)) = self.oldest() {
            write(actor, event).await?;
            self.untold().events.pop_front();
        }
        Ok(())
    }

    fn oldest(&self) -> Option<(Arc<str>, Vec<u8>)> {
        self.untold().events.front().cloned()
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
    use tokio::{
        sync::mpsc::{self, UnboundedReceiver},
        time::timeout,
    };

    use super::*;

    /// A test that is right takes far less.
    const LONG: Duration = Duration::from_secs(30);

    type Written = UnboundedReceiver<(Arc<str>, Value)>;

    /// Sums up every few milliseconds; each second event can't be written at first. What is written comes out.
    fn summing(tally: &Arc<Tally>, counters: &Arc<Counters>, stop: &CancellationToken) -> Written {
        let (out, written) = mpsc::unbounded_channel();
        let (tally, counters, stop) = (Arc::clone(tally), Arc::clone(counters), stop.clone());
        tokio::spawn(async move {
            let (turn, refused) = (AtomicU64::new(0), Mutex::new(None::<Vec<u8>>));
            let write = |actor: Arc<str>, event: Vec<u8>| {
                let before = refused.lock().unwrap().take();
                assert!(before.is_none_or(|before| before == event), "the same bytes again");
                let is_taken = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
                if is_taken {
                    out.send((actor, serde_json::from_slice(&event).unwrap())).unwrap();
                } else {
                    *refused.lock().unwrap() = Some(event);
                }
                std::future::ready(is_taken.then_some(()).ok_or_else(|| "no".to_owned()))
            };
            let every = Duration::from_millis(5);
            tally.sum_up((&counters, every), write, stop).await;
        });
        written
    }

    /// Adds what an event says, by actor or cause.
    fn add(told: &mut BTreeMap<String, u64>, (actor, event): &(Arc<str>, Value)) {
        assert_eq!(event["actor_id"], **actor);
        let requests = &event["context"]["requests"];
        let each = match requests.as_object() {
            Some(causes) => causes.iter().map(|(cause, n)| (cause.clone(), n)).collect(),
            None => vec![(actor.to_string(), requests)],
        };
        for (name, count) in each {
            *told.entry(name).or_default() += count.as_u64().unwrap();
        }
    }

    #[tokio::test]
    async fn every_request_is_told_of_once_though_kafka_may_not_take_it_at_first() {
        let (tally, counters) = (Arc::new(Tally::default()), Arc::new(Counters::default()));
        let stop = CancellationToken::new();
        let mut written = summing(&tally, &counters, &stop);
        let principals: Vec<Arc<str>> = ["ann", "bob", "eve"].map(Arc::from).to_vec();
        counters.unauthenticated("signature");
        let (_, event) = timeout(LONG, written.recv()).await.unwrap().unwrap();
        assert_eq!(event["action"], "inbound.unauthenticated");
        assert_eq!(event["context"], json!({"requests": {"signature": 1}, "of_the_last_s": 1}));
        for round in 0..300 {
            counters.unauthenticated(["signature", "credential"][round % 2]);
            let principal = &principals[round % 3];
            let first = || json!({"actor_id": &**principal, "context": {"requests": 1}});
            tally.was_too_many(principal, || first().to_string().into_bytes());
            if round % 30 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let causes = ["signature", "credential"].map(|cause| (cause.to_owned(), 150));
        let others = principals.iter().map(|principal| (principal.to_string(), 100));
        let expected: BTreeMap<String, u64> = causes.into_iter().chain(others).collect();
        let mut told = BTreeMap::new();
        while told != expected {
            let next = timeout(LONG, written.recv()).await;
            let next = next.unwrap_or_else(|_| panic!("{told:?}")).unwrap();
            add(&mut told, &next);
        }
        stop.cancel();
        assert_eq!(timeout(LONG, written.recv()).await.unwrap(), None, "once each");
    }

    #[tokio::test]
    async fn what_is_counted_until_it_stops_is_told_of_as_it_stops() {
        let (tally, counters) = (Tally::default(), Counters::default());
        let (out, mut written) = mpsc::unbounded_channel();
        let write = |_: Arc<str>, event: Vec<u8>| {
            let event: Value = serde_json::from_slice(&event).unwrap();
            out.send(event["context"].clone()).unwrap();
            std::future::ready(Ok::<(), String>(()))
        };
        let ann: Arc<str> = "ann".into();
        for _ in 0..3 {
            tally.was_too_many(&ann, || json!({"context": "first"}).to_string().into_bytes());
        }
        let stop = CancellationToken::new();
        stop.cancel();
        tally.sum_up((&counters, SUMMED_UP), write, stop).await;
        assert_eq!(written.try_recv().unwrap(), "first");
        assert_eq!(written.try_recv().unwrap(), json!({"requests": 2, "of_the_last_s": 1}));
        assert!(written.try_recv().is_err());
    }

    #[test]
    fn the_first_of_a_minute_has_an_event_and_more_principals_than_are_told_apart_are_one() {
        let tally = Tally::default();
        let name = |number: usize| Arc::<str>::from(number.to_string());
        for number in 0..MOST {
            tally.was_too_many(&name(number), Vec::new);
            tally.was_too_many(&name(number), || panic!("it has one"));
        }
        tally.was_too_many(&name(MOST), || panic!("they are one"));
        tally.was_too_many(&name(MOST + 1), || panic!("they are one"));
        let untold = tally.untold();
        assert_eq!((untold.counts.len(), untold.counts[trail::GATEWAY]), (MOST + 1, 2));
        assert_eq!((untold.counts["7"], untold.events.len()), (1, MOST));
    }
}
