//! A queue of events or messages.

use std::{ffi::c_void, ptr, ptr::NonNull, sync::Arc, time::Duration};

use rdkafka::bindings as rd;

use super::{Client, Event, client::wake, cstring, millis};
use crate::{Error, TopicPartition};

/// An owned reference to a queue of a client.
pub(crate) struct Queue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues are thread-safe (their own lock), and the client lives as long as the
// queue.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// A new queue, for the answer to one request.
    pub(crate) fn reply(client: &Arc<Client>) -> Result<Queue, Error> {
        // SAFETY: the client is live.
        Queue::own(unsafe { rd::rd_kafka_queue_new(client.raw()) }, client, "a reply")
    }

    /// The queue of a client's own events: delivery reports, errors.
    pub(crate) fn main(client: &Arc<Client>) -> Result<Queue, Error> {
        // SAFETY: the client is live.
        Queue::own(unsafe { rd::rd_kafka_queue_get_main(client.raw()) }, client, "events")
    }

    /// The queue of a consumer's events; also the main queue's, which is forwarded to it.
    pub(crate) fn consumer(client: &Arc<Client>) -> Result<Queue, Error> {
        // SAFETY: the client is live; for one that isn't a consumer the call returns null.
        Queue::own(unsafe { rd::rd_kafka_queue_get_consumer(client.raw()) }, client, "the group")
    }

    /// The queue of one partition's messages, cut off from the consumer's queue.
    ///
    /// librdkafka marks the queue as routed by the application, so starting the partition later
    /// doesn't join it to the consumer's queue again.
    pub(crate) fn partition(
        client: &Arc<Client>,
        partition: &TopicPartition,
    ) -> Result<Queue, Error> {
        let topic = cstring(&partition.topic, "topic")?;
        // SAFETY: the client is live and the name a C string.
        let queue = unsafe {
            rd::rd_kafka_queue_get_partition(client.raw(), topic.as_ptr(), partition.partition)
        };
        let queue = Queue::own(queue, client, &partition.to_string())?;
        // SAFETY: the queue is live; null means "to nowhere".
        unsafe { rd::rd_kafka_queue_forward(queue.queue.as_ptr(), ptr::null_mut()) };
        Ok(queue)
    }

    fn own(
        queue: *mut rd::rd_kafka_queue_t,
        client: &Arc<Client>,
        of: &str,
    ) -> Result<Queue, Error> {
        match NonNull::new(queue) {
            Some(queue) => Ok(Queue { queue, client: Arc::clone(client) }),
            None => Err(Error::configuration(format!("get the queue of {of}"), "there is none")),
        }
    }

    /// Wakes the client's waiter whenever something enters the empty queue.
    pub(crate) fn wake(&self, on: bool) {
        let waker: *const c_void = ptr::from_ref(self.client.waker()).cast();
        // SAFETY: the queue is live. `waker` lives until the client is destroyed, which also ends
        // the threads that call `wake` with it.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(
                self.queue.as_ptr(),
                if on { Some(wake) } else { None },
                waker.cast_mut(),
            );
        }
    }

    /// Takes the next event, waiting up to `wait` for it.
    pub(crate) fn poll(&self, wait: Duration) -> Option<Event> {
        // SAFETY: the queue is live.
        Event::own(unsafe { rd::rd_kafka_queue_poll(self.queue.as_ptr(), millis(wait)) })
    }

    /// Makes a waiting `poll` return.
    pub(crate) fn interrupt(&self) {
        // SAFETY: the queue is live.
        unsafe { rd::rd_kafka_queue_yield(self.queue.as_ptr()) }
    }

    /// Events or messages in the queue, outdated ones included.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the queue is live.
        unsafe { rd::rd_kafka_queue_length(self.queue.as_ptr()) }
    }

    pub(super) fn raw(&self) -> *mut rd::rd_kafka_queue_t {
        self.queue.as_ptr()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: this reference is owned and destroyed once; the client is still alive (fields
        // drop afterwards).
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}
