//! The jobs of a configuration, running: what `aion run` and `aion dev` have in common.

mod budget;

use std::sync::Arc;

use aion_analytics::{Engine, Tail};
use aion_schemas::catalog::Topic;
use aion_sinks::{
    clickhouse::{self, ClickHouse},
    lake::{Lake, TableSpec},
    prometheus::{Series, board::Board, source::Source},
    sink::{Sink, SinkError},
};
use anyhow::Context;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) use self::budget::{house_settings, part_bytes, refuse_too_small};
use self::budget::{
    lake_settings, memory, part_of, queue_limits, queues_bytes, series_settings, sharers, worth,
};
use crate::{
    access::Access,
    audit::{Audits, schedule},
    config::{ClickHouseConfig, Config, JobConfig, MetricsConfig, SinkKind},
    exit::{Exit, Failure},
    exports::service::{Exports, Stores},
    health::{Beside, Health},
    http::{self, Pages, exports::ExportsApi, sql::Sql, v1::Api},
    inbound::Inbound,
    job::{self, JobError, JobSpec},
    live_sql::{self, LiveSql, serve_postgres},
    metrics::{Host, Metrics},
    preflight::{self, Partitions},
    registry::{self, Registry},
    upkeep,
    webhooks::{Surroundings, Webhooks},
    writer_schemas::TopicSchemas,
};

/// Running jobs and the HTTP surface that tells of them.
#[derive(Debug)]
pub struct Platform {
    /// How the jobs are doing.
    pub health: Arc<Health>,
    jobs: Vec<JoinHandle<Result<(), JobError>>>,
    webhooks: Option<Webhooks>,
    inbound: Option<Inbound>,
    /// The task that makes exports.
    making: Option<JoinHandle<()>>,
    http: JoinHandle<std::io::Result<()>>,
    close_http: CancellationToken,
    /// Stops what isn't a job, with `shutdown` or once every job has ended.
    close: CancellationToken,
    /// Answers questions.
    engine: Arc<Engine>,
    /// Answers PostgreSQL's clients, where that is configured.
    postgres: Option<JoinHandle<()>>,
}

