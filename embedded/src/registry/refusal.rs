//! What the registry says no with: HTTP status, code and message as Confluent's has them.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{api, schema::Reference};

/// An answer that says no.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: u32,
    message: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        api::answer(self.status, &json!({ "error_code": self.code, "message": self.message }))
    }
}

fn missing(code: u32, message: String) -> Refusal {
    Refusal { status: StatusCode::NOT_FOUND, code, message }
}

fn unprocessable(code: u32, message: String) -> Refusal {
    Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, code, message }
}

impl Refusal {
    /// A status of HTTP without a code of its own.
    pub(super) fn http(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, code: status.as_u16().into(), message: message.into() }
    }

    pub(super) fn no_subject(subject: &str) -> Refusal {
        missing(40401, format!("Subject '{subject}' not found."))
    }

    pub(super) fn no_version(version: u32) -> Refusal {
        missing(40402, format!("Version {version} not found."))
    }

    pub(super) fn no_schema(what: &str) -> Refusal {
        missing(40403, format!("Schema {what} not found"))
    }

    pub(super) fn subject_is_deleted(subject: &str) -> Refusal {
        let hint = "Set permanent=true to delete permanently";
        missing(40404, format!("Subject '{subject}' was soft deleted. {hint}"))
    }

    pub(super) fn subject_is_not_deleted(subject: &str) -> Refusal {
        let why = "was not deleted first before being permanently deleted";
        missing(40405, format!("Subject '{subject}' {why}"))
    }

    pub(super) fn version_is_deleted(subject: &str, version: u32) -> Refusal {
        let hint = "Set permanent=true to delete permanently";
        missing(40406, format!("Subject '{subject}' Version {version} was soft deleted. {hint}"))
    }

    pub(super) fn version_is_not_deleted(subject: &str, version: u32) -> Refusal {
        let why = "was not deleted first before being permanently deleted";
        missing(40407, format!("Subject '{subject}' Version {version} {why}"))
    }

    pub(super) fn no_level(subject: &str) -> Refusal {
        let why = "does not have subject-level compatibility configured";
        missing(40408, format!("Subject '{subject}' {why}"))
    }

    pub(super) fn no_mode(subject: &str) -> Refusal {
        missing(40409, format!("Subject '{subject}' does not have subject-level mode configured"))
    }

    pub(super) fn schema(why: &str) -> Refusal {
        unprocessable(42201, format!("Invalid schema: {why}"))
    }

    pub(super) fn version(text: &str) -> Refusal {
        let allowed = "Allowed values are between [1, 2^31-1] and the string \"latest\"";
        unprocessable(
            42202,
            format!("The specified version '{text}' is not a valid version id. {allowed}"),
        )
    }

    pub(super) fn level(why: &str) -> Refusal {
        unprocessable(42203, format!("Invalid compatibility level: {why}"))
    }

    pub(super) fn mode() -> Refusal {
        unprocessable(42204, "Invalid mode: the embedded registry is always READWRITE".to_owned())
    }

    pub(super) fn not_permitted(why: &str) -> Refusal {
        unprocessable(42205, why.to_owned())
    }

    pub(super) fn is_referred_to(by: &Reference) -> Refusal {
        let (subject, version) = (&by.subject, by.version);
        unprocessable(
            42206,
            format!(
                "One or more references exist to the schema {{subject={subject},version={version}}}"
            ),
        )
    }

    pub(super) fn incompatible(subject: &str, messages: &[String]) -> Refusal {
        let message = format!(
            "Schema being registered is incompatible with an earlier schema for subject \
             \"{subject}\", details: [{}]",
            messages.join(", ")
        );
        Refusal { status: StatusCode::CONFLICT, code: 409, message }
    }

    /// The disk refused; what was asked has not been done.
    pub(super) fn storage() -> Refusal {
        let message = "Error in the backend data store: the registry's log can't be written; \
                       see what aion printed"
            .to_owned();
        Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, code: 50001, message }
    }
}
