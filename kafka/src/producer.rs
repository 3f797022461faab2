//! The idempotent producer.
//!
//! **Invariant:** a message is either refused by [`Producer::send`], or its closure is called
//! exactly once: with its place in the log, or with the reason why it has none.
//! **Invariant:** `send` never waits; the queue is bounded by librdkafka's `queue.buffering.max.*`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aion_schemas::log::{Offset, Timestamp};
use rdkafka::bindings as rd;

use crate::{
    Connection, Error,
    native::{Client, Event, Kind, NewMessage, Queue, Report},
};

/// A message to send; borrowed, and copied by `send`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition; without it the key's hash decides (murmur2, as Java clients do), or chance
    /// without a key.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// The creation time, stored to the millisecond; without it the clock's.
    pub timestamp: Option<Timestamp>,
}

/// Where an acknowledged message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: i32,
    /// The offset of the message itself.
    pub offset: Offset,
}

/// An idempotent producer (`acks=all`): within one instance, retries neither double nor reorder
/// messages.
///
/// A thread of its own serves the acknowledgements. Dropping it gives up what isn't acknowledged
/// yet; `flush` before.
pub struct Producer {
    client: Arc<Client>,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    count: Mutex<Count>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct Count {
    open: usize,
    /// The first failure since the last flush.
    first: Option<Error>,
    /// The client's last complaint, such as wrong credentials: it explains why nothing is
    /// acknowledged.
    complaint: Option<Error>,
}

impl Producer {
    /// Opens a producer; `name` is its `client.id`. Connects in the background, so brokers may be
    /// down.
    pub fn open(connection: &Connection, name: &str) -> Result<Producer, Error> {
        let events = rd::RD_KAFKA_EVENT_DR | rd::RD_KAFKA_EVENT_ERROR;
        let client = Arc::new(Client::new(Kind::Producer, &connection.producer(name)?, events)?);
        let queue = Arc::new(Queue::main(&client)?);
        let shared = Arc::new(Shared::default());
        let server = {
            let (queue, shared) = (Arc::clone(&queue), Arc::clone(&shared));
            std::thread::Builder::new()
                .name(format!("acks of {name}"))
                .spawn(move || serve(&queue, &shared))
                .map_err(|e| Error::configuration("start a producer's thread", e.to_string()))?
        };
        Ok(Producer { client, queue, shared, server: Some(server) })
    }

    /// Queues a message; `done` is called once it is durable on all in-sync replicas, or given up.
    ///
    /// `done` runs on the producer's own thread and should be short. On an error here it is dropped
    /// uncalled: [`Error::Full`] wants acknowledgements to come in first, other errors are this
    /// message's own.
    pub fn send(
        &self,
        message: &Outgoing<'_>,
        done: impl FnOnce(Result<Placed, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let new = NewMessage {
            topic: message.topic,
            partition: message.partition,
            key: message.key,
            value: message.value,
            headers: message.headers,
            time_ms: message.timestamp.map(|time| time.0.div_euclid(1000)),
        };
        self.shared.count().open += 1;
        self.client.send(&new, Box::new(done)).map_err(|(code, reason)| {
            self.shared.count().open -= 1;
            if code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL as i32 {
                Error::Full { topic: message.topic.to_owned() }
            } else {
                Error::of(code, format!("send to {}", message.topic), reason)
            }
        })
    }

    /// Sends what is queued without lingering and waits up to `wait` for every acknowledgement.
    ///
    /// Fails if some are missing, or if any message failed since the last flush; each message's own
    /// closure tells which.
    pub fn flush(&self, wait: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + wait;
        self.client.flush(wait);
        let mut count = self.shared.count();
        while count.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.changed.wait_timeout(count, left);
            count = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let first = count.first.take();
        if let Some(first) = first {
            return Err(first);
        }
        if count.open == 0 {
            return Ok(());
        }
        let doing = format!("wait for the acknowledgement of {} messages", count.open);
        Err(count.complaint.clone().unwrap_or_else(|| Error::timed_out(doing)))
    }

    /// Messages without an acknowledgement yet.
    pub fn outstanding(&self) -> usize {
        self.shared.count().open
    }

    /// The client's last complaint that no message carries, such as wrong credentials or no broker
    /// in reach.
    pub fn complaint(&self) -> Option<Error> {
        self.shared.count().complaint.clone()
    }

    /// The error that made this instance unusable, if one did: open another.
    pub fn fatal(&self) -> Option<Error> {
        let detail = self.client.fatal()?;
        Some(Error::Fatal { doing: "produce".into(), detail })
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.client.purge();
        self.shared.stop.store(true, Ordering::Release);
        self.queue.interrupt();
        if let Some(server) = self.server.take()
            && server.join().is_err()
        {
            tracing::error!("the producer's thread panicked");
        }
    }
}

impl Shared {
    fn count(&self) -> std::sync::MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves delivery reports until told to stop and nothing is open, with a bound on the latter.
fn serve(queue: &Queue, shared: &Shared) {
    let mut rounds_left = 50;
    loop {
        let stop = shared.stop.load(Ordering::Acquire);
        if stop && (shared.count().open == 0 || rounds_left == 0) {
            return;
        }
        let wait = if stop { Duration::from_millis(100) } else { Duration::from_secs(1) };
        match queue.poll(wait) {
            Some(event) => answer(&event, shared),
            None if stop => rounds_left -= 1,
            None => {}
        }
    }
}

fn answer(event: &Event, shared: &Shared) {
    match event.kind() {
        rd::RD_KAFKA_EVENT_DR => {
            let (mut served, mut first) = (0, None);
            event.for_each_report(|report| {
                served += 1;
                if let Err(error) = tell(report) {
                    first.get_or_insert(error);
                }
            });
            let mut count = shared.count();
            count.open -= served;
            count.first = count.first.take().or(first);
            drop(count);
            shared.changed.notify_all();
        }
        rd::RD_KAFKA_EVENT_ERROR => {
            let error = if event.is_fatal() {
                Error::Fatal { doing: "produce".into(), detail: event.reason() }
            } else {
                Error::of(event.code(), "produce", event.reason())
            };
            tracing::warn!(%error, "the producer's client complains");
            shared.count().complaint = Some(error);
        }
        _ => {}
    }
}

/// Calls the message's closure.
fn tell(report: Report<'_>) -> Result<(), Error> {
    let message = report.message;
    let result = match message.code() {
        0 => Ok(Placed { partition: message.partition(), offset: message.offset() }),
        code => Err(Error::of(code, format!("send to {}", message.topic()), "")),
    };
    let outcome = result.clone().map(|_| ());
    if let Some(done) = report.done
        && catch_unwind(AssertUnwindSafe(|| done(result))).is_err()
    {
        tracing::error!("an acknowledgement's closure panicked");
    }
    outcome
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
