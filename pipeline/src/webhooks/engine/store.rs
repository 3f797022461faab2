//! What the engine writes down: cursors, dead letters, gaps, attempts.
//!
//! **Invariant:** a hole goes when its dead letter is acknowledged, and an offset that is lost is passed when
//! its gap is: not when they are sent.

use std::sync::{Arc, Mutex, PoisonError};

use aion_kafka::{Outgoing, Placed, Producer};
use aion_schemas::catalog::GAPS;
use tokio::sync::mpsc::UnboundedSender;

use super::{Done, Engine, lane::spent, now, pump::BURIALS};
use crate::webhooks::{
    cursor::{Millis, Want},
    event::Event,
    records::{self, About, Attempt, Letter},
    topics::{ATTEMPTS, CURSORS, DEAD_LETTERS},
};

/// The pause before a dead letter or a gap is written again that was refused.
const AGAIN: Millis = 1_000;

/// Offsets that are lost.
#[derive(Clone, Debug)]
pub(super) enum Gap {
    /// A hole.
    Hole(i64),
    /// What was to be looked at, up to there.
    Range(Want, i64),
    /// The log was cut: from there on, what is written now is something else.
    Cut(i64),
}

impl Engine {
    /// Keeps an event as a dead letter; its hole stays until that is acknowledged.
    pub(super) fn bury(
        &mut self,
        uid: u64,
        offset: i64,
        event: &Arc<Event>,
        (reason, detail): (&'static str, Option<String>),
    ) {
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        let Some(endpoint) = self.endpoints.get_mut(&working.endpoint) else { return };
        let error = working.held.get(&offset).and_then(|held| held.error.clone());
        let attempts = working.lane.hole(offset).map_or(0, |hole| i64::from(hole.attempts));
        working.lane.begin(offset);
        endpoint.burying += 1;
        working.burying += 1;
        let (payloads, producer) = (Arc::clone(&self.payloads), Arc::clone(&self.producer));
        let (id, event, done) =
            (Arc::clone(&endpoint.config.id), Arc::clone(event), self.done.clone());
        tokio::spawn(async move {
            // One that was never tried has no body yet, and is delivered from its letter some day. One that
            // can't have a body is told of without.
            drop(payloads.body(&event).await);
            let mut letter = Letter::of(&id, &event, (reason, detail.or(error)), now());
            letter.attempts = attempts;
            let value = serde_json::to_vec(&letter).unwrap_or_default();
            let buried = move |outcome| Done::Buried { uid, offset, outcome };
            write((&producer, &done), (DEAD_LETTERS, &letter.key()), &value, buried);
        });
    }

    pub(super) fn buried(&mut self, uid: u64, offset: i64, outcome: Result<(), String>) {
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        working.burying = working.burying.saturating_sub(1);
        let id = working.endpoint;
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            endpoint.burying = endpoint.burying.saturating_sub(1);
            endpoint.counters.buried += u64::from(outcome.is_ok());
        }
        match outcome {
            Ok(()) => {
                self.forget(uid, offset);
                if let Some(working) = self.lanes.get_mut(&uid) {
                    working.settled(offset);
                }
            }
            Err(cause) => {
                let at = now() + AGAIN;
                working.lane.postponed(offset, at);
                self.wake_at(at, id);
                self.trouble(format!("write to {DEAD_LETTERS}: {cause}; it is tried again"));
            }
        }
        self.pump(id);
    }

    /// Buries what waits and has been tried for long enough, also where nothing may be sent; and, where an
    /// endpoint has failed for longer than its policy, what it never was tried with.
    pub(super) fn bury_what_is_spent(&mut self, now: Millis) {
        for (uid, id) in
            self.lanes.iter().map(|(uid, one)| (*uid, one.endpoint)).collect::<Vec<_>>()
        {
            let Some(endpoint) = self.endpoints.get(&id).filter(|one| one.disabled.is_none())
            else {
                continue;
            };
            let config = Arc::clone(&endpoint.config);
            let failing_since = endpoint.breaker.open_since();
            let room = BURIALS.saturating_sub(endpoint.burying);
            let mut found = Vec::new();
            if let Some(working) = self.lanes.get_mut(&uid).filter(|one| !one.is_closing)
                && let Some(source) = self.sources.get_mut(&working.source)
            {
                let max_age = config.max_age.as_millis() as Millis;
                let gave_up = failing_since.is_some_and(|since| now - since > max_age);
                let holes: Vec<_> = working.lane.waiting().collect();
                let is_untried = |first_at: Millis| first_at == 0 && gave_up;
                for offset in holes {
                    let Some(hole) = working.lane.hole(offset) else { continue };
                    let untried = is_untried(hole.first_at);
                    if found.len() < room && (untried || spent(hole, &config, now).is_some()) {
                        found.extend(working.hole(offset, source, &config, now));
                    }
                }
                while gave_up && found.len() < room {
                    let Some(next) = working.fresh(source, &config, (now, self.most_holes)) else {
                        break;
                    };
                    // It is a hole from now on; those that are young enough are left alone.
                    let super::lane::Next::Send(_, event) = &next else { break };
                    if now - event.time.0 / 1_000 <= max_age {
                        break;
                    }
                    if let super::lane::Next::Send(offset, _) = next {
                        working.lane.begin(offset);
                        found.push(next);
                    }
                }
                self.demands.push(working.source);
            }
            for next in found {
                self.bury_next(uid, next, now);
            }
        }
    }

