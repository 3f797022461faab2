//! Statements that are about the session, not about rows: what clients send before they ask anything.
//!
//! Every statement sees its own snapshot, in a transaction too, as at isolation level `read committed`; so
//! beginning and ending one needs no more than saying so.
//!
//! **Invariant:** what is said to be done holds: a time zone, an encoding, a style of dates and a level of isolation that
//! aren't here are refused, and so is every other value by which answers or statements would have to differ. What is taken and
//! does nothing: that one transaction may write, since Go's lib/pq begins each of them so (what would write in it is refused by
//! itself); fewer digits of doubles, which are sent with all that tell them apart; a time after which a session ends in a
//! transaction that is idle, or a statement that waits for a lock, since nobody waits for either.

use crate::statements;

/// What to do with a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Ask the engine.
    Ask,
    /// Begin a transaction.
    Begin,
    /// End one, with this tag.
    End(&'static str),
    /// Nothing but this tag.
    Done(&'static str),
    /// Give up the prepared statement of this name.
    Deallocate(String),
    /// Give up all prepared statements.
    DeallocateAll,
    /// Give up the portal of this name: cursors are portals, and none is declared here.
    Close(String),
    /// Give up all portals.
    CloseAll,
    /// Give up all that the session has named.
    DiscardAll,
    /// One row with the value of a setting.
    Show { name: String, value: String },
    /// Refused: SQLSTATE, message.
    Refuse(&'static str, String),
}

/// Settings that a client may set: no value of theirs does anything, but for those of [`FIXED`], the search path, the time zone
/// and transactions, whose values are looked at.
const SETTABLE: [&str; 14] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "search_path",
    "standard_conforming_strings",
    "timezone",
    "transaction",
];

/// What may be said of a setting that is on.
const ON: &[&str] = &["on", "true", "t", "yes", "y", "1", "default"];

/// Settings by which answers, or what statements mean, would differ, with what may be said of them, without signs: the
/// first holds.
const FIXED: [(&str, &[&str]); 6] = [
    ("bytea_output", &["hex", "default"]),
    ("client_encoding", &["utf8", "unicode", "default"]),
    // The order of day and month is of dates that are read, and none is read in which it would matter.
    ("datestyle", &["iso", "mdy", "dmy", "ymd", "default"]),
    ("default_transaction_read_only", ON),
    ("intervalstyle", &["postgres", "default"]),
    ("standard_conforming_strings", ON),
];

/// What the one time zone that there is may be called, and what stands for whichever there is.
const UTC: [&str; 17] = [
    "utc",
    "etc/utc",
    "uct",
    "etc/uct",
    "gmt",
    "etc/gmt",
    "zulu",
    "etc/zulu",
    "universal",
    "etc/universal",
    "z",
    "0",
    "+0",
    "+00",
    "+00:00",
    "default",
    "local",
];

/// The settings that can be shown, and their values.
pub(super) const SETTINGS: [(&str, &str); 12] = [
    ("application_name", ""),
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, YMD"),
    ("default_transaction_read_only", "on"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", super::VERSION),
    ("server_version_num", super::VERSION_NUM),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
];

/// What to do with one statement.
pub(super) fn of(sql: &str) -> Command {
    let bare = statements::without_comments(sql);
    let words: Vec<String> = bare
        .split(|c: char| c.is_whitespace() || matches!(c, ';' | '=' | '(' | ')' | ','))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    match word(0) {
        "begin" => begin(&words),
        "start" if word(1) == "transaction" => begin(&words),
        "commit" | "end" => Command::End("COMMIT"),
        "rollback" | "abort" if word(1) == "to" || word(2) == "to" => Command::Done("ROLLBACK"),
        "rollback" | "abort" => Command::End("ROLLBACK"),
        "savepoint" => Command::Done("SAVEPOINT"),
        "release" => Command::Done("RELEASE"),
        "deallocate" => deallocate(&bare),
        "discard" if word(1) == "all" => Command::DiscardAll,
        "discard" => Command::Done("DISCARD"),
        "close" => close(&bare),
        "reset" => Command::Done("RESET"),
        "set" => set(&words[1..]),
        "show" => show(&words[1..]),
        "copy" | "declare" | "fetch" | "listen" | "notify" | "lock" | "call" | "do" | "vacuum"
        | "grant" | "revoke" | "comment" | "truncate" | "prepare" | "execute" => Command::Refuse(
            "0A000",
            format!(
                "{} is refused: this is read-only; ask with select, show, describe or explain",
                word(0).to_uppercase()
            ),
        ),
        _ => Command::Ask,
    }
}

fn begin(words: &[String]) -> Command {
    isolated(words).unwrap_or(Command::Begin)
}

/// Refuses a level of isolation above the one that there is.
fn isolated(words: &[String]) -> Option<Command> {
    let at = words.windows(2).position(|pair| pair == ["isolation", "level"])?;
    match words.get(at + 2).map(String::as_str) {
        Some("repeatable" | "serializable") => {
            let what = "the isolation level can't be above read committed: each statement sees its own snapshot here";
            Some(Command::Refuse("0A000", what.to_owned()))
        }
        _ => None,
    }
}

/// Refuses to let all transactions of a session write: it is another name of `default_transaction_read_only`.
fn writing(words: &[String]) -> Option<Command> {
    let is_of_all = words.first().is_some_and(|first| first == "characteristics");
    let is_to_write = words.windows(2).any(|pair| pair == ["read", "write"]);
    let what = "transactions can't be read write: this is read-only";
    (is_of_all && is_to_write).then(|| Command::Refuse("0A000", what.to_owned()))
}

/// `deallocate x`, `deallocate prepare x`, `deallocate all`.
fn deallocate(bare: &str) -> Command {
    let rest = behind(bare, "deallocate").unwrap_or_default();
    let name = named(behind(rest, "prepare").unwrap_or(rest));
    name.map_or(Command::DeallocateAll, Command::Deallocate)
}

/// `close x`, `close all`. What names nothing is no SQL, which the engine says.
fn close(bare: &str) -> Command {
    match named(behind(bare, "close").unwrap_or_default()) {
        Some(name) if name.is_empty() => Command::Ask,
        Some(name) => Command::Close(name),
        None => Command::CloseAll,
    }
}

/// The name that stands for one, and none for all of them; names that aren't quoted are in small letters.
fn named(rest: &str) -> Option<String> {
    let name = rest.trim_end_matches(';').trim();
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => Some(quoted.replace("\"\"", "\"")),
        None if name.eq_ignore_ascii_case("all") => None,
        None => Some(name.to_lowercase()),
    }
}

/// What follows a word that the text begins with.
fn behind<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = text.trim_start().split_once(char::is_whitespace)?;
    first.eq_ignore_ascii_case(word).then_some(rest)
}

