//! Can this table give the guarantee? Looked at before the first partition is assigned.
//!
//! | looked at | found | with it | because |
//! |---|---|---|---|
//! | engine | a replicated `MergeTree` | rows twice | its tokens live in Keeper, for which nothing is proven |
//! | engine | Distributed | rows lost | it splits a batch over shards, and acknowledges what isn't there yet |
//! | engine | any other | rows lost | Replacing and its like drop rows when parts merge |
//! | partition key | not `_batch_day` | rows lost | a batch would be several parts, and half of it could land |
//! | deduplication window | less than the contract's, or than four times the parts that come while an INSERT may be on its way | rows twice | a token would be forgotten before its writer is refused |
//! | the account's `deduplicate_insert` | `disable` | rows twice | the server passes over tokens |
//! | constraint `lease` | missing | rows twice | a writer that slept would not be refused |
//! | the table `marks` beside it | not ReplacingMergeTree(next), or a window below the contract's | rows lost | of two writers that open a table each would decide where its first batch begins |
//! | columns | one missing, of another type, or without nulls where there may be some | rows lost | rows would be stored otherwise than they are |
//! | the server's plan of reading the table, or `marks` | it filters rows by a policy; seen once there are parts | rows lost | what is hidden would be taken for missing, and sent again |
//! | several addresses | one where the table isn't replicated, or is another, or where that may not be asked | rows lost | what lands at one would be looked for at another |
//! | `fsync_after_insert`, `fsync_part_directory` | not on, here or at `marks` | a word | a power failure takes what the system had not written yet |
//! | `ttl_only_drop_parts` | not on, with a TTL | a word | the server writes parts anew to take out rows |
//! | the clock at each address | more than 5 s off, from this machine's or from another | a word | leases and TTLs go by it |
//! | materialized views that read from it | any | a word | `views` says what is behind them |
//!
//! What is refused then, and what is only told, is said by `guarantee`.

mod clocks;
mod rules;
mod views;

use std::sync::atomic::Ordering::Relaxed;

use aion_schemas::clickhouse::MARKS;

pub use self::{
    clocks::{Clock, far_off},
    rules::least_window,
};
use super::{
    ClickHouse, Settings, TableSpec,
    client::Client,
    failure::Failure,
    guarantee::{Finding, Guarantee, HINT, Weight, refuse},
    plan::{self, Live, quoted},
    replicas,
    table::{Table, off},
};
use crate::sink::SinkError;

/// What a table that gives the guarantee is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The server's version.
    pub version: String,
    /// So many tokens the table remembers, and so many it has to.
    pub window: (u64, u64),
    /// How long rows are kept, for people.
    pub kept: String,
    /// What its owner should know, and what to do about it.
    pub findings: Vec<Finding>,
    /// The clocks at the addresses that answer. The sink goes by them alone, of each held against the others'.
    pub clocks: Vec<Clock>,
}

impl Fit {
    /// The best that the table can give as it is.
    pub fn best(&self) -> Guarantee {
        let doubles = self.findings.iter().any(|one| one.weight == Weight::Doubles);
        if doubles { Guarantee::AtLeastOnce } else { Guarantee::ExactlyOnce }
    }
}

impl ClickHouse {
    /// Whether a table can give the guarantee: how, or as an error what to change.
    pub async fn fit(&self, spec: TableSpec, settings: Settings) -> Result<Fit, SinkError> {
        let table = self.table(spec, settings);
        let (live, findings) = whole(&table).await?;
        let doing = format!("look at {}", table.spec.name);
        let asked = self.client.ask("SELECT version()").await;
        let rows: Vec<(String,)> = asked.map_err(|failure| failure.error(&doing))?;
        let (version,) = rows.into_iter().next().unwrap_or_default();
        Ok(Fit {
            version,
            window: (live.window(), least_window(table.spec.partitions, &table.settings)),
            kept: plan::words(live.kept()),
            findings,
            clocks: clocks::look(&table.ledger.client).await,
        })
    }
}

/// Refuses a table that can't give the guarantee; learns how long it keeps rows, and where its tokens live.
pub(super) async fn table(table: &Table) -> Result<Live, SinkError> {
    let (live, findings) = whole(table).await?;
    for Finding { weight, what, hint } in &findings {
        let gives = match weight {
            Weight::Word => table.guarantee(),
            Weight::Doubles | Weight::Loses => Guarantee::AtLeastOnce,
        };
        tracing::warn!(table = table.spec.name, gives = gives.words(), "{what}; {hint}");
    }
    for what in far_off(&clocks::look(&table.ledger.client).await) {
        tracing::warn!(
            table = table.spec.name,
            "{what}; keep them together: leases and TTLs go by them"
        );
    }
    table.kept_days.store(live.deleted_after_days().unwrap_or(0), Relaxed);
    table.is_replicated.store(live.is_replicated(), Relaxed);
    Ok(live)
}

