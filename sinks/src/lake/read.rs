//! Reading tables: the files and the marks of one version, for SQL, exports, audits and tests.
//!
//! **Invariant:** files and marks of a [`Snapshot`] are of one version, so the rows of its files are exactly those
//! below its marks. Records that were retried before a mark passed them are named apart: the row is the retry's.
//! **Invariant:** a table is read as a whole or not at all: one whose files need more than reading Parquet
//! (deletion vectors, mapped columns) is refused.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use aion_schemas::log::{Mark, Offset};
use arrow::datatypes::{DataType, Date32Type, Field, Schema, SchemaRef, TimestampMicrosecondType};
use futures::stream::BoxStream;
use object_store::{ObjectStore, path::Path as ObjectPath};
use tokio::sync::Mutex;
use url::Url;
use uuid::Uuid;

use super::{
    StoreOptions,
    actions::{self, Add, Line, Metadata, Protocol, Stats, entry_path},
    clock::{Clock, Moment},
    contract::{DATE_COLUMN, DeltaSchema, arrow_type},
    history::{self, Commit},
    kernel::{self, Engine},
    log::EXPIRED,
    origins,
};
use crate::{sink::SinkError, store::Store};

/// After this long the log is read from its checkpoint again: entries in between may have been cleaned up.
const FRESH: Duration = Duration::from_hours(1);

/// A table to read; cheap to ask again for its newest version.
#[derive(Debug)]
pub struct Table {
    store: Store,
    engine: Arc<Engine>,
    clock: Clock,
    newest: Mutex<Option<(Arc<Snapshot>, Moment)>>,
}

/// A table as of one version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The version.
    pub version: i64,
    /// The columns of the files, without [`DATE_COLUMN`].
    pub schema: SchemaRef,
    /// The files whose rows are the table. A file may lack columns that were added after it was written:
    /// they are null.
    pub files: Vec<Arc<LiveFile>>,
    /// How far the table has each partition, by topic id and partition number.
    pub marks: BTreeMap<(Uuid, i32), Mark>,
    /// Of each partition, the records that the table has by a retry which landed before the mark passed them.
    retried: BTreeMap<(Uuid, i32), BTreeSet<Offset>>,
    /// Retention has taken every row of an event date before this one, in days since 1970.
    pub expired_before: Option<i32>,
}

/// A Parquet file of a table.
#[derive(Clone, Debug)]
pub struct LiveFile {
    /// Where it is in [`Table::objects`].
    pub location: ObjectPath,
    /// Its size in bytes.
    pub size: u64,
    /// When it was added, in milliseconds since 1970.
    pub modified_ms: i64,
    /// The number of its rows, where its writer said so.
    pub rows: Option<u64>,
    /// UTC date of the event time of all its rows, in days since 1970.
    pub date: Option<i32>,
    /// Least and greatest value of whole-number and time columns (microseconds since 1970), where known.
    pub ranges: BTreeMap<String, (i64, i64)>,
    /// Its path as the log states it.
    path: String,
}

impl Table {
    /// Opens the table at `url` (the table's own folder) with the options of its object store.
    pub fn open(url: &Url, options: &StoreOptions) -> Result<Table, SinkError> {
        let store = Store::open(url, options)?;
        let engine = Arc::new(kernel::engine(Arc::clone(store.objects())));
        Ok(Table::new(store, engine))
    }

    pub(super) fn new(store: Store, engine: Arc<Engine>) -> Table {
        Table { store, engine, clock: Clock::default(), newest: Mutex::new(None) }
    }

    /// The table's folder.
    pub fn root(&self) -> &Url {
        self.store.root()
    }

