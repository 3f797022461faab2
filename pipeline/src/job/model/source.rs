//! The scripted source: a consumer of the world's logs that does a thing only when the schedule says so.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::poll_fn,
    sync::{Arc, LazyLock},
    task::Poll,
    time::Instant,
};

use aion_schemas::log::{Mark, Offset, Partition, Timestamp};
use aion_sinks::{batch::Batch, budget::Budget, memory::Store};
use arrow::{
    array::Int64Array,
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::{
    schedule::Options,
    seen::Thing,
    world::{ModelClock, PARTITIONS, Shared, What, World, lock},
};
use crate::job::{
    event_loop::Clock,
    source::{Chunk, Command, Event, Located, Lookup, Rejected, Source},
};

/// The columns of the model's rows.
pub(super) static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![field("uid"), field("_offset")]))
});

/// What the schedule sees of one process's consumer.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    pub(super) events: VecDeque<Event>,
    pub(super) readings: BTreeMap<i32, Reading>,
    /// Given back by the job since the schedule last looked.
    pub(super) released: Vec<i32>,
    locates: VecDeque<(i32, u64)>,
    bounds: Option<(i32, u64, std::ops::Range<Offset>)>,
    polled: u64,
    lookup: Option<(u64, Option<Uuid>)>,
    /// How many look-ups in a row have named an id of the past.
    stale: u32,
    /// Reported to Kafka, by partition.
    pub(super) committed: BTreeMap<i32, Offset>,
    /// Partitions that somebody else may have had, or may soon have, while this process thinks it has.
    pub(super) shared: BTreeSet<i32>,
    /// Partitions that were given to it at any time.
    pub(super) given: BTreeSet<i32>,
    /// Whether it was asked to stop.
    pub(super) is_stopping: bool,
}

/// How a look-up goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    Truly,
    /// The broker that is asked lags behind: it names this id. Not always.
    Stale(Uuid),
    /// Not at all.
    Fails,
}

/// So many look-ups in a row may be stale.
const STALE_IN_A_ROW: u32 = 2;

/// A partition that was started.
#[derive(Debug)]
pub(super) struct Reading {
    partition: Partition,
    run: u64,
    pub(super) position: usize,
    epoch: i32,
    paused: bool,
}

impl Consumer {
    /// The next step of a look-up: it starts, it finds the id, it is told.
    pub(super) fn look(&mut self, world: &Shared<World>, answers: Answers) {
        self.lookup = match self.lookup.take() {
            None => Some((self.polled, None)),
            Some(_) if answers == Answers::Fails => None,
            Some((after_poll, None)) => {
                let id = match answers {
                    Answers::Stale(id) if self.stale < STALE_IN_A_ROW => {
                        self.stale += 1;
                        id
                    }
                    _ => {
                        self.stale = 0;
                        lock(world).topic_id()
                    }
                };
                Some((after_poll, Some(id)))
            }
            Some((after_poll, topic_id)) => {
                let partitions = PARTITIONS as usize;
                let lookup = Lookup { after_poll, topic_id, partitions };
                self.events.push_back(Event::Looked(lookup));
                None
            }
        };
    }

    /// A question for bounds fails: it goes behind the others.
    pub(super) fn locate_in_vain(&mut self) {
        if self.bounds.take().is_none() && !self.locates.is_empty() {
            self.locates.rotate_left(1);
        }
    }

    /// The next step of a question for bounds: they are found, then the id is, and both are told.
    pub(super) fn locate(&mut self, world: &Shared<World>) {
        if let Some((partition, run, bounds)) = self.bounds.take() {
            let topic_id = Some(lock(world).topic_id());
            let located = Located { partition, run, topic_id, bounds };
            self.events.push_back(Event::Located(located));
        } else if let Some((partition, run)) = self.locates.pop_front() {
            let mut world = lock(world);
            let log = world.log(partition);
            let bounds = Offset(log.start as i64)..Offset(log.end() as i64);
            self.bounds = Some((partition, run, bounds));
        }
    }

    /// Fetches up to `max` offsets of a partition, as a client does that knows topics by name.
    pub(super) fn fetch(
        &mut self,
        number: i32,
        max: usize,
        world: &Shared<World>,
        with: (&Budget, Options),
    ) {
        let Some(reading) = self.readings.get_mut(&number) else { return };
        if reading.paused {
            return;
        }
        let mut world = lock(world);
        let log = world.log(number);
        let (position, run) = (reading.position, reading.run);
        let mark = Mark { offset: Offset(position as i64), epoch: reading.epoch };
        if let Some(agreed) = log.cut_below(mark) {
            self.events.push_back(Event::Truncated { partition: number, run, agreed });
            self.readings.remove(&number);
            return;
        }
        if position < log.start || position > log.end() {
            self.events.push_back(Event::OutOfRange { partition: number, run });
            self.readings.remove(&number);
            return;
        }
        let end = log.end().min(position + max);
        if end == position {
            return;
        }
        self.polled += 1;
        let passed = &log.slots[position..end];
        let count = |what: What| passed.iter().filter(|slot| slot.what == what).count();
        let (tombstones, holes) = (count(What::Tombstone), count(What::Hole));
        let chunk = chunk(reading, end, log, self.polled, with);
        (reading.position, reading.epoch) = (end, chunk.batch.epoch);
        self.events.push_back(Event::Chunk(chunk));
        world.seen.note(Thing::Tombstone, tombstones);
        world.seen.note(Thing::Hole, holes);
    }
}

