//! The engine: opens a lake once, then plans and runs any number of queries at the same time.
//!
//! A query runs on the engine's own threads, so that it can't starve whoever asks, and within these
//! bounds: bytes of memory (shared by all queries of the engine, beyond which sorts, joins and
//! groups spill to a bounded temporary folder), time, a number of queries at once, and read-only plans.
//!
//! Beside jobs those threads give way, by [`Settings::on_thread`]: they get what others leave of the processors.

mod allowed;
mod answer;
mod conditions;
mod depth;
mod query;
mod repeated;
mod spill;
mod watched;

use std::{fmt, future::ready, sync::Arc, time::Duration};

use aion_schemas::catalog::Catalog;
use aion_sinks::lake::{StoreOptions, read::Snapshot};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    config::ConfigNonZeroUsize,
    error::{DataFusionError, Result as PlanResult},
    execution::{
        FunctionRegistry, SessionState, SessionStateBuilder,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::SessionConfig,
};
use futures::{FutureExt, future::BoxFuture};
use tokio::{runtime::Runtime, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::{allowed::Allowed, answer::Answer, spill::clear as clear_temporary_files};
use self::{conditions::Failures, query::Query};
use crate::{
    control::{Outside, Told, exports::Export, schemas::SchemaText},
    error::{Asker, Bounds, Error},
    holdings::Holdings,
    lag::LogEnds,
    lake::Lake,
    memory::{FILES_AT_ONCE, Limits, Makings, Pool, Sorting},
    parameters::Parameters,
    postgres::catalog,
    stored::Sources,
    tables::{CATALOG, SCHEMA, TableInfo, Tables},
    tail::Tail,
};

/// Where the lake is, and what queries may use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder (`file://`) or object store that holds one Delta table per topic.
    pub lake_url: Url,
    /// The options of its object store.
    pub lake_options: StoreOptions,
    /// The topics and schemas.
    pub catalog: Arc<Catalog>,
    /// Memory that all queries together may hold.
    pub memory_bytes: usize,
    /// Temporary files that all queries together may hold.
    pub spill_bytes: u64,
    /// Threads that queries run on.
    pub threads: usize,
    /// How long one query may take, until its last row is taken.
    pub deadline: Duration,
    /// Queries that run at a time; others wait, within their own time.
    pub queries: usize,
    /// Whose queries they are: errors say where more is allowed, and exports take fewer rows at once.
    pub asker: Asker,
    /// What each of those threads does first.
    pub on_thread: Option<fn()>,
    /// Whom to ask for the ends of the logs; without it `lag` shows the lake's side only.
    pub ends: Option<LogEnds>,
    /// Whom to ask for the exports; without it there is no table `exports`.
    pub exports: Option<Told<Export>>,
    /// Whom to ask for registered schemas; without it `schemas` has the contract's only.
    pub registered: Option<Told<SchemaText>>,
    /// What this process's jobs have and the lake doesn't yet; empty where there are no jobs.
    pub tail: Tail,
}

impl Settings {
    /// Half a GiB of memory, ten of temporary files, a thread per processor, ten minutes, eight queries
    /// at a time, no broker, no jobs.
    pub fn new(lake_url: Url, catalog: Arc<Catalog>) -> Settings {
        Settings {
            lake_url,
            lake_options: StoreOptions::default(),
            catalog,
            memory_bytes: 512 << 20,
            spill_bytes: 10 << 30,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            deadline: Duration::from_mins(10),
            queries: 8,
            asker: Asker::Sql,
            on_thread: None,
            ends: None,
            exports: None,
            registered: None,
            tail: Tail::default(),
        }
    }
}

/// A lake that can be asked.
///
/// Its futures are boxed: those of `async fn` would have all of the planner compiled once more into whoever awaits them.
pub struct Engine {
    base: SessionState,
    lake: Arc<Lake>,
    tail: Tail,
    tables: Arc<Tables>,
    outside: Outside,
    bounds: Bounds,
    turns: Arc<Semaphore>,
    /// How many there are.
    queries: usize,
    stopping: CancellationToken,
    /// `None` only while it is dropped.
    threads: Option<Runtime>,
}

