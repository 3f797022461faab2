//! SQL in a running process: over the lake, and what the process's jobs have beyond it.

use std::{sync::Arc, time::Duration};

use aion_analytics::{
    Engine, Settings, Tail,
    control::{Told, exports::Export},
    postgres,
};
use aion_schemas::catalog::Catalog;
use prometheus::{HistogramOpts, HistogramVec};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    config::{Config, LakeConfig, PostgresConfig, SqlConfig},
    exit::{Exit, Failure},
    exports, log_ends,
    platform::open_registry,
    registry,
};

/// Upper bounds of freshness, in seconds.
const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// How long a question may go on once the process stops.
const PATIENCE: Duration = Duration::from_secs(2);

/// What jobs show and queries see.
#[derive(Debug)]
pub(crate) struct LiveSql {
    /// Where jobs show their rows.
    pub(crate) tail: Tail,
    /// How old rows are when queries can see them first.
    pub(crate) freshness: HistogramVec,
}

impl LiveSql {
    /// Nothing to see yet.
    pub(crate) fn new() -> anyhow::Result<LiveSql> {
        let help = "Time from the append of a batch's oldest row to when queries could see it.";
        let options = HistogramOpts::new("aion_sql_visible_after_seconds", help);
        let freshness = HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["table"])?;
        let seen = freshness.clone();
        let tail = Tail::new(move |table, age| {
            seen.with_label_values(&[table]).observe(age.as_secs_f64());
        });
        Ok(LiveSql { tail, freshness })
    }

    /// The engine that answers in this process.
    pub(crate) fn engine(&self, config: &Config) -> Result<Arc<Engine>, Failure> {
        let tail = self.tail.clone();
        // Not the jobs' own: a connection is driven by the runtime that made it, and that of queries may have no
        // processor to drive it while a job waits for a schema.
        let registry = config.registry.as_ref().map(|one| open_registry(&one.settings));
        let told = |registry| registry::told::of(registry, &config.catalog);
        open(Settings {
            // Jobs come first: a query has what they leave of the processors.
            on_thread: Some(aion_kafka::give_way),
            ends: Some(log_ends::of(config.kafka.clone())),
            exports: exports_of(config.exports.as_ref())?,
            registered: registry.transpose()?.map(told),
            ..settings(&config.lake, &config.catalog, &config.sql, tail)
        })
    }
}

/// An engine over a lake and a tail, with the bounds of `[sql]`.
pub(crate) fn settings(
    lake: &LakeConfig,
    catalog: &Catalog,
    bounds: &SqlConfig,
    tail: Tail,
) -> Settings {
    Settings {
        lake_options: lake.options.clone(),
        memory_bytes: bounds.memory_bytes,
        spill_bytes: bounds.spill_bytes,
        deadline: bounds.timeout,
        queries: bounds.queries,
        tail,
        ..Settings::new(lake.url.clone(), Arc::new(catalog.clone()))
    }
}

/// Whom to ask for the exports, where they have a place.
pub(crate) fn exports_of(
    settings: Option<&exports::service::Settings>,
) -> Result<Option<Told<Export>>, Failure> {
    let told = settings.map(exports::told::of).transpose();
    told.map_err(|cause| Failure::new(Exit::Data, format!("table exports: {cause}")))
}

/// Opens an engine.
pub(crate) fn open(settings: Settings) -> Result<Arc<Engine>, Failure> {
    let engine = Engine::open(settings);
    engine.map(Arc::new).map_err(|cause| Failure::new(Exit::Data, cause.to_string()))
}

/// Stops to answer: questions that take long are told that the process stops, and so are PostgreSQL's clients.
pub(crate) async fn stop(engine: &Engine, postgres: Option<JoinHandle<()>>) {
    engine.stop(PATIENCE).await;
    let Some(postgres) = postgres else { return };
    if let Err(cause) = postgres.await {
        tracing::error!("the task of PostgreSQL's clients broke: {cause}");
    }
}

/// Answers PostgreSQL's clients until the engine stops.
pub(crate) async fn serve_postgres(
    config: PostgresConfig,
    engine: Arc<Engine>,
) -> Result<JoinHandle<()>, Failure> {
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|cause| {
        let is_busy = cause.kind() == std::io::ErrorKind::AddrInUse;
        let what = format!(
            "listen on {address} for PostgreSQL's clients: {cause}; choose another with --postgres or \
             sql.postgres.listen"
        );
        Failure::new(if is_busy { Exit::Address } else { Exit::Failed }, what)
    })?;
    Ok(tokio::spawn(async move {
        if let Err(cause) = postgres::serve(listener, engine, config.access).await {
            tracing::error!(%address, "PostgreSQL's clients are not answered any more: {cause}");
        }
    }))
}