fn set(words: &[String]) -> Command {
    let words = match words.first().map(String::as_str) {
        Some("session" | "local") => &words[1..],
        _ => words,
    };
    let name = match words.first().map(String::as_str) {
        Some("time") => "timezone",
        Some("names") => "client_encoding",
        Some("characteristics") => "transaction",
        Some(name) => name,
        None => "",
    };
    if name == "timezone" {
        set_time_zone(&words[1..])
    } else if name == "search_path" {
        set_search_path(&words[1..])
    } else if name == "transaction" {
        isolated(words).or_else(|| writing(words)).unwrap_or(Command::Done("SET"))
    } else if let Some((_, may_be)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
        set_fixed(name, may_be, &words[1..])
    } else if SETTABLE.contains(&name) {
        Command::Done("SET")
    } else {
        let what = format!("{name:?} can't be set here; these can: {}", SETTABLE.join(", "));
        Command::Refuse("42704", what)
    }
}

/// `set datestyle to x, y`, `set datestyle = x` and `set names x`, from behind the second word.
fn set_fixed(name: &str, may_be: &[&str], words: &[String]) -> Command {
    match values(words).find(|value| !may_be.contains(&value.as_str())) {
        None => Command::Done("SET"),
        Some(other) => {
            let what = format!("{name} can't be {other:?}: it is {} here", may_be[0]);
            Command::Refuse("0A000", what)
        }
    }
}

