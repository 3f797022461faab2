//! What a record says: an event of the contract, or why it is none, or what it looks like.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use aion_kafka::{Headers, Record, TimeKind};
use aion_schemas::{
    catalog::Topic,
    decode::{self, Decoder, Outcome, Reason, Reject, SchemaId, Writer},
    log::Timestamp,
    schema::Schema,
};
use anyhow::Context;
use apache_avro::reader::datum::GenericDatumReader;
use arrow::record_batch::RecordBatch;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::{
    event_text::event_text,
    registry::{Registry, SubjectVersion, WriterSchema},
    writer_schemas::foreign,
};

/// A registry that gave no answer is left alone for so long.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// So many ids are remembered: they come from records.
const MAX_IDS: usize = 1000;

/// A record, and what it says.
pub(super) struct Tapped<'a> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) time: Timestamp,
    pub(super) time_kind: TimeKind,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
    pub(super) schema: Option<SchemaInfo>,
    pub(super) body: Body,
    /// The event's row, where it is one of the contract.
    pub(super) row: Option<RecordBatch>,
}

/// The writer's schema, as far as known.
#[derive(Clone, Debug)]
pub(super) struct SchemaInfo {
    pub(super) id: SchemaId,
    /// Its subject and version.
    pub(super) version: Option<(String, u32)>,
}

/// What a value is.
pub(super) enum Body {
    /// An event or an object, as JSON text.
    Json(String),
    /// No value.
    Tombstone,
    /// Text that is nothing else.
    Text,
    /// Bytes that are nothing else.
    Bytes,
    /// It should be an event of the contract, and is none.
    Rejected(Reject),
    /// It is framed, and can't be read.
    Unreadable(String),
}

/// Reads the records of one topic.
pub(super) struct Decoding {
    contract: Option<(Arc<Schema>, Decoder)>,
    /// The topic's subject, where it is one of the contract.
    subject: Option<String>,
    registry: Option<Arc<Registry>>,
    runtime: Runtime,
    known: HashMap<SchemaId, Known>,
}

#[derive(Clone)]
struct Known {
    at: Instant,
    found: Result<Arc<WriterSchema>, String>,
    version: Option<(String, u32)>,
    /// Why it is no schema of this topic's records.
    foreign: Option<String>,
    parsed: Option<Arc<(apache_avro::Schema, Vec<apache_avro::Schema>)>>,
}

impl Decoding {
    /// Reads events of that topic, or anything.
    pub(super) fn new(
        contract: Option<&Topic>,
        registry: Option<Arc<Registry>>,
    ) -> anyhow::Result<Decoding> {
        let subject = contract.map(Topic::subject);
        let contract =
            contract.map(|topic| (Arc::clone(&topic.schema), Decoder::new(&topic.schema)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("start the runtime")?;
        Ok(Decoding { contract, subject, registry, runtime, known: HashMap::new() })
    }

    /// Reads a record.
    pub(super) fn read<'a>(
        &mut self,
        partition: i32,
        record: &Record<'a>,
        now: Instant,
    ) -> Tapped<'a> {
        let id = record.value.and_then(SchemaId::of);
        let known = id.map(|id| self.known(id, now));
        let version = known.as_ref().and_then(|known| known.version.clone());
        let (body, row) = match (&mut self.contract, record.value) {
            (_, None) => (Body::Tombstone, None),
            (Some((schema, decoder)), Some(_)) => read_event(schema, decoder, record, known),
            (None, Some(value)) => (read_any(value, known), None),
        };
        // Without a registry, or where it doesn't know it, bytes after a zero are no sign of a frame.
        let is_framed = self.contract.is_some() || !matches!(body, Body::Text | Body::Bytes);
        Tapped {
            partition,
            offset: record.offset.get(),
            time: record.append_time,
            time_kind: record.time_kind,
            key: record.key,
            value: record.value,
            headers: record.headers,
            schema: id.filter(|_| is_framed).map(|id| SchemaInfo { id, version }),
            body,
            row,
        }
    }

    /// What the registry says of an id.
    fn known(&mut self, id: SchemaId, now: Instant) -> Known {
        if let Some(known) = self.known.get(&id) {
            let is_old = now.saturating_duration_since(known.at) >= ASK_AGAIN;
            if known.found.is_ok() || !is_old {
                return known.clone();
            }
        }
        let known = match &self.registry {
            None => Known::not_found("no registry is named: use --registry".to_owned(), now),
            Some(registry) => match self.runtime.block_on(registry.schema(id)) {
                Err(cause) => Known::not_found(cause.to_string(), now),
                Ok(schema) => {
                    let versions = self.runtime.block_on(registry.versions_of(id));
                    self.placed(schema, &versions.unwrap_or_default(), now)
                }
            },
        };
        if self.known.len() >= MAX_IDS {
            self.known.clear();
        }
        self.known.insert(id, known.clone());
        known
    }

