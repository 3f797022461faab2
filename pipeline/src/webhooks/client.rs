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
mod connections;
#[cfg(test)]
mod tests;
mod tls;

use std::{io, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::TrySendError};
use hyper_rustls::HttpsConnector;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls;
use tower_service::Service;
use url::Url;

use self::{
    connect::{Names, VettedConnector},
    connections::{Broken, Connection, Connections, Outgoing},
    tls::Authorities,
};
use super::{policy::Endpoint, schedule::retry_after};

/// What is read of an answer's body.
pub const BODY_BYTES: usize = 4 << 10;
/// What an answer's head may have.
const HEAD_BYTES: usize = 64 << 10;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
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

/// What the clients of all endpoints share.
#[derive(Clone, Debug)]
pub struct Network {
    authorities: Authorities,
    connections: Arc<Connections>,
}

impl Network {
    /// With the authorities of the system.
    pub fn of_system() -> Network {
        let connections = Arc::new(Connections::new(connections::MOST));
        Network { authorities: Authorities::of_system(), connections }
    }
}

/// The way to one endpoint.
#[derive(Clone, Debug)]
pub struct Client(Arc<Way>);

#[derive(Debug)]
struct Way {
    connector: HttpsConnector<VettedConnector>,
    /// Whom to connect to.
    url: Uri,
    /// What is asked for, and of whom.
    path: Uri,
    host: HeaderValue,
    timeout: Duration,
    connections: Arc<Connections>,
    /// The client's number among those whose connections are kept.
    number: u64,
}

impl Client {
    /// Reads the certificates that the entry names. Connects to nobody yet.
    pub fn open(endpoint: &Endpoint, network: &Network) -> Result<Client, String> {
        Client::with(endpoint, network, Names::System)
    }

    fn with(endpoint: &Endpoint, network: &Network, names: Names) -> Result<Client, String> {
        let wrong = |cause: &dyn std::fmt::Display| format!("url {}: {cause}", endpoint.url);
        let url: Uri = endpoint.url.as_str().parse().map_err(|cause| wrong(&cause))?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let connector = VettedConnector {
            names,
            private: Arc::from(endpoint.allow_private.as_slice()),
            timeout: CONNECT.min(endpoint.timeout),
        };
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls::config(&endpoint.tls, &network.authorities)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Client(Arc::new(Way {
            connector: https,
            path: path.parse().map_err(|cause| wrong(&cause))?,
            host: host(&endpoint.url).parse().map_err(|cause| wrong(&cause))?,
            url,
            timeout: endpoint.timeout,
            connections: Arc::clone(&network.connections),
            number: network.connections.client(),
        })))
    }

    /// Sends one request; the answer comes within the time-out of the entry.
    pub async fn send(&self, headers: HeaderMap, body: Bytes) -> Answer {
        let Client(way) = self;
        let mut request = Outgoing::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = way.path.clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::HOST, way.host.clone());
        let deadline = Instant::now() + way.timeout;
        match timeout_at(deadline, way.exchange(request)).await {
            Err(_) => Answer::Failed("no answer in time".to_owned()),
            Ok(Err(cause)) => Answer::Failed(innermost(&*cause)),
            Ok(Ok((mut connection, answer))) => {
                let (head, body) = answer.into_parts();
                // The status is the answer. A body that comes slowly delays nothing but its own connection.
                let left = deadline.saturating_duration_since(Instant::now()).min(REST);
                let mut text = Vec::new();
                if timeout(left, connection.finish(body, &mut text)).await == Ok(true) {
                    way.connections.put(way.number, connection);
                }
                judge(head.status, &head.headers, &text)
            }
        }
    }
}

impl Way {
    /// Sends a request over a connection that was kept, or over a new one.
    async fn exchange(
        &self,
        mut request: Outgoing,
    ) -> Result<(Connection, hyper::Response<Incoming>), Broken> {
        while let Some(mut kept) = self.connections.take(self.number) {
            match kept.send(request).await {
                Ok(answer) => return Ok((kept, answer)),
                Err(mut cause) => match cause.take_message() {
                    // The receiver had closed it.
                    Some(unsent) => request = unsent,
                    None => return Err(cause.into_error().into()),
                },
            }
        }
        let open = self.connections.opening();
        let stream = self.connector.clone().call(self.url.clone()).await?;
        let mut connection = Connection::over(stream, open).await?;
        let answer = connection.send(request).await.map_err(TrySendError::into_error)?;
        Ok((connection, answer))
    }
}

/// The host as the header of that name has it.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
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