fn chunk(
    reading: &Reading,
    end: usize,
    log: &super::world::Log,
    polled: u64,
    (budget, options): (&Budget, Options),
) -> Chunk {
    let (mut uids, mut offsets, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
    let (mut epochs, mut epoch, mut records) = (Vec::new(), reading.epoch, 0);
    for (offset, slot) in log.slots.iter().enumerate().take(end).skip(reading.position) {
        if slot.what == What::Hole {
            continue;
        }
        records += 1;
        if epochs.is_empty() || slot.epoch != epoch {
            epochs.push((Offset(offset as i64), slot.epoch));
        }
        epoch = slot.epoch;
        let is_tainted = slot.what == What::Row && !options.judges_alone && !rejected.is_empty();
        match slot.what {
            What::Row if !is_tainted => {
                uids.push(slot.uid);
                offsets.push(offset as i64);
            }
            What::Row | What::Poison => rejected.push(Rejected {
                offset: Offset(offset as i64),
                append_time: Timestamp(0),
                key: None,
                value: Some(Bytes::from(slot.uid.to_string())),
                reason: "poison",
                field: None,
                detail: String::new(),
                schema_id: None,
                retry: None,
            }),
            What::Tombstone | What::Hole => {}
        }
    }
    if log.slots[end - 1].what == What::Hole {
        epoch = epoch_behind_hole(Mark { offset: Offset(end as i64), epoch }, options);
    }
    let bytes = uids.len() * 100;
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(Int64Array::from(uids)), Arc::new(Int64Array::from(offsets))];
    let batch = Batch {
        partition: reading.partition.clone(),
        range: Offset(reading.position as i64)..Offset(end as i64),
        epoch,
        appended: None,
        rows: RecordBatch::try_new(Arc::clone(&COLUMNS), columns).unwrap(),
        memory: budget.take(bytes),
    };
    let high = Offset(log.end() as i64);
    Chunk {
        run: reading.run,
        polled,
        batch,
        epochs,
        records,
        rejected,
        unknown_fields: Vec::new(),
        high,
    }
}

/// As the client has it: what is passed behind the last record, a marker or what compaction took, may be of a later
/// leader.
fn epoch_behind_hole(mark: Mark, options: Options) -> i32 {
    let known = mark.record_epoch().filter(|_| options.keeps_epochs);
    if options.tells_holes {
        Mark::behind_hole(mark.offset, known).epoch
    } else {
        known.unwrap_or(-1)
    }
}

/// The job's end of a [`Consumer`].
pub(super) struct Scripted {
    pub(super) consumer: Shared<Consumer>,
    pub(super) world: Shared<World>,
    pub(super) stores: Vec<Store>,
    pub(super) clock: ModelClock,
    /// Whether reading starts where the group was told to be.
    pub(super) believes_group: bool,
}

#[async_trait]
impl Source for Scripted {
    async fn next(&mut self, until: Instant) -> Option<Event> {
        poll_fn(|_| match lock(&self.consumer).events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if self.clock.now() >= until => Poll::Ready(None),
            None => Poll::Pending,
        })
        .await
    }

    async fn command(&mut self, command: Command) {
        let mut consumer = lock(&self.consumer);
        match command {
            Command::Locate { partition, run } => {
                consumer.locates.retain(|(wanted, _)| *wanted != partition);
                consumer.locates.push_back((partition, run));
            }
            Command::Start { partition, run, mut at } => {
                let told = lock(&self.world).group.get(&partition.number).copied();
                if let Some(offset) = told.filter(|_| self.believes_group) {
                    at = Mark::at(offset);
                }
                let position = at.offset.get() as usize;
                let number = partition.number;
                let reading = Reading { partition, run, position, epoch: at.epoch, paused: false };
                consumer.readings.insert(number, reading);
            }
            Command::Halt(number) => drop(consumer.readings.remove(&number)),
            Command::Pause(number) | Command::Resume(number) => {
                let paused = matches!(command, Command::Pause(_));
                if let Some(reading) = consumer.readings.get_mut(&number) {
                    reading.paused = paused;
                }
            }
            Command::Commit { marks, .. } => {
                let failed = std::mem::take(&mut lock(&self.world).commit_fault);
                let offsets = marks.iter().map(|(number, offset, _)| (*number, *offset));
                if failed {
                    lock(&self.world).seen.note(Thing::FailedCommit, 1);
                    let numbers = offsets.map(|(number, _)| number).collect();
                    consumer.events.push_back(Event::CommitFailed(numbers));
                } else {
                    lock(&self.world).group.extend(offsets.clone());
                    consumer.committed.extend(offsets);
                }
                self.check_commit(&marks);
            }
            Command::Release(numbers) => {
                for number in &numbers {
                    consumer.readings.remove(number);
                }
                consumer.released.extend(numbers);
            }
            Command::Look | Command::Consult { .. } | Command::Refuse { .. } => {}
        }
    }

    async fn leave(&mut self, _: Instant) {}

    fn last_poll(&self) -> Option<Instant> {
        Some(self.clock.now())
    }
}

impl Scripted {
    /// A commit must not be ahead of any store of this job, in whatever incarnation its metadata names.
    fn check_commit(&self, marks: &[(i32, Offset, String)]) {
        for (number, offset, metadata) in marks {
            let metadata: serde_json::Value = serde_json::from_str(metadata).unwrap();
            let mut world = lock(&self.world);
            let mut stream = world.stream();
            stream.id = metadata["id"].as_str().unwrap().parse().unwrap();
            let partition = Partition { stream, number: *number };
            let ahead = |store: &Store| {
                store.marks().get(&partition).is_none_or(|mark| mark.offset < *offset)
            };
            if self.stores.iter().any(ahead) {
                let what = format!("commit {offset} of {partition} is ahead of a store");
                world.commits_ahead.push(what);
            }
        }
    }
}
