//! What a database lacks of the contract's tables, and the statements that add it.
//!
//! Only what adds is done: a missing database, table, column, index, projection, constraint, a window that is too
//! small, the size of parts and the switches of the contract where none is set, a view. What takes away or changes what is there
//! (a type, a sorting key, a TTL, an engine, another index, projection or constraint of the same name, what a column is computed
//! from, a codec, what a view asks) is explained with the statement where there is one, and left to a person.

mod columns;

use std::collections::BTreeMap;

use aion_schemas::clickhouse::{
    DEDUPLICATION_WINDOW, LEASE, MARKS, Statement, Table, WIDE_PART_BYTES, database,
};

use super::{
    ClickHouse,
    client::Client,
    failure::{Class, Failure},
    guarantee::Guarantee,
    survey::Kept,
};
use crate::sink::SinkError;

/// The engine of the table of marks: of several notes the one that is furthest on stays.
pub(super) const MARKS_ENGINE: &str = "ReplacingMergeTree(next)";

/// What was acknowledged survives a power failure: the files of a part are synced, and the folder that they are in.
pub(super) const FSYNC: [&str; 2] = ["fsync_after_insert", "fsync_part_directory"];
/// Rows go by their TTL a part at a time.
pub(super) const WHOLE_PARTS: &str = "ttl_only_drop_parts";
/// Where it isn't as in the contract, a server refuses a `DELETE FROM` of a table that has projections, or drops them.
const ERASABLE: (&str, &str) = ("lightweight_mutation_projection_mode", "'rebuild'");

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table or view.
    pub object: String,
    /// What differs, in words.
    pub what: String,
    /// The statement that would make it the same.
    pub sql: Option<String>,
    /// Whether it only adds, so that [`ClickHouse::apply`] does it.
    pub adds: bool,
}

impl Change {
    /// Whether it is of settings: they are each replica's own, and Keeper brings none to another.
    fn is_of_settings(&self) -> bool {
        self.sql.as_deref().is_some_and(|sql| sql.contains(" MODIFY SETTING "))
    }
}

/// A database, and a table or view in it.
pub(super) type Name = (String, String);

/// A table as the server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) engine: String,
    pub(super) partition_key: String,
    pub(super) sorting_key: String,
    /// The whole statement, as the server would make it again.
    pub(super) create: String,
    /// Types by name.
    pub(super) columns: BTreeMap<String, String>,
    /// By name: of what kind the expression is that a column has, and the expression.
    pub(super) computed: BTreeMap<String, String>,
    /// Codecs by name, where a column has its own.
    pub(super) codecs: BTreeMap<String, String>,
    /// Materialized views that read what is inserted into it.
    pub(super) readers: Vec<Name>,
}

impl Live {
    /// What stands behind the columns, without the comment.
    fn clauses(&self) -> &str {
        let after = self.create.split_once(") ENGINE = ").map_or("", |(_, after)| after);
        after.split(" COMMENT '").next().unwrap_or(after)
    }

    /// A setting that was given when it was made, or altered since, as it is written.
    fn given(&self, name: &str) -> Option<&str> {
        let (_, settings) = self.clauses().split_once(" SETTINGS ")?;
        settings.split(", ").find_map(|one| one.strip_prefix(name)?.strip_prefix(" = "))
    }

    /// A numeric setting.
    pub(super) fn setting(&self, name: &str) -> Option<u64> {
        self.given(name)?.trim().parse().ok()
    }

