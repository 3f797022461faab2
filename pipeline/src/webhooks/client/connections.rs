//! Connections to receivers. Each carries one exchange at a time, and is kept for the next one.
//!
//! A connection is moved on by whoever uses it. One that nobody uses costs no task, and what its receiver does
//! meanwhile, closing it included, is noticed by who takes it up: nothing of theirs was sent by then, and it goes
//! over another.
//!
//! **Invariant:** while more than [`MOST`] connections are open, of all endpoints together, none is kept: for each new
//! one the one is closed that nobody has used for longest.
//! **Invariant:** a connection carries another exchange only when the one before has ended in order, and for the same
//! client: what one endpoint may be shown, another isn't.

use std::{
    collections::BTreeMap,
    error::Error,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{BODY_BYTES, HEAD_BYTES};

/// Connections that are open at once, before those that nobody uses are closed. Each takes about 30 KiB.
pub(super) const MOST: usize = 1_024;
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How often it is looked for those.
const SWEEP: Duration = Duration::from_secs(10);

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Driver = http1::Connection<Stream, Full<Bytes>>;
/// What is sent.
pub(super) type Outgoing = Request<Full<Bytes>>;
/// Why there is no answer.
pub(super) type Broken = Box<dyn Error + Send + Sync>;

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// What moves it on; none once it has ended.
    driver: Option<Box<Driver>>,
    _open: Open,
}

impl Connection {
    /// Speaks HTTP over a stream.
    pub(super) async fn over(stream: Stream, open: Open) -> hyper::Result<Connection> {
        let (sender, driver) =
            http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(stream).await?;
        Ok(Connection { sender, driver: Some(Box::new(driver)), _open: open })
    }

    /// Sends a request, up to the head of its answer. The error has the request where nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Outgoing,
    ) -> Result<Response<Incoming>, TrySendError<Outgoing>> {
        let answer = self.sender.try_send_request(request);
        beside(&mut self.driver, answer).await
    }

    /// Reads what is wanted of an answer's body: the bytes as they were sent, never decompressed. Whether the
    /// exchange has ended in order, so that the connection may carry another.
    pub(super) async fn finish(&mut self, mut body: Incoming, read: &mut Vec<u8>) -> bool {
        while let Some(frame) = beside(&mut self.driver, body.frame()).await {
            let Ok(frame) = frame else { return false };
            let Ok(chunk) = frame.into_data() else { continue };
            let room = BODY_BYTES - read.len();
            read.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                return false;
            }
        }
        beside(&mut self.driver, self.sender.ready()).await.is_ok()
    }
}

/// Waits for something that a connection leads to, and moves the connection on meanwhile.
async fn beside<T>(driver: &mut Option<Box<Driver>>, what: impl Future<Output = T>) -> T {
    let mut what = pin!(what);
    poll_fn(|context| {
        let poll = |one: &mut Box<Driver>| Pin::new(&mut **one).poll(context).is_ready();
        if driver.as_mut().is_some_and(poll) {
            // Whoever waits for something of it is told so by that.
            *driver = None;
        }
        what.as_mut().poll(context)
    })
    .await
}

/// Counts a connection for as long as it is open.
#[derive(Debug)]
pub(super) struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of all endpoints that nobody uses.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    open: Arc<AtomicUsize>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By client, and by the order in which they were put here.
    all: BTreeMap<(u64, u64), Connection>,
    /// In that order: whose, and since when.
    order: BTreeMap<u64, (u64, Instant)>,
    last_number: u64,
    is_swept: bool,
}

impl Kept {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn oldest(&mut self) -> Option<Connection> {
        let (number, (client, _)) = self.order.pop_first()?;
        self.all.remove(&(client, number))
    }
}

impl Connections {
    /// For so many connections.
    pub(super) fn new(most: usize) -> Connections {
        Connections { most, open: Arc::default(), kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a client.
    pub(super) fn client(&self) -> u64 {
        self.kept().number()
    }

    /// Counts a connection that is about to be opened, and makes room for it.
    pub(super) fn opening(&self) -> Open {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let too_many = open.saturating_sub(self.most);
        if too_many > 0 {
            let closed: Vec<_> = {
                let mut kept = self.kept();
                std::iter::from_fn(|| kept.oldest()).take(too_many).collect()
            };
            drop(closed);
        }
        Open(Arc::clone(&self.open))
    }

    /// Of those that were kept for a client, the one that was used last.
    pub(super) fn take(&self, client: u64) -> Option<Connection> {
        let mut kept = self.kept();
        let of_client = kept.all.range((client, 0)..=(client, u64::MAX));
        let key = of_client.map(|(key, _)| *key).next_back()?;
        kept.order.remove(&key.1);
        kept.all.remove(&key)
    }

    /// Keeps one for its client, where there is room.
    pub(super) fn put(self: &Arc<Self>, client: u64, connection: Connection) {
        if self.open.load(Ordering::Relaxed) > self.most {
            return;
        }
        let mut kept = self.kept();
        let number = kept.number();
        kept.order.insert(number, (client, Instant::now()));
        kept.all.insert((client, number), connection);
        if !std::mem::replace(&mut kept.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes those that nobody has used for long. Whether there are others.
    fn close_unused(&self) -> bool {
        let now = Instant::now();
        let mut closed = Vec::new();
        let mut kept = self.kept();
        while kept.order.first_key_value().is_some_and(|(_, (_, since))| *since + IDLE <= now) {
            closed.extend(kept.oldest());
        }
        kept.is_swept = !kept.order.is_empty();
        kept.is_swept
    }
}

/// Looks for connections that nobody uses, for as long as there are any.
async fn sweep(connections: Weak<Connections>) {
    loop {
        sleep(SWEEP).await;
        if !connections.upgrade().is_some_and(|connections| connections.close_unused()) {
            return;
        }
    }
}
