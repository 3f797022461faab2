//! Materialized views that read what is inserted: what can be said of the rows behind them.
//!
//! | the view's target | rows twice | a batch missing |
//! |---|---|---|
//! | a `MergeTree` with a deduplication window as wide as the table's | no: the INSERT's token goes on to it, since `deduplicate_blocks_in_dependent_materialized_views` is sent with each | yes |
//! | a `MergeTree` with less, or without | yes | yes |
//! | anything else | yes | yes |
//!
//! *A batch missing*: a part of the table is there before the rows behind its views are. Where a view fails, or the server
//! ends between the two, only the same INSERT sent again would fill it, and what the table has isn't sent again. Only a
//! projection is of the part itself.
//!
//! Views that are asked, and those that refresh by a clock, read what is stored, and are none of this.

use std::collections::{BTreeSet, VecDeque};

use crate::clickhouse::{
    client::Client,
    failure::Failure,
    guarantee::{Finding, Weight},
    plan::{self, Live, Name, quoted},
};

/// So many views are looked at, those behind views counted.
const MAX_VIEWS: usize = 100;

/// What there is to say of the views that read from a table, and of those that read behind them.
pub(super) async fn look(
    client: &Client,
    live: &Live,
    least_window: u64,
) -> Result<Vec<Finding>, Failure> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting: VecDeque<Name> = live.readers.iter().cloned().collect();
    while let Some(view) = waiting.pop_front() {
        if seen.len() == MAX_VIEWS || !seen.insert(view.clone()) {
            continue;
        }
        let target = target(client, &view).await?;
        let behind = match &target {
            Some(target) => plan::live_of(client, target).await?,
            None => None,
        };
        found.push(judge(&view, target.as_ref().zip(behind.as_ref()), least_window));
        waiting.extend(behind.into_iter().flat_map(|behind| behind.readers));
    }
    Ok(found)
}

/// The table that a view fills; `None` where the account may not see the view.
async fn target(client: &Client, view: &Name) -> Result<Option<Name>, Failure> {
    let (database, name) = view;
    let rows: Vec<(String, String)> = client
        .ask(&format!(
            "SELECT toString(uuid), create_table_query FROM system.tables WHERE database = {} AND name = {}",
            quoted(database),
            quoted(name)
        ))
        .await?;
    Ok(rows.into_iter().next().map(|(uuid, create)| target_of(view, &uuid, &create)))
}

/// `CREATE MATERIALIZED VIEW d.v TO d.t (columns) AS SELECT ..`; without `TO` the target is the view's own.
fn target_of((database, name): &Name, uuid: &str, create: &str) -> Name {
    let head = create.split(" (`").next().unwrap_or(create);
    if let Some((_, target)) = head.rsplit_once(" TO ") {
        let plain = target.replace('`', "");
        let (database, name) = plain.split_once('.').unwrap_or((database.as_str(), plain.as_str()));
        return (database.to_owned(), name.to_owned());
    }
    let has_id = uuid.chars().any(|digit| digit != '0' && digit != '-');
    let own = if has_id { format!(".inner_id.{uuid}") } else { format!(".inner.{name}") };
    (database.clone(), own)
}

/// What is said of a view, by the table that it fills.
fn judge(view: &Name, target: Option<(&Name, &Live)>, least_window: u64) -> Finding {
    let view = format!("the materialized view {}.{}", view.0, view.1);
    let word = |what: String, hint: String| Finding::new(Weight::Word, what).hinted(hint);
    let Some(((database, name), live)) = target else {
        let what =
            format!("{view} reads from the table, and this account doesn't see what it fills");
        return word(what, "grant it SHOW TABLES there to learn more".to_owned());
    };
    let target = format!("{database}.`{name}`");
    let misses = "misses one whose INSERT fails in it, or ends with the server";
    let (setting, engine) = (live.window_setting(), &live.engine);
    if !engine.ends_with("MergeTree") {
        let what = format!(
            "{view} may have a batch twice, since {target} is {engine} and knows no tokens, and {misses}"
        );
        let hint = format!("have it fill a MergeTree with {setting} = {least_window}");
        return word(what, hint);
    }
    // A replicated table has a window where it isn't given another.
    let window = live.setting(setting).or(live.is_replicated().then_some(least_window));
    let window = window.unwrap_or(0);
    if window < least_window {
        let what = format!(
            "{view} may have a batch twice, since {setting} of {target} is {window}, and {misses}"
        );
        let hint = format!("ALTER TABLE {target} MODIFY SETTING {setting} = {least_window}");
        return word(what, hint);
    }
    let hint = "what must be complete is better a projection, or a view that is asked".to_owned();
    word(format!("{view} has no batch twice, and {misses}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(database: &str, name: &str) -> Name {
        (database.to_owned(), name.to_owned())
    }

    #[test]
    fn the_target_is_named_or_the_views_own() {
        let view = name("aion", "hourly");
        let uuid = "5219a26f-697d-4b96-8984-422185f22b7f";
        let of = |uuid: &str, rest: &str| {
            let create =
                format!("CREATE MATERIALIZED VIEW aion.hourly{rest} AS SELECT n FROM aion.tasks");
            target_of(&view, uuid, &create)
        };
        assert_eq!(of(uuid, " TO stats.hours (`n` Int64)"), name("stats", "hours"));
        assert_eq!(of(uuid, " TO stats.`per hour` (`TO x` Int64)"), name("stats", "per hour"));
        let own = " (`n` Int64) ENGINE = SummingMergeTree ORDER BY n";
        assert_eq!(of(uuid, own), name("aion", &format!(".inner_id.{uuid}")));
        let none = "00000000-0000-0000-0000-000000000000";
        assert_eq!(of(none, own), name("aion", ".inner.hourly"), "of an Ordinary database");
    }

    #[test]
    fn a_replicated_target_has_a_window_of_its_own() {
        let (view, target) = (name("aion", "v"), name("aion", "t"));
        let said = |engine: &str, settings: &str| {
            let create =
                format!("CREATE TABLE aion.t (`n` Int64) ENGINE = {engine} SETTINGS {settings}");
            let live = Live { engine: engine.to_owned(), create, ..Live::default() };
            judge(&view, Some((&target, &live)), 10_000)
        };
        let fits = said("ReplicatedSummingMergeTree", "index_granularity = 8192");
        assert!(fits.what.contains("no batch twice"), "{fits:?}");
        let none = said("ReplicatedSummingMergeTree", "replicated_deduplication_window = 0");
        assert!(none.what.contains("may have a batch twice"), "{none:?}");
        let setting = "ALTER TABLE aion.`t` MODIFY SETTING replicated_deduplication_window = 10000";
        assert_eq!(none.hint, setting);
        let elsewhere = said("Distributed", "x = 1");
        assert!(elsewhere.what.contains("is Distributed and knows no tokens"), "{elsewhere:?}");
        let unseen = judge(&view, None, 10_000);
        assert!(unseen.what.contains("doesn't see what it fills"), "{unseen:?}");
        assert!([fits, none, elsewhere, unseen].iter().all(|one| one.weight == Weight::Word));
    }
}
