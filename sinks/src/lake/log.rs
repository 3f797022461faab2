//! What a writer knows of a table's log: the version it has read, every mark as of that version, the table's rules.
//!
//! **Invariant:** `txns` is exactly what the entries up to `version` say. It changes only by reading an
//! entry, by an own put that surely landed, or by reading the log anew from its last checkpoint.
//! **Invariant:** a log that was last looked at more than [`FRESH`] ago is read anew: clean-up may have
//! removed the entries in between, and then a version number that was used looks free.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use aion_schemas::log::{Mark, Marks, Offset, Partition};
use uuid::Uuid;

use super::{
    Settings,
    actions::{self, Add, Line, Metadata, Txn, entry_path},
    clock::{Clock, Moment},
    contract::{Contract, Rules},
    kernel::{self, Engine},
    origins,
};
use crate::{
    sink::SinkError,
    store::{Put, Store},
};

/// How long what was read of a log may be relied on without reading it anew.
const FRESH: Duration = Duration::from_hours(1);

/// A put that took longer than this may have outlived what was known before it.
pub(crate) const SLOW_PUT: Duration = Duration::from_mins(1);

/// One table as its writer sees it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) store: Store,
    pub(crate) engine: Arc<Engine>,
    pub(crate) contract: Contract,
    pub(crate) settings: Settings,
    /// Whether columns that the table lacks are added to it; else they are only missing.
    pub(crate) adds_columns: bool,
    pub(crate) clock: Clock,
    /// Whether a checkpoint is being made.
    pub(crate) checkpointing: AtomicBool,
}

/// The state of a table's log as of one version.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) table: Arc<Table>,
    /// The table's own id, given when it was made.
    pub(crate) table_id: String,
    /// The newest version read.
    pub(crate) version: i64,
    /// The version of the newest checkpoint known; -1 without one.
    pub(crate) checkpoint: i64,
    /// What the table says of its upkeep.
    pub(crate) rules: Rules,
    /// Files that entries read or put since have added, while somebody wants to know.
    pub(crate) added: Option<Vec<Add>>,
    txns: BTreeMap<String, i64>,
    read_at: Moment,
}

/// An application transaction that is to have another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) app_id: String,
    /// `None` where there is none yet.
    pub(crate) before: Option<i64>,
    pub(crate) after: i64,
}

/// Under this application transaction stands the day, since 1970, before which retention has taken every row by its
/// event date. A transaction, so that checkpoints keep it.
pub(crate) const EXPIRED: &str = "aion/expired";

impl Change {
    /// The change that undoes this one; a transaction that was new can't be taken back.
    pub(crate) fn back(&self) -> Option<Change> {
        let after = self.before?;
        Some(Change { app_id: self.app_id.clone(), before: Some(self.after), after })
    }
}

/// What reading the next entry found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is none yet.
    None,
    /// An entry, with the uuid that its writer gave it.
    Entry(Option<String>),
}

impl Log {
    /// Opens a table, making it where there is none and adding columns that it lacks.
    pub(crate) async fn open(mut table: Arc<Table>) -> Result<Log, SinkError> {
        if !table.store.has_any("_delta_log").await? {
            create(&table).await?;
        }
        loop {
            let read_at = table.clock.now();
            let opened = read(&table).await?;
            table.contract.check_protocol(&opened.protocol)?;
            let widened = table.contract.check_metadata(&opened.metadata)?;
            let log = Log {
                table_id: opened.metadata.id.clone(),
                version: opened.version,
                checkpoint: opened.checkpoint,
                rules: Rules::of(&opened.metadata),
                added: None,
                txns: opened.txns,
                read_at,
                table,
            };
            let Some(widened) = widened.filter(|_| log.table.adds_columns) else {
                return Ok(log);
            };
            log.widen(widened).await?;
            table = log.table;
        }
    }

    /// Reads the log anew from its last checkpoint.
    pub(crate) async fn reopen(&mut self) -> Result<(), SinkError> {
        *self = Log::open(Arc::clone(&self.table)).await?;
        Ok(())
    }

