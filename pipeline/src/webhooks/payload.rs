//! The body of an event: JSON as it is, Avro as JSON by the registry.
//!
//! **Invariant:** a record that waits for the registry isn't an attempt: the receiver has no part in it.

use std::sync::Arc;

use aion_schemas::{
    catalog::Catalog,
    decode::{self, Decoder, Outcome, SchemaId, Writer},
    log::Offset,
};
use apache_avro::reader::datum::GenericDatumReader;
use bytes::Bytes;
use uuid::Uuid;

use super::{
    event::Event,
    wire::{Data, envelope},
};
use crate::{
    event_text::event_text,
    registry::{self, Registry, SchemaKind, WriterSchema},
};

/// The largest body that is sent.
pub const MOST_BYTES: usize = 1 << 20;

/// Why an event has no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoBody {
    /// The registry gives no answer: later.
    NotYet(String),
    /// It never will: a short word, and what is known.
    Never(&'static str, String),
}

/// Makes bodies.
#[derive(Debug)]
pub struct Payloads {
    catalog: Arc<Catalog>,
    registry: Option<Arc<Registry>>,
}

impl Payloads {
    /// With a registry, values that are framed with its ids are read as Avro.
    pub fn new(catalog: Arc<Catalog>, registry: Option<Arc<Registry>>) -> Payloads {
        Payloads { catalog, registry }
    }

    /// The body of an event, made once.
    pub async fn body(&self, event: &Event) -> Result<Bytes, NoBody> {
        let body = event.body.get_or_try_init(|| self.make(event)).await?;
        if body.len() > MOST_BYTES {
            let detail = format!("{} bytes; {MOST_BYTES} are the most", body.len());
            return Err(NoBody::Never("too_large", detail));
        }
        Ok(body.clone())
    }

    async fn make(&self, event: &Event) -> Result<Bytes, NoBody> {
        let value = event.value.as_deref();
        let framed = match (&self.registry, value.and_then(SchemaId::of)) {
            (Some(registry), Some(id)) => self.avro(registry, id, event).await?,
            _ => None,
        };
        let data = framed.as_deref().map_or_else(|| Data::of(value), Data::Json);
        let topic = &event.stream.topic;
        Ok(envelope(topic, &event.place(), event.time, event.key.as_deref(), data))
    }

    /// The JSON of an Avro value; none where the bytes only look like one.
    async fn avro(
        &self,
        registry: &Registry,
        id: SchemaId,
        event: &Event,
    ) -> Result<Option<String>, NoBody> {
        let topic = self.catalog.topic(&event.stream.topic);
        let schema = match registry.schema(id).await {
            Ok(schema) => schema,
            // A topic of the contract has nothing else that begins with a zero: its schema may yet come.
            Err(cause @ registry::Error::NotFound { .. }) if topic.is_none() => {
                tracing::debug!(topic = %event.stream.topic, %cause, "sent as bytes");
                return Ok(None);
            }
            Err(cause) => return Err(NoBody::NotYet(format!("schema id {}: {cause}", id.0))),
        };
        if schema.kind != SchemaKind::Avro {
            return Ok(None);
        }
        let undecodable =
            |cause: String| NoBody::Never("undecodable", format!("schema id {}: {cause}", id.0));
        match topic {
            Some(topic) => {
                let mut decoder = Decoder::new(&topic.schema);
                decoder.learn(id, Writer::new(&topic.schema, &schema.text, &schema.dependencies));
                let record = decode::Record {
                    value: event.value.as_deref(),
                    offset: Offset(event.offset),
                    epoch: -1,
                    append_time: event.time,
                    retry: None,
                };
                match decoder.push(&record) {
                    Outcome::Row => {
                        Ok(Some(event_text(&topic.schema, &decoder.finish(Uuid::nil(), 0))))
                    }
                    Outcome::Tombstone => Ok(None),
                    Outcome::Rejected(reject) => Err(undecodable(format!("{reject:?}"))),
                }
            }
            None => generic(&schema, &event.value.as_deref().unwrap_or_default()[5..])
                .map(Some)
                .map_err(undecodable),
        }
    }
}

/// Any Avro value as JSON.
fn generic(schema: &WriterSchema, mut body: &[u8]) -> Result<String, String> {
    let parsed = apache_avro::Schema::parse_str_with_list(&schema.text, &schema.dependencies);
    let (parsed, others) = parsed.map_err(|cause| cause.to_string())?;
    let schemata: Vec<_> = others.iter().chain([&parsed]).collect();
    let reader = GenericDatumReader::builder(&parsed).writer_schemata(schemata);
    let value = reader.and_then(|reader| reader.build()?.read_value(&mut body));
    let value = value.and_then(serde_json::Value::try_from).map_err(|cause| cause.to_string())?;
    if !body.is_empty() {
        return Err(format!("{} bytes after the value", body.len()));
    }
    Ok(value.to_string())
}
