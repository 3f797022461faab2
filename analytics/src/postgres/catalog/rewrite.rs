//! Questions about the catalog, from words that only PostgreSQL understands into plain SQL.

use std::borrow::Cow;

use super::{SCHEMA, empty};
use crate::statements;

/// Words that stand outside quotes, and what stands for them.
const WORDS: [(&str, &str); 12] = [
    ("OPERATOR(pg_catalog.~)", "~"),
    ("COLLATE pg_catalog.default", ""),
    ("::pg_catalog.regtype", ""),
    ("::pg_catalog.regclass", ""),
    ("::regclass", ""),
    ("::regtype", ""),
    ("::pg_catalog.text", "::text"),
    ("information_schema.schemata", "pg_catalog.information_schemata"),
    ("information_schema.tables", "pg_catalog.information_tables"),
    ("information_schema.columns", "pg_catalog.information_columns"),
    ("pg_catalog.array_to_string", "array_to_string"),
    ("pg_catalog.array_length", "array_length"),
];

/// How that begins which has no value for any column of ours; the engine knows no such subqueries.
const WITHOUT_VALUE: [&str; 6] = [
    "(SELECT pg_catalog.pg_get_expr(",
    "(SELECT c.collname ",
    "pg_catalog.array_to_string(c.reloptions",
    "pg_catalog.array_to_string(c.relacl",
    "pg_catalog.array_to_string(d.datacl",
    "pg_catalog.array_to_string(ARRAY( SELECT ",
];

/// A statement without rows.
pub(crate) const NOTHING: &str = "select 1 as nothing where false";

/// Functions of ours, which clients may call by their full name.
pub(super) const FUNCTIONS: [&str; 14] = [
    "version",
    "current_database",
    "current_schema",
    "current_setting",
    "quote_ident",
    "parse_ident",
    "to_regtype",
    "pg_table_is_visible",
    "pg_type_is_visible",
    "pg_get_userbyid",
    "pg_encoding_to_char",
    "format_type",
    "col_description",
    "obj_description",
];

/// The statement in words that the engine understands. One that has nothing to do with the catalog stays as it is.
pub(crate) fn rewritten(sql: &str) -> Cow<'_, str> {
    let lower = sql.to_lowercase();
    if !["pg_", "information_schema", "::reg"].iter().any(|sign| lower.contains(sign)) {
        return Cow::Borrowed(sql);
    }
    let mut text = squeezed(sql);
    for start in WITHOUT_VALUE {
        let is_meant = |group: &str| !start.contains("SELECT") || empty::is_of_catalog(group);
        text = replaced(&text, start, "null", is_meant);
    }
    // Grafana's way of asking for the schemas of the search path.
    text = replaced(
        &text,
        "quote_ident(table_schema) IN ( SELECT CASE WHEN trim(s[i])",
        "(table_schema = 'public')",
        |_| true,
    );
    let plain = outside_quotes(&text);
    if empty::has_no_rows(&plain) {
        return Cow::Borrowed(NOTHING);
    }
    Cow::Owned(plain)
}

