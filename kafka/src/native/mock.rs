//! librdkafka's mock cluster.

use std::{
    ffi::{CStr, c_int},
    ptr::NonNull,
};

use rdkafka::bindings as rd;

use super::{Client, Kind, cstring, ffi};
use crate::{Error, connection::Properties};

/// An owned mock cluster, with the client whose thread serves it.
pub(crate) struct Mock {
    cluster: NonNull<rd::rd_kafka_mock_cluster_t>,
    _client: Client,
}

// SAFETY: the mock's functions hand their work to its own thread (or lock), by its header's
// documentation.
unsafe impl Send for Mock {}
// SAFETY: as above.
unsafe impl Sync for Mock {}

impl Mock {
    pub(crate) fn new(brokers: i32) -> Result<Mock, Error> {
        let client = Client::new(Kind::Producer, &Properties::default(), 0)?;
        // SAFETY: the client is live and outlives the cluster (it drops after).
        let cluster = unsafe { rd::rd_kafka_mock_cluster_new(client.raw(), brokers) };
        let cluster = NonNull::new(cluster)
            .ok_or_else(|| Error::configuration("start a mock cluster", "it didn't start"))?;
        let mock = Mock { cluster, _client: client };
        // SAFETY: the cluster is live.
        unsafe { rd::rd_kafka_mock_group_initial_rebalance_delay_ms(mock.raw(), 0) };
        Ok(mock)
    }

    fn raw(&self) -> *mut rd::rd_kafka_mock_cluster_t {
        self.cluster.as_ptr()
    }

    pub(crate) fn bootstraps(&self) -> String {
        // SAFETY: the cluster is live; its string is NUL-terminated and copied.
        unsafe { CStr::from_ptr(rd::rd_kafka_mock_cluster_bootstraps(self.raw())) }
            .to_string_lossy()
            .into_owned()
    }

    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        let name = cstring(topic, "topic")?;
        // SAFETY: the cluster is live and the name a C string.
        let code = unsafe {
            rd::rd_kafka_mock_topic_create(self.raw(), name.as_ptr(), partitions, 1) as i32
        };
        done(code, format!("create topic {topic} in the mock cluster"))
    }

    pub(crate) fn push_errors(&self, api: i16, codes: &[i32]) {
        // SAFETY: the cluster is live; the codes are copied.
        unsafe {
            ffi::rd_kafka_mock_push_request_errors_array(
                self.raw(),
                api,
                codes.len(),
                codes.as_ptr(),
            );
        }
    }

    pub(crate) fn clear_errors(&self, api: i16) {
        // SAFETY: the cluster is live.
        unsafe { rd::rd_kafka_mock_clear_request_errors(self.raw(), api) }
    }

    pub(crate) fn set_up(&self, up: bool) {
        // SAFETY: the cluster is live; -1 is all brokers.
        unsafe {
            if up {
                rd::rd_kafka_mock_broker_set_up(self.raw(), -1);
            } else {
                rd::rd_kafka_mock_broker_set_down(self.raw(), -1);
            }
        }
    }

    pub(crate) fn set_round_trip(&self, ms: c_int) {
        // SAFETY: the cluster is live; -1 is all brokers.
        unsafe { rd::rd_kafka_mock_broker_set_rtt(self.raw(), -1, ms) };
    }

    pub(crate) fn set_leader(&self, topic: &str, partition: i32, broker: i32) -> Result<(), Error> {
        let name = cstring(topic, "topic")?;
        // SAFETY: the cluster is live and the name a C string.
        let code = unsafe {
            let (cluster, name) = (self.raw(), name.as_ptr());
            rd::rd_kafka_mock_partition_set_leader(cluster, name, partition, broker) as i32
        };
        done(code, format!("move {topic}/{partition} to broker {broker}"))
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once, before its client.
        unsafe { rd::rd_kafka_mock_cluster_destroy(self.raw()) }
    }
}

fn done(code: i32, doing: String) -> Result<(), Error> {
    if code == ffi::NO_ERROR { Ok(()) } else { Err(Error::of(code, doing, "")) }
}
