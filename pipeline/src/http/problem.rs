//! What went wrong, in the form that RFC 9457 has for it: `application/problem+json`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// The media type.
pub(crate) const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A problem.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// One sentence for people, and what to do.
    detail: String,
    /// Fields that are wrong: name and reason.
    errors: Vec<(String, String)>,
}

impl Problem {
    /// A problem in words.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), errors: Vec::new() }
    }

    /// The same, with the fields that are wrong.
    pub(crate) fn with(self, errors: Vec<(String, String)>) -> Problem {
        Problem { errors, ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.errors.is_empty() {
            let wrong =
                |(field, message): &(String, String)| json!({"field": field, "message": message});
            body["errors"] = self.errors.iter().map(wrong).collect();
        }
        let mut answer = (self.status, Json(body)).into_response();
        answer.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
        answer
    }
}