    /// The object store in which the files lie.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(self.store.objects())
    }

    /// The newest version; `None` while there is no table. When nothing was committed since the last call this
    /// is one look for the next log entry; else it reads the entries that came since.
    pub async fn snapshot(&self) -> Result<Option<Arc<Snapshot>>, SinkError> {
        let mut newest = self.newest.lock().await;
        let now = self.clock.now();
        let fresh = newest.take().filter(|(_, read_at)| now.since(*read_at) < FRESH);
        let snapshot = match fresh {
            Some((snapshot, _)) => self.advance(snapshot).await?,
            None => self.load().await?,
        };
        *newest = snapshot.clone().map(|snapshot| (snapshot, now));
        Ok(snapshot)
    }

    /// What each commit up to a version covered, oldest first, as far back as the table's log goes.
    pub fn commits(&self, last: i64) -> BoxStream<'static, Result<Commit, SinkError>> {
        history::commits(self.store.clone(), last)
    }

    async fn load(&self) -> Result<Option<Arc<Snapshot>>, SinkError> {
        if !self.store.has_any("_delta_log").await? {
            return Ok(None);
        }
        let (engine, root) = (Arc::clone(&self.engine), self.store.root().clone());
        let snapshot = super::blocking(move || {
            let opened = kernel::open(&engine, &root)?;
            check_protocol(&root, &opened.protocol)?;
            let files = kernel::files(&engine, &opened)?;
            let schema = schema(&root, &opened.metadata)?;
            let files = files.iter().map(|add| Ok(Arc::new(LiveFile::new(&root, add, &schema)?)));
            let files = files.collect::<Result<Vec<_>, SinkError>>()?;
            let (version, marks) = (opened.version, BTreeMap::new());
            let (retried, expired_before) = (BTreeMap::new(), None);
            let mut snapshot = Snapshot { version, schema, files, marks, retried, expired_before };
            for (app_id, version) in &opened.txns {
                snapshot.apply_txn(app_id, *version);
            }
            Ok(snapshot)
        });
        Ok(Some(Arc::new(snapshot.await?)))
    }

    /// Reads the entries after a snapshot.
    async fn advance(
        &self,
        mut snapshot: Arc<Snapshot>,
    ) -> Result<Option<Arc<Snapshot>>, SinkError> {
        loop {
            let path = entry_path(snapshot.version + 1);
            let Some(bytes) = self.store.get(&path).await? else { return Ok(Some(snapshot)) };
            let lines = actions::parse(&path, &bytes)?;
            if lines.iter().any(|line| line.meta_data.is_some() || line.protocol.is_some()) {
                return self.load().await;
            }
            Arc::make_mut(&mut snapshot).apply(self.store.root(), lines)?;
        }
    }
}

impl Snapshot {
    /// How far the table has a partition; `None` where it has nothing of it.
    pub fn mark(&self, topic_id: Uuid, partition: i32) -> Option<Mark> {
        self.marks.get(&(topic_id, partition)).copied()
    }

    /// The records of a partition that the table has by a retry which landed before the mark passed them, and never as rows
    /// of their own; `None` where there were no such retries.
    pub fn retried(&self, topic_id: Uuid, partition: i32) -> Option<&BTreeSet<Offset>> {
        self.retried.get(&(topic_id, partition))
    }

    /// The number of rows, where every file says its own.
    pub fn rows(&self) -> Option<u64> {
        self.files.iter().map(|file| file.rows).sum()
    }

    fn apply(&mut self, root: &Url, lines: Vec<Line>) -> Result<(), SinkError> {
        // Also what is added: a path that is there already is being described anew.
        let path = |line: &Line| match (&line.remove, &line.add) {
            (Some(remove), _) => Some(remove.path.clone()),
            (_, Some(add)) => Some(add.path.clone()),
            _ => None,
        };
        let named: HashSet<String> = lines.iter().filter_map(path).collect();
        if !named.is_empty() {
            self.files.retain(|file| !named.contains(&file.path));
        }
        for line in lines {
            if let Some(add) = line.add {
                self.files.push(Arc::new(LiveFile::new(root, &add, &self.schema)?));
            }
            if let Some(txn) = line.txn {
                self.apply_txn(&txn.app_id, txn.version);
            }
        }
        self.version += 1;
        Ok(())
    }

    /// `<topic id>/<partition>` is an offset, `<topic id>/<partition>/epoch` its leader epoch,
    /// `<topic id>/<partition>/retried/<offset>` that offset again, [`EXPIRED`] a day; others are not ours.
    fn apply_txn(&mut self, app_id: &str, version: i64) {
        if app_id == EXPIRED {
            self.expired_before = i32::try_from(version).ok();
            return;
        }
        if let Some((partition, offset)) = origins::retried_of(app_id) {
            let retried = self.retried.entry(partition).or_default();
            // A mark that was set back has taken it back.
            if version == offset.get() {
                retried.insert(offset);
            } else {
                retried.remove(&offset);
            }
            return;
        }
        let (partition, is_epoch) = match app_id.strip_suffix("/epoch") {
            Some(partition) => (partition_of(partition), true),
            None => (partition_of(app_id), false),
        };
        let Some(partition) = partition else { return };
        let mark = self.marks.entry(partition).or_insert(Mark::at(Offset::ZERO));
        if is_epoch {
            mark.epoch = version as i32;
        } else {
            mark.offset = Offset(version);
        }
    }
}

