//! Retries: rows that name the rejected record that they are. Each record lands once, whoever sends it how often.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aion_schemas::{
    log::{Offset, Origin, Partition},
    schema::ORIGIN_COLUMN,
};
use aion_sinks::{
    batch::Batch,
    conformance::{Log, marks, schema, settle, take},
    lake::{
        LakeSink,
        read::Snapshot,
        testing::Protection,
        upkeep::{Compacted, Compaction, TakenBack},
    },
    sink::Sink,
};
use arrow::{
    array::{Array, AsArray, StringArray, types},
    compute::concat_batches,
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
};

use crate::shared::{Place, batches, range, settings, spec};

/// The record of `log` at this place.
fn record(log: &Log, partition: i32, offset: i64) -> Origin {
    let topic_id = log.partition(partition).stream.id;
    Origin { topic_id, partition, offset: Offset(offset) }
}

/// Retries that stand from `first` on in a topic of retries.
fn sent(retries: &Log, partition: i32, first: i64, origins: &[Origin]) -> Batch {
    let mut batch = retries.batch(partition, first, first + origins.len() as i64);
    let texts: StringArray = origins.iter().map(|origin| Some(origin.to_string())).collect();
    let mut columns = batch.rows.columns().to_vec();
    let at = schema().index_of(ORIGIN_COLUMN).unwrap();
    columns[at] = Arc::new(texts);
    batch.rows = RecordBatch::try_new(schema(), columns).unwrap();
    batch
}

/// Batches over `first..end` in which one offset has no row.
async fn take_without(sink: &mut LakeSink, log: &Log, (first, end): (i64, i64), poison: i64) {
    take(sink, log.batch(0, first, poison)).await;
    take(sink, log.hollow(0, poison, poison + 1)).await;
    take(sink, log.batch(0, poison + 1, end)).await;
}

/// How often each record is stored, as itself or by a retry.
async fn stored(place: &Place) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for rows in batches(&place.lake).await {
        let text = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().clone();
        let ids = text("_topic_id");
        let partitions = rows.column_by_name("_partition").unwrap();
        let partitions = partitions.as_primitive::<types::Int32Type>();
        let offsets = rows.column_by_name("_offset").unwrap();
        let offsets = offsets.as_primitive::<types::Int64Type>();
        let origins = rows.column_by_name(ORIGIN_COLUMN).map(|_| text(ORIGIN_COLUMN));
        for row in 0..rows.num_rows() {
            let itself =
                format!("{}/{}/{}", ids.value(row), partitions.value(row), offsets.value(row));
            let origin = origins.as_ref().filter(|origins| origins.is_valid(row));
            let name = origin.map_or(itself, |origins| origins.value(row).to_owned());
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

async fn times(place: &Place, origin: Origin) -> usize {
    stored(place).await.get(&origin.to_string()).copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_lands_once_however_often_it_is_sent() {
    let (place, log, retries) = (Place::new(), Log::new(), Log::new());
    let (p0, r0) = (log.partition(0), retries.partition(0));
    let mut jobs = place.owner(std::slice::from_ref(&p0)).await;
    take_without(&mut jobs, &log, (0, 10), 5).await;
    settle(&mut jobs).await;
    let mut sink = place.owner(std::slice::from_ref(&r0)).await;
    let poison = record(&log, 0, 5);
    take(&mut sink, sent(&retries, 0, 0, &[poison, poison])).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&r0, 2)]));
    assert_eq!(times(&place, poison).await, 1, "twice in one flush");
    take(&mut sink, sent(&retries, 0, 2, &[poison])).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&r0, 3)]), "the mark passes what is skipped");
    drop(sink);
    let mut next = place.owner(std::slice::from_ref(&r0)).await;
    take(&mut next, sent(&retries, 0, 3, &[poison, record(&log, 0, 4)])).await;
    settle(&mut next).await;
    assert_eq!(times(&place, poison).await, 1, "in a later flush, by another process");
    assert_eq!(times(&place, record(&log, 0, 4)).await, 1, "the record itself is a row");
    assert_eq!(place.offsets(&r0).await, [0]);
    assert_eq!(place.offsets(&p0).await, [range(0, 5), range(6, 10)].concat());
}

