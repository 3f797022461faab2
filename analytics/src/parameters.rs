//! Values for the parameters of a statement: `$1`, `$2` or `$name`.

use std::collections::HashMap;

use datafusion::{
    common::{ParamValues, metadata::ScalarAndMetadata},
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
        Value::Array(_) | Value::Object(_) => {
            Err(Error::Query("a parameter is text, a number, true, false or null".to_owned()))
        }
    }
}