    /// A setting that is on or off; `None` where it is the server's default.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.given(name).map(|value| matches!(value.trim(), "1" | "true"))
    }

    /// Whether its parts and tokens are kept by Keeper.
    pub(super) fn is_replicated(&self) -> bool {
        self.engine.starts_with("Replicated")
    }

    /// The setting that says how many tokens it remembers.
    pub(super) fn window_setting(&self) -> &'static str {
        if self.is_replicated() {
            "replicated_deduplication_window"
        } else {
            "non_replicated_deduplication_window"
        }
    }

    /// So many tokens it remembers; 0 where it isn't said.
    pub(super) fn window(&self) -> u64 {
        self.setting(self.window_setting()).unwrap_or(0)
    }

    /// The same for people.
    pub(super) fn window_words(&self) -> String {
        let setting = self.window_setting();
        let given = self.setting(setting);
        given.map_or_else(
            || format!("{setting} isn't set"),
            |window| format!("{setting} is {window}"),
        )
    }

    /// Whether it has the constraint that keeps sleepers out, and no other of its name.
    pub(super) fn has_lease(&self) -> bool {
        self.part("CONSTRAINT", LEASE) == Some(&*Table::lease())
    }

    /// Whether it can be the table of marks.
    pub(super) fn has_engine_of_marks(&self) -> bool {
        let replicated = self.create.split_once("ENGINE = ReplicatedReplacingMergeTree(");
        let arguments = replicated.and_then(|(_, after)| after.split(')').next());
        // Path and replica stand before it, unless the server fills them in.
        let keeps_the_furthest = |all: &str| all.rsplit(", ").next() == Some("next");
        arguments.map_or_else(
            || self.create.contains(&format!("ENGINE = {MARKS_ENGINE}")),
            keeps_the_furthest,
        )
    }

    /// After how many days whole rows go, by their append; `None` where none go, or by another rule.
    pub(super) fn deleted_after_days(&self) -> Option<u32> {
        match self.kept() {
            Kept::Days(days) => Some(days),
            Kept::Forever | Kept::Unknown => None,
        }
    }

    /// How long rows are kept. A rule that isn't the contract's to the letter may take other rows, or none.
    pub(super) fn kept(&self) -> Kept {
        let Some((_, behind)) = self.clauses().split_once(" TTL ") else { return Kept::Forever };
        let rule = behind.split(" SETTINGS ").next().unwrap_or(behind).trim();
        let days = rule.strip_prefix("toDateTime(_append_time) + toIntervalDay(");
        let days = days.and_then(|rest| rest.strip_suffix(')')?.parse().ok());
        days.map_or(Kept::Unknown, Kept::Days)
    }

    /// A part of its statement, by its kind and name: an index, a projection, a constraint.
    fn part(&self, kind: &str, name: &str) -> Option<&str> {
        let (_, list) = self.create.split_once(" (")?;
        let start = format!("{kind} {name} ");
        parts(list).into_iter().find(|part| part.starts_with(&start))
    }
}

/// The parts of a list, up to the bracket that closes it. A comma in brackets or in quotes parts nothing.
fn parts(list: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    let (mut quote, mut is_escaped) = (None, false);
    for (at, c) in list.char_indices() {
        if quote.is_some() {
            let is_end = quote == Some(c) && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            quote = quote.filter(|_| !is_end);
            continue;
        }
        match c {
            '\'' | '`' | '"' => quote = Some(c),
            '(' | '[' => depth += 1,
            ')' | ']' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                found.push(list[start..at].trim());
                start = at + 1;
            }
            ')' => {
                found.push(list[start..at].trim());
                break;
            }
            _ => {}
        }
    }
    found
}

/// What a view asks, of the statement that makes it.
fn asked_by(view: &Statement) -> &str {
    let (_, asked) = view.sql.split_once(" AS\n").unwrap_or(("", &view.sql));
    asked.rsplit_once("\nCOMMENT '").map_or(asked, |(asked, _)| asked)
}

/// The table of that name in the database, where there is one.
pub(super) async fn live(client: &Client, name: &str) -> Result<Option<Live>, Failure> {
    live_of(client, &(client.server().database.clone(), name.to_owned())).await
}