impl Platform {
    /// Starts every job; they stop when `shutdown` is cancelled. What runs `beside` them is watched as they are.
    pub async fn start(
        config: Config,
        listener: TcpListener,
        shutdown: &CancellationToken,
        beside: Option<Beside>,
    ) -> anyhow::Result<Platform> {
        let memory = memory(&config);
        let partitions = preflight::look(&config.kafka, &config.jobs).await?;
        refuse_too_small(&config, &partitions)?;
        let limits = queue_limits(&config.jobs, &partitions, queues_bytes(&config));
        let lake = Lake::open(&config.lake.url, &config.lake.options)
            .map_err(|cause| sink_failure(&cause))?;
        lake.probe().await.map_err(|cause| sink_failure(&cause))?;
        let registry = config.registry.as_ref().map(|one| open_registry(&one.settings));
        let registry = registry.transpose()?;
        let access =
            Access::start(config.access.clone(), &config.commands, shutdown.child_token()).await?;
        let live = LiveSql::new()?;
        let tail = live.tail.clone();
        let places = Places::open(lake, tail, partitions, &config).await?;
        let exports = exports(&config, registry.as_ref()).await?;
        let (mut jobs, mut statuses) = (Vec::new(), Vec::new());
        let topics = |job: &JobConfig| {
            let topics: Vec<_> = job.topics().map(Arc::clone).collect();
            topics.into_iter().map(|topic| (job.clone(), topic)).collect::<Vec<_>>()
        };
        for (job, topic) in config.jobs.iter().flat_map(topics) {
            let sinks = sinks(&job, &topic, &places, &config).await?;
            // A person has asked for each retry: those that fail again stop nothing.
            let max_reject_share = if topic.is_retries() { 1.0 } else { job.max_reject_share };
            let spec = JobSpec {
                name: job.name.clone(),
                topic,
                registry: schemas_of(&job.topic, registry.as_ref(), &config),
                max_reject_share,
                stop_within: config.drain,
                limits,
            };
            let shutdown = shutdown.clone();
            let part = part_of(&job);
            let budget = memory[part].share(sharers(&config.jobs, part));
            let handle = job::run(spec, &config.kafka, sinks, budget, shutdown)?;
            statuses.push(handle.status);
            jobs.push(handle.done);
        }
        let stale_after = config.metrics.clone().unwrap_or_default().stale_after;
        let close = shutdown.child_token();
        let webhooks = webhooks(&config, registry.as_ref(), &close).await?;
        let told = webhooks.as_ref().map(|webhooks| webhooks.statuses.clone());
        let inbound = inbound(&config, &access, &close)?;
        let gateway = inbound.as_ref().map(|inbound| Arc::clone(&inbound.gateway));
        let health = Arc::new(Health::new(statuses, told, gateway.clone(), beside));
        let tls = config.http_tls.clone();
        let (catalog, connection) = (config.catalog.clone(), config.kafka.clone());
        let engine = live.engine(&config)?;
        let api = Arc::new(Api::new(catalog, connection, registry));
        let max_rows = config.sql.max_rows;
        let postgres = match config.sql.postgres.clone() {
            Some(config) => Some(serve_postgres(config, Arc::clone(&engine)).await?),
            None => None,
        };
        let sql = Arc::new(Sql::new(Arc::clone(&engine), max_rows));
        let in_lake = config.jobs.iter().filter(|job| job.sinks.contains(&SinkKind::Lake));
        let tables = in_lake.map(|job| table_spec(&job.topic)).collect();
        let rounds = config.lake.upkeep.clone();
        tokio::spawn(upkeep::run(places.lake, tables, rounds, worth(&config), shutdown.clone()));
        let (host, asked) = (Host::of(&config), config.jobs.clone());
        let audits = config.audit.map(|audit| {
            let audits = Audits::default();
            tokio::spawn(schedule::run(config, audit, audits.clone(), shutdown.clone()));
            audits
        });
        let metrics = Metrics::new(Arc::clone(&health), memory, audits, live.freshness);
        let metrics = metrics.with_host(host).with_guarantees(asked);
        let metrics = metrics.with_platform(places.board, stale_after);
        let metrics = Arc::new(metrics);
        let close_http = CancellationToken::new();
        let making = exports.as_ref().map(|exports| exports.start(&close));
        let exports = exports.map(|exports| Arc::new(ExportsApi::new(exports)));
        let pages = Pages { health: Arc::clone(&health), metrics, api, sql, exports, gateway };
        let closed = close_http.clone();
        let http =
            tokio::spawn(
                async move { http::serve((listener, tls), (&access, pages), closed).await },
            );
        Ok(Platform {
            health,
            jobs,
            webhooks,
            inbound,
            making,
            http,
            close_http,
            close,
            engine,
            postgres,
        })
    }

    /// Waits until every job ended: because of `shutdown`, or because a person has to act.
    pub async fn ended(self) -> anyhow::Result<()> {
        let failed = first_failure(self.jobs).await;
        self.close.cancel();
        if let Some(webhooks) = self.webhooks {
            webhooks.ended().await;
        }
        if let Some(inbound) = self.inbound {
            inbound.ended().await;
        }
        if let Some(making) = self.making {
            making.await.context("the task of exports broke")?;
        }
        self.close_http.cancel();
        live_sql::stop(&self.engine, self.postgres).await;
        self.http.await.context("the HTTP task broke")?.context("serve HTTP")?;
        failed.map_or(Ok(()), |failure| Err(failure.into()))
    }
}

/// Opens the exports, where the configuration says so.
async fn exports(
    config: &Config,
    registry: Option<&Arc<Registry>>,
) -> anyhow::Result<Option<Arc<Exports>>> {
    let Some(settings) = config.exports.clone() else { return Ok(None) };
    let stores = Stores::of(config, registry.cloned()).map_err(|cause| sink_failure(&cause))?;
    let opened = Exports::open(settings, stores).await;
    Ok(Some(Arc::new(opened.context("open the place of exports")?)))
}

