//! Opens connections to vetted addresses only.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tower_service::Service;

use crate::webhooks::address::{Net, is_allowed};

/// How long one address may take while there are others.
const SHARE: Duration = Duration::from_secs(1);

/// Who knows the addresses of names.
#[derive(Clone, Debug)]
pub(super) enum Names {
    /// The system, asked for each connection anew.
    System,
    /// A name server that answers otherwise each time.
    #[cfg(test)]
    Fickle(Arc<std::sync::Mutex<std::collections::VecDeque<Vec<IpAddr>>>>),
}

impl Names {
    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Names::System => Ok(lookup_host((host, port)).await?.collect()),
            #[cfg(test)]
            Names::Fickle(answers) => {
                let next = answers.lock().ok().and_then(|mut answers| answers.pop_front());
                let next = next.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                Ok(next.into_iter().map(|address| SocketAddr::new(address, port)).collect())
            }
        }
    }
}

/// Resolves a name, and dials what may be dialled of its addresses, one after the other.
#[derive(Clone, Debug)]
pub(super) struct VettedConnector {
    pub(super) names: Names,
    pub(super) private: Arc<[Net]>,
    pub(super) timeout: Duration,
}

impl Service<Uri> for VettedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.open(&uri).await.map(TokioIo::new) })
    }
}

impl VettedConnector {
    async fn open(&self, uri: &Uri) -> io::Result<TcpStream> {
        let deadline = Instant::now() + self.timeout;
        let (host, port) = host_and_port(uri)?;
        let found = match literal(host) {
            // A literal doesn't go through the resolver, and is looked at all the same.
            Some(address) => vec![SocketAddr::new(address, port)],
            None => match timeout_at(deadline, self.names.look_up(host, port)).await {
                Err(_) => return Err(late(format!("{host} isn't resolved in time"))),
                Ok(found) => found.map_err(|cause| unresolved(host, &cause))?,
            },
        };
        let allowed: Vec<_> =
            found.iter().filter(|one| is_allowed(one.ip(), &self.private)).copied().collect();
        if allowed.is_empty() {
            let addresses: Vec<_> = found.iter().map(|one| one.ip().to_string()).collect();
            let reason = format!(
                "{host} has no address that may be dialled ({}): allow_private allows those that aren't public",
                addresses.join(", ")
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        let mut last = late(format!("connect to {host}: no time"));
        for (at, address) in allowed.iter().enumerate() {
            let share = if at + 1 == allowed.len() {
                deadline
            } else {
                deadline.min(Instant::now() + SHARE)
            };
            match timeout_at(share, TcpStream::connect(*address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(cause)) => {
                    last = io::Error::new(cause.kind(), format!("connect to {address}: {cause}"));
                }
                Err(_) => last = late(format!("connect to {address}: no answer in time")),
            }
        }
        Err(last)
    }
}

fn host_and_port(uri: &Uri) -> io::Result<(&str, u16)> {
    let host = uri.host().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    Ok((host, port))
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn unresolved(host: &str, cause: &io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("resolve {host}: {cause}"))
}

fn late(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, reason)
}
