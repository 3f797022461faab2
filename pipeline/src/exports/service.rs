//! Takes requests for exports in, and answers how they stand.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aion_analytics::{
    Asker, Engine, Settings as EngineSettings,
    exports::{
        files::DATA,
        manifest::MANIFEST,
        request::{Asked, Request, Wrong},
        time::rfc3339,
    },
};
use aion_kafka::Connection;
use aion_schemas::catalog::{Catalog, Topic};
use aion_sinks::{
    clickhouse::ClickHouse,
    sink::SinkError,
    store::{Store, StoreOptions},
};
use anyhow::Context;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::{
    closing::{self, AskError, Logs, now},
    housekeeping,
    journal::{Entry, Fault, JOBS, Job, Journal, Order, Progress, State, entry},
    policy::Policy,
    runner,
    source::Source,
    survey,
};
use crate::{config::Config, registry::Registry};

/// The policy that is taken where no configuration names one.
const POLICY: &str = "policies/exports.yaml";

/// What a thread that sorts has at least: with less, a large export is merged over and over.
const THREAD_BYTES: usize = 64 << 20;

/// How exports are made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where they go: a folder or an object store.
    pub url: Url,
    /// The options of the object store.
    pub options: StoreOptions,
    /// Which tiers may leave; without a file, only public ones.
    pub policy: Option<PathBuf>,
    /// So many at a time in this process.
    pub at_a_time: usize,
    /// Exports that ended so many days ago are removed; without it, none.
    pub keep_days: Option<u32>,
    /// Memory for sorting; beyond it rows go to temporary files.
    pub memory_bytes: usize,
    /// Those files, of all exports together.
    pub spill_bytes: u64,
}

impl Settings {
    /// Into that place, by the policy that is in the folder where one is.
    pub fn to_try(url: Url) -> Settings {
        let policy = Path::new(POLICY);
        Settings { policy: policy.exists().then(|| policy.to_owned()), ..Settings::at(url) }
    }

    /// Into that place, one at a time, kept for ever.
    pub fn at(url: Url) -> Settings {
        Settings {
            url,
            options: StoreOptions::default(),
            policy: None,
            at_a_time: 1,
            keep_days: None,
            memory_bytes: 256 << 20,
            spill_bytes: 100 << 30,
        }
    }
}

/// Where exports come from.
#[derive(Debug)]
pub struct Stores {
    /// The lake.
    pub lake: Url,
    /// The options of its object store.
    pub lake_options: StoreOptions,
    /// ClickHouse, where there is one.
    pub clickhouse: Option<ClickHouse>,
    /// The contract.
    pub catalog: Arc<Catalog>,
    /// Kafka, which says when an interval is complete.
    pub connection: Connection,
    /// The registry, which knows the ids of schemas.
    pub registry: Option<Arc<Registry>>,
}

impl Stores {
    /// Those of a configuration, with its registry where that is open.
    pub fn of(config: &Config, registry: Option<Arc<Registry>>) -> Result<Stores, SinkError> {
        let house = config.clickhouse.as_ref().map(|house| ClickHouse::new(house.server.clone()));
        Ok(Stores {
            lake: config.lake.url.clone(),
            lake_options: config.lake.options.clone(),
            clickhouse: house.transpose()?,
            catalog: Arc::new(config.catalog.clone()),
            connection: config.kafka.clone(),
            registry,
        })
    }
}

/// The exports of a place.
#[derive(Debug)]
pub struct Exports {
    pub(super) settings: Settings,
    pub(super) store: Store,
    pub(super) journal: Journal,
    /// The name of this process among those that share the place.
    pub(super) process: Uuid,
    /// Told when something was asked for here.
    pub(super) asked: Notify,
    /// Told when an attempt ended here.
    pub(super) changed: Notify,
    /// The only export that this process makes, where it is there for one.
    pub(super) only: Option<String>,
    lake: Source,
    clickhouse: Option<Source>,
    catalog: Arc<Catalog>,
    connection: Connection,
    pub(super) registry: Option<Arc<Registry>>,
}

/// Why a request isn't taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It isn't right.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Wrong>),
    /// Its interval isn't complete.
    #[error("the interval isn't closed yet: {0}; ask again later, or let it wait")]
    Open(String),
    /// Something that is needed can't be reached.
    #[error("{0}")]
    Unavailable(String),
    /// Something is broken.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<SinkError> for Refusal {
    fn from(cause: SinkError) -> Refusal {
        Refusal::Unavailable(cause.to_string())
    }
}

/// How a request is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is there already.
    Ready,
    /// It is being made, or will be.
    Accepted,
}

