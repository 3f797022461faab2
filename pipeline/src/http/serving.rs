//! Serves connections, each bounded in what it may hold up.
//!
//! | a client that | gets |
//! |---|---|
//! | is slow with the head of a request, or asks nothing for so long | its connection closed after [`HEAD`] |
//! | is slow with the body | 408, said by what reads it |
//! | sends a head that is longer than [`HEAD_BYTES`], or 100 headers | 431 |
//! | takes nothing of an answer for so long | its connection closed after [`UNREAD`], which ends what the answer is made by |
//! | vanishes without a word | its connection closed when the system has asked for it, or sent to it, in vain ([`alive`](aion_analytics::alive)) |
//! | is one too many | to wait until another is gone |
//! | is still answered so long after the stop | its connection closed after [`REST`] |
//!
//! **Invariant:** a request knows the address of its peer ([`Peer`]).

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use aion_analytics::unread::{UNREAD, Unread};
use axum::{Router, extract::Request, serve::Listener};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(30);
/// The longest head.
const HEAD_BYTES: usize = 64 << 10;
/// How long answers that are under way may take once nothing more is taken in.
const REST: Duration = Duration::from_secs(5);
/// So many connections at a time.
const MOST: usize = 8_192;

/// Who sends a request, as the connection has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves until `shutdown`, and then to the end of what is under way, but not for long.
pub(super) async fn serve<L>(
    listener: L,
    app: Router,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    L: Listener<Addr = SocketAddr>,
{
    serve_and_wait(listener, app, shutdown, REST).await
}

async fn serve_and_wait<L>(
    mut listener: L,
    app: Router,
    shutdown: CancellationToken,
    rest: Duration,
) -> io::Result<()>
where
    L: Listener<Addr = SocketAddr>,
{
    let cut = CancellationToken::new();
    let _cuts_off = cut.clone().drop_guard();
    let permits = Arc::new(Semaphore::new(MOST));
    let next = async |listener: &mut L| {
        let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
        let (io, peer) = listener.accept().await;
        io::Result::Ok((io, peer, permit))
    };
    while let Some(accepted) = shutdown.run_until_cancelled(next(&mut listener)).await {
        let (io, peer, permit) = accepted?;
        let (app, shutdown, cut) = (app.clone(), shutdown.clone(), cut.clone());
        tokio::spawn(async move {
            let served = connection(Unread::new(io, UNREAD), peer, app, shutdown);
            if cut.run_until_cancelled(served).await.is_none() {
                tracing::warn!(%peer, "an answer took too long for a stop: its connection is cut off");
            }
            drop(permit);
        });
    }
    drop(listener);
    // All of them are there once every connection is gone.
    let all = timeout(rest, permits.acquire_many(MOST as u32)).await;
    all.map_or(Ok(()), |all| all.map(drop).map_err(io::Error::other))
}

async fn connection<I>(io: I, peer: SocketAddr, app: Router, shutdown: CancellationToken)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        app.clone().call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%peer, "a connection broke: {cause}");
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use axum::{
        body::{Body, Bytes},
        routing::get,
    };
    use futures::stream;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        net::{TcpListener, TcpStream},
        time::sleep,
    };

    use super::*;

    #[tokio::test]
    async fn an_answer_that_nobody_takes_ends_with_its_connection() {
        let rows = || stream::repeat_with(|| io::Result::Ok(Bytes::from_static(b"a row\n")));
        let app = Router::new().route("/", get(move || async move { Body::from_stream(rows()) }));
        let (ours, mut theirs) = duplex(1 << 10);
        theirs.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let io = Unread::new(ours, Duration::from_millis(50));
        let served = connection(io, peer, app, CancellationToken::new());
        timeout(Duration::from_secs(20), served).await.unwrap();
    }

    /// What a client gets that has asked when a stop begins, for an answer that takes so long, where so long is waited.
    async fn at_a_stop(takes: Duration, rest: Duration) -> String {
        let (asked, begins) = (CancellationToken::new(), CancellationToken::new());
        let told = asked.clone();
        let slowly = move || async move {
            told.cancel();
            sleep(takes).await;
            "the answer"
        };
        let app = Router::new().route("/", get(slowly));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let served = tokio::spawn(serve_and_wait(listener, app, begins.clone(), rest));
        client.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
        asked.cancelled().await;
        begins.cancel();
        timeout(Duration::from_secs(20), served).await.unwrap().unwrap().unwrap();
        let mut got = Vec::new();
        // How the system says that it was cut off is its own matter.
        drop(timeout(Duration::from_secs(20), client.read_to_end(&mut got)).await.unwrap());
        String::from_utf8(got).unwrap()
    }

    #[tokio::test]
    async fn a_stop_waits_for_an_answer_and_not_for_long() {
        let (short, never) = (Duration::from_millis(200), Duration::from_hours(1));
        let got = at_a_stop(short, never).await;
        assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("the answer"), "{got}");
        assert_eq!(at_a_stop(never, short).await, "");
    }
}
