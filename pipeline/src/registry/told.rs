//! Registered schemas for table `schemas` of SQL: asked for anew by each query.

use std::sync::Arc;

use aion_analytics::control::{
    Told,
    schemas::{Registered, SchemaText},
};
use aion_schemas::catalog::{Catalog, Topic};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Error, Registry, SchemaKind, found};

/// So many topics are asked about at a time.
const AT_A_TIME: usize = 4;

/// Every version of the subject of each topic that producers write, deleted ones too: events that were written with them
/// may still be in the log.
pub(crate) fn of(registry: Arc<Registry>, catalog: &Catalog) -> Told<SchemaText> {
    let topics: Vec<Topic> =
        catalog.topics.iter().filter(|topic| !topic.internal).cloned().collect();
    Told::new(move || {
        let registry = Arc::clone(&registry);
        stream::iter(topics.clone())
            .map(move |topic| of_topic(Arc::clone(&registry), topic))
            .buffered(AT_A_TIME)
            .map_ok(|texts| stream::iter(texts.into_iter().map(Ok::<_, Error>)))
            .try_flatten()
            .map_err(|cause| cause.to_string())
            .boxed()
    })
}

async fn of_topic(registry: Arc<Registry>, topic: Topic) -> Result<Vec<SchemaText>, Error> {
    let subject = topic.subject();
    let all = found(registry.versions(&subject, true).await)?.unwrap_or_default();
    let present = found(registry.versions(&subject, false).await)?.unwrap_or_default();
    let mut texts = Vec::with_capacity(all.len());
    for version in all {
        // It may have been deleted for good meanwhile.
        let Some(one) = found(registry.any_version(&subject, version).await)? else { continue };
        let is_deleted = !present.contains(&version);
        texts.push(SchemaText {
            topic: Arc::clone(&topic.name),
            table: Arc::clone(&topic.table),
            subject: Some(subject.clone()),
            format: format(one.schema.kind),
            registered: Some(Registered { version, id: one.id, is_deleted }),
            text: one.schema.text.into(),
        });
    }
    Ok(texts)
}

const fn format(kind: SchemaKind) -> &'static str {
    match kind {
        SchemaKind::Avro => "avro",
        SchemaKind::Json => "json_schema",
        SchemaKind::Protobuf => "protobuf",
        SchemaKind::Other => "other",
    }
}