/// The topic id and partition whose next offset stands under an application transaction; `None` for all others.
pub(super) fn partition_of(app_id: &str) -> Option<(Uuid, i32)> {
    let (id, number) = app_id.split_once('/')?;
    Some((Uuid::parse_str(id).ok()?, number.parse().ok()?))
}

impl LiveFile {
    fn new(root: &Url, add: &Add, schema: &Schema) -> Result<LiveFile, SinkError> {
        if add.deletion_vector.is_some() {
            return Err(unreadable(root, "files with deletion vectors"));
        }
        let stats: Stats =
            add.stats.as_deref().and_then(|s| serde_json::from_str(s).ok()).unwrap_or_default();
        let location = root.join(&add.path).ok();
        let location = location.and_then(|url| ObjectPath::from_url_path(url.path()).ok());
        let location = location.ok_or_else(|| unreadable(root, &format!("file {}", add.path)))?;
        let date = add.partition_values.get(DATE_COLUMN).and_then(Option::as_deref);
        Ok(LiveFile {
            location,
            size: add.size.max(0) as u64,
            modified_ms: add.modification_time,
            rows: stats.num_records,
            date: date.and_then(<Date32Type as arrow::compute::kernels::cast_utils::Parser>::parse),
            ranges: ranges(&stats, schema),
            path: add.path.clone(),
        })
    }
}

fn ranges(stats: &Stats, schema: &Schema) -> BTreeMap<String, (i64, i64)> {
    let number = |name: &str, value: &serde_json::Value, up: bool| {
        match schema.field_with_name(name).ok()?.data_type() {
            DataType::Int32 | DataType::Int64 => value.as_i64(),
            DataType::Timestamp(_, _) => {
                use arrow::compute::kernels::cast_utils::Parser;
                let text = value.as_str()?;
                // Some writers cut times to milliseconds.
                let slack = if up { 999 } else { 0 };
                Some(TimestampMicrosecondType::parse(text)?.saturating_add(slack))
            }
            _ => None,
        }
    };
    let pairs = stats.min_values.iter().filter_map(|(name, low)| {
        let high = stats.max_values.get(name)?;
        Some((name.clone(), (number(name, low, false)?, number(name, high, true)?)))
    });
    pairs.collect()
}

fn schema(root: &Url, metadata: &Metadata) -> Result<SchemaRef, SinkError> {
    let mode = metadata.configuration.get("delta.columnMapping.mode");
    if mode.is_some_and(|mode| mode != "none") {
        return Err(unreadable(root, "mapped column names"));
    }
    let fields = DeltaSchema::parse(metadata)?.fields.into_iter();
    let fields = fields.filter(|field| !metadata.partition_columns.contains(&field.name));
    let fields = fields.map(|field| match arrow_type(&field.kind) {
        Some(data_type) => Ok(Field::new(&field.name, data_type, field.nullable)),
        None => Err(unreadable(root, &format!("column {} of type {}", field.name, field.kind))),
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>, _>>()?)))
}

fn check_protocol(root: &Url, protocol: &Protocol) -> Result<(), SinkError> {
    let features = protocol.reader_features.as_deref().unwrap_or_default();
    match features.first() {
        None if protocol.min_reader_version <= 1 || protocol.min_reader_version == 3 => Ok(()),
        None => Err(unreadable(root, &format!("reader {}", protocol.min_reader_version))),
        Some(feature) => Err(unreadable(root, feature)),
    }
}

fn unreadable(root: &Url, what: &str) -> SinkError {
    SinkError::Fatal {
        doing: format!("read the table at {root}"),
        cause: format!("it has {what}, which isn't known here"),
        hint: "read it with another engine, or upgrade".to_owned(),
    }
}
