//! Functions that compare all of one argument with all of another, such as `levenshtein`: their steps are reckoned before they are
//! taken, and refused where they are too many for one call. Inside of a call nothing looks up, neither when the query's time is over
//! nor when its client is gone, and its thread is nobody else's.
//!
//! Deliberately absent: regular expressions, which take about as many steps as a text has bytes. Those that look again are in
//! `patterns`.

use datafusion::{
    common::{DataFusionError, Result},
    logical_expr::ColumnarValue,
};

use super::sizes::{Each, items, lengths};

/// A call of so many takes about ten seconds.
const STEPS: u128 = 1_000_000_000;
/// Bytes that are compared in one step, where they lie side by side.
const BYTES_AT_ONCE: u128 = 32;

/// What is compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Each character of the first argument with each of the second.
    Characters,
    /// The second with each place of the first. One that is the same for all rows is searched for by a quicker way.
    Places,
    /// Each item of the first with each of the second.
    Items,
    /// The same, but one that is the same for all rows is looked up.
    ItemsOfRows,
}

/// A call would take more steps than one may.
#[derive(Debug, thiserror::Error)]
#[error(
    "{function}{of} takes {steps} steps, of {most} that one call may take: as many as its arguments are long, multiplied; \
     {shorter}"
)]
struct TooMuchWork {
    function: String,
    of: String,
    steps: u128,
    most: u128,
    shorter: &'static str,
}

/// What takes fewer steps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shorter {
    Texts,
    Lists,
    Pattern,
}

/// Refuses a call, or one of a row, for its steps and the most that it may take.
pub(super) fn too_much_work(
    function: &str,
    (steps, most): (u128, u128),
    rows: usize,
    shorter: Shorter,
) -> DataFusionError {
    let shorter = match shorter {
        Shorter::Texts => "shorten them, as by left(text, 300)",
        Shorter::Lists => "shorten them, as by array_slice(list, 1, 300)",
        Shorter::Pattern => "shorten the text, as by left(text, 30000), or look for less at once",
    };
    let of = if rows == 1 { String::new() } else { format!(" of {rows} rows") };
    let refused = TooMuchWork { function: function.to_owned(), of, steps, most, shorter };
    DataFusionError::External(Box::new(refused))
}

impl Work {
    /// That of a function by its name; `None` where it doesn't multiply.
    pub(super) fn of(function: &str) -> Option<Work> {
        Some(match function {
            "levenshtein" | "btrim" | "ltrim" | "rtrim" => Work::Characters,
            "strpos" => Work::Places,
            "array_has_all" => Work::Items,
            "array_has_any" => Work::ItemsOfRows,
            _ => return None,
        })
    }

    /// Refuses a call that takes too many steps.
    pub(super) fn check(self, function: &str, args: &[ColumnarValue], rows: usize) -> Result<()> {
        let steps = self.steps(args, rows)?;
        if steps <= STEPS {
            return Ok(());
        }
        let shorter = match self {
            Work::Characters | Work::Places => Shorter::Texts,
            Work::Items | Work::ItemsOfRows => Shorter::Lists,
        };
        Err(too_much_work(function, (steps, STEPS), rows, shorter))
    }

    fn steps(self, args: &[ColumnarValue], rows: usize) -> Result<u128> {
        let [first, second, ..] = args else { return Ok(0) };
        let is_constant = |one: &ColumnarValue| matches!(one, ColumnarValue::Scalar(_));
        Ok(match self {
            Work::Characters => product(&lengths(first)?, &lengths(second)?, rows),
            Work::Places if is_constant(second) && !is_constant(first) => 0,
            Work::Places => product(&lengths(first)?, &lengths(second)?, rows) / BYTES_AT_ONCE,
            Work::ItemsOfRows if is_constant(first) || is_constant(second) => 0,
            Work::Items | Work::ItemsOfRows => product(&items(first)?, &items(second)?, rows),
        })
    }
}

fn product(first: &Each<u64>, second: &Each<u64>, rows: usize) -> u128 {
    (0..rows).map(|row| u128::from(first.at(row)) * u128::from(second.at(row))).sum()
}

/// Whether that is why something failed.
pub(super) fn is_too_much_work(cause: &DataFusionError) -> bool {
    matches!(cause.find_root(), DataFusionError::External(root) if root.is::<TooMuchWork>())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use arrow::{
        array::{ListArray, StringArray},
        datatypes::Int64Type,
    };
    use datafusion::scalar::ScalarValue;

    use super::*;

    fn texts(values: &[&str]) -> ColumnarValue {
        ColumnarValue::Array(Arc::new(StringArray::from(values.to_vec())))
    }

    #[track_caller]
    fn takes(function: &str, args: &[ColumnarValue], steps: u128) {
        assert_eq!(Work::of(function).unwrap().steps(args, 2).unwrap(), steps, "{function}");
    }

    #[test]
    fn steps_are_the_lengths_multiplied() {
        let (two, one) = (texts(&["ab", "abcd"]), ColumnarValue::Scalar(ScalarValue::from("abc")));
        takes("levenshtein", &[two.clone(), one.clone()], 2 * 3 + 4 * 3);
        takes("btrim", &[two.clone(), two.clone()], 2 * 2 + 4 * 4);
        takes("btrim", std::slice::from_ref(&two), 0);
        takes("strpos", &[two.clone(), one], 0);
        let long = "x".repeat(32);
        takes("strpos", &[two, texts(&[&long, &long])], 2 + 4);
        let lists = [Some(vec![Some(1), Some(2)]), Some(vec![Some(3)])];
        let lists = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let constant = ScalarValue::try_from_array(lists.as_ref(), 0).unwrap();
        let (lists, constant) = (ColumnarValue::Array(lists), ColumnarValue::Scalar(constant));
        takes("array_has_all", &[lists.clone(), constant.clone()], 2 * 2 + 2);
        takes("array_has_any", &[lists.clone(), lists.clone()], 2 * 2 + 1);
        takes("array_has_any", &[lists, constant], 0);
        assert_eq!(Work::of("reverse"), None);
    }

    #[test]
    fn too_many_are_refused_by_name() {
        let long = || ColumnarValue::Scalar(ScalarValue::from("x".repeat(100_000)));
        let cause = Work::Characters.check("levenshtein", &[long(), long()], 1).unwrap_err();
        assert!(is_too_much_work(&cause));
        let said = cause.to_string();
        assert!(said.contains("levenshtein takes 10000000000 steps, of 1000000000"), "{said}");
    }
}
