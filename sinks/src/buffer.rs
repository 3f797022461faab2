//! Batches of owned partitions that wait for a flush; the bookkeeping that every sink needs.
//!
//! **Invariant:** what a partition holds is contiguous: a batch starts where the one before it ended, and
//! the first starts at the mark that the store had when the partition was assigned.

use std::collections::BTreeMap;

use aion_schemas::log::{Mark, Marks, Offset, Partition, show};

use crate::{batch::Batch, sink::SinkError};

/// Contiguous batches of one partition, and the stored mark that they follow.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// The mark that the store must still have when this is written; `None` where it has none.
    pub(crate) after: Option<Mark>,
    /// The batches, in order.
    pub(crate) batches: Vec<Batch>,
}

impl Chunk {
    /// The mark that holds once everything here is durable.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.batches.last().map(Batch::mark).or(self.after)
    }

    /// The bytes held against the budget.
    pub(crate) fn bytes(&self) -> usize {
        self.batches.iter().map(Batch::bytes).sum()
    }

    /// Drops what became durable with `mark`; what is left follows it.
    pub(crate) fn settle(&mut self, mark: Mark) {
        let batches = std::mem::take(&mut self.batches);
        self.batches = batches.into_iter().filter_map(|batch| batch.since(mark.offset)).collect();
        self.after = Some(mark);
    }
}

/// Chunks by partition: what one flush writes.
pub(crate) type Chunks = BTreeMap<Partition, Chunk>;

/// The bytes that chunks hold against the budget.
pub(crate) fn bytes(chunks: &Chunks) -> usize {
    chunks.values().map(Chunk::bytes).sum()
}

/// The waiting batches of all partitions that this process owns.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    owned: Chunks,
}

impl Buffers {
    /// Owns `partitions` with nothing waiting, each from the mark that the store has.
    pub(crate) fn assign(&mut self, partitions: &[Partition], marks: &Marks) {
        for partition in partitions {
            let after = marks.get(partition).copied();
            self.owned.insert(partition.clone(), Chunk { after, batches: Vec::new() });
        }
    }

    /// Gives partitions up, with all that waits for them.
    pub(crate) fn revoke(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.owned.remove(partition);
        }
    }

    /// Whether the partition is owned.
    pub(crate) fn owns(&self, partition: &Partition) -> bool {
        self.owned.contains_key(partition)
    }

    /// Adds a batch; refuses one that leaves a hole, overlaps, or belongs to nobody.
    pub(crate) fn push(&mut self, batch: Batch) -> Result<(), SinkError> {
        let Some(chunk) = self.owned.get_mut(&batch.partition) else {
            return Err(misuse(&batch, "the partition is not assigned"));
        };
        let wanted = chunk.mark().map(|mark| mark.offset);
        if wanted.is_some_and(|wanted| wanted != batch.range.start) {
            let wanted = wanted.unwrap_or(Offset::ZERO);
            return Err(misuse(&batch, &format!("offset {wanted} is the next wanted")));
        }
        if batch.range.end < batch.range.start {
            return Err(misuse(&batch, "the range runs backwards"));
        }
        if !batch.range.is_empty() {
            chunk.batches.push(batch);
        }
        Ok(())
    }

    /// Takes everything that waits; later batches follow it.
    pub(crate) fn take(&mut self) -> Chunks {
        let mut taken = Chunks::new();
        for (partition, chunk) in &mut self.owned {
            if chunk.batches.is_empty() {
                continue;
            }
            let after = chunk.mark();
            let whole = std::mem::replace(chunk, Chunk { after, batches: Vec::new() });
            taken.insert(partition.clone(), whole);
        }
        taken
    }

    /// What waits of a partition.
    pub(crate) fn waiting(&self, partition: &Partition) -> &[Batch] {
        self.owned.get(partition).map_or(&[], |chunk| &chunk.batches)
    }

    /// Takes the first of what waits of a partition: at most so many rows, and nothing at or above `until`.
    pub(crate) fn take_some(
        &mut self,
        partition: &Partition,
        until: Option<Offset>,
        max_rows: usize,
    ) -> Vec<Batch> {
        let Some(chunk) = self.owned.get_mut(partition) else { return Vec::new() };
        let (mut taken, mut left): (Vec<Batch>, Vec<Batch>) = (Vec::new(), Vec::new());
        let mut room = max_rows;
        for batch in std::mem::take(&mut chunk.batches) {
            let mut end = until.unwrap_or(batch.range.end).min(batch.range.end);
            // The row that has no room any more is where the next part begins.
            end = batch.offset_of(room).map_or(end, |offset| offset.min(end));
            if !left.is_empty() || end <= batch.range.start {
                left.push(batch);
            } else if end < batch.range.end {
                left.extend(batch.clone().since(end));
                taken.push(batch.before(end));
            } else {
                room -= batch.rows.num_rows();
                taken.push(batch);
            }
        }
        chunk.after = taken.last().map(Batch::mark).or(chunk.after);
        chunk.batches = left;
        taken
    }

    /// Puts batches back before what waits of their partition: those that were taken from it last.
    pub(crate) fn put_back(&mut self, partition: &Partition, mut batches: Vec<Batch>) {
        let Some(chunk) = self.owned.get_mut(partition) else { return };
        batches.append(&mut chunk.batches);
        chunk.batches = batches;
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.owned.values().all(|chunk| chunk.batches.is_empty())
    }

    /// The bytes held against the budget.
    pub(crate) fn bytes(&self) -> usize {
        bytes(&self.owned)
    }
}

fn misuse(batch: &Batch, cause: &str) -> SinkError {
    SinkError::Fatal {
        doing: format!("take offsets {} of {}", show(&batch.range), batch.partition),
        cause: cause.to_owned(),
        hint: "this is a fault of the program, please report it".to_owned(),
    }
}
