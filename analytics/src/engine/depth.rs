//! How deep the tree of a statement may be at most, told from its words before it is made.
//!
//! `1 + 1 + 1 + ..` is a tree as deep as it is long. Parts of the planner, and dropping the tree, go down it by calling themselves: they
//! would run out of their stack, and the process would end. What is nested in parentheses the parser bounds itself.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

use crate::error::Error;

/// Operators, joins and unions of one statement.
const MAX_DEPTH: usize = 2000;
/// Texts put together by `||`: each step makes all that came before once more.
const MAX_CONCATENATIONS: usize = 200;
/// What a thread that plans has for its stack.
pub(super) const STACK_BYTES: usize = 64 << 20;

/// Refuses a statement whose tree may be too deep.
pub(super) fn check(sql: &str) -> Result<(), Error> {
    // What the tokenizer doesn't take, the parser says better.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let concatenations = tokens.iter().filter(|token| **token == Token::StringConcat).count();
    if concatenations > MAX_CONCATENATIONS {
        return Err(Error::Query(format!(
            "{concatenations} times ||, of {MAX_CONCATENATIONS} that a statement may have; concat(a, b, ..) takes any number"
        )));
    }
    let depth = depth(&tokens);
    if depth > MAX_DEPTH {
        return Err(Error::Query(format!(
            "{depth} operators, joins and unions, of {MAX_DEPTH} that a statement may have; \
             `x in (..)` takes any number of values"
        )));
    }
    Ok(())
}

/// What is between the words of one statement that can nest without parentheses.
fn depth(tokens: &[Token]) -> usize {
    let mut depth = 0;
    // Whether a comma joins tables, for each parenthesis that is open.
    let mut tables = vec![false];
    for token in tokens {
        match token {
            Token::LParen => tables.push(false),
            Token::LBracket => {
                tables.push(false);
                depth += 1;
            }
            Token::RParen | Token::RBracket if tables.len() > 1 => {
                tables.pop();
            }
            Token::Comma => depth += usize::from(tables.last() == Some(&true)),
            Token::Word(word) => match word.keyword {
                Keyword::FROM => replace_last(&mut tables, true),
                Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::ORDER => {
                    replace_last(&mut tables, false);
                }
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::IN
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::JOIN
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT => depth += 1,
                _ => {}
            },
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::DoubleQuotedString(_)
            | Token::Placeholder(_)
            | Token::Whitespace(_)
            | Token::SemiColon
            | Token::RParen
            | Token::RBracket
            | Token::Period
            | Token::EOF => {}
            _ => depth += 1,
        }
    }
    depth
}

fn replace_last(tables: &mut [bool], with: bool) {
    if let Some(last) = tables.last_mut() {
        *last = with;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_and_not_deep_is_let_through() {
        let values = (0..20_000).map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ");
        let long = format!("select {values} from decisions where task_id in ({values})");
        assert!(check(&long).is_ok());
        assert!(check("select 'a' || 'b' + -1 from a, b where not x = 1 and y like '%+%'").is_ok());
        assert!(check("not sql ' at all").is_ok());
    }

    #[test]
    fn what_is_deep_is_refused() {
        for (first, more) in [
            ("select 1", " + 1"),
            ("select 1", " union all select 1"),
            ("select 1 from a", ", a"),
            ("select 1 from a", " cross join a"),
            ("select true", " and true"),
            ("select ", "not "),
            ("select ", "- "),
            ("select 1", "::bigint"),
            ("select a", "[1]"),
            ("select a", " is true"),
        ] {
            let deep = format!("{first}{}", more.repeat(3000));
            let refused = check(&deep).err().map(|error| error.to_string());
            assert!(refused.is_some_and(|text| text.contains("of 2000")), "{more}");
        }
        assert!(check(&format!("select a{}", " || a".repeat(201))).is_err());
    }
}
