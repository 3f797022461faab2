//! What administration requests are made of and answered with, out of and into C objects.

use std::ffi::c_char;

use rdkafka::bindings as rd;

use crate::{
    Error,
    native::{cstring, ffi, text},
};

pub(super) const TEXT: usize = 512;

/// What a broker answered for one topic.
pub(crate) struct TopicResult {
    pub(crate) topic: String,
    pub(crate) code: i32,
    pub(crate) reason: String,
}

/// A topic to create.
pub(crate) struct NewTopicSpec<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partitions: i32,
    pub(crate) replication: i32,
    pub(crate) configs: &'a [(&'a str, &'a str)],
}

/// A topic as a broker describes it.
pub(crate) struct Description {
    pub(crate) topic: String,
    pub(crate) code: i32,
    pub(crate) reason: String,
    /// The id's two halves; both 0 where the broker gives topics no ids.
    pub(crate) id: (i64, i64),
    pub(crate) partitions: usize,
}

/// A topic's setting: its value, and whether it is the topic's own and not a default.
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    pub(crate) own: bool,
}

pub(super) fn new_topic(spec: &NewTopicSpec<'_>) -> Result<Owned<rd::rd_kafka_NewTopic_t>, Error> {
    let doing = || format!("create topic {}", spec.topic);
    let name = cstring(spec.topic, "topic")?;
    let mut reason = [0 as c_char; TEXT];
    // SAFETY: the name is a C string, copied; the buffer is as long as stated, and written on
    // failure.
    let topic = unsafe {
        let topic = rd::rd_kafka_NewTopic_new(
            name.as_ptr(),
            spec.partitions,
            spec.replication,
            reason.as_mut_ptr(),
            TEXT,
        );
        if topic.is_null() {
            return Err(Error::configuration(doing(), text(reason.as_ptr())));
        }
        Owned::new(topic, rd::rd_kafka_NewTopic_destroy)
    };
    for (name, value) in spec.configs {
        let (name, value) = (cstring(name, "setting")?, cstring(value, "setting's value")?);
        // SAFETY: the topic is live, the strings C strings and copied. It fails only for an empty
        // name, which the broker refuses as well.
        unsafe { rd::rd_kafka_NewTopic_set_config(topic.0, name.as_ptr(), value.as_ptr()) };
    }
    Ok(topic)
}

pub(super) fn topic_resource(topic: &str) -> Result<Owned<rd::rd_kafka_ConfigResource_t>, Error> {
    let name = cstring(topic, "topic")?;
    let kind = rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
    // SAFETY: the name is a C string, copied; for an empty one the call returns null.
    let resource = unsafe { rd::rd_kafka_ConfigResource_new(kind, name.as_ptr()) };
    if resource.is_null() {
        return Err(Error::configuration("name a topic", "the name is empty"));
    }
    // SAFETY: not null, and owned by the wrapper.
    Ok(unsafe { Owned::new(resource, rd::rd_kafka_ConfigResource_destroy) })
}

/// # Safety
/// `topic` is live.
pub(super) unsafe fn description(topic: *const rd::rd_kafka_TopicDescription_t) -> Description {
    // SAFETY: live by the contract; what it points to lives as long and is copied.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let (code, reason) = if error.is_null() {
            (ffi::NO_ERROR, String::new())
        } else {
            (ffi::rd_kafka_error_code(error), text(rd::rd_kafka_error_string(error)))
        };
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        let id = if id.is_null() {
            (0, 0)
        } else {
            (
                rd::rd_kafka_Uuid_most_significant_bits(id),
                rd::rd_kafka_Uuid_least_significant_bits(id),
            )
        };
        let mut partitions = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let topic = text(rd::rd_kafka_TopicDescription_name(topic));
        Description { topic, code, reason, id, partitions }
    }
}

/// # Safety
/// `entry` is live.
pub(super) unsafe fn setting(entry: *const rd::rd_kafka_ConfigEntry_t) -> Setting {
    // SAFETY: live by the contract; the strings live as long and are copied.
    unsafe {
        let value = rd::rd_kafka_ConfigEntry_value(entry);
        Setting {
            name: text(rd::rd_kafka_ConfigEntry_name(entry)),
            value: (!value.is_null()).then(|| text(value)),
            own: rd::rd_kafka_ConfigEntry_is_default(entry) == 0,
        }
    }
}

/// # Safety
/// `results` holds `count` pointers to live results.
pub(super) unsafe fn topic_results(
    results: *mut *const rd::rd_kafka_topic_result_t,
    count: usize,
) -> Vec<TopicResult> {
    // SAFETY: as the contract says; the strings live as long as the result and are copied.
    unsafe { elements(results, count) }
        .map(|result| unsafe {
            TopicResult {
                topic: text(rd::rd_kafka_topic_result_name(result)),
                code: ffi::rd_kafka_topic_result_error(result),
                reason: text(rd::rd_kafka_topic_result_error_string(result)),
            }
        })
        .collect()
}

/// The pointers of a C array.
///
/// # Safety
/// `array` holds `count` pointers, or `count` is 0, for as long as the iterator is used.
pub(super) unsafe fn elements<T>(
    array: *mut *const T,
    count: usize,
) -> impl Iterator<Item = *const T> {
    // SAFETY: as the contract says; an empty array may be null and isn't touched.
    (0..count).map(move |index| unsafe { *array.add(index) })
}

/// A C object with its destructor.
pub(super) struct Owned<T>(pub(super) *mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    /// # Safety
    /// `object` is live and the caller's, and `destroy` is its destructor.
    pub(super) unsafe fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Owned<T> {
        Owned(object, destroy)
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: as `new` was promised; destroyed once.
        unsafe { (self.1)(self.0) }
    }
}
