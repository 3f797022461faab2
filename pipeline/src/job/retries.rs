//! Retries: dead letters that somebody sends again, to the topic of retries of their table.
//!
//! The value and the key are those of the record that was rejected; headers say which one it was.
//!
//! | header | what |
//! |---|---|
//! | `job` | whose dead letter it is: other jobs of the topic pass it over |
//! | `origin` | the record that was rejected first, `<topic id>/<partition>/<offset>` |
//! | `origin_append_time` | when the broker appended that one, RFC 3339, UTC |
//!
//! A retry that is rejected again is a dead letter of its own, with the same `origin`: so however often it is
//! tried, one record of the log becomes one row at most, and nothing is tried again but by a person.
//!
//! **Invariant:** `origin` is the first record's, never a retry's: it is what the store knows a row by.

use std::borrow::Cow;

use aion_kafka::Record;
use aion_schemas::{
    decode::{self, Decoder, Outcome, Reason, Reject, Retry, SchemaId, Writer},
    log::Origin,
};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use uuid::Uuid;

use super::{
    kafka::rows::Rows,
    times::{parse_rfc3339, rfc3339},
};

/// Whose dead letter it is.
pub const JOB: &str = "job";
/// The record that was rejected first.
pub const ORIGIN: &str = "origin";
/// When the broker appended it.
pub const ORIGIN_APPEND_TIME: &str = "origin_append_time";

/// What the headers of a retry say of the record that was rejected.
pub fn headers(retry: &Retry) -> [(&'static str, Bytes); 2] {
    [
        (ORIGIN, retry.origin.to_string().into()),
        (ORIGIN_APPEND_TIME, rfc3339(retry.append_time).into()),
    ]
}

/// What a record is a retry of, by its headers; none where they don't say.
pub fn of_record(record: &Record<'_>) -> Option<Retry> {
    let text = |name| std::str::from_utf8(record.headers.get(name).flatten()?).ok();
    let origin: Origin = text(ORIGIN)?.parse().ok()?;
    let append_time = parse_rfc3339(text(ORIGIN_APPEND_TIME)?)?;
    Some(Retry { origin, append_time })
}

/// The job whose dead letter a record is.
pub fn job_of<'a>(record: &Record<'a>) -> Cow<'a, str> {
    String::from_utf8_lossy(record.headers.get(JOB).flatten().unwrap_or_default())
}

/// The rows of a topic of retries: those of its job, read as the topic's own records are.
pub(super) struct RetryRows {
    job: String,
    decoder: Decoder,
}

impl RetryRows {
    /// The rows of the retries of this job.
    pub(super) fn new(job: &str, decoder: Decoder) -> RetryRows {
        RetryRows { job: job.to_owned(), decoder }
    }
}

impl Rows for RetryRows {
    fn push(&mut self, record: &Record<'_>) -> Outcome {
        let Some(retry) = of_record(record) else {
            return Outcome::Rejected(Reject {
                reason: Reason::NoOrigin,
                field: None,
                detail: format!(
                    "headers {ORIGIN} and {ORIGIN_APPEND_TIME} don't name a record: send retries \
                     with `aion dead-letters retry`"
                ),
            });
        };
        if job_of(record) != self.job {
            return Outcome::Tombstone; // another job's: no row of this one
        }
        let aion_kafka::Record { value, offset, epoch, append_time, .. } = *record;
        let record = decode::Record { value, offset, epoch, append_time, retry: Some(retry) };
        self.decoder.push(&record)
    }

    fn retry_of(&self, record: &Record<'_>) -> Option<Retry> {
        of_record(record)
    }

    fn bytes(&self) -> usize {
        self.decoder.bytes()
    }

    fn is_full(&self) -> bool {
        self.decoder.is_full()
    }

    fn finish(&mut self, topic_id: Uuid, partition: i32) -> RecordBatch {
        self.decoder.finish(topic_id, partition)
    }

    fn take_unknown_fields(&mut self) -> Vec<(String, u64)> {
        self.decoder.take_unknown_fields()
    }

    fn wants(&self, record: &Record<'_>) -> Option<SchemaId> {
        Rows::wants(&self.decoder, record)
    }

    fn learn(&mut self, id: SchemaId, writer: Writer) {
        self.decoder.learn(id, writer);
    }

    fn forget(&mut self, id: SchemaId) {
        self.decoder.forget(id);
    }
}
