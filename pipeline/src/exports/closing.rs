//! Closes boundaries: asks Kafka for the ends of the logs, then the store for its marks and rows, and fixes what follows.
//!
//! **Invariant:** Kafka is asked before the store, and the clock is read before Kafka: an end that is reached was the end
//! when the boundary had passed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aion_analytics::exports::closing::{self, LogSeen, Open, Place, Seen, Vector};
use aion_kafka::{Admin, Connection, Error, Isolation, Purpose, Spot, TopicPartition};
use aion_schemas::{
    catalog::{Catalog, Topic},
    log::Timestamp,
};
use anyhow::Context;
use uuid::Uuid;

use super::{
    journal::{Journal, Vectors},
    source::Source,
};

/// How long Kafka may take to answer.
const WAIT: Duration = Duration::from_secs(10);
/// What exports need `_append_time` to be.
const SETTING: &str = "message.timestamp.type";

/// What Kafka says of the topics that fill a table: its own and that of its retries.
#[derive(Clone, Debug)]
pub struct Logs {
    /// The id of the table's own topic.
    pub topic_id: Uuid,
    /// The ids of both.
    pub topic_ids: BTreeSet<Uuid>,
    partitions: BTreeMap<Place, LogSeen>,
    /// The clock before it was asked.
    asked_at: Timestamp,
}

/// Why a request can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Kafka can't be asked now.
    #[error("{0}")]
    Unavailable(String),
    /// Times of the topic are those of producers.
    #[error(
        "topic {topic} keeps the times of its producers ({SETTING}={value}), so nobody can tell when an interval is \
         complete; set {SETTING}=LogAppendTime (`aion bootstrap` does)"
    )]
    ProducersTimes {
        /// The topic.
        topic: String,
        /// What the setting is.
        value: String,
    },
    /// The topic isn't there.
    #[error("there is no topic {0} in Kafka: `aion bootstrap` makes it")]
    NoTopic(String),
}

/// Asks Kafka about the topics of a table.
pub async fn logs(
    connection: &Connection,
    catalog: &Catalog,
    topic: &Topic,
) -> Result<Logs, AskError> {
    let connection = connection.clone();
    let retries = catalog.retries_of(topic).map(|topic| topic.name);
    let name = Arc::clone(&topic.name);
    let asked = tokio::task::spawn_blocking(move || ask(&connection, &name, retries.as_deref()));
    asked.await.unwrap_or_else(|cause| Err(AskError::Unavailable(cause.to_string())))
}

fn ask(connection: &Connection, topic: &str, retries: Option<&str>) -> Result<Logs, AskError> {
    let failed =
        |error: Error| AskError::Unavailable(connection.explain(&error, Purpose::Administer));
    let asked_at = now();
    let admin = Admin::open(connection, WAIT).map_err(failed)?;
    admin.reach().map_err(failed)?;
    let settings = admin.describe_configs(topic).map_err(failed)?;
    let kind =
        settings.into_iter().find(|(name, ..)| name == SETTING).and_then(|(_, value, _)| value);
    if let Some(value) = kind.filter(|value| value != "LogAppendTime") {
        return Err(AskError::ProducersTimes { topic: topic.to_owned(), value });
    }
    let names: Vec<&str> = std::iter::once(topic).chain(retries).collect();
    let (mut own, mut partitions) = (None, BTreeMap::new());
    let mut topic_ids = BTreeSet::new();
    for found in admin.topic_ids(&names).map_err(failed)? {
        let Some(id) = found.id else { continue };
        topic_ids.insert(id);
        if found.topic == topic {
            own = Some(id);
        }
        let numbers = 0..found.partitions as i32;
        let all: Vec<_> = numbers.map(|number| TopicPartition::new(&found.topic, number)).collect();
        let offsets = |spot: Spot, isolation: Isolation| {
            let spots: Vec<_> = all.iter().map(|partition| (partition.clone(), spot)).collect();
            admin.offsets(&spots, isolation).map_err(failed)
        };
        let start = offsets(Spot::First, Isolation::Committed)?;
        let stable = offsets(Spot::Next, Isolation::Committed)?;
        let end = offsets(Spot::Next, Isolation::Uncommitted)?;
        for (number, ((start, stable_end), end)) in
            start.into_iter().zip(stable).zip(end).enumerate()
        {
            let seen = LogSeen { start, stable_end, end: end.max(stable_end) };
            partitions.insert((id, number as i32), seen);
        }
    }
    let topic_id = own.ok_or_else(|| AskError::NoTopic(topic.to_owned()))?;
    Ok(Logs { topic_id, topic_ids, partitions, asked_at })
}

/// The vectors of a boundary, one for each table, or why it is open. What was closed before stays as it was.
pub async fn close(
    journal: &Journal,
    source: &Source,
    tables: &[(Topic, Logs)],
    boundary: Timestamp,
) -> anyhow::Result<Result<Vectors, Open>> {
    let mut vectors = Vectors::new();
    for (topic, logs) in tables {
        let path = format!("_closed/{}/{}-{}.json", logs.topic_id, topic.table, boundary.0);
        let vector = match journal.closed(&path).await? {
            Some(vector) => vector,
            None => match judge(source, topic, logs, boundary).await? {
                Ok(vector) => journal.close(&path, &vector).await?,
                Err(open) => return Ok(Err(open)),
            },
        };
        vectors.insert(Arc::clone(&topic.table), vector);
    }
    Ok(Ok(vectors))
}

/// Whether a store has every row below the vectors; else which partition it lacks.
pub async fn reached(
    source: &Source,
    tables: &[(Topic, Logs)],
    vectors: &Vectors,
) -> anyhow::Result<Result<(), Open>> {
    for (topic, logs) in tables {
        let Some(vector) = vectors.get(&topic.table) else { continue };
        let marks = source.marks(topic).await?;
        for (place, end) in &vector.0 {
            let start = logs.partitions.get(place).map_or(*end, |log| log.start);
            // A store without a mark begins where the log does. One that has a mark moves it over what was lost.
            let mark = marks.get(place).copied().unwrap_or(start);
            if mark < *end {
                let (table, by) = (Arc::clone(&topic.table), *end - mark);
                return Ok(Err(Open::Behind { table, place: *place, by }));
            }
        }
    }
    Ok(Ok(()))
}

async fn judge(
    source: &Source,
    topic: &Topic,
    logs: &Logs,
    boundary: Timestamp,
) -> anyhow::Result<Result<Vector, Open>> {
    let marks = source.marks(topic).await.context("ask how far the store is")?;
    let after = source.first_after(topic, boundary).await.context("ask for the first later row")?;
    let mut seen = BTreeMap::<Place, Seen>::new();
    for (place, log) in &logs.partitions {
        seen.entry(*place).or_default().log = Some(*log);
    }
    for (place, mark) in marks {
        seen.entry(place).or_default().mark = Some(mark);
    }
    for (place, first) in after {
        seen.entry(place).or_default().first_after = Some(first);
    }
    Ok(closing::close(&topic.table, boundary, logs.asked_at, &seen))
}

/// The clock of this machine.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}
