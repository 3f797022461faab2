//! What went wrong, in the form that RFC 9457 has for it.

use aion_analytics::Error;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::http::problem::MEDIA_TYPE;

/// `application/problem+json`.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    /// One sentence for people, and what to do.
    pub(super) detail: String,
    /// A name that was not found, the nearest one, and those that there are.
    name: Option<(String, Option<String>, Vec<String>)>,
}

impl Problem {
    /// A problem in words.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), name: None }
    }

    /// An answer that is longer than it may be.
    pub(super) fn too_many_rows(max_rows: u64) -> Problem {
        let detail = format!(
            "the answer has more than {max_rows} rows; ask for fewer with `limit` or a shorter time, or allow \
             more: max_rows of the request, up to [sql] max_rows of the configuration"
        );
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// Why a query failed.
    pub(super) fn of(error: &Error) -> Problem {
        let status = match error {
            Error::Syntax(_)
            | Error::Query(_)
            | Error::Data(_)
            | Error::Unsupported(_)
            | Error::UnknownTable { .. }
            | Error::UnknownColumn { .. } => StatusCode::BAD_REQUEST,
            Error::ReadOnly { .. } => StatusCode::FORBIDDEN,
            Error::Memory { .. } | Error::Spill { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            Error::Read { .. }
            | Error::Open { .. }
            | Error::TemporaryFiles { .. }
            | Error::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let name = match error {
            Error::UnknownTable { name, near, tables } => {
                Some((name.clone(), near.clone(), tables.clone()))
            }
            Error::UnknownColumn { name, near, columns } => {
                Some((name.clone(), near.clone(), columns.clone()))
            }
            _ => None,
        };
        Problem { status, detail: error.to_string(), name }
    }

    fn body(&self) -> Value {
        let title = self.status.canonical_reason().unwrap_or_default();
        let mut body = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some((name, near, names)) = &self.name {
            body["name"] = json!(name);
            body["near"] = json!(near);
            body["names"] = json!(names);
        }
        body
    }
}

impl From<arrow::error::ArrowError> for Problem {
    fn from(cause: arrow::error::ArrowError) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("encode the answer: {cause}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
        response
    }
}
