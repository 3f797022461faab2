//! Stopping the query of another connection, as `Ctrl-C` in psql does.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use pgwire::{
    api::{ClientInfo, cancel::CancelHandler},
    messages::cancel::CancelRequest,
};
use tokio::sync::Notify;

/// A connection's number and secret.
type Key = (i32, Bytes);

type Known = HashMap<Key, Arc<Notify>>;

/// The connections whose queries can be stopped.
#[derive(Debug, Default)]
pub(super) struct Cancels(Mutex<Known>);

/// A connection's place among them, given back when it ends.
#[derive(Debug)]
pub(super) struct Place {
    cancels: Arc<Cancels>,
    key: Key,
    /// Told when the running query shall stop.
    pub(super) stop: Arc<Notify>,
}

impl Cancels {
    /// The place of a client's connection, made at its first query.
    pub(super) fn place<C: ClientInfo>(self: &Arc<Self>, client: &C) -> Arc<Place> {
        client.session_extensions().get_or_insert_with(|| {
            let (number, secret) = client.pid_and_secret_key();
            let (key, stop) = ((number, secret.to_bytes()), Arc::new(Notify::new()));
            self.lock().insert(key.clone(), Arc::clone(&stop));
            Place { cancels: Arc::clone(self), key, stop }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cancels.lock().remove(&self.key);
    }
}

#[async_trait]
impl CancelHandler for Cancels {
    async fn on_cancel_request(&self, request: CancelRequest) {
        if let Some(stop) = self.lock().get(&(request.pid, request.secret_key.to_bytes())) {
            // Heard by a query that runs now, and by no later one.
            stop.notify_waiters();
        }
    }
}
