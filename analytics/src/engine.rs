//! The engine: opens a lake once, then plans and runs any number of queries at the same time.
//!
//! A query runs on the engine's own threads, so that it can't starve whoever asks, and within these
//! bounds: bytes of memory (shared by all queries of the engine, beyond which sorts, joins and
//! groups spill to a bounded temporary folder), time, a number of queries at once, and read-only plans.
//!
//! Beside jobs those threads give way, by [`Settings::on_thread`]: they get what others leave of the processors.

mod answer;

use std::{fmt, sync::Arc, time::Duration};

use aion_schemas::{catalog::Catalog, suggest::nearest};
use aion_sinks::lake::{StoreOptions, read::Snapshot};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    common::ParamValues,
    error::{DataFusionError, Result as PlanResult},
    execution::{
        FunctionRegistry, SessionState, SessionStateBuilder,
        context::{SQLOptions, SessionContext},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::LogicalPlan,
    prelude::{DataFrame, SessionConfig},
};
use tokio::{runtime::Runtime, sync::Semaphore};
use url::Url;

pub use self::answer::Answer;
use crate::{
    error::{Error, explain},
    holdings::Holdings,
    lag::LogEnds,
    lake::Lake,
    memory::Pool,
    parameters::Parameters,
    postgres::catalog,
    stored::Sources,
    tables::{CATALOG, QueryTables, SCHEMA, TableInfo, Tables},
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
    /// What each of those threads does first.
    pub on_thread: Option<fn()>,
    /// Whom to ask for the ends of the logs; without it `lag` shows the lake's side only.
    pub ends: Option<LogEnds>,
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
            on_thread: None,
            ends: None,
            tail: Tail::default(),
        }
    }
}

/// A lake that can be asked.
pub struct Engine {
    base: SessionState,
    lake: Arc<Lake>,
    tail: Tail,
    tables: Arc<Tables>,
    ends: Option<LogEnds>,
    bounds: Bounds,
    turns: Arc<Semaphore>,
    /// `None` only while it is dropped.
    threads: Option<Runtime>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    memory_bytes: usize,
    deadline: Duration,
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
        let tables = Tables::of(&settings.catalog).map_err(internal)?;
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

    /// Where the lake is.
    pub fn lake_url(&self) -> &Url {
        self.lake.url()
    }

    /// The newest version of a table; `None` while there is no such table.
    pub async fn snapshot(&self, table: &str) -> Result<Option<Arc<Snapshot>>, Error> {
        self.lake.snapshot(table).await
    }

    /// Plans one statement and starts it. Dropping the answer, or this future, stops it.
    pub async fn query(&self, sql: &str) -> Result<Answer, Error> {
        self.query_with(sql, Parameters::none()).await
    }

    /// The same with values for the statement's parameters.
    pub async fn query_with(&self, sql: &str, parameters: Parameters) -> Result<Answer, Error> {
        let Some(threads) = &self.threads else {
            return Err(Error::Internal("the engine is closing".into()));
        };
        answer::start(threads.handle(), self.statement(sql, parameters)).await
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
            ends: self.ends.clone(),
            bounds: self.bounds,
            turns: Arc::clone(&self.turns),
            sql: sql.to_owned(),
            parameters: parameters.into(),
        }
    }

    /// Looks at a statement without running it. With values for its parameters, the columns are those that it has with
    /// values of these types.
    pub async fn describe(&self, sql: &str, parameters: Parameters) -> Result<Description, Error> {
        let Some(threads) = &self.threads else {
            return Err(Error::Internal("the engine is closing".into()));
        };
        let query = self.statement(sql, parameters);
        let described = threads.spawn(async move { query.describe().await });
        described.await.unwrap_or_else(|_| Err(Error::Internal("its planner panicked".into())))
    }

    /// Runs what goes with a query, such as writing its rows down, on the engine's threads.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(threads) = &self.threads {
            threads.spawn(task);
        }
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
    if let Some(first) = settings.on_thread {
        builder.on_thread_start(first);
    }
    builder.build()
}

/// What all queries share: functions, rules, bounds, and the lake as the only object store.
fn base_state(settings: &Settings, lake: &Lake, tables: &[TableInfo]) -> PlanResult<SessionState> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(Pool::new(settings.memory_bytes)))
        .with_max_temp_directory_size(settings.spill_bytes)
        .with_object_store_registry(Arc::new(lake.registry()?))
        .build_arc()?;
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(settings.threads.max(1));
    let options = config.options_mut();
    // Else `timestamptz '..'` would be a time without a zone.
    options.execution.time_zone = Some("UTC".to_owned());
    // Columns that no filter needs are decoded only for rows that pass: events carry long objects.
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    let mut state = session(runtime, config);
    for function in catalog::functions(tables) {
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

/// One statement, before it is planned.
struct Query {
    state: SessionState,
    sources: Sources,
    tables: Arc<Tables>,
    ends: Option<LogEnds>,
    bounds: Bounds,
    turns: Arc<Semaphore>,
    sql: String,
    parameters: Option<ParamValues>,
}

impl Query {
    /// What the statement needs and gives; nothing of it is carried out.
    async fn describe(&self) -> Result<Description, Error> {
        let (_, plan) = self.logical().await?;
        let named = plan.get_parameter_types().map_err(|cause| self.explain(cause, None))?;
        let places = named.keys().filter_map(|name| name.strip_prefix('$')?.parse().ok());
        let count = places.max().unwrap_or(0);
        let parameter = |place: usize| named.get(&format!("${place}")).cloned().flatten();
        Ok(Description {
            parameters: (1..=count).map(parameter).collect(),
            columns: Arc::new(plan.schema().as_arrow().clone()),
        })
    }

    /// Plans the statement over tables of its own.
    async fn plan(&self) -> Result<DataFrame, Error> {
        let (context, plan) = self.logical().await?;
        context.execute_logical_plan(plan).await.map_err(|cause| self.explain(cause, None))
    }

    /// The statement's plan, which passed the check, and where it runs.
    async fn logical(&self) -> Result<(SessionContext, LogicalPlan), Error> {
        let tables = self
            .tables
            .for_query(&self.state, &self.sources, self.ends.as_ref())
            .map(Arc::new)
            .map_err(|cause| self.explain(cause, None))?;
        let context = self.context(&tables).map_err(|cause| self.explain(cause, None))?;
        let plan = context
            .state()
            .create_logical_plan(&self.sql)
            .await
            .map_err(|cause| self.explain(cause, Some(&tables)))?;
        let plan = match &self.parameters {
            Some(values) => plan.with_param_values(values.clone()),
            None => Ok(plan),
        };
        let plan = plan.map_err(|cause| self.explain(cause, None))?;
        // The plan is checked before anything of it is carried out.
        read_only().verify_plan(&plan).map_err(|cause| refused(&cause.message()))?;
        Ok((context, plan))
    }

    fn context(&self, tables: &Arc<QueryTables>) -> PlanResult<SessionContext> {
        Ok(SessionContext::new_with_state(tables.session(&self.state)?))
    }

    fn explain(&self, cause: DataFusionError, tables: Option<&QueryTables>) -> Error {
        // The planner looks for a table before it takes `range(..)` for a function.
        let is_no_function = |name: &String| !self.state.table_functions().contains_key(name);
        if let Some(name) = tables.and_then(QueryTables::missing).filter(is_no_function) {
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
