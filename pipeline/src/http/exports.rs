//! `/v1/exports`: asks for training exports and tells how they stand, for Airflow and whoever else.
//!
//! | request | answers |
//! |---|---|
//! | `POST /v1/exports` | 202 new or being made, 200 there already, 409 the interval isn't complete, 422 not right |
//! | `POST /v1/exports/plan` | what another engine needs to make it: 200, or 409, 422 as above |
//! | `GET /v1/exports?dataset=&state=` | all of them, latest first |
//! | `GET /v1/exports/{id}?wait=25` | how it stands; waits up to so many seconds for its end |
//! | `GET /v1/exports/{id}/done` | 404 until it has come to an end, whichever, then 200 |
//! | `GET /v1/exports/{id}/manifest` | the manifest of one that succeeded |
//! | `GET /v1/exports/{id}/logs` | what has happened to it, as text; `?follow=1` goes on until it ends |
//! | `DELETE /v1/exports/{id}` | cancels it; 202, also when it was over |
//! | `GET /v1/exports/openapi.json` | this, for programs |
//!
//! Asking twice is asking once: the id is a hash of what was asked for. Errors are `application/problem+json`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use aion_analytics::exports::request::{Asked, Wrong};
use axum::{
    Json, Router,
    body::Body,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{body, problem::MEDIA_TYPE};
use crate::exports::{
    journal,
    service::{Exports, How, Refusal, Status, Taken},
};

/// The longest request.
const MAX_BODY_BYTES: usize = 64 << 10;
/// The longest wait.
const MAX_WAIT_S: u64 = 60;
/// What the answers look like, for programs.
const OPENAPI: &str = include_str!("../../../docs/exports.openapi.json");
/// How often a log that is followed is read again.
const FOLLOW: Duration = Duration::from_secs(1);

/// What `/v1/exports` needs.
#[derive(Debug)]
pub struct ExportsApi {
    exports: Arc<Exports>,
}

impl ExportsApi {
    /// Serves these exports.
    pub fn new(exports: Arc<Exports>) -> ExportsApi {
        ExportsApi { exports }
    }
}

/// The body of a request: what is asked for, and how to go about it.
#[derive(Debug)]
struct Reading {
    asked: Asked,
    how: How,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default)]
    wait: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    dataset: Option<String>,
    state: Option<journal::State>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Follow {
    #[serde(default)]
    follow: u8,
}

/// An id in the address.
type Id = Result<Path<String>, PathRejection>;

/// The routes.
pub fn routes(api: Arc<ExportsApi>) -> Router {
    Router::new()
        .route("/v1/exports", get(list).post(ask))
        .route("/v1/exports/plan", post(plan))
        .route("/v1/exports/openapi.json", get(openapi))
        .route("/v1/exports/{id}", get(find).delete(cancel))
        .route("/v1/exports/{id}/done", get(done))
        .route("/v1/exports/{id}/manifest", get(manifest))
        .route("/v1/exports/{id}/logs", get(logs))
        .with_state(api)
}

async fn ask(State(api): State<Arc<ExportsApi>>, request: Request) -> Response {
    let answer = async {
        let Reading { asked, how } = read(request).await?;
        let (taken, status) =
            api.exports.ask(&asked, &how).await.map_err(|cause| refusal(&cause))?;
        let code = match taken {
            Taken::Ready => StatusCode::OK,
            Taken::Accepted => StatusCode::ACCEPTED,
        };
        let place = format!("/v1/exports/{}", status.id);
        let headers = [(header::LOCATION, place), (header::RETRY_AFTER, "2".to_owned())];
        Ok((code, headers, Json(status)).into_response())
    };
    answer.await.unwrap_or_else(|refused: Response| refused)
}

