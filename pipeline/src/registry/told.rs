//! Registered schemas for table `schemas` of SQL: asked for anew by each query.

use std::{future::ready, sync::Arc};

use aion_analytics::control::{
    Told,
    schemas::{Registered, SchemaText},
};
use aion_schemas::catalog::{Catalog, Topic};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Error, Registry, SchemaKind, found};

/// So many questions of a kind are asked at a time.
const AT_A_TIME: usize = 4;

/// A version that is asked for.
struct Wanted {
    topic: Arc<Topic>,
    version: u32,
    is_deleted: bool,
}

/// Every version of the subject of each topic that producers write, deleted ones too: events that were written with them
/// may still be in the log. Texts come one by one: a subject may have many versions, of a megabyte each.
pub(crate) fn of(registry: Arc<Registry>, catalog: &Catalog) -> Told<SchemaText> {
    let topics = catalog.topics.iter().filter(|topic| !topic.internal);
    let topics: Vec<Arc<Topic>> = topics.cloned().map(Arc::new).collect();
    Told::new(move || {
        let (lists, texts) = (Arc::clone(&registry), Arc::clone(&registry));
        stream::iter(topics.clone())
            .map(move |topic| wanted(Arc::clone(&lists), topic))
            .buffered(AT_A_TIME)
            .map_ok(|wanted| stream::iter(wanted.into_iter().map(Ok::<_, Error>)))
            .try_flatten()
            .map_ok(move |wanted| text(Arc::clone(&texts), wanted))
            .try_buffered(AT_A_TIME)
            // It may have been deleted for good meanwhile.
            .try_filter_map(|text| ready(Ok(text)))
            .map_err(|cause| cause.to_string())
            .boxed()
    })
}

async fn wanted(registry: Arc<Registry>, topic: Arc<Topic>) -> Result<Vec<Wanted>, Error> {
    let subject = topic.subject();
    let all = found(registry.versions(&subject, true).await)?.unwrap_or_default();
    let present = found(registry.versions(&subject, false).await)?.unwrap_or_default();
    let wanted = |version| {
        let is_deleted = !present.contains(&version);
        Wanted { topic: Arc::clone(&topic), version, is_deleted }
    };
    Ok(all.into_iter().map(wanted).collect())
}

async fn text(registry: Arc<Registry>, wanted: Wanted) -> Result<Option<SchemaText>, Error> {
    let Wanted { topic, version, is_deleted } = wanted;
    let subject = topic.subject();
    let found = found(registry.any_version(&subject, version).await)?;
    Ok(found.map(|one| SchemaText {
        topic: Arc::clone(&topic.name),
        table: Arc::clone(&topic.table),
        subject: Some(subject),
        format: format(one.schema.kind),
        registered: Some(Registered { version, id: one.id, is_deleted }),
        text: one.schema.text.into(),
    }))
}

const fn format(kind: SchemaKind) -> &'static str {
    match kind {
        SchemaKind::Avro => "avro",
        SchemaKind::Json => "json_schema",
        SchemaKind::Protobuf => "protobuf",
        SchemaKind::Other => "other",
    }
}
