//! The HTTP client of deliveries, which trusts no receiver.
//!
//! | a receiver that | gets |
//! |---|---|
//! | resolves to an address that isn't public | no connection, unless the policy allows the address |
//! | redirects | a failed attempt: nobody else is given what was meant for it |
//! | sends endlessly, slowly, or compressed | [`BODY_BYTES`] read as they come, within the time-out |
//! | sends odd headers or a flood of 1xx | a failed attempt, within the time-out |
//!
//! No proxy is taken from the environment; TLS is 1.2 or newer, by the system's authorities or the policy's.
//!
//! **Invariant:** the address is looked at where the connection is opened, after the name was resolved and
//! by what is dialled, so a name that changes between two looks changes nothing.

mod connect;
#[cfg(test)]
mod tests;
mod tls;

use std::{io, sync::Arc, time::Duration};

use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::Client as Pool,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls;

use self::connect::{Names, VettedConnector};
use super::{policy::Endpoint, schedule::retry_after};

pub use self::tls::Authorities;

/// What is read of an answer's body.
pub const BODY_BYTES: usize = 4 << 10;
/// What an answer's head may have.
const HEAD_BYTES: usize = 64 << 10;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How long the rest of an answer is waited for that is decided already, so that its connection can be used
/// again.
const REST: Duration = Duration::from_millis(500);
/// What is kept of an answer's body, for people.
const EXCERPT_CHARS: usize = 200;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 2xx: it has the event.
    Taken(u16),
    /// 410: it wants no more.
    Gone,
    /// Any other status.
    Refused {
        /// The status.
        status: u16,
        /// `Retry-After`, where it can be read.
        retry_after: Option<Duration>,
        /// The beginning of the body.
        excerpt: String,
    },
    /// No answer.
    Failed(String),
}

/// The connections to one endpoint.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool<HttpsConnector<VettedConnector>, Full<Bytes>>,
    uri: Uri,
    timeout: Duration,
}

impl Client {
    /// Reads the certificates that the entry names. Connects to nobody yet.
    pub fn open(endpoint: &Endpoint, authorities: &Authorities) -> Result<Client, String> {
        Client::with(endpoint, authorities, Names::System)
    }

    fn with(
        endpoint: &Endpoint,
        authorities: &Authorities,
        names: Names,
    ) -> Result<Client, String> {
        let uri = endpoint.url.as_str().parse();
        let uri = uri.map_err(|cause| format!("url {}: {cause}", endpoint.url))?;
        let connector = VettedConnector {
            names,
            private: Arc::from(endpoint.allow_private.as_slice()),
            timeout: CONNECT.min(endpoint.timeout),
        };
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls::config(&endpoint.tls, authorities)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(endpoint.max_in_flight)
            .http1_max_buf_size(HEAD_BYTES)
            .build(https);
        Ok(Client { pool, uri, timeout: endpoint.timeout })
    }

    /// Sends one request; the answer comes within the time-out of the entry.
    pub async fn send(&self, headers: HeaderMap, body: Bytes) -> Answer {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        let deadline = Instant::now() + self.timeout;
        match timeout_at(deadline, self.pool.request(request)).await {
            Err(_) => Answer::Failed("no answer in time".to_owned()),
            Ok(Err(cause)) => Answer::Failed(innermost(&cause)),
            Ok(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                // The status is the answer. A body that comes slowly delays nothing but its own connection.
                let left = deadline.saturating_duration_since(Instant::now()).min(REST);
                let text = timeout(left, beginning(body)).await.unwrap_or_default();
                judge(head.status, &head.headers, &text)
            }
        }
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    if status.is_success() {
        return Answer::Taken(status.as_u16());
    }
    if status == StatusCode::GONE {
        return Answer::Gone;
    }
    let asked = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = asked.and_then(|value| retry_after(value, std::time::SystemTime::now()));
    Answer::Refused { status: status.as_u16(), retry_after, excerpt: excerpt(body) }
}

/// What is read of a body: the bytes as they were sent, never decompressed.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(chunk) = frame.into_data() else { continue };
        let room = BODY_BYTES - read.len();
        read.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break; // The connection is closed with it.
        }
    }
    read
}

/// Text of a stranger, fit for one line.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(EXCERPT_CHARS).collect::<String>().trim().to_owned()
}

/// The innermost cause: the outer ones say only that there was one.
fn innermost(cause: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = cause;
    loop {
        // The source of an I/O error is that of the error in it, which would be passed over.
        let held = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match held.map(|held| held as &(dyn std::error::Error + 'static)).or(inner.source()) {
            Some(next) => inner = next,
            None => break,
        }
    }
    match inner.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidMessage(what)) => {
            format!("tls: what answers doesn't speak TLS ({what:?})")
        }
        Some(cause) => format!("tls: {cause}"),
        None => inner.to_string(),
    }
}
