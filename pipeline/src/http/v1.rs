//! `/v1`: for services in other languages, which hold their events against the contract and publish them
//! here.
//!
//! | request | answers |
//! |---|---|
//! | `POST /v1/validate/{topic}` | for each line, whether it keeps to the contract; nothing is sent |
//! | `POST /v1/publish/{topic}` | the same, and where each event stands in the log |
//!
//! The body is JSON lines, an event each. `?encoding=avro` sends the Avro form. Unless `?strict=false` is
//! given, one line that breaks a rule keeps all from being sent, so that a corrected batch can be sent as a
//! whole; sent twice, an event is two records.
//!
//! | status | means |
//! |---|---|
//! | 200 | every line is valid, and acknowledged by all in-sync replicas |
//! | 207 | some were refused, the others acknowledged (`strict=false`) |
//! | 408, 413 | the body comes too slowly; it is cut short, or has more bytes or events than a request may have |
//! | 422 | lines break rules; nothing was sent |
//! | 502 | Kafka didn't take some; the answer says which |
//! | 504 | some weren't acknowledged in time: they may stand in the log, or come to |
//!
//! **Invariant:** a request holds a bounded number of bytes, and so do all together.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use aion_kafka::{Connection, Error, Outgoing, Placed, Producer, Purpose};
use aion_schemas::{
    catalog::{Catalog, Topic},
    encode::{Encoder, Encoding, Message},
    validate::Violation,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use super::{body, problem::Problem};
use crate::{
    exit::Failure,
    publish::{self, Form, check, lines::Lines},
    registry::Registry,
};

/// The longest body.
const MAX_BODY_BYTES: usize = 8 << 20;
/// The most events of one.
const MAX_LINES: usize = 10_000;
/// So many requests are worked on at a time; others wait.
const AT_A_TIME: usize = 8;
/// How long an answer waits for acknowledgements.
const WAIT: Duration = Duration::from_secs(30);
/// How long to wait where the producer's queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(5);

/// What `/v1` needs.
#[derive(Debug)]
pub struct Api {
    catalog: Catalog,
    connection: Connection,
    registry: Option<Arc<Registry>>,
    producer: OnceLock<Opened>,
    permits: Semaphore,
}

struct Opened(Producer);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Producer")
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default = "json")]
    encoding: Form,
    #[serde(default = "yes")]
    strict: bool,
}

const fn json() -> Form {
    Form::Json
}

const fn yes() -> bool {
    true
}

/// What became of a line.
#[derive(Debug, Serialize)]
struct Outcome {
    line: u64,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<Broken>,
}

/// What became of a line, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// It keeps to the contract, and wasn't sent.
    Valid,
    /// It breaks rules, and wasn't sent.
    Refused,
    /// It is durable.
    Acknowledged,
    /// Kafka didn't take it.
    Failed,
    /// It was sent, and no acknowledgement came.
    Unknown,
}

/// A rule that an event breaks.
#[derive(Debug, Serialize)]
struct Broken {
    field: String,
    rule: String,
    message: String,
    value: Option<String>,
}

/// An answer.
#[derive(Debug, Serialize)]
struct Answer {
    topic: String,
    valid: usize,
    refused: usize,
    acknowledged: usize,
    lines: Vec<Outcome>,
}

/// Why a request isn't worked on.
type Refusal = (StatusCode, String);

type Checked = Vec<(u64, Result<Message, Vec<Violation>>)>;

impl Api {
    /// Serves these topics; connects when the first event is sent.
    pub fn new(catalog: Catalog, connection: Connection, registry: Option<Arc<Registry>>) -> Api {
        let permits = Semaphore::new(AT_A_TIME);
        Api { catalog, connection, registry, producer: OnceLock::new(), permits }
    }

    fn topic(&self, name: &str) -> Result<&Topic, Refusal> {
        let found = self.catalog.topic(name).or_else(|| self.catalog.table(name));
        match found {
            Some(topic) if topic.internal => {
                let what = format!("{} is written by AION Event Streams itself", topic.name);
                Err((StatusCode::FORBIDDEN, what))
            }
            Some(topic) => Ok(topic),
            None => Err((StatusCode::NOT_FOUND, format!("no topic {name:?} in the catalog"))),
        }
    }

