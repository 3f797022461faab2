//! Values for the parameters of a statement: `$1`, `$2` or `$name`.
//!
//! A list of values is a parameter too: `x = any($1)` and `x in ($1)` are true where one of them is `x`.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        ParamValues,
        metadata::ScalarAndMetadata,
        tree_node::{Transformed, TreeNode},
    },
    error::Result as PlanResult,
    logical_expr::{Expr, LogicalPlan, expr::InList},
    scalar::ScalarValue,
};
use serde_json::Value;

use crate::error::Error;

/// The values, by place or by name.
#[derive(Clone, Debug)]
pub struct Parameters(Option<ParamValues>);

impl Parameters {
    /// For a statement without parameters.
    pub fn none() -> Parameters {
        Parameters(None)
    }

    /// The values of `$1`, `$2` and so on.
    pub fn by_place(values: Vec<ScalarValue>) -> Parameters {
        let values = values.into_iter().map(ScalarAndMetadata::from).collect::<Vec<_>>();
        Parameters((!values.is_empty()).then_some(ParamValues::List(values)))
    }

    /// From JSON: a list for `$1`, `$2`, an object for `$name`. Text serves where a time is wanted.
    pub fn from_json(values: &Value) -> Result<Parameters, Error> {
        match values {
            Value::Null => Ok(Parameters::none()),
            Value::Array(values) => {
                values.iter().map(scalar).collect::<Result<_, _>>().map(Parameters::by_place)
            }
            Value::Object(values) => {
                let named = |(name, value): (&String, _)| {
                    Ok((name.clone(), ScalarAndMetadata::from(scalar(value)?)))
                };
                let values = values.iter().map(named).collect::<Result<HashMap<_, _>, Error>>()?;
                Ok(Parameters((!values.is_empty()).then_some(ParamValues::Map(values))))
            }
            _ => Err(Error::Query(
                "parameters: a list is wanted for $1, $2, or an object for $name".to_owned(),
            )),
        }
    }
}

impl From<Parameters> for Option<ParamValues> {
    fn from(parameters: Parameters) -> Option<ParamValues> {
        parameters.0
    }
}

fn scalar(value: &Value) -> Result<ScalarValue, Error> {
    match value {
        Value::Null => Ok(ScalarValue::Null),
        Value::Bool(value) => Ok(ScalarValue::Boolean(Some(*value))),
        Value::String(text) => Ok(ScalarValue::Utf8(Some(text.clone()))),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(ScalarValue::Int64(Some(whole))),
            (None, Some(number)) => Ok(ScalarValue::Float64(Some(number))),
            (None, None) => Err(Error::Query(format!("parameter {number} is too large"))),
        },
        Value::Array(values) => list(values),
        Value::Object(_) => Err(Error::Query(
            "a parameter is text, a number, true, false, null, or a list of those".to_owned(),
        )),
    }
}

/// The values of a list, all of one type; whole numbers beside others are numbers like those.
fn list(values: &[Value]) -> Result<ScalarValue, Error> {
    let mut items = values.iter().map(scalar).collect::<Result<Vec<_>, _>>()?;
    if items.iter().any(|item| matches!(item, ScalarValue::List(_))) {
        return Err(Error::Query("a list that is a parameter has no lists in it".to_owned()));
    }
    let kinds = || items.iter().map(ScalarValue::data_type).filter(|kind| !kind.is_null());
    let kind = match kinds().find(|kind| *kind == DataType::Float64) {
        Some(number) => number,
        // Whatever it is compared with, nothing is in it.
        None => kinds().next().unwrap_or(DataType::Utf8),
    };
    let mixed = || Error::Query("the values of a list are of one type".to_owned());
    for item in &mut items {
        let is_whole = matches!(item, ScalarValue::Int64(_)) && kind == DataType::Float64;
        if item.is_null() || is_whole {
            *item = item.cast_to(&kind).map_err(|_| mixed())?;
        } else if item.data_type() != kind {
            return Err(mixed());
        }
    }
    Ok(ScalarValue::List(ScalarValue::new_list_nullable(&items, &kind)))
}

/// The plan with values in place of its parameters.
pub(crate) fn filled_in(plan: LogicalPlan, values: &ParamValues) -> PlanResult<LogicalPlan> {
    let spread = |expression: Expr| {
        expression.transform_up(|one| match one {
            Expr::InList(one) => spread_list(one, values),
            // `x = any($1)`: as values of the list that `x` is compared with, text serves where a time is wanted.
            Expr::ScalarFunction(call) if call.func.name() == "array_has" => {
                match (items(&call.args[0], values)?, call.args.get(1)) {
                    (Some(items), Some(value)) => {
                        let list = items.into_iter().map(literal).collect();
                        Ok(Transformed::yes(value.clone().in_list(list, false)))
                    }
                    _ => Ok(Transformed::no(Expr::ScalarFunction(call))),
                }
            }
            other => Ok(Transformed::no(other)),
        })
    };
    let spread = plan.transform_up_with_subqueries(|node| node.map_expressions(spread))?;
    spread.data.with_param_values(values.clone())
}

fn spread_list(mut one: InList, values: &ParamValues) -> PlanResult<Transformed<Expr>> {
    let (mut list, mut changed) = (Vec::with_capacity(one.list.len()), false);
    for item in one.list {
        match items(&item, values)? {
            Some(items) => {
                changed = true;
                list.extend(items.into_iter().map(literal));
            }
            None => list.push(item),
        }
    }
    one.list = list;
    Ok(Transformed::new_transformed(Expr::InList(one), changed))
}

fn literal(value: ScalarValue) -> Expr {
    Expr::Literal(value, None)
}

/// The values of a parameter that is a list.
fn items(expression: &Expr, values: &ParamValues) -> PlanResult<Option<Vec<ScalarValue>>> {
    let Expr::Placeholder(place) = expression else { return Ok(None) };
    match values.get_placeholders_with_values(&place.id)?.value {
        ScalarValue::List(list) => {
            let rows = ScalarValue::convert_array_to_scalar_vec(list.as_ref())?;
            Ok(Some(rows.into_iter().flatten().flatten().collect()))
        }
        _ => Ok(None),
    }
}