/// Starts to deliver webhooks, where the configuration says so.
async fn webhooks(
    config: &Config,
    registry: Option<&Arc<Registry>>,
    close: &CancellationToken,
) -> Result<Option<Webhooks>, Failure> {
    let Some(webhooks) = config.webhooks.clone() else { return Ok(None) };
    let around = Surroundings {
        connection: config.kafka.clone(),
        catalog: Arc::new(config.catalog.clone()),
        registry: registry.cloned(),
    };
    Webhooks::start(webhooks, around, close.clone()).await.map(Some)
}

/// Starts to take commands in, where the configuration says so.
fn inbound(
    config: &Config,
    access: &Arc<Access>,
    close: &CancellationToken,
) -> Result<Option<Inbound>, Failure> {
    let Some(inbound) = config.inbound.clone() else { return Ok(None) };
    let who = (Arc::clone(access), config.commands.clone());
    Inbound::start(inbound, who, close.clone()).map(Some)
}

pub(crate) fn open_registry(settings: &registry::Settings) -> Result<Arc<Registry>, Failure> {
    let opened = Registry::open(settings).map(Arc::new);
    opened.map_err(|cause| Failure::new(Exit::Usage, cause.to_string()))
}

/// Where a job looks up the schemas of its topic's records.
fn schemas_of(
    topic: &Topic,
    registry: Option<&Arc<Registry>>,
    config: &Config,
) -> Option<job::schemas::Registry> {
    let schemas = TopicSchemas::new(Arc::clone(registry?), topic.subject());
    let grace = config.registry.as_ref()?.grace;
    Some(job::schemas::Registry { schemas: Arc::new(schemas), grace })
}

/// Waits for all jobs, whatever becomes of any: one job's failure doesn't stop the others; readiness
/// shows it meanwhile. Of several failures the one that a person has to act upon is the answer.
async fn first_failure(jobs: Vec<JoinHandle<Result<(), JobError>>>) -> Option<Failure> {
    let mut jobs: FuturesUnordered<_> = jobs.into_iter().collect();
    let (mut failed, mut unwritten) = (None, None);
    while let Some(ended) = jobs.next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(cause @ JobError::Unwritten { .. })) => {
                unwritten.get_or_insert_with(|| Failure::new(Exit::Failed, cause.to_string()));
            }
            Ok(Err(cause)) => {
                let is_fault = matches!(cause, JobError::Broke { .. });
                let exit = if is_fault { Exit::Failed } else { Exit::Guarantee };
                failed.get_or_insert_with(|| Failure::new(exit, cause.to_string()));
            }
            Err(cause) => {
                tracing::error!("a job's task broke: {cause}");
                let text = format!("a job's task broke: {cause}");
                failed.get_or_insert_with(|| Failure::new(Exit::Failed, text));
            }
        }
    }
    failed.or(unwritten)
}

/// Where rows go.
struct Places {
    lake: Lake,
    /// Where what the lake's sinks hold can be seen.
    tail: Tail,
    clickhouse: Option<(ClickHouse, ClickHouseConfig)>,
    series: Option<(Series, MetricsConfig)>,
    board: Board,
    partitions: Partitions,
}

impl Places {
    async fn open(
        lake: Lake,
        tail: Tail,
        partitions: Partitions,
        config: &Config,
    ) -> anyhow::Result<Places> {
        let series = match &config.metrics {
            None => None,
            Some(metrics) => {
                let series = Series::open(&lake).await.map_err(|cause| sink_failure(&cause))?;
                Some((series, metrics.clone()))
            }
        };
        let (clickhouse, board) = (house(config)?, Board::default());
        Ok(Places { lake, tail, clickhouse, series, board, partitions })
    }

    /// The series that a topic, or its topic of retries, makes.
    fn series_of(
        &self,
        topic: &Topic,
        rows_bytes: usize,
    ) -> Result<Option<Box<dyn Sink>>, Failure> {
        let source = Source::of(&topic.schema.name);
        let (Some((series, config)), Some(source)) = (&self.series, source) else {
            return Ok(None);
        };
        let settings = series_settings(config, rows_bytes);
        let sink = series.sink(&topic.name, source, settings, &self.board);
        Ok(Some(Box::new(sink.map_err(|cause| sink_failure(&cause))?)))
    }
}