/// The table of that name, where there is one that the account may see.
pub(super) async fn live_of(
    client: &Client,
    (database, name): &Name,
) -> Result<Option<Live>, Failure> {
    let (of, name) = (format!("database = {} AND", quoted(database)), quoted(name));
    let tables: Vec<(String, String, String, String, Vec<Name>)> = client
        .ask(&format!(
            "SELECT engine, partition_key, sorting_key, create_table_query, \
             arrayZip(dependencies_database, dependencies_table) \
             FROM system.tables WHERE {of} name = {name}"
        ))
        .await?;
    let Some((engine, partition_key, sorting_key, create, readers)) = tables.into_iter().next()
    else {
        return Ok(None);
    };
    let described: Vec<(String, String, String, String, String)> = client
        .ask(&format!(
            "SELECT name, type, default_kind, default_expression, compression_codec FROM system.columns WHERE {of} \
             table = {name}"
        ))
        .await?;
    let mut live = Live { engine, partition_key, sorting_key, create, readers, ..Live::default() };
    for (name, kind, computed, from, codec) in described {
        if !computed.is_empty() {
            live.computed.insert(name.clone(), format!("{computed} {from}"));
        }
        live.codecs.insert(name.clone(), codec);
        live.columns.insert(name, kind);
    }
    Ok(Some(live))
}

