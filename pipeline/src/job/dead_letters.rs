//! Dead letters: records that can't become rows, kept whole in `aion.dead-letters`.
//!
//! The key is `job:topic id:partition:offset`, the value the record's own bytes, and everything known about
//! the refusal stands in headers: so a letter can be looked into, and sent again as it was. A record is
//! written again when the job died before its mark passed, so readers count distinct keys; where a row and
//! a letter exist for one offset, the row counts.
//!
//! | header | what |
//! |---|---|
//! | `job`, `topic`, `topic_id`, `partition`, `offset` | where it stood |
//! | `reason` | a short word |
//! | `field`, `detail` | what was wrong, where known |
//! | `schema_id` | the writer's schema, where the value names one |
//! | `append_time`, `rejected_at` | RFC 3339, UTC |
//! | `key` | the record's own key, where it had one |

use aion_schemas::log::{Partition, Timestamp};
use bytes::Bytes;

use super::{
    gaps::rfc3339,
    journal::{Entry, Ledger},
    source::Rejected,
};

/// The record for the dead-letter topic.
pub(super) fn entry(
    job: &str,
    partition: &Partition,
    rejected: Rejected,
    rejected_at: Timestamp,
) -> Entry {
    let Partition { stream, number } = partition;
    let text = |name: &'static str, value: String| (name, Bytes::from(value));
    let mut headers = vec![
        text("job", job.to_owned()),
        text("topic", stream.topic.to_string()),
        text("topic_id", stream.id.to_string()),
        text("partition", number.to_string()),
        text("offset", rejected.offset.to_string()),
        text("reason", rejected.reason.to_owned()),
    ];
    headers.extend(rejected.field.map(|field| text("field", field.to_string())));
    if !rejected.detail.is_empty() {
        headers.push(text("detail", rejected.detail));
    }
    headers.extend(rejected.schema_id.map(|id| text("schema_id", id.to_string())));
    headers.push(text("append_time", rfc3339(rejected.append_time)));
    headers.push(text("rejected_at", rfc3339(rejected_at)));
    headers.extend(rejected.key.map(|key| ("key", key)));
    Entry {
        ledger: Ledger::DeadLetters,
        key: format!("{job}:{}:{number}:{}", stream.id, rejected.offset),
        value: rejected.value,
        headers,
    }
}
