//! What differs between the catalog and the cluster, step by step.

use std::{collections::BTreeMap, fmt};

use aion_kafka::{Acl, Admin, Error, NewTopic, Outcome, TopicIdentity};
use aion_schemas::catalog::{Catalog, Topic};

use super::{Wanted, access};

/// Everything that was compared, in the order in which it is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The steps, those included that need nothing.
    pub steps: Vec<Step>,
}

/// One thing that the catalog asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The topic is missing.
    Create {
        /// Its name.
        topic: String,
        /// The number of its partitions.
        partitions: i32,
        /// The number of its replicas.
        replication: i32,
        /// Its settings.
        configs: BTreeMap<String, String>,
    },
    /// Settings differ.
    Alter {
        /// The topic.
        topic: String,
        /// Name, value now, value wanted.
        changes: Vec<(String, Option<String>, String)>,
    },
    /// The topic has fewer partitions than wanted.
    Raise {
        /// The topic.
        topic: String,
        /// Partitions now.
        from: usize,
        /// Partitions wanted.
        to: usize,
        /// Whether it was asked for; else it is only reported.
        allowed: bool,
    },
    /// An access rule is missing.
    Allow(Acl),
    /// The topic is as wanted.
    TopicUnchanged(String),
    /// The rule is there.
    RuleUnchanged(Acl),
    /// The cluster has no access rules: everyone may do everything.
    NoAuthorizer(String),
}

/// A step, and what became of it.
pub type Done = (Step, Result<(), Error>);

impl Plan {
    /// Compares the cluster with what is wanted. Changes nothing.
    pub fn make(admin: &Admin, catalog: &Catalog, wanted: &Wanted) -> Result<Plan, Error> {
        let brokers = i32::try_from(admin.reach()?).unwrap_or(i32::MAX);
        let replication = wanted.replication.unwrap_or_else(|| brokers.clamp(1, 3));
        let topics = catalog.of_cluster();
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
        let mut steps = Vec::new();
        for (topic, known) in topics.iter().zip(admin.topic_ids(&names)?) {
            let target = Target::of(topic, wanted, replication);
            if known.id.is_none() {
                steps.push(target.create(topic));
            } else {
                steps.extend(target.differences(admin, topic, &known, wanted)?);
            }
        }
        if let Some(principals) = &wanted.access {
            steps.extend(rules(admin, access::rules(catalog, principals))?);
        }
        Ok(Plan { steps })
    }

    /// Does what has to be done; returns each step with what became of it.
    pub fn carry_out(self, admin: &Admin) -> Result<Vec<Done>, Error> {
        let created = create(admin, &self.steps)?;
        let (allowed, no_authorizer) = match allow(admin, &self.steps) {
            Ok(allowed) => (allowed, None),
            Err(Error::Configuration { detail, .. }) => (Vec::new(), Some(detail)),
            Err(error) => return Err(error),
        };
        let (mut created, mut allowed) = (created.into_iter(), allowed.into_iter());
        let mut steps = self.steps;
        if let Some(why) = no_authorizer {
            steps.retain(|step| !matches!(step, Step::Allow(_)));
            steps.push(Step::NoAuthorizer(why));
        }
        let done = |step: Step| {
            let outcome = match &step {
                Step::Create { .. } => created.next().map_or(Ok(()), result),
                Step::Allow(_) => allowed.next().map_or(Ok(()), result),
                Step::Alter { topic, changes } => alter(admin, topic, changes),
                Step::Raise { topic, to, allowed: true, .. } => {
                    admin.create_partitions(topic, *to).and_then(result)
                }
                Step::Raise { allowed: false, .. }
                | Step::TopicUnchanged(_)
                | Step::RuleUnchanged(_)
                | Step::NoAuthorizer(_) => Ok(()),
            };
            (step, outcome)
        };
        Ok(steps.into_iter().map(done).collect())
    }
}

impl Step {
    /// Whether carrying it out changes the cluster.
    pub fn changes(&self) -> bool {
        match self {
            Step::Create { .. } | Step::Alter { .. } | Step::Allow(_) => true,
            Step::Raise { allowed, .. } => *allowed,
            Step::TopicUnchanged(_) | Step::RuleUnchanged(_) | Step::NoAuthorizer(_) => false,
        }
    }

    /// The word for it at the beginning of a line.
    pub fn verb(&self) -> &'static str {
        match self {
            Step::Create { .. } | Step::Allow(_) => "create",
            Step::Alter { .. } | Step::Raise { allowed: true, .. } => "alter",
            Step::Raise { allowed: false, .. } => "differs",
            Step::TopicUnchanged(_) | Step::RuleUnchanged(_) => "unchanged",
            Step::NoAuthorizer(_) => "skipped",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create { topic, partitions, replication, configs } => {
                write!(f, "topic {topic}: partitions={partitions} replicas={replication}")?;
                configs.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
            }
            Step::Alter { topic, changes } => {
                write!(f, "topic {topic}:")?;
                changes.iter().try_for_each(|(name, from, to)| {
                    write!(f, " {name} {} -> {to}", from.as_deref().unwrap_or("(none)"))
                })
            }
            Step::Raise { topic, from, to, allowed } => {
                write!(f, "topic {topic}: partitions {from} -> {to}")?;
                if *allowed {
                    return Ok(());
                }
                f.write_str(
                    "; --raise-partitions does it, but later events of a key may then go to \
                     another partition than earlier ones",
                )
            }
            Step::Allow(acl) | Step::RuleUnchanged(acl) => write!(f, "allow {acl}"),
            Step::TopicUnchanged(topic) => write!(f, "topic {topic}"),
            Step::NoAuthorizer(why) => {
                write!(
                    f,
                    "access rules: the cluster has none, so everyone may do everything ({why})"
                )
            }
        }
    }
}

