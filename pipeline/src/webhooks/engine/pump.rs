//! Deliveries: which may go, and what becomes of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Done, Engine, HELD_BYTES, IN_FLIGHT,
    lane::{Held, Next, spent},
    now,
};
use crate::webhooks::{
    breaker::Permit, client::Answer, cursor::Millis, event::Event, payload::NoBody, wire,
};

/// When a record is looked at again whose schema the registry didn't give.
const SCHEMA_AGAIN: Millis = 2_000;
/// Dead letters of one endpoint that are under way at once.
pub(super) const BURIALS: usize = 256;

/// How a delivery ended.
#[derive(Debug)]
pub(super) struct Answered {
    uid: u64,
    offset: i64,
    event: Arc<Event>,
    began: Millis,
    took: Duration,
    is_probe: bool,
    outcome: Result<Answer, NoBody>,
}

impl Engine {
    /// Sends what may be sent to an endpoint now.
    pub(super) fn pump(&mut self, id: u32) {
        let now = now();
        while let Some((uid, next, permit)) = self.pick(id, now) {
            match next {
                Next::Send(offset, event) => {
                    self.send(uid, offset, event, permit == Permit::Probe, now);
                }
                Next::Bury(offset, event, reason) => self.bury(uid, offset, &event, (reason, None)),
                Next::Lost(offset) => self.lose_hole(uid, offset),
                Next::Letter(offset, letter) => self.want_letter(uid, offset, letter, now),
            }
        }
    }

    /// The next thing to do for an endpoint, if it may be done now.
    fn pick(&mut self, id: u32, now: Millis) -> Option<(u64, Next, Permit)> {
        let endpoint = self.endpoints.get_mut(&id)?;
        let is_full = endpoint.in_flight >= endpoint.config.max_in_flight
            || (endpoint.in_flight >= endpoint.share && self.in_flight >= IN_FLIGHT / 2)
            || endpoint.burying >= BURIALS;
        if is_full || endpoint.disabled.is_some() || now < endpoint.hold_until {
            return None;
        }
        let permit = endpoint.breaker.permit(now);
        if permit == Permit::Nothing {
            return None;
        }
        if let Some(rate) = &mut endpoint.rate
            && let Err(at) = rate.take(now)
        {
            self.timers.push(std::cmp::Reverse((at, id)));
            return None;
        }
        let config = Arc::clone(&endpoint.config);
        let count = endpoint.lanes.len();
        let bounds = (now, self.most_holes);
        // For a probe all that is new is looked at first: what always fails shouldn't be what is asked with.
        let rounds = if permit == Permit::Probe { 2 } else { 1 };
        for step in 0..count * rounds {
            let at = (endpoint.turn + step) % count;
            let uid = endpoint.lanes[at];
            let Some(working) = self.lanes.get_mut(&uid).filter(|one| !one.is_closing) else {
                continue;
            };
            let Some(source) = self.sources.get_mut(&working.source) else { continue };
            let next = match permit {
                Permit::Any => working
                    .due(source, &config, now)
                    .or_else(|| working.fresh(source, &config, bounds)),
                _ if step < count => working.fresh(source, &config, bounds),
                _ => working.least(source, &config, now),
            };
            if source.wanted.is_some() || source.tail > super::source::Demand::None {
                self.demands.push(working.source);
            }
            if let Some(next) = next {
                endpoint.turn = (at + 1) % count;
                if !matches!(next, Next::Send(..))
                    && let Some(rate) = &mut endpoint.rate
                {
                    rate.give_back();
                }
                return Some((uid, next, permit));
            }
        }
        if let Some(rate) = &mut endpoint.rate {
            rate.give_back();
        }
        None
    }

    fn send(&mut self, uid: u64, offset: i64, event: Arc<Event>, is_probe: bool, began: Millis) {
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        let Some(endpoint) = self.endpoints.get_mut(&working.endpoint) else { return };
        working.lane.begin(offset);
        endpoint.in_flight += 1;
        self.in_flight += 1;
        working.sending += 1;
        if is_probe {
            endpoint.breaker.probe();
        }
        let (client, config) = (endpoint.client.clone(), Arc::clone(&endpoint.config));
        let (payloads, done) = (Arc::clone(&self.payloads), self.done.clone());
        tokio::spawn(async move {
            let start = Instant::now();
            let outcome = match payloads.body(&event).await {
                Err(why) => Err(why),
                Ok(body) => {
                    let mut headers =
                        wire::headers(event.id(), &body, &config.secrets, began / 1_000);
                    headers.extend(config.headers.iter().cloned());
                    Ok(client.send(headers, body).await)
                }
            };
            let took = start.elapsed();
            let answered = Answered { uid, offset, event, began, took, is_probe, outcome };
            // Nobody listens any more when the engine has stopped.
            drop(done.send(Done::Answered(answered)));
        });
    }

    pub(super) fn answered(&mut self, answered: &Answered) {
        let Some(working) = self.lanes.get_mut(&answered.uid) else { return };
        working.sending = working.sending.saturating_sub(1);
        let id = working.endpoint;
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        match &answered.outcome {
            Ok(answer) => self.took(id, answered, answer),
            Err(why) => self.unsendable(id, answered, why),
        }
        self.pump(id);
    }