async fn plan(State(api): State<Arc<ExportsApi>>, request: Request) -> Response {
    let answer = async {
        let asked = asked_of(object(request).await?)?;
        let plan = api.exports.plan(&asked).await.map_err(|cause| refusal(&cause))?;
        Ok(Json(plan).into_response())
    };
    answer.await.unwrap_or_else(|refused: Response| refused)
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// Reads a body: fields that say how to go about it are taken out, the rest is what is asked for.
#[expect(clippy::result_large_err, reason = "the error is the answer, which is sent at once")]
async fn read(request: Request) -> Result<Reading, Response> {
    let mut body = object(request).await?;
    let mut flag = |name: &str| match body.remove(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(wrong(name, "true or false is wanted".to_owned())),
    };
    let (wait_for_close, force) = (flag("wait_for_close")?, flag("force")?);
    let source = match body.remove("source") {
        None => None,
        Some(Value::String(source)) => Some(source),
        Some(_) => return Err(wrong("source", "`lake` or `clickhouse` is wanted".to_owned())),
    };
    let how = How { wait_for_close, force, source };
    Ok(Reading { asked: asked_of(body)?, how })
}

async fn object(request: Request) -> Result<Map<String, Value>, Response> {
    let body = body::read(request.into_body(), MAX_BODY_BYTES).await;
    let body = body.map_err(|(status, why)| problem(status, &why, &[]))?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(problem(StatusCode::BAD_REQUEST, "the body is a JSON object", &[])),
        Err(cause) => {
            Err(problem(StatusCode::BAD_REQUEST, &format!("the body is no JSON: {cause}"), &[]))
        }
    }
}

#[expect(clippy::result_large_err, reason = "the error is the answer, which is sent at once")]
fn asked_of(body: Map<String, Value>) -> Result<Asked, Response> {
    let asked = serde_json::from_value(Value::Object(body));
    asked.map_err(|cause| wrong("body", cause.to_string()))
}

fn wrong(field: &str, reason: String) -> Response {
    let wrong = Wrong { field: field.to_owned(), reason };
    let detail = wrong.to_string();
    problem(StatusCode::UNPROCESSABLE_ENTITY, &detail, &[wrong])
}

/// What stands in the address, or why it can't be read.
#[expect(clippy::result_large_err, reason = "the error is the answer, which is sent at once")]
fn told<T, E: std::fmt::Display>(asked: Result<T, E>) -> Result<T, Response> {
    asked.map_err(|cause| problem(StatusCode::BAD_REQUEST, &cause.to_string(), &[]))
}

