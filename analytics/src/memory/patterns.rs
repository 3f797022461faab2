//! Regular expressions that look for all matches. One search takes about as many steps as a text has bytes; but a pattern with
//! a choice, such as `.*[^a]|a`, may read to the end of the text only to give a short match, and again from there. So what may
//! take as many steps as the text is long, squared, is called for a few rows at a time, and refused for a text that is too long.
//!
//! Deliberately absent: how a pattern is made. Whatever may have a choice is taken for one that looks again; steps that it
//! takes for each byte, of which one with large counts such as `[ab]{1,3000}x` has many, aren't known.

use datafusion::{common::Result, logical_expr::ColumnarValue};

use super::{
    sizes::lengths,
    work::{Shorter, too_much_work},
};

/// Of a call: about a second.
const STEPS: u128 = 100_000_000;
/// Of a text: some seconds, and nothing ends a call before it has read one.
const STEPS_OF_ROW: u128 = 1_000_000_000;

/// Whether a function looks for all matches.
pub(super) fn looks_again(function: &str) -> bool {
    matches!(function, "regexp_count" | "regexp_instr" | "regexp_replace")
}

/// How many rows to call a function with at a time, one call after the other.
pub(super) fn parts(function: &str, args: &[ColumnarValue], rows: usize) -> Result<Vec<usize>> {
    let [texts, pattern, ..] = args else { return Ok(vec![rows]) };
    if !(has_choice(pattern) && finds_all(function, args)) {
        return Ok(vec![rows]);
    }
    let lengths = lengths(texts)?;
    let (mut parts, mut count, mut steps) = (Vec::new(), 0, 0);
    for row in 0..rows {
        let here = u128::from(lengths.at(row)).pow(2);
        if here > STEPS_OF_ROW {
            return Err(too_much_work(function, (here, STEPS_OF_ROW), 1, Shorter::Pattern));
        }
        if count > 0 && steps + here > STEPS {
            parts.push(count);
            (count, steps) = (0, 0);
        }
        (count, steps) = (count + 1, steps + here);
    }
    parts.push(count);
    Ok(parts)
}

/// Whether there may be a shorter match where a longer one was looked for. That takes a repetition and a choice.
fn has_choice(pattern: &ColumnarValue) -> bool {
    let ColumnarValue::Scalar(pattern) = pattern else { return true };
    let pattern = pattern.try_as_str().flatten().unwrap_or_default();
    pattern.chars().filter(|c| "*+?|{".contains(*c)).count() > 1
}

/// `regexp_replace` replaces the first match, unless it is told otherwise.
fn finds_all(function: &str, args: &[ColumnarValue]) -> bool {
    match (function, args.get(3)) {
        ("regexp_replace", None) => false,
        ("regexp_replace", Some(ColumnarValue::Scalar(flags))) => {
            flags.try_as_str().flatten().is_some_and(|flags| flags.contains('g'))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use arrow::array::StringArray;
    use datafusion::scalar::ScalarValue;

    use super::*;
    use crate::memory::work::is_too_much_work;

    fn of_lengths(lengths: &[usize]) -> ColumnarValue {
        let texts: Vec<String> = lengths.iter().map(|length| "a".repeat(*length)).collect();
        ColumnarValue::Array(Arc::new(StringArray::from(texts)))
    }

    fn one(text: &str) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::from(text))
    }

    #[test]
    fn rows_whose_texts_may_be_read_again_are_looked_at_in_parts() {
        let texts = || of_lengths(&[6000, 6000, 9000, 9000, 20_000, 10, 10]);
        let parts = |pattern: &str| parts("regexp_count", &[texts(), one(pattern)], 7).unwrap();
        assert_eq!(parts(".*[^a]|a"), [2, 1, 1, 1, 2]);
        assert_eq!(parts(r"\s+"), [7]);
        assert_eq!(parts("a|b"), [7]);
        let none = super::parts("regexp_count", &[of_lengths(&[]), one("a+|b")], 0);
        assert_eq!(none.unwrap(), [0]);
    }

    #[test]
    fn the_first_match_alone_is_found_at_once() {
        let replaced = |more: &[&str]| {
            let given = [of_lengths(&[9000, 9000]), one("a*b|a"), one("c")];
            let args: Vec<_> =
                given.into_iter().chain(more.iter().map(|flags| one(flags))).collect();
            parts("regexp_replace", &args, 2).unwrap()
        };
        assert_eq!(replaced(&[]), [2]);
        assert_eq!(replaced(&["i"]), [2]);
        assert_eq!(replaced(&["ig"]), [1, 1]);
    }

    #[test]
    fn a_text_that_is_too_long_for_that_is_refused() {
        let args = [of_lengths(&[31_622, 31_623]), one("a*b|a")];
        let cause = parts("regexp_instr", &args, 2).unwrap_err();
        assert!(is_too_much_work(&cause));
        let said = cause.to_string();
        assert!(said.contains("regexp_instr takes 1000014129 steps, of 1000000000"), "{said}");
        assert_eq!(parts("regexp_instr", &[args[0].clone(), one("a*b")], 2).unwrap(), [2]);
    }
}
