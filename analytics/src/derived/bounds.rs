//! Bounds on an event's time, from filters on a column that follows from it.

use datafusion::{
    logical_expr::{BinaryExpr, Expr, Operator},
    scalar::ScalarValue,
};

/// Microseconds since 1970 that events lie between, both included, where known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    least: Option<i64>,
    greatest: Option<i64>,
}

impl Bounds {
    /// What filters on the column `time` say, where an event happened within `width_us` of it. What isn't
    /// understood bounds nothing.
    pub(super) fn of(time: &str, width_us: i64, filters: &[Expr]) -> Bounds {
        let mut bounds = Bounds::default();
        for filter in filters {
            bounds.narrow(time, width_us, filter);
        }
        bounds
    }

    /// Whether nothing is left out.
    pub(super) fn is_open(&self) -> bool {
        *self == Bounds::default()
    }

    /// The bounds as a condition in SQL.
    pub(super) fn condition(&self, column: &str) -> String {
        let bound = |operator: &str, at: Option<i64>| {
            at.map(|at| format!("{column} {operator} to_timestamp_micros({at})"))
        };
        let both = [bound(">=", self.least), bound("<=", self.greatest)];
        let both: Vec<_> = both.into_iter().flatten().collect();
        if both.is_empty() { "true".to_owned() } else { both.join(" and ") }
    }

    fn narrow(&mut self, time: &str, width_us: i64, filter: &Expr) {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.narrow(time, width_us, left);
                self.narrow(time, width_us, right);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                match (column_of(left, time), micros(right), op) {
                    (true, Some(at), op) => self.compare(*op, at, width_us),
                    _ => {
                        if let (true, Some(at), Some(op)) =
                            (column_of(right, time), micros(left), op.swap())
                        {
                            self.compare(op, at, width_us);
                        }
                    }
                }
            }
            Expr::Between(between) if !between.negated && column_of(&between.expr, time) => {
                if let Some(at) = micros(&between.low) {
                    self.compare(Operator::GtEq, at, width_us);
                }
                if let Some(at) = micros(&between.high) {
                    self.compare(Operator::LtEq, at, width_us);
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, operator: Operator, at: i64, width_us: i64) {
        if matches!(operator, Operator::Gt | Operator::GtEq | Operator::Eq) {
            self.least = Some(self.least.map_or(at, |least| least.max(at)));
        }
        if matches!(operator, Operator::Lt | Operator::LtEq | Operator::Eq) {
            let at = at.saturating_add(width_us);
            self.greatest = Some(self.greatest.map_or(at, |greatest| greatest.min(at)));
        }
    }
}

fn column_of(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Column(column) if column.name == name)
}

/// A time that is a constant, rounded neither way.
fn micros(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::TimestampMicrosecond(at, _), _) => *at,
        // A bound may be too wide by less than a microsecond.
        Expr::Literal(ScalarValue::TimestampNanosecond(Some(at), _), _) => Some(at / 1000),
        Expr::Literal(ScalarValue::TimestampMillisecond(Some(at), _), _) => at.checked_mul(1000),
        Expr::Literal(ScalarValue::TimestampSecond(Some(at), _), _) => at.checked_mul(1_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        logical_expr::{col, lit},
        scalar::ScalarValue,
    };

    use super::Bounds;

    fn at(us: i64) -> datafusion::logical_expr::Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
    }

    #[test]
    fn bounds_follow_from_comparisons() {
        let of = |filter| Bounds::of("w", 60, &[filter]);
        let bounds = |least, greatest| Bounds { least, greatest };
        assert_eq!(of(col("w").gt_eq(at(100))), bounds(Some(100), None));
        assert_eq!(of(col("w").lt(at(100))), bounds(None, Some(160)));
        assert_eq!(of(at(100).lt(col("w"))), bounds(Some(100), None));
        assert_eq!(of(col("w").eq(at(100))), bounds(Some(100), Some(160)));
        let both = col("w").gt(at(5)).and(col("w").lt_eq(at(9))).and(col("w").gt(at(7)));
        assert_eq!(of(both), bounds(Some(7), Some(69)));
        assert_eq!(of(col("w").between(at(5), at(9))), bounds(Some(5), Some(69)));
    }

    #[test]
    fn what_is_not_understood_bounds_nothing() {
        let of = |filter| Bounds::of("w", 60, &[filter]);
        assert!(of(col("other").gt(at(5))).is_open());
        assert!(of(col("w").gt(at(5)).or(col("s").eq(lit("x")))).is_open());
        assert!(of(col("w").not_between(at(5), at(9))).is_open());
        assert!(of(col("w").not_eq(at(5))).is_open());
        assert_eq!(of(col("other").gt(at(5))).condition("t"), "true");
        let both = of(col("w").eq(at(100)));
        assert_eq!(
            both.condition("t"),
            "t >= to_timestamp_micros(100) and t <= to_timestamp_micros(160)"
        );
    }
}