    fn producer(&self) -> Result<&Producer, Error> {
        if let Some(opened) = self.producer.get() {
            return Ok(&opened.0);
        }
        let opened = Opened(Producer::open(&self.connection, "aion-http")?);
        // Where two open at once, one is dropped unused.
        Ok(&self.producer.get_or_init(|| opened).0)
    }
}

/// The routes.
pub(super) fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/validate/{topic}", post(validate))
        .route("/v1/publish/{topic}", post(publish))
        .with_state(api)
}

async fn validate(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    request: Request,
) -> Response {
    let answer = async {
        let (topic, body, _permit) = admit(&api, &topic, request).await?;
        let checked = check_all(topic, Encoding::Json, body).await?;
        let outcomes = checked.into_iter().map(|(line, checked)| match checked {
            Ok(_) => Outcome::of(line, Status::Valid),
            Err(violations) => Outcome::refused(line, violations),
        });
        Ok(answered(topic, outcomes.collect()))
    };
    answer.await.unwrap_or_else(refusal)
}

async fn publish(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    Query(options): Query<Options>,
    request: Request,
) -> Response {
    let answer = async {
        let (topic, body, _permit) = admit(&api, &topic, request).await?;
        let encoding = match options.encoding {
            Form::Json => Encoding::Json,
            Form::Avro => {
                let id = publish::contract_id(api.registry.as_deref(), topic).await;
                let away = |cause: Failure| (StatusCode::SERVICE_UNAVAILABLE, cause.to_string());
                Encoding::Avro(id.map_err(away)?)
            }
        };
        let checked = check_all(topic, encoding, body).await?;
        let is_stopped = options.strict && checked.iter().any(|(_, checked)| checked.is_err());
        let until = Instant::now() + WAIT;
        let mut waiting = Vec::with_capacity(checked.len());
        for (line, checked) in checked {
            waiting.push(match checked {
                Err(violations) => Waiting::Over(Outcome::refused(line, violations)),
                Ok(_) if is_stopped => Waiting::Over(Outcome::of(line, Status::Valid)),
                Ok(message) => send(&api, &topic.name, line, &message, until).await,
            });
        }
        let mut outcomes = Vec::with_capacity(waiting.len());
        for one in waiting {
            outcomes.push(one.end(&api, until).await);
        }
        Ok(answered(topic, outcomes))
    };
    answer.await.unwrap_or_else(refusal)
}

/// Lets a request in: its topic, a turn, its body.
async fn admit<'a>(
    api: &'a Api,
    topic: &str,
    request: Request,
) -> Result<(&'a Topic, Bytes, tokio::sync::SemaphorePermit<'a>), Refusal> {
    let topic = api.topic(topic)?;
    let closing = |_| (StatusCode::SERVICE_UNAVAILABLE, "the process is stopping".to_owned());
    let permit = api.permits.acquire().await.map_err(closing)?;
    let body = body::read(request.into_body(), MAX_BODY_BYTES).await?;
    Ok((topic, body, permit))
}

/// Holds every line against the contract, on a thread for that.
async fn check_all(topic: &Topic, encoding: Encoding, body: Bytes) -> Result<Checked, Refusal> {
    let topic = topic.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let internal = |cause: String| (StatusCode::INTERNAL_SERVER_ERROR, cause);
        let mut encoder = Encoder::new(&topic, encoding).map_err(|e| internal(e.to_string()))?;
        let mut lines = Lines::new(&body[..], topic.max_message_bytes as usize);
        let mut checked = Vec::new();
        while let Some(line) = lines.next().map_err(|cause| internal(cause.to_string()))? {
            if checked.len() == MAX_LINES {
                let what = format!("more than {MAX_LINES} events; send them in several requests");
                return Err((StatusCode::PAYLOAD_TOO_LARGE, what));
            }
            checked.push((line.number, check(&mut encoder, &line)));
        }
        Ok(checked)
    });
    let broke = |cause: tokio::task::JoinError| {
        Err((StatusCode::INTERNAL_SERVER_ERROR, format!("the check broke: {cause}")))
    };
    checked.await.unwrap_or_else(broke)
}

