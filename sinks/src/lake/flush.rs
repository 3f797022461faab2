//! One flush: encode, put the files, put the log entry, and know for sure what became of it.
//!
//! | before the put | after it | the entry read at that version | outcome |
//! |---|---|---|---|
//! | a mark isn't the one that our rows follow | | | moved: those rows are dropped, the rest is encoded anew |
//! | the files may be vacuumed by now | | | encoded anew |
//! | what it retries is stored by now | | | encoded anew, without it |
//! | | created | | committed |
//! | | exists | has our uuid: an earlier try landed | committed |
//! | | exists | another's | its marks are taken over, then from the top |
//! | | exists | gone: cleaned up meanwhile | the log is read anew, then from the top |
//! | | an error | | nothing is known: the same entry is tried again later |
//!
//! **Invariant:** a batch is dropped only after its rows are in the log, or when another writer moved its mark.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aion_schemas::log::{Marks, Offset, Partition};
use uuid::Uuid;

use super::{
    actions::{self, Add, Covered, Line, Remove, entry_path, wall_clock_ms},
    clock::Moment,
    encode::Waiting,
    kernel,
    log::{Log, Next, SLOW_PUT},
    origins::Origins,
};
use crate::{buffer::Chunks, fault, sink::SinkError, store::Put};

/// Batches on their way into the log.
#[derive(Debug, Default)]
pub(crate) struct Flush {
    chunks: Chunks,
    entry: Option<Box<Entry>>,
}

/// An encoded log entry, whose files are stored.
#[derive(Debug)]
struct Entry {
    id: Uuid,
    /// The marks that the rows follow.
    first: BTreeMap<Partition, Option<Offset>>,
    marks: Marks,
    /// What the entry says that it covers.
    covered: BTreeMap<String, Covered>,
    adds: Vec<Add>,
    removes: Vec<Remove>,
    /// Which rows are not in the files, since they are stored.
    origins: Origins,
    /// No file is older than this.
    written: Moment,
    first_put: Option<Moment>,
    /// The version under which it is known to stand.
    landed: Option<i64>,
}

/// What a flush came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) log: Log,
    /// What is left to do after an error.
    pub(crate) rest: Flush,
    pub(crate) marks: Marks,
    pub(crate) moved: Vec<Partition>,
    pub(crate) error: Option<SinkError>,
}

enum Outcome {
    Committed,
    Moved(Vec<Partition>),
    /// The entry can't be used any more; its rows are encoded anew.
    Void,
}

impl Flush {
    /// A flush of these batches.
    pub(crate) fn new(chunks: Chunks) -> Flush {
        Flush { chunks, entry: None }
    }

    /// Whether there is nothing left to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The bytes held against the budget.
    pub(crate) fn bytes(&self) -> usize {
        crate::buffer::bytes(&self.chunks)
    }

    /// Drops the batches of partitions for which `keep` says no.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Partition) -> bool) {
        let before = self.chunks.len();
        self.chunks.retain(|partition, _| keep(partition));
        if self.chunks.len() < before {
            self.entry = None; // its files hold rows of several partitions
        }
    }

    /// Writes entries until nothing is left, or until something fails.
    pub(crate) async fn run(mut self, mut log: Log) -> Done {
        let (mut marks, mut moved) = (Marks::new(), Vec::new());
        let mut error = None;
        while !self.chunks.is_empty() && error.is_none() {
            match self.step(&mut log).await {
                Ok(Outcome::Committed) => self.settle(&mut marks),
                Ok(Outcome::Moved(partitions)) => {
                    self.retain(|partition| !partitions.contains(partition));
                    moved.extend(partitions);
                }
                Ok(Outcome::Void) => self.entry = None,
                Err(e) => error = Some(e),
            }
        }
        Done { log, rest: self, marks, moved, error }
    }

    async fn step(&mut self, log: &mut Log) -> Result<Outcome, SinkError> {
        let entry = match &mut self.entry {
            Some(entry) => entry,
            none => none.insert(Box::new(Entry::write(log, &self.chunks).await?)),
        };
        if entry.landed.is_none() {
            match entry.put(log).await? {
                Outcome::Committed => {}
                other => return Ok(other),
            }
        }
        entry.verify(log, &self.chunks).await
    }

    fn settle(&mut self, marks: &mut Marks) {
        let Some(entry) = self.entry.take() else { return };
        for (partition, mark) in &entry.marks {
            if let Some(chunk) = self.chunks.get_mut(partition) {
                chunk.settle(*mark);
            }
        }
        self.chunks.retain(|_, chunk| !chunk.batches.is_empty());
        marks.extend(entry.marks);
    }
}