/// White space outside quotes as one blank.
fn squeezed(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    for (piece, is_plain) in statements::pieces(sql) {
        if !is_plain {
            out.push_str(piece);
        } else if !piece.trim().is_empty() || !out.ends_with(' ') {
            for c in piece.chars() {
                if !c.is_whitespace() {
                    out.push(c);
                } else if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
        }
    }
    out
}

/// Replaces what starts like this outside quotes, up to the end of its parentheses, where it is meant.
fn replaced(text: &str, start: &str, by: &str, is_meant: impl Fn(&str) -> bool) -> String {
    // Of `f(x) IN (`, the last is the one that counts.
    let open = match start.find(" IN (") {
        Some(at) => at + " IN ".len(),
        None => start.find('(').unwrap_or(0),
    };
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = found(rest, start) {
        let Some(end) = closing(&rest[at + open..]) else { break };
        let end = at + open + end;
        let group = &rest[at..end];
        out.push_str(&rest[..at]);
        out.push_str(if is_meant(group) { by } else { group });
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Where `wanted` stands outside quotes.
fn found(text: &str, wanted: &str) -> Option<usize> {
    let mut at = 0;
    for (piece, is_plain) in statements::pieces(text) {
        if is_plain && let Some(within) = piece.find(wanted) {
            return Some(at + within);
        }
        at += piece.len();
    }
    None
}

/// Where the parenthesis that `text` starts with is closed.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    for (piece, is_plain) in statements::pieces(text) {
        if is_plain {
            for (within, c) in piece.char_indices() {
                match c {
                    '(' => depth += 1,
                    ')' if depth == 1 => return Some(at + within + 1),
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        at += piece.len();
    }
    None
}

fn outside_quotes(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    for (piece, is_plain) in statements::pieces(sql) {
        if !is_plain {
            out.push_str(piece);
            continue;
        }
        let mut piece = piece.to_owned();
        for (theirs, ours) in WORDS {
            piece = piece.replace(theirs, ours);
        }
        for name in FUNCTIONS {
            piece = piece.replace(&format!("{SCHEMA}.{name}("), &format!("{name}("));
        }
        out.push_str(&piece);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_statements_stay_as_they_are() {
        for sql in ["select 'a  b' from decisions", "select  1"] {
            assert_eq!(rewritten(sql), sql);
        }
    }

    #[test]
    fn words_of_postgres_become_plain() {
        for (sql, plain) in [
            (
                "SELECT pg_catalog.pg_get_userbyid(c.relowner), 'pg_catalog.version(' FROM pg_catalog.pg_class c",
                "SELECT pg_get_userbyid(c.relowner), 'pg_catalog.version(' FROM pg_catalog.pg_class c",
            ),
            (
                "SELECT pg_catalog.pg_encoding_to_char(d.encoding), pg_catalog.array_to_string(d.datacl, E'\\n') AS \"a\" \
                 FROM pg_catalog.pg_database d",
                "SELECT pg_encoding_to_char(d.encoding), null AS \"a\" FROM pg_catalog.pg_database d",
            ),
            (
                "select 1 from pg_class\n  where relname OPERATOR(pg_catalog.~) '^(a  b)$' COLLATE pg_catalog.default",
                "select 1 from pg_class where relname ~ '^(a  b)$' ",
            ),
            (
                "SELECT a, (SELECT pg_catalog.pg_get_expr(d.x, (d.y)) FROM pg_catalog.pg_attrdef d WHERE ')' = d.z), b \
                 FROM pg_catalog.pg_attribute a",
                "SELECT a, null, b FROM pg_catalog.pg_attribute a",
            ),
            (
                "SELECT (SELECT c.collname FROM pg_catalog.pg_collation c, pg_catalog.pg_type t WHERE c.oid = (1)), \
                 pg_catalog.array_to_string(ARRAY(\n  SELECT a FROM pg_catalog.pg_options_to_table(b)), ', ') FROM pg_class",
                "SELECT null, null FROM pg_class",
            ),
            // What has values, since it isn't about the catalog alone.
            (
                "SELECT (SELECT c.collname FROM pg_class b, decisions c), pg_catalog.array_to_string(ARRAY( SELECT route \
                 FROM decisions), ',') FROM pg_class WHERE relname = '(SELECT c.collname FROM pg_class)'",
                "SELECT (SELECT c.collname FROM pg_class b, decisions c), array_to_string(ARRAY( SELECT route \
                 FROM decisions), ',') FROM pg_class WHERE relname = '(SELECT c.collname FROM pg_class)'",
            ),
            (
                "SELECT x FROM information_schema.tables WHERE quote_ident(table_schema) IN (\n SELECT\n CASE WHEN \
                 trim(s[i]) = '\"$user\"' THEN user END FROM generate_series(1, (2)) as i) AND y",
                "SELECT x FROM pg_catalog.information_tables WHERE (table_schema = 'public') AND y",
            ),
            (
                "SELECT pol.polname FROM pg_catalog.pg_policy pol WHERE a IN ('a', 'pg_class')",
                "SELECT pol.polname FROM pg_catalog.pg_policy pol WHERE a IN ('a', 'pg_class')",
            ),
            (
                "SELECT pg_catalog.pg_get_expr(pol.polqual, pol.polrelid)\n FROM pg_catalog.pg_policy pol",
                "select 1 as nothing where false",
            ),
        ] {
            assert_eq!(rewritten(sql), plain);
        }
    }
}