/// How to go about it; no part of what is asked for.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Take it though its interval isn't complete, and wait for that.
    pub wait_for_close: bool,
    /// Make it again though it is there.
    pub force: bool,
    /// Which store is read: `lake`, or `clickhouse`.
    pub source: Option<String>,
}

/// How an export stands, for whoever asks.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its id.
    pub id: String,
    /// What is exported.
    pub dataset: String,
    /// How it stands.
    pub state: State,
    /// Which attempt that is.
    pub attempt: u32,
    /// How far a running attempt is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Far>,
    /// Rows in all files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How many files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Stretches of the log whose rows aren't there: the manifest has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaps: Option<u64>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The digest of the rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The folder of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_uri: Option<String>,
    /// Where the manifest is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_uri: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
    /// What was asked for, with everything said.
    pub request: Asked,
    /// Which store is read.
    pub source: String,
    /// When it was asked for first.
    pub created_at: String,
    /// When it came to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
}

/// How far a running attempt is.
#[derive(Clone, Debug, Serialize)]
pub struct Far {
    /// What is being done.
    pub phase: String,
    /// Rows written.
    pub rows: u64,
    /// Of so many, once they were counted.
    pub total: Option<u64>,
    /// The share of them.
    pub fraction: Option<f64>,
}

impl Exports {
    /// Opens the exports of a place; nothing is made yet.
    pub async fn open(settings: Settings, stores: Stores) -> anyhow::Result<Exports> {
        let store = Store::open(&settings.url, &settings.options)?;
        store.make_folder(JOBS).await.context("make the folder of exports")?;
        store.probe().await?;
        if let Some(path) = &settings.policy {
            Policy::load(path).map_err(anyhow::Error::msg)?;
        }
        let mut engine = EngineSettings::new(stores.lake, Arc::clone(&stores.catalog));
        engine.lake_options = stores.lake_options;
        engine.memory_bytes = settings.memory_bytes;
        engine.threads = engine.threads.min(settings.memory_bytes / THREAD_BYTES).max(1);
        engine.spill_bytes = settings.spill_bytes;
        engine.deadline = Duration::from_hours(24);
        engine.asker = Asker::Exports;
        let engine = Engine::open(engine).context("open the lake for exports")?;
        Ok(Exports {
            journal: Journal::new(store.clone()),
            store,
            process: runner::process(),
            asked: Notify::new(),
            changed: Notify::new(),
            only: None,
            lake: Source::Lake(Arc::new(engine)),
            clickhouse: stores.clickhouse.map(Source::ClickHouse),
            catalog: stores.catalog,
            connection: stores.connection,
            registry: stores.registry,
            settings,
        })
    }

    /// Makes what is asked for, and removes what is too old, until `shutdown`.
    pub fn start(self: &Arc<Exports>, shutdown: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let (exports, stop) = (Arc::clone(self), shutdown.clone());
        tokio::spawn(async move { housekeeping::run(&exports, stop).await });
        tokio::spawn(runner::run(Arc::clone(self), shutdown.clone()))
    }

    /// Makes one export only, and removes nothing.
    pub fn start_one(
        mut self,
        id: &str,
        shutdown: &CancellationToken,
    ) -> (Arc<Exports>, tokio::task::JoinHandle<()>) {
        self.only = Some(id.to_owned());
        let exports = Arc::new(self);
        let making = tokio::spawn(runner::run(Arc::clone(&exports), shutdown.clone()));
        (exports, making)
    }

    /// Checks what is asked for against the contract and the policy, which is read anew.
    pub fn check(&self, asked: &Asked) -> Result<Request, Refusal> {
        let policy = match &self.settings.policy {
            None => Policy::default(),
            Some(path) => Policy::load(path).map_err(Refusal::Unavailable)?,
        };
        Request::check(asked, &self.catalog, &policy.tiers).map_err(Refusal::Wrong)
    }

