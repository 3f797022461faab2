//! A control plane that does nothing, for `aion dev`: it verifies what comes, decides on each proposal once, and takes
//! everything else.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::signature;
use crate::webhooks::secret::Secret;

#[derive(Debug)]
struct Plane {
    secrets: Vec<Secret>,
    decided: Mutex<HashMap<String, String>>,
}

/// Serves it on a port of this machine until `shutdown`.
pub async fn serve(secret: Secret, shutdown: CancellationToken) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let plane = Arc::new(Plane { secrets: vec![secret], decided: Mutex::default() });
    let app = Router::new().route("/commands", post(take)).with_state(plane);
    let serving = axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned());
    tokio::spawn(async move {
        if let Err(cause) = serving.await {
            tracing::error!("the stand-in for the control plane: {cause}");
        }
    });
    Ok(address)
}

async fn take(
    State(plane): State<Arc<Plane>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    if signature::verify(&headers, &body, &plane.secrets).is_err() {
        return (StatusCode::UNAUTHORIZED, "the signature isn't right".to_owned());
    }
    let command: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (id, action) = (command["id"].to_string(), &command["type"]);
    let Some(proposal) = command["parameters"]["proposal_id"].as_str() else {
        return (StatusCode::OK, format!("{action} is done"));
    };
    let mut decided = plane.decided.lock().unwrap_or_else(PoisonError::into_inner);
    // The same command sent again gets the same answer.
    let first = decided.entry(proposal.to_owned()).or_insert_with(|| id.clone());
    if *first == id {
        (StatusCode::OK, format!("{action} is done"))
    } else {
        (StatusCode::CONFLICT, format!("proposal {proposal} is decided already"))
    }
}
