//! What is found of a table, from what the server says of it.

use std::time::Duration;

use aion_schemas::clickhouse::{DEDUPLICATION_WINDOW, LEASE, LEDGER_COLUMNS, MARKS};
use arrow::datatypes::{DataType, Field};

use crate::clickhouse::{
    Settings, TableSpec,
    guarantee::{Finding, Weight},
    plan::{FSYNC, Live, MARKS_ENGINE, WHOLE_PARTS},
    survey::Kept,
};

/// What keeps a table, of that name, from giving exactly once.
pub(super) fn unfit(live: &Live, table: &str, least_window: u64) -> Vec<Finding> {
    let Live { engine, partition_key, .. } = live;
    let mut found = Vec::new();
    if live.is_replicated() {
        let what = format!("its engine is {engine}: exactly once is given into MergeTree only");
        found.push(Finding::new(Weight::Doubles, what));
    }
    if !matches!(engine.as_str(), "MergeTree" | "ReplicatedMergeTree") {
        let what = format!("its engine is {engine}, and only a MergeTree keeps each row");
        return vec![Finding::new(Weight::Loses, what)];
    }
    if partition_key != "_batch_day" {
        let what = format!("its partition key is {partition_key:?}, where it must be _batch_day");
        found.push(Finding::new(Weight::Loses, what));
    }
    found.extend(forgetful(live, table, least_window));
    if !live.has_lease() {
        let what = format!("it has no constraint {LEASE} CHECK _lease > now()");
        found.push(Finding::new(Weight::Doubles, what));
    }
    found
}

/// A window that is too small. The contract's tables have no more than the contract's: what more is wanted is set by hand.
fn forgetful(live: &Live, table: &str, least_window: u64) -> Option<Finding> {
    if live.window() >= least_window {
        return None;
    }
    let what = format!(
        "{}, and it must be {least_window} at least with this many partitions and this flush_age_s",
        live.window_words()
    );
    let found = Finding::new(Weight::Doubles, what);
    if least_window <= u64::from(DEDUPLICATION_WINDOW) {
        return Some(found);
    }
    let setting = live.window_setting();
    let hint = format!("ALTER TABLE {table} MODIFY SETTING {setting} = {least_window}");
    Some(found.hinted(hint))
}

/// What keeps the table of marks from letting the first of several writers decide.
pub(super) fn unfit_marks(live: &Live, database: &str) -> Option<Finding> {
    let found = |weight: Weight, cause: String| {
        Some(Finding::new(weight, format!("the table {database}.{MARKS} beside it: {cause}")))
    };
    let engine = &live.engine;
    if !live.has_engine_of_marks() {
        let cause = format!("its engine is {engine}, where it must be {MARKS_ENGINE}");
        return found(Weight::Loses, cause);
    }
    let least = u64::from(DEDUPLICATION_WINDOW);
    if live.window() < least {
        let cause = format!("{}, and must be {least} at least", live.window_words());
        return found(Weight::Loses, cause);
    }
    if live.is_replicated() {
        return found(Weight::Doubles, format!("its engine is {engine}"));
    }
    None
}

/// What a power failure may take of a table.
pub(super) fn fragile(live: &Live, name: &str) -> Option<Finding> {
    let off: Vec<&str> =
        FSYNC.into_iter().filter(|switch| live.switch(switch) != Some(true)).collect();
    let what = format!(
        "{name} has no {}: a power failure may take what was acknowledged, which is written again at a job's next start \
         where it follows on a batch of the last hour, and else if `aion clickhouse repair` is told to",
        off.join(" and no ")
    );
    (!off.is_empty()).then(|| Finding::new(Weight::Word, what))
}

/// What an account's own settings do to tokens.
pub(super) fn passed_over(deduplicate_insert: &str) -> Option<Finding> {
    let what = "the account's deduplicate_insert is 'disable': the server passes over the tokens of batches";
    let hint = "take it out of the account's profile, or set it to 'enable' there";
    let finding = Finding::new(Weight::Doubles, what.to_owned()).hinted(hint);
    (deduplicate_insert == "disable").then_some(finding)
}

/// What hides rows of a table from the account, by the server's plan of reading it: a policy that is a filter of the read, or
/// a step behind it.
pub(super) fn hidden(plan: &[String], table: &str) -> Option<Finding> {
    let is_policy = |line: &String| {
        line.contains("Row level filter") || line.contains("Row-level security filter")
    };
    let what = format!("a row policy hides rows of {table} from the account");
    let hint = format!("take the account out of the row policies of {table}");
    plan.iter().any(is_policy).then(|| Finding::new(Weight::Loses, what).hinted(hint))
}