async fn list(
    State(api): State<Arc<ExportsApi>>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Response {
    let answer = async {
        let Query(filter) = told(filter)?;
        let all = api.exports.list().await.map_err(|cause| broken(&cause))?;
        let is_wanted = |one: &Status| {
            filter.dataset.as_ref().is_none_or(|dataset| *dataset == one.dataset)
                && filter.state.is_none_or(|state| state == one.state)
        };
        let wanted: Vec<_> = all.into_iter().filter(is_wanted).collect();
        Ok(Json(json!({ "exports": wanted })).into_response())
    };
    answer.await.unwrap_or_else(|refused: Response| refused)
}

async fn find(
    State(api): State<Arc<ExportsApi>>,
    id: Id,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Response {
    let answer = async {
        let (Path(id), Query(Wait { wait })) = (told(id)?, told(wait)?);
        let within = Duration::from_secs(wait.min(MAX_WAIT_S));
        let status = api.exports.wait(&id, within).await.map_err(|cause| broken(&cause))?;
        Ok(Json(status.ok_or_else(|| unknown(&id))?).into_response())
    };
    answer.await.unwrap_or_else(|refused: Response| refused)
}

async fn done(State(api): State<Arc<ExportsApi>>, id: Id) -> Response {
    let answer = async {
        let Path(id) = told(id)?;
        let status = api.exports.find(&id).await.map_err(|cause| broken(&cause))?;
        let status = status.ok_or_else(|| unknown(&id))?;
        if !status.state.is_over() {
            let detail = format!("export {id} hasn't come to an end");
            return Err(problem(StatusCode::NOT_FOUND, &detail, &[]));
        }
        Ok(Json(status).into_response())
    };
    answer.await.unwrap_or_else(|refused: Response| refused)
}

async fn manifest(State(api): State<Arc<ExportsApi>>, id: Id) -> Response {
    let answer = async {
        let Path(id) = told(id)?;
        let found = api.exports.manifest(&id).await.map_err(|cause| broken(&cause))?;
        let detail = format!("there is no export {id} that succeeded");
        let found = found.ok_or_else(|| problem(StatusCode::NOT_FOUND, &detail, &[]))?;
        Ok(([(header::CONTENT_TYPE, "application/json")], found).into_response())
    };
    answer.await.unwrap_or_else(|refused: Response| refused)
}

async fn logs(
    State(api): State<Arc<ExportsApi>>,
    id: Id,
    follow: Result<Query<Follow>, QueryRejection>,
) -> Response {
    let answer = async {
        let (Path(id), Query(Follow { follow })) = (told(id)?, told(follow)?);
        let text = api.exports.log(&id).await.map_err(|cause| broken(&cause))?;
        let text = text.ok_or_else(|| unknown(&id))?;
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        if follow == 0 {
            return Ok((kind, text).into_response());
        }
        let lines = follow_log(Arc::clone(&api.exports), id);
        Ok((kind, Body::from_stream(lines)).into_response())
    };
    answer.await.unwrap_or_else(|refused: Response| refused)
}

/// The lines that weren't told yet, until the export has come to an end.
fn follow_log(
    exports: Arc<Exports>,
    id: String,
) -> impl futures::Stream<Item = Result<String, Infallible>> {
    let begin = (exports, id, Vec::<String>::new(), false);
    futures::stream::unfold(begin, |(exports, id, mut told, is_over)| async move {
        if is_over {
            return None;
        }
        loop {
            let is_over = match exports.find(&id).await {
                Ok(Some(status)) => status.state.is_over(),
                Ok(None) | Err(_) => true,
            };
            let text = exports.log(&id).await.ok().flatten().unwrap_or_default();
            let new: Vec<_> = text
                .lines()
                .filter(|line| !told.iter().any(|one| one == line))
                .map(str::to_owned)
                .collect();
            if !new.is_empty() || is_over {
                let mut lines = new.join("\n");
                if !lines.is_empty() {
                    lines.push('\n');
                }
                told.extend(new);
                return Some((Ok(lines), (exports, id, told, is_over)));
            }
            tokio::time::sleep(FOLLOW).await;
        }
    })
}

async fn cancel(State(api): State<Arc<ExportsApi>>, id: Id) -> Response {
    let answer = async {
        let Path(id) = told(id)?;
        let status = api.exports.cancel(&id).await.map_err(|cause| broken(&cause))?;
        Ok((StatusCode::ACCEPTED, Json(status.ok_or_else(|| unknown(&id))?)).into_response())
    };
    answer.await.unwrap_or_else(|refused: Response| refused)
}

fn unknown(id: &str) -> Response {
    problem(StatusCode::NOT_FOUND, &format!("nobody has asked for an export {id:?}"), &[])
}

fn refusal(cause: &Refusal) -> Response {
    let text = cause.to_string();
    match cause {
        Refusal::Wrong(wrong) => problem(StatusCode::UNPROCESSABLE_ENTITY, &text, wrong),
        Refusal::Open(_) => problem(StatusCode::CONFLICT, &text, &[]),
        Refusal::Unavailable(_) => problem(StatusCode::SERVICE_UNAVAILABLE, &text, &[]),
        Refusal::Failed(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, &text, &[]),
    }
}

fn broken(cause: &anyhow::Error) -> Response {
    problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("{cause:#}"), &[])
}

/// What went wrong, in the form of RFC 9457.
fn problem(status: StatusCode, detail: &str, wrong: &[Wrong]) -> Response {
    let mut body = json!({
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    if !wrong.is_empty() {
        body["errors"] = json!(wrong);
    }
    let mut answer = (status, Json(body)).into_response();
    answer.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
    if status == StatusCode::CONFLICT || status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    answer
}
