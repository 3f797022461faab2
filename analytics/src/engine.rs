//! The engine: opens a lake once, then plans and runs any number of queries at the same time.
//!
//! A query runs on the engine's own threads, so that it can't starve whoever asks, and within three
//! bounds: bytes of memory (shared by all queries of the engine, beyond which sorts, joins and
//! groups spill to a bounded temporary folder), time, and read-only plans.

mod answer;

use std::{fmt, sync::Arc, time::Duration};

use aion_schemas::{catalog::Catalog, suggest::nearest};
use aion_sinks::lake::StoreOptions;
use datafusion::{
    catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList},
    error::Result as PlanResult,
    execution::{
        SessionState, SessionStateBuilder,
        context::{SQLOptions, SessionContext},
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::{DataFrame, SessionConfig},
};
use tokio::runtime::Runtime;
use url::Url;

pub use self::answer::Answer;
use crate::{
    error::{Error, explain},
    lag::LogEnds,
    lake::Lake,
    tables::{QueryTables, TableInfo, Tables},
};

const CATALOG: &str = "aion";
const SCHEMA: &str = "public";

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
    /// Whom to ask for the ends of the logs; without it `lag` shows the lake's side only.
    pub ends: Option<LogEnds>,
}

impl Settings {
    /// Half a GiB of memory, ten of temporary files, a thread per processor, ten minutes, no
    /// broker.
    pub fn new(lake_url: Url, catalog: Arc<Catalog>) -> Settings {
        Settings {
            lake_url,
            lake_options: StoreOptions::default(),
            catalog,
            memory_bytes: 512 << 20,
            spill_bytes: 10 << 30,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            deadline: Duration::from_mins(10),
            ends: None,
        }
    }
}

/// A lake that can be asked.
pub struct Engine {
    base: SessionState,
    lake: Arc<Lake>,
    tables: Arc<Tables>,
    ends: Option<LogEnds>,
    bounds: Bounds,
    /// `None` only while it is dropped.
    threads: Option<Runtime>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    memory_bytes: usize,
    deadline: Duration,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("lake", self.lake.url()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens a lake. Tables that it doesn't have yet are empty.
    pub fn open(settings: Settings) -> Result<Engine, Error> {
        let tables = Tables::of(&settings.catalog);
        let lake =
            Arc::new(Lake::open(&settings.lake_url, &settings.lake_options, tables.stored())?);
        let base = base_state(&settings, &lake)
            .map_err(|cause| Error::Internal(cause.strip_backtrace()))?;
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.threads.max(1))
            .thread_name("aion-sql")
            .enable_all()
            .build()
            .map_err(|cause| Error::Internal(format!("start threads: {cause}")))?;
        Ok(Engine {
            base,
            lake,
            tables: Arc::new(tables),
            ends: settings.ends,
            bounds: Bounds { memory_bytes: settings.memory_bytes, deadline: settings.deadline },
            threads: Some(threads),
        })
    }

    /// The tables that can be asked, with their columns.
    pub fn tables(&self) -> &[TableInfo] {
        self.tables.infos()
    }

    /// Plans one statement and starts it. Dropping the answer, or this future, stops it.
    pub async fn query(&self, sql: &str) -> Result<Answer, Error> {
        let Some(threads) = &self.threads else {
            return Err(Error::Internal("the engine is closing".into()));
        };
        let query = Query {
            state: self.base.clone(),
            lake: Arc::clone(&self.lake),
            tables: Arc::clone(&self.tables),
            ends: self.ends.clone(),
            bounds: self.bounds,
            sql: sql.to_owned(),
        };
        answer::start(threads.handle(), query).await
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

/// What all queries share: functions, rules, bounds, and the lake as the only object store.
fn base_state(settings: &Settings, lake: &Lake) -> PlanResult<SessionState> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(settings.memory_bytes)))
        .with_max_temp_directory_size(settings.spill_bytes)
        .with_object_store_registry(Arc::new(lake.registry()?))
        .build_arc()?;
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(settings.threads.max(1));
    let options = config.options_mut();
    // Columns that no filter needs are decoded only for rows that pass: events carry long objects.
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    Ok(session(runtime, config))
}

fn session(runtime: Arc<RuntimeEnv>, config: SessionConfig) -> SessionState {
    SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .build()
}

/// One statement, before it is planned.
struct Query {
    state: SessionState,
    lake: Arc<Lake>,
    tables: Arc<Tables>,
    ends: Option<LogEnds>,
    bounds: Bounds,
    sql: String,
}

impl Query {
    /// Plans the statement over tables of its own.
    async fn plan(&self) -> Result<DataFrame, Error> {
        let tables = self
            .tables
            .for_query(&self.lake, self.ends.as_ref())
            .map(Arc::new)
            .map_err(|cause| self.explain(cause, None))?;
        let context = self.context(&tables).map_err(|cause| self.explain(cause, None))?;
        let plan = context
            .state()
            .create_logical_plan(&self.sql)
            .await
            .map_err(|cause| self.explain(cause, Some(&tables)))?;
        // The plan is checked before anything of it is carried out.
        read_only().verify_plan(&plan).map_err(|cause| refused(&cause.message()))?;
        context.execute_logical_plan(plan).await.map_err(|cause| self.explain(cause, None))
    }

    fn context(&self, tables: &Arc<QueryTables>) -> PlanResult<SessionContext> {
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(SCHEMA, Arc::clone(tables) as _)?;
        let catalogs = MemoryCatalogProviderList::new();
        // A list of its own: the one in the base state is shared by all clones.
        datafusion::catalog::CatalogProviderList::register_catalog(
            &catalogs,
            CATALOG.into(),
            Arc::new(catalog),
        );
        let state = SessionStateBuilder::new_from_existing(self.state.clone())
            .with_catalog_list(Arc::new(catalogs))
            .build();
        Ok(SessionContext::new_with_state(state))
    }

    fn explain(
        &self,
        cause: datafusion::error::DataFusionError,
        tables: Option<&QueryTables>,
    ) -> Error {
        if let Some(name) = tables.and_then(QueryTables::missing) {
            let names = || self.tables.infos().iter().map(|table| table.name.as_str());
            return Error::UnknownTable {
                near: nearest(&name, names()).map(str::to_owned),
                tables: names().map(str::to_owned).collect(),
                name,
            };
        }
        explain(cause, self.bounds.memory_bytes)
    }
}

fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// From `DDL not supported: DropTable` to what was refused.
fn refused(message: &str) -> Error {
    let what = message.lines().next().unwrap_or_default().replace(" not supported: ", " ");
    Error::ReadOnly { what: format!("{what} is refused") }
}