    /// Takes a request; answers how the export stands.
    pub async fn ask(&self, asked: &Asked, how: &How) -> Result<(Taken, Status), Refusal> {
        let request = self.check(asked)?;
        let source = |name: &str| {
            let wrong = |reason| vec![Wrong { field: "source".to_owned(), reason }];
            self.source(name).map_err(|reason| Refusal::Wrong(wrong(reason)))
        };
        let named = how.source.as_deref().map(source).transpose()?;
        let tables = self.tables(&request).await.map_err(|cause| refusal_of(&cause))?;
        let topic_ids: BTreeSet<Uuid> =
            tables.iter().flat_map(|(_, logs)| logs.topic_ids.iter().copied()).collect();
        let id = request.id(&topic_ids);
        let known = self.journal.job(&id).await?;
        let is_new = known.as_ref().is_none_or(|job| match job.last().state {
            State::Succeeded => how.force,
            state => state.is_over(),
        });
        if let Some(job) = known.as_ref().filter(|_| !is_new) {
            return self.answer(job).await;
        }
        let store = match named {
            Some(store) => store,
            None => source(known.as_ref().map_or("lake", Job::source))?,
        };
        check_kept(&store, &request).await?;
        if !how.wait_for_close {
            let closed = closing::close(&self.journal, &store, &tables, request.boundary()).await;
            if let Err(open) = closed.map_err(Refusal::Failed)? {
                return Err(Refusal::Open(open.to_string()));
            }
        }
        match known {
            None => {
                let order = Order {
                    request: request.asked(),
                    canonical: request.canonical(&topic_ids),
                    topic_ids,
                    source: store.name().to_owned(),
                    created_at: rfc3339(now()),
                };
                self.journal.order(&id, &order).await?;
            }
            Some(job) => {
                let queued = entry(State::Queued, job.last().attempt, rfc3339(now()));
                let again = Entry { source: how.source.clone(), ..queued };
                // Where somebody else was first, that is as good.
                self.journal.put(&id, job.next(), &again).await?;
            }
        }
        self.asked.notify_one();
        let job = self.journal.job(&id).await?;
        let gone = || Refusal::Failed(anyhow::anyhow!("export {id} was removed just now"));
        self.answer(&job.ok_or_else(gone)?).await
    }

    async fn answer(&self, job: &Job) -> Result<(Taken, Status), Refusal> {
        let taken =
            if job.last().state == State::Succeeded { Taken::Ready } else { Taken::Accepted };
        Ok((taken, self.status(job).await.map_err(Refusal::Failed)?))
    }

    /// How an export stands; `None` where nobody has asked for it.
    pub async fn find(&self, id: &str) -> anyhow::Result<Option<Status>> {
        match self.journal.job(id).await? {
            None => Ok(None),
            Some(job) => self.status(&job).await.map(Some),
        }
    }

    /// The same, after it came to an end or the time is over.
    pub async fn wait(&self, id: &str, within: Duration) -> anyhow::Result<Option<Status>> {
        let deadline = Instant::now() + within;
        loop {
            let changed = self.changed.notified();
            let status = self.find(id).await?;
            let is_waited = status.as_ref().is_some_and(|status| !status.state.is_over());
            let left = deadline.saturating_duration_since(Instant::now());
            if !is_waited || left.is_zero() {
                return Ok(status);
            }
            // Another process may be the one that makes it.
            tokio::time::timeout(left.min(Duration::from_millis(500)), changed).await.ok();
        }
    }

    /// All exports, latest first.
    pub async fn list(&self) -> anyhow::Result<Vec<Status>> {
        let mut all = Vec::new();
        for id in self.journal.ids().await? {
            all.extend(self.find(&id).await?);
        }
        all.sort_by(|a, b| (&b.created_at, &b.id).cmp(&(&a.created_at, &a.id)));
        Ok(all)
    }

    /// Nobody wants it any more. What is over stays as it is.
    pub async fn cancel(&self, id: &str) -> anyhow::Result<Option<Status>> {
        loop {
            let Some(job) = self.journal.job(id).await? else { return Ok(None) };
            let last = job.last();
            if last.state.is_over() {
                return self.status(&job).await.map(Some);
            }
            let cancelled = entry(State::Cancelled, last.attempt, rfc3339(now()));
            if self.journal.put(id, job.next(), &cancelled).await? {
                self.changed.notify_waiters();
            }
        }
    }

    /// The manifest as it is stored.
    pub async fn manifest(&self, id: &str) -> anyhow::Result<Option<bytes::Bytes>> {
        let Some(job) = self.journal.job(id).await? else { return Ok(None) };
        let last = job.last();
        if last.state != State::Succeeded {
            return Ok(None);
        }
        Ok(self.store.get(&format!("{}/{MANIFEST}", job.folder(last.attempt))).await?)
    }

    /// What has happened to it, a line each.
    pub async fn log(&self, id: &str) -> anyhow::Result<Option<String>> {
        let Some(job) = self.journal.job(id).await? else { return Ok(None) };
        let mut lines: Vec<String> = job.entries.iter().map(line).collect();
        if job.last().state == State::Running
            && let Some(progress) = self.journal.progress(id).await?
        {
            lines.push(format!("now: {}, {} rows written", progress.phase, progress.rows));
        }
        lines.push(String::new());
        Ok(Some(lines.join("\n")))
    }

