//! Makes exports: takes those that are queued, and those whose process shows no life.
//!
//! **Invariant:** a process that lost an export stops it: each beat looks whether a further state was put.
//! **Invariant:** a process is taken for dead by what it doesn't write for [`SILENCE`], by the watcher's own clock: no two
//! clocks are compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aion_analytics::exports::{
    closing::too_early,
    files::{FILE_BYTES, Writer},
    manifest::{MANIFEST, Manifest, SUCCESS},
    time::rfc3339,
};
use aion_sinks::fault;
use anyhow::Context;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    closing::{self, now},
    journal::{Entry, Fault, Job, Outcome, Progress, State, Vectors, entry},
    service::Exports,
    survey,
};

/// A running export whose progress stands still for so long is taken over. One that was only slow loses its work, no more.
pub const SILENCE: Duration = Duration::from_secs(10);
/// How often a running export shows that it lives.
const BEAT: Duration = Duration::from_secs(2);
/// How often the journal is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long to wait before it is looked again whether a boundary is closed.
const OPEN: Duration = Duration::from_secs(5);

/// Runs exports until `shutdown`.
pub async fn run(exports: Arc<Exports>, shutdown: CancellationToken) {
    let mut watch = Watch::default();
    let mut running = tokio::task::JoinSet::new();
    let mut mine = BTreeSet::<String>::new();
    loop {
        while let Some(ended) = running.try_join_next() {
            match ended {
                Ok(id) => drop(mine.remove(&id)),
                Err(cause) => tracing::error!("an export's task broke: {cause}"),
            }
        }
        if running.is_empty() {
            mine.clear();
        }
        let room = exports.settings.at_a_time.saturating_sub(mine.len());
        match claim(&exports, &mut watch, &mine, room).await {
            Ok(claimed) => {
                for job in claimed {
                    mine.insert(job.id.clone());
                    let (exports, stop) = (Arc::clone(&exports), shutdown.child_token());
                    running.spawn(async move {
                        let id = job.id.clone();
                        attempt(Arc::clone(&exports), job, stop).await;
                        exports.changed.notify_waiters();
                        id
                    });
                }
            }
            Err(cause) => tracing::warn!("exports can't be looked at: {cause:#}"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = exports.asked.notified() => {}
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Ok(id) = ended {
                    mine.remove(&id);
                }
            }
            () = shutdown.cancelled() => break,
        }
    }
    // Attempts see the token too: what they began is queued again.
    while running.join_next().await.is_some() {}
}

/// What others were seen to do.
#[derive(Debug, Default)]
struct Watch {
    /// How many states those have that were over.
    over: BTreeMap<String, usize>,
    /// When it was looked last whether the interval of a queued one is complete.
    asked: BTreeMap<String, Instant>,
    seen: BTreeMap<String, (Option<Progress>, usize, Instant)>,
}

impl Watch {
    /// Whether the interval of a queued export is complete; what is missing is written down. One that can't be made
    /// is: its attempt will say why.
    async fn is_closed(&mut self, exports: &Exports, job: &Job) -> anyhow::Result<bool> {
        let now = Instant::now();
        if self.asked.get(&job.id).is_some_and(|then| now.duration_since(*then) < OPEN) {
            return Ok(false);
        }
        let Ok(Err(why)) = vectors(exports, job).await else {
            self.asked.remove(&job.id);
            return Ok(true);
        };
        self.asked.insert(job.id.clone(), now);
        let phase = format!("waiting: {why}");
        let told = exports.journal.progress(&job.id).await?;
        if told.is_none_or(|told| told.phase != phase) {
            let attempt = job.last().attempt;
            let progress = Progress { attempt, phase, ..Progress::default() };
            exports.journal.report(&job.id, &progress).await?;
        }
        Ok(false)
    }

    /// Whether a running export of somebody else has stood still for too long.
    fn is_silent(&mut self, job: &Job, progress: Option<Progress>) -> bool {
        let now = Instant::now();
        let state = (progress, job.entries.len(), now);
        let seen = self.seen.entry(job.id.clone()).or_insert_with(|| state.clone());
        if (&seen.0, seen.1) != (&state.0, state.1) {
            *seen = state;
        }
        now.duration_since(seen.2) >= SILENCE
    }
}