/// A line whose outcome is known, or that waits for its acknowledgement.
enum Waiting {
    Over(Outcome),
    Sent(u64, oneshot::Receiver<Result<Placed, Error>>),
}

async fn send(api: &Api, topic: &str, line: u64, message: &Message, until: Instant) -> Waiting {
    let failed = |error: &Error| {
        let error = Some(api.connection.explain(error, Purpose::Produce));
        Waiting::Over(Outcome { error, ..Outcome::of(line, Status::Failed) })
    };
    let producer = match api.producer() {
        Ok(producer) => producer,
        Err(error) => return failed(&error),
    };
    loop {
        let outgoing = Outgoing {
            topic,
            key: Some(&message.key),
            value: Some(&message.value),
            ..Outgoing::default()
        };
        let (told, placed) = oneshot::channel();
        // The request may be gone by then.
        match producer.send(&outgoing, move |outcome| drop(told.send(outcome))) {
            Ok(()) => return Waiting::Sent(line, placed),
            Err(Error::Full { .. }) if Instant::now() < until => {
                tokio::time::sleep(QUEUE_FULL).await;
            }
            Err(error) => return failed(&error),
        }
    }
}

impl Waiting {
    async fn end(self, api: &Api, until: Instant) -> Outcome {
        let (line, placed) = match self {
            Waiting::Over(outcome) => return outcome,
            Waiting::Sent(line, placed) => (line, placed),
        };
        match timeout_at(until, placed).await {
            Ok(Ok(Ok(Placed { partition, offset }))) => Outcome {
                partition: Some(partition),
                offset: Some(offset.get()),
                ..Outcome::of(line, Status::Acknowledged)
            },
            Ok(Ok(Err(error))) => {
                let error = Some(api.connection.explain(&error, Purpose::Produce));
                Outcome { error, ..Outcome::of(line, Status::Failed) }
            }
            // Nobody is left to tell: the process is stopping.
            Ok(Err(_)) => Outcome::of(line, Status::Unknown),
            Err(_) => {
                let complaint = api.producer.get().and_then(|opened| opened.0.complaint());
                let error = complaint.map(|error| api.connection.explain(&error, Purpose::Produce));
                Outcome { error, ..Outcome::of(line, Status::Unknown) }
            }
        }
    }
}

impl Outcome {
    fn of(line: u64, status: Status) -> Outcome {
        let violations = Vec::new();
        Outcome { line, status, partition: None, offset: None, error: None, violations }
    }

    fn refused(line: u64, violations: Vec<Violation>) -> Outcome {
        let broken =
            |Violation { field, rule, message, value }| Broken { field, rule, message, value };
        let violations = violations.into_iter().map(broken).collect();
        Outcome { violations, ..Outcome::of(line, Status::Refused) }
    }
}

fn answered(topic: &Topic, lines: Vec<Outcome>) -> Response {
    let count = |status| lines.iter().filter(|line| line.status == status).count();
    let (valid, refused) = (count(Status::Valid), count(Status::Refused));
    let acknowledged = count(Status::Acknowledged);
    let status = if count(Status::Unknown) > 0 {
        StatusCode::GATEWAY_TIMEOUT
    } else if count(Status::Failed) > 0 {
        StatusCode::BAD_GATEWAY
    } else if refused == 0 {
        StatusCode::OK
    } else if acknowledged > 0 {
        StatusCode::MULTI_STATUS
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let topic = topic.name.to_string();
    (status, Json(Answer { topic, valid, refused, acknowledged, lines })).into_response()
}

fn refusal((status, error): Refusal) -> Response {
    Problem::new(status, error).into_response()
}
