//! A schema registry in process: the REST API of Confluent's as clients use it, for Avro.
//!
//! It is to `aion dev` what the broker is: durable, on this machine only, without security. What it
//! doesn't do (JSON Schema and Protobuf, contexts, rule sets, modes) it refuses in words.
//!
//! **Invariant:** what was answered is on disk; a torn tail is cut at the start.
//! **Invariant:** an id is never given twice, also after its schema was deleted for good.

mod api;
mod journal;
mod refusal;
mod schema;
mod state;
mod store;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};

use self::store::Store;
use crate::{Error, broker::cannot_listen};

/// How long requests under way may take to end at a stop.
const STOPPING: Duration = Duration::from_secs(2);

/// A running registry. [`Registry::stop`] ends it.
pub struct Registry {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    serving: JoinHandle<io::Result<()>>,
}

impl Registry {
    /// Opens the data folder, which is made if it isn't there, and listens on a loopback address;
    /// port 0 takes a free one.
    pub async fn start(listen: SocketAddr, data: impl Into<PathBuf>) -> Result<Registry, Error> {
        if !listen.ip().is_loopback() {
            return Err(Error::NotLoopback(listen));
        }
        let bound = TcpListener::bind(listen).await;
        let listener = bound.map_err(|source| cannot_listen(listen, source))?;
        let address = listener.local_addr().map_err(Error::io("listen on", Path::new("socket")))?;
        let data = data.into();
        let opened = spawn_blocking(move || Store::open(&data)).await;
        let store = opened.map_err(|error| {
            Error::io("open", Path::new("the registry's folder"))(io::Error::other(error))
        })??;
        let (stopping, mut stopped) = watch::channel(false);
        let app = api::routes(Arc::new(Mutex::new(store)));
        let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
            // An error means that the registry was dropped, which stops it too.
            let _dropped = stopped.wait_for(|stop| *stop).await.is_err();
        });
        let serving = tokio::spawn(serving.into_future());
        tracing::info!(%address, "embedded schema registry listens");
        Ok(Registry { address, stopping, serving })
    }

    /// Where it listens; its URL is `http://` and this.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets requests under way end, and releases the data folder.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        if tokio::time::timeout(STOPPING, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}