/// Takes exports that wait for somebody.
async fn claim(
    exports: &Exports,
    watch: &mut Watch,
    mine: &BTreeSet<String>,
    room: usize,
) -> anyhow::Result<Vec<Job>> {
    let mut claimed = Vec::new();
    if room == 0 {
        return Ok(claimed);
    }
    let ids = match &exports.only {
        Some(only) => vec![only.clone()],
        None => exports.journal.ids().await?,
    };
    for id in ids {
        if claimed.len() == room || mine.contains(&id) {
            continue;
        }
        // What is over is asked for once; a further state makes it another.
        if let Some(count) = watch.over.get(&id)
            && !exports.journal.has(&id, *count + 1).await?
        {
            continue;
        }
        let Some(mut job) = exports.journal.job(&id).await? else { continue };
        let last = job.last().clone();
        let is_wanted = match last.state {
            State::Queued => watch.is_closed(exports, &job).await?,
            State::Running => {
                let progress = exports.journal.progress(&id).await?;
                watch.is_silent(&job, progress)
            }
            _ => {
                watch.over.insert(id.clone(), job.entries.len());
                exports.complete(&job).await?;
                false
            }
        };
        if !is_wanted || exports.source(job.source()).is_err() {
            continue;
        }
        let begun = Entry {
            owner: Some(exports.process),
            ..entry(State::Running, last.attempt + 1, rfc3339(now()))
        };
        if exports.journal.put(&id, job.next(), &begun).await? {
            tracing::info!(export = id, attempt = begun.attempt, "begun");
            job.entries.push(begun);
            claimed.push(job);
        }
    }
    Ok(claimed)
}

/// Why an attempt ended without a result.
enum Ended {
    /// Somebody else goes on with it, or nobody wants it any more.
    Lost,
    /// This process stops.
    Stopping,
    Failed(Fault),
}

/// One attempt, to its state. Rows are sorted and encoded on a thread for that: whoever shares the runtime isn't held up,
/// and the attempt shows that it lives meanwhile.
async fn attempt(exports: Arc<Exports>, job: Job, shutdown: CancellationToken) {
    let shared = Arc::new(Mutex::new(Progress {
        attempt: job.last().attempt,
        phase: "looking how far the store is".to_owned(),
        ..Progress::default()
    }));
    let stop = shutdown.child_token();
    let mut worker = {
        let (exports, job) = (Arc::clone(&exports), job.clone());
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let made = make(&exports, &job, &shared);
            runtime.block_on(stop.run_until_cancelled(made))
        })
    };
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Ended::Stopping),
        () = beat(&exports, &job, &shared, &stop) => Err(Ended::Lost),
        made = &mut worker => ended(made),
    };
    stop.cancel();
    if !worker.is_finished() {
        // It must not write any more when its folder is cleaned up.
        worker.await.ok();
    }
    if let Err(cause) = settle(&exports, &job, ended).await {
        // The next look finds it running and silent, and takes it up.
        tracing::warn!(export = job.id, "its state can't be written: {cause:#}");
    }
}

fn ended(
    made: Result<Option<anyhow::Result<Outcome>>, tokio::task::JoinError>,
) -> Result<Outcome, Ended> {
    match made {
        Ok(Some(made)) => made.map_err(|cause| Ended::Failed(fault_of(&cause))),
        Ok(None) => Err(Ended::Stopping),
        Err(cause) => Err(Ended::Failed(fault_of(&cause.into()))),
    }
}

/// Shows that the attempt lives, until a further state was put by somebody.
async fn beat(exports: &Exports, job: &Job, shared: &Mutex<Progress>, stop: &CancellationToken) {
    loop {
        let progress = {
            let mut progress = shared.lock().unwrap_or_else(PoisonError::into_inner);
            progress.beat += 1;
            progress.clone()
        };
        if let Err(cause) = exports.journal.report(&job.id, &progress).await {
            tracing::warn!(export = job.id, "its progress can't be written: {cause}");
        }
        tokio::select! {
            () = tokio::time::sleep(BEAT) => {}
            () = stop.cancelled() => return,
        }
        match exports.journal.has(&job.id, job.next()).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(cause) => tracing::warn!(export = job.id, "its states can't be read: {cause}"),
        }
    }
}

/// Writes the state that an attempt came to, and cleans up behind one that came to nothing.
async fn settle(exports: &Exports, job: &Job, ended: Result<Outcome, Ended>) -> anyhow::Result<()> {
    let attempt = job.last().attempt;
    let owner = Some(exports.process);
    let at = rfc3339(now());
    let (next, is_whole) = match ended {
        Ok(result) => {
            (Entry { owner, result: Some(result), ..entry(State::Succeeded, attempt, at) }, true)
        }
        Err(Ended::Failed(fault)) => {
            tracing::warn!(export = job.id, attempt, "failed: {}", fault.message);
            (Entry { owner, error: Some(fault), ..entry(State::Failed, attempt, at) }, false)
        }
        Err(Ended::Stopping) => (Entry { owner, ..entry(State::Queued, attempt, at) }, false),
        Err(Ended::Lost) => {
            tracing::info!(export = job.id, attempt, "given up: another state was put");
            return exports.remove_attempt(job, attempt).await;
        }
    };
    fault::point("export.before_state");
    let is_ours = exports.journal.put(&job.id, job.next(), &next).await?;
    fault::point("export.after_state");
    if is_whole && is_ours {
        let mut job = job.clone();
        job.entries.push(next);
        exports.complete(&job).await?;
        tracing::info!(export = job.id, attempt, "made");
        return Ok(());
    }
    exports.remove_attempt(job, attempt).await
}

