//! How many bytes a function makes, before it makes them.

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit},
};
use datafusion::{
    common::Result,
    logical_expr::{ColumnarValue, Expr},
};

use super::sizes::{Each, lengths, of_argument, whole_numbers};

/// What the values of a function are as long as, by its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// The first, a text, as often as the second says.
    Times,
    /// As many items as the second says, each like the first.
    Items,
    /// As many characters as the second says, or as the first has.
    Padded,
    /// The first, with each of the second replaced by the third.
    Replaced,
    /// The same, found by a pattern.
    ReplacedByPattern,
    /// As many numbers or times as there are from the first to the second.
    Series,
    /// As many items as the second says, each like the third.
    Resized,
    /// The items of the first, each with these arguments.
    EachItem(&'static [usize]),
    /// All arguments together, so many times.
    Sum(u64),
    /// All arguments but the first together, with the first between any two.
    Joined,
}

/// No item of a list takes less, but for small numbers.
const ITEM_BYTES: u64 = 4;
const DAY_US: i128 = 86_400_000_000;
const SHORTEST_MONTH_DAYS: i128 = 28;

impl Growth {
    /// That of a function by its name; `None` where its values are about as long as those that it gets.
    pub(super) fn of(function: &str) -> Option<Growth> {
        Some(match function {
            "repeat" => Growth::Times,
            "array_repeat" => Growth::Items,
            "lpad" | "rpad" => Growth::Padded,
            "replace" => Growth::Replaced,
            "regexp_replace" => Growth::ReplacedByPattern,
            "range" | "generate_series" => Growth::Series,
            "array_resize" => Growth::Resized,
            "array_to_string" => Growth::EachItem(&[1, 2]),
            "array_replace" | "array_replace_n" | "array_replace_all" => Growth::EachItem(&[2]),
            "string_to_array" => Growth::Sum(24),
            "concat_ws" => Growth::Joined,
            "concat" | "make_array" | "array_concat" | "array_append" | "array_prepend"
            | "array_union" | "arrays_zip" | "overlay" | "struct" | "named_struct" | "map" => {
                Growth::Sum(1)
            }
            _ => return None,
        })
    }

    /// How many bytes a call makes at most.
    pub(super) fn bytes(self, args: &[ColumnarValue], rows: usize) -> Result<u128> {
        let size = |at: usize| args.get(at).map_or(Ok(Each::Same(0)), of_argument);
        let number = |at: usize| args.get(at).map_or(Ok(Each::Same(0)), whole_numbers);
        let length = |at: usize| args.get(at).map_or(Ok(Each::Same(0)), lengths);
        Ok(match self {
            Growth::Times => {
                let (value, times) = (length(0)?, number(1)?);
                total(rows, |row| times_of(times.at(row)) * u128::from(value.at(row)))
            }
            Growth::Items => {
                let (value, times) = (size(0)?, number(1)?);
                total(rows, |row| times_of(times.at(row)) * u128::from(value.at(row)))
            }
            Growth::Padded => {
                let (value, wide) = (size(0)?, number(1)?);
                let character = if is_ascii(args.get(2)) { 1 } else { 4 };
                total(rows, |row| times_of(wide.at(row)) * character + u128::from(value.at(row)))
            }
            Growth::Replaced => {
                let (value, from, to) = (length(0)?, length(1)?, length(2)?);
                total(rows, |row| replaced(value.at(row), from.at(row), to.at(row)))
            }
            Growth::ReplacedByPattern => {
                let (value, to, everywhere) = (length(0)?, length(2)?, args.len() > 3);
                total(rows, |row| by_pattern(value.at(row), to.at(row), everywhere))
            }
            Growth::Series => series(args, rows)?,
            Growth::Resized => {
                let (times, item) = (number(1)?, size(2)?);
                total(rows, |row| times_of(times.at(row)) * u128::from(item.at(row).max(8)))
            }
            Growth::EachItem(with) => {
                let list = size(0)?;
                let with = with.iter().map(|at| size(*at)).collect::<Result<Vec<_>>>()?;
                let each = |row| with.iter().map(|one| u128::from(one.at(row))).sum::<u128>();
                let with = |row| u128::from(list.at(row) / ITEM_BYTES) * each(row);
                // A number's digits are longer than the number.
                total(rows, |row| with(row) + u128::from(list.at(row)) * 3)
            }
            Growth::Sum(times) => {
                let sizes = args.iter().map(of_argument).collect::<Result<Vec<_>>>()?;
                let sum = |row| sizes.iter().map(|size| u128::from(size.at(row))).sum::<u128>();
                total(rows, |row| sum(row) * u128::from(times))
            }
            Growth::Joined => {
                let separator = length(0)?;
                let joined = args.iter().skip(1).map(of_argument).collect::<Result<Vec<_>>>()?;
                let between = joined.len().saturating_sub(1) as u128;
                let sum = |row| joined.iter().map(|size| u128::from(size.at(row))).sum::<u128>();
                total(rows, |row| sum(row) + u128::from(separator.at(row)) * between)
            }
        })
    }