    /// A schema with its registrations; of several, that under the topic's own subject is shown.
    fn placed(&self, schema: Arc<WriterSchema>, places: &[SubjectVersion], at: Instant) -> Known {
        let subject = self.subject.as_deref();
        let own = places.iter().find(|one| Some(one.subject.as_str()) == subject);
        let version = own.or(places.first()).map(|one| (one.subject.clone(), one.version));
        let foreign = subject.and_then(|subject| foreign(subject, places));
        Known { at, found: Ok(schema), version, foreign, parsed: None }.parsed()
    }
}

impl Known {
    fn not_found(why: String, at: Instant) -> Known {
        Known { at, found: Err(why), version: None, foreign: None, parsed: None }
    }

    fn parsed(self) -> Known {
        let parse = |schema: &Arc<WriterSchema>| {
            apache_avro::Schema::parse_str_with_list(&schema.text, &schema.dependencies)
        };
        let parsed = self.found.as_ref().ok().and_then(|schema| parse(schema).ok());
        Known { parsed: parsed.map(Arc::new), ..self }
    }
}

/// Reads a value that should be an event of the contract.
fn read_event(
    schema: &Schema,
    decoder: &mut Decoder,
    record: &Record<'_>,
    known: Option<Known>,
) -> (Body, Option<RecordBatch>) {
    if let Some((id, known)) = record.value.and_then(SchemaId::of).zip(known) {
        match known.found {
            Ok(_) if decoder.knows(id) => {}
            Ok(found) => {
                let writer = match known.foreign {
                    Some(why) => {
                        let why = format!("schema id {}: {why}", id.0);
                        Writer::refused(Reason::ForeignSchema, why)
                    }
                    None => Writer::new(schema, &found.text, &found.dependencies),
                };
                decoder.learn(id, writer);
            }
            Err(why) => return (Body::Unreadable(format!("schema id {}: {why}", id.0)), None),
        }
    }
    let Record { value, offset, epoch, append_time, .. } = *record;
    match decoder.push(&decode::Record { value, offset, epoch, append_time, retry: None }) {
        Outcome::Tombstone => (Body::Tombstone, None),
        Outcome::Rejected(reject) => (Body::Rejected(reject), None),
        Outcome::Row => {
            let row = decoder.finish(Uuid::nil(), 0);
            (Body::Json(event_text(schema, &row)), Some(row))
        }
    }
}

/// Reads a value of which nothing is known beforehand.
fn read_any(value: &[u8], known: Option<Known>) -> Body {
    let text = std::str::from_utf8(value).ok();
    if let Some(known) = known {
        let id = known.found.as_ref().map(|schema| schema.id.0);
        match (&known.parsed, id) {
            (Some(schemas), Ok(id)) => return read_avro(&value[5..], schemas, id),
            (None, Ok(id)) => return Body::Unreadable(format!("schema id {id} isn't Avro")),
            // Bytes that begin with a zero by chance.
            (_, Err(_)) => return if text.is_some() { Body::Text } else { Body::Bytes },
        }
    }
    let Some(text) = text else { return Body::Bytes };
    match serde_json::from_str::<&RawValue>(text) {
        Ok(json) => Body::Json(json.get().to_owned()),
        Err(_) => Body::Text,
    }
}

fn read_avro(
    mut body: &[u8],
    (schema, others): &(apache_avro::Schema, Vec<apache_avro::Schema>),
    id: u32,
) -> Body {
    let flaw = |cause: String| Body::Unreadable(format!("schema id {id}: {cause}"));
    let schemata: Vec<_> = others.iter().chain([schema]).collect();
    let reader = GenericDatumReader::builder(schema).writer_schemata(schemata);
    let value = reader.and_then(|reader| reader.build()?.read_value(&mut body));
    match value.and_then(serde_json::Value::try_from) {
        Ok(_) if !body.is_empty() => flaw(format!("{} bytes after the value", body.len())),
        Ok(value) => Body::Json(value.to_string()),
        Err(cause) => flaw(cause.to_string()),
    }
}
