//! Several addresses: are they replicas of one table?
//!
//! Rows that land at one address are looked for at another. Where that isn't the same table they would be missing there,
//! and be sent again.
//!
//! | what an address has | when the table is looked at | later, before it is asked for the first time |
//! |---|---|---|
//! | the same table, in the same Keeper | it is asked | the same |
//! | another table, or a plain one | the job is refused | it isn't asked |
//! | the same, with a replica that was made since the others were looked at | | it isn't asked: those that know would have to say it again, and they are what fails |
//! | no right to be asked that | the job is refused | it isn't asked |
//! | no answer | told, and not asked | it isn't asked |
//!
//! **Invariant:** once a table was looked at, no address is asked for it that wasn't.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use aion_schemas::clickhouse::MARKS;

use super::{
    client::Client,
    failure::{Class, Failure},
    guarantee::{Finding, Weight},
    plan::quoted,
};

/// A table that is replicated, as one server says of it: its name, its path in Keeper, the replica's name, how many
/// replicas there are, and which server it is.
pub(super) type Replica = (String, String, String, u32, String);

/// An address, and its replicas.
type Found = (String, Vec<Replica>);

/// What addresses have of one table and of the marks beside it.
#[derive(Debug)]
pub(crate) struct Replicas {
    tables: [String; 2],
    question: String,
    /// What was found, by the place of the address; empty before the table was looked at.
    found: Mutex<BTreeMap<usize, Found>>,
}

impl Replicas {
    /// Of a table that was not looked at yet.
    pub(super) fn new(database: &str, table: &str) -> Replicas {
        let question = format!(
            "SELECT table, zookeeper_path, replica_name, total_replicas, toString(serverUUID())
            FROM system.replicas WHERE database = {} AND table IN ({}, {})",
            quoted(database),
            quoted(table),
            quoted(MARKS)
        );
        let tables = [table.to_owned(), MARKS.to_owned()];
        Replicas { tables, question, found: Mutex::default() }
    }

    /// What to ask an address.
    pub(super) fn question(&self) -> &str {
        &self.question
    }

    /// Whether an address may be asked without another look.
    pub(super) fn knows(&self, at: usize) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.is_empty() || found.contains_key(&at)
    }

    /// Takes in what an address has; an error where it isn't what the others have.
    pub(super) fn take(&self, at: usize, address: &str, has: Vec<Replica>) -> Result<(), Failure> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Found> = found.values().cloned().collect();
        all.push((address.to_owned(), has.clone()));
        if let Some(what) = self.tables.iter().find_map(|table| strange(table, &all)) {
            return Err(Failure::Unreached(what));
        }
        found.insert(at, (address.to_owned(), has));
        Ok(())
    }
}

/// Looks at each address; what there is to say of them. An error where none answers.
pub(super) async fn look(client: &Client) -> Result<Vec<Finding>, Failure> {
    let Some(replicas) = client.replicas() else { return Ok(Vec::new()) };
    let mut found: BTreeMap<usize, Found> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut silent = None;
    for (at, url) in client.server().urls.iter().enumerate() {
        match client.replicas_at(at, replicas.question()).await {
            Ok(has) => drop(found.insert(at, (url.to_string(), has))),
            Err(failure) => {
                findings.push(unlooked(url.as_str(), &failure));
                silent = Some(failure);
            }
        }
    }
    let all: Vec<Found> = found.values().cloned().collect();
    let others = replicas.tables.iter().filter_map(|table| strange(table, &all));
    findings.extend(others.map(|what| {
        let hint = "name one server in clickhouse.url, or only such as have replicas of the same tables \
                    (bigdata/clickhouse/replicated.sql)";
        Finding::new(Weight::Loses, what).hinted(hint)
    }));
    let may_pass = findings.iter().all(|one| one.weight == Weight::Word);
    if let Some(failure) = silent.filter(|_| found.is_empty() && may_pass) {
        return Err(failure);
    }
    *replicas.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    Ok(findings)
}

/// An address that was not looked at: whether it may ever be is for a person to say, unless that passes.
fn unlooked(address: &str, failure: &Failure) -> Finding {
    let what = format!("{address} was not looked at: {}", failure.clone().text());
    match failure.class() {
        Class::Fatal(_) if matches!(failure, Failure::Refused { code: 497, .. }) => {
            let hint = "GRANT SELECT ON system.replicas TO the account of [clickhouse]";
            Finding::new(Weight::Loses, what).hinted(hint)
        }
        Class::Fatal(hint) => Finding::new(Weight::Loses, what).hinted(hint),
        Class::Retry | Class::Lease | Class::Running | Class::Size | Class::Row => {
            let hint = "it is asked once it answers, and has the same tables";
            Finding::new(Weight::Word, what).hinted(hint)
        }
    }
}

