//! A partition that is read without a group.

use std::{ptr, ptr::NonNull, sync::Arc};

use rdkafka::bindings as rd;

use super::{Client, cstring, ffi};
use crate::{Error, TopicPartition};

/// A partition whose records librdkafka fetches into its queue, until this is dropped.
pub(crate) struct Started {
    topic: NonNull<rd::rd_kafka_topic_t>,
    partition: i32,
    _client: Arc<Client>,
}

// SAFETY: librdkafka's topic objects may be used from any thread, and the client lives as long as
// this.
unsafe impl Send for Started {}

impl Started {
    /// Starts fetching a partition at an offset. The client must be a consumer without a group.
    pub(crate) fn at(
        client: &Arc<Client>,
        partition: &TopicPartition,
        offset: i64,
    ) -> Result<Started, Error> {
        let doing = || format!("start reading {partition} at {offset}");
        let name = cstring(&partition.topic, "topic")?;
        // SAFETY: the client is live, the name a C string, and null means the client's own topic
        // settings.
        let topic = unsafe { rd::rd_kafka_topic_new(client.raw(), name.as_ptr(), ptr::null_mut()) };
        let Some(topic) = NonNull::new(topic) else {
            return Err(Error::of(ffi::last_error(), doing(), ""));
        };
        // SAFETY: the topic is owned and live.
        if unsafe { rd::rd_kafka_consume_start(topic.as_ptr(), partition.partition, offset) } != 0 {
            let code = ffi::last_error();
            // SAFETY: owned, and destroyed once.
            unsafe { rd::rd_kafka_topic_destroy(topic.as_ptr()) };
            return Err(Error::of(code, doing(), ""));
        }
        Ok(Started { topic, partition: partition.partition, _client: Arc::clone(client) })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // SAFETY: the topic is owned and live; it was started once and is stopped once, then
        // destroyed once. The client is still alive (fields drop afterwards).
        unsafe {
            rd::rd_kafka_consume_stop(self.topic.as_ptr(), self.partition);
            rd::rd_kafka_topic_destroy(self.topic.as_ptr());
        }
    }
}