/// What a statement needs and gives.
#[derive(Clone, Debug)]
pub struct Description {
    /// The types of `$1`, `$2` and so on, where the planner knows what they have to be.
    pub parameters: Vec<Option<DataType>>,
    /// The columns of its rows.
    pub columns: SchemaRef,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("lake", self.lake.url()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens a lake. Tables that it doesn't have yet are empty.
    pub fn open(settings: Settings) -> Result<Engine, Error> {
        let internal = |cause: DataFusionError| Error::Internal(cause.strip_backtrace());
        let text = settings.asker.text();
        let outside = Outside {
            ends: settings.ends.clone(),
            exports: settings.exports.clone(),
            registered: settings.registered.clone(),
        };
        let tables = Tables::of(&settings.catalog, &text, &outside).map_err(internal)?;
        let lake =
            Arc::new(Lake::open(&settings.lake_url, &settings.lake_options, tables.stored())?);
        let base = base_state(&settings, &lake, tables.infos()).map_err(internal)?;
        let threads =
            threads(&settings).map_err(|e| Error::Internal(format!("start threads: {e}")))?;
        Ok(Engine {
            base,
            lake,
            tail: settings.tail,
            turns: Arc::new(Semaphore::new(settings.queries.max(1))),
            queries: settings.queries.max(1),
            stopping: CancellationToken::new(),
            tables: Arc::new(tables),
            outside,
            bounds: Bounds {
                memory_bytes: settings.memory_bytes,
                spill_bytes: settings.spill_bytes,
                deadline: settings.deadline,
                asker: settings.asker,
            },
            threads: Some(threads),
        })
    }

    /// The tables that can be asked, with their columns.
    pub fn tables(&self) -> &[TableInfo] {
        self.tables.infos()
    }

    /// Where the lake is.
    pub fn lake_url(&self) -> &Url {
        self.lake.url()
    }

    /// The newest version of a table; `None` while there is no such table.
    pub fn snapshot<'a>(
        &'a self,
        table: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Snapshot>>, Error>> {
        self.lake.snapshot(table).boxed()
    }

    /// Plans one statement and starts it. Dropping the answer, or this future, stops it.
    pub fn query<'a>(&'a self, sql: &str) -> BoxFuture<'a, Result<Answer, Error>> {
        self.query_with(sql, Parameters::none())
    }

    /// The same with values for the statement's parameters.
    pub fn query_with<'a>(
        &'a self,
        sql: &str,
        parameters: Parameters,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        let Some(threads) = self.running() else { return ready(Err(Error::Stopping)).boxed() };
        answer::start(threads.handle(), self.statement(sql, parameters)).boxed()
    }

    /// The threads for questions, while any are taken.
    fn running(&self) -> Option<&Runtime> {
        self.threads.as_ref().filter(|_| !self.stopping.is_cancelled())
    }

    fn statement(&self, sql: &str, parameters: Parameters) -> Query {
        Query {
            state: self.base.clone(),
            sources: Sources {
                lake: Arc::clone(&self.lake),
                tail: self.tail.clone(),
                holdings: Arc::new(Holdings::default()),
            },
            tables: Arc::clone(&self.tables),
            outside: self.outside.clone(),
            bounds: self.bounds,
            turns: Arc::clone(&self.turns),
            stopping: self.stopping.clone(),
            failures: Failures::default(),
            sql: sql.to_owned(),
            parameters: parameters.into(),
        }
    }

    /// Looks at a statement without running it, in a turn and within the time of a query. With values for its parameters,
    /// the columns are those that it has with values of these types.
    pub fn describe<'a>(
        &'a self,
        sql: &str,
        parameters: Parameters,
    ) -> BoxFuture<'a, Result<Description, Error>> {
        let Some(threads) = self.running() else { return ready(Err(Error::Stopping)).boxed() };
        answer::describe(threads.handle(), self.statement(sql, parameters)).boxed()
    }

    /// Stops: questions under way may go on for so long, those that are left then, and all later ones, end in
    /// [`Error::Stopping`].
    pub async fn stop(&self, patience: Duration) {
        // Whoever asks meanwhile waits behind this for a turn.
        let turns = self.turns.acquire_many(u32::try_from(self.queries).unwrap_or(u32::MAX));
        let _all_turns = timeout(patience, turns).await;
        self.stopping.cancel();
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// Runs what goes with a query, such as writing its rows down, on the engine's threads.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(threads) = &self.threads {
            threads.spawn(task);
        }
    }

    /// Does what goes with a query and waits for nothing, such as writing a batch down, on a thread of the engine. It is none
    /// of those that queries run on, which a call may keep beyond the time that whoever asks has.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let Some(threads) = &self.threads else {
            return Err(Error::Stopping);
        };
        let done = threads.spawn_blocking(work);
        done.await.map_err(|cause| Error::Internal(format!("work beside a query: {cause}")))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // Waiting for the threads here would panic inside an asynchronous caller.
            threads.shutdown_background();
        }
    }
}