/// A TTL that costs the server more than it has to.
pub(super) fn piecemeal(live: &Live) -> Option<Finding> {
    let is_so = live.kept() != Kept::Forever && live.switch(WHOLE_PARTS) != Some(true);
    let what =
        format!("{WHOLE_PARTS} isn't on: parts are written anew to take out rows by their TTL");
    is_so.then(|| Finding::new(Weight::Word, what))
}

/// A table that only passes rows on, to so many shards; 0 where the account doesn't see them.
pub(super) fn passes_on(live: &Live, shards: u64) -> Finding {
    let behind = distributed(live).map(|(_, behind)| behind);
    let behind = behind.unwrap_or_else(|| "the table behind it".to_owned());
    let (what, hint) = if shards == 1 {
        (
            "it is Distributed: an INSERT is acknowledged before its rows are anywhere".to_owned(),
            format!("write into {behind}, by the address and database of its own server"),
        )
    } else {
        let over = if shards == 0 { String::new() } else { format!(" over {shards} shards") };
        (
            format!(
                "it is Distributed{over}: a batch would be split, and half of it could land; an INSERT is acknowledged \
                 before its rows are anywhere"
            ),
            format!(
                "write into {behind} on one shard, by the address and database of its server, and ask the \
                 Distributed table"
            ),
        )
    };
    Finding::new(Weight::Loses, what).hinted(hint)
}

/// The cluster of a Distributed table, and the table behind it.
pub(super) fn distributed(live: &Live) -> Option<(String, String)> {
    let (_, arguments) = live.create.split_once("ENGINE = Distributed(")?;
    let mut arguments = arguments.split([',', ')']).map(|one| one.trim().trim_matches('\''));
    let (cluster, database, table) = (arguments.next()?, arguments.next()?, arguments.next()?);
    Some((cluster.to_owned(), format!("{database}.{table}")))
}

/// What keeps rows from being stored as they are.
pub(super) fn unlike(live: &Live, spec: &TableSpec) -> Vec<Finding> {
    let fields = spec.schema.fields();
    let names = fields.iter().map(|field| field.name().as_str()).chain(LEDGER_COLUMNS);
    let missing = names.filter(|name| !live.columns.contains_key(*name));
    let missing = missing.map(|name| format!("it has no column {name}"));
    let others = fields.iter().filter_map(|field| other_column(live, field));
    missing.chain(others).map(|what| Finding::new(Weight::Loses, what)).collect()
}

/// A column that would store something else.
fn other_column(live: &Live, field: &Field) -> Option<String> {
    let theirs = live.columns.get(field.name())?;
    let wanted = wanted(field.data_type())?;
    let plain = theirs.strip_prefix("LowCardinality(").unwrap_or(theirs);
    let (plain, takes_null) = match plain.strip_prefix("Nullable(") {
        Some(inner) => (inner, true),
        None => (plain, false),
    };
    if !plain.starts_with(wanted) {
        return Some(format!("column {} is {theirs}, and takes no {wanted}", field.name()));
    }
    // The server would store an empty text or a zero in its place.
    let loses_null = field.is_nullable() && !takes_null;
    loses_null.then(|| format!("column {} is {theirs}, and has to take nulls", field.name()))
}

/// How the type of a column begins that holds such values as they are.
fn wanted(kind: &DataType) -> Option<&'static str> {
    match kind {
        DataType::Utf8 | DataType::Binary => Some("String"),
        DataType::Int32 => Some("Int32"),
        DataType::Int64 => Some("Int64"),
        DataType::Float64 => Some("Float64"),
        DataType::Boolean => Some("Bool"),
        DataType::Timestamp(..) => Some("DateTime64(6"),
        _ => None,
    }
}

