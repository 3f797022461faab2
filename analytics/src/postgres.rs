//! PostgreSQL's protocol: the same tables for psql, Grafana and every driver.
//!
//! | module | what it is |
//! |---|---|
//! | `access`, `startup`, `scram` | who comes in |
//! | `connection` | TLS, and one message after the other |
//! | `questions` | simple and prepared statements |
//! | `commands` | statements about the session |
//! | `catalog` | the part of `pg_catalog` and `information_schema` that clients ask |
//! | `rows`, `types` | values in text and binary; parameters |
//! | `cancel`, `errors` | stopping a query; SQLSTATE |
//!
//! **Invariant:** an address that other machines reach is served only with users and a certificate.
//! **Invariant:** nothing but what the engine's plans may do can be done here.
//! Deliberately absent: COPY, cursors declared in SQL, LISTEN, anything that writes.

mod access;
mod cancel;
pub(crate) mod catalog;
mod commands;
mod connection;
mod errors;
mod questions;
mod rows;
mod scram;
mod startup;
mod types;

use std::{io, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::{net::TcpListener, sync::Semaphore};

pub use self::access::{Access, Users};
use self::{cancel::Cancels, questions::Questions, startup::Door};
use crate::engine::Engine;

/// Bytes that a statement may have together with its parameters, here and over HTTP: nothing longer is looked at.
pub const STATEMENT_BYTES: usize = 1 << 20;
/// The PostgreSQL whose dialect of the protocol this is: tools choose their questions by it.
pub(crate) const VERSION: &str = "16.6";
/// The same as a number.
pub(crate) const VERSION_NUM: &str = "160006";
/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 100;
/// How long to wait where the system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves an engine until dropped, to whom `access` lets in.
pub fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    access: Arc<Access>,
) -> BoxFuture<'static, io::Result<()>> {
    accept(listener, engine, access).boxed()
}

async fn accept(listener: TcpListener, engine: Arc<Engine>, access: Arc<Access>) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() && !access.is_for_everywhere() {
        let what =
            format!("{address}: other machines are served with users and a certificate only");
        return Err(io::Error::other(what));
    }
    let cancels = Arc::new(Cancels::default());
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return Ok(()) };
        let (socket, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(cause) => {
                tracing::warn!("accept a connection for PostgreSQL: {cause}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let questions = Arc::new(Questions::new(Arc::clone(&engine), Arc::clone(&cancels)));
        let door = Arc::new(Door::new(Arc::clone(&access)));
        let connection = Connection { door, questions, cancels: Arc::clone(&cancels) };
        let tls = access.tls().cloned();
        connections.spawn(async move {
            if let Err(cause) = connection::serve(socket, tls, connection).await {
                tracing::debug!(%from, "a connection of PostgreSQL's protocol ended: {cause}");
            }
            drop(permit);
        });
    }
}

/// One client's connection.
struct Connection {
    door: Arc<Door>,
    questions: Arc<Questions>,
    cancels: Arc<Cancels>,
}
