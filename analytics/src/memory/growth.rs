//! Functions that make much out of little, such as `repeat(name, 1000000)`: what they would make is reckoned before
//! they make it, and refused where it is too much at once.
//!
//! What a function makes of constants alone is counted as the query's until it ends. In the same way functions are asked whose work
//! multiplies, and those that may work long on a batch are called for a few of its rows at a time.
//!
//! Deliberately absent: functions whose values are about as long as those that they get.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::Array,
    compute::concat,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    common::{
        DataFusionError, Result,
        tree_node::{Transformed, TreeNode},
    },
    execution::memory_pool::MemoryPool,
    logical_expr::{
        ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature,
        expr::ScalarFunction,
        interval_arithmetic::Interval,
        simplify::{ExprSimplifyResult, SimplifyContext},
        sort_properties::{ExprProperties, SortProperties},
    },
};

use super::{patterns, reckoning::Growth, sizes::of_argument, work::Work};
use crate::holdings::Holdings;

/// Constants beyond this are counted.
const COUNTED_BYTES: u64 = 64 << 10;

/// Fails once nobody waits for the query any more, or its time is over.
pub(crate) type LooksUp = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// What a query's functions may make.
#[derive(Clone)]
pub(crate) struct Makings {
    /// At once: of the rows that are looked at together.
    pub(crate) at_once_bytes: u64,
    /// Where constants are counted.
    pub(crate) counted: Option<(Arc<Holdings>, Arc<dyn MemoryPool>)>,
    /// Between the parts of a call that is long.
    pub(crate) looks_up: Option<LooksUp>,
}

impl Makings {
    /// The same function, which asks first; `None` for one that makes no more than it gets, in about as many steps.
    pub(crate) fn of(&self, function: &ScalarUDF) -> Option<ScalarUDF> {
        let (growth, work) = (Growth::of(function.name()), Work::of(function.name()));
        if growth.is_none() && work.is_none() && !patterns::looks_again(function.name()) {
            return None;
        }
        let inner = match function.inner().downcast_ref::<Asking>() {
            Some(known) => known.inner.clone(),
            None => function.clone(),
        };
        Some(ScalarUDF::new_from_impl(Asking { inner, growth, work, makings: self.clone() }))
    }

    /// The same plan with functions that ask first.
    pub(crate) fn within(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expression| self.within_expression(expression))
        });
        plan.map(|plan| plan.data)
    }

    fn within_expression(&self, expression: Expr) -> Result<Transformed<Expr>> {
        expression.transform_up(|one| {
            let Expr::ScalarFunction(ScalarFunction { func, args }) = &one else {
                return Ok(Transformed::no(one));
            };
            let Some(asking) = self.of(func) else { return Ok(Transformed::no(one)) };
            let call = ScalarFunction::new_udf(Arc::new(asking), args.clone());
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        })
    }

    fn check(&self, function: &str, rows: usize, bytes: u128) -> Result<()> {
        if bytes <= u128::from(self.at_once_bytes) {
            return Ok(());
        }
        let of = if rows == 1 { String::new() } else { format!(" of {rows} rows") };
        Err(DataFusionError::ResourcesExhausted(format!(
            "{function}{of} makes {bytes} bytes, of {} that can be made at once",
            self.at_once_bytes
        )))
    }
}

/// Whether a function is one of those.
pub(super) fn asks(function: &ScalarUDF) -> bool {
    function.inner().is::<Asking>()
}

/// A function that asks before it makes anything.
struct Asking {
    inner: ScalarUDF,
    growth: Option<Growth>,
    work: Option<Work>,
    makings: Makings,
}

impl Asking {
    /// Calls it for so many rows at a time.
    fn in_parts(&self, args: &ScalarFunctionArgs, parts: &[usize]) -> Result<ColumnarValue> {
        let mut made = Vec::with_capacity(parts.len());
        let mut first = 0;
        for count in parts.iter().copied() {
            if let Some(look_up) = &self.makings.looks_up {
                look_up()?;
            }
            let part = |one: &ColumnarValue| match one {
                ColumnarValue::Array(values) => ColumnarValue::Array(values.slice(first, count)),
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
            };
            let args = ScalarFunctionArgs {
                args: args.args.iter().map(part).collect(),
                number_rows: count,
                ..args.clone()
            };
            made.push(self.inner.invoke_with_args(args)?.into_array(count)?);
            first += count;
        }
        let made: Vec<&dyn Array> = made.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&made)?))
    }
}

/// Some errors show the function.
impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for Asking {
    fn eq(&self, other: &Asking) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Asking {}

impl Hash for Asking {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Asking {
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|one| matches!(one, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        if let Some(growth) = self.growth {
            self.makings.check(self.name(), rows, growth.bytes(&args.args, rows)?)?;
        }
        if let Some(work) = self.work {
            work.check(self.name(), &args.args, rows)?;
        }
        let parts = if patterns::looks_again(self.name()) {
            patterns::parts(self.name(), &args.args, rows)?
        } else {
            Vec::new()
        };
        if parts.len() > 1 {
            return self.in_parts(&args, &parts);
        }
        let made = self.inner.invoke_with_args(args)?;
        if let (ColumnarValue::Scalar(_), Some((holdings, pool))) = (&made, &self.makings.counted) {
            let bytes = of_argument(&made)?.at(0);
            if bytes > COUNTED_BYTES {
                holdings.take(pool, "constants that functions make", bytes as usize)?;
            }
        }
        Ok(made)
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let planned_bytes = self.growth.map_or(0, |growth| growth.planned_bytes(&args));
        self.makings.check(self.name(), 1, planned_bytes)?;
        Ok(match self.inner.inner().simplify(args, info)? {
            // Often another call, which may be worked out before the plan is looked through again.
            ExprSimplifyResult::Simplified(simpler) => {
                ExprSimplifyResult::Simplified(self.makings.within_expression(simpler)?.data)
            }
            original @ ExprSimplifyResult::Original(_) => original,
        })
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.inner().conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }
}