/// A name as text in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl ClickHouse {
    /// Compares the tables of the database with those of the contract.
    pub async fn plan(
        &self,
        tables: &[Table],
        views: &[Statement],
    ) -> Result<Vec<Change>, SinkError> {
        let name = &self.client.server().database;
        let doing = format!("look what database {name} has");
        let is_many = self.client.server().urls.len() > 1;
        let missing = |statement: Statement, what: &str| missing(statement, what, is_many);
        let failed = |failure: Failure| failure.error(&doing);
        let mut changes = Vec::new();
        let found: Vec<(String,)> = self
            .client
            .ask(&format!("SELECT name FROM system.databases WHERE name = '{name}'"))
            .await
            .map_err(failed)?;
        if found.is_empty() {
            changes.push(missing(database(name, None), "database"));
        }
        let guarantee = self.client.server().guarantee;
        match live(&self.client, MARKS).await.map_err(failed)? {
            None => changes.push(missing(aion_schemas::clickhouse::marks(name, None), "table")),
            Some(live) => changes.extend(differences_of_marks(name, &live)),
        }
        for table in tables {
            match live(&self.client, &table.name).await.map_err(failed)? {
                None => changes.push(missing(table.create(name, None), "table")),
                Some(live) => {
                    changes.extend(engine(table, &live, guarantee));
                    changes.extend(differences(name, table, &live));
                }
            }
        }
        for view in views {
            match live(&self.client, &view.object).await.map_err(failed)? {
                None => changes.push(missing(view.clone(), "view")),
                Some(live) => changes.extend(self.another(view, &live).await.map_err(failed)?),
            }
        }
        if is_many {
            for change in self.settings(tables).await.map_err(failed)? {
                if changes.iter().all(|one| one.sql != change.sql) {
                    changes.push(change);
                }
            }
        }
        Ok(changes)
    }

    /// What stands under a view's name, where it is no view, or one that asks something else: of both queries the server says
    /// how it writes them.
    async fn another(&self, view: &Statement, live: &Live) -> Result<Option<Change>, Failure> {
        let object = view.object.clone();
        if live.engine != "View" {
            let what = format!("it is a {}, and no view", live.engine);
            return Ok(Some(Change { object, what, sql: None, adds: false }));
        }
        let (database, name) = (quoted(&self.client.server().database), quoted(&object));
        let ours = quoted(asked_by(view));
        let sql = format!(
            "SELECT formatQuerySingleLine(as_select) = formatQuerySingleLine({ours}) FROM system.tables \
             WHERE database = {database} AND name = {name}"
        );
        let same: Vec<(u8,)> = self.client.ask(&sql).await?;
        let what = "the view asks something else".to_owned();
        let sql = view.sql.replacen("CREATE VIEW IF NOT EXISTS", "CREATE OR REPLACE VIEW", 1);
        let is_other = same == [(0,)];
        Ok(is_other.then_some(Change { object, what, sql: Some(sql), adds: false }))
    }

    /// The settings that tables have otherwise than the contract, at whichever address; those that don't answer are left out.
    async fn settings(&self, tables: &[Table]) -> Result<Vec<Change>, Failure> {
        let mut changes = Vec::new();
        for (_, client) in self.client.each() {
            match differences_at(&client, tables).await {
                Ok(found) => changes.extend(found.into_iter().filter(Change::is_of_settings)),
                Err(failure) if failure.class() == Class::Retry => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(changes)
    }

    /// Makes a change that adds; any other is refused. Settings it changes at every address.
    pub async fn apply(&self, change: &Change) -> Result<(), SinkError> {
        let doing = format!("change {}: {}", change.object, change.what);
        let Some(sql) = change.sql.as_ref().filter(|_| change.adds) else {
            return Err(SinkError::Fatal {
                doing,
                cause: "it would change what is stored".to_owned(),
                hint: "do it by hand".to_owned(),
            });
        };
        if !change.is_of_settings() {
            let made = self.client.execute_anywhere(sql).await;
            return made.map_err(|failure| failure.error(&doing));
        }
        let mut failed = None;
        for (address, client) in self.client.each() {
            if let Err(failure) = client.execute_anywhere(sql).await {
                let doing = format!("{doing} at {address}");
                failed.get_or_insert_with(|| failure.error(&doing));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// What the tables of one address have otherwise than the contract.
async fn differences_at(client: &Client, tables: &[Table]) -> Result<Vec<Change>, Failure> {
    let database = &client.server().database;
    let marks = live(client, MARKS).await?;
    let mut changes: Vec<Change> =
        marks.iter().flat_map(|live| differences_of_marks(database, live)).collect();
    for table in tables {
        if let Some(live) = live(client, &table.name).await? {
            changes.extend(differences(database, table, &live));
        }
    }
    Ok(changes)
}

/// What isn't there, with the statement that makes it on one server; of several it would be the wrong one.
fn missing(Statement { object, sql }: Statement, what: &str, is_many: bool) -> Change {
    let what = format!("the {what} is missing");
    if is_many {
        let what = format!("{what}: bigdata/clickhouse/replicated.sql makes it on all servers");
        return Change { object, what, sql: None, adds: false };
    }
    Change { object, what, sql: Some(sql), adds: true }
}

/// An engine that can't give what is asked for.
fn engine(table: &Table, live: &Live, guarantee: Guarantee) -> Option<Change> {
    let is_enough = match live.engine.as_str() {
        "MergeTree" => true,
        "ReplicatedMergeTree" => guarantee == Guarantee::AtLeastOnce,
        _ => false,
    };
    let what = format!("the engine is {}: exactly once is given into MergeTree only", live.engine);
    let object = table.name.clone();
    (!is_enough).then_some(Change { object, what, sql: None, adds: false })
}

/// What a table has otherwise than the contract.
fn differences(database: &str, table: &Table, live: &Live) -> Vec<Change> {
    let name = format!("{database}.{}", table.name);
    let change = |what: String, sql: Option<String>, adds: bool| Change {
        object: table.name.clone(),
        what,
        sql: sql.map(|sql| format!("ALTER TABLE {name} {sql}")),
        adds,
    };
    let mut changes = Vec::new();
    for (what, ours, theirs) in [
        ("partition key", "_batch_day", &live.partition_key),
        ("sorting key", &*table.order.join(", "), &live.sorting_key),
    ] {
        if ours != theirs {
            let what = format!("the {what} is {theirs:?}, and would be {ours:?} in a new table");
            changes.push(change(what, None, false));
        }
    }
    changes.extend(columns::differences(table, live, change));
    let indexes = table.indexes.iter().map(|one| ("INDEX", &*one.name, one.definition()));
    let projections =
        table.projections.iter().map(|one| ("PROJECTION", one.name, one.definition()));
    let lease = std::iter::once(("CONSTRAINT", LEASE, Table::lease()));
    for (kind, name, ours) in indexes.chain(projections).chain(lease) {
        changes.extend(part(live, (kind, name), &ours, change));
    }
    changes.extend(window(live, change));
    let switches = FSYNC.into_iter().chain([WHOLE_PARTS]);
    changes.extend(switches.filter_map(|name| off(name, live, change)));
    changes.extend(inerasable(live, change));
    let wide = "min_bytes_for_wide_part";
    if !live.create.contains(&format!("{wide} = ")) {
        let sql = format!("MODIFY SETTING {wide} = {WIDE_PART_BYTES}");
        changes.push(change(format!("{wide} isn't set"), Some(sql), true));
    }
    changes.extend(kept(table, live, change));
    changes
}

/// A part that is missing, or is another under its name: the server makes none of a name that there is, and what hangs on the
/// other one is its owner's to know.
fn part(
    live: &Live,
    (kind, name): (&str, &str),
    ours: &str,
    change: impl Fn(String, Option<String>, bool) -> Change,
) -> Option<Change> {
    let named = format!("{} {name}", kind.to_lowercase());
    match live.part(kind, name) {
        None => Some(change(format!("{named} is missing"), Some(format!("ADD {ours}")), true)),
        Some(theirs) if theirs == ours => None,
        Some(theirs) => {
            let what = format!("{named} is another: {theirs}");
            Some(change(what, Some(format!("DROP {kind} {name}, ADD {ours}")), false))
        }
    }
}

/// What the table of marks has otherwise than the contract.
fn differences_of_marks(database: &str, live: &Live) -> Vec<Change> {
    let change = |what: String, sql: Option<String>, adds: bool| Change {
        object: MARKS.to_owned(),
        what,
        sql: sql.map(|sql| format!("ALTER TABLE {database}.{MARKS} {sql}")),
        adds,
    };
    let mut changes = Vec::new();
    if !live.has_engine_of_marks() {
        let engine = &live.engine;
        let what = format!("the engine is {engine}: it must be {MARKS_ENGINE}");
        changes.push(change(what, None, false));
    }
    changes.extend(window(live, change));
    changes.extend(FSYNC.into_iter().filter_map(|name| off(name, live, change)));
    changes
}

/// A switch of the contract that isn't on. That it is off by somebody's will is left to them.
fn off(
    name: &str,
    live: &Live,
    change: impl Fn(String, Option<String>, bool) -> Change,
) -> Option<Change> {
    let is_own = match live.switch(name) {
        Some(true) => return None,
        Some(false) => true,
        None => false,
    };
    let what = format!("{name} {}", if is_own { "is off" } else { "isn't set" });
    Some(change(what, Some(format!("MODIFY SETTING {name} = 1")), !is_own))
}

/// A table that takes no `DELETE FROM`. What somebody has chosen instead is left to them.
fn inerasable(
    live: &Live,
    change: impl Fn(String, Option<String>, bool) -> Change,
) -> Option<Change> {
    let (name, ours) = ERASABLE;
    let theirs = live.given(name).map(str::trim);
    if theirs == Some(ours) {
        return None;
    }
    let is = theirs.map_or("isn't set".to_owned(), |theirs| format!("is {theirs}"));
    let sql = format!("MODIFY SETTING {name} = {ours}");
    Some(change(format!("{name} {is}"), Some(sql), theirs.is_none()))
}

/// A window that remembers too few tokens.
fn window(live: &Live, change: impl Fn(String, Option<String>, bool) -> Change) -> Option<Change> {
    if live.window() >= u64::from(DEDUPLICATION_WINDOW) {
        return None;
    }
    let sql = format!("MODIFY SETTING {} = {DEDUPLICATION_WINDOW}", live.window_setting());
    Some(change(live.window_words(), Some(sql), true))
}

/// A shorter TTL takes rows away, a longer one may: both are for a person.
fn kept(
    table: &Table,
    live: &Live,
    change: impl Fn(String, Option<String>, bool) -> Change,
) -> Option<Change> {
    let (theirs, ours) = (live.kept(), table.keep_days.map_or(Kept::Forever, Kept::Days));
    if theirs == ours {
        return None;
    }
    let sql = table.ttl().map_or("REMOVE TTL".to_owned(), |ttl| format!("MODIFY TTL {ttl}"));
    let what = format!("rows are kept {}, and would be kept {}", words(theirs), words(ours));
    Some(change(what, Some(sql), false))
}

/// How long rows are kept, for people.
pub(super) fn words(kept: Kept) -> String {
    match kept {
        Kept::Forever => "for ever".to_owned(),
        Kept::Days(days) => format!("{days} days"),
        Kept::Unknown => "by a rule of the table's own".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(ttl: &str) -> Live {
        let columns =
            "(`_append_time` DateTime64(6, 'UTC'), `note` String TTL at + toIntervalDay(1))";
        let create = format!(
            "CREATE TABLE aion.tasks {columns} ENGINE = MergeTree PARTITION BY _batch_day ORDER BY at{ttl} SETTINGS \
             index_granularity = 8192, fsync_after_insert = 1 COMMENT 'A TTL of days, and SETTINGS fsync_after_insert = 0'"
        );
        Live { create, ..Live::default() }
    }

    #[test]
    fn only_a_ttl_of_days_takes_rows() {
        let append = " TTL toDateTime(_append_time) + toIntervalDay(7)";
        let said = |ttl: &str| (live(ttl).kept(), live(ttl).deleted_after_days());
        assert_eq!(said(append), (Kept::Days(7), Some(7)));
        assert_eq!(said(""), (Kept::Forever, None), "a column's TTL takes no rows");
        for other in [
            format!("{append} TO VOLUME 'cold'"),
            format!("{append} RECOMPRESS CODEC(ZSTD(9))"),
            format!("{append} WHERE route = 'x'"),
            format!("{append} GROUP BY at SET note = max(note)"),
            format!("{append}, toDateTime(_append_time) + toIntervalDay(9)"),
            format!("{append}, toDateTime(at) + toIntervalDay(9)"),
            " TTL toDateTime(timestamp) + toIntervalDay(7)".to_owned(),
            " TTL toDateTime(_append_time) + toIntervalWeek(1)".to_owned(),
            " TTL toDateTime(_append_time) + toIntervalDay(n)".to_owned(),
        ] {
            assert_eq!(said(&other), (Kept::Unknown, None), "{other}");
        }
    }

    #[test]
    fn a_part_is_found_by_its_kind_and_name_with_all_of_its_definition() {
        let create = "CREATE TABLE aion.tasks (`id` String COMMENT 'INDEX ix_a no, \\\', PROJECTION p (no)', `m` \
                      Map(String, String), INDEX ix_a id TYPE set(0) GRANULARITY 4, CONSTRAINT lease CHECK \
                      _lease > now(), PROJECTION p (SELECT id, count() GROUP BY id)) ENGINE = MergeTree \
                      PARTITION BY (a, INDEX b c)";
        let live = Live { create: create.to_owned(), ..Live::default() };
        let ix = live.part("INDEX", "ix_a");
        assert_eq!(ix, Some("INDEX ix_a id TYPE set(0) GRANULARITY 4"));
        let projection = live.part("PROJECTION", "p");
        assert_eq!(projection, Some("PROJECTION p (SELECT id, count() GROUP BY id)"));
        assert!(live.has_lease());
        assert_eq!(live.part("INDEX", "b"), None, "behind the list");
        assert_eq!(live.part("INDEX", "ix"), None);
        for other in ["_lease > (now() - 60)", "_lease > now() OR 1", "1"] {
            let create = create.replace("_lease > now()", other);
            assert!(!Live { create, ..Live::default() }.has_lease(), "{other}");
        }
    }

    #[test]
    fn a_comment_says_nothing_of_settings() {
        assert_eq!(live("").switch("fsync_after_insert"), Some(true));
        assert_eq!(live("").switch("fsync_part_directory"), None);
        assert_eq!(live("").setting("index_granularity"), Some(8192));
    }
}
