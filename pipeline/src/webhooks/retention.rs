//! Whether topics keep their records for as long as a policy tries to deliver them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use aion_kafka::{Admin, Error};
use aion_schemas::catalog::Catalog;
use tokio_util::sync::CancellationToken;

use super::{
    pattern::any_matches,
    policy::{Endpoint, Policy, Problem},
};

/// How long records are kept, and whether they go by that at all: of a topic that is only compacted they don't.
const RETENTION: &str = "retention.ms";
const CLEANUP: &str = "cleanup.policy";
const DELETE: &str = "delete";

/// A setting of a topic: its name, its value, and whether it is the topic's own.
type Setting = (String, Option<String>, bool);

/// What a look at the topics found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What the policy promises for longer than the topics keep it, and the entry that does.
    pub(super) problems: Vec<(Arc<Endpoint>, Problem)>,
    /// Why some topics couldn't be looked at.
    pub(super) unknown: Option<Error>,
}

/// Looks at the topics of a policy that aren't `known` yet. Those that answered are known from then on, until they are
/// gone. Ends early when it is `unwanted`, and with the first question that the cluster doesn't answer: each of the
/// others would take its time, too.
pub(super) fn look(
    admin: &Admin,
    policy: &Policy,
    catalog: &Catalog,
    known: &mut HashSet<String>,
    unwanted: &CancellationToken,
) -> Looked {
    let mut looked = Looked::default();
    let names = match admin.topics() {
        Ok(names) => names,
        Err(cause) => return Looked { unknown: Some(cause), ..looked },
    };
    known.retain(|name| names.binary_search(name).is_ok());
    for name in names {
        if unwanted.is_cancelled() {
            break;
        }
        let wants = |one: &&Arc<Endpoint>| any_matches(&one.patterns, &name, catalog);
        let mut endpoints = policy.endpoints.iter().filter(wants).peekable();
        if endpoints.peek().is_none() || known.contains(&name) {
            continue;
        }
        match admin.describe_configs(&name) {
            Ok(settings) => {
                if let Some(kept) = kept(&settings) {
                    let short = |one: &Arc<Endpoint>| {
                        problem(one, &name, kept).map(|problem| (Arc::clone(one), problem))
                    };
                    looked.problems.extend(endpoints.filter_map(short));
                }
                known.insert(name);
            }
            // It went since it was listed.
            Err(Error::NotFound { .. }) => {}
            // One that we may not be told of says nothing of the others.
            Err(cause @ Error::Forbidden { .. }) => looked.unknown = Some(cause),
            Err(cause) => {
                looked.unknown = Some(cause);
                break;
            }
        }
    }
    looked
}

/// How long a topic with these settings keeps a record; `None` is without limit.
fn kept(settings: &[Setting]) -> Option<Duration> {
    let value = |name: &str| settings.iter().find(|one| one.0 == name)?.1.as_deref();
    let is_deleted = |how: &str| how.split(',').any(|one| one.trim() == DELETE);
    if !value(CLEANUP).is_none_or(is_deleted) {
        return None;
    }
    value(RETENTION)?.parse::<u64>().ok().map(Duration::from_millis)
}

fn problem(endpoint: &Endpoint, topic: &str, kept: Duration) -> Option<Problem> {
    let tried = endpoint.max_age;
    let (unit, name) = match kept.as_secs() {
        0..120 => (1, "s"),
        120..7_200 => (60, "min"),
        _ => (3_600, "h"),
    };
    (tried > kept).then(|| Problem {
        line: endpoint.line,
        reason: format!(
            "webhook {} tries for {} {name}, and topic {topic} keeps its records for {} {name}: shorten retry \
             or max_age, or keep them longer",
            endpoint.id,
            tried.as_secs().div_ceil(unit),
            kept.as_secs() / unit,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_by(cleanup: Option<&str>, retention: &str) -> Option<Duration> {
        let setting =
            |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned), true);
        kept(&[setting(CLEANUP, cleanup), setting(RETENTION, Some(retention))])
    }

    #[test]
    fn a_limit_is_one_only_where_records_go_by_their_age() {
        let hour = Some(Duration::from_hours(1));
        assert_eq!(kept_by(Some("delete"), "3600000"), hour);
        assert_eq!(kept_by(Some("compact, delete"), "3600000"), hour);
        assert_eq!(kept_by(None, "3600000"), hour);
        assert_eq!(kept_by(Some("compact"), "3600000"), None);
        assert_eq!(kept_by(Some("delete"), "-1"), None);
    }
}
