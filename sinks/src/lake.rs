//! The lake: one Delta Lake table of Parquet files for each topic, readable by every engine that knows Delta.
//!
//! | module | what it is |
//! |---|---|
//! | `sink` | [`LakeSink`]: buffers, one flush on its way |
//! | `flush` | encode, put files, put the log entry, know what became of it |
//! | `encode` | rows to Parquet, one file for each event date |
//! | `origins`, `peek` | retries: which of them are stored already |
//! | `log` | what a writer knows of the table's log: version, marks, rules |
//! | `actions` | the lines of a log entry |
//! | `contract` | what a table must look like for this writer |
//! | `checkpoint`, `kernel` | checkpoints and opening, through the Delta kernel |
//! | [`read`] | snapshots for readers: version, files, marks |
//! | [`history`] | what each commit covered, for readers |
//! | [`upkeep`] | compaction, retention, checkpoints, vacuum, clean-up of the log |
//! | `testing` | what tests do to a writer (feature `testing`) |
//!
//! A flush is one log entry: the files, and for each Kafka partition an application transaction
//! `<topic id>/<partition>` with the next wanted offset as its version. The entry is put only if its version is free,
//! and only after the writer has seen that each mark is the one that its rows follow. So rows and marks land together
//! or not at all, and a writer that slept can't land what its successor has.
//!
//! **Invariant:** the format is Delta's in full; its optimizer, vacuum and writers of this kind can work on one table.
//! Only the commit loop is ours, because no library checks that a mark is the expected one.

use std::{sync::Arc, time::Duration};

use object_store::ObjectStore;
use url::Url;

pub use crate::store::StoreOptions;
use crate::{
    sink::SinkError,
    store::{self, Store},
};

mod actions;
mod checkpoint;
mod clock;
mod contract;
mod encode;
mod flush;
pub mod history;
mod kernel;
mod log;
mod origins;
mod peek;
pub mod read;
mod sink;
#[cfg(feature = "testing")]
pub mod testing;
pub mod upkeep;

pub(crate) use clock::{Clock, Moment};
pub use contract::{DATE_COLUMN, TableSpec};
pub use sink::LakeSink;

/// The limits of one table's sink.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A flush is due when this many bytes of decoded rows wait.
    pub flush_bytes: usize,
    /// A flush is due when the first row has waited this long.
    pub flush_age: Duration,
    /// Above this many bytes held, waiting or on their way, batches are handed back.
    pub hold_bytes: usize,
    /// At most this many event dates, so files, in one log entry; rows of further dates go into the next.
    pub max_dates: usize,
    /// A checkpoint after this many log entries.
    pub checkpoint_every: usize,
    /// How long `assign` waits for a flush that is under way.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            flush_bytes: 64 << 20,
            flush_age: Duration::from_secs(30),
            hold_bytes: 192 << 20,
            max_dates: 64,
            checkpoint_every: 100,
            patience: Duration::from_mins(1),
        }
    }
}

/// A place that holds tables, each in a folder of its name.
#[derive(Clone, Debug)]
pub struct Lake {
    root: Url,
    objects: Arc<dyn ObjectStore>,
    engine: Arc<kernel::Engine>,
}

impl Lake {
    /// Opens the lake at `url`: `file:///path`, or an object store with its `options`. Nothing is read yet.
    pub fn open(url: &Url, options: &StoreOptions) -> Result<Lake, SinkError> {
        Ok(Lake::over(url, store::object_store(url, options)?))
    }

    /// Opens the lake at `url` over an object store that was opened before.
    pub fn over(url: &Url, objects: Arc<dyn ObjectStore>) -> Lake {
        let mut root = url.clone();
        if !root.path().ends_with('/') {
            root.set_path(&format!("{}/", url.path()));
        }
        let engine = Arc::new(kernel::engine(Arc::clone(&objects)));
        Lake { root, objects, engine }
    }

    /// Opens the sink of a table. Makes the table where there is none, adds columns that it lacks, and refuses
    /// it when it can't be written safely.
    pub async fn sink(&self, spec: TableSpec, settings: Settings) -> Result<LakeSink, SinkError> {
        let table = self.writer_of(spec, settings, true)?;
        let mut log = log::Log::open(Arc::clone(&table)).await?;
        checkpoint::start_if_due(&mut log);
        Ok(LakeSink::new(table, log))
    }

    /// Makes sure that of two writers who put an object of the same name only one succeeds: all that a table's log
    /// rests on. A folder's file system is known by its errors.
    pub async fn probe(&self) -> Result<(), SinkError> {
        Store::new(&self.root, Arc::clone(&self.objects))?.probe().await
    }

    /// The table of that name, for reading; it need not exist yet.
    pub fn table(&self, name: &str) -> Result<read::Table, SinkError> {
        Ok(read::Table::new(self.store(name)?, Arc::clone(&self.engine)))
    }

    /// A folder beside the tables, for what belongs to the lake and is no table.
    pub(crate) fn beside(&self, folder: &str) -> Result<Store, SinkError> {
        let root = self.root.join(&format!("{folder}/")).map_err(|e| SinkError::Fatal {
            doing: format!("open folder {folder} of the lake at {}", self.root),
            cause: e.to_string(),
            hint: "use letters, digits, '_', '-' and '.'".to_owned(),
        })?;
        Store::new(&root, Arc::clone(&self.objects))
    }

    /// A table as those see it who change it.
    fn writer_of(
        &self,
        spec: TableSpec,
        settings: Settings,
        adds_columns: bool,
    ) -> Result<Arc<log::Table>, SinkError> {
        let store = self.store(&spec.name)?;
        Ok(Arc::new(log::Table {
            #[cfg(feature = "testing")]
            clock: store.rig.clock.clone(),
            #[cfg(not(feature = "testing"))]
            clock: clock::Clock::default(),
            store,
            engine: Arc::clone(&self.engine),
            contract: contract::Contract::new(spec)?,
            settings,
            adds_columns,
            checkpointing: false.into(),
        }))
    }

    fn store(&self, name: &str) -> Result<Store, SinkError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let named = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
        let root = self.root.join(&format!("{name}/")).ok().filter(|_| named);
        let root = root.ok_or_else(|| SinkError::Fatal {
            doing: format!("open table {name:?} of the lake at {}", self.root),
            cause: "the name can't be a folder's".to_owned(),
            hint: "use letters, digits, '_', '-' and '.'".to_owned(),
        })?;
        Store::new(&root, Arc::clone(&self.objects))
    }
}

/// Runs what computes or blocks away from the tasks of the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|e| {
        Err(SinkError::Fatal {
            doing: "work on the lake".to_owned(),
            cause: e.to_string(),
            hint: "this is a fault of the program, please report it".to_owned(),
        })
    })
}
