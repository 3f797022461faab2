//! Messages as they are sent: a life's events, encoded, some of them broken on request.

use std::collections::BTreeMap;

use aion_schemas::{decode::SchemaId, log::Timestamp, schema::Schema};

use super::{
    avro,
    broken::{Breakage, Share},
    event::{Event, Topic},
    json,
    life::Life,
};

/// How bodies are written.
#[derive(Debug)]
pub enum Encoder {
    /// JSON text.
    Json,
    /// Avro, by one encoder for each topic of the life.
    Avro(BTreeMap<Topic, avro::Encoder>),
}

impl Encoder {
    /// Avro for topics, each by its schema and the id under which the registry has that.
    pub fn avro<'a>(topics: impl IntoIterator<Item = (Topic, &'a Schema, SchemaId)>) -> Encoder {
        let encoder = |(topic, schema, id)| (topic, avro::Encoder::new(schema, id));
        Encoder::Avro(topics.into_iter().map(encoder).collect())
    }

    /// Avro for one topic without the framing, for a file that has the schema itself.
    pub fn bare_avro(topic: Topic, schema: &Schema) -> Encoder {
        Encoder::Avro(BTreeMap::from([(topic, avro::Encoder::bare(schema))]))
    }

    /// The ways in which messages of this encoding can be broken.
    pub const fn breakages(&self) -> &'static [Breakage] {
        match self {
            Encoder::Json => &Breakage::ALL,
            Encoder::Avro(_) => Breakage::ALL.split_at(Breakage::BINARY).0,
        }
    }

    fn push(&self, out: &mut Vec<u8>, event: &Event) {
        match self {
            Encoder::Json => json::push_event(out, event),
            Encoder::Avro(encoders) => {
                // Another encoding among them would hide whose mistake it is.
                let Some(encoder) = encoders.get(&event.topic) else {
                    panic!("no Avro encoder of {}", event.topic.name());
                };
                encoder.push_event(out, event);
            }
        }
    }
}

/// One message, borrowed until the next is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Where it goes.
    pub topic: Topic,
    /// When its event happened, also where the message was broken and doesn't say so.
    pub time: Timestamp,
    /// The Kafka key.
    pub key: &'a [u8],
    /// The Kafka value.
    pub body: &'a [u8],
}

/// How many messages were made, of which topic, and how many of them were broken how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By topic, in the order of [`Topic::ALL`]; broken ones included.
    pub topics: [u64; 4],
    /// By way of being broken, in the order of [`Breakage::ALL`].
    pub broken: [u64; 7],
}

/// A sequence of messages over a life.
#[derive(Debug)]
pub struct Messages {
    life: Life,
    encoder: Encoder,
    share: Share,
    number: u64,
    /// Topic and time of the message that was made last.
    head: Option<(Topic, Timestamp)>,
    tally: Tally,
    key: Vec<u8>,
    body: Vec<u8>,
}

impl Messages {
    /// Encodes the events of `life` and breaks a share of them.
    pub fn new(life: Life, encoder: Encoder, broken: Share) -> Messages {
        let (key, body) = (Vec::with_capacity(64), Vec::with_capacity(1024));
        let (share, tally) = (broken, Tally::default());
        Messages { life, encoder, share, number: 0, head: None, tally, key, body }
    }

    /// Makes the next message; `None` only where the life has no topics.
    ///
    /// # Panics
    ///
    /// If the encoder is of Avro and lacks a topic of the life.
    pub fn make(&mut self) -> Option<Message<'_>> {
        let mut event = self.life.next()?;
        let breakage = self.share.breakage(self.number, self.encoder.breakages());
        self.number += 1;
        self.tally.topics[event.topic.index()] += 1;
        self.key.clear();
        self.body.clear();
        event.write_key(&mut self.key);
        if let Some(breakage) = breakage {
            self.tally.broken[breakage as usize] += 1;
            breakage.break_event(&mut event);
        }
        self.encoder.push(&mut self.body, &event);
        if let Some(breakage) = breakage {
            breakage.break_body(&mut self.body, &self.key);
        }
        self.head = Some((event.topic, event.time));
        self.current()
    }

    /// The message that was made last, again.
    pub fn current(&self) -> Option<Message<'_>> {
        let (topic, time) = self.head?;
        Some(Message { topic, time, key: &self.key, body: &self.body })
    }

    /// What was made so far.
    pub const fn tally(&self) -> Tally {
        self.tally
    }
}