/// How one topic is to be.
struct Target {
    partitions: i32,
    replication: i32,
    configs: BTreeMap<String, String>,
}

impl Target {
    fn of(topic: &Topic, wanted: &Wanted, replication: i32) -> Target {
        let mut configs = topic.config(wanted.environment);
        // With three copies, two must have a record before it counts as written: one broker may be
        // lost without losing what was acknowledged, and may be down without stopping producers.
        let in_sync = if replication >= 3 { 2 } else { 1 };
        configs.insert("min.insync.replicas".to_owned(), in_sync.to_string());
        let partitions = match wanted.partitions {
            Some(partitions) if !topic.internal => partitions,
            _ => topic.partitions,
        };
        Target { partitions, replication, configs }
    }

    fn create(self, topic: &Topic) -> Step {
        Step::Create {
            topic: topic.name.to_string(),
            partitions: self.partitions,
            replication: self.replication,
            configs: self.configs,
        }
    }

    fn differences(
        self,
        admin: &Admin,
        topic: &Topic,
        known: &TopicIdentity,
        wanted: &Wanted,
    ) -> Result<Vec<Step>, Error> {
        let now = admin.describe_configs(&topic.name)?;
        let value_now = |name: &str| {
            now.iter().find(|(known, ..)| known == name).and_then(|(_, value, _)| value.clone())
        };
        let changes: Vec<_> = self
            .configs
            .into_iter()
            .map(|(name, to)| (value_now(&name), name, to))
            .filter(|(from, name, to)| {
                // A broker that doesn't have the setting at all can't be given it.
                let unknown = from.is_none() && !now.iter().any(|(known, ..)| known == name);
                !unknown && from.as_ref() != Some(to)
            })
            .map(|(from, name, to)| (name, from, to))
            .collect();
        let name = || topic.name.to_string();
        let mut steps = Vec::new();
        if !changes.is_empty() {
            steps.push(Step::Alter { topic: name(), changes });
        }
        let to = usize::try_from(self.partitions).unwrap_or_default();
        if known.partitions < to {
            let (from, allowed) = (known.partitions, wanted.raise_partitions);
            steps.push(Step::Raise { topic: name(), from, to, allowed });
        }
        if steps.is_empty() {
            steps.push(Step::TopicUnchanged(name()));
        }
        Ok(steps)
    }
}

fn rules(admin: &Admin, wanted: Vec<Acl>) -> Result<Vec<Step>, Error> {
    let known = match admin.acls() {
        Ok(known) => known,
        Err(Error::Configuration { detail, .. }) => return Ok(vec![Step::NoAuthorizer(detail)]),
        Err(error) => return Err(error),
    };
    let step = |acl: Acl| {
        if known.contains(&acl) { Step::RuleUnchanged(acl) } else { Step::Allow(acl) }
    };
    Ok(wanted.into_iter().map(step).collect())
}

/// Creates all missing topics in one request.
fn create(admin: &Admin, steps: &[Step]) -> Result<Vec<Outcome>, Error> {
    let mut all = Vec::new();
    for step in steps {
        if let Step::Create { topic, partitions, replication, configs } = step {
            let configs: Vec<_> = configs.iter().map(|(name, value)| (&**name, &**value)).collect();
            all.push((topic, *partitions, *replication, configs));
        }
    }
    let new: Vec<_> = all
        .iter()
        .map(|(topic, partitions, replication, configs)| NewTopic {
            topic,
            partitions: *partitions,
            replication: *replication,
            configs,
        })
        .collect();
    admin.create_topics(&new)
}

fn allow(admin: &Admin, steps: &[Step]) -> Result<Vec<Outcome>, Error> {
    let missing = steps.iter().filter_map(|step| match step {
        Step::Allow(acl) => Some(acl.clone()),
        _ => None,
    });
    admin.create_acls(&missing.collect::<Vec<_>>())
}

fn alter(
    admin: &Admin,
    topic: &str,
    changes: &[(String, Option<String>, String)],
) -> Result<(), Error> {
    let changes: Vec<_> = changes.iter().map(|(name, _, to)| (&**name, Some(&**to))).collect();
    admin.alter_configs(topic, &changes)
}

fn result(outcome: Outcome) -> Result<(), Error> {
    match outcome {
        // Someone else was faster.
        Outcome::Done | Outcome::Already => Ok(()),
        Outcome::Failed(error) => Err(error),
    }
}
