//! What the writers' schemas of a topic are, as its job asks for them.
//!
//! | the answer | what becomes of records with that id |
//! |---|---|
//! | a schema | they are read by it, for as long as the process lives |
//! | a schema of other subjects | dead letters; it is asked again after a while |
//! | it won't give one | dead letters; it is asked again after a while |
//! | a schema in another language, or out of bounds | dead letters |
//! | there is none | their partition waits for the grace time, then they are dead letters; it is asked again after a while |
//! | no answer | their partition waits |

use std::{fmt, sync::Arc, time::Duration};

use aion_schemas::decode::SchemaId;
use async_trait::async_trait;

/// What was found out about an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its schema, in Avro.
    Schema {
        /// Its text.
        text: String,
        /// The texts of the schemas that it refers to.
        references: Vec<String>,
    },
    /// It is no schema of this topic's records: why.
    Foreign(String),
    /// The registry refuses to give it: in its words.
    Refused(String),
    /// It is none that records can be read by, and never will be: why.
    Unusable(String),
    /// There is no schema of this id, in the registry's own words.
    Missing(String),
    /// That isn't known now: why.
    Unknown(String),
}

/// Tells the schemas that records of one topic were written with.
#[async_trait]
pub trait WriterSchemas: fmt::Debug + Send + Sync {
    /// Looks an id up; takes as long as it takes.
    async fn look_up(&self, id: SchemaId) -> Found;
}

/// Where a job looks schemas up.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Tells the schemas of the topic's records.
    pub schemas: Arc<dyn WriterSchemas>,
    /// How long a partition waits for an id that isn't there.
    pub grace: Duration,
}