/// What a setting is set to, without signs.
fn values(words: &[String]) -> impl Iterator<Item = String> {
    let bare = |word: &String| word.replace(|c: char| !c.is_alphanumeric(), "");
    words.iter().map(bare).filter(|word| word != "to")
}

/// `set search_path to x, y`: names without a schema mean tables of `public`, or of `pg_catalog`, and there is no schema of a
/// user's name.
fn set_search_path(words: &[String]) -> Command {
    let schemas: Vec<String> = values(words).collect();
    let is_here = |schema: &String| matches!(schema.as_str(), "public" | "user" | "pgcatalog");
    let has_public = schemas.iter().any(|schema| schema == "public");
    if schemas == ["default"] || (has_public && schemas.iter().all(is_here)) {
        return Command::Done("SET");
    }
    let what = "search_path is public here, with \"$user\" and pg_catalog beside it at most: name another schema where you \
                ask, as in information_schema.tables";
    Command::Refuse("0A000", what.to_owned())
}

/// `set timezone to x`, `set timezone = x` and `set time zone x`, from behind the second word.
fn set_time_zone(words: &[String]) -> Command {
    let words = match words.first().map(String::as_str) {
        Some("to" | "zone") => &words[1..],
        _ => words,
    };
    let wanted = words.join(" ");
    let bare = wanted.trim_matches(['\'', '"']);
    if UTC.contains(&bare) {
        return Command::Done("SET");
    }
    // Otherwise `date_trunc` would cut days elsewhere than its client believes, and nothing would say so.
    let what = format!(
        "the time zone {bare:?} can't be set: times are in UTC here; for days of another zone convert where you ask, as \
         in date_trunc('day', timestamp at time zone 'Europe/Berlin')"
    );
    Command::Refuse("0A000", what)
}

