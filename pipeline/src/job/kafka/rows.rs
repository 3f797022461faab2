//! What makes rows of records: the contract's decoder, or that of the dead letters.

use std::sync::Arc;

use aion_kafka::Record;
use aion_schemas::{
    catalog::{self, Topic},
    decode::{self, Decoder, Outcome, Retry, SchemaId},
};
use arrow::record_batch::RecordBatch;
use uuid::Uuid;

use crate::job::{dead_letters::DeadLetterRows, retries::RetryRows};

/// The rows of one batch in the making.
pub(in crate::job) trait Rows: Send {
    /// Reads a record; it becomes a row, or leaves nothing behind.
    fn push(&mut self, record: &Record<'_>) -> Outcome;
    /// What a record is a retry of; none in a topic that isn't one of retries.
    fn retry_of(&self, _: &Record<'_>) -> Option<Retry> {
        None
    }
    /// The bytes that they hold.
    fn bytes(&self) -> usize;
    /// Takes them as a batch, and goes on empty.
    fn finish(&mut self, topic_id: Uuid, partition: i32) -> RecordBatch;
    /// Takes the counts of fields that the contract doesn't have.
    fn take_unknown_fields(&mut self) -> Vec<(String, u64)>;
}

/// Makes the rows of one more partition.
pub(in crate::job) type MakeRows = Box<dyn Fn() -> Box<dyn Rows> + Send>;

/// The maker for a job's topic; `learned` are the registry's ids of the contract's own Avro schema.
pub(in crate::job) fn maker(job: &str, topic: &Arc<Topic>, learned: Vec<SchemaId>) -> MakeRows {
    let (topic, job) = (Arc::clone(topic), job.to_owned());
    if &*topic.name == catalog::DEAD_LETTERS {
        return Box::new(move || Box::new(DeadLetterRows::new(&topic.schema)));
    }
    Box::new(move || {
        let mut decoder = Decoder::new(&topic.schema);
        for id in &learned {
            decoder.learn_contract(*id);
        }
        if topic.is_retries() {
            return Box::new(RetryRows::new(&job, decoder));
        }
        Box::new(decoder)
    })
}

impl Rows for Decoder {
    fn push(&mut self, record: &Record<'_>) -> Outcome {
        let Record { value, offset, epoch, append_time, .. } = *record;
        Decoder::push(self, &decode::Record { value, offset, epoch, append_time, retry: None })
    }

    fn bytes(&self) -> usize {
        Decoder::bytes(self)
    }

    fn finish(&mut self, topic_id: Uuid, partition: i32) -> RecordBatch {
        Decoder::finish(self, topic_id, partition)
    }

    fn take_unknown_fields(&mut self) -> Vec<(String, u64)> {
        Decoder::take_unknown_fields(self)
    }
}
