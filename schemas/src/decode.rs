//! The decoder: payloads of one topic, JSON or Avro, into the columns of one batch.
//!
//! | first byte | the payload is |
//! |---|---|
//! | `0x00` | Avro in Confluent framing: four bytes of schema id, big-endian, then the body |
//! | `{`, after JSON white space | a JSON object |
//! | none, since the value is null | a tombstone: no row |
//!
//! **Invariant:** what becomes of a record depends on the record and the learned schemas alone: not on
//! its neighbours, not on the wall clock, not on the encoding. JSON and Avro of one event are one row.
//! **Invariant:** a rejected record leaves nothing behind in the columns.
//! **Invariant:** fields that the contract doesn't have are checked to be well formed, counted and
//! dropped. A name of theirs may repeat; one of the contract's may not.

mod avro;
mod canonical;
mod columns;
mod cursor;
mod json;
mod number;
mod positions;
mod reject;
mod time;
mod unknown;
mod writer;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use uuid::Uuid;

pub use reject::{MAX_DETAIL_BYTES, Reason, Reject};
pub use writer::Writer;

use self::{
    avro::{Plan, Room},
    columns::{Column, Columns},
    json::Events,
    positions::Positions,
    reject::Fault,
    unknown::Unknown,
};
use crate::{
    log::{Offset, Origin, Timestamp},
    schema::Schema,
};

/// How many objects and lists a field's value may have within each other, itself counted.
pub const MAX_DEPTH: usize = 64;
/// The largest payload that is looked at.
pub const MAX_RECORD_BYTES: usize = (1 << 30) - 1;
/// The payload bytes of one batch after which the decoder is full, what they stand for and defaults
/// included. No value is longer in a column than that, so one more record stays within the 31 bits of
/// Arrow's offsets.
pub const MAX_BATCH_BYTES: usize = 1 << 30;
/// The most text that the bytes of one Avro value may stand for in a column of objects.
pub const MAX_OBJECT_BYTES: usize = 16 << 20;
/// How far the event time may lie after the append time, in microseconds, inclusive: a day.
pub const MAX_AHEAD_MICROS: i64 = time::DAY_MICROS;
/// How far the event time may lie before the append time, in microseconds, inclusive: ten years of
/// 365.25 days.
pub const MAX_BEHIND_MICROS: i64 = time::DAY_MICROS / 4 * 14_610;

/// The id that a schema registry gave to a writer's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub u32);

impl SchemaId {
    /// The id in the frame of a payload; `None` if it isn't framed Avro.
    pub fn of(payload: &[u8]) -> Option<SchemaId> {
        let (id, _) = payload.strip_prefix(&[0])?.split_first_chunk()?;
        Some(SchemaId(u32::from_be_bytes(*id)))
    }
}

/// A record of the log, as it is read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The payload; `None` in a tombstone.
    pub value: Option<&'a [u8]>,
    /// Where it stands.
    pub offset: Offset,
    /// Leader epoch of its batch; -1 where it is not known.
    pub epoch: i32,
    /// When the broker appended it.
    pub append_time: Timestamp,
    /// What it is a retry of, where it is one.
    pub retry: Option<Retry>,
}

/// What a retry is a copy of. Its event time is held against the time of the first append, not of the
/// copy's: what is accepted depends on the record alone, and not on when somebody tries it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The record that was rejected.
    pub origin: Origin,
    /// When the broker appended that one.
    pub append_time: Timestamp,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A row.
    Row,
    /// It has no value, so there is no row.
    Tombstone,
    /// It can't become a row.
    Rejected(Reject),
}

/// The columns of one batch in the making, and all that it takes to read records into them.
#[derive(Debug)]
pub struct Decoder {
    arrow: SchemaRef,
    event_time: usize,
    columns: Columns,
    positions: Positions,
    payload_bytes: usize,
    full_at_bytes: usize,
    events: Events,
    mirror: Arc<Plan>,
    writers: BTreeMap<SchemaId, Writer>,
    room: Room,
    unknown: Unknown,
}

impl Decoder {
    /// A decoder for events of `schema`; it knows no writer schema yet.
    pub fn new(schema: &Schema) -> Decoder {
        Decoder {
            arrow: schema.arrow(),
            event_time: schema.event_time,
            columns: Columns::new(&schema.fields),
            positions: Positions::default(),
            payload_bytes: 0,
            full_at_bytes: MAX_BATCH_BYTES,
            events: Events::new(&schema.fields),
            mirror: Arc::new(Plan::mirror(&schema.fields)),
            writers: BTreeMap::new(),
            room: Room::default(),
            unknown: Unknown::default(),
        }
    }

    /// From now on, payloads framed with `id` are bodies of the contract's own Avro schema.
    pub fn learn_contract(&mut self, id: SchemaId) {
        self.writers.insert(id, Writer::readable(Arc::clone(&self.mirror)));
    }

    /// From now on, payloads framed with `id` are read as written by `writer`, which was made for the
    /// same contract; if it can't be read, they are rejected for its reason.
    pub fn learn(&mut self, id: SchemaId, writer: Writer) {
        self.writers.insert(id, writer);
    }

    /// From now on, `id` isn't known.
    pub fn forget(&mut self, id: SchemaId) {
        self.writers.remove(&id);
    }

    /// Whether `id` was learned, be it as one that can't be read.
    pub fn knows(&self, id: SchemaId) -> bool {
        self.writers.contains_key(&id)
    }

    /// Reads a record; it becomes a row, or leaves nothing behind.
    pub fn push(&mut self, record: &Record<'_>) -> Outcome {
        let Some(payload) = record.value else {
            return Outcome::Tombstone;
        };
        if let Some(reject) = self.refuse(payload) {
            return Outcome::Rejected(reject);
        }
        if payload.first() != Some(&0) {
            let read = self.text(payload);
            return self.conclude(record, payload.len(), read);
        }
        match self.framed(payload) {
            Ok(read) => self.conclude(record, payload.len() + self.room.made(), read),
            Err(reject) => Outcome::Rejected(reject),
        }
    }