impl Entry {
    /// Encodes the next entry's share of the batches and stores its files.
    async fn write(log: &mut Log, chunks: &Chunks) -> Result<Entry, SinkError> {
        let origins = Origins::look(log, chunks).await?;
        Entry::encode(log, chunks, origins).await
    }

    async fn encode(log: &Log, chunks: &Chunks, origins: Origins) -> Result<Entry, SinkError> {
        let table = Arc::clone(&log.table);
        let written = table.clock.now();
        let waiting = Waiting::of(chunks);
        let (encoding, skipped) = (Arc::clone(&table), origins.clone());
        let ((marks, covered), files) = super::blocking(move || {
            let spec = &encoding.contract.spec;
            let plan = waiting.plan(spec, encoding.settings.max_dates, &skipped)?;
            let files = plan.encode(spec)?;
            Ok(((plan.marks, plan.covered), files))
        })
        .await?;
        let mut adds = Vec::with_capacity(files.len());
        let mut bytes = Vec::with_capacity(files.len());
        let mut held = Vec::with_capacity(files.len());
        for file in files {
            bytes.push((file.add.path.clone(), file.bytes));
            adds.push(file.add);
            held.push(file.memory);
        }
        if !bytes.is_empty() {
            table.store.put_files(bytes).await?;
        }
        drop(held);
        fault::point("lake.before_commit");
        let first = marks.keys().map(|partition| {
            let after = chunks.get(partition).and_then(|chunk| chunk.after);
            (partition.clone(), after.map(|mark| mark.offset))
        });
        let first = first.collect();
        Ok(Entry { first, marks, covered, adds, origins, ..Entry::bare(written) })
    }

    fn bare(written: Moment) -> Entry {
        Entry {
            id: Uuid::new_v4(),
            first: BTreeMap::new(),
            marks: Marks::new(),
            covered: BTreeMap::new(),
            adds: Vec::new(),
            removes: Vec::new(),
            origins: Origins::default(),
            written,
            first_put: None,
            landed: None,
        }
    }

    /// Puts the entry as the version after the newest; see the table above.
    async fn put(&mut self, log: &mut Log) -> Result<Outcome, SinkError> {
        loop {
            if log.is_stale() {
                log.reopen().await?;
            }
            let moved = self.moved(log);
            if !moved.is_empty() {
                return Ok(Outcome::Moved(moved));
            }
            if self.is_old(log) || self.origins.are_forestalled(log, &self.first).await? {
                return Ok(Outcome::Void);
            }
            let put_at = log.table.clock.now();
            self.first_put.get_or_insert(put_at);
            let lines = self.lines(log);
            let path = entry_path(log.version + 1);
            match log.table.store.put_entry(&path, actions::to_bytes(&lines)?).await? {
                Put::Created => {
                    fault::point("lake.after_commit");
                    log.apply_own(&lines, put_at)?;
                    self.landed = Some(log.version);
                    return Ok(Outcome::Committed);
                }
                Put::Exists => match log.read_next().await? {
                    Next::None => log.reopen().await?,
                    Next::Entry(id) if self.is_ours(id.as_deref(), log) => {
                        self.landed = Some(log.version);
                        return Ok(Outcome::Committed);
                    }
                    Next::Entry(_) => log.refresh().await?,
                },
            }
        }
    }

    /// The partitions whose mark another writer has moved.
    fn moved(&self, log: &Log) -> Vec<Partition> {
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(super::testing::Protection::Marks) {
            return Vec::new();
        }
        let offset = |partition| log.mark(partition).map(|mark| mark.offset);
        let moved = self.first.iter().filter(|(partition, first)| offset(partition) != **first);
        moved.map(|(partition, _)| partition.clone()).collect()
    }

    /// Whether vacuum may have removed the files, which no version uses so far.
    fn is_old(&self, log: &Log) -> bool {
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(super::testing::Protection::FileAge) {
            return false;
        }
        log.table.clock.now().since(self.written) > log.rules.retention / 2
    }