fn house(config: &Config) -> anyhow::Result<Option<(ClickHouse, ClickHouseConfig)>> {
    let Some(clickhouse) = &config.clickhouse else { return Ok(None) };
    let house = ClickHouse::new(clickhouse.server.clone()).map_err(|cause| sink_failure(&cause))?;
    Ok(Some((house, clickhouse.clone())))
}

async fn sinks(
    job: &JobConfig,
    topic: &Topic,
    places: &Places,
    config: &Config,
) -> anyhow::Result<Vec<Box<dyn Sink>>> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::with_capacity(job.sinks.len());
    for kind in &job.sinks {
        match kind {
            SinkKind::Lake => {
                let spec = table_spec(&job.topic);
                let settings = lake_settings(config);
                let sink = places.lake.sink(spec, settings).await;
                let sink = Box::new(sink.map_err(|cause| sink_failure(&cause))?);
                // Whether a retry is stored is known only afterwards.
                sinks.push(if topic.is_retries() {
                    sink
                } else {
                    Box::new(places.tail.of(&job.topic.table, sink))
                });
            }
            SinkKind::ClickHouse => {
                // The configuration was checked: who writes there has said where it is.
                let Some((house, settings)) = &places.clickhouse else { continue };
                let found = places.partitions.get(&job.topic.name).copied();
                let spec = house_spec(&job.topic, found);
                let settings = house_settings(settings, part_bytes(config));
                sinks.push(Box::new(house.asking(job.guarantee).sink(spec, settings)));
            }
            SinkKind::Prometheus => sinks.extend(places.series_of(topic, part_bytes(config))?),
        }
    }
    Ok(sinks)
}

/// What ClickHouse's sink has to know of a topic's table.
pub(crate) fn house_spec(topic: &Topic, partitions: Option<usize>) -> clickhouse::TableSpec {
    let few = topic.schema.fields.iter().filter(|field| field.few_values);
    clickhouse::TableSpec {
        name: topic.table.to_string(),
        schema: topic.schema.arrow(),
        few_values: few.map(|field| field.name.to_string()).collect(),
        partitions: partitions.unwrap_or(topic.partitions.max(1) as usize),
    }
}

/// What the lake has to know of a topic's table.
pub fn table_spec(topic: &Topic) -> TableSpec {
    let schema = &topic.schema;
    let event_time = schema.fields[schema.event_time].name.to_string();
    TableSpec { name: topic.table.to_string(), schema: schema.arrow(), event_time }
}

pub(crate) fn sink_failure(cause: &SinkError) -> Failure {
    let exit = match cause {
        SinkError::Retry { .. } | SinkError::Waits { .. } => Exit::Failed,
        SinkError::Fatal { .. } => Exit::Guarantee,
    };
    Failure::new(exit, cause.to_string())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::exit::code_of;

    #[tokio::test]
    async fn a_job_that_broke_takes_no_other_along() {
        let is_flushed = Arc::new(AtomicBool::new(false));
        let flushed = Arc::clone(&is_flushed);
        let broken = tokio::spawn(async { panic!("a fault of the program") });
        let other = tokio::spawn(async move {
            tokio::task::yield_now().await;
            flushed.store(true, Ordering::Relaxed);
            Err(JobError::Unwritten { job: "other".into(), what: "lake 1..2 of t[0]".into() })
        });
        let failure = first_failure(vec![broken, other]).await.unwrap();
        assert!(is_flushed.load(Ordering::Relaxed));
        assert!(failure.to_string().contains("broke"), "{failure}");
    }

    #[tokio::test]
    async fn what_was_not_written_is_a_failure_of_its_own() {
        let unwritten =
            || JobError::Unwritten { job: "j".into(), what: "lake 1..2 of t[0]".into() };
        let jobs =
            vec![tokio::spawn(async { Ok(()) }), tokio::spawn(async move { Err(unwritten()) })];
        let failure = first_failure(jobs).await.unwrap();
        assert!(failure.to_string().contains("lake 1..2 of t[0]"), "{failure}");
        assert_eq!(code_of(&failure.into()), Exit::Failed);
    }
}
