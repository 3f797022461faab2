//! Relations that are always empty here, and questions that therefore have no rows.
//!
//! They are tables like others, so that whatever can be planned is answered by the engine: a count is 0, a left join
//! keeps its other side. psql asks some of them in words that nothing but PostgreSQL understands; those of its
//! questions that can't have rows are answered with none.
//!
//! **Invariant:** only what can have no row whatever its words mean is answered so.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema},
};
use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer, Word},
};

use super::{SCHEMA, rewrite::FUNCTIONS};

/// Selects within selects that are looked into.
const MAX_DEPTH: usize = 4;

/// A relation without rows. The columns are named in one text for each type.
pub(super) struct Empty {
    pub(super) name: &'static str,
    numbers: &'static str,
    flags: &'static str,
    texts: &'static str,
    /// Lists of numbers, such as places of columns.
    lists: &'static str,
}

pub(super) const EMPTY: [Empty; 20] = [
    Empty {
        name: "pg_attrdef",
        numbers: "oid adrelid adnum",
        flags: "",
        texts: "adbin",
        lists: "",
    },
    Empty {
        name: "pg_cast",
        numbers: "oid castsource casttarget castfunc",
        flags: "",
        texts: "castcontext castmethod",
        lists: "",
    },
    Empty {
        name: "pg_constraint",
        numbers: "oid connamespace conrelid contypid conindid conparentid confrelid coninhcount",
        flags: "condeferrable condeferred convalidated conislocal connoinherit",
        texts: "conname contype confupdtype confdeltype confmatchtype conbin",
        lists: "conkey confkey",
    },
    Empty {
        name: "pg_event_trigger",
        numbers: "oid evtowner evtfoid",
        flags: "",
        texts: "evtname evtevent evtenabled evttags",
        lists: "",
    },
    Empty {
        name: "pg_foreign_table",
        numbers: "ftrelid ftserver",
        flags: "",
        texts: "ftoptions",
        lists: "",
    },
    Empty {
        name: "pg_index",
        numbers: "indexrelid indrelid indnatts indnkeyatts",
        flags: "indisunique indnullsnotdistinct indisprimary indisexclusion indimmediate indisclustered indisvalid \
                indcheckxmin indisready indislive indisreplident",
        texts: "indexprs indpred",
        lists: "indkey indcollation indclass indoption",
    },
    Empty {
        name: "pg_inherits",
        numbers: "inhrelid inhparent inhseqno",
        flags: "inhdetachpending",
        texts: "",
        lists: "",
    },
    Empty {
        name: "pg_matviews",
        numbers: "",
        flags: "hasindexes ispopulated",
        texts: "schemaname matviewname matviewowner tablespace definition",
        lists: "",
    },
    Empty {
        name: "pg_opclass",
        numbers: "oid opcmethod opcnamespace opcowner opcfamily opcintype opckeytype",
        flags: "opcdefault",
        texts: "opcname",
        lists: "",
    },
    Empty {
        name: "pg_opfamily",
        numbers: "oid opfmethod opfnamespace opfowner",
        flags: "",
        texts: "opfname",
        lists: "",
    },
    Empty {
        name: "pg_partitioned_table",
        numbers: "partrelid partnatts partdefid",
        flags: "",
        texts: "partstrat partexprs",
        lists: "partattrs partclass partcollation",
    },
    Empty {
        name: "pg_policy",
        numbers: "oid polrelid",
        flags: "polpermissive",
        texts: "polname polcmd polqual polwithcheck",
        lists: "polroles",
    },
    Empty {
        name: "pg_proc",
        numbers: "oid pronamespace proowner prolang provariadic pronargs pronargdefaults prorettype",
        flags: "prosecdef proleakproof proisstrict proretset",
        texts: "proname prokind provolatile proparallel prosrc probin",
        lists: "proargtypes proallargtypes",
    },
    Empty {
        name: "pg_publication",
        numbers: "oid pubowner",
        flags: "puballtables pubinsert pubupdate pubdelete pubtruncate pubviaroot",
        texts: "pubname",
        lists: "",
    },
    Empty {
        name: "pg_publication_namespace",
        numbers: "oid pnpubid pnnspid",
        flags: "",
        texts: "",
        lists: "",
    },
    Empty {
        name: "pg_publication_rel",
        numbers: "oid prpubid prrelid",
        flags: "",
        texts: "prqual",
        lists: "prattrs",
    },
    Empty {
        name: "pg_rewrite",
        numbers: "oid ev_class",
        flags: "is_instead",
        texts: "rulename ev_type ev_enabled",
        lists: "",
    },
    Empty {
        name: "pg_statistic_ext",
        numbers: "oid stxrelid stxnamespace stxowner stxstattarget",
        flags: "",
        texts: "stxname stxkind stxexprs",
        lists: "stxkeys",
    },
    Empty {
        name: "pg_subscription",
        numbers: "oid subdbid subowner",
        flags: "subenabled",
        texts: "subname subconninfo subslotname subsynccommit subpublications",
        lists: "",
    },
    Empty {
        name: "pg_trigger",
        numbers: "oid tgrelid tgparentid tgfoid tgtype tgconstrrelid tgconstrindid tgconstraint tgnargs",
        flags: "tgisinternal tgdeferrable tginitdeferred",
        texts: "tgname tgenabled tgqual",
        lists: "tgattr",
    },
];

