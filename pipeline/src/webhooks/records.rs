//! What the engine writes to topics: attempts, dead letters, cursors, gaps.

use aion_schemas::log::{Stream, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    cursor::{Cursor, Millis},
    event::Event,
};
use crate::job::times::rfc3339;

/// An attempt, for `aion.webhooks.attempts`.
#[derive(Debug, Serialize)]
pub struct Attempt<'a> {
    /// The endpoint.
    pub endpoint: &'a str,
    /// The event.
    pub event_id: &'a str,
    /// Its topic.
    pub topic: &'a str,
    /// The topic's id.
    pub topic_id: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// `delivered`, `failed` or `gone`.
    pub outcome: &'static str,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// How long it took.
    pub latency_ms: f64,
    /// When it began.
    pub attempted_at: String,
}

/// A dead letter, for `aion.webhooks.dead-letters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// The endpoint.
    pub endpoint: String,
    /// The event.
    pub event_id: String,
    /// Its topic.
    pub topic: String,
    /// The topic's id.
    pub topic_id: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// `attempts`, `age`, `too_large`, `undecodable`, `no_schema`.
    pub reason: String,
    /// What is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How often it was tried.
    pub attempts: i64,
    /// The exact body; none where it is too large or can't be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// When the event was appended.
    pub appended_at: String,
    /// When it was given up.
    pub buried_at: String,
}

impl Letter {
    /// The letter of an event.
    pub fn of(
        endpoint: &str,
        event: &Event,
        (reason, detail): (&str, Option<String>),
        now: Millis,
    ) -> Letter {
        let Stream { topic, id } = &event.stream;
        let body = event.body.get().filter(|body| body.len() <= super::payload::MOST_BYTES);
        Letter {
            endpoint: endpoint.to_owned(),
            event_id: event.id().to_owned(),
            topic: topic.to_string(),
            topic_id: id.to_string(),
            partition: event.partition,
            offset: event.offset,
            reason: reason.to_owned(),
            detail,
            attempts: 0,
            body: body.and_then(|body| String::from_utf8(body.to_vec()).ok()),
            appended_at: rfc3339(event.time),
            buried_at: time(now),
        }
    }

    /// Its key.
    pub fn key(&self) -> String {
        format!("{}:{}:{}:{}", self.endpoint, self.topic_id, self.partition, self.offset)
    }
}

/// The key of a cursor.
pub fn cursor_key(endpoint: &str, stream: &Stream, partition: i32) -> String {
    format!("{endpoint}:{}:{partition}", stream.id)
}

/// What stands beside a cursor, for people and `aion webhooks status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The endpoint.
    pub endpoint: String,
    /// The topic.
    pub topic: String,
    /// Its id.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// How the endpoint is: see [`super::status::State`].
    pub state: String,
    /// The last failure, where the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The end of the log, as far as it was known; 0 where it wasn't.
    #[serde(default)]
    pub end: i64,
    /// When this was written.
    pub stored_at: String,
}

/// The value of a cursor's record.
pub fn cursor_value(cursor: &Cursor, about: &About) -> serde_json::Result<Vec<u8>> {
    let mut value = serde_json::to_value(about)?;
    if let (Some(all), serde_json::Value::Object(members)) =
        (value.as_object_mut(), cursor.to_json()?)
    {
        all.extend(members);
    }
    serde_json::to_vec(&value)
}

/// A gap, for `aion.gaps`: key and value.
pub fn gap(
    (group, endpoint): (&str, &str),
    (stream, partition): (&Stream, i32),
    (first, next): (i64, i64),
    (reason, detail): (&str, &str),
    now: Millis,
) -> (String, Vec<u8>) {
    let job = format!("{group}-{endpoint}");
    let value = json!({
        "job": job,
        "topic": &*stream.topic,
        "topic_id": stream.id.to_string(),
        "partition": partition,
        "first": first,
        "next": next,
        "reason": reason,
        "detail": detail,
        "recorded_at": time(now),
    });
    (format!("{job}:{}:{partition}:{first}:{reason}", stream.id), value.to_string().into_bytes())
}

/// A time as records have it.
pub fn time(at: Millis) -> String {
    rfc3339(Timestamp(at.saturating_mul(1_000)))
}
