//! A list of partitions with offsets, as librdkafka takes and gives them.

use std::{mem::offset_of, ptr::NonNull, slice};

use aion_schemas::log::Offset;
use rdkafka::bindings as rd;

use super::{Client, cstring, ffi, text};
use crate::{Error, TopicPartition};

/// A partition of a list, copied.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) metadata: String,
    pub(crate) code: i32,
}

/// An owned `rd_kafka_topic_partition_list_t`.
pub(crate) struct PartitionList(NonNull<rd::rd_kafka_topic_partition_list_t>);

impl PartitionList {
    pub(crate) fn with_capacity(capacity: usize) -> PartitionList {
        // SAFETY: any size is accepted; librdkafka aborts the process when memory ends, so the
        // pointer isn't null.
        let list = unsafe { rd::rd_kafka_topic_partition_list_new(capacity as i32) };
        PartitionList(NonNull::new(list).unwrap_or_else(|| out_of_memory()))
    }

    /// A list of subscribed topics.
    pub(crate) fn of_topics(topics: &[&str]) -> Result<PartitionList, Error> {
        let mut list = PartitionList::with_capacity(topics.len());
        for topic in topics {
            list.push_raw(topic, -1)?;
        }
        Ok(list)
    }

    /// A list of partitions without offsets.
    pub(crate) fn of<'a>(
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Result<PartitionList, Error> {
        let mut list = PartitionList::with_capacity(16);
        for partition in partitions {
            list.push_raw(&partition.topic, partition.partition)?;
        }
        Ok(list)
    }

    /// Adds a partition at an offset, with the leader epoch of the record before it (-1: not
    /// known).
    pub(crate) fn push(
        &mut self,
        partition: &TopicPartition,
        offset: i64,
        epoch: i32,
    ) -> Result<(), Error> {
        let element = self.push_raw(&partition.topic, partition.partition)?;
        // SAFETY: `element` was just added to this list and nothing was added since, so it points
        // to a live element.
        unsafe {
            (*element.as_ptr()).offset = offset;
            rd::rd_kafka_topic_partition_set_leader_epoch(element.as_ptr(), epoch);
        }
        Ok(())
    }

    /// Adds a partition at an offset with a metadata string, for a commit.
    pub(crate) fn push_mark(
        &mut self,
        client: &Client,
        partition: &TopicPartition,
        offset: Offset,
        metadata: &str,
    ) -> Result<(), Error> {
        let element = self.push_raw(&partition.topic, partition.partition)?.as_ptr();
        // SAFETY: `element` is live as in `push`. The list frees `metadata` with the allocator that
        // `rd_kafka_mem_malloc` uses, so the bytes are allocated with it; they are `metadata.len()`
        // long.
        unsafe {
            (*element).offset = offset.get();
            if !metadata.is_empty() {
                let bytes = rd::rd_kafka_mem_malloc(client.raw(), metadata.len());
                std::ptr::copy_nonoverlapping(metadata.as_ptr(), bytes.cast(), metadata.len());
                (*element).metadata = bytes;
                (*element).metadata_size = metadata.len();
            }
        }
        Ok(())
    }

    /// Copies the list's elements.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        // SAFETY: the list is owned and live.
        unsafe { entries(self.0.as_ptr()) }
    }

    pub(super) fn raw(&self) -> *mut rd::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    fn push_raw(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Result<NonNull<rd::rd_kafka_topic_partition_t>, Error> {
        let topic = cstring(topic, "topic")?;
        // SAFETY: the list is owned and live; the topic's name is copied by the call.
        let element = unsafe {
            rd::rd_kafka_topic_partition_list_add(self.0.as_ptr(), topic.as_ptr(), partition)
        };
        Ok(NonNull::new(element).unwrap_or_else(|| out_of_memory()))
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.0.as_ptr()) }
    }
}

/// Copies the elements of a list; none for null.
///
/// # Safety
/// `list` is null or live, and isn't changed through the call.
pub(super) unsafe fn entries(list: *const rd::rd_kafka_topic_partition_list_t) -> Vec<Entry> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: a live list has `cnt` initialised elements at `elems` (`cnt` 0 with any pointer is
    // handled apart).
    let elements = unsafe {
        match (*list).cnt {
            0 => &[][..],
            count => slice::from_raw_parts((*list).elems.cast::<RawElement>(), count as usize),
        }
    };
    // SAFETY: each element is live for the call.
    elements.iter().map(|element| unsafe { element.copy() }).collect()
}

/// `rd_kafka_topic_partition_t` with its error code as a plain number (see `ffi`).
#[repr(C)]
pub(super) struct RawElement {
    topic: *mut std::ffi::c_char,
    partition: i32,
    offset: i64,
    metadata: *mut std::ffi::c_void,
    metadata_size: usize,
    opaque: *mut std::ffi::c_void,
    code: i32,
    private: *mut std::ffi::c_void,
}

const _: () = {
    assert!(size_of::<RawElement>() == size_of::<rd::rd_kafka_topic_partition_t>());
    assert!(offset_of!(RawElement, code) == offset_of!(rd::rd_kafka_topic_partition_t, err));
    assert!(offset_of!(RawElement, offset) == offset_of!(rd::rd_kafka_topic_partition_t, offset));
    assert!(
        offset_of!(RawElement, metadata_size)
            == offset_of!(rd::rd_kafka_topic_partition_t, metadata_size)
    );
};

impl RawElement {
    /// Copies the element.
    ///
    /// # Safety
    /// The element is a live one of librdkafka's, so its pointers are null or valid.
    pub(super) unsafe fn copy(&self) -> Entry {
        let metadata = if self.metadata.is_null() || self.metadata_size == 0 {
            String::new()
        } else {
            // SAFETY: not null, and `metadata_size` bytes long.
            let bytes = unsafe { slice::from_raw_parts(self.metadata.cast(), self.metadata_size) };
            String::from_utf8_lossy(bytes).into_owned()
        };
        // SAFETY: an element's topic is a NUL-terminated string.
        let topic = unsafe { text(self.topic) };
        Entry {
            partition: TopicPartition { topic: topic.into(), partition: self.partition },
            offset: self.offset,
            metadata,
            code: self.code,
        }
    }
}

/// The allocator of librdkafka aborts before it returns null; this is for the type checker.
fn out_of_memory() -> ! {
    std::process::abort()
}

impl Entry {
    /// Whether the broker or librdkafka reported an error for this partition.
    pub(crate) fn failed(&self) -> bool {
        self.code != ffi::NO_ERROR
    }
}