/// So many tokens a table must remember: four times the parts that come by their age while an INSERT may still be on
/// its way, and never fewer than the contract's tables do. Parts that go for their size, or in halves, come faster than
/// can be told beforehand: `pace` holds them to that.
pub fn least_window(partitions: usize, settings: &Settings) -> u64 {
    let on_its_way = settings.lease + settings.max_execution;
    let every = settings.flush_age.max(Duration::from_secs(1));
    let by_age = on_its_way.as_secs().div_ceil(every.as_secs()).max(1);
    (4 * partitions.max(1) as u64 * by_age).max(u64::from(DEDUPLICATION_WINDOW))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::guarantee::HINT;

    #[test]
    fn an_account_whose_tokens_are_passed_over_gives_less() {
        let weight = passed_over("disable").map(|finding| finding.weight);
        assert_eq!(weight, Some(Weight::Doubles));
        for fine in ["enable", "backward_compatible_choice", ""] {
            assert_eq!(passed_over(fine), None, "{fine}");
        }
    }

    #[test]
    fn a_row_policy_shows_in_the_plan_of_reading() {
        let told = |plan: &[&str]| {
            let plan: Vec<String> = plan.iter().map(|line| (*line).to_owned()).collect();
            hidden(&plan, "aion.tasks").map(|one| (one.weight, one.what))
        };
        let read = "ReadFromMergeTree (aion.tasks)";
        let empty = ["Output: note", "", "ReadNothing (Read from NullSource)"];
        assert_eq!((told(&[]), told(&empty)), (None, None));
        assert_eq!(told(&["Output: note", "", read, "   Parts: 1 | Granules: 1"]), None);
        let what = "a row policy hides rows of aion.tasks from the account".to_owned();
        // As 26.9 says it, as older servers do, and where the filter is a step of its own.
        for policy in [
            "   Row level filter column:  note = 'x'",
            "  Row level filter column: equals(note, 'x'_String)",
            "  Filter (Row-level security filter)",
        ] {
            assert_eq!(told(&["Expression", read, policy]), Some((Weight::Loses, what.clone())));
        }
    }

    #[test]
    fn a_column_that_would_store_something_else_is_named() {
        use std::sync::Arc;

        use arrow::datatypes::Schema;
        let schema = Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("note", DataType::Utf8, true),
            Field::new("value", DataType::Float64, false),
        ]);
        let spec = TableSpec {
            name: "t".into(),
            schema: Arc::new(schema),
            few_values: Vec::new(),
            partitions: 1,
        };
        let live = |columns: [(&str, &str); 3]| {
            let ledger = LEDGER_COLUMNS.map(|name| (name, "Int64"));
            let all = columns.into_iter().chain(ledger);
            let columns = all.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
            Live { columns, ..Live::default() }
        };
        let note = "LowCardinality(Nullable(String))";
        let told = |columns| {
            let found = unlike(&live(columns), &spec);
            found.into_iter().map(|one| one.what).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(told([("id", "String"), ("note", note), ("value", "Float64")]), "");
        let told_of = told([("id", "String"), ("note", "String"), ("value", "Float64")]);
        assert_eq!(told_of, "column note is String, and has to take nulls");
        let told_of = told([("id", "UUID"), ("note", note), ("value", "Float64")]);
        assert_eq!(told_of, "column id is UUID, and takes no String");
        let told_of = told([("id", "String"), ("note", note), ("x", "Float64")]);
        assert_eq!(told_of, "it has no column value");
        let told_of = told([("id", "UUID"), ("note", "String"), ("x", "Float64")]);
        let all = "it has no column value; column id is UUID, and takes no String; \
                   column note is String, and has to take nulls";
        assert_eq!(told_of, all, "all of them at once");
    }

    fn live(engine: &str, settings: &str) -> Live {
        let create = format!(
            "CREATE TABLE aion.tasks (`id` String, CONSTRAINT lease CHECK _lease > now()) ENGINE = {engine} \
             SETTINGS {settings}, index_granularity = 8192"
        );
        Live {
            engine: engine.split('(').next().unwrap_or_default().to_owned(),
            partition_key: "_batch_day".to_owned(),
            create,
            ..Live::default()
        }
    }

    fn words(findings: &[Finding]) -> Vec<(Weight, &str)> {
        findings.iter().map(|one| (one.weight, one.what.as_str())).collect()
    }

    #[test]
    fn a_replicated_table_is_judged_by_its_own_window() {
        let path = "ReplicatedMergeTree('/clickhouse/tables/{shard}/aion/tasks', '{replica}')";
        let engine = "its engine is ReplicatedMergeTree: exactly once is given into MergeTree only";
        let wide = live(path, "replicated_deduplication_window = 10000");
        assert_eq!(words(&unfit(&wide, "aion.tasks", 10_000)), [(Weight::Doubles, engine)]);
        let others = "non_replicated_deduplication_window = 10000";
        let found = unfit(&live(path, others), "aion.tasks", 10_000);
        let narrow = "replicated_deduplication_window isn't set, and it must be 10000";
        assert!(found[1].what.starts_with(narrow), "{found:?}");
        let both = format!("{others}, replicated_deduplication_window = 7");
        assert_eq!(live(path, &both).window(), 7, "the other's name ends in its name");
        assert_eq!(live("MergeTree", &both).window(), 10_000);
    }

    #[test]
    fn what_power_may_take_is_said_by_the_switches_that_are_not_on() {
        let told = |settings: &str| {
            let found = fragile(&live("MergeTree", settings), "tasks");
            assert!(found.iter().all(|one| one.weight == Weight::Word));
            found.map(|one| one.what).unwrap_or_default()
        };
        assert_eq!(told("fsync_after_insert = 1, fsync_part_directory = true"), "");
        let both = told("x = 1");
        assert!(both.starts_with("tasks has no fsync_after_insert and no fsync_part_directory:"));
        let one = told("fsync_after_insert = 0, fsync_part_directory = 1");
        assert!(one.starts_with("tasks has no fsync_after_insert:"), "{one}");
    }

    #[test]
    fn an_engine_that_merges_rows_away_loses_them() {
        for engine in ["ReplacingMergeTree", "ReplicatedReplacingMergeTree", "SummingMergeTree"] {
            let found = unfit(&live(engine, "x = 1"), "aion.tasks", 10_000);
            assert_eq!(found.len(), 1, "nothing else is worth saying: {found:?}");
            assert_eq!(found[0].weight, Weight::Loses);
        }
    }

    #[test]
    fn a_table_that_passes_rows_on_is_refused_by_its_shards() {
        let of = |engine: &str| live(&format!("Distributed({engine})"), "x = 1");
        for (arguments, cluster, behind) in [
            ("'main', 'aion', 'tasks_local', rand()", "main", "aion.tasks_local"),
            ("'{cluster}', 'aion', 'tasks_local'", "{cluster}", "aion.tasks_local"),
        ] {
            let found = distributed(&of(arguments));
            assert_eq!(found, Some((cluster.to_owned(), behind.to_owned())));
        }
        let table = of("'main', 'aion', 'tasks_local', rand()");
        for (shards, says, hint) in [
            (0, "it is Distributed: a batch would be split", "on one shard"),
            (1, "acknowledged before its rows are anywhere", "write into aion.tasks_local, by"),
            (3, "it is Distributed over 3 shards: a batch would be split", "on one shard"),
        ] {
            let found = passes_on(&table, shards);
            assert_eq!(found.weight, Weight::Loses);
            assert!(found.what.contains(says), "{found:?}");
            assert!(found.hint.contains(hint), "{found:?}");
        }
    }

    #[test]
    fn marks_may_be_replicated_where_rows_may_be_there_twice() {
        let window = "replicated_deduplication_window = 10000";
        let path = "'/clickhouse/tables/{shard}/aion/marks', '{replica}'";
        let of = |engine: &str, settings: &str| {
            unfit_marks(&live(engine, settings), "aion").map(|one| one.weight)
        };
        let plain = "non_replicated_deduplication_window = 10000";
        assert_eq!(of("ReplacingMergeTree(next)", plain), None);
        let replicated = format!("ReplicatedReplacingMergeTree({path}, next)");
        assert_eq!(of(&replicated, window), Some(Weight::Doubles));
        assert_eq!(of("ReplicatedReplacingMergeTree(next)", window), Some(Weight::Doubles));
        assert_eq!(of(&replicated, plain), Some(Weight::Loses), "no window of its own");
        let any = format!("ReplicatedReplacingMergeTree({path})");
        assert_eq!(of(&any, window), Some(Weight::Loses), "which note stays is left to chance");
    }

    #[test]
    fn a_wider_window_than_the_contracts_is_hinted_with_its_statement() {
        let hint = |engine: &str, least: u64| {
            let table = live(engine, "replicated_deduplication_window = 1");
            forgetful(&table, "aion.tasks", least).map(|found| found.hint)
        };
        assert_eq!(hint("MergeTree", 0), None);
        assert_eq!(hint("MergeTree", 10_000).as_deref(), Some(HINT), "`apply` sets as much");
        let plain =
            "ALTER TABLE aion.tasks MODIFY SETTING non_replicated_deduplication_window = 10001";
        assert_eq!(hint("MergeTree", 10_001).as_deref(), Some(plain));
        let replicated =
            "ALTER TABLE aion.tasks MODIFY SETTING replicated_deduplication_window = 10001";
        let engine = "ReplicatedMergeTree('/path', 'replica')";
        assert_eq!(hint(engine, 10_001).as_deref(), Some(replicated));
    }

    #[test]
    fn the_window_outlasts_whatever_is_on_its_way() {
        let settings = Settings::default();
        assert_eq!(least_window(4, &settings), 10_000, "as the contract's tables have it");
        assert_eq!(least_window(200, &settings), 4 * 200 * 24);
        let quick = Settings { flush_age: Duration::ZERO, ..settings };
        assert_eq!(least_window(64, &quick), 4 * 64 * 120);
    }
}
