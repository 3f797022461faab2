//! Takes up a policy file when it changes, or at SIGHUP: as a whole, or not at all. Meanwhile what it promises is held
//! against the topics that appear.

use std::{
    collections::HashSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aion_kafka::{Admin, Error};
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use super::{
    Surroundings,
    policy::{Policy, Problem},
    retention::{self, Looked},
    status::Statuses,
};
use crate::policy_file::Changes;

/// How long a question to the cluster may take.
const WAIT: Duration = Duration::from_secs(5);
/// How often topics that are new are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often all are: what they keep may be changed.
const ANEW: Duration = Duration::from_mins(10);

/// Watches a file until `shutdown`.
pub(super) async fn watch(
    (mut changes, mut kept): (Changes, Kept),
    (policies, statuses): (Sender<Arc<Policy>>, Statuses),
    shutdown: CancellationToken,
) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            is_changed = changes.next(&shutdown) => if !is_changed { return },
            _ = looks.tick() => {
                kept.look_again(changes.path()).await;
                continue;
            }
        }
        match load(changes.path(), &kept.around).await {
            Ok((policy, found)) => {
                kept = found;
                // Whoever follows it says so.
                policies.send_replace(policy);
            }
            Err(cause) => {
                tracing::error!("webhooks: the policy is refused, the one before holds: {cause}");
                statuses.change(|status| status.policy_error = Some(cause));
            }
        }
    }
}

/// Reads a policy, and says what isn't wise in it; the error says all that is wrong.
pub(super) async fn load(
    path: &Path,
    around: &Surroundings,
) -> Result<(Arc<Policy>, Kept), String> {
    let policy = Policy::load(path, &around.catalog).map_err(|cause| cause.to_string())?;
    let policy = Arc::new(policy);
    let kept = Kept::open(around.clone(), Arc::clone(&policy)).await;
    let kept = kept.map_err(|problem| said(path, &problem))?;
    for warning in &policy.warnings {
        tracing::warn!("{}", said(path, warning));
    }
    Ok((policy, kept))
}

fn said(path: &Path, problem: &Problem) -> String {
    format!("{}:{}: {}", path.display(), problem.line, problem.reason)
}

/// A policy beside what the cluster's topics keep.
pub(super) struct Kept {
    around: Surroundings,
    policy: Arc<Policy>,
    /// The topics that were looked at since `begun`.
    known: HashSet<String>,
    begun: Instant,
    /// Whether some topics gave no answer; that is said once.
    is_unknown: bool,
}

impl Kept {
    /// Looks at all topics; the error is why the policy isn't taken. A cluster that gives no answer doesn't stop
    /// anybody: nothing is delivered from it before it does, and it is asked again.
    async fn open(around: Surroundings, policy: Arc<Policy>) -> Result<Kept, Problem> {
        let (known, begun) = (HashSet::new(), Instant::now());
        let mut kept = Kept { around, policy, known, begun, is_unknown: false };
        match kept.look().await.into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(kept),
        }
    }

    /// Looks at the topics that are new, and says what they don't keep for long enough. The policy holds all the same:
    /// no event is better off with none.
    async fn look_again(&mut self, path: &Path) {
        if self.begun.elapsed() >= ANEW {
            self.begun = Instant::now();
            self.known.clear();
        }
        for problem in self.look().await {
            tracing::warn!(
                "webhooks: what isn't delivered in time will be lost: {}",
                said(path, &problem)
            );
        }
    }

    async fn look(&mut self) -> Vec<Problem> {
        let around = self.around.clone();
        let policy = Arc::clone(&self.policy);
        let mut known = std::mem::take(&mut self.known);
        let asked = tokio::task::spawn_blocking(move || {
            let looked = match Admin::open(&around.connection, WAIT) {
                Ok(admin) => retention::look(&admin, &policy, &around.catalog, &mut known),
                Err(cause) => Looked { unknown: Some(cause), ..Looked::default() },
            };
            (known, looked)
        });
        let Ok((known, looked)) = asked.await else { return Vec::new() };
        self.known = known;
        self.tell_unknown(looked.unknown.as_ref());
        looked.problems
    }

    fn tell_unknown(&mut self, cause: Option<&Error>) {
        if let (Some(cause), false) = (cause, self.is_unknown) {
            tracing::warn!(
                "webhooks: how long topics keep their records isn't known, so nobody sees whether the policy tries \
                 for longer: {cause}; they are asked again every {} s",
                LOOK.as_secs()
            );
        }
        self.is_unknown = cause.is_some();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use aion_embedded::{Broker, Settings};
    use aion_kafka::{Connection, NewTopic};
    use aion_schemas::catalog::Catalog;

    use super::*;

    const HOUR: &[(&str, &str)] = &[("retention.ms", "3600000")];

    fn around(broker: &str) -> Surroundings {
        let (connection, catalog) = (Connection::to(broker), Arc::new(Catalog::builtin()));
        Surroundings { connection, catalog, registry: None }
    }

    fn policy(max_age: &str) -> Arc<Policy> {
        let text = format!(
            "webhooks:\n- {{url: \"https://a.example/\", secret: a-secret-for-tests-only, topics: [\"test.*\"], \
             retry: {{initial_interval: 1s, max_interval: 1s, max_attempts: 2}}, max_age: {max_age}}}\n"
        );
        Arc::new(Policy::parse(&text, &Catalog::builtin()).unwrap())
    }

    async fn create(broker: &Broker, name: &'static str, configs: &'static [(&str, &str)]) {
        let admin = Admin::open(&Connection::to(broker.address().to_string()), WAIT).unwrap();
        let topic = NewTopic { topic: name, partitions: 1, replication: 1, configs };
        tokio::task::spawn_blocking(move || admin.create_topics(&[topic]).map(drop))
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_too_shortly_is_found_at_once_and_in_topics_that_come_later() {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(Settings::new(folder.path())).await.unwrap();
        let around = around(&broker.address().to_string());
        create(&broker, "test.hour", HOUR).await;
        create(&broker, "others.hour", HOUR).await;
        let refused = Kept::open(around.clone(), policy("2h")).await.err().unwrap();
        assert!(refused.line == 2 && refused.reason.contains("test.hour"), "{refused:?}");
        let mut kept = Kept::open(around, policy("1h")).await.ok().unwrap();
        create(&broker, "test.minute", &[("retention.ms", "60000")]).await;
        let found = kept.look().await;
        assert!(found.len() == 1 && found[0].reason.contains("test.minute"), "{found:?}");
        assert!(kept.look().await.is_empty(), "it is told once");
        assert!(!kept.is_unknown);
        broker.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cluster_that_gives_no_answer_stops_nobody_and_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(Settings::new(folder.path())).await.unwrap();
        create(&broker, "test.hour", HOUR).await;
        let listen = broker.address();
        broker.stop().await.unwrap();
        let mut kept = Kept::open(around(&listen.to_string()), policy("2h")).await.ok().unwrap();
        assert!(kept.is_unknown && kept.known.is_empty());
        let settings = Settings { listen, ..Settings::new(folder.path()) };
        let broker = Broker::start(settings).await.unwrap();
        assert_eq!(kept.look().await.len(), 1);
        assert!(!kept.is_unknown);
        broker.stop().await.unwrap();
    }
}
