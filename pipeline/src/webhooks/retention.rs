//! Whether topics keep their records for as long as a policy tries to deliver them.

use std::{sync::Arc, time::Duration};

use aion_kafka::{Admin, Error};
use aion_schemas::catalog::Catalog;

use super::{
    pattern::any_matches,
    policy::{Endpoint, Policy, Problem},
};

const RETENTION: &str = "retention.ms";

/// What the policy promises for longer than the topics of this cluster keep it.
pub fn outlived(admin: &Admin, policy: &Policy, catalog: &Catalog) -> Result<Vec<Problem>, Error> {
    let names = admin.topics()?;
    let mut problems = Vec::new();
    for name in &names {
        let wants = |one: &&Arc<Endpoint>| any_matches(&one.patterns, name, catalog);
        let endpoints: Vec<_> = policy.endpoints.iter().filter(wants).collect();
        if endpoints.is_empty() {
            continue;
        }
        let settings = admin.describe_configs(name)?;
        let kept = settings.into_iter().find(|(setting, ..)| setting == RETENTION);
        let Some(kept) = kept.and_then(|(_, value, _)| retention(&value?)) else { continue };
        problems.extend(endpoints.into_iter().filter_map(|one| problem(one, name, kept)));
    }
    Ok(problems)
}

/// `None` is without limit.
fn retention(value: &str) -> Option<Duration> {
    value.parse::<i64>().ok().and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
}

fn problem(endpoint: &Endpoint, topic: &str, kept: Duration) -> Option<Problem> {
    let tried = endpoint.max_age;
    (tried > kept).then(|| Problem {
        line: endpoint.line,
        reason: format!(
            "webhook {} tries for {} h, and topic {topic} keeps its records for {} h: shorten retry or \
             max_age, or keep them longer",
            endpoint.id,
            tried.as_secs().div_ceil(3600),
            kept.as_secs() / 3600,
        ),
    })
}