impl Empty {
    /// The relation as a table has it.
    pub(super) fn rows(&self) -> RecordBatch {
        let kinds = [
            (self.numbers, DataType::Int32),
            (self.flags, DataType::Boolean),
            (self.texts, DataType::Utf8),
            (self.lists, DataType::new_list(DataType::Int32, true)),
        ];
        let fields = kinds.iter().flat_map(|(names, kind)| {
            names.split_whitespace().map(move |name| Field::new(name, kind.clone(), true))
        });
        RecordBatch::new_empty(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}

/// Whether a statement can't be planned here, and can't have rows either.
pub(super) fn has_no_rows(sql: &str) -> bool {
    let tokens = words(sql);
    is_for_postgres(&tokens) && is_empty(&tokens, MAX_DEPTH)
}

/// Whether a statement names a relation that is empty here. Where it can't be planned, since it goes on in words that only
/// PostgreSQL knows, whoever asks is served best by no rows: drivers ask so for keys and indexes.
pub(crate) fn is_about_nothing(sql: &str) -> bool {
    words(sql).iter().any(|token| EMPTY.iter().any(|relation| is_named(token, relation.name)))
}

/// How far the select of a parenthesis is.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// There is none, as in a call.
    Outside,
    Columns,
    Relations,
    Conditions,
}

/// Whether what is selected in it comes from relations and functions of the catalog alone.
pub(super) fn is_of_catalog(sql: &str) -> bool {
    // For each parenthesis that is open.
    let mut parts = vec![Part::Outside];
    let (mut is_relation, mut any, mut before) = (false, false, Token::EOF);
    for token in words(sql) {
        let (keyword, keyword_before) = (keyword(&token), keyword(&before));
        let is_more = matches!(keyword, Keyword::ONLY | Keyword::LATERAL);
        if is_relation && token != Token::LParen && keyword != Keyword::SELECT && !is_more {
            if !matches!(&token, Token::Word(word) if word.value.to_lowercase().starts_with("pg_"))
            {
                return false;
            }
            any = true;
        }
        match token {
            Token::LParen => parts.push(Part::Outside),
            Token::RParen => {
                parts.pop();
            }
            _ => {}
        }
        let Some(part) = parts.last_mut() else { return false };
        let names_relations = match keyword {
            Keyword::JOIN => true,
            // Others are words of calls, as in `substring(a FROM 1)`, and of `IS DISTINCT FROM`.
            Keyword::FROM => {
                before == Token::LParen
                    || (*part == Part::Columns && keyword_before != Keyword::DISTINCT)
            }
            _ => false,
        };
        // A parenthesis in place of a relation is a select, or begins with one.
        is_relation = match token {
            Token::LParen => is_relation,
            Token::Comma => *part == Part::Relations,
            _ => names_relations || (is_relation && is_more),
        };
        *part = match keyword {
            _ if names_relations => Part::Relations,
            Keyword::SELECT => Part::Columns,
            Keyword::WHERE | Keyword::GROUP | Keyword::ORDER => Part::Conditions,
            _ => *part,
        };
        before = token;
    }
    any
}

fn words(sql: &str) -> Vec<Token> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    let is_word = |token: &Token| !matches!(token, Token::Whitespace(_) | Token::SemiColon);
    tokens.into_iter().filter(is_word).collect()
}

/// Whether there is a call or a cast that goes by PostgreSQL's catalog: what is known here no longer does.
fn is_for_postgres(tokens: &[Token]) -> bool {
    tokens.windows(4).any(|four| match four {
        [schema, Token::Period, _, Token::LParen] | [Token::DoubleColon, schema, ..] => {
            is_named(schema, SCHEMA)
        }
        _ => false,
    })
}

/// Whether each select of a statement takes its rows from a relation without any, and makes none of its own.
fn is_empty(tokens: &[Token], depth: usize) -> bool {
    let is_between = |token: &Token| {
        matches!(keyword(token), Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT)
    };
    depth > 0 && parts(tokens, is_between).into_iter().all(|select| is_empty_select(select, depth))
}

