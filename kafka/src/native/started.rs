//! A partition that is read without a group.

use std::{ptr, ptr::NonNull, sync::Arc, time::Duration};

use rdkafka::bindings as rd;

use super::{Client, cstring, ffi, millis};
use crate::{Error, TopicPartition};

const LOOK_UP: Duration = Duration::from_secs(1);

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
        look_up(client, topic);
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

/// Asks for the topic's leaders now: else librdkafka asks at its next turn, up to a second later, as it
/// does when this fails.
fn look_up(client: &Client, topic: NonNull<rd::rd_kafka_topic_t>) {
    let mut metadata = ptr::null();
    // SAFETY: client and topic are live; on success `metadata` is the caller's and destroyed once.
    unsafe {
        let (raw, wait) = (client.raw(), millis(LOOK_UP));
        let code = ffi::rd_kafka_metadata(raw, 0, topic.as_ptr(), &raw mut metadata, wait);
        if code == ffi::NO_ERROR && !metadata.is_null() {
            rd::rd_kafka_metadata_destroy(metadata);
        }
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
