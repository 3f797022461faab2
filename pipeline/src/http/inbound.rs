//! `/webhooks/inbound`: commands to the control plane, from outside.
//!
//! | request | answers |
//! |---|---|
//! | `POST /webhooks/inbound` | 202 once the command is recorded and audited |
//! | `GET /webhooks/inbound/{id}` | how it stands |
//! | `GET /webhooks/inbound/openapi.json` | this, for programs |
//!
//! The checks, in their order; the first that fails is the answer:
//!
//! | check | else |
//! |---|---|
//! | the address hasn't sent too much that was nothing | 429 |
//! | body: 256 KiB, JSON, not compressed, within 10 s | 413, 415, 408 |
//! | bodies that aren't authenticated yet: 64 MiB, 4 MiB of one address | 503 |
//! | signature over the raw body | 401 |
//! | body: JSON with its fields | 400 |
//! | time within 300 s | 401 |
//! | API key or token | 401 |
//! | rate of the principal | 429, audited: the first in a minute at once, the others as a count |
//! | action that there is | 422, audited |
//! | role and tenant | 403, audited |
//! | parameters | 422, audited |
//! | idempotency key | 409 in progress, 422 of another command, audited |
//! | records and audit event acknowledged | 503: repeat with the same key |
//!
//! **Invariant:** a 401 doesn't tell which check failed.

mod body;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Extension, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{problem::Problem, serving::Peer};
use crate::{
    access::{CHALLENGE, Refused, policy::Principal, policy::READ_COMMANDS},
    inbound::{
        command::{Command, Id},
        gateway::{Gateway, Taken, now, now_ms},
        log::{Full, Known},
        request::{Asked, Wrong, is_timely},
        signature,
        trail::Refusal,
    },
    job::times::rfc3339,
};

/// The routes.
pub(super) fn routes(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/webhooks/inbound", post(command))
        .route("/webhooks/inbound/openapi.json", get(openapi))
        .route("/webhooks/inbound/{id}", get(state))
        .with_state(gateway)
}

async fn openapi(State(gateway): State<Arc<Gateway>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, gateway.commands.openapi_text()).into_response()
}

async fn command(
    State(gateway): State<Arc<Gateway>>,
    Extension(Peer(connection)): Extension<Peer>,
    request: Request,
) -> Response {
    let answer = answer(&gateway, connection, request).await;
    let response = answer.unwrap_or_else(No::into_response);
    gateway.counters().answered(response.status().as_u16());
    response
}

/// Why a command isn't taken in.
enum No {
    /// Not authenticated, whatever the cause.
    Unauthenticated(&'static str),
    /// Something else, in words.
    Problem(Problem, Option<u64>),
}

impl No {
    fn new(status: StatusCode, detail: impl Into<String>) -> No {
        No::Problem(Problem::new(status, detail), None)
    }