    /// How many bytes are made of constants while the query is planned, without a call.
    pub(super) fn planned_bytes(self, args: &[Expr]) -> u128 {
        let text = |arg: &Expr| match arg {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(|text| text.len() as u128),
            _ => None,
        };
        match (self, args) {
            (Growth::Sum(_), _) => args.iter().filter_map(text).sum(),
            (Growth::Joined, [separator, joined @ ..]) => {
                let joined: Vec<u128> = joined.iter().filter_map(text).collect();
                let between = joined.len().saturating_sub(1) as u128;
                joined.iter().sum::<u128>() + text(separator).unwrap_or_default() * between
            }
            _ => 0,
        }
    }
}

fn total(rows: usize, bytes: impl Fn(usize) -> u128) -> u128 {
    (0..rows).map(bytes).sum()
}

fn times_of(number: i64) -> u128 {
    u128::from(number.max(0).cast_unsigned())
}

fn is_ascii(fill: Option<&ColumnarValue>) -> bool {
    match fill {
        None => true,
        Some(ColumnarValue::Scalar(value)) => {
            value.try_as_str().flatten().is_none_or(str::is_ascii)
        }
        Some(ColumnarValue::Array(_)) => false,
    }
}

/// As if the value were made of nothing but what is replaced; nothing stands between any two characters.
fn replaced(value: u64, from: u64, to: u64) -> u128 {
    let times = value.checked_div(from).unwrap_or(value + 1);
    u128::from(value) + u128::from(times) * u128::from(to.saturating_sub(from))
}

/// References to groups add what those matched, each no more than the value over all.
fn by_pattern(value: u64, to: u64, everywhere: bool) -> u128 {
    let times = if everywhere { value + 1 } else { 1 };
    let groups = u128::from(value) * u128::from(to / 2);
    u128::from(value) + u128::from(times) * u128::from(to) + groups
}