    /// Whether the entry that was just read is ours.
    fn is_ours(&self, id: Option<&str>, log: &Log) -> bool {
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(super::testing::Protection::OwnEntry) {
            return self.marks.iter().any(|(partition, mark)| log.mark(partition) == Some(*mark));
        }
        let _ = log;
        id.is_some_and(|id| id == self.id.to_string())
    }

    fn lines(&self, log: &Log) -> Vec<Line> {
        let operation = if self.removes.is_empty() { "STREAMING UPDATE" } else { "RESTORE FILES" };
        let mut info = actions::commit_info(self.id, operation, &[("outputMode", "Append")]);
        if let Some(info) = &mut info.commit_info {
            info.is_blind_append &= !self.origins.any_lands();
            info.covered.clone_from(&self.covered);
        }
        let mut lines = vec![info];
        lines.extend(log.txns(&self.marks));
        lines.extend(self.origins.txns(log));
        lines.extend(
            self.removes.iter().map(|r| Line { remove: Some(r.clone()), ..Line::default() }),
        );
        lines
            .extend(self.adds.iter().map(|add| Line { add: Some(add.clone()), ..Line::default() }));
        lines
    }

    /// After a put that took long: the version's number may have been used, cleaned up and freed before, and
    /// the files may be gone. Then it isn't what it seems.
    async fn verify(&mut self, log: &mut Log, chunks: &Chunks) -> Result<Outcome, SinkError> {
        let now = log.table.clock.now();
        let took = self.first_put.map_or(Duration::ZERO, |put| now.since(put));
        #[cfg(feature = "testing")]
        if log.table.store.rig.is_off(super::testing::Protection::SlowPut) {
            return Ok(Outcome::Committed);
        }
        if took <= SLOW_PUT {
            return Ok(Outcome::Committed);
        }
        log.reopen().await?;
        if self.landed.is_some_and(|version| version <= log.checkpoint) {
            // The checkpoint may have been made without it. Its marks tell: at the next try, either
            // they are still those that our rows follow, or they have moved and the rows are dropped.
            return Ok(Outcome::Void);
        }
        let missing = self.missing_files(log).await?;
        if !missing.is_empty() {
            self.restore(log, chunks, missing).await?;
        }
        Ok(Outcome::Committed)
    }

    /// Files of ours that the table counts on and that are gone.
    async fn missing_files(&self, log: &Log) -> Result<Vec<Add>, SinkError> {
        let table = Arc::clone(&log.table);
        let live: BTreeSet<String> = super::blocking(move || {
            let opened = kernel::open(&table.engine, table.store.root())?;
            let files = kernel::files(&table.engine, &opened)?;
            Ok(files.into_iter().map(|file| file.path).collect())
        })
        .await?;
        let mut missing = Vec::new();
        for add in &self.adds {
            if live.contains(&add.path) && !log.table.store.exists(&add.path).await? {
                missing.push(add.clone());
            }
        }
        Ok(missing)
    }

    /// Replaces files of this entry by others with the same rows, encoded anew from the batches that are
    /// still here: the same batches make the same division by date.
    async fn restore(
        &self,
        log: &mut Log,
        chunks: &Chunks,
        missing: Vec<Add>,
    ) -> Result<(), SinkError> {
        let origins = self.origins.clone();
        tracing::warn!(
            files = missing.len(),
            "files vanished during a long put; writing them anew"
        );
        let mut again = Entry::encode(log, chunks, origins).await?;
        let is_missing =
            |new: &Add| missing.iter().any(|old| old.partition_values == new.partition_values);
        again.adds.retain(is_missing);
        for add in &mut again.adds {
            add.data_change = false;
        }
        let removes = missing.into_iter().map(|add| Remove {
            path: add.path,
            deletion_timestamp: Some(wall_clock_ms()),
            data_change: false,
        });
        let (adds, removes) = (again.adds, removes.collect());
        let mut repair = Entry { adds, removes, ..Entry::bare(again.written) };
        match repair.put(log).await? {
            Outcome::Committed => Ok(()),
            Outcome::Moved(_) | Outcome::Void => Err(SinkError::Retry {
                doing: "restore files that vanished".to_owned(),
                cause: "the new ones grew old meanwhile".to_owned(),
            }),
        }
    }
}
