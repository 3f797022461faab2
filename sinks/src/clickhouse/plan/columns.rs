//! What the columns of a table have otherwise than the contract's: which there are, their types, how they come about,
//! how they are packed.

use aion_schemas::clickhouse::{Column, Table};

use super::{Change, Live, parts};

/// What the columns have otherwise.
pub(super) fn differences(
    table: &Table,
    live: &Live,
    change: impl Fn(String, Option<String>, bool) -> Change,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut after = String::from("FIRST");
    for column in &table.columns {
        let Column { name, kind, .. } = column;
        match live.columns.get(name) {
            Some(theirs) if theirs == kind => {
                changes.extend(computed(column, live, &change));
                changes.extend(packed(column, live, &change));
            }
            Some(theirs) => {
                let what = format!("column {name} is {theirs}, and would be {kind} in a new table");
                changes.push(change(what, Some(format!("MODIFY COLUMN {name} {kind}")), false));
            }
            None => {
                let add = format!("ADD COLUMN {} {after}", column.definition());
                changes.push(change(format!("column {name} is missing"), Some(add), true));
            }
        }
        after = format!("AFTER {name}");
    }
    let ours = |name: &String| table.columns.iter().any(|column| column.name == *name);
    for (name, kind) in live.columns.iter().filter(|(name, _)| !ours(name)) {
        let what = format!("column {name} ({kind}) is not of the contract, and is left alone");
        changes.push(change(what, None, false));
    }
    changes
}

/// A column that the server computes otherwise, or doesn't. What is stored of it stays as it is.
fn computed(
    column: &Column,
    live: &Live,
    change: impl Fn(String, Option<String>, bool) -> Change,
) -> Option<Change> {
    let name = &column.name;
    let ours = column.materialized.as_ref().map(|from| format!("MATERIALIZED {from}"));
    let theirs = live.computed.get(name).map(String::as_str);
    // A default is not asked where writers send the column.
    let is_unused = ours.is_none() && theirs.is_some_and(|from| from.starts_with("DEFAULT "));
    if is_unused || ours.as_deref() == theirs {
        return None;
    }
    let words = |from: Option<&str>| from.unwrap_or("plain").to_owned();
    let (is, would) = (words(theirs), words(ours.as_deref()));
    let what = format!("column {name} is {is}, and would be {would} in a new table");
    let sql = match theirs.and_then(|from| from.split(' ').next()).filter(|_| ours.is_none()) {
        Some(kind) => format!("MODIFY COLUMN {name} REMOVE {kind}"),
        None => format!("MODIFY COLUMN {}", column.definition()),
    };
    Some(change(what, Some(sql), false))
}

/// A column that is packed otherwise. It is read all the same.
fn packed(
    column: &Column,
    live: &Live,
    change: impl Fn(String, Option<String>, bool) -> Change,
) -> Option<Change> {
    let Column { name, codec, .. } = column;
    let theirs = live.codecs.get(name).map_or("", String::as_str);
    let is = without_widths(theirs);
    if is == *codec {
        return None;
    }
    let is = if is.is_empty() { "none".to_owned() } else { is };
    let what = format!("the codec of column {name} is {is}, and would be {codec} in a new table");
    Some(change(what, Some(format!("MODIFY COLUMN {name} CODEC({codec})")), false))
}

/// A column's codecs as the contract has them: the server writes the width of its type beside some, `Delta(8)`.
fn without_widths(codec: &str) -> String {
    let Some(list) = codec.strip_prefix("CODEC(") else { return String::new() };
    let plain = parts(list).into_iter().map(|one| match one.split_once('(') {
        Some((name @ ("Delta" | "DoubleDelta" | "Gorilla"), _)) => name,
        _ => one,
    });
    plain.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_is_told_without_the_width_of_its_column() {
        assert_eq!(without_widths("CODEC(Delta(8), ZSTD(1))"), "Delta, ZSTD(1)");
        assert_eq!(without_widths("CODEC(Gorilla(8), ZSTD(1))"), "Gorilla, ZSTD(1)");
        assert_eq!(without_widths("CODEC(T64, ZSTD(3))"), "T64, ZSTD(3)");
        assert_eq!(without_widths(""), "");
    }
}
