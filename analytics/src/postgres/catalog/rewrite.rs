//! Questions about the catalog, from words that only PostgreSQL understands into plain SQL.

use std::borrow::Cow;

use super::SCHEMA;
use crate::statements;

/// Relations that are always empty here; a question about one has no rows.
const EMPTY: [&str; 14] = [
    "pg_attrdef",
    "pg_constraint",
    "pg_event_trigger",
    "pg_foreign_table",
    "pg_index",
    "pg_inherits",
    "pg_matviews",
    "pg_partitioned_table",
    "pg_policy",
    "pg_proc",
    "pg_publication",
    "pg_statistic_ext",
    "pg_subscription",
    "pg_trigger",
];

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

/// Functions of ours, which clients may call by their full name.
const FUNCTIONS: [&str; 13] = [
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
    // What has no value for any column of ours; the engine knows no such subqueries.
    for start in [
        "(SELECT pg_catalog.pg_get_expr(",
        "(SELECT c.collname ",
        "pg_catalog.array_to_string(c.reloptions",
    ] {
        replace_group(&mut text, start, "null");
    }
    // Grafana's way of asking for the schemas of the search path.
    replace_group(
        &mut text,
        "quote_ident(table_schema) IN ( SELECT CASE WHEN trim(s[i])",
        "(table_schema = 'public')",
    );
    if EMPTY.iter().any(|name| mentions(&text, name)) {
        return Cow::Borrowed("select 1 as nothing where false");
    }
    // The kind of object is not needed: objects of ours have numbers that nothing else has.
    text = text.replace(", 'pg_class')", ")");
    Cow::Owned(outside_quotes(&text))
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

/// Replaces what starts like this, up to the end of its parentheses.
fn replace_group(text: &mut String, start: &str, by: &str) {
    while let Some(at) = text.find(start) {
        let open = at + start.find('(').unwrap_or(0);
        // Of `f(x) IN (`, the last is the one that counts.
        let open = if start.contains(" IN (") {
            at + start.find(" IN (").unwrap_or(0) + " IN ".len()
        } else {
            open
        };
        let Some(end) = closing(&text[open..]) else { return };
        text.replace_range(at..open + end, by);
    }
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

/// Whether a relation is named outside quotes.
fn mentions(sql: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    statements::pieces(sql).any(|(piece, is_plain)| {
        is_plain
            && piece.match_indices(name).any(|(at, _)| {
                let before = piece[..at].chars().next_back();
                let after = piece[at + name.len()..].chars().next();
                !before.is_some_and(is_word) && !after.is_some_and(|c| is_word(c) || c == '(')
            })
    })
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
                "select 1 from pg_class\n  where relname OPERATOR(pg_catalog.~) '^(a  b)$' COLLATE pg_catalog.default",
                "select 1 from pg_class where relname ~ '^(a  b)$' ",
            ),
            (
                "SELECT a, (SELECT pg_catalog.pg_get_expr(d.x, (d.y)) FROM pg_catalog.pg_attrdef d WHERE ')' = d.z), b \
                 FROM pg_catalog.pg_attribute a",
                "SELECT a, null, b FROM pg_catalog.pg_attribute a",
            ),
            (
                "SELECT x FROM information_schema.tables WHERE quote_ident(table_schema) IN (\n SELECT\n CASE WHEN \
                 trim(s[i]) = '\"$user\"' THEN user END FROM generate_series(1, (2)) as i) AND y",
                "SELECT x FROM pg_catalog.information_tables WHERE (table_schema = 'public') AND y",
            ),
            ("SELECT pol.polname FROM pg_catalog.pg_policy pol", "select 1 as nothing where false"),
        ] {
            assert_eq!(rewritten(sql), plain);
        }
    }
}
