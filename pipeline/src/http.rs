//! The process's own HTTP surface: `/livez`, `/readyz`, `/metrics`, `/metrics/platform`, `/v1`.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 while the process can answer at all |
//! | `/readyz` | 200 when every job has heard from Kafka and from its sinks; else 503 and, line by line, who hasn't and why |
//! | `/metrics` | the process's own numbers in Prometheus' text format |
//! | `/metrics/platform` | what the platform's events add up to, in the same |
//! | `/v1/sql`, `/v1/tables` | [`sql`]: questions over live and stored rows |
//! | `/v1/...` | [`v1`]: events held against the contract, and published |
//! | `/v1/exports` | [`exports`]: training exports |

pub mod exports;
mod exposition;
pub mod keys;
pub mod sql;
pub mod tls;
pub mod v1;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::{
    exports::ExportsApi,
    sql::Sql,
    tls::{Tls, TlsListener},
    v1::Api,
};
use crate::{
    exit::{Exit, Failure},
    health::Health,
    metrics::Metrics,
};

/// Opens the address, so that a busy one is known before anything else starts.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|cause| {
        let exit = if cause.kind() == std::io::ErrorKind::AddrInUse {
            Exit::Address
        } else {
            Exit::Failed
        };
        Failure::new(
            exit,
            format!(
                "listen on {address} for HTTP: {cause}; choose another with --http or http.listen"
            ),
        )
    })
}

/// Serves until `shutdown`; with `tls`, over HTTPS only.
pub async fn serve(
    (listener, tls): (TcpListener, Option<Tls>),
    (health, metrics, api, sql): (Arc<Health>, Arc<Metrics>, Arc<Api>, Arc<Sql>),
    exports: Option<Arc<ExportsApi>>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready).with_state(health))
        .merge(exposition::routes(&metrics))
        .merge(v1::routes(api))
        .merge(sql::routes(sql))
        .merge(exports.map(exports::routes).unwrap_or_default());
    serve_app((listener, tls), app, shutdown).await
}

/// Serves a process that only answers questions: `/v1/sql`, `/v1/tables`, `/livez`, `/readyz`.
pub async fn serve_reader(
    (listener, tls): (TcpListener, Option<Tls>),
    sql: Arc<Sql>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(sql::ready).with_state(Arc::clone(&sql)))
        .merge(sql::routes(sql));
    serve_app((listener, tls), app, shutdown).await
}

async fn serve_app(
    (listener, tls): (TcpListener, Option<Tls>),
    app: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let closed = shutdown.cancelled_owned();
    match tls {
        None => axum::serve(listener, app).with_graceful_shutdown(closed).await,
        Some(tls) => {
            let listener = TlsListener::start(listener, tls)?;
            axum::serve(listener, app).with_graceful_shutdown(closed).await
        }
    }
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    let missing = health.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ready\n").into_response();
    }
    let mut lines = missing.join("\n");
    lines.push('\n');
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}
