//! PostgreSQL's protocol: the same tables for psql, Grafana and every driver.
//!
//! | module | what it is |
//! |---|---|
//! | `access`, `startup`, `scram` | who comes in |
//! | `connection` | TLS, and one message after the other |
//! | `questions`, `extended` | simple and prepared statements |
//! | `kept` | what they keep by name, within a bound |
//! | `commands` | statements about the session |
//! | `catalog` | the part of `pg_catalog` and `information_schema` that clients ask |
//! | `rows`, `types` | values in text and binary; parameters |
//! | `cancel`, `errors` | stopping a query; SQLSTATE |
//!
//! It stands on `pgwire`, which knows the messages, and not on `datafusion-postgres`, which hands statements to a session
//! of DataFusion: here they go by the engine's checks, turns and bounds, and who comes in is decided before any is read.
//! `docs/decisions/0020-postgresqls-protocol-by-pgwire.md` says more.
//!
//! **Invariant:** an address that other machines reach is served only with users and a certificate.
//! **Invariant:** nothing but what the engine's plans may do can be done here.
//! **Invariant:** a query runs, and its rows are written down, on the engine's threads; here they are only sent.
//! Deliberately absent: COPY, cursors declared in SQL, LISTEN, anything that writes.

mod access;
mod cancel;
pub(crate) mod catalog;
mod commands;
mod connection;
mod errors;
mod extended;
mod kept;
mod questions;
mod rows;
mod scram;
mod startup;
mod types;

use std::{io, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

pub use self::access::{Access, Users};
use self::{cancel::Cancels, kept::Room, questions::Questions, startup::Door};
use crate::{
    engine::Engine,
    unread::{self, UNREAD},
};

/// Bytes that a statement may have together with its parameters, here and over HTTP: nothing longer is looked at.
pub const STATEMENT_BYTES: usize = 1 << 20;
/// The PostgreSQL whose dialect of the protocol this is: tools choose their questions by it.
pub(crate) const VERSION: &str = "16.6";
/// The same as a number.
pub(crate) const VERSION_NUM: &str = "160006";
/// Connections at a time; further ones are refused.
const CONNECTIONS: usize = 100;
/// Connections that are being refused, of which some are requests to cancel; beyond them nothing is said any more.
const REFUSALS: usize = 100;
/// How long to wait where the system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);
/// How long clients may take to hear that the engine has stopped.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves an engine until that stops, or this is dropped, to whom `access` lets in.
pub fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    access: Arc<Access>,
) -> BoxFuture<'static, io::Result<()>> {
    accept(listener, engine, access, UNREAD).boxed()
}

/// Serves clients that may let answers wait for so long.
async fn accept(
    listener: TcpListener,
    engine: Arc<Engine>,
    access: Arc<Access>,
    patience: Duration,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() && !access.is_for_everywhere() {
        let what =
            format!("{address}: other machines are served with users and a certificate only");
        return Err(io::Error::other(what));
    }
    let (cancels, room) = (Arc::new(Cancels::default()), Room::default());
    let served = Arc::new(Semaphore::new(CONNECTIONS));
    let refused = Arc::new(Semaphore::new(REFUSALS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = engine.stopped() => break,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(cause) => {
                tracing::warn!("accept a connection for PostgreSQL: {cause}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let place = Arc::clone(&served).try_acquire_owned();
        let is_full = place.is_err();
        let Ok(place) = place.or_else(|_| Arc::clone(&refused).try_acquire_owned()) else {
            continue;
        };
        let questions = Questions::new(Arc::clone(&engine), Arc::clone(&cancels), room.clone());
        let questions = Arc::new(questions);
        let door = Arc::new(Door::new(Arc::clone(&access), is_full));
        let cancels = Arc::clone(&cancels);
        let connection = Connection { door, questions, cancels, is_full, patience };
        let tls = access.tls().cloned();
        connections.spawn(async move {
            match connection::serve(socket, tls, connection).await {
                Ok(()) => {}
                Err(cause) if unread::is_why(&cause) => {
                    tracing::warn!(%from, "a connection of PostgreSQL's protocol is cut off: {cause}");
                }
                Err(cause) => {
                    tracing::debug!(%from, "a connection of PostgreSQL's protocol ended: {cause}");
                }
            }
            drop(place);
        });
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    timeout(LAST_WORDS, ended).await.ok();
    Ok(())
}

/// One client's connection.
struct Connection {
    door: Arc<Door>,
    questions: Arc<Questions>,
    cancels: Arc<Cancels>,
    /// It is one too many: it may cancel what another asked, or is told so.
    is_full: bool,
    /// How long what it is sent may wait to be taken.
    patience: Duration,
}

#[cfg(test)]
mod tests;