/// Makes files and manifest.
async fn make(exports: &Exports, job: &Job, progress: &Mutex<Progress>) -> anyhow::Result<Outcome> {
    let tell = |change: &dyn Fn(&mut Progress)| {
        change(&mut progress.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let request = exports.request_of(job)?;
    let source = exports.source(job.source()).map_err(anyhow::Error::msg)?;
    let vectors = loop {
        match vectors(exports, job).await? {
            Ok(vectors) => break vectors,
            // Only what can't be asked just now: it was complete a moment ago.
            Err(why) => tell(&|progress| progress.phase = format!("waiting: {why}")),
        }
        tokio::time::sleep(OPEN).await;
    };
    tell(&|progress| "counting rows".clone_into(&mut progress.phase));
    let (total, late_rows) = source.counts(&request, &vectors).await?;
    tell(&|progress| {
        progress.total = (!request.deduplicate).then_some(total);
        "sorting and writing rows".clone_into(&mut progress.phase);
    });
    let attempt = job.last().attempt;
    let folder = job.folder(attempt);
    let named = (job.id.as_str(), job.order.canonical.clone());
    let about =
        survey::about(exports, named, (&source, &request), vectors.clone(), late_rows).await?;
    let mut writer = Writer::start(exports.store.clone(), &folder, &request, FILE_BYTES).await?;
    let mut rows = source.rows(&request, &vectors).await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        writer.write(&batch).await?;
        tell(&|progress| progress.rows += batch.num_rows() as u64);
    }
    let (files, digest) = writer.finish().await?;
    survey::expired(&source, &request).await??;
    if !request.deduplicate && digest.rows != total {
        // Counted and read are two looks; what lies below the vectors is the same in both.
        anyhow::bail!(
            "{} rows were read, and {total} counted just before: retention or a person took some",
            digest.rows
        );
    }
    let outcome = Outcome {
        rows: digest.rows,
        bytes: files.iter().map(|file| file.bytes).sum(),
        files: files.len() as u64,
        digest: digest.to_string(),
        gaps: about.gaps.len() as u64,
    };
    let manifest = Manifest {
        about,
        attempt,
        rows: outcome.rows,
        bytes: outcome.bytes,
        digest: outcome.digest.clone(),
        files,
        source: source.name().to_owned(),
        created_by: format!("aion {}", env!("CARGO_PKG_VERSION")),
    };
    let text = serde_json::to_vec_pretty(&manifest).context("write the manifest")?;
    fault::point("export.before_manifest");
    exports.store.put_entry(&format!("{folder}/{MANIFEST}"), text.into()).await?;
    fault::point("export.after_manifest");
    Ok(outcome)
}

/// The vectors of an export, once its boundary is closed and the store has every row below them; else what is missing.
async fn vectors(exports: &Exports, job: &Job) -> anyhow::Result<Result<Vectors, String>> {
    let request = exports.request_of(job)?;
    let source = exports.source(job.source()).map_err(anyhow::Error::msg)?;
    // Many may wait for hours: neither Kafka nor the store is asked before anything can have changed.
    if let Err(early) = too_early(request.boundary(), now()) {
        return Ok(Err(early.to_string()));
    }
    let tables = match exports.tables(&request).await {
        Err(cause @ closing::AskError::Unavailable(_)) => return Ok(Err(cause.to_string())),
        tables => tables?,
    };
    let closed = closing::close(&exports.journal, &source, &tables, request.boundary()).await?;
    let vectors = match closed {
        Ok(vectors) => vectors,
        Err(open) => return Ok(Err(open.to_string())),
    };
    let reached = closing::reached(&source, &tables, &vectors).await?;
    Ok(reached.map(|()| vectors).map_err(|open| open.to_string()))
}

fn fault_of(cause: &anyhow::Error) -> Fault {
    use aion_analytics::Error;
    let text = format!("{cause:#}");
    let error = cause.chain().find_map(|one| one.downcast_ref::<Error>());
    let (code, retryable) = match error {
        Some(Error::Memory { .. } | Error::Spill { .. }) => ("memory", false),
        Some(Error::Query(_) | Error::UnknownTable { .. } | Error::UnknownColumn { .. }) => {
            ("query", false)
        }
        _ if cause.downcast_ref::<closing::AskError>().is_some() => ("kafka", false),
        _ if cause.downcast_ref::<survey::Expired>().is_some() => ("expired", false),
        _ => ("failed", true),
    };
    Fault { code: code.to_owned(), message: text, retryable }
}

/// The empty file that says that an export is whole.
pub(super) async fn succeed(exports: &Exports, folder: &str) -> anyhow::Result<()> {
    let path = format!("{folder}/{SUCCESS}");
    if !exports.store.exists(&path).await? {
        exports.store.put_entry(&path, bytes::Bytes::new()).await?;
    }
    Ok(())
}

/// A process by a name of its own.
pub(super) fn process() -> Uuid {
    Uuid::new_v4()
}