    fn bury_next(&mut self, uid: u64, next: super::lane::Next, now: Millis) {
        use super::lane::Next;
        match next {
            Next::Send(offset, event) => self.bury(uid, offset, &event, ("age", None)),
            Next::Bury(offset, event, reason) => self.bury(uid, offset, &event, (reason, None)),
            Next::Lost(offset) => self.lose_hole(uid, offset),
            Next::Letter(offset, letter) => self.want_letter(uid, offset, letter, now),
        }
    }

    /// The log has a hole's record no more.
    pub(super) fn lose_hole(&mut self, uid: u64, offset: i64) {
        if let Some(working) = self.lanes.get_mut(&uid) {
            working.lane.begin(offset);
            self.write_gap(uid, Gap::Hole(offset));
        }
    }

    /// The log has nothing below `first` any more: cursors that want it pass it, once that is recorded.
    pub(super) fn lose_below(&mut self, uid: u64, first: i64) {
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        let lost = |offset: &i64| {
            *offset < first && working.lane.hole(*offset).is_some_and(|hole| hole.letter.is_none())
        };
        let holes: Vec<_> = working.lane.waiting().filter(lost).collect();
        for offset in holes {
            self.lose_hole(uid, offset);
        }
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        let want = working.lane.wants().filter(|want| want.offset() < first);
        if let Some(want) = want.filter(|_| !working.has_open_gap) {
            working.has_open_gap = true;
            self.write_gap(uid, Gap::Range(want, first));
        }
    }

    /// Records a gap; what waits for it goes on when that is acknowledged.
    pub(super) fn write_gap(&mut self, uid: u64, gap: Gap) {
        let Some(working) = self.lanes.get(&uid) else { return };
        let Some(source) = self.sources.get(&working.source) else { return };
        let Some(endpoint) = self.endpoints.get_mut(&working.endpoint) else { return };
        let (range, reason) = match &gap {
            Gap::Hole(offset) => ((*offset, offset + 1), "retention"),
            Gap::Range(want, to) => {
                let end = if let Want::Redo(_, end) = want { (*end).min(*to) } else { *to };
                ((want.offset(), end), "retention")
            }
            Gap::Cut(to) => ((*to, working.lane.cursor().next), "diverged"),
        };
        endpoint.counters.lost += range.1.saturating_sub(range.0).max(0).unsigned_abs();
        let id = &endpoint.config.id;
        let detail = format!("webhook {id} will not get offsets {}..{}", range.0, range.1);
        tracing::error!(topic = %source.stream.topic, partition = source.partition.partition, "{detail}: {reason}");
        let place = (&source.stream, source.partition.partition);
        let group = self.settings.group.as_str();
        let (key, value) = records::gap((group, id), place, range, (reason, &detail), now());
        let written = move |outcome| Done::GapWritten { uid, gap, outcome };
        write((&self.producer, &self.done), (GAPS, &key), &value, written);
    }

    pub(super) fn gap_written(&mut self, uid: u64, gap: &Gap, outcome: Result<(), String>) {
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        let id = working.endpoint;
        if let Gap::Range(..) | Gap::Cut(_) = gap {
            working.has_open_gap = false;
        }
        match (outcome, gap) {
            (Ok(()), Gap::Hole(offset)) => {
                let offset = *offset;
                self.forget(uid, offset);
                if let Some(working) = self.lanes.get_mut(&uid) {
                    working.settled(offset);
                }
            }
            (Ok(()), Gap::Range(want, to)) => working.lane.pass(*want, *to),
            (Ok(()), Gap::Cut(to)) => working.lane.rewind(*to),
            (Err(cause), gap) => {
                let at = now() + AGAIN;
                if let Gap::Hole(offset) = gap {
                    working.lane.postponed(*offset, at);
                }
                self.wake_at(at, id);
                self.trouble(format!("write to {GAPS}: {cause}; it is tried again"));
            }
        }
        self.pump(id);
    }

