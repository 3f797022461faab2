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
//! | `/webhooks/inbound` | `inbound`: commands from outside |
//!
//! Who may use `/v1` is said by [`crate::access`]; the rest is open to whoever reaches the address, `/metrics` unless
//! the configuration says otherwise.

mod body;
pub mod exports;
mod exposition;
mod guard;
mod inbound;
mod problem;
mod serving;
pub mod sql;
pub mod tls;
pub mod v1;

use std::{net::SocketAddr, sync::Arc};

use aion_analytics::alive;
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::{
    exports::ExportsApi,
    guard::guarded,
    sql::Sql,
    tls::{Tls, TlsListener},
    v1::Api,
};
use crate::{
    access::{Access, policy},
    exit::{Exit, Failure},
    health::Health,
    inbound::gateway::Gateway,
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

/// What a process that runs jobs answers from.
#[derive(Debug)]
pub struct Pages {
    /// Whether it is ready.
    pub health: Arc<Health>,
    /// Its numbers.
    pub metrics: Arc<Metrics>,
    /// Events to be checked and published.
    pub api: Arc<Api>,
    /// Questions.
    pub sql: Arc<Sql>,
    /// Exports, where they are made.
    pub exports: Option<Arc<ExportsApi>>,
    /// Commands from outside, where they are taken in.
    pub gateway: Option<Arc<Gateway>>,
}

/// Serves until `shutdown`; with `tls`, over HTTPS only.
pub async fn serve(
    (listener, tls): (TcpListener, Option<Tls>),
    (access, pages): (&Arc<Access>, Pages),
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let Pages { health, metrics, api, sql, exports, gateway } = pages;
    let mut exposition = exposition::routes(&metrics);
    if access.guards_metrics() {
        exposition = guarded(exposition, access, policy::METRICS);
    }
    let exports = exports.map(exports::routes);
    let exports = exports.map(|routes| guarded(routes, access, policy::EXPORTS));
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready).with_state(health))
        .merge(exposition)
        .merge(guarded(v1::routes(api), access, policy::PUBLISH))
        .merge(guarded(sql::routes(sql), access, policy::SQL))
        .merge(exports.unwrap_or_default())
        .merge(gateway.map(inbound::routes).unwrap_or_default());
    serve_app((listener, tls), app, shutdown).await
}

/// Serves a process that only answers questions: `/v1/sql`, `/v1/tables`, `/livez`, `/readyz`.
pub async fn serve_reader(
    (listener, tls): (TcpListener, Option<Tls>),
    (access, sql): (&Arc<Access>, Arc<Sql>),
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(sql::ready).with_state(Arc::clone(&sql)))
        .merge(guarded(sql::routes(sql), access, policy::SQL));
    serve_app((listener, tls), app, shutdown).await
}

async fn serve_app(
    (listener, tls): (TcpListener, Option<Tls>),
    app: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    match tls {
        None => {
            let listener = listener.tap_io(|socket| alive::watch(socket));
            serving::serve(listener, app, shutdown).await
        }
        Some(tls) => serving::serve(TlsListener::start(listener, tls)?, app, shutdown).await,
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
