//! What belongs to one action: its parameters' schema, compiled.

use std::sync::Arc;

use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde_json::Value;

use crate::validate::{MAX_VIOLATIONS, Violation, dotted, excerpt, shorten};

/// The parameters of an action.
#[derive(Clone, Debug)]
pub(super) struct Params {
    schema: Arc<Value>,
    compiled: Arc<jsonschema::Validator>,
}

impl Params {
    /// Reads a schema.
    pub(super) fn read(text: &str) -> Result<Params, String> {
        let schema: Value = serde_json::from_str(text).map_err(|cause| cause.to_string())?;
        if schema["type"] != "object" || schema["additionalProperties"] != false {
            let wanted = r#""type": "object" and "additionalProperties": false"#;
            return Err(format!("the schema of parameters has {wanted}"));
        }
        let compiled = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .map_err(|cause| cause.to_string())?;
        Ok(Params { schema: Arc::new(schema), compiled: Arc::new(compiled) })
    }

    /// The schema as it was written.
    pub(super) fn schema(&self) -> &Value {
        &self.schema
    }

    /// Holds parameters against it; what is wrong comes in the order of the schema.
    pub(super) fn check(&self, parameters: &Value) -> Result<(), Vec<Violation>> {
        let violations: Vec<_> = self
            .compiled
            .iter_errors(parameters)
            .flat_map(|error| explain(&error))
            .take(MAX_VIOLATIONS)
            .collect();
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}

/// One violation for each unknown parameter, else one.
fn explain(error: &ValidationError<'_>) -> Vec<Violation> {
    let violation = |last: Option<&str>, message: String, value: Option<&Value>| {
        let field = match dotted(error, last) {
            inner if inner.is_empty() => "parameters".to_owned(),
            inner => format!("parameters.{inner}"),
        };
        let message = format!("field `{field}` {message}");
        Violation {
            field,
            rule: error.kind().keyword().to_owned(),
            message,
            value: value.map(excerpt),
        }
    };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            vec![violation(property.as_str(), "is required".to_owned(), None)]
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .take(MAX_VIOLATIONS)
            .map(|name| {
                let message = "is unknown to this action".to_owned();
                violation(Some(&shorten(name)), message, error.instance().get(name))
            })
            .collect(),
        _ => {
            let message = format!("isn't right: {}", shorten(&error.to_string()));
            vec![violation(None, message, Some(error.instance()))]
        }
    }
}
