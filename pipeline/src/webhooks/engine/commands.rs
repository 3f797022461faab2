//! What the control log asks for: endpoints switched off and on, deliveries once more.

use std::sync::{Arc, OnceLock};

use aion_schemas::log::Timestamp;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::{Done, Engine, store::write};
use crate::{
    job::times::parse_rfc3339,
    webhooks::{
        control::{Control, Order},
        cursor::Millis,
        event::Event,
        fetch::{Outcome, Wanted},
        records::Letter,
        topics::CONTROL,
    },
};

/// When a dead letter is asked for again that could not be read.
const AGAIN: Millis = 2_000;

impl Engine {
    /// Which endpoints get nothing.
    pub(super) fn hear_switches(&mut self) {
        let own = self.own.lock();
        for endpoint in self.endpoints.values_mut() {
            let disabled = own.controls.disabled(&endpoint.config.id, &endpoint.entry);
            endpoint.disabled = disabled.map(str::to_owned);
        }
    }

    /// Somebody said 410. Everybody has to know, also after a crash.
    pub(super) fn disable_gone(&mut self, id: u32) {
        let Some(endpoint) = self.endpoints.get_mut(&id).filter(|one| one.disabled.is_none())
        else {
            return;
        };
        let reason = "it answered 410 Gone".to_owned();
        endpoint.disabled = Some(reason.clone());
        tracing::warn!(endpoint = %endpoint.config.id, "webhooks: disabled: {reason}");
        let control = Control::Disable {
            endpoint: Arc::clone(&endpoint.config.id),
            reason,
            entry: Some(endpoint.entry.clone()),
        };
        let endpoint = Arc::clone(&endpoint.config.id);
        let value = serde_json::to_vec(&control).unwrap_or_default();
        let key = endpoint.to_string();
        let written = move |outcome| Done::BirthWritten { endpoint, outcome };
        write((&self.producer, &self.done), (CONTROL, &key), &value, written);
    }

    /// Gives every cursor what was asked of it.
    pub(super) fn obey_controls(&mut self) {
        for uid in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.obey(uid);
        }
    }

    /// Gives a cursor what was asked of it, in order, as far as it has room.
    pub(super) fn obey(&mut self, uid: u64) {
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        let Some(endpoint) = self.endpoints.get(&working.endpoint) else { return };
        let from = working.lane.cursor().control;
        let own = self.own.lock();
        for (at, order) in own.controls.orders(&endpoint.config.id, working.source, from) {
            let has_room = match order {
                Order::Redo(ranges) => working.lane.redo(at, &ranges),
                Order::Letters(letters) => working.lane.reopen(at, &letters),
            };
            if !has_room {
                return;
            }
        }
    }

    /// Asks for the dead letter of a hole.
    pub(super) fn want_letter(&mut self, uid: u64, offset: i64, letter: (i32, i64), now: Millis) {
        let Some(working) = self.lanes.get_mut(&uid) else { return };
        working.lane.begin(offset);
        let Some(stream) = self.letters_stream.clone() else {
            working.lane.postponed(offset, now + AGAIN);
            let id = working.endpoint;
            return self.wake_at(now + AGAIN, id);
        };
        let waiting = self.letters.entry(letter).or_default();
        waiting.push((uid, offset));
        if waiting.len() == 1 {
            self.fetcher.ask(Wanted { stream, partition: letter.0, at: letter.1, most: 1 });
        }
    }

    /// Dead letters that were read.
    pub(super) fn found_letters(&mut self, wanted: &Wanted, outcome: Outcome) {
        let waiting = self.letters.remove(&(wanted.partition, wanted.at)).unwrap_or_default();
        let letter = match outcome {
            Outcome::Read(events, _) => {
                events.into_iter().find(|event| event.offset == wanted.at).ok_or("it is gone")
            }
            Outcome::Gone => Err("it is gone"),
            Outcome::Failed(_) => Err(""),
        };
        for (uid, offset) in waiting {
            let Some(working) = self.lanes.get_mut(&uid) else { continue };
            let id = working.endpoint;
            let Some(source) = self.sources.get(&working.source) else { continue };
            match &letter {
                Ok(letter) => {
                    let event = event_of(
                        letter.value.as_deref(),
                        &source.stream,
                        source.partition.partition,
                        offset,
                    );
                    match event {
                        Some(event) => {
                            let event = Arc::new(event);
                            self.held_bytes += event.bytes();
                            working.held.entry(offset).or_default().event = Some(event);
                            working.lane.postponed(offset, 0);
                        }
                        // It has no body: the record itself is looked for.
                        None => working.lane.forget_letter(offset),
                    }
                }
                Err("") => {
                    let at = super::now() + AGAIN;
                    working.lane.postponed(offset, at);
                    self.wake_at(at, id);
                }
                Err(_) => working.lane.forget_letter(offset),
            }
            self.pump(id);
        }
    }
}

/// The event of a dead letter, with the very body that was sent.
fn event_of(
    value: Option<&[u8]>,
    stream: &aion_schemas::log::Stream,
    partition: i32,
    offset: i64,
) -> Option<Event> {
    let letter: Letter = serde_json::from_slice(value?).ok()?;
    let is_its = letter.offset == offset && letter.partition == partition;
    let body = letter.body.filter(|_| is_its)?;
    let time = parse_rfc3339(&letter.appended_at).unwrap_or(Timestamp(0));
    let (key, value) = (None, None);
    let body = OnceCell::new_with(Some(Bytes::from(body)));
    Some(Event {
        stream: stream.clone(),
        partition,
        offset,
        time,
        key,
        value,
        body,
        id: OnceLock::new(),
    })
}
