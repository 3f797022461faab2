//! The suite that every sink must pass, whatever stands behind it.
//!
//! A sink's tests implement [`Subject`] over its own store and expand [`conformance_tests!`](crate::conformance_tests),
//! which makes one test of each function in [`cases`]. A case opens sinks on the subject's store as
//! processes do: dropping one is a crash, opening a second is the next owner or a rival.
#![expect(clippy::missing_panics_doc, reason = "a suite of tests panics where a promise is broken")]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::{
    log::{Mark, Marks, Offset, Partition, Stream, Timestamp},
    schema::{position_fields, time_type},
};
use arrow::{
    array::{
        ArrayRef, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
        new_null_array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use uuid::Uuid;

use crate::{
    batch::Batch,
    budget::Budget,
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};

pub mod cases;

/// Bytes that each row of [`Log::batch`] holds against the budget.
pub const ROW_BYTES: usize = 100;

/// Time of the row at offset 0: 2026-03-01T10:00:00Z, in microseconds.
pub const EPOCH_US: i64 = 1_772_359_200_000_000;

/// One store and the sinks on it.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The sink under test.
    type Sink: Sink;

    /// Opens a sink as a process does when it starts: flushes are due by age at once, and writes are
    /// handed back above `hold_bytes`.
    async fn open(&self, hold_bytes: usize) -> Self::Sink;

    /// The stored rows, read as a user would: topic id, partition, offset of each.
    async fn rows(&self) -> Vec<(String, i32, i64)>;

    /// While stalled, the store doesn't answer to a flush.
    fn stall(&self, stalled: bool);
}

/// The schema of the rows that the suite writes: `id`, `at`, `value`, `note`, then the position columns.
pub fn schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("at", time_type(), false),
        Field::new("value", DataType::Float64, false),
        Field::new("note", DataType::Utf8, true),
    ];
    fields.extend(position_fields());
    Arc::new(Schema::new(fields))
}

/// A topic whose rows are a function of their place, so that any two readers of it agree.
#[derive(Clone, Debug)]
pub struct Log {
    stream: Stream,
    budget: Budget,
    /// Event time between two offsets.
    step: Duration,
}

impl Log {
    /// A new topic; its rows are a second apart.
    pub fn new() -> Log {
        Log::of(Uuid::new_v4())
    }

    /// The topic with this id.
    pub fn of(id: Uuid) -> Log {
        let stream = Stream { topic: "orders".into(), id };
        Log { stream, budget: Budget::new(usize::MAX), step: Duration::from_secs(1) }
    }

    /// The same topic with another time between rows.
    #[must_use]
    pub fn with_step(mut self, step: Duration) -> Log {
        self.step = step;
        self
    }

    /// A partition of it.
    pub fn partition(&self, number: i32) -> Partition {
        Partition { stream: self.stream.clone(), number }
    }

    /// The bytes that batches of this topic hold now.
    pub fn held(&self) -> usize {
        self.budget.held()
    }

    /// The rows of an offset range.
    pub fn batch(&self, partition: i32, first: i64, end: i64) -> Batch {
        let rows = self.rows(partition, first, end);
        let time = |offset: i64| Timestamp(self.time_us(offset));
        Batch {
            partition: self.partition(partition),
            range: Offset(first)..Offset(end),
            epoch: 1,
            appended: (first < end).then(|| (time(first), time(end - 1))),
            memory: self.budget.take(rows.num_rows() * ROW_BYTES),
            rows,
        }
    }

    /// An offset range that has no rows.
    pub fn hollow(&self, partition: i32, first: i64, end: i64) -> Batch {
        let mut batch = self.batch(partition, first, first);
        batch.range.end = Offset(end);
        batch
    }

    fn time_us(&self, offset: i64) -> i64 {
        EPOCH_US + offset * self.step.as_micros() as i64
    }

