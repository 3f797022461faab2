//! Holds an event against the contract before it is published, and says what is wrong in words for
//! people.
//!
//! A producer is held to more than a consumer: the schema is closed, so a misspelt field is refused
//! here, where a consumer would drop and count it.
//!
//! | | schema | what the schema can't say | what becomes of the bytes |
//! |---|---|---|---|
//! | [`Validator::check`] | x | whole numbers fit 64 bits | |
//! | [`Validator::check_bytes`] | x | x | they are JSON |
//! | [`Validator::admit`] | x | x | they become a row |
//!
//! **Invariant:** what [`Validator::admit`] passes becomes a row, if it is appended at that time.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use jsonschema::{
    ValidationError,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::Value;

use crate::{
    catalog::Topic,
    decode::{Decoder, Outcome, Record, Reject},
    log::{Offset, Timestamp},
    schema::{Kind, Schema},
    suggest::did_you_mean,
};

/// At most so many violations are reported of one event.
pub const MAX_VIOLATIONS: usize = 50;

/// At most so many characters of a wrong value are shown.
pub const MAX_EXCERPT_CHARS: usize = 80;

/// One rule that an event breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, dotted: `labels.code`; empty for the event as a whole.
    pub field: String,
    /// The rule, as JSON Schema names it: `required`, `type`, `additionalProperties`; besides these
    /// `json` for what isn't JSON, `int64` for a whole number that is out of range, and the codes of
    /// [`decode::Reason`](crate::decode::Reason) for what only the decoder sees.
    pub rule: String,
    /// What is wrong, for people.
    pub message: String,
    /// The beginning of the wrong value, as JSON; `None` where a value is missing.
    pub value: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A schema that the validator can't compile.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{place}: {message}")]
pub struct InvalidSchema {
    /// Where in the JSON Schema, as a JSON pointer.
    pub place: String,
    /// What is wrong there.
    pub message: String,
}

/// The contract of one topic, compiled; checks any number of events.
#[derive(Debug)]
pub struct Validator {
    compiled: jsonschema::Validator,
    schema: Arc<Schema>,
}

