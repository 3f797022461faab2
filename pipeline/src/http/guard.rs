//! Lets requests in: who they are from, and whether that principal may do what they ask.
//!
//! A layer around routes, so that no handler has to think of it; it hands the principal on.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};

use super::problem::Problem;
use crate::access::{Access, CHALLENGE, Refused};

/// Routes for whoever has a permission.
pub(super) fn guarded(routes: Router, access: &Arc<Access>, permission: &'static str) -> Router {
    let with = (Arc::clone(access), permission);
    routes.route_layer(from_fn_with_state(with, admit))
}

async fn admit(
    State((access, permission)): State<(Arc<Access>, &'static str)>,
    mut request: Request,
    next: Next,
) -> Response {
    match access.enter(request.headers(), permission).await {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Refused::Unknown => (
                StatusCode::UNAUTHORIZED,
                "a header `Authorization: Bearer KEY` with a key or token that is accepted is needed",
            ),
            Refused::Closed => (
                StatusCode::FORBIDDEN,
                "/v1 is off: give [http] keys, or an [access] policy, in the configuration",
            ),
            Refused::Page => (
                StatusCode::FORBIDDEN,
                "requests from web pages need keys: see [http] keys and [access]",
            ),
            Refused::Forbidden => (StatusCode::FORBIDDEN, "the principal may not do this"),
            Refused::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
        };
        let mut answer = Problem::new(status, detail).into_response();
        match self {
            Refused::Unknown => {
                drop(answer.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE));
            }
            Refused::TooMany(seconds) => {
                drop(answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds)));
            }
            _ => {}
        }
        answer
    }
}
