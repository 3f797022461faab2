//! From the catalog's accounts, readers and writers to Kafka's access rules.

use aion_kafka::{Acl, Operation, Resource};
use aion_schemas::catalog::Catalog;

use super::Principals;

/// The rules that the catalog asks for. Everything else is denied by the cluster's authorizer.
///
/// | account | on | may |
/// |---|---|---|
/// | a topic's writer | that topic | `Write` (an idempotent producer needs no more) |
/// | a topic's reader | that topic | `Read`; `DescribeConfigs`, to check how times are set |
/// | one with `groups` | groups whose names begin so | `Read` |
pub(super) fn rules(catalog: &Catalog, principals: &Principals) -> Vec<Acl> {
    let principal = |account: &str| {
        principals.get(account).map_or_else(|| format!("User:{account}"), Clone::clone)
    };
    let mut rules = Vec::new();
    let mut allow = |account: &str, operation, resource| {
        rules.push(Acl { principal: principal(account), operation, resource });
    };
    for topic in &catalog.of_cluster() {
        let resource = || Resource::Topic(topic.name.to_string());
        for writer in &topic.writers {
            allow(writer, Operation::Write, resource());
        }
        for reader in &topic.readers {
            allow(reader, Operation::Read, resource());
            allow(reader, Operation::DescribeConfigs, resource());
        }
    }
    for account in &catalog.accounts {
        if let Some(prefix) = &account.groups {
            allow(&account.name, Operation::Read, Resource::GroupsFrom(prefix.to_string()));
        }
    }
    rules
}
