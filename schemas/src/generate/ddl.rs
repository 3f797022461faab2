//! The ClickHouse tables, as files that `clickhouse-client` runs.

use super::GeneratedFile;
use crate::{
    catalog::{Catalog, Environment},
    clickhouse::{self, DATABASE, Statement},
};

/// What the cluster is called in the replicated variant.
const CLUSTER: &str = "'{cluster}'";

const HEAD: &str = "-- Generated from schemas/ by `aion schemas generate`: edit there, not here.\n";

/// One file for what is no topic's, one for each topic, and all of it once more for a cluster.
pub(super) fn files(catalog: &Catalog) -> Vec<GeneratedFile> {
    let prod = Environment::Prod;
    let first = [clickhouse::database(DATABASE, None), clickhouse::marks(DATABASE, None)];
    let mut files = vec![file("00_database", HEAD, &first)];
    for topic in &catalog.topics {
        let of_topic = clickhouse::of_topic(topic, DATABASE, prod, None);
        files.push(file(&topic.table, HEAD, &of_topic));
    }
    let head = format!(
        "{HEAD}-- For a cluster: the servers' macros say its name, the shard and the replica.\n"
    );
    let replicated = clickhouse::statements(catalog, DATABASE, prod, Some(CLUSTER));
    files.push(file("replicated", &head, &replicated));
    files
}

fn file(name: &str, head: &str, statements: &[Statement]) -> GeneratedFile {
    let statements: Vec<&str> = statements.iter().map(|statement| &*statement.sql).collect();
    let text = format!("{head}\n{};\n", statements.join(";\n\n"));
    GeneratedFile { path: format!("bigdata/clickhouse/{name}.sql"), text }
}