    fn rows(&self, partition: i32, first: i64, end: i64) -> RecordBatch {
        let offsets = || first..end;
        let count = offsets().count();
        let times = offsets().map(|offset| self.time_us(offset));
        let times: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
        let ids = offsets().map(|offset| format!("{partition}-{offset:012}"));
        let notes = offsets().map(|offset| (offset % 3 == 0).then_some("third"));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(ids)),
            Arc::clone(&times),
            Arc::new(Float64Array::from_iter_values(offsets().map(|offset| offset as f64 / 4.0))),
            Arc::new(notes.collect::<StringArray>()),
            Arc::new(StringArray::from(vec![self.stream.id.to_string(); count])),
            Arc::new(Int32Array::from(vec![1; count])),
            Arc::new(Int32Array::from(vec![partition; count])),
            Arc::new(Int64Array::from_iter_values(offsets())),
            times,
            new_null_array(&DataType::Utf8, count),
        ];
        RecordBatch::try_new(schema(), columns).expect("columns that fit the schema")
    }
}

impl Default for Log {
    fn default() -> Log {
        Log::new()
    }
}

/// Writes a batch that the sink must take.
pub async fn take(sink: &mut impl Sink, batch: Batch) {
    match sink.write(batch).await {
        Ok(Accepted::Taken) => {}
        other => panic!("the sink should take the batch: {other:?}"),
    }
}

/// Flushes until everything is durable, going on after failures that pass.
pub async fn settle(sink: &mut impl Sink) -> Flushed {
    let mut all = Flushed::default();
    for _ in 0..10 {
        let deadline = Instant::now() + Duration::from_secs(30);
        match sink.flush(Instant::now(), Flush::Now { deadline }).await {
            Ok(flushed) => {
                all.marks.extend(flushed.marks);
                all.moved.extend(flushed.moved);
                all.refused.extend(flushed.refused);
                return all;
            }
            Err(SinkError::Retry { .. }) => {}
            Err(error) => panic!("the flush should land: {error}"),
        }
    }
    panic!("the flush should land within ten tries")
}

/// Marks at the leader epoch of [`Log::batch`].
pub fn marks<const N: usize>(of: [(&Partition, i64); N]) -> Marks {
    of.map(|(partition, offset)| (partition.clone(), Mark { offset: Offset(offset), epoch: 1 }))
        .into()
}

/// Requires that each partition's stored offsets are exactly those given, each once.
pub async fn expect_rows<S: Subject>(
    subject: &S,
    expected: impl IntoIterator<Item = (Partition, Vec<i64>)>,
) {
    let mut stored = BTreeMap::<(String, i32), Vec<i64>>::new();
    for (topic_id, partition, offset) in subject.rows().await {
        stored.entry((topic_id, partition)).or_default().push(offset);
    }
    for offsets in stored.values_mut() {
        offsets.sort_unstable();
    }
    let wanted: BTreeMap<(String, i32), Vec<i64>> = expected
        .into_iter()
        .filter(|(_, offsets)| !offsets.is_empty())
        .map(|(partition, offsets)| ((partition.stream.id.to_string(), partition.number), offsets))
        .collect();
    same(&stored, &wanted, "stored rows");
}

fn same<T: PartialEq + Debug>(actual: &T, expected: &T, what: &str) {
    assert!(actual == expected, "{what}: {actual:?} instead of {expected:?}");
}

/// Expands to one test for each case of the suite; `$subject` is an expression that makes a fresh [`Subject`].
#[macro_export]
macro_rules! conformance_tests {
    ($subject:expr) => {
        $crate::conformance_tests! { $subject;
            rows_land_with_their_mark, marks_advance_without_rows, nothing_is_durable_before_its_flush,
            a_crash_loses_only_what_was_not_durable, full_buffers_hand_batches_back, revoke_drops_buffers,
            assign_forgets_buffers, a_partition_lost_and_won_back, a_sleeper_wakes_and_doubles_nothing,
            only_the_moved_partition_is_dropped, rivals_on_other_partitions_both_land,
            a_deadline_is_kept, due_flushes_never_wait, bytes_are_given_back, a_batch_out_of_order_is_refused,
            a_topic_made_anew_is_another
        }
    };
    ($subject:expr; $($case:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let subject = $subject;
                $crate::conformance::cases::$case(&subject).await;
            }
        )+
    };
}
