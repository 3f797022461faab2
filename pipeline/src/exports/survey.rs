//! What is known of an export's rows before they are read: schemas, versions, and what isn't there any more.
//!
//! | rows that happened in the interval and | then |
//! |---|---|
//! | were taken out of the lake by its retention | the export is refused: it could never be the whole one |
//! | were gone from the log before a job read them | a gap of that reason in the manifest |
//! | lie before the first that the store has, appended when the interval could have begun | a gap `not_stored`, or `expired_or_not_stored` where retention has run: what it took is of earlier days |
//!
//! **Invariant:** what retention takes, it takes for good. So it is looked for after the rows were read, too.

use std::{collections::BTreeMap, sync::Arc};

use aion_analytics::exports::{
    manifest::{About, Gap, NOT_STORED, SchemaEntry},
    request::{Request, hex},
    time::rfc3339,
};
use aion_schemas::{
    catalog::Topic,
    log::{Offset, Timestamp},
    schema::NAMESPACE,
};
use ring::digest::{SHA256, digest};

use super::{
    journal::Vectors,
    service::Exports,
    source::{Head, Source},
};
use crate::registry::{Registry, Schema};

/// The reason of such a gap where retention has run: nobody can tell any more.
const EXPIRED_OR_NOT_STORED: &str = "expired_or_not_stored";
/// An event may happen so much later than it was appended: beyond that it is no event.
const AHEAD_US: i64 = 86_400_000_000;

/// Retention has taken rows of the interval.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "retention has taken rows of table {table} from before {kept_from} out of the lake: ask for a later start, or read \
     another store"
)]
pub struct Expired {
    table: Arc<str>,
    kept_from: String,
}

/// Whether retention has taken rows of the interval out of the store.
pub async fn expired(source: &Source, request: &Request) -> anyhow::Result<Result<(), Expired>> {
    for topic in request.dataset.topics() {
        if let Some(kept_from) = source.kept_from(topic).await?
            && request.start < kept_from
        {
            let (table, kept_from) = (Arc::clone(&topic.table), rfc3339(kept_from));
            return Ok(Err(Expired { table, kept_from }));
        }
    }
    Ok(Ok(()))
}

/// What stands in the manifest whoever writes the files.
pub async fn about(
    exports: &Exports,
    (id, canonical): (&str, serde_json::Value),
    (source, request): (&Source, &Request),
    vectors: Vectors,
    late_rows: u64,
) -> anyhow::Result<About> {
    let mut gaps = source.gaps(request, &vectors).await?;
    let mut schemas = Vec::new();
    let mut lake_versions = BTreeMap::new();
    for topic in request.dataset.topics() {
        schemas.push(schema(topic, exports.registry.as_deref()).await);
        if let Some(version) = source.version(topic).await? {
            lake_versions.insert(Arc::clone(&topic.table), version);
        }
        gaps.extend(not_stored(source, request, topic, &vectors).await?);
    }
    Ok(About {
        manifest_version: 1,
        export_id: id.to_owned(),
        request: request.asked(),
        canonical,
        columns: request.dataset.columns().to_vec(),
        fingerprint: request.dataset.fingerprint(),
        schemas,
        lake_versions,
        offsets: vectors,
        gaps,
        late_rows,
    })
}

/// A topic's schema, by the id that the registry has for it.
async fn schema(topic: &Topic, registry: Option<&Registry>) -> SchemaEntry {
    let (subject, text) = (topic.subject(), topic.schema.avro_text(NAMESPACE));
    let fingerprint = hex(digest(&SHA256, text.as_bytes()).as_ref());
    let found = match registry {
        None => None,
        Some(registry) => registry.lookup(&subject, &Schema::avro(text), true).await.ok(),
    };
    SchemaEntry {
        table: Arc::clone(&topic.table),
        subject,
        fingerprint,
        id: found.as_ref().map(|found| found.id),
        version: found.map(|found| found.version),
    }
}

/// The beginnings of partitions of which the store has no row, if rows of the interval may have stood there.
async fn not_stored(
    source: &Source,
    request: &Request,
    topic: &Topic,
    vectors: &Vectors,
) -> anyhow::Result<Vec<Gap>> {
    let Some(vector) = vectors.get(&topic.table) else { return Ok(Vec::new()) };
    let wanted = || vector.0.iter().filter(|(_, end)| **end > Offset::ZERO);
    if wanted().next().is_none() || source.has_all_firsts(topic, wanted().map(|(p, _)| p)).await? {
        return Ok(Vec::new());
    }
    let heads = source.heads(topic).await?;
    let has_expired = source.kept_from(topic).await?.is_some();
    let reason = if has_expired { EXPIRED_OR_NOT_STORED } else { NOT_STORED };
    let earliest = Timestamp(request.start.0.saturating_sub(AHEAD_US));
    let mut gaps = Vec::new();
    for (place, end) in wanted() {
        let first = match heads.get(place) {
            Some(Head { appended, .. }) if *appended <= earliest => continue,
            Some(head) => head.first.min(*end),
            None => *end,
        };
        if first > Offset::ZERO && source.rejected(*place, first).await? < first.0 {
            gaps.push(Gap {
                table: Arc::clone(&topic.table),
                topic_id: place.0.to_string(),
                partition: place.1,
                first: 0,
                end: first.0,
                reason: reason.to_owned(),
            });
        }
    }
    Ok(gaps)
}
