//! Takes up a policy file when it changes, or at SIGHUP: as a whole, or not at all. Meanwhile what it promises is held
//! against the topics that appear.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aion_kafka::{Admin, Error};
use aion_schemas::catalog::Catalog;
use tokio::{
    sync::{Mutex, watch::Sender},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Surroundings,
    client::Network,
    opened::Opened,
    policy::{Endpoint, Policy, Problem},
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

/// A policy's file, and what it is held against.
#[derive(Clone)]
pub(super) struct Ground {
    path: PathBuf,
    around: Surroundings,
    network: Network,
    /// Held by the look that is under way, also by one that nobody waits for any more.
    looking: Arc<Mutex<()>>,
}

impl Ground {
    /// Reads the authorities of the system.
    pub(super) fn of(path: PathBuf, around: Surroundings) -> Ground {
        Ground { path, around, network: Network::of_system(), looking: Arc::default() }
    }

    fn said(&self, problem: &Problem) -> String {
        said(&self.path, problem)
    }
}

/// Watches a file until `shutdown`, and until the look at the topics that is under way by then has ended. Whether the
/// file is refused is said by nobody else.
pub(super) async fn watch(
    (mut changes, mut kept): (Changes, Kept),
    (policies, statuses): (Sender<Arc<Opened>>, Statuses),
    shutdown: CancellationToken,
) {
    let mut looks = interval_at(Instant::now() + LOOK, LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let look = async {
            looks.tick().await;
            kept.look_again().await;
        };
        let is_changed = tokio::select! {
            is_changed = changes.next(&shutdown) => is_changed,
            () = look => continue,
        };
        if !is_changed {
            break;
        }
        let loading = load(&kept.ground, Some(kept.policy.as_ref()));
        let loaded = shutdown.run_until_cancelled(loading).await;
        match loaded {
            None => break,
            Some(Ok((opened, found))) => {
                kept = found;
                statuses.change(|status| status.policy_error = None);
                policies.send_replace(opened);
            }
            Some(Err(cause)) => {
                tracing::error!("webhooks: the policy is refused, the one before holds: {cause}");
                statuses.change(|status| status.policy_error = Some(cause));
            }
        }
    }
    drop(kept.ground.looking.lock().await);
}

/// Reads a policy, with the certificates that it names, and says what isn't wise in it; the error says what is wrong.
/// `before` is the one that is followed.
pub(super) async fn load(
    ground: &Ground,
    before: Option<&Policy>,
) -> Result<(Arc<Opened>, Kept), String> {
    let (policy, opened) = read(&ground.path, &ground.around.catalog, &ground.network)?;
    let kept = Kept::open(ground.clone(), Arc::clone(&policy), before).await;
    let kept = kept.map_err(|problem| ground.said(&problem))?;
    for warning in &policy.warnings {
        tracing::warn!("{}", ground.said(warning));
    }
    Ok((Arc::new(opened), kept))
}

/// Reads a policy, with the certificates that it names.
pub(super) fn read(
    path: &Path,
    catalog: &Catalog,
    network: &Network,
) -> Result<(Arc<Policy>, Opened), String> {
    let policy = Arc::new(Policy::load(path, catalog).map_err(|cause| cause.to_string())?);
    let opened = Opened::of(&policy, network).map_err(|problem| said(path, &problem))?;
    Ok((policy, opened))
}

fn said(file: &Path, problem: &Problem) -> String {
    format!("{}:{}: {}", file.display(), problem.line, problem.reason)
}

/// A policy beside what the cluster's topics keep.
pub(super) struct Kept {
    ground: Ground,
    policy: Arc<Policy>,
    /// The topics that were looked at since `begun`.
    known: HashSet<String>,
    begun: Instant,
    /// Whether some topics gave no answer; that is said once.
    is_unknown: bool,
}

impl Kept {
    /// Looks at all topics; the error is why the policy isn't taken. Of an entry that promises no more than it did
    /// `before` it is only said: refused, the policy would still be promised by the one before. A cluster that gives
    /// no answer doesn't stop anybody: nothing is delivered from it before it does, and it is asked again.
    async fn open(
        ground: Ground,
        policy: Arc<Policy>,
        before: Option<&Policy>,
    ) -> Result<Kept, Problem> {
        let (known, begun) = (HashSet::new(), Instant::now());
        let mut kept = Kept { ground, policy, known, begun, is_unknown: false };
        let found = kept.look().await;
        let is_new = |one: &Arc<Endpoint>| before.is_none_or(|before| !promises(before, one));
        if let Some((_, problem)) = found.iter().find(|(endpoint, _)| is_new(endpoint)) {
            return Err(problem.clone());
        }
        kept.tell(&found);
        Ok(kept)
    }

    /// Looks at the topics that are new, and says what they don't keep for long enough. The policy holds all the same:
    /// no event is better off with none.
    async fn look_again(&mut self) {
        if self.begun.elapsed() >= ANEW {
            self.begun = Instant::now();
            self.known.clear();
        }
        let found = self.look().await;
        self.tell(&found);
    }

    /// Who stops waiting for it ends the look, after the question that it is at.
    async fn look(&mut self) -> Vec<(Arc<Endpoint>, Problem)> {
        let at_work = Arc::clone(&self.ground.looking).lock_owned().await;
        let unwanted = CancellationToken::new();
        let _end = unwanted.clone().drop_guard();
        let around = self.ground.around.clone();
        let policy = Arc::clone(&self.policy);
        let mut known = std::mem::take(&mut self.known);
        let asked = tokio::task::spawn_blocking(move || {
            let looked = match Admin::open(&around.connection, WAIT) {
                Ok(admin) => {
                    retention::look(&admin, &policy, &around.catalog, &mut known, &unwanted)
                }
                Err(cause) => Looked { unknown: Some(cause), ..Looked::default() },
            };
            drop(at_work);
            (known, looked)
        });
        let Ok((known, looked)) = asked.await else { return Vec::new() };
        self.known = known;
        self.tell_unknown(looked.unknown.as_ref());
        looked.problems
    }

    fn tell(&self, found: &[(Arc<Endpoint>, Problem)]) {
        for (_, problem) in found {
            tracing::warn!(
                "webhooks: what isn't delivered in time will be lost: {}",
                self.ground.said(problem)
            );
        }
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

/// Whether a policy has that entry, for the same topics and as long.
fn promises(policy: &Policy, endpoint: &Endpoint) -> bool {
    policy.endpoint(&endpoint.id).is_some_and(|one| {
        one.max_age == endpoint.max_age && one.pattern_texts() == endpoint.pattern_texts()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::net::{SocketAddr, TcpListener};

    use aion_embedded::{Broker, Settings};
    use aion_kafka::{Connection, NewTopic};

    use super::*;

    const HOUR: &[(&str, &str)] = &[("retention.ms", "3600000")];

    fn ground(broker: SocketAddr) -> Ground {
        let (connection, catalog) =
            (Connection::to(broker.to_string()), Arc::new(Catalog::builtin()));
        Ground::of(PathBuf::from("test.yaml"), Surroundings { connection, catalog, registry: None })
    }

    /// An address that stays free while nobody listens there: clients are given ports from 32768 on.
    fn address() -> SocketAddr {
        (0..1_000)
            .map(|_| SocketAddr::from(([127, 0, 0, 1], rand::random_range(20_000..32_768_u16))))
            .find(|address| TcpListener::bind(address).is_ok())
            .unwrap()
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

    async fn delete(broker: &Broker, name: &'static str) {
        let admin = Admin::open(&Connection::to(broker.address().to_string()), WAIT).unwrap();
        tokio::task::spawn_blocking(move || admin.delete_topics(&[name]).map(drop))
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_too_shortly_is_found_at_once_and_in_topics_that_come_later() {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(Settings::new(folder.path())).await.unwrap();
        let ground = ground(broker.address());
        create(&broker, "test.hour", HOUR).await;
        create(&broker, "others.hour", HOUR).await;
        let refused = Kept::open(ground.clone(), policy("2h"), None).await.err().unwrap();
        assert!(refused.line == 2 && refused.reason.contains("test.hour"), "{refused:?}");
        let mut kept = Kept::open(ground.clone(), policy("1h"), None).await.ok().unwrap();
        create(&broker, "test.minute", &[("retention.ms", "60000")]).await;
        let found = kept.look().await;
        assert!(found.len() == 1 && found[0].1.reason.contains("test.minute"), "{found:?}");
        assert!(kept.look().await.is_empty(), "it is told once");
        delete(&broker, "test.minute").await;
        assert!(kept.look().await.is_empty());
        create(&broker, "test.minute", &[("retention.ms", "60000")]).await;
        assert_eq!(kept.look().await.len(), 1, "one that is made anew is another");
        assert!(!kept.is_unknown);
        let (same, other) = (policy("1h"), policy("30m"));
        let open = |before| Kept::open(ground.clone(), policy("1h"), before);
        assert!(open(Some(same.as_ref())).await.is_ok(), "an entry that stands as it did");
        assert!(open(Some(other.as_ref())).await.is_err());
        assert!(open(None).await.is_err());
        broker.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cluster_that_gives_no_answer_stops_nobody_and_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let listen = address();
        let settings = || Settings { listen, ..Settings::new(folder.path()) };
        let broker = Broker::start(settings()).await.unwrap();
        create(&broker, "test.hour", HOUR).await;
        broker.stop().await.unwrap();
        let mut kept = Kept::open(ground(listen), policy("2h"), None).await.ok().unwrap();
        assert!(kept.is_unknown && kept.known.is_empty());
        let broker = Broker::start(settings()).await.unwrap();
        assert_eq!(kept.look().await.len(), 1);
        assert!(!kept.is_unknown);
        broker.stop().await.unwrap();
    }
}