    async fn status(&self, job: &Job) -> anyhow::Result<Status> {
        let last = job.last();
        let progress = match last.state {
            State::Queued | State::Running => self.journal.progress(&job.id).await?,
            State::Succeeded => {
                self.complete(job).await?;
                None
            }
            _ => None,
        };
        let result = last.result.clone();
        let uri = |name: &str| {
            let place = self.store.root().join(&format!("{}/{name}", job.folder(last.attempt)));
            place.map(String::from).ok().filter(|_| result.is_some())
        };
        Ok(Status {
            id: job.id.clone(),
            dataset: job.order.request.dataset.clone(),
            state: last.state,
            attempt: last.attempt,
            progress: progress.filter(|progress| progress.attempt == last.attempt).map(far),
            rows: result.as_ref().map(|result| result.rows),
            files: result.as_ref().map(|result| result.files),
            gaps: result.as_ref().map(|result| result.gaps),
            bytes: result.as_ref().map(|result| result.bytes),
            digest: result.as_ref().map(|result| result.digest.clone()),
            data_uri: uri(DATA),
            manifest_uri: uri(MANIFEST),
            error: last.error.clone(),
            request: job.order.request.clone(),
            source: job.source().to_owned(),
            created_at: job.order.created_at.clone(),
            finished_at: last.state.is_over().then(|| last.at.clone()),
        })
    }

    /// Puts what says that an export is whole, where a process died before it did.
    pub(super) async fn complete(&self, job: &Job) -> anyhow::Result<()> {
        let last = job.last();
        if last.state == State::Succeeded {
            runner::succeed(self, &job.folder(last.attempt)).await?;
        }
        Ok(())
    }

    /// The request of an export. What its policy was then is in it.
    pub(super) fn request_of(&self, job: &Job) -> anyhow::Result<Request> {
        let asked = &job.order.request;
        let tiers = asked.tiers.clone().unwrap_or_default();
        let checked = Request::check(asked, &self.catalog, &tiers);
        checked.map_err(|wrong| {
            let wrong: Vec<_> = wrong.iter().map(ToString::to_string).collect();
            anyhow::anyhow!(
                "what was asked for fits this version's contract no more: {}",
                wrong.join("; ")
            )
        })
    }

    /// The tables of a request, and what Kafka says of their topics.
    pub(super) async fn tables(&self, request: &Request) -> Result<Vec<(Topic, Logs)>, AskError> {
        let mut tables = Vec::new();
        for topic in request.dataset.topics() {
            let logs = closing::logs(&self.connection, &self.catalog, topic).await?;
            tables.push((topic.clone(), logs));
        }
        Ok(tables)
    }

    /// The store of that name.
    pub(super) fn source(&self, name: &str) -> Result<Source, String> {
        match name {
            "lake" => Ok(self.lake.clone()),
            "clickhouse" => self
                .clickhouse
                .clone()
                .ok_or_else(|| "this process has no [clickhouse] in its configuration".to_owned()),
            other => Err(format!("{other:?} is no store: `lake` or `clickhouse` is wanted")),
        }
    }

    /// Removes the files of an attempt.
    pub(super) async fn remove_attempt(&self, job: &Job, attempt: u32) -> anyhow::Result<()> {
        for file in self.store.list(&job.folder(attempt)).await? {
            self.store.remove(&file.location).await?;
        }
        Ok(())
    }
}

/// Refuses what retention has taken rows of: it could never be whole.
pub(super) async fn check_kept(store: &Source, request: &Request) -> Result<(), Refusal> {
    let expired = survey::expired(store, request).await.map_err(Refusal::Failed)?;
    let wrong = |cause: survey::Expired| Wrong {
        field: "interval.start".to_owned(),
        reason: cause.to_string(),
    };
    expired.map_err(|cause| Refusal::Wrong(vec![wrong(cause)]))
}

fn far(progress: Progress) -> Far {
    let Progress { phase, rows, total, .. } = progress;
    let fraction = total.map(|total| if total == 0 { 1.0 } else { rows as f64 / total as f64 });
    Far { phase, rows, total, fraction }
}

fn line(entry: &Entry) -> String {
    let Entry { state, attempt, error, result, at, .. } = entry;
    let state = match state {
        State::Queued => "queued".to_owned(),
        State::Running => format!("attempt {attempt} begun"),
        State::Succeeded => format!("attempt {attempt} succeeded"),
        State::Failed => format!("attempt {attempt} failed"),
        State::Cancelled => "cancelled".to_owned(),
    };
    let more = error.as_ref().map(|fault| format!(": {}", fault.message));
    let made = result.as_ref().map(|made| {
        format!(": {} rows in {} files, digest {}", made.rows, made.files, made.digest)
    });
    format!("{at} {state}{}", more.or(made).unwrap_or_default())
}

pub(super) fn refusal_of(cause: &AskError) -> Refusal {
    match cause {
        AskError::Unavailable(cause) => Refusal::Unavailable(cause.clone()),
        other => {
            let reason = other.to_string();
            Refusal::Wrong(vec![Wrong { field: "dataset".to_owned(), reason }])
        }
    }
}
