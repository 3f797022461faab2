//! Audits at intervals inside `aion run`, and what became of the last one.

use std::sync::{Arc, Mutex, PoisonError};

use aion_schemas::log::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    Counts, Report, Since, both, progress::Progress, report::Verdict, scope::Scope, since::now,
};
use crate::config::{AuditConfig, Config};

/// Memory for the questions to the lake: this runs beside the jobs.
const MEMORY_BYTES: usize = 64 << 20;
/// The first audit comes so many times sooner than the next: whoever has set it up soon sees whether it can be done.
const FIRST: u32 = 4;

/// The last audits of this process, for `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Audits(Arc<Mutex<Option<Last>>>);

/// The last audit, and the last that came to an end.
#[derive(Clone, Debug)]
pub struct Last {
    /// When it ended.
    pub at: Timestamp,
    /// Whether it could be carried out.
    pub succeeded: bool,
    /// What the last one that could be carried out found.
    pub report: Option<Arc<Report>>,
}

impl Audits {
    /// The last audit; none before the first.
    pub fn last(&self) -> Option<Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, report: Option<Report>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.take().and_then(|last| last.report);
        let succeeded = report.is_some();
        let report = report.map(Arc::new).or(before);
        *last = Some(Last { at: now(), succeeded, report });
    }
}

/// Audits again and again until `shutdown`; the first time after a part of the interval.
pub(crate) async fn run(
    config: Config,
    audit: AuditConfig,
    audits: Audits,
    shutdown: CancellationToken,
) {
    let mut scopes = match Scope::of_config(&config) {
        Ok(scopes) => scopes,
        Err(cause) => return complain(&cause),
    };
    for scope in &mut scopes {
        (scope.since, scope.memory_bytes) = (audit.since.map(Since::Ago), MEMORY_BYTES);
    }
    let scopes: Arc<[Scope]> = scopes.into();
    let mut pause = audit.every / FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
        pause = audit.every;
        let (scopes, cancel) = (Arc::clone(&scopes), shutdown.clone());
        let work = move || both::audit(&scopes, &Progress::none(), &cancel);
        let done = tokio::task::spawn_blocking(work).await;
        let report = done.unwrap_or_else(|broken| Err(broken.into()));
        if shutdown.is_cancelled() {
            return;
        }
        audits.note(report.inspect(tell).inspect_err(complain).ok());
    }
}

fn tell(report: &Report) {
    for topic in &report.topics {
        let Counts { missing, duplicate, unfounded, .. } = topic.counts();
        match topic.verdict {
            Verdict::Wrong => tracing::error!(
                topic = %topic.topic, sink = topic.sink, missing, duplicate, unfounded,
                "the audit found that the store isn't what the log says: `aion audit` says where"
            ),
            verdict => tracing::info!(
                topic = %topic.topic, sink = topic.sink, verdict = verdict.word(), "audited"
            ),
        }
    }
    if report.differing() > 0 {
        let offsets = report.differing();
        tracing::error!(
            offsets,
            "the lake and clickhouse say different things of records: `aion audit` says which"
        );
    }
}

fn complain(cause: &anyhow::Error) {
    tracing::warn!("the audit could not be carried out, and will be tried again: {cause:#}");
}
