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

/// Dead letters that are read at once: those asked for together mostly lie together.
const LETTERS: usize = 64;
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
        if self.letters_stream.is_none() {
            working.lane.postponed(offset, now + AGAIN);
            let id = working.endpoint;
            return self.wake_at(now + AGAIN, id);
        }
        self.letters.entry(letter).or_default().push((uid, offset));
        self.read_letters();
    }

    /// Has the first dead letters read that are wanted, unless others are being read.
    fn read_letters(&mut self) {
        let Some(stream) = self.letters_stream.clone().filter(|_| !self.reads_letters) else {
            return;
        };
        if let Some((&(partition, at), _)) = self.letters.first_key_value() {
            self.reads_letters = true;
            self.fetcher.ask(Wanted { stream, partition, at, most: LETTERS });
        }
    }

    /// Dead letters that were read, and maybe others after them.
    pub(super) fn found_letters(&mut self, wanted: &Wanted, outcome: Outcome) {
        self.reads_letters = false;
        let first = (wanted.partition, wanted.at);
        match outcome {
            Outcome::Read(events, _) => {
                if !events.iter().any(|event| event.offset == wanted.at) {
                    self.found_letter(first, &Err(NoLetter::Gone));
                }
                for event in events {
                    self.found_letter((wanted.partition, event.offset), &Ok(event));
                }
            }
            Outcome::Gone => self.found_letter(first, &Err(NoLetter::Gone)),
            Outcome::Failed(_) => self.found_letter(first, &Err(NoLetter::Unread)),
        }
        self.read_letters();
    }

    /// A dead letter, for whoever wants it.
    fn found_letter(&mut self, at: (i32, i64), letter: &Result<Arc<Event>, NoLetter>) {
        for (uid, offset) in self.letters.remove(&at).unwrap_or_default() {
            let Some(working) = self.lanes.get_mut(&uid) else { continue };
            let id = working.endpoint;
            let Some(source) = self.sources.get(&working.source) else { continue };
            match letter {
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
                Err(NoLetter::Unread) => {
                    let at = super::now() + AGAIN;
                    working.lane.postponed(offset, at);
                    self.wake_at(at, id);
                }
                Err(NoLetter::Gone) => working.lane.forget_letter(offset),
            }
            self.pump(id);
        }
    }
}

/// Why there is no dead letter.
enum NoLetter {
    Gone,
    Unread,
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