fn threads(settings: &Settings) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(settings.threads.max(1)).thread_name("aion-sql").enable_all();
    builder.thread_stack_size(depth::STACK_BYTES);
    if let Some(first) = settings.on_thread {
        builder.on_thread_start(first);
    }
    builder.build()
}

/// What all queries share: functions, rules, bounds, and the lake as the only object store.
fn base_state(settings: &Settings, lake: &Lake, tables: &[TableInfo]) -> PlanResult<SessionState> {
    let sorting = Sorting::of(settings.memory_bytes, settings.threads);
    let files = spill::folder().map(|folder| DiskManagerMode::Directories(vec![folder]));
    let runtime = RuntimeEnvBuilder::new()
        .with_disk_manager_builder(
            DiskManagerBuilder::default().with_mode(files.unwrap_or_default()),
        )
        .with_memory_pool(Arc::new(Pool::new(settings.memory_bytes, sorting.merge_bytes)))
        .with_max_temp_directory_size(settings.spill_bytes)
        .with_max_spill_merge_fan_in(FILES_AT_ONCE)
        .with_object_store_registry(Arc::new(lake.registry()?))
        .build_arc()?;
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(settings.threads.max(1));
    if settings.asker == Asker::Exports {
        config = config.with_batch_size(sorting.export_rows);
    }
    let options = config.options_mut();
    // Else `timestamptz '..'` would be a time without a zone.
    options.execution.time_zone = Some("UTC".to_owned());
    options.sql_parser.map_string_types_to_utf8view = settings.asker.text() == DataType::Utf8View;
    options.execution.sort_spill_reservation_bytes = sorting.merge_bytes;
    // A file for each batch that threads exchange by disk. With files of more, of which several may be open at once, whoever
    // reads waits for the oldest to be written on while what it needs is in another, and the query never ends:
    // <https://github.com/apache/datafusion/issues/24883>.
    options.execution.max_spill_file_size_bytes = ConfigNonZeroUsize::try_new(1)?;
    // Columns that no filter needs are decoded only for rows that pass: events carry long objects.
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    let mut state = session(runtime, config);
    for function in catalog::functions(tables) {
        state.register_udf(Arc::new(function))?;
    }
    // The planner carries out some itself, such as those that say how far a `range` goes.
    let at_once_bytes = Limits::of(settings.memory_bytes).at_once_bytes as u64;
    let makings = Makings { at_once_bytes, counted: None, looks_up: None };
    let asking: Vec<_> =
        state.scalar_functions().values().filter_map(|function| makings.of(function)).collect();
    for function in asking {
        state.register_udf(Arc::new(function))?;
    }
    Ok(state)
}

fn session(runtime: Arc<RuntimeEnv>, config: SessionConfig) -> SessionState {
    SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .build()
}
