//! Where one SQL statement ends and the next begins.
//!
//! Only what can hide a `;` is looked at: quotes and comments. Whether a statement means anything
//! is the parser's business.

/// SQL text cut at the semicolons that stand outside quotes and comments.
#[derive(Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The statements that a semicolon ends, without it; empty ones are left out.
    pub complete: Vec<&'a str>,
    /// What follows the last semicolon; blank when nothing does.
    pub rest: &'a str,
}

impl<'a> Split<'a> {
    /// All statements, the last one also when no semicolon ends it.
    pub fn all(self) -> impl Iterator<Item = &'a str> {
        let rest = Some(self.rest).filter(|rest| !is_blank(rest));
        self.complete.into_iter().chain(rest)
    }
}

/// Cuts SQL text into statements.
pub fn split(text: &str) -> Split<'_> {
    let mut complete = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        if text.as_bytes()[at] == b';' {
            complete.push(&text[start..at]);
            start = at + 1;
        }
        at += token_len(&text[at..]);
    }
    complete.retain(|statement| !is_blank(statement));
    for statement in &mut complete {
        *statement = statement.trim();
    }
    Split { complete, rest: text[start..].trim() }
}

/// The text in pieces, in order: quoted text and comments whole, and what stands between them, for which the
/// second is true.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        while at < text.len() {
            let length = token_len(&text[at..]);
            let is_plain = length == text[at..].chars().next().map_or(0, char::len_utf8);
            if !is_plain && at > start {
                break;
            }
            at += length;
            if !is_plain {
                return Some((&text[start..at], false));
            }
        }
        (at > start).then(|| (&text[start..at], true))
    })
}

/// The text with a blank for each comment.
pub(crate) fn without_comments(text: &str) -> String {
    let is_comment = |piece: &str| piece.starts_with("--") || piece.starts_with("/*");
    pieces(text).map(|(piece, _)| if is_comment(piece) { " " } else { piece }).collect()
}

/// The quoted text or comment that `text` starts with, whole, else its first character.
pub fn token(text: &str) -> &str {
    text.get(..token_len(text)).unwrap_or_default()
}

/// Whether there is nothing but white space and comments.
pub fn is_blank(text: &str) -> bool {
    let mut rest = text.trim_start();
    while rest.starts_with("--") || rest.starts_with("/*") {
        rest = rest[token_len(rest)..].trim_start();
    }
    rest.is_empty()
}

/// Length in bytes of the quoted text or comment that `text` starts with, else of its first
/// character. What isn't closed reaches to the end.
fn token_len(text: &str) -> usize {
    let after = |open: usize, close: &str| {
        text[open..].find(close).map_or(text.len(), |found| open + found + close.len())
    };
    match text.as_bytes() {
        // A doubled quote inside quotes reads as two quoted texts side by side: the end is the
        // same.
        [b'\'', ..] => after(1, "'"),
        [b'"', ..] => after(1, "\""),
        [b'$', ..] => dollar_quote_len(text),
        [b'-', b'-', ..] => after(2, "\n"),
        [b'/', b'*', ..] => block_comment_len(text),
        _ => text.chars().next().map_or(1, char::len_utf8),
    }
}

/// Length of `$tag$ .. $tag$`, or of the dollar sign alone where it opens nothing, as in `$1`.
fn dollar_quote_len(text: &str) -> usize {
    let is_tag = |tag: &str| {
        !tag.starts_with(|c: char| c.is_ascii_digit())
            && tag.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    match text[1..].find('$') {
        Some(end) if is_tag(&text[1..=end]) => {
            let (fence, body) = text.split_at(end + 2);
            body.find(fence).map_or(text.len(), |found| found + 2 * fence.len())
        }
        _ => 1,
    }
}

/// Block comments nest in SQL.
fn block_comment_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::{is_blank, split};

    fn statements(text: &str) -> Vec<&str> {
        split(text).all().collect()
    }

    #[test]
    fn semicolons_end_statements() {
        assert_eq!(statements("select 1; select 2 ;\n"), ["select 1", "select 2"]);
        assert_eq!(statements("select 1"), ["select 1"]);
        assert_eq!(statements(" ;; -- nothing\n;"), Vec::<&str>::new());
    }

    #[test]
    fn quotes_and_comments_hide_them() {
        for one in [
            "select ';'",
            "select 'it''s; fine'",
            r#"select 1 as ";""#,
            "select 1 -- a; b\n+ 1",
            "select /* ; /* ; */ ; */ 1",
            "select 'ünï;'",
            "select $$a;b$$, $t$;$$;$t$",
            "select $1 + $2",
        ] {
            assert_eq!(statements(one), [one]);
            assert_eq!(split(&format!("{one}; select 2")).complete, [one]);
        }
    }

    #[test]
    fn an_open_quote_or_comment_is_not_complete() {
        for open in ["select 'a;", "select \"a;", "select /* ;", "select 1 -- ;"] {
            assert!(split(open).complete.is_empty(), "{open}");
            assert_eq!(split(open).rest, open);
        }
    }

    #[test]
    fn pieces_are_the_whole_text() {
        let text = "a 'b''c' -- d\n\"e\" $1 /* f */ g";
        let all: Vec<_> = super::pieces(text).collect();
        assert_eq!(all.iter().map(|(piece, _)| *piece).collect::<String>(), text);
        let plain = all.iter().filter(|(_, is_plain)| *is_plain).map(|(piece, _)| *piece);
        assert_eq!(plain.collect::<Vec<_>>(), ["a ", " ", " $1 ", " g"]);
        assert_eq!(super::without_comments("-- x\nselect/* y */1"), " select 1");
    }

    #[test]
    fn a_token_is_a_quoted_text_a_comment_or_a_character() {
        for (text, token) in [("'a;' b", "'a;'"), ("-- a\nb", "-- a\n"), ("ünï", "ü"), ("", "")]
        {
            assert_eq!(super::token(text), token);
        }
    }

    #[test]
    fn comments_alone_are_blank() {
        assert!(is_blank(" -- a\n /* b */ "));
        assert!(!is_blank("-- a\n select"));
    }
}