fn is_empty_select(tokens: &[Token], depth: usize) -> bool {
    let tokens = match tokens {
        [all, rest @ ..] if keyword(all) == Keyword::ALL => rest,
        select => select,
    };
    let halves = parts(tokens, |token| keyword(token) == Keyword::FROM);
    let [[select, columns @ ..], rest] = halves[..] else { return false };
    // A group of nothing can be a row, and so can what an outer join has on its other side.
    let makes_rows = |token: &Token| {
        let ways = [Keyword::GROUP, Keyword::HAVING, Keyword::RIGHT, Keyword::FULL];
        ways.contains(&keyword(token))
    };
    if keyword(select) != Keyword::SELECT
        || has_aggregates(columns)
        || parts(rest, makes_rows).len() > 1
    {
        return false;
    }
    // What is only sorted by makes a group as well.
    let sorted = parts(rest, |token| keyword(token) == Keyword::ORDER);
    if sorted[1..].iter().any(|by| has_aggregates(by)) {
        return false;
    }
    let ends = parts(sorted[0], |token| keyword(token) == Keyword::WHERE);
    let joined = parts(ends[0], |token| *token == Token::Comma);
    joined.into_iter().any(|one| starts_empty(one, depth))
}

/// Whether the first of relations that are joined has no rows.
fn starts_empty(tokens: &[Token], depth: usize) -> bool {
    let is_known = |token: &Token| EMPTY.iter().any(|relation| is_named(token, relation.name));
    match tokens {
        [schema, Token::Period, name, ..] => is_named(schema, SCHEMA) && is_known(name),
        [Token::LParen, within @ ..] => {
            closing(within).is_some_and(|end| is_empty(&within[..end], depth - 1))
        }
        [name, ..] => is_known(name),
        [] => false,
    }
}

/// Whether something is called that may make one row out of none: whatever isn't known to be something else. What selects
/// of their own call concerns only them.
fn has_aggregates(columns: &[Token]) -> bool {
    let mut rest = columns;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (Token::Word(_), [Token::LParen, ..]) if !is_plain(first) => return true,
            (Token::LParen, [select, ..]) if keyword(select) == Keyword::SELECT => {
                rest = &after[closing(after).unwrap_or(after.len())..];
            }
            _ => {}
        }
    }
    false
}

/// Whether a word before a parenthesis is surely no aggregate.
fn is_plain(word: &Token) -> bool {
    let is_keyword = matches!(
        keyword(word),
        Keyword::CAST
            | Keyword::ARRAY
            | Keyword::ANY
            | Keyword::BY
            | Keyword::IN
            | Keyword::NOT
            | Keyword::AND
            | Keyword::OR
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
    );
    let is_of_catalog =
        |word: &Word| word.quote_style.is_none() && word.value.to_lowercase().starts_with("pg_");
    is_keyword
        || is_named(word, "array_to_string")
        || FUNCTIONS.iter().any(|name| is_named(word, name))
        || matches!(word, Token::Word(word) if is_of_catalog(word))
}

/// The parts between tokens that stand outside parentheses; one at least.
fn parts(tokens: &[Token], is_between: impl Fn(&Token) -> bool) -> Vec<&[Token]> {
    let mut depth = 0_usize;
    let is_end = |token: &Token| {
        depth = deeper(depth, token);
        depth == 0 && is_between(token)
    };
    tokens.split(is_end).collect()
}

/// Where the parenthesis is closed that stands before these tokens.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut depth = 1_usize;
    tokens.iter().position(|token| {
        depth = deeper(depth, token);
        depth == 0
    })
}

fn deeper(depth: usize, token: &Token) -> usize {
    match token {
        Token::LParen => depth + 1,
        Token::RParen => depth.saturating_sub(1),
        _ => depth,
    }
}

fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