    fn later(status: StatusCode, detail: impl Into<String>, seconds: u64) -> No {
        No::Problem(Problem::new(status, detail), Some(seconds))
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        let (problem, seconds) = match self {
            No::Unauthenticated(_) => {
                let detail = "the signature, its time or the credential isn't accepted";
                let mut answer = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
                return answer;
            }
            No::Problem(problem, seconds) => (problem, seconds),
        };
        let mut answer = problem.into_response();
        if let Some(seconds) = seconds {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}

async fn answer(
    gateway: &Gateway,
    connection: SocketAddr,
    request: Request,
) -> Result<Response, No> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let peer = gateway.senders.peer(connection.ip(), &headers);
    gateway.senders.look_at(peer, now_ms()).map_err(too_many)?;
    let (body, room) = body::read((&gateway.senders, peer), &headers, body).await?;
    let asked = authentic(gateway, &headers, &body);
    drop((body, room));
    let (asked, principal) = match asked {
        Ok(asked) => match gateway.access.identify(&headers).await {
            Ok(principal) => (asked, principal),
            Err(_) => return Err(unauthenticated(gateway, "credential")),
        },
        Err(No::Unauthenticated(cause)) => return Err(unauthenticated(gateway, cause)),
        Err(no) => return Err(no),
    };
    gateway.senders.was_good(peer);
    let id = Id::of(&principal.id, &asked.key);
    if let Err(Refused::TooMany(seconds)) = gateway.access.count(&principal) {
        let refuse = Refuse { is_denied: false, detail: TOO_MANY.to_owned(), errors: Vec::new() };
        let refusal = refusal(gateway, (&principal, &asked, id), &refuse, peer);
        gateway.was_too_many(&principal.id, &refusal);
        return Err(too_many(seconds));
    }
    if let Err(refusal) = allowed(gateway, &principal, &asked) {
        return Err(refused(gateway, (&principal, &asked, id), refusal, peer).await);
    }
    let command = Command::new(
        (Arc::clone(&principal.id), asked.tenant.clone()),
        (asked.action.clone(), &asked.parameters),
        asked.key.clone(),
        now(),
    );
    match gateway.take(command).await {
        Taken::Accepted(known) => Ok(accepted(id, &known)),
        Taken::Other => {
            let reason = "the idempotency key stands for another command of this sender".to_owned();
            let refusal = Refuse::wrong(vec![("idempotency_key".to_owned(), reason)]);
            Err(refused(gateway, (&principal, &asked, id), refusal, peer).await)
        }
        Taken::InProgress => {
            let detail = "the first request with this idempotency key is being worked on";
            Err(No::later(StatusCode::CONFLICT, detail, 1))
        }
        Taken::Full(full) => {
            let whose = match full {
                Full::OfActor => "too many of your commands",
                Full::OfAll => "too many commands",
            };
            let detail = format!("{whose} wait for the control plane; repeat it with the same key");
            Err(No::later(StatusCode::SERVICE_UNAVAILABLE, detail, 30))
        }
        Taken::Unknown(cause) => Err(unknown(&cause)),
    }
}

const TOO_MANY: &str = "too many requests";

fn too_many(seconds: u64) -> No {
    No::later(StatusCode::TOO_MANY_REQUESTS, TOO_MANY, seconds)
}

fn unauthenticated(gateway: &Gateway, cause: &'static str) -> No {
    gateway.counters().unauthenticated(cause);
    No::Unauthenticated(cause)
}

/// Whether it is recorded isn't known.
fn unknown(cause: &str) -> No {
    tracing::warn!("a command isn't known to be recorded: {cause}");
    let detail = "whether it is recorded isn't known: repeat it with the same idempotency key";
    No::later(StatusCode::SERVICE_UNAVAILABLE, detail, 2)
}

/// What a request asks for whose signature and time are right.
fn authentic(gateway: &Gateway, headers: &HeaderMap, body: &[u8]) -> Result<Asked, No> {
    let policy = gateway.access.policy();
    let signed = signature::verify(headers, body, &policy.signing);
    let signed = signed.map_err(|_| No::Unauthenticated("signature"))?;
    let bad = |detail: String, errors| {
        let problem = Problem::new(StatusCode::BAD_REQUEST, detail).with(errors);
        gateway.counters().unauthenticated("body");
        No::Problem(problem, None)
    };
    let asked = Asked::read(headers, body, &signed).map_err(|wrong| match wrong {
        Wrong::Time => No::Unauthenticated("time"),
        Wrong::Json(cause) => bad(format!("the body isn't a command as JSON: {cause}"), Vec::new()),
        Wrong::Field(field, reason) => {
            bad(format!("{field}: {reason}"), vec![(field.to_owned(), reason)])
        }
    })?;
    if !is_timely(asked.timestamp, now().0.div_euclid(1_000_000)) {
        return Err(No::Unauthenticated("time"));
    }
    Ok(asked)
}

/// Why an authenticated request isn't carried out.
struct Refuse {
    is_denied: bool,
    detail: String,
    errors: Vec<(String, String)>,
}

impl Refuse {
    fn denied(detail: String) -> Refuse {
        Refuse { is_denied: true, detail, errors: Vec::new() }
    }

