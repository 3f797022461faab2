//! The process's own HTTP surface: `/livez`, `/readyz`, `/metrics`, `/metrics/platform`.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 while the process can answer at all |
//! | `/readyz` | 200 when every job has heard from Kafka and from its sinks; else 503 and, line by line, who hasn't and why |
//! | `/metrics` | the process's own numbers in Prometheus' text format |
//! | `/metrics/platform` | what the platform's events add up to, in the same |
//! | `/v1/...` | [`v1`]: events held against the contract, and published |
//! | `/v1/exports` | [`exports`]: training exports |

pub mod exports;
mod exposition;
pub mod keys;
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
    (health, metrics, api): (Arc<Health>, Arc<Metrics>, Arc<Api>),
    exports: Option<Arc<ExportsApi>>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready).with_state(health))
        .merge(exposition::routes(&metrics))
        .merge(v1::routes(api))
        .merge(exports.map(exports::routes).unwrap_or_default());
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
