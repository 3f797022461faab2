//! The functions that carry a broker's numbers (error codes, access rules), declared with `i32` in
//! their place.
//!
//! The numbers are C enums, which librdkafka fills with whatever 16-bit number a broker sends. The
//! bindings declare them as a Rust enum, for which an unknown number is undefined behaviour; an
//! `i32` has the same ABI and no such trap.

use std::ffi::{c_char, c_int, c_void};

use rdkafka::bindings::{
    rd_kafka_AclBinding_t, rd_kafka_ConfigResource_t, rd_kafka_error_t, rd_kafka_event_t,
    rd_kafka_metadata_t, rd_kafka_queue_t, rd_kafka_t, rd_kafka_topic_partition_list_t,
    rd_kafka_topic_result_t, rd_kafka_topic_t,
};

use super::groups::RawList;

pub(crate) const NO_ERROR: i32 = 0;

unsafe extern "C" {
    pub(crate) fn rd_kafka_err2str(err: i32) -> *const c_char;
    pub(crate) fn rd_kafka_err2name(err: i32) -> *const c_char;
    pub(super) fn rd_kafka_error_code(error: *const rd_kafka_error_t) -> i32;
    pub(super) fn rd_kafka_event_error(event: *mut rd_kafka_event_t) -> i32;
    pub(super) fn rd_kafka_fatal_error(rk: *mut rd_kafka_t, text: *mut c_char, size: usize) -> i32;
    pub(super) fn rd_kafka_topic_result_error(result: *const rd_kafka_topic_result_t) -> i32;
    pub(super) fn rd_kafka_ConfigResource_error(resource: *const rd_kafka_ConfigResource_t) -> i32;
    pub(super) fn rd_kafka_AclBinding_new(
        kind: i32,
        name: *const c_char,
        pattern: i32,
        principal: *const c_char,
        host: *const c_char,
        operation: i32,
        permission: i32,
        reason: *mut c_char,
        size: usize,
    ) -> *mut rd_kafka_AclBinding_t;
    pub(super) fn rd_kafka_AclBinding_restype(acl: *const rd_kafka_AclBinding_t) -> i32;
    pub(super) fn rd_kafka_AclBinding_resource_pattern_type(
        acl: *const rd_kafka_AclBinding_t,
    ) -> i32;
    pub(super) fn rd_kafka_AclBinding_operation(acl: *const rd_kafka_AclBinding_t) -> i32;
    pub(super) fn rd_kafka_AclBinding_permission_type(acl: *const rd_kafka_AclBinding_t) -> i32;
    pub(super) fn rd_kafka_subscribe(
        rk: *mut rd_kafka_t,
        topics: *const rd_kafka_topic_partition_list_t,
    ) -> i32;
    pub(super) fn rd_kafka_committed(
        rk: *mut rd_kafka_t,
        partitions: *mut rd_kafka_topic_partition_list_t,
        timeout_ms: c_int,
    ) -> i32;
    pub(super) fn rd_kafka_commit_queue(
        rk: *mut rd_kafka_t,
        offsets: *const rd_kafka_topic_partition_list_t,
        queue: *mut rd_kafka_queue_t,
        callback: *const c_void,
        opaque: *mut c_void,
    ) -> i32;
    pub(super) fn rd_kafka_query_watermark_offsets(
        rk: *mut rd_kafka_t,
        topic: *const c_char,
        partition: i32,
        low: *mut i64,
        high: *mut i64,
        timeout_ms: c_int,
    ) -> i32;
    pub(super) fn rd_kafka_list_groups(
        rk: *mut rd_kafka_t,
        group: *const c_char,
        groups: *mut *const RawList,
        timeout_ms: c_int,
    ) -> i32;
    pub(super) fn rd_kafka_metadata(
        rk: *mut rd_kafka_t,
        all_topics: c_int,
        only: *mut rd_kafka_topic_t,
        metadata: *mut *const rd_kafka_metadata_t,
        timeout_ms: c_int,
    ) -> i32;
    pub(super) fn rd_kafka_pause_partitions(
        rk: *mut rd_kafka_t,
        partitions: *mut rd_kafka_topic_partition_list_t,
    ) -> i32;
    pub(super) fn rd_kafka_resume_partitions(
        rk: *mut rd_kafka_t,
        partitions: *mut rd_kafka_topic_partition_list_t,
    ) -> i32;
    pub(super) fn rd_kafka_flush(rk: *mut rd_kafka_t, timeout_ms: c_int) -> i32;
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn rd_kafka_mock_push_request_errors_array(
        cluster: *mut rdkafka::bindings::rd_kafka_mock_cluster_t,
        api: i16,
        count: usize,
        codes: *const i32,
    );
    pub(super) fn rd_kafka_purge(rk: *mut rd_kafka_t, flags: c_int) -> i32;
    fn rd_kafka_last_error() -> i32;
}

/// Why the last call of this thread failed, of those that tell it this way.
pub(super) fn last_error() -> i32 {
    // SAFETY: no precondition; the number is this thread's own.
    unsafe { rd_kafka_last_error() }
}