    fn wrong(errors: Vec<(String, String)>) -> Refuse {
        let detail = errors.first().map(|(_, message)| message.clone()).unwrap_or_default();
        Refuse { is_denied: false, detail, errors }
    }
}

/// Whether there is the action, the principal may, and the parameters are right.
fn allowed(gateway: &Gateway, principal: &Principal, asked: &Asked) -> Result<(), Refuse> {
    let action = &*asked.action;
    if !gateway.commands.contains(action) {
        let near = gateway.commands.nearest(action);
        let near = near.map_or_else(String::new, |near| format!("; is it {near}?"));
        let message = format!("there is no such action{near}");
        return Err(Refuse::wrong(vec![("action".to_owned(), message)]));
    }
    if !principal.may(action) {
        return Err(Refuse::denied(format!("{} may not {action}", principal.id)));
    }
    if !principal.may_act_for(asked.tenant.as_deref()) {
        return Err(Refuse::denied(format!("{} may not act for this tenant", principal.id)));
    }
    let parameters = Value::Object(asked.parameters.clone());
    match gateway.commands.check(action, &parameters) {
        Some(Err(violations)) => {
            let pairs = violations.into_iter().map(|one| (one.field, one.message));
            Err(Refuse::wrong(pairs.collect()))
        }
        _ => Ok(()),
    }
}

/// What is audited of it.
fn refusal<'a>(
    gateway: &Gateway,
    (principal, asked, id): (&'a Principal, &'a Asked, Id),
    refuse: &Refuse,
    peer: IpAddr,
) -> Refusal<'a> {
    Refusal {
        actor: &principal.id,
        tenant: asked.tenant.as_deref(),
        action: gateway.commands.contains(&asked.action).then_some(&*asked.action),
        id,
        is_denied: refuse.is_denied,
        reason: refuse.detail.clone(),
        peer,
        at: now(),
    }
}

/// The answer to an authenticated request that is refused, once that is audited.
async fn refused(
    gateway: &Gateway,
    (principal, asked, id): (&Principal, &Asked, Id),
    refuse: Refuse,
    peer: IpAddr,
) -> No {
    let refusal = refusal(gateway, (principal, asked, id), &refuse, peer);
    if let Err(cause) = gateway.refused(&refusal).await {
        return unknown(&cause);
    }
    let status =
        if refuse.is_denied { StatusCode::FORBIDDEN } else { StatusCode::UNPROCESSABLE_ENTITY };
    No::Problem(Problem::new(status, refuse.detail).with(refuse.errors), None)
}

/// The answer to a command that was taken in: the same each time.
fn accepted(id: Id, known: &Known) -> Response {
    let place = format!("/webhooks/inbound/{id}");
    let body = json!({
        "id": id.to_string(),
        "action": &*known.action,
        "state": "accepted",
        "received_at": rfc3339(known.received_at),
    });
    (StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(body)).into_response()
}

async fn state(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    Extension(Peer(connection)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let peer = gateway.senders.peer(connection.ip(), &headers);
    if let Err(seconds) = gateway.senders.look_at(peer, now_ms()) {
        return Refused::TooMany(seconds).into_response();
    }
    let Ok(principal) = gateway.access.identify(&headers).await else {
        return unauthenticated(&gateway, "credential").into_response();
    };
    gateway.senders.was_good(peer);
    if let Err(refused) = gateway.access.count(&principal) {
        return refused.into_response();
    }
    let state = gateway.state();
    if !state.is_ready() {
        return unknown("its log is being read").into_response();
    }
    let found = Id::parse(&id).and_then(|id| Some((id, state.find(id)?.clone())));
    drop(state);
    let is_own = |known: &Known| {
        let may_read = || principal.may(READ_COMMANDS);
        known.actor == principal.id || may_read() && principal.may_act_for(known.tenant.as_deref())
    };
    let Some((id, known)) = found.filter(|(_, known)| is_own(known)) else {
        let detail = "there is no such command of this sender";
        return Problem::new(StatusCode::NOT_FOUND, detail).into_response();
    };
    let mut body = json!({
        "id": id.to_string(),
        "action": &*known.action,
        "state": known.outcome.as_ref().map_or("accepted", |outcome| outcome.word()),
        "received_at": rfc3339(known.received_at),
    });
    if let Some(outcome) = &known.outcome {
        body["detail"] = json!(outcome.detail);
        body["ended_at"] = json!(rfc3339(outcome.at));
    }
    Json(body).into_response()
}