/// What the first address is that doesn't have the same table as those before it.
fn strange(table: &str, all: &[Found]) -> Option<String> {
    let mut known: Option<(&str, &Replica)> = None;
    // The server of each replica, and its address.
    let mut servers: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (address, has) in all {
        let Some(replica) = has.iter().find(|(name, ..)| name == table) else {
            let what = "it has rows of its own there";
            return Some(format!("{table} is not replicated at {address}: {what}"));
        };
        let (_, path, name, total, server) = replica;
        let (other, (_, their_path, _, their_total, _)) =
            *known.get_or_insert((address.as_str(), replica));
        if path != their_path {
            return Some(format!(
                "{table} at {address} ({path}) is another table than at {other} ({their_path})"
            ));
        }
        if total != their_total {
            return Some(format!(
                "{table} has {total} replicas by {address}, and {their_total} by {other}: they have a Keeper each"
            ));
        }
        let (known_server, where_else) =
            *servers.entry(name.as_str()).or_insert((server.as_str(), address.as_str()));
        if known_server != server {
            return Some(format!(
                "{table} is the replica {name} at {address} and at {where_else}, which are two servers: they have a Keeper \
                 each"
            ));
        }
    }
    let names: Vec<&str> = servers.into_keys().collect();
    let total = known.map_or(0, |(_, (.., total, _))| *total as usize);
    (names.len() > total).then(|| {
        let names = names.join(", ");
        format!("{table} has {total} replicas by its Keeper, and {names} answer: they have a Keeper each")
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// Its path, the replica's name, how many there are, and the server.
    fn replica(path: &str, name: &str, total: u32, server: &str) -> Replica {
        ("tasks".to_owned(), path.to_owned(), name.to_owned(), total, server.to_owned())
    }

    fn at(address: &str, has: &[&Replica]) -> Found {
        (address.to_owned(), has.iter().map(|one| (*one).clone()).collect())
    }

    fn said(all: &[Found]) -> String {
        strange("tasks", all).unwrap_or_default()
    }

    #[test]
    fn addresses_have_to_be_replicas_of_one_table() {
        let (one, two) = (replica("/t/1", "r1", 2, "s1"), replica("/t/1", "r2", 2, "s2"));
        assert_eq!(said(&[at("a", &[&one]), at("b", &[&two])]), "");
        assert_eq!(said(&[at("a", &[&one]), at("c", &[&one])]), "", "by two ways");
        assert_eq!(said(&[]), "");
        let shard = replica("/t/2", "r1", 2, "s3");
        let shards = said(&[at("a", &[&one]), at("b", &[&shard])]);
        assert_eq!(shards, "tasks at b (/t/2) is another table than at a (/t/1)");
        let plain = said(&[at("a", &[&one]), at("b", &[])]);
        assert!(plain.starts_with("tasks is not replicated at b"), "{plain}");
        assert!(
            said(&[at("a", &[]), at("b", &[&one])]).starts_with("tasks is not replicated at a")
        );
    }

    #[test]
    fn the_same_path_in_two_keepers_is_two_tables() {
        let alone = |name: &str, total: u32, server: &str| replica("/t/1", name, total, server);
        for (first, second, says) in [
            (
                alone("r1", 1, "s1"),
                alone("r2", 1, "s2"),
                "has 1 replicas by its Keeper, and r1, r2",
            ),
            (alone("r1", 2, "s1"), alone("r2", 3, "s2"), "3 replicas by b, and 2 by a"),
            (alone("r1", 1, "s1"), alone("r1", 1, "s2"), "replica r1 at b and at a, which are two"),
        ] {
            let told = said(&[at("a", &[&first]), at("b", &[&second])]);
            assert!(told.contains(says), "{told}");
        }
    }

    #[test]
    fn what_was_not_looked_at_is_not_asked_once_anything_was() {
        let with_marks = |mut one: Replica| {
            let table = vec![one.clone()];
            one.0 = MARKS.to_owned();
            [table, vec![one]].concat()
        };
        let replicas = Replicas::new("aion", "tasks");
        assert!(replicas.knows(0) && replicas.knows(1), "the look itself asks");
        let one = with_marks(replica("/t/1", "r1", 2, "s1"));
        replicas.take(0, "a", one.clone()).unwrap();
        assert!(replicas.knows(0) && !replicas.knows(1));
        assert!(replicas.take(1, "b", Vec::new()).is_err() && !replicas.knows(1));
        replicas.take(1, "b", with_marks(replica("/t/1", "r2", 2, "s2"))).unwrap();
        assert!(replicas.knows(1));
    }

    #[test]
    fn who_may_not_look_is_refused_and_who_gets_no_answer_is_told() {
        let refused = |code| Failure::Refused { code, text: "no".to_owned(), status: 403 };
        let grant = unlooked("b", &refused(497));
        assert_eq!(grant.weight, Weight::Loses);
        assert!(grant.hint.contains("GRANT SELECT ON system.replicas"), "{grant:?}");
        let stranger = unlooked("b", &refused(516));
        assert_eq!(stranger.weight, Weight::Loses);
        assert!(stranger.hint.contains("user and password"), "{stranger:?}");
        assert_eq!(unlooked("b", &refused(202)).weight, Weight::Word);
        assert_eq!(unlooked("b", &Failure::Unreached("no".to_owned())).weight, Weight::Word);
    }
}