    /// An attempt was made.
    fn took(&mut self, id: u32, answered: &Answered, answer: &Answer) {
        self.record(answered, answer);
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let Some(working) = self.lanes.get_mut(&answered.uid) else { return };
        let Answered { offset, began, .. } = *answered;
        endpoint.counters.took(answered.took.as_secs_f64());
        let (asked, error) = match answer {
            Answer::Taken(_) => {
                endpoint.counters.delivered += 1;
                endpoint.breaker.succeeded();
                endpoint.error = None;
                self.forget(answered.uid, offset);
                if let Some(working) = self.lanes.get_mut(&answered.uid) {
                    working.settled(offset);
                }
                return;
            }
            Answer::Gone => {
                endpoint.counters.failed += 1;
                endpoint.breaker.unprobed();
                working.lane.postponed(offset, 0);
                self.disable_gone(id);
                return;
            }
            Answer::Refused { status, retry_after, excerpt } if excerpt.is_empty() => {
                (*retry_after, format!("HTTP {status}"))
            }
            Answer::Refused { status, retry_after, excerpt } => {
                (*retry_after, format!("HTTP {status}: {excerpt}"))
            }
            Answer::Failed(why) => (None, why.clone()),
        };
        endpoint.counters.failed += 1;
        endpoint.error = Some(error.clone());
        let now = now();
        let retry = endpoint.config.retry;
        let attempts = working.lane.hole(offset).map_or(1, |hole| hole.attempts + 1);
        let next_at = now + retry.pause(attempts, rand::random(), asked).as_millis() as Millis;
        if asked.is_some() {
            // It speaks for the whole endpoint: nothing else is sent meanwhile either.
            endpoint.hold_until = endpoint.hold_until.max(next_at);
        }
        let probe_at = endpoint.breaker.failed(now, &retry, rand::random());
        working.lane.failed(offset, began, next_at);
        let config = Arc::clone(&endpoint.config);
        let spent = working.lane.hole(offset).and_then(|hole| spent(hole, &config, now));
        self.hold(answered.uid, offset, &answered.event, Some(error));
        match spent {
            Some(reason) => self.bury(answered.uid, offset, &answered.event, (reason, None)),
            None => self.wake_at(next_at, id),
        }
        if let Some(at) = probe_at {
            self.wake_at(at, id);
        }
    }

    /// No attempt was made: the event has no body.
    fn unsendable(&mut self, id: u32, answered: &Answered, why: &NoBody) {
        let Answered { uid, offset, ref event, is_probe, .. } = *answered;
        let (Some(endpoint), Some(working)) =
            (self.endpoints.get_mut(&id), self.lanes.get_mut(&uid))
        else {
            return;
        };
        if is_probe {
            endpoint.breaker.unprobed();
        }
        let now = now();
        let again = now + SCHEMA_AGAIN;
        working.lane.postponed(offset, again);
        match why {
            NoBody::Never(reason, detail) => {
                self.bury(uid, offset, event, (reason, Some(detail.clone())));
            }
            NoBody::NotYet(detail) => {
                let age = now.saturating_sub(event.time.0 / 1_000);
                let max_age = endpoint.config.max_age.as_millis() as Millis;
                if age > max_age.max(60_000) {
                    self.bury(uid, offset, event, ("no_schema", Some(detail.clone())));
                } else {
                    self.hold(uid, offset, event, Some(detail.clone()));
                    self.wake_at(again, id);
                }
            }
        }
    }

    /// Keeps the record of a hole in memory, while there is room.
    fn hold(&mut self, uid: u64, offset: i64, event: &Arc<Event>, error: Option<String>) {
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        let has_letter = working.lane.hole(offset).is_some_and(|hole| hole.letter.is_some());
        let held = working.held.entry(offset).or_insert_with(Held::default);
        held.error = error;
        // A dead letter's body isn't in its topic's log any more.
        if held.event.is_none() && (has_letter || self.held_bytes < HELD_BYTES) {
            self.held_bytes += event.bytes();
            held.event = Some(Arc::clone(event));
        }
    }

    /// Lets go of what is held of a hole.
    pub(super) fn forget(&mut self, uid: u64, offset: i64) {
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        if let Some(event) = working.held.remove(&offset).and_then(|held| held.event) {
            self.held_bytes = self.held_bytes.saturating_sub(event.bytes());
        }
    }

    /// Records an attempt. Nothing depends on it, so nothing waits for it.
    fn record(&mut self, answered: &Answered, answer: &Answer) {
        let Some(working) = self.lanes.get(&answered.uid) else { return };
        let Some(endpoint) = self.endpoints.get(&working.endpoint) else { return };
        let (outcome, status, error) = match answer {
            Answer::Taken(status) => ("delivered", Some(*status), None),
            Answer::Gone => ("gone", Some(410), None),
            Answer::Refused { status, excerpt, .. } => {
                ("failed", Some(*status), Some(excerpt.as_str()).filter(|text| !text.is_empty()))
            }
            Answer::Failed(why) => ("failed", None, Some(why.as_str())),
        };
        let attempt = working.lane.hole(answered.offset).map_or(1, |hole| hole.attempts + 1);
        let event = &answered.event;
        let attempt = crate::webhooks::records::Attempt {
            endpoint: &endpoint.config.id,
            event_id: event.id(),
            topic: &event.stream.topic,
            topic_id: event.stream.id.to_string(),
            partition: event.partition,
            offset: event.offset,
            attempt,
            outcome,
            status,
            error,
            latency_ms: answered.took.as_secs_f64() * 1e3,
            attempted_at: crate::webhooks::records::time(answered.began),
        };
        self.write_attempt(&attempt);
    }
}