/// Refuses a table that was looked at before, if it is another by now; what was told then isn't told again.
pub(super) async fn again(table: &Table) -> Result<(), SinkError> {
    let (_, findings) = look(table).await?;
    refuse(table.guarantee(), &doing(table), &findings)
}

/// A table that can give the guarantee, at each of its addresses, and what there is to say of it.
async fn whole(table: &Table) -> Result<(Live, Vec<Finding>), SinkError> {
    let (live, mut findings) = look(table).await?;
    if !off!(table, Replicas) {
        let found = replicas::look(&table.ledger.client).await;
        findings.extend(found.map_err(|failure| failure.error(&doing(table)))?);
    }
    refuse(table.guarantee(), &doing(table), &findings)?;
    Ok((live, findings))
}

fn doing(table: &Table) -> String {
    format!("look at {}.{}", table.ledger.client.server().database, table.spec.name)
}

/// A table, and what there is to say of it.
async fn look(table: &Table) -> Result<(Live, Vec<Finding>), SinkError> {
    let client = &table.ledger.client;
    let name = &table.spec.name;
    let database = &client.server().database;
    let doing = doing(table);
    let failed = |failure: Failure| failure.error(&doing);
    let missing =
        |cause: String| SinkError::Fatal { doing: doing.clone(), cause, hint: HINT.to_owned() };
    let live = plan::live(client, name).await.map_err(failed)?;
    let Some(live) = live else { return Err(missing("there is no such table".to_owned())) };
    let Some(marks) = plan::live(client, MARKS).await.map_err(failed)? else {
        return Err(missing(format!("there is no table {database}.{MARKS} beside it")));
    };
    let least = least_window(table.spec.partitions, &table.settings);
    let mut findings: Vec<Finding> = rules::unfit_marks(&marks, database).into_iter().collect();
    match rules::distributed(&live) {
        Some((cluster, _)) => {
            let shards = shards(client, &cluster).await.map_err(failed)?;
            findings.push(rules::passes_on(&live, shards));
        }
        None => findings.extend(rules::unfit(&live, &format!("{database}.{name}"), least)),
    }
    for (name, live) in [(name.as_str(), &live), (MARKS, &marks)] {
        if live.engine.ends_with("MergeTree") {
            let read = plan_of_reading(client, name).await.map_err(failed)?;
            findings.extend(rules::hidden(&read, &format!("{database}.{name}")));
        }
    }
    findings.extend(rules::unlike(&live, &table.spec));
    findings
        .extend([rules::fragile(&live, name), rules::fragile(&marks, MARKS)].into_iter().flatten());
    findings.extend(rules::piecemeal(&live));
    findings.extend(rules::passed_over(&deduplicate_insert(client).await.map_err(failed)?));
    findings.extend(views::look(client, &live, least).await.map_err(failed)?);
    Ok((live, findings))
}

/// How the server would read a table for this account. Which policies there are it tells only those who may ask.
async fn plan_of_reading(client: &Client, table: &str) -> Result<Vec<String>, Failure> {
    let database = &client.server().database;
    let sql = format!("EXPLAIN actions = 1 SELECT * FROM {database}.{table}");
    let rows: Vec<(String,)> = client.ask(&sql).await?;
    Ok(rows.into_iter().map(|(line,)| line).collect())
}

/// What the account's settings say of tokens; nothing where the server is older than that setting.
async fn deduplicate_insert(client: &Client) -> Result<String, Failure> {
    let sql = "SELECT value FROM system.settings WHERE name = 'deduplicate_insert'";
    let rows: Vec<(String,)> = client.ask(sql).await?;
    Ok(rows.into_iter().next().map_or_else(String::new, |(value,)| value))
}

/// How many shards a cluster has; 0 where the account doesn't see it.
async fn shards(client: &Client, cluster: &str) -> Result<u64, Failure> {
    let cluster = quoted(cluster);
    let sql = format!("SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = {cluster}");
    let rows: Vec<(u64,)> = match client.ask(&sql).await {
        Err(Failure::Refused { code: 497, .. }) => return Ok(0),
        answer => answer?,
    };
    Ok(rows.into_iter().next().map_or(0, |(count,)| count))
}