impl Validator {
    /// Compiles the JSON Schema of a topic. The topics of a catalog always compile.
    pub fn new(topic: &Topic) -> Result<Validator, InvalidSchema> {
        let compiled = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&topic.json_schema)
            .map_err(|error| InvalidSchema {
                place: error.instance_path().to_string(),
                message: error.to_string(),
            })?;
        Ok(Validator { compiled, schema: Arc::clone(&topic.schema) })
    }

    /// Checks an event; the violations come in the order of the schema, at most [`MAX_VIOLATIONS`].
    pub fn check(&self, event: &Value) -> Result<(), Vec<Violation>> {
        let mut violations: Vec<Violation> = self
            .compiled
            .iter_errors(event)
            .flat_map(|error| self.explain(&error))
            .take(MAX_VIOLATIONS)
            .collect();
        if violations.is_empty() {
            violations.extend(self.schema.fields.iter().filter_map(|field| {
                let value = event.get(&*field.name)?;
                let out_of_range = field.kind == Kind::Integer && value.as_i64().is_none();
                out_of_range.then(|| Violation {
                    field: field.name.to_string(),
                    rule: "int64".to_owned(),
                    message: format!(
                        "field `{}` must be a whole number of 64 bits, written without a fraction; \
                         it is {value}",
                        field.name
                    ),
                    value: Some(excerpt(value)),
                })
            }));
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }

    /// Checks an event in its encoded form, JSON text.
    pub fn check_bytes(&self, event: &[u8]) -> Result<(), Vec<Violation>> {
        match serde_json::from_slice(event) {
            Ok(event) => self.check(&event),
            Err(error) => Err(vec![Violation {
                field: String::new(),
                rule: "json".to_owned(),
                message: format!("not JSON: {error}"),
                value: Some(shorten(&String::from_utf8_lossy(event))),
            }]),
        }
    }

    /// Checks an event as [`Validator::check_bytes`] does, and that it becomes a row when the broker
    /// appends it at `appended`: the decoder that jobs use reads it. A name that stands twice, or a
    /// time that is far from the append time, is found here only.
    pub fn admit(&self, event: &[u8], appended: Timestamp) -> Result<(), Vec<Violation>> {
        self.check_bytes(event)?;
        let record = Record {
            value: Some(event),
            offset: Offset::ZERO,
            epoch: -1,
            append_time: appended,
            retry: None,
        };
        match Decoder::new(&self.schema).push(&record) {
            Outcome::Row | Outcome::Tombstone => Ok(()),
            Outcome::Rejected(reject) => Err(vec![unreadable(event, &reject)]),
        }
    }

    /// Turns an error of the engine into violations: one for each unknown field, else one.
    fn explain(&self, error: &ValidationError<'_>) -> Vec<Violation> {
        let violation = |field: String, message: String, value: Option<&Value>| Violation {
            field,
            rule: error.kind().keyword().to_owned(),
            message,
            value: value.map(excerpt),
        };
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let field = dotted(error, property.as_str());
                let message = format!("field `{field}` is required");
                vec![violation(field, message, None)]
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let unknown = unexpected.iter().take(MAX_VIOLATIONS).map(|name| {
                    let message = self.unknown(error, name);
                    violation(dotted(error, Some(name)), message, error.instance().get(name))
                });
                unknown.collect()
            }
            _ => {
                let field = dotted(error, None);
                let message = self.wrong(&field, error);
                vec![violation(field, message, Some(error.instance()))]
            }
        }
    }

    /// What is wrong with a value that is there.
    fn wrong(&self, field: &str, error: &ValidationError<'_>) -> String {
        let shown = excerpt(error.instance());
        match error.kind() {
            ValidationErrorKind::Type { kind } => self.wrong_type(field, kind, error.instance()),
            ValidationErrorKind::Format { format } if format == "date-time" => format!(
                "field `{field}` must be a time as RFC 3339 writes it, \
                 like 2026-03-14T09:26:53Z; it is {shown}"
            ),
            ValidationErrorKind::MinLength { limit: 1 } => {
                format!("field `{field}` must not be empty")
            }
            ValidationErrorKind::Enum { options } => {
                let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
                let options: Vec<String> = options.iter().map(Value::to_string).collect();
                format!("field `{field}` must be one of {}; it is {shown}", options.join(", "))
            }
            _ => format!("field `{field}`: {}", shorten(&error.to_string())),
        }
    }

    fn unknown(&self, error: &ValidationError<'_>, name: &str) -> String {
        let field = dotted(error, Some(name));
        let advice = "leave it out, or add it to the schema";
        if error.instance_path().is_empty() {
            let names = self.schema.fields.iter().map(|field| &*field.name);
            format!("field `{field}` is unknown; {}", did_you_mean(name, names, advice))
        } else {
            format!("field `{field}` is unknown; {advice}")
        }
    }

    fn wrong_type(&self, field: &str, wanted: &TypeKind, value: &Value) -> String {
        if field.is_empty() {
            return format!("an event must be a JSON object; it is {}", excerpt(value));
        }
        let optional =
            self.schema.position(field).is_some_and(|at| !self.schema.fields[at].required);
        if value.is_null() && optional {
            return format!("field `{field}` is null; leave it out when there is no value");
        }
        let wanted = match wanted {
            TypeKind::Single(one) => one.to_string(),
            TypeKind::Multiple(some) => {
                some.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or ")
            }
        };
        format!("field `{field}` must be of type {wanted}; it is {}", excerpt(value))
    }
}

/// What the decoder has against an event that keeps to the schema.
pub(crate) fn unreadable(event: &[u8], reject: &Reject) -> Violation {
    let field = reject.field.as_deref().unwrap_or_default().to_owned();
    let place = if field.is_empty() { "event".to_owned() } else { format!("field `{field}`") };
    let message = format!("{place} can't become a row: {}", reject.detail);
    let rule = reject.reason.code().to_owned();
    let value = serde_json::from_slice::<Value>(event).ok();
    let value = value.as_ref().and_then(|event| event.get(&field)).map(excerpt);
    Violation { field, rule, message, value }
}

/// The place of an error, dotted, with one more step where `last` is given.
pub(crate) fn dotted(error: &ValidationError<'_>, last: Option<&str>) -> String {
    let path = error.instance_path();
    let mut steps: Vec<String> = path.segments().map(|segment| segment.to_string()).collect();
    steps.extend(last.map(str::to_owned));
    steps.join(".")
}

pub(crate) fn excerpt(value: &Value) -> String {
    shorten(&value.to_string())
}

pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