fn series(args: &[ColumnarValue], rows: usize) -> Result<u128> {
    let span: Vec<i128>;
    let step: Vec<i128>;
    if let Some(interval) = args.get(2).filter(|one| is_interval(&one.data_type())) {
        let (from, to) = (times_us(&args[0], rows)?, times_us(&args[1], rows)?);
        span = from.iter().zip(to).map(|(from, to)| to - from).collect();
        step = steps_us(interval, rows)?;
    } else {
        let number = |at: usize| args.get(at).map(whole_numbers).transpose();
        let (first, second, third) = (number(0)?, number(1)?, number(2)?);
        let at =
            |one: &Option<Each<i64>>, row, without| one.as_ref().map_or(without, |one| one.at(row));
        let ends = |row| match second {
            Some(_) => (at(&first, row, 0), at(&second, row, 0)),
            None => (0, at(&first, row, 0)),
        };
        span = (0..rows).map(ends).map(|(from, to)| i128::from(to) - i128::from(from)).collect();
        step = (0..rows).map(|row| i128::from(at(&third, row, 1))).collect();
    }
    Ok(total(rows, |row| {
        let items = span[row].unsigned_abs() / step[row].unsigned_abs().max(1) + 1;
        // The other way it is empty.
        if (span[row] < 0) == (step[row] < 0) { items * 8 } else { 8 }
    }))
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

fn times_us(argument: &ColumnarValue, rows: usize) -> Result<Vec<i128>> {
    let times = cast(&argument.to_array(rows)?, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let numbers = whole_numbers(&ColumnarValue::Array(times))?;
    Ok((0..rows).map(|row| i128::from(numbers.at(row))).collect())
}

fn steps_us(argument: &ColumnarValue, rows: usize) -> Result<Vec<i128>> {
    let steps = argument.to_array(rows)?;
    let steps = cast(&steps, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let us = |step: Option<arrow::datatypes::IntervalMonthDayNano>| {
        let Some(step) = step else { return 1 };
        let days = i128::from(step.months) * SHORTEST_MONTH_DAYS + i128::from(step.days);
        days * DAY_US + i128::from(step.nanoseconds) / 1000
    };
    Ok(steps.as_primitive::<IntervalMonthDayNanoType>().iter().map(us).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use datafusion::{
        logical_expr::{col, lit},
        scalar::ScalarValue,
    };

    use super::*;

    fn text(values: &[&str]) -> ColumnarValue {
        ColumnarValue::Array(Arc::new(StringArray::from(values.to_vec())))
    }

    fn one(value: impl Into<ScalarValue>) -> ColumnarValue {
        ColumnarValue::Scalar(value.into())
    }

    #[track_caller]
    fn makes(function: &str, args: &[ColumnarValue], bytes: u128) {
        assert_eq!(Growth::of(function).unwrap().bytes(args, 2).unwrap(), bytes, "{function}");
    }

    #[test]
    fn what_is_made_is_reckoned_from_the_arguments() {
        let two = text(&["ab", "abcd"]);
        makes("repeat", &[two.clone(), one(10_i64)], (2 + 4) * 10);
        makes("array_repeat", &[two.clone(), one(10_i64)], (10 + 12) * 10);
        let times = ColumnarValue::Array(Arc::new(Int64Array::from(vec![Some(3), None])));
        makes("repeat", &[two.clone(), times], 6);
        makes("lpad", &[two.clone(), one(1000_i64)], 2000 + 10 + 12);
        makes("rpad", &[two.clone(), one(1000_i64), one("é")], 8000 + 10 + 12);
        makes("replace", &[two.clone(), one("ab"), one("abcde")], 2 + 3 + 4 + 6);
        makes("replace", &[two.clone(), one("ab"), one("")], 6);
        makes("regexp_replace", &[two.clone(), one("a"), one("xyz")], 2 + 3 + 2 + 4 + 3 + 4);
        makes("concat", &[two.clone(), two.clone()], 2 * 22);
        makes("concat_ws", &[one("long"), two.clone(), two.clone(), two], 3 * 22 + 2 * 2 * 4);
        makes("range", &[one(0_i64), one(1_000_000_i64)], 2 * 8 * 1_000_001);
        makes("range", &[one(7_i64), one(1_i64)], 16);
        makes("range", &[one(7_i64), one(1_i64), one(-2_i64)], 2 * 8 * 4);
        makes("generate_series", &[one(i64::MIN), one(i64::MAX)], 16 * (1 << 64));
        assert_eq!(Growth::of("abs"), None);
    }

    #[test]
    fn constants_that_are_put_together_at_planning_are_reckoned_too() {
        let mut args = vec![lit("long"), lit("a"), col("t"), lit("b"), lit("c")];
        assert_eq!(Growth::Joined.planned_bytes(&args), 3 + 2 * 4);
        assert_eq!(Growth::Sum(1).planned_bytes(&args), 4 + 3);
        args[0] = col("s");
        assert_eq!(Growth::Joined.planned_bytes(&args), 3);
        assert_eq!(Growth::Times.planned_bytes(&args), 0);
    }

    #[test]
    fn a_series_of_times_has_as_many_as_there_are_steps() {
        let day = ScalarValue::new_interval_mdn(0, 1, 0);
        let from = ScalarValue::Date32(Some(0));
        let to = ScalarValue::Date32(Some(100));
        makes("generate_series", &[one(from), one(to), one(day)], 2 * 8 * 101);
    }
}