    /// Reads a record whose value is a body of the contract's own Avro schema, without a frame.
    pub fn push_avro_body(&mut self, record: &Record<'_>) -> Outcome {
        let Some(body) = record.value else {
            return Outcome::Tombstone;
        };
        if let Some(reject) = self.refuse(body) {
            return Outcome::Rejected(reject);
        }
        let (columns, room) = (&mut self.columns, &mut self.room);
        let read = self.mirror.read(body, columns, room, &mut self.unknown);
        self.conclude(record, body.len(), read)
    }

    /// The rows so far.
    pub fn rows(&self) -> usize {
        self.columns.rows()
    }

    /// The bytes that the columns hold.
    pub fn bytes(&self) -> usize {
        self.columns.bytes() + self.rows() * Positions::ROW_BYTES
    }

    /// Whether [`Decoder::finish`] must come before the next record, which is rejected else.
    pub fn is_full(&self) -> bool {
        self.payload_bytes >= self.full_at_bytes
    }

    /// From now on it is full after so many bytes, not [`MAX_BATCH_BYTES`]. **For tests.**
    pub fn fill_at(&mut self, payload_bytes: usize) {
        self.full_at_bytes = payload_bytes;
    }

    /// Takes the rows as a batch of `Schema::arrow`; the decoder is empty and goes on.
    #[expect(
        clippy::unwrap_used,
        clippy::missing_panics_doc,
        reason = "the arrays are made from the same fields as the schema, whatever the input"
    )]
    pub fn finish(&mut self, topic_id: Uuid, partition: i32) -> RecordBatch {
        self.payload_bytes = 0;
        let mut arrays: Vec<ArrayRef> = self.columns.finish();
        arrays.extend(self.positions.finish(topic_id, partition));
        RecordBatch::try_new(Arc::clone(&self.arrow), arrays).unwrap()
    }

    /// Takes the counts of fields that the contract doesn't have, by name, in rejected records too.
    /// Names beyond the first 64, and very long ones, are counted together as `other`, which is last.
    pub fn take_unknown_fields(&mut self) -> Vec<(String, u64)> {
        self.unknown.take()
    }

    fn refuse(&self, payload: &[u8]) -> Option<Reject> {
        if payload.len() > MAX_RECORD_BYTES {
            return Some(reject(Reason::TooLarge, format!("{} bytes", payload.len())));
        }
        self.is_full()
            .then(|| reject(Reason::BatchFull, "the batch had to be finished before".to_owned()))
    }

    fn text(&mut self, payload: &[u8]) -> Result<(), Fault> {
        match payload.iter().find(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t')) {
            Some(b'{') => self.events.read(payload, &mut self.columns, &mut self.unknown),
            _ => {
                Err(Fault::new(Reason::UnknownEncoding, 0, "neither framed Avro nor a JSON object"))
            }
        }
    }

    fn framed(&mut self, payload: &[u8]) -> Result<Result<(), Fault>, Reject> {
        const FRAME_BYTES: usize = 5;
        let Some(id) = SchemaId::of(payload) else {
            return Err(reject(Reason::MalformedAvro, "the frame is cut short".to_owned()));
        };
        let Some(writer) = self.writers.get(&id) else {
            let detail = format!("schema id {} isn't known", id.0);
            return Err(reject(Reason::UnknownSchema, detail));
        };
        let plan = writer.plan()?;
        let (columns, room) = (&mut self.columns, &mut self.room);
        let read = plan.read(&payload[FRAME_BYTES..], columns, room, &mut self.unknown);
        Ok(read.map_err(|fault| fault.beyond(FRAME_BYTES)))
    }

    /// Closes the record as a row, or takes it back.
    fn conclude(&mut self, record: &Record<'_>, bytes: usize, read: Result<(), Fault>) -> Outcome {
        let appended = record.retry.map_or(record.append_time, |retry| retry.append_time);
        match read.and_then(|()| self.check_event_time(appended)) {
            Ok(()) => {
                self.columns.commit();
                self.positions.push(record);
                self.payload_bytes += bytes + self.columns.default_bytes();
                Outcome::Row
            }
            Err(fault) => {
                self.columns.roll_back();
                Outcome::Rejected(self.explain(&fault))
            }
        }
    }

    /// The event time of the present record must lie near its append time.
    fn check_event_time(&self, append_time: Timestamp) -> Result<(), Fault> {
        let column = self.columns.list().get(self.event_time);
        let Some(time) = column.and_then(Column::last_time) else {
            return Ok(());
        };
        let earliest = append_time.0.saturating_sub(MAX_BEHIND_MICROS);
        let latest = append_time.0.saturating_add(MAX_AHEAD_MICROS);
        if (earliest..=latest).contains(&time) {
            return Ok(());
        }
        let what = "more than a day after the append time, or ten years before it";
        Err(Fault::new(Reason::TimeOutOfBounds, 0, what).within(self.event_time))
    }

    fn explain(&self, fault: &Fault) -> Reject {
        let column = fault.field.and_then(|index| self.columns.list().get(usize::from(index)));
        Reject {
            reason: fault.reason,
            field: column.map(|column| Arc::clone(&column.name)),
            detail: match fault.reason {
                // It is about the record as a whole.
                Reason::TimeOutOfBounds => fault.what.to_owned(),
                _ => format!("{}, at byte {}", fault.what, fault.at),
            },
        }
    }
}

fn reject(reason: Reason, detail: String) -> Reject {
    Reject { reason, field: None, detail }
}