/// A rival stores the same record between the last look and the put.
async fn with_a_rival(protected: bool) -> usize {
    let (place, log, retries) = (Place::new(), Log::new(), Log::new());
    let (r0, r1) = (retries.partition(0), retries.partition(1));
    let poison = record(&log, 0, 5);
    let mut jobs = place.owner(&[log.partition(0)]).await;
    take_without(&mut jobs, &log, (0, 10), 5).await;
    settle(&mut jobs).await;
    let mut one = place.owner(&[r0]).await;
    let mut two = place.owner(&[r1]).await;
    if !protected {
        one.rig().take_out(Protection::Origins);
    }
    take(&mut one, sent(&retries, 0, 0, &[record(&log, 0, 7), poison])).await;
    take(&mut two, sent(&retries, 1, 0, &[poison])).await;
    one.rig().before_next_put(move || {
        Box::pin(async move {
            settle(&mut two).await;
        })
    });
    settle(&mut one).await;
    times(&place, poison).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rival_that_was_faster_is_seen() {
    assert_eq!(with_a_rival(true).await, 1);
    assert_eq!(with_a_rival(false).await, 2, "without the look before the put");
}

/// The process died between the dead letter and its mark; the record is retried; then a later build reads it.
async fn before_its_mark(protected: bool, in_between: bool) -> (usize, Vec<i64>) {
    let (place, log, retries) = (Place::new(), Log::new(), Log::new());
    let p0 = log.partition(0);
    let poison = record(&log, 0, 14);
    let mut jobs = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut jobs, log.batch(0, 0, 10)).await;
    settle(&mut jobs).await;
    let mut retrying = place.owner(&[retries.partition(0)]).await;
    take(&mut retrying, sent(&retries, 0, 0, &[poison])).await;
    if !protected {
        jobs.rig().take_out(Protection::Origins);
    }
    if in_between {
        take(&mut jobs, log.batch(0, 10, 20)).await;
        jobs.rig().before_next_put(move || {
            Box::pin(async move {
                settle(&mut retrying).await;
            })
        });
        settle(&mut jobs).await;
    } else {
        settle(&mut retrying).await;
        take(&mut jobs, log.batch(0, 10, 20)).await;
        settle(&mut jobs).await;
    }
    let read = place.snapshot().await;
    assert_eq!(read.mark(p0.stream.id, 0).unwrap().offset, Offset(20));
    assert_eq!(read.marks.len(), 2, "what is skipped is no mark: {:?}", read.marks);
    (times(&place, poison).await, place.offsets(&p0).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_retried_before_its_mark_is_not_stored_again() {
    let without = [range(0, 14), range(15, 20)].concat();
    for in_between in [false, true] {
        assert_eq!(before_its_mark(true, in_between).await, (1, without.clone()));
        assert_eq!(before_its_mark(false, in_between).await.0, 2, "without the look");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_skipped_stays_so_for_the_next_owner_and_after_a_checkpoint() {
    let (place, log, retries) = (Place::new(), Log::new(), Log::new());
    let p0 = log.partition(0);
    let mut retrying = place.owner(&[retries.partition(0)]).await;
    take(&mut retrying, sent(&retries, 0, 0, &[record(&log, 0, 3)])).await;
    settle(&mut retrying).await;
    let mut upkeep = place.lake.upkeep(spec(schema())).await.unwrap().unwrap();
    upkeep.checkpoint().await.unwrap();
    let mut jobs = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut jobs, log.batch(0, 0, 5)).await;
    settle(&mut jobs).await;
    assert_eq!(place.offsets(&p0).await, [0, 1, 2, 4]);
    take(&mut retrying, sent(&retries, 0, 1, &[record(&log, 0, 3), record(&log, 0, 4)])).await;
    settle(&mut retrying).await;
    assert_eq!(stored(&place).await.values().copied().max(), Some(1));
}

/// The records of a partition that are told apart as retried before their mark.
fn told_apart(read: &Snapshot, partition: &Partition) -> Vec<i64> {
    let retried = read.retried(partition.stream.id, partition.number);
    retried.into_iter().flatten().copied().map(Offset::get).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_told_which_records_were_retried_before_their_mark() {
    let (place, log, retries) = (Place::new(), Log::new(), Log::new());
    let p0 = log.partition(0);
    let mut jobs = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut jobs, log.batch(0, 0, 5)).await;
    settle(&mut jobs).await;
    let reader = place.lake.table("orders").unwrap();
    let told = async || {
        let (goes_on, begins) = (reader.snapshot().await.unwrap().unwrap(), place.snapshot().await);
        [goes_on, begins].map(|read| told_apart(&read, &p0))
    };
    let none = [Vec::<i64>::new(), Vec::new()];
    assert_eq!(told().await, none);
    let mut retrying = place.owner(&[retries.partition(0)]).await;
    let all = [3, 7, 9].map(|offset| record(&log, 0, offset));
    take(&mut retrying, sent(&retries, 0, 0, &all)).await;
    settle(&mut retrying).await;
    assert_eq!(told().await, [vec![7, 9], vec![7, 9]], "the other is a row by itself");
    let mut upkeep = place.lake.upkeep(spec(schema())).await.unwrap().unwrap();
    let taken = upkeep.take_back(&p0, Offset(2)..Offset(5)).await.unwrap();
    assert_eq!(taken, TakenBack::Done { rows: 5 });
    assert_eq!(told().await, none, "the log has others there now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_hides_neither_rows_nor_retries() {
    let (place, log, retries) = (Place::new(), Log::new(), Log::new());
    let poison = record(&log, 0, 5);
    let mut jobs = place.owner(&[log.partition(0)]).await;
    let mut retrying = place.owner(&[retries.partition(0)]).await;
    take_without(&mut jobs, &log, (0, 10), 5).await;
    settle(&mut jobs).await;
    take(&mut retrying, sent(&retries, 0, 0, &[poison])).await;
    settle(&mut retrying).await;
    let worth = Compaction { min_files: 2, ..Compaction::default() };
    let mut upkeep = place.lake.upkeep(spec(schema())).await.unwrap().unwrap();
    let done = upkeep.compact(&worth, |_, _| {}).await.unwrap();
    assert_eq!(done, Compacted { removed: 2, added: 1, given_up: 0 });
    take(&mut retrying, sent(&retries, 0, 1, &[poison, record(&log, 0, 9)])).await;
    settle(&mut retrying).await;
    assert_eq!(stored(&place).await.values().copied().max(), Some(1));
}

/// The schema of tables from before there were retries.
fn old_schema() -> SchemaRef {
    let schema = schema();
    let fields = schema.fields().iter().filter(|field| field.name() != ORIGIN_COLUMN).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn old(mut batch: Batch) -> Batch {
    let columns: Vec<usize> = (0..old_schema().fields().len()).collect();
    batch.rows = batch.rows.project(&columns).unwrap();
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_from_before_goes_on_and_its_rows_have_no_origin() {
    let (place, log, retries) = (Place::new(), Log::new(), Log::new());
    let p0 = log.partition(0);
    let mut before = place.lake.sink(spec(old_schema()), settings()).await.unwrap();
    before.assign(std::slice::from_ref(&p0)).await.unwrap();
    take(&mut before, old(log.batch(0, 0, 5))).await;
    take(&mut before, old(log.hollow(0, 5, 6))).await;
    settle(&mut before).await;
    let mut jobs = place.owner(std::slice::from_ref(&p0)).await;
    assert!(place.snapshot().await.schema.field_with_name(ORIGIN_COLUMN).unwrap().is_nullable());
    take(&mut jobs, log.batch(0, 6, 8)).await;
    settle(&mut jobs).await;
    let mut retrying = place.owner(&[retries.partition(0)]).await;
    let all = [record(&log, 0, 5), record(&log, 0, 4), record(&log, 0, 7)];
    take(&mut retrying, sent(&retries, 0, 0, &all)).await;
    settle(&mut retrying).await;
    assert_eq!(place.offsets(&retries.partition(0)).await, [0], "the others are rows already");
    assert_eq!(stored(&place).await.len(), 8);
    // The writer from before doesn't know the column: it stops rather than drop it.
    take(&mut before, old(log.batch(0, 6, 9))).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let flushed =
        before.flush(std::time::Instant::now(), aion_sinks::sink::Flush::Now { deadline }).await;
    let error = flushed.unwrap_err().to_string();
    assert!(
        error.contains("_origin") && error.contains("newer") || error.contains("new as"),
        "{error}"
    );
}

/// A world of two partitions with poison in them, two jobs (one of them a zombie) and two that retry.
struct World {
    place: Place,
    log: Log,
    retries: Log,
    /// Of each writer: its partition, and where it is.
    jobs: Vec<(LakeSink, Partition, i64)>,
    retrying: Vec<(LakeSink, Partition, i64)>,
    /// What was sent to each partition of the topic of retries.
    sent: [Vec<Origin>; 2],
    random: u64,
    protected: bool,
}

const END: i64 = 40;

const fn is_poison(offset: i64) -> bool {
    offset % 5 == 3
}

impl World {
    async fn new(seed: u64, protected: bool) -> World {
        let (place, log, retries) = (Place::new(), Log::new(), Log::new());
        let mut world = World {
            place,
            log,
            retries,
            jobs: Vec::new(),
            retrying: Vec::new(),
            sent: [Vec::new(), Vec::new()],
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            protected,
        };
        for number in [0, 1, 0] {
            let one = world.open(world.log.partition(number)).await;
            world.jobs.push(one);
            let one = world.open(world.retries.partition(number)).await;
            world.retrying.push(one);
        }
        world
    }

    async fn open(&self, partition: Partition) -> (LakeSink, Partition, i64) {
        let mut sink = self.place.open().await;
        if !self.protected {
            sink.rig().take_out(Protection::Origins);
        }
        let marks = sink.assign(std::slice::from_ref(&partition)).await.unwrap();
        let at = marks.get(&partition).map_or(0, |mark| mark.offset.get());
        (sink, partition, at)
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Reads on, with a build that can read what was poison or one that can't, and flushes or not.
    async fn job(&mut self, at: usize, count: i64, reads_poison: bool, flush: bool) {
        let (sink, partition, from) = &mut self.jobs[at];
        let end = (*from + count).min(END);
        for offset in *from..end {
            let batch = if is_poison(offset) && !reads_poison {
                self.log.hollow(partition.number, offset, offset + 1)
            } else {
                self.log.batch(partition.number, offset, offset + 1)
            };
            take(sink, batch).await;
        }
        *from = end;
        if flush && !settle(sink).await.moved.is_empty() {
            self.jobs[at] = self.open(self.jobs[at].1.clone()).await;
        }
    }

    async fn retry(&mut self, at: usize, flush: bool) {
        let (sink, partition, from) = &mut self.retrying[at];
        let origins = &self.sent[partition.number as usize][*from as usize..];
        if !origins.is_empty() {
            take(sink, sent(&self.retries, partition.number, *from, origins)).await;
            *from += origins.len() as i64;
        }
        if flush && !settle(sink).await.moved.is_empty() {
            self.retrying[at] = self.open(self.retrying[at].1.clone()).await;
        }
    }

    async fn step(&mut self) {
        let at = self.draw(3) as usize;
        match self.draw(10) {
            0..3 => {
                let (count, reads, flush) = (self.draw(9) as i64, self.draw(2), self.draw(2));
                self.job(at, count, reads == 0, flush == 0).await;
            }
            3..6 => {
                // Also what no job has read so far: a letter is written before the mark passes.
                let offset = self.draw(END as u64 / 5) as i64 * 5 + 3;
                let (partition, to) = (self.draw(2) as i32, self.draw(2) as usize);
                self.sent[to].push(record(&self.log, partition, offset));
            }
            6..8 => {
                let flush = self.draw(2) == 0;
                self.retry(at, flush).await;
            }
            8 => self.jobs[at] = self.open(self.jobs[at].1.clone()).await,
            _ => self.retrying[at] = self.open(self.retrying[at].1.clone()).await,
        }
    }

    /// Two writers flush, the second between the other's last look and its put.
    async fn clash(&mut self) {
        let at = self.draw(3) as usize;
        let (mut rival, partition, from) = self.open(self.retries.partition(1)).await;
        let origins = &self.sent[1][from as usize..];
        if !origins.is_empty() {
            take(&mut rival, sent(&self.retries, partition.number, from, origins)).await;
        }
        let sink = if self.draw(2) == 0 { &self.jobs[at].0 } else { &self.retrying[at].0 };
        sink.rig().before_next_put(move || {
            Box::pin(async move {
                settle(&mut rival).await;
            })
        });
        self.job(at, 4, true, true).await;
        self.retry(at, true).await;
    }

    /// Everything is read and sent; then each record is there once at most, and each retried one exactly.
    async fn comes_out_exact(mut self) -> bool {
        for at in 0..2 {
            self.jobs[at] = self.open(self.jobs[at].1.clone()).await;
            self.job(at, END, false, true).await;
            self.retrying[at] = self.open(self.retrying[at].1.clone()).await;
            self.retry(at, true).await;
        }
        let stored = stored(&self.place).await;
        let retried =
            self.sent.iter().flatten().all(|origin| stored.get(&origin.to_string()) == Some(&1));
        let plain = (0..2).flat_map(|number| (0..END).map(move |offset| (number, offset)));
        let plain = plain.filter(|(_, offset)| !is_poison(*offset)).all(|(number, offset)| {
            stored.get(&record(&self.log, number, offset).to_string()) == Some(&1)
        });
        retried && plain && stored.values().all(|count| *count == 1)
    }
}

async fn run(seed: u64, protected: bool) -> bool {
    let mut world = World::new(seed, protected).await;
    for step in 0..40 {
        world.step().await;
        if step % 8 == 7 {
            world.clash().await;
        }
    }
    world.comes_out_exact().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_any_order_of_jobs_retries_and_crashes_each_record_is_stored_once() {
    for seed in 0..40 {
        assert!(run(seed, true).await, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_look_for_origins_is_needed() {
    for seed in 0..40 {
        if !run(seed, false).await {
            return println!("without it, seed {seed} stores a record twice");
        }
    }
    panic!("no schedule needs it");
}

/// Rows of several batches in one, as a reader of the table has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_origin_is_a_text_and_null_elsewhere() {
    let (place, log, retries) = (Place::new(), Log::new(), Log::new());
    let mut sink = place.owner(&[log.partition(0), retries.partition(0)]).await;
    take_without(&mut sink, &log, (0, 4), 2).await;
    take(&mut sink, sent(&retries, 0, 0, &[record(&log, 0, 2)])).await;
    settle(&mut sink).await;
    let all = batches(&place.lake).await;
    let rows = concat_batches(&all[0].schema(), &all).unwrap();
    let origins = rows.column_by_name(ORIGIN_COLUMN).unwrap().as_string::<i32>();
    assert_eq!(origins.null_count(), 3);
    let texts: Vec<&str> = origins.iter().flatten().collect();
    assert_eq!(texts, [record(&log, 0, 2).to_string()]);
}
