//! Several addresses: are they replicas of one table?
//!
//! Rows that land at one address are looked for at another. Where that isn't the same table, by its path in Keeper, they
//! would be missing there, and be sent again.

use aion_schemas::clickhouse::MARKS;

use crate::clickhouse::{
    client::Client,
    failure::Failure,
    guarantee::{Finding, Weight},
    plan::quoted,
};

/// An address, and what its server says: tables and their paths in Keeper, of those that are replicated.
type Answer = (String, Result<Vec<(String, String)>, Failure>);

/// What there is to say of a table and of the marks beside it at each address.
pub(super) async fn look(client: &Client, table: &str) -> Vec<Finding> {
    let sql = format!(
        "SELECT table, zookeeper_path FROM system.replicas WHERE database = {} AND table IN ({}, {})",
        quoted(&client.server().database),
        quoted(table),
        quoted(MARKS)
    );
    let mut answers: Vec<Answer> = Vec::new();
    for (address, one) in client.each() {
        answers.push((address, one.ask(&sql).await));
    }
    let silent = answers.iter().filter_map(|(address, answer)| {
        let failure = answer.as_ref().err()?;
        let what = format!("{address} was not looked at: {}", failure.clone().text());
        let hint = "ask `aion validate --connect` whether it has the same tables once it answers";
        Some(Finding::new(Weight::Word, what).hinted(hint))
    });
    silent.chain([table, MARKS].iter().filter_map(|name| strange(name, &answers))).collect()
}

/// The first address that doesn't have the same table as those before it.
fn strange(table: &str, answers: &[Answer]) -> Option<Finding> {
    let mut known: Option<(&str, &str)> = None;
    for (address, answer) in answers {
        let Ok(found) = answer else { continue };
        let path = found.iter().find(|(name, _)| name == table).map(|(_, path)| path.as_str());
        let what = match (path, known) {
            (None, _) => {
                format!("{table} is not replicated at {address}: it has rows of its own there")
            }
            (Some(path), Some((other, theirs))) if path != theirs => {
                format!("{table} at {address} ({path}) is another table than at {other} ({theirs})")
            }
            (Some(path), _) => {
                known = Some((address.as_str(), path));
                continue;
            }
        };
        let hint = "name one server in clickhouse.url, or only such as have replicas of the same tables \
                    (bigdata/clickhouse/replicated.sql)";
        return Some(Finding::new(Weight::Loses, what).hinted(hint));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str, found: &[(&str, &str)]) -> Answer {
        let owned = |(table, path): &(&str, &str)| ((*table).to_owned(), (*path).to_owned());
        (address.to_owned(), Ok(found.iter().map(owned).collect()))
    }

    fn said(answers: &[Answer]) -> String {
        let found = strange("tasks", answers);
        assert!(found.iter().all(|one| one.weight == Weight::Loses));
        found.map(|one| one.what).unwrap_or_default()
    }

    #[test]
    fn addresses_have_to_be_replicas_of_one_table() {
        let (one, two) = ([("tasks", "/t/1/tasks")], [("tasks", "/t/2/tasks")]);
        let dead = ("c".to_owned(), Err(Failure::Unreached("refused".to_owned())));
        let alike = [at("a", &one), dead, at("b", &one)];
        assert_eq!(said(&alike), "", "who doesn't answer can't be told from a replica");
        let shards = said(&[at("a", &one), at("b", &two)]);
        assert_eq!(shards, "tasks at b (/t/2/tasks) is another table than at a (/t/1/tasks)");
        let plain = said(&[at("a", &one), at("b", &[("marks", "/t/1/marks")])]);
        assert!(plain.starts_with("tasks is not replicated at b"), "{plain}");
        assert!(said(&[at("a", &[]), at("b", &one)]).starts_with("tasks is not replicated at a"));
    }
}
