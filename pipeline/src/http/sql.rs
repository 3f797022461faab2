//! `/v1/sql` and `/v1/tables`: questions over live and stored rows, for programs.
//!
//! | request | answers |
//! |---|---|
//! | `POST /v1/sql` | the rows, as JSON, JSON lines, CSV, an Arrow stream or Parquet |
//! | `GET /v1/tables` | the tables with their columns and what they mean |
//!
//! The body is SQL, or JSON: `{"query": "..", "parameters": [..] or {..}, "format": "csv", "max_rows": 100}`.
//! The format is that of the body, else of `?format=`, else of `Accept`, else JSON.
//!
//! | status | means |
//! |---|---|
//! | 200 | the rows; they come as they are found |
//! | 400 | the query means nothing: syntax, unknown names; `near` is the nearest one |
//! | 403 | the statement would change something |
//! | 408, 413 | the body comes too slowly, or is longer than a statement may be |
//! | 422 | it needs more memory, or gives more rows, than it may |
//! | 500 | a fault of the program |
//! | 503 | the lake can't be read, or the process is stopping |
//! | 504 | it took longer than it may |
//!
//! **Invariant:** an answer that ends as HTTP says it must is whole. Whatever fails after the first rows were
//! sent breaks the connection off, so that no part can be taken for the whole.
//! **Invariant:** a query runs, and its rows are encoded, on the engine's threads; it ends with its client.

mod encode;
mod problem;

use std::{sync::Arc, time::Duration};

use aion_analytics::{Answer, Engine, Error, Parameters};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};

pub(crate) use self::encode::Form;
use self::{encode::Encoder, problem::Problem};
use super::body;
use crate::commands::sql::format::named_apart;

/// The longest body of a question.
const MAX_BODY_BYTES: usize = aion_analytics::postgres::STATEMENT_BYTES;
/// How long `/readyz` waits for the lake.
const LOOK: Duration = Duration::from_secs(5);
/// A piece of an answer is at least this long, the last one apart. What fails before the first is full has a
/// status of its own.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for a slow client; the query waits beyond that.
const PIECES_WAITING: usize = 2;

/// What the surface needs.
#[derive(Debug)]
pub struct Sql {
    engine: Arc<Engine>,
    max_rows: u64,
    /// Taken while the lake is looked at for `/readyz`.
    looking: Arc<Mutex<()>>,
}

impl Sql {
    /// Answers from `engine`, with at most so many rows each.
    pub fn new(engine: Arc<Engine>, max_rows: u64) -> Sql {
        Sql { engine, max_rows, looking: Arc::default() }
    }
}

/// A question, as it came.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    query: String,
    #[serde(default)]
    parameters: Value,
    format: Option<Form>,
    max_rows: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    format: Option<Form>,
}

/// The routes.
pub(super) fn routes(sql: Arc<Sql>) -> Router {
    Router::new().route("/v1/sql", post(ask)).route("/v1/tables", get(tables)).with_state(sql)
}

async fn tables(State(sql): State<Arc<Sql>>) -> Response {
    let column = |column: &aion_analytics::tables::ColumnInfo| json!({"name": column.name, "type": column.sql_type, "nullable": column.nullable, "doc": column.doc});
    let table = |table: &aion_analytics::tables::TableInfo| {
        let columns: Vec<_> = table.columns.iter().map(column).collect();
        json!({"name": table.name, "doc": table.doc, "columns": columns})
    };
    let tables: Vec<_> = sql.engine.tables().iter().map(table).collect();
    Json(json!({ "tables": tables })).into_response()
}