fn show(words: &[String]) -> Command {
    let name = words.join(" ");
    let name = match name.as_str() {
        "time zone" => "timezone",
        "transaction isolation level" | "transaction_isolation" => {
            return Command::Show {
                name: "transaction_isolation".into(),
                value: "read committed".into(),
            };
        }
        name => name,
    };
    match SETTINGS.iter().find(|(known, _)| *known == name) {
        Some((name, value)) => Command::Show { name: (*name).into(), value: (*value).into() },
        // `show tables` and the like are the engine's.
        None => Command::Ask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_told_from_questions() {
        for (sql, wanted) in [
            ("select 1", Command::Ask),
            ("-- begin\nselect 1", Command::Ask),
            ("/* x */ BEGIN READ ONLY;", Command::Begin),
            ("start transaction isolation level read committed, read only", Command::Begin),
            ("BEGIN TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", Command::Begin),
            ("COMMIT", Command::End("COMMIT")),
            ("BEGIN READ WRITE", Command::Begin),
            ("set transaction read write", Command::Done("SET")),
            ("rollback", Command::End("ROLLBACK")),
            ("rollback to savepoint a", Command::Done("ROLLBACK")),
            ("DEALLOCATE _pg3_0", Command::Deallocate("_pg3_0".into())),
            ("deallocate\tprepare \"A \"\"b\";", Command::Deallocate("A \"b".into())),
            ("deallocate /* x */ S_1 ;", Command::Deallocate("s_1".into())),
            ("deallocate prepare", Command::Deallocate("prepare".into())),
            ("deallocate \"all\"", Command::Deallocate("all".into())),
            ("DEALLOCATE ALL", Command::DeallocateAll),
            ("deallocate prepare all;", Command::DeallocateAll),
            ("DISCARD ALL;", Command::DiscardAll),
            ("discard plans", Command::Done("DISCARD")),
            ("CLOSE C_1", Command::Close("c_1".into())),
            ("close /* x */ \"C_1\" ;", Command::Close("C_1".into())),
            ("Close All;", Command::CloseAll),
            ("close \"all\"", Command::Close("all".into())),
            ("close", Command::Ask),
            ("SET extra_float_digits = 3", Command::Done("SET")),
            ("set session characteristics as transaction read only", Command::Done("SET")),
            ("SET TIME ZONE 'UTC'", Command::Done("SET")),
            ("set time zone local", Command::Done("SET")),
            ("set local time zone 0", Command::Done("SET")),
            ("SET SESSION TimeZone TO 'Etc/UTC';", Command::Done("SET")),
            ("set timezone=default", Command::Done("SET")),
            ("set timezone = \"+00:00\"", Command::Done("SET")),
            ("set client_encoding to 'UTF8'", Command::Done("SET")),
            ("SET client_encoding='utf-8'", Command::Done("SET")),
            ("set names \"UNICODE\"", Command::Done("SET")),
            ("set client_encoding to default", Command::Done("SET")),
            ("SET DateStyle=ISO", Command::Done("SET")),
            ("set datestyle to 'ISO, MDY'", Command::Done("SET")),
            ("set session datestyle to iso, dmy;", Command::Done("SET")),
            ("set bytea_output to 'hex'", Command::Done("SET")),
            ("SET INTERVALSTYLE = POSTGRES", Command::Done("SET")),
            ("set standard_conforming_strings=on;", Command::Done("SET")),
            ("set default_transaction_read_only to 'true'", Command::Done("SET")),
            ("SET search_path TO public", Command::Done("SET")),
            ("set search_path = \"$user\", public", Command::Done("SET")),
            ("set local search_path to 'public', pg_catalog;", Command::Done("SET")),
            ("set search_path to default", Command::Done("SET")),
            (
                "set session characteristics as transaction isolation level read uncommitted",
                Command::Done("SET"),
            ),
            ("show tables", Command::Ask),
            (
                "SHOW standard_conforming_strings",
                Command::Show { name: "standard_conforming_strings".into(), value: "on".into() },
            ),
        ] {
            assert_eq!(of(sql), wanted, "{sql}");
        }
        for refused in [
            "set datafusion.execution.batch_size = 1",
            "copy t to stdout",
            "vacuum",
            "lock t",
            "set time zone 'Europe/Berlin'",
            "SET SESSION timezone TO 'America/New_York'",
            "set local timezone = -5",
            "set time zone interval '+01:00' hour to minute",
            "set timezone",
            "start transaction isolation level repeatable read",
            "BEGIN READ ONLY, ISOLATION LEVEL SERIALIZABLE",
            "set transaction isolation level serializable",
            "set session characteristics as transaction isolation level repeatable read",
            "set session characteristics as transaction read write",
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;",
            "set client_encoding to 'LATIN1'",
            "set names latin1",
            "set datestyle = 'German'",
            "set datestyle to sql, dmy",
            "set local datestyle to 'ISO, Postgres'",
            "set bytea_output to escape",
            "set intervalstyle = 'iso_8601'",
            "set session intervalstyle to postgres_verbose",
            "set standard_conforming_strings = off",
            "set default_transaction_read_only to off",
            "set search_path to ''",
            "set search_path = other, \"$user\"",
            "set search_path to 'publicity'",
            "set search_path to information_schema, public",
            "set search_path = public, information_schema",
            "set search_path to \"$user\", pg_catalog",
            "set search_path to default, public",
            "set search_path to",
        ] {
            assert!(matches!(of(refused), Command::Refuse(..)), "{refused}");
        }
    }
}