    /// Stores the cursors that have changed.
    pub(super) fn flush(&mut self) {
        let dirty: Vec<_> = self.lanes.iter().filter(|(_, one)| one.lane.is_dirty()).collect();
        for uid in dirty.into_iter().map(|(uid, _)| *uid).collect::<Vec<_>>() {
            self.store(uid);
        }
    }

    /// Stores a cursor.
    pub(super) fn store(&mut self, uid: u64) {
        let Some(working) = self.lanes.get(&uid) else { return };
        let Some(endpoint) = self.endpoints.get(&working.endpoint) else { return };
        let Some(source) = self.sources.get(&working.source) else { return };
        let about = About {
            endpoint: endpoint.config.id.to_string(),
            topic: source.stream.topic.to_string(),
            topic_id: source.stream.id.to_string(),
            partition: source.partition.partition,
            state: self.state_of(endpoint, working.endpoint).word().to_owned(),
            error: endpoint.error.clone(),
            end: source.high,
            stored_at: records::time(now()),
        };
        let Ok(value) = records::cursor_value(working.lane.cursor(), &about) else { return };
        let key = records::cursor_key(&about.endpoint, &source.stream, about.partition);
        if let Some(working) = self.lanes.get_mut(&uid) {
            working.lane.take_dirty();
            working.storing += 1;
            (working.told_end, working.told_at) = (about.end, now());
        }
        let stored = move |outcome| Done::Stored { uid, outcome };
        write((&self.producer, &self.done), (CURSORS, &key), &value, stored);
    }

    pub(super) fn stored(&mut self, uid: u64, outcome: Result<(), String>) {
        if let Some(working) = self.lanes.get_mut(&uid) {
            working.storing = working.storing.saturating_sub(1);
            if outcome.is_err() {
                working.lane.set_dirty();
            }
        }
        if let Err(cause) = outcome {
            self.trouble(format!("write to {CURSORS}: {cause}; it is tried again"));
        }
    }

    /// Writes an attempt down, or counts that it wasn't.
    pub(super) fn write_attempt(&self, attempt: &Attempt<'_>) {
        let Ok(value) = serde_json::to_vec(attempt) else { return };
        let key = format!("{}:{}", attempt.endpoint, attempt.event_id);
        let message = Outgoing {
            topic: ATTEMPTS,
            key: Some(key.as_bytes()),
            value: Some(&value),
            ..Outgoing::default()
        };
        let statuses = self.statuses.clone();
        let unrecorded = move || statuses.change(|status| status.unrecorded += 1);
        let failed = unrecorded.clone();
        let sent = self.producer.send(&message, move |placed| {
            if placed.is_err() {
                failed();
            }
        });
        if sent.is_err() {
            unrecorded();
        }
    }
}

/// Writes a record; what becomes of it comes as a message.
pub(super) fn write(
    (producer, done): (&Producer, &UnboundedSender<Done>),
    (topic, key): (&str, &str),
    value: &[u8],
    report: impl FnOnce(Result<(), String>) -> Done + Send + 'static,
) {
    let message =
        Outgoing { topic, key: Some(key.as_bytes()), value: Some(value), ..Outgoing::default() };
    let report: Report = Box::new(report);
    // In a cell: the closure of a message that isn't taken is dropped without a call.
    let cell = Arc::new(Mutex::new(Some(report)));
    let (later, answers) = (Arc::clone(&cell), done.clone());
    let sent = producer.send(&message, move |placed: Result<Placed, aion_kafka::Error>| {
        tell(&answers, &later, placed.map(drop).map_err(|cause| cause.to_string()));
    });
    if let Err(cause) = sent {
        tell(done, &cell, Err(cause.to_string()));
    }
}

/// What makes a message of an outcome.
type Report = Box<dyn FnOnce(Result<(), String>) -> Done + Send>;

fn tell(done: &UnboundedSender<Done>, report: &Mutex<Option<Report>>, outcome: Result<(), String>) {
    let report = report.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(report) = report {
        // Nobody listens any more when the engine has stopped.
        drop(done.send(report(outcome)));
    }
}