/// Whether the lake can be read. That takes no turn: a server with many questions is ready, and strangers are in nobody's way.
pub(super) async fn ready(State(sql): State<Arc<Sql>>) -> Response {
    let why = match timeout(LOOK, look(sql)).await {
        Ok(Ok(())) => return "ready\n".into_response(),
        Ok(Err(cause)) => cause.to_string(),
        Err(_) => format!("the lake wasn't read within {LOOK:?}"),
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

/// Reads the newest version of a table, for one who asks at a time. It goes on when nobody waits any more: broken off, it would
/// begin anew for the next one, and a long log would never be read.
async fn look(sql: Arc<Sql>) -> Result<(), Error> {
    let looking = Arc::clone(&sql.looking).lock_owned().await;
    let look = tokio::spawn(async move {
        let _looking = looking;
        let Some(table) = sql.engine.tables().first() else { return Ok(()) };
        sql.engine.snapshot(&table.name).await.map(drop)
    });
    look.await.unwrap_or_else(|cause| Err(Error::Internal(cause.to_string())))
}

async fn ask(
    State(sql): State<Arc<Sql>>,
    options: Result<Query<Options>, QueryRejection>,
    request: Request,
) -> Response {
    let answered = match options {
        Ok(Query(options)) => answer(&sql, &options, request).await,
        // It names those that there are.
        Err(wrong) => Err(Problem::new(StatusCode::BAD_REQUEST, wrong.body_text())),
    };
    answered.unwrap_or_else(Problem::into_response)
}

async fn answer(sql: &Sql, options: &Options, request: Request) -> Result<Response, Problem> {
    let (asked, form) = read(request, options).await?;
    let max_rows = asked.max_rows.unwrap_or(sql.max_rows).min(sql.max_rows);
    let parameters = Parameters::from_json(&asked.parameters)?;
    let answer = sql.engine.query_with(&asked.query, parameters).await?;
    if matches!(form, Form::Json | Form::Jsonl) {
        named_apart(answer.schema()).map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why))?;
    }
    let allowed = answer.allowed();
    let (pieces, mut waiting) = mpsc::channel(PIECES_WAITING);
    sql.engine.spawn(send(answer, form, max_rows, pieces));
    // Nothing comes at all where the engine closes.
    let first = allowed.wait(waiting.recv()).await?;
    let first = first.unwrap_or_else(|| Err(Error::Stopping.into()))?;
    let rest = stream::poll_fn(move |context| waiting.poll_recv(context));
    let pieces = stream::iter([Ok(first)]).chain(rest).map(|piece| {
        piece.map_err(|problem| {
            tracing::warn!(cause = %problem.detail, "an answer is broken off");
            std::io::Error::other(problem.detail)
        })
    });
    let headers = [(header::CONTENT_TYPE, form.media_type()), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Reads a question, and how its answer is wanted.
async fn read(request: Request, options: &Options) -> Result<(Asked, Form), Problem> {
    let (parts, body) = request.into_parts();
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let accepted = Form::accepted(text(header::ACCEPT).unwrap_or_default());
    let is_json =
        text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
    let body = body::read(body, MAX_BODY_BYTES).await;
    let body = body.map_err(|(status, why)| Problem::new(status, why))?;
    let bad = |what: String| Problem::new(StatusCode::BAD_REQUEST, what);
    let asked = if is_json {
        serde_json::from_slice(&body).map_err(|cause| {
            bad(format!("the body isn't {{\"query\": \"select ..\"}} as JSON: {cause}"))
        })?
    } else {
        let query =
            String::from_utf8(body.into()).map_err(|_| bad("the query isn't UTF-8".into()))?;
        Asked { query, parameters: Value::Null, format: None, max_rows: None }
    };
    let form = asked.format.or(options.format).or(accepted).unwrap_or(Form::Json);
    Ok((asked, form))
}

/// Encodes an answer into pieces, until it ends or its client is gone.
async fn send(
    answer: Answer,
    form: Form,
    max_rows: u64,
    pieces: mpsc::Sender<Result<Bytes, Problem>>,
) {
    let encoding = encode(answer, form, max_rows, &pieces);
    tokio::select! {
        ended = encoding => {
            if let Err(problem) = ended {
                // Nobody may be left to hear it.
                drop(pieces.send(Err(problem)).await);
            }
        }
        () = pieces.closed() => tracing::debug!("a client went before its answer was whole"),
    }
}

async fn encode(
    mut answer: Answer,
    form: Form,
    max_rows: u64,
    pieces: &mpsc::Sender<Result<Bytes, Problem>>,
) -> Result<(), Problem> {
    let mut encoder = Encoder::new(form, answer.schema())?;
    let (mut piece, mut rows) = (Vec::with_capacity(PIECE_BYTES), 0);
    while let Some(batch) = answer.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        if rows > max_rows {
            return Err(Problem::too_many_rows(max_rows));
        }
        encoder.rows(&batch, &mut piece)?;
        if piece.len() >= PIECE_BYTES {
            let full = Bytes::from(std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES)));
            if pieces.send(Ok(full)).await.is_err() {
                return Ok(());
            }
        }
    }
    encoder.end(&mut piece)?;
    drop(pieces.send(Ok(piece.into())).await);
    Ok(())
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::of(&error)
    }
}
