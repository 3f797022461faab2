//! What makes rows of records: the contract's decoder, or that of the dead letters.

use std::sync::Arc;

use aion_kafka::Record;
use aion_schemas::{
    catalog::{self, Topic},
    decode::{self, Decoder, Outcome, Retry, SchemaId, Writer},
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
    /// Whether they must be taken before the next record.
    fn is_full(&self) -> bool;
    /// Takes them as a batch, and goes on empty.
    fn finish(&mut self, topic_id: Uuid, partition: i32) -> RecordBatch;
    /// Takes the counts of fields that the contract doesn't have.
    fn take_unknown_fields(&mut self) -> Vec<(String, u64)>;
    /// The id of the schema that a record can't be read without, and that isn't known.
    fn wants(&self, _: &Record<'_>) -> Option<SchemaId> {
        None
    }
    /// Learns how records with a schema id are read.
    fn learn(&mut self, _: SchemaId, _: Writer) {}
    /// Unlearns it.
    fn forget(&mut self, _: SchemaId) {}
}

/// Makes the rows of one more partition.
pub(in crate::job) type MakeRows = Box<dyn Fn() -> Box<dyn Rows> + Send>;

/// The maker for a job's topic.
pub(in crate::job) fn maker(job: &str, topic: &Arc<Topic>) -> MakeRows {
    let (topic, job) = (Arc::clone(topic), job.to_owned());
    if &*topic.name == catalog::DEAD_LETTERS {
        return Box::new(move || Box::new(DeadLetterRows::new(&topic.schema)));
    }
    Box::new(move || {
        let decoder = Decoder::new(&topic.schema);
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

    fn is_full(&self) -> bool {
        Decoder::is_full(self)
    }

    fn finish(&mut self, topic_id: Uuid, partition: i32) -> RecordBatch {
        Decoder::finish(self, topic_id, partition)
    }

    fn take_unknown_fields(&mut self) -> Vec<(String, u64)> {
        Decoder::take_unknown_fields(self)
    }

    fn wants(&self, record: &Record<'_>) -> Option<SchemaId> {
        SchemaId::of(record.value?).filter(|id| !self.knows(*id))
    }

    fn learn(&mut self, id: SchemaId, writer: Writer) {
        Decoder::learn(self, id, writer);
    }

    fn forget(&mut self, id: SchemaId) {
        Decoder::forget(self, id);
    }
}
