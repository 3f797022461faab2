//! The schemas of a topic's records, from the registry.
//!
//! A schema is the topic's if it is registered under the topic's subject, `<topic>-value`; where the registry
//! can't tell under which it is, that isn't held against it.

use std::sync::Arc;

use aion_schemas::decode::SchemaId;
use async_trait::async_trait;

use crate::{
    job::schemas::{Found, WriterSchemas},
    registry::{Error, Registry, SchemaKind, SubjectVersion},
};

/// So many subjects are named to people.
const NAMED: usize = 3;

/// Asks the registry for one topic.
#[derive(Debug)]
pub struct TopicSchemas {
    registry: Arc<Registry>,
    subject: String,
}

impl TopicSchemas {
    /// The schemas of records whose schemas are registered under `subject`.
    pub fn new(registry: Arc<Registry>, subject: String) -> TopicSchemas {
        TopicSchemas { registry, subject }
    }
}

/// Why a schema with these registrations isn't one of the records of `subject`'s topic, if it isn't.
pub fn foreign(subject: &str, versions: &[SubjectVersion]) -> Option<String> {
    if versions.is_empty() || versions.iter().any(|one| one.subject == subject) {
        return None;
    }
    let mut subjects: Vec<&str> = versions.iter().map(|one| one.subject.as_str()).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let more = if subjects.len() > NAMED { " and others" } else { "" };
    subjects.truncate(NAMED);
    let subjects = subjects.join(", ");
    Some(format!("it is registered under {subjects}{more}, not under {subject}"))
}

#[async_trait]
impl WriterSchemas for TopicSchemas {
    async fn look_up(&self, id: SchemaId) -> Found {
        let schema = match self.registry.schema_anew(id).await {
            Ok(schema) => schema,
            Err(cause @ Error::NotFound { .. }) => return Found::Missing(cause.to_string()),
            Err(cause @ Error::Rejected { .. }) => return Found::Refused(cause.to_string()),
            Err(cause @ Error::References { .. }) => return Found::Unusable(cause.to_string()),
            // Whoever runs the registry can put it right.
            Err(cause) => return Found::Unknown(cause.to_string()),
        };
        if schema.kind != SchemaKind::Avro {
            let kind = schema.kind;
            return Found::Unusable(format!("it is a schema in {kind}; only Avro is framed here"));
        }
        match self.registry.versions_of(id).await {
            Ok(versions) => {
                if let Some(why) = foreign(&self.subject, &versions) {
                    return Found::Foreign(why);
                }
            }
            // It has the schema, and no list of where it is registered.
            Err(Error::NotFound { .. } | Error::Rejected { .. }) => {}
            Err(cause) => return Found::Unknown(cause.to_string()),
        }
        Found::Schema { text: schema.text.clone(), references: schema.dependencies.clone() }
    }
}
