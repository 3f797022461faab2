//! Sequence numbers of idempotent producers: what makes a repeated batch a duplicate.
//!
//! **Invariant:** the state is a function of the stored batches alone, so a log that is read again
//! after a crash judges a producer's next batch as the process before would have.

use std::collections::{HashMap, VecDeque};

use kafka_protocol::error::ResponseError;

use crate::batch::Header;

/// Batches per producer that are known again; a client has at most five under way.
const REMEMBERED: usize = 5;
/// Producers per partition; beyond that the one that wrote least recently is forgotten.
const PRODUCERS: usize = 1_000;

/// The producers of one partition by id.
#[derive(Default)]
pub(super) struct Producers(HashMap<i64, Producer>);

struct Producer {
    epoch: i16,
    batches: VecDeque<Batch>,
}

#[derive(Clone, Copy)]
struct Batch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    timestamp: i64,
}

/// What to do with a batch.
pub(super) enum Verdict {
    /// It comes next: append it.
    Append,
    /// It is stored already: answer as then.
    Duplicate { base_offset: i64, timestamp: i64 },
}

impl Producers {
    /// Judges a batch. `truncated` says that the log has lost its beginning, and maybe a producer's
    /// first batches with it.
    pub(super) fn judge(&self, header: &Header, truncated: bool) -> Result<Verdict, ResponseError> {
        if header.producer_id < 0 {
            return Ok(Verdict::Append);
        }
        let first = header.base_sequence;
        let known = self.0.get(&header.producer_id);
        let Some(producer) = known else {
            let fresh = first == 0 || truncated;
            return fresh.then_some(Verdict::Append).ok_or(ResponseError::OutOfOrderSequenceNumber);
        };
        if header.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch > producer.epoch {
            return match first {
                0 => Ok(Verdict::Append),
                _ => Err(ResponseError::OutOfOrderSequenceNumber),
            };
        }
        let same = |batch: &&Batch| {
            batch.first_sequence == first && batch.last_sequence == header.last_sequence()
        };
        if let Some(batch) = producer.batches.iter().find(same) {
            let Batch { base_offset, timestamp, .. } = *batch;
            return Ok(Verdict::Duplicate { base_offset, timestamp });
        }
        let wanted = producer.batches.back().map_or(0, |batch| match batch.last_sequence {
            i32::MAX => 0,
            last => last + 1,
        });
        if first == wanted {
            Ok(Verdict::Append)
        } else {
            Err(ResponseError::OutOfOrderSequenceNumber)
        }
    }

    /// Takes note of a stored batch.
    pub(super) fn stored(&mut self, header: &Header) {
        if header.producer_id < 0 {
            return;
        }
        if !self.0.contains_key(&header.producer_id) && self.0.len() >= PRODUCERS {
            self.forget_oldest();
        }
        let fresh = || Producer { epoch: header.producer_epoch, batches: VecDeque::new() };
        let producer = self.0.entry(header.producer_id).or_insert_with(fresh);
        if producer.epoch != header.producer_epoch {
            *producer = fresh();
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Batch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            timestamp: if header.is_append_time() { header.max_timestamp } else { -1 },
        });
    }

    fn forget_oldest(&mut self) {
        let last = |producer: &Producer| producer.batches.back().map(|batch| batch.base_offset);
        let oldest = self.0.iter().min_by_key(|(_, producer)| last(producer)).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.0.remove(&id);
        }
    }
}
