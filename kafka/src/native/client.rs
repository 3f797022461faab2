//! A librdkafka instance.

use std::{
    ffi::{c_char, c_int, c_void},
    ptr,
    ptr::NonNull,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::bindings as rd;

use super::{Entry, PartitionList, Queue, cstring, ffi, millis, text};
use crate::{Error, TopicPartition, connection::Properties};

/// What a client is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Consumer,
    Producer,
}

/// An owned librdkafka instance with its threads.
pub(crate) struct Client {
    rk: NonNull<rd::rd_kafka_t>,
    // Boxed: queues call `wake` with its address. Dropped after `rd_kafka_destroy`, which ends the
    // callers.
    waker: Box<Waker>,
}

// SAFETY: an rd_kafka_t may be used from any thread and from several at once, by librdkafka's
// documentation.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

const TEXT: usize = 512;

impl Client {
    /// Creates an instance; connects in the background. `events` are those of `RD_KAFKA_EVENT_*`
    /// that queues give out.
    pub(crate) fn new(kind: Kind, properties: &Properties, events: i32) -> Result<Client, Error> {
        let doing = "set up a Kafka client";
        // SAFETY: no precondition.
        let conf = Conf(unsafe { rd::rd_kafka_conf_new() });
        let mut reason = [0 as c_char; TEXT];
        for (name, value) in &properties.0 {
            let (c_name, c_value) = (cstring(name, "property")?, cstring(value, "property value")?);
            // SAFETY: the configuration is owned and live, the strings NUL-terminated, the buffer
            // as long as stated.
            let set = unsafe {
                let buffer = reason.as_mut_ptr();
                rd::rd_kafka_conf_set(conf.0, c_name.as_ptr(), c_value.as_ptr(), buffer, TEXT)
            };
            if set != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                // SAFETY: on failure the call has written a NUL-terminated reason.
                let reason = unsafe { text(reason.as_ptr()) };
                return Err(Error::configuration(
                    format!("set librdkafka property {name}"),
                    reason,
                ));
            }
        }
        let kind = match kind {
            Kind::Consumer => rd::rd_kafka_type_t::RD_KAFKA_CONSUMER,
            Kind::Producer => rd::rd_kafka_type_t::RD_KAFKA_PRODUCER,
        };
        // SAFETY: the configuration is owned and live; `log` has the callback's signature and needs
        // no state. On success `rd_kafka_new` takes the configuration over, on failure it stays
        // ours.
        let rk = unsafe {
            rd::rd_kafka_conf_set_events(conf.0, events);
            rd::rd_kafka_conf_set_log_cb(conf.0, Some(log));
            rd::rd_kafka_new(kind, conf.0, reason.as_mut_ptr(), TEXT)
        };
        let Some(rk) = NonNull::new(rk) else {
            // SAFETY: on failure the call has written a NUL-terminated reason.
            return Err(Error::configuration(doing, unsafe { text(reason.as_ptr()) }));
        };
        std::mem::forget(conf);
        Ok(Client { rk, waker: Box::default() })
    }

    pub(super) fn raw(&self) -> *mut rd::rd_kafka_t {
        self.rk.as_ptr()
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Routes the client's own events to the consumer's queue and joins the group for these topics.
    pub(crate) fn subscribe(&self, topics: &PartitionList) -> Result<(), i32> {
        // SAFETY: client and list are live.
        let code = unsafe {
            rd::rd_kafka_poll_set_consumer(self.raw());
            ffi::rd_kafka_subscribe(self.raw(), topics.raw())
        };
        if code == ffi::NO_ERROR { Ok(()) } else { Err(code) }
    }

    /// Adds partitions to the assignment; also answers a rebalance that assigns.
    pub(crate) fn assign(&self, partitions: &PartitionList) -> Result<(), (i32, String)> {
        // SAFETY: client and list are live; the error is null or the caller's.
        unsafe { outcome(rd::rd_kafka_incremental_assign(self.raw(), partitions.raw())) }
    }

    /// Takes partitions out of the assignment; also answers a rebalance that revokes.
    pub(crate) fn unassign(&self, partitions: &PartitionList) -> Result<(), (i32, String)> {
        // SAFETY: as in `assign`.
        unsafe { outcome(rd::rd_kafka_incremental_unassign(self.raw(), partitions.raw())) }
    }

    /// Whether the assignment was lost: others may own its partitions already.
    pub(crate) fn assignment_lost(&self) -> bool {
        // SAFETY: the client is live.
        unsafe { rd::rd_kafka_assignment_lost(self.raw()) != 0 }
    }

    /// Moves partitions to the offsets of the list; each one's result stands in the list.
    ///
    /// What was queued before is outdated when the call returns, so it is never seen.
    pub(crate) fn seek(&self, list: &PartitionList, wait: Duration) -> Result<(), (i32, String)> {
        // SAFETY: as in `assign`.
        unsafe {
            let wait = millis(wait).max(1);
            outcome(rd::rd_kafka_seek_partitions(self.raw(), list.raw(), wait))
        }
    }

    /// Keeps partitions from being fetched, also before they are assigned, or lets them go; each
    /// one's result stands in the list.
    pub(crate) fn hold_back(&self, list: &PartitionList, hold: bool) -> Result<(), i32> {
        // SAFETY: client and list are live.
        let code = unsafe {
            if hold {
                ffi::rd_kafka_pause_partitions(self.raw(), list.raw())
            } else {
                ffi::rd_kafka_resume_partitions(self.raw(), list.raw())
            }
        };
        if code == ffi::NO_ERROR { Ok(()) } else { Err(code) }
    }

    /// Asks for the group's committed offsets; each partition's result stands in the list.
    pub(crate) fn committed(&self, list: &PartitionList, wait: Duration) -> Result<(), i32> {
        // SAFETY: client and list are live.
        let code = unsafe { ffi::rd_kafka_committed(self.raw(), list.raw(), millis(wait)) };
        if code == ffi::NO_ERROR { Ok(()) } else { Err(code) }
    }

    /// Sends a commit; the result comes as an event on `to`.
    pub(crate) fn commit(&self, list: &PartitionList, to: &Queue) -> Result<(), i32> {
        // SAFETY: client, list and queue are live; a null callback means "as an event". The list is
        // copied.
        let code = unsafe {
            let (none, opaque) = (ptr::null(), ptr::null_mut());
            ffi::rd_kafka_commit_queue(self.raw(), list.raw(), to.raw(), none, opaque)
        };
        if code == ffi::NO_ERROR { Ok(()) } else { Err(code) }
    }

    /// Asks the partition's leader for its first and its next offset, under the client's isolation
    /// level.
    pub(crate) fn watermarks(
        &self,
        partition: &TopicPartition,
        wait: Duration,
    ) -> Result<(i64, i64), Error> {
        let doing = || format!("ask for the offsets of {partition}");
        let topic = cstring(&partition.topic, "topic")?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client is live, the name a C string, and the two numbers outlive the call.
        let code = unsafe {
            ffi::rd_kafka_query_watermark_offsets(
                self.raw(),
                topic.as_ptr(),
                partition.partition,
                &raw mut low,
                &raw mut high,
                millis(wait),
            )
        };
        if code == ffi::NO_ERROR { Ok((low, high)) } else { Err(Error::of(code, doing(), "")) }
    }

    /// Asks any broker for the cluster's brokers; answers how many there are, and who said so.
    pub(crate) fn brokers(&self, wait: Duration) -> Result<(usize, i32), i32> {
        let mut metadata = ptr::null();
        // SAFETY: the client is live; on success `metadata` is the caller's, read once and
        // destroyed once.
        unsafe {
            let none = ptr::null_mut();
            let code = ffi::rd_kafka_metadata(self.raw(), 0, none, &raw mut metadata, millis(wait));
            if code != ffi::NO_ERROR || metadata.is_null() {
                return Err(code);
            }
            let (count, from) = ((*metadata).broker_cnt, (*metadata).orig_broker_id);
            rd::rd_kafka_metadata_destroy(metadata);
            Ok((count as usize, from))
        }
    }

    /// Asks any broker for the names of all topics that this client may see.
    pub(crate) fn topics(&self, wait: Duration) -> Result<Vec<String>, i32> {
        let mut metadata = ptr::null();
        // SAFETY: the client is live; on success `metadata` is the caller's, read while it lives and
        // destroyed once. It has `topic_cnt` topics, each with a NUL-terminated name.
        unsafe {
            let none = ptr::null_mut();
            let code = ffi::rd_kafka_metadata(self.raw(), 1, none, &raw mut metadata, millis(wait));
            if code != ffi::NO_ERROR || metadata.is_null() {
                return Err(code);
            }
            let count = (*metadata).topic_cnt.max(0) as usize;
            let names = (0..count).map(|at| text((*(*metadata).topics.add(at)).topic)).collect();
            rd::rd_kafka_metadata_destroy(metadata);
            Ok(names)
        }
    }

    /// Starts leaving the group; the last rebalance comes as an event on `to`.
    pub(crate) fn leave(&self, to: &Queue) -> Result<(), (i32, String)> {
        // SAFETY: client and queue are live.
        unsafe { outcome(rd::rd_kafka_consumer_close_queue(self.raw(), to.raw())) }
    }

    /// Whether leaving is done.
    pub(crate) fn has_left(&self) -> bool {
        // SAFETY: the client is live.
        unsafe { rd::rd_kafka_consumer_closed(self.raw()) != 0 }
    }

    /// Sends what is queued without lingering and waits for it; whether all was acknowledged.
    pub(crate) fn flush(&self, wait: Duration) -> bool {
        // SAFETY: the client is live.
        unsafe { ffi::rd_kafka_flush(self.raw(), millis(wait)) == ffi::NO_ERROR }
    }

    /// Gives up every message that isn't acknowledged yet; each gets its report.
    pub(crate) fn purge(&self) {
        let what = rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT;
        // SAFETY: the client is live.
        unsafe { ffi::rd_kafka_purge(self.raw(), what) };
    }

    /// The error that made this instance unusable, if one did.
    pub(crate) fn fatal(&self) -> Option<String> {
        let mut reason = [0 as c_char; TEXT];
        // SAFETY: the client is live and the buffer as long as stated; with an error the call
        // writes a NUL-terminated reason.
        unsafe {
            let code = ffi::rd_kafka_fatal_error(self.raw(), reason.as_mut_ptr(), TEXT);
            (code != ffi::NO_ERROR).then(|| text(reason.as_ptr()))
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once, and no queue, event or message of it is left (they hold an
        // `Arc` of it or borrow from a holder). Leaving the group, which may wait for the
        // application, was done before or is not wanted.
        unsafe {
            rd::rd_kafka_destroy_flags(self.raw(), rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
    }
}

struct Conf(*mut rd::rd_kafka_conf_t);

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once (it is forgotten when `rd_kafka_new` took it over).
        unsafe { rd::rd_kafka_conf_destroy(self.0) }
    }
}

/// Something that a thread waits for; set from librdkafka's threads.
#[derive(Default)]
pub(crate) struct Waker {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Waker {
    fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Forgets earlier wake-ups: call it before looking at what they announce.
    pub(crate) fn clear(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Waits until set since the last `clear`, or for `wait`.
    pub(crate) fn wait(&self, wait: Duration) {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(set, wait, |set| !*set));
    }
}

/// A queue's callback: called on librdkafka's threads with the queue's lock held, so it only sets a
/// flag.
pub(super) unsafe extern "C" fn wake(_: *mut rd::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: `Queue::wake` passes the address of the client's boxed waker, which outlives
    // librdkafka's threads.
    unsafe { &*waker.cast::<Waker>() }.set();
}

/// librdkafka's log lines, by syslog level.
unsafe extern "C" fn log(
    _: *const rd::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: librdkafka passes two NUL-terminated strings that live through the call.
    let (facility, line) = unsafe { (text(facility), text(line)) };
    // One property list serves all kinds of clients, so each is told of properties that are
    // another's: no news.
    if facility == "CONFWARN" && line.contains("will be ignored by this") {
        return;
    }
    // A connection that failed is told as an error event too, with more words.
    let level = if facility == "FAIL" { 7 } else { level };
    match level {
        0..=3 => tracing::error!(target: "librdkafka", %facility, "{line}"),
        4 => tracing::warn!(target: "librdkafka", %facility, "{line}"),
        5..=6 => tracing::info!(target: "librdkafka", %facility, "{line}"),
        _ => tracing::debug!(target: "librdkafka", %facility, "{line}"),
    }
}

/// Turns an error object into a result, and destroys it.
///
/// # Safety
/// `error` is null or owned by the caller, who doesn't use it again.
pub(super) unsafe fn outcome(error: *mut rd::rd_kafka_error_t) -> Result<(), (i32, String)> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: owned and live until destroyed at the end; the string is copied before.
    unsafe {
        let code = ffi::rd_kafka_error_code(error);
        let reason = text(rd::rd_kafka_error_string(error));
        rd::rd_kafka_error_destroy(error);
        Err((code, reason))
    }
}

/// The first failed partition of a list, as an error.
pub(crate) fn first_failure(entries: &[Entry], doing: &str) -> Result<(), Error> {
    match entries.iter().find(|entry| entry.failed()) {
        Some(entry) => Err(Error::of(entry.code, format!("{doing} {}", entry.partition), "")),
        None => Ok(()),
    }
}