    /// Reads every entry that came since.
    pub(crate) async fn refresh(&mut self) -> Result<(), SinkError> {
        if self.is_stale() {
            return self.reopen().await;
        }
        while self.read_next().await? != Next::None {}
        Ok(())
    }

    /// Whether what was read is too old to rely on.
    pub(crate) fn is_stale(&self) -> bool {
        #[cfg(feature = "testing")]
        if self.table.store.rig.is_off(super::testing::Protection::Relist) {
            return false;
        }
        self.table.clock.now().since(self.read_at) > FRESH
    }

    /// Reads the entry after the newest one read.
    pub(crate) async fn read_next(&mut self) -> Result<Next, SinkError> {
        Ok(match self.read_lines().await? {
            Some(lines) => Next::Entry(actions::writer_id(&lines)),
            None => Next::None,
        })
    }

    /// Reads the entry after the newest one read, and gives what is in it; `None` if there is none yet.
    pub(crate) async fn read_lines(&mut self) -> Result<Option<Vec<Line>>, SinkError> {
        let path = entry_path(self.version + 1);
        let read_at = self.table.clock.now();
        let Some(bytes) = self.table.store.get(&path).await? else {
            self.read_at = read_at;
            return Ok(None);
        };
        let lines = actions::parse(&path, &bytes)?;
        lines.iter().try_for_each(|line| self.apply(line))?;
        self.version += 1;
        self.read_at = read_at;
        Ok(Some(lines))
    }

    /// Takes over an own entry that was put as the next version at `put_at`.
    pub(crate) fn apply_own(&mut self, lines: &[Line], put_at: Moment) -> Result<(), SinkError> {
        lines.iter().try_for_each(|line| self.apply(line))?;
        self.version += 1;
        self.read_at = put_at;
        Ok(())
    }

    /// The next offset wanted of a partition of a topic that goes by its id alone.
    pub(crate) fn next(&self, topic_id: Uuid, partition: i32) -> Option<Offset> {
        self.txns.get(&format!("{topic_id}/{partition}")).copied().map(Offset)
    }

    /// Offsets from `from` on whose records were retried before the mark passed them.
    pub(crate) fn overtaken(&self, partition: &Partition, from: Offset) -> BTreeSet<i64> {
        let prefix = origins::retried(partition.stream.id, partition.number);
        let under = self.txns.range(prefix.clone()..).take_while(|(id, _)| id.starts_with(&prefix));
        under.map(|(_, offset)| *offset).filter(|offset| *offset >= from.get()).collect()
    }

    /// The mark of a partition.
    pub(crate) fn mark(&self, partition: &Partition) -> Option<Mark> {
        let offset = Offset(*self.txns.get(&partition.key())?);
        Some(Mark { offset, epoch: self.epoch(partition) })
    }

    /// The transactions that move marks: the next offset under `<topic id>/<partition>`, and the leader
    /// epoch, as a [`Mark`] has it, under `<topic id>/<partition>/epoch` where it changes. Both are application transactions, so
    /// that checkpoints keep them; anything in `commitInfo` goes when the log is cleaned.
    pub(crate) fn txns(&self, marks: &Marks) -> Vec<Line> {
        let mut lines = Vec::new();
        for (partition, mark) in marks {
            lines.push(txn(partition.key(), mark.offset.get()));
            if mark.epoch != self.epoch(partition) {
                lines.push(txn(epoch_key(partition), i64::from(mark.epoch)));
            }
        }
        lines
    }

    /// Whether a transaction has the version that a change begins with.
    pub(crate) fn stands(&self, change: &Change) -> bool {
        self.txns.get(&change.app_id).copied() == change.before
    }

    /// What says that retention has taken the rows of every day before this one.
    pub(crate) fn expire(&self, first_kept: i32) -> Option<Change> {
        let before = self.txns.get(EXPIRED).copied();
        let after = i64::from(first_kept);
        let is_later = before.is_none_or(|before| before < after);
        is_later.then(|| Change { app_id: EXPIRED.to_owned(), before, after })
    }

