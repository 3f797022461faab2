//! Access rules of a cluster.

use std::fmt;

use rdkafka::bindings::{rd_kafka_admin_op_t as Op, rd_kafka_resp_err_t as Code};

use super::{Admin, Outcome};
use crate::{Error, native::Rule};

/// One access rule: the principal may do this to what matches, from any host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// Who, as the cluster's authorizer names it: `User:router`.
    pub principal: String,
    /// What it may do.
    pub operation: Operation,
    /// To what.
    pub resource: Resource,
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// One topic.
    Topic(String),
    /// All topics whose names begin so.
    TopicsFrom(String),
    /// One consumer group.
    Group(String),
    /// All consumer groups whose names begin so.
    GroupsFrom(String),
    /// The cluster as a whole.
    Cluster,
}

/// What a rule allows; reading and writing include `Describe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Everything.
    All,
    /// Consume from a topic; join a group and commit in it.
    Read,
    /// Produce.
    Write,
    /// Create topics.
    Create,
    /// Delete.
    Delete,
    /// Change partitions, or access rules.
    Alter,
    /// Look up.
    Describe,
    /// Read settings.
    DescribeConfigs,
    /// Change settings.
    AlterConfigs,
}

impl Admin {
    /// Reads the access rules that this type can say: those that allow, for every host. None also where
    /// the cluster has no authorizer, or doesn't let this account read them: librdkafka drops that
    /// answer.
    pub fn acls(&self) -> Result<Vec<Acl>, Error> {
        let doing = "read the access rules".to_owned();
        let request = self.question(Op::RD_KAFKA_ADMIN_OP_DESCRIBEACLS, doing)?;
        let rules = request.describe_acls().inspect_err(|_| self.ask_another())?;
        Ok(rules.into_iter().filter_map(read).collect())
    }

    /// Creates access rules; those that exist are left. One outcome for each, in the order asked;
    /// [`Error::Configuration`] for all where the cluster has no authorizer.
    pub fn create_acls(&self, acls: &[Acl]) -> Result<Vec<Outcome>, Error> {
        if acls.is_empty() {
            return Ok(Vec::new());
        }
        let rules: Vec<Rule> = acls.iter().map(write).collect();
        let doing = "create access rules".to_owned();
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_CREATEACLS, doing)?;
        let outcome = |(acl, failure): (&Acl, Option<(i32, String)>)| match failure {
            None => Outcome::Done,
            Some((code, reason)) => {
                Outcome::Failed(Error::of(code, format!("allow: {acl}"), reason))
            }
        };
        let failures = request.create_acls(&rules)?;
        let no_authorizer = |failure: &Option<(i32, String)>| {
            failure.as_ref().is_some_and(|(code, _)| *code == SECURITY_DISABLED)
        };
        if failures.iter().any(no_authorizer) {
            let detail = "the cluster has no authorizer";
            return Err(Error::configuration("create access rules", detail));
        }
        Ok(acls.iter().zip(failures).map(outcome).collect())
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} on {}", self.principal, self.operation, self.resource)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::TopicsFrom(prefix) => write!(f, "topics {prefix}*"),
            Resource::Group(name) => write!(f, "group {name}"),
            Resource::GroupsFrom(prefix) => write!(f, "groups {prefix}*"),
            Resource::Cluster => f.write_str("the cluster"),
        }
    }
}

const SECURITY_DISABLED: i32 = Code::RD_KAFKA_RESP_ERR_SECURITY_DISABLED as i32;
/// The protocol's numbers, as librdkafka has them.
const TOPIC: i32 = 2;
const GROUP: i32 = 3;
const CLUSTER: i32 = 4;
const LITERAL: i32 = 3;
const PREFIXED: i32 = 4;
const ALLOW: i32 = 3;
const ANY_HOST: &str = "*";
const CLUSTER_NAME: &str = "kafka-cluster";
const OPERATIONS: [(Operation, i32); 9] = [
    (Operation::All, 2),
    (Operation::Read, 3),
    (Operation::Write, 4),
    (Operation::Create, 5),
    (Operation::Delete, 6),
    (Operation::Alter, 7),
    (Operation::Describe, 8),
    (Operation::DescribeConfigs, 10),
    (Operation::AlterConfigs, 11),
];

fn write(acl: &Acl) -> Rule {
    let (kind, pattern, name) = match &acl.resource {
        Resource::Topic(name) => (TOPIC, LITERAL, &**name),
        Resource::TopicsFrom(prefix) => (TOPIC, PREFIXED, &**prefix),
        Resource::Group(name) => (GROUP, LITERAL, &**name),
        Resource::GroupsFrom(prefix) => (GROUP, PREFIXED, &**prefix),
        Resource::Cluster => (CLUSTER, LITERAL, CLUSTER_NAME),
    };
    let number = OPERATIONS.iter().find(|(operation, _)| *operation == acl.operation);
    Rule {
        kind,
        name: name.to_owned(),
        pattern,
        principal: acl.principal.clone(),
        host: ANY_HOST.to_owned(),
        operation: number.map_or(0, |(_, number)| *number),
        permission: ALLOW,
    }
}

fn read(rule: Rule) -> Option<Acl> {
    if rule.permission != ALLOW || rule.host != ANY_HOST {
        return None;
    }
    let resource = match (rule.kind, rule.pattern) {
        (TOPIC, LITERAL) => Resource::Topic(rule.name),
        (TOPIC, PREFIXED) => Resource::TopicsFrom(rule.name),
        (GROUP, LITERAL) => Resource::Group(rule.name),
        (GROUP, PREFIXED) => Resource::GroupsFrom(rule.name),
        (CLUSTER, LITERAL) => Resource::Cluster,
        _ => return None,
    };
    let (operation, _) = OPERATIONS.iter().find(|(_, number)| *number == rule.operation)?;
    Some(Acl { principal: rule.principal, operation: *operation, resource })
}