fn is_named(token: &Token, name: &str) -> bool {
    matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_postgresql_understands_has_no_rows() {
        for sql in [
            "SELECT p.proname, pg_catalog.pg_get_function_result(p.oid), CASE p.prokind WHEN 'a' THEN 'agg' END \
             FROM pg_catalog.pg_proc p LEFT JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace ORDER BY 1;",
            "SELECT c.oid, pg_catalog.pg_get_expr(c.relpartbound, c.oid) FROM pg_catalog.pg_class c, \
             pg_catalog.pg_inherits i WHERE c.oid = i.inhrelid ORDER BY pg_catalog.pg_get_expr(c.x, c.oid) = 'DEFAULT'",
            "SELECT polname, array_to_string(array(select max(rolname) from pg_catalog.pg_roles), ',') \
             FROM pg_policy WHERE pg_catalog.f(1)",
            "SELECT pubname FROM pg_catalog.pg_publication p WHERE pg_catalog.f('1') UNION ALL \
             SELECT (CASE WHEN true THEN (SELECT string_agg(a, ', ') FROM pg_catalog.g(0, 1) s) END) FROM pg_publication",
            "SELECT DISTINCT t.a FROM (SELECT o.oid::pg_catalog.regproc AS a FROM pg_catalog.pg_opclass o \
             JOIN pg_catalog.pg_am am ON true) AS t JOIN pg_catalog.pg_description d ON true",
        ] {
            assert!(has_no_rows(sql), "{sql}");
        }
    }

    #[test]
    fn whatever_may_have_rows_is_left_to_the_engine() {
        for sql in [
            // Nothing in it that can't be planned.
            "SELECT proname FROM pg_catalog.pg_proc",
            "SELECT count(*) FROM pg_catalog.pg_proc WHERE pg_catalog.f(oid)",
            "SELECT pg_catalog.count(oid) FROM pg_proc",
            "SELECT coalesce(max(pg_catalog.pg_f(oid)), 1) FROM pg_proc",
            "SELECT pg_catalog.pg_f(oid) FROM pg_proc HAVING true",
            "SELECT 1 FROM pg_proc WHERE pg_catalog.pg_f(1) ORDER BY count(*)",
            "SELECT a FROM (SELECT 1 AS a FROM pg_proc ORDER BY max(oid)) t WHERE pg_catalog.pg_f(a)",
            "SELECT 1 FROM pg_proc WHERE pg_catalog.f(oid) GROUP BY ()",
            "SELECT pg_catalog.pg_f(c.oid) FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid",
            "SELECT pg_catalog.pg_f(c.oid) FROM pg_index i RIGHT JOIN pg_class c ON i.indexrelid = c.oid",
            "SELECT pg_catalog.pg_f(c.oid) FROM pg_index i FULL JOIN pg_class c ON i.indexrelid = c.oid",
            "SELECT pg_catalog.pg_f(oid) FROM pg_proc UNION SELECT 1",
            "SELECT pg_catalog.pg_f(oid) FROM pg_class WHERE relname = 'pg_proc' OR oid IN (SELECT oid FROM pg_proc)",
            "SELECT pg_catalog.pg_f(a) FROM (SELECT count(*) AS a FROM pg_proc) t",
            "SELECT pg_catalog.pg_f(1)",
            "WITH pg_proc AS (SELECT 1) SELECT pg_catalog.pg_f(1) FROM pg_proc",
            "EXPLAIN SELECT pg_catalog.pg_f(1) FROM pg_proc",
        ] {
            assert!(!has_no_rows(sql), "{sql}");
        }
        let deep = "SELECT a FROM (".repeat(100_000) + "SELECT pg_catalog.pg_f(1) FROM pg_proc";
        assert!(!has_no_rows(&deep));
    }

    #[test]
    fn what_is_of_the_catalog_names_nothing_else() {
        for (sql, is_so) in [
            ("(SELECT a FROM pg_catalog.pg_class)", true),
            (
                "f(ARRAY( SELECT a, b FROM pg_catalog.pg_f(1, x), pg_class c JOIN pg_type ON c.a WHERE a IN (b, c)))",
                true,
            ),
            ("(SELECT a FROM (SELECT b FROM pg_class) t, (pg_type CROSS JOIN pg_am))", true),
            ("(SELECT 1)", false),
            ("(SELECT a FROM decisions)", false),
            ("(SELECT a FROM pg_class c, decisions)", false),
            ("(SELECT a FROM pg_class c JOIN pg_type t ON c.a = t.b, decisions)", false),
            ("(SELECT a FROM pg_class WHERE b IN (SELECT c FROM decisions))", false),
            ("(SELECT a FROM (decisions CROSS JOIN pg_class))", false),
            ("(SELECT a FROM (SELECT b FROM decisions) t)", false),
            (
                "(SELECT substring(a FROM 1), extract(epoch FROM b), trim(both FROM c) FROM pg_class)",
                true,
            ),
            ("(SELECT trim(both FROM a) FROM decisions)", false),
            ("(SELECT a IS DISTINCT FROM b FROM pg_class WHERE c IS NOT DISTINCT FROM d)", true),
            ("(SELECT a FROM pg_class c JOIN pg_type t ON c.a IS DISTINCT FROM t.b, pg_am)", true),
            ("(SELECT a IS DISTINCT FROM b FROM decisions, pg_class)", false),
            ("(SELECT a FROM ONLY pg_class c, LATERAL pg_f(c.a))", true),
            ("(SELECT a FROM pg_class CROSS JOIN LATERAL (SELECT b FROM pg_type) t)", true),
            ("(SELECT a FROM pg_class, LATERAL (SELECT b FROM decisions) t)", false),
            ("(SELECT a FROM ONLY decisions, pg_class)", false),
            ("(SELECT a FROM pg_class UNION SELECT b FROM decisions)", false),
            ("(SELECT a FROM pg_class WHERE b IN (FROM decisions SELECT c))", false),
        ] {
            assert_eq!(is_of_catalog(sql), is_so, "{sql}");
        }
    }
}