    /// What sets a partition's mark back to an offset. Nothing is known of the epoch before it, and no record from
    /// there on counts as retried any more.
    pub(crate) fn set_back(&self, partition: &Partition, to: Offset) -> Vec<Change> {
        let prefix = origins::retried(partition.stream.id, partition.number);
        let retried = self.txns.range(prefix.clone()..);
        let retried = retried.take_while(|(id, _)| id.starts_with(&prefix));
        let retried = retried.filter(|(_, at)| **at >= to.get());
        let mark = (partition.key(), to.get());
        let marks = [mark, (epoch_key(partition), -1)].into_iter();
        let all = marks.chain(retried.map(|(id, _)| (id.clone(), -1)));
        all.filter_map(|(app_id, after)| {
            let before = *self.txns.get(&app_id)?;
            (before != after).then_some(Change { app_id, before: Some(before), after })
        })
        .collect()
    }

    fn epoch(&self, partition: &Partition) -> i32 {
        self.txns.get(&epoch_key(partition)).map_or(-1, |epoch| *epoch as i32)
    }

    fn apply(&mut self, line: &Line) -> Result<(), SinkError> {
        if let Some(txn) = &line.txn {
            self.txns.insert(txn.app_id.clone(), txn.version);
        }
        if let (Some(added), Some(add)) = (&mut self.added, &line.add) {
            added.push(add.clone());
        }
        #[cfg(feature = "testing")]
        if self.table.store.rig.is_off(super::testing::Protection::Rules) {
            return Ok(());
        }
        if let Some(protocol) = &line.protocol {
            self.table.contract.check_protocol(protocol)?;
        }
        if let Some(metadata) = &line.meta_data {
            self.check_metadata(metadata)?;
        }
        Ok(())
    }

    fn check_metadata(&mut self, metadata: &Metadata) -> Result<(), SinkError> {
        self.rules = Rules::of(metadata);
        match self.table.contract.check_metadata(metadata)? {
            None => Ok(()),
            Some(_) if !self.table.adds_columns => Ok(()),
            Some(_) => Err(SinkError::Fatal {
                doing: format!("write table {}", self.table.contract.spec.name),
                cause: "columns of it were dropped while it was written".to_owned(),
                hint: "restart to add them again".to_owned(),
            }),
        }
    }

    /// Adds columns. Whoever else puts the next entry first, the caller looks again.
    async fn widen(&self, metadata: Metadata) -> Result<(), SinkError> {
        let lines = [
            actions::commit_info(Uuid::new_v4(), "ADD COLUMNS", &[]),
            Line { meta_data: Some(metadata), ..Line::default() },
        ];
        let bytes = actions::to_bytes(&lines)?;
        self.table.store.put_entry(&entry_path(self.version + 1), bytes).await?;
        Ok(())
    }
}

/// Makes the table; another process doing so at the same time is as good.
async fn create(table: &Table) -> Result<(), SinkError> {
    let lines = [
        actions::commit_info(Uuid::new_v4(), "CREATE TABLE", &[]),
        Line { protocol: Some(Contract::protocol()), ..Line::default() },
        Line { meta_data: Some(table.contract.metadata()), ..Line::default() },
    ];
    table.store.prepare().await?;
    match table.store.put_entry(&entry_path(0), actions::to_bytes(&lines)?).await? {
        Put::Created | Put::Exists => Ok(()),
    }
}

async fn read(table: &Arc<Table>) -> Result<kernel::Opened, SinkError> {
    let table = Arc::clone(table);
    super::blocking(move || kernel::open(&table.engine, table.store.root())).await
}

fn txn(app_id: String, version: i64) -> Line {
    Line { txn: Some(Txn { app_id, version }), ..Line::default() }
}

fn epoch_key(partition: &Partition) -> String {
    format!("{}/epoch", partition.key())
}
