//! An event that a queue gave out.

use std::ptr::NonNull;

use rdkafka::bindings as rd;

use super::{
    Entry, Message, Report, ffi,
    list::{self, RawElement},
    text,
};

/// An owned event.
pub(crate) struct Event(NonNull<rd::rd_kafka_event_t>);

impl Event {
    pub(super) fn own(event: *mut rd::rd_kafka_event_t) -> Option<Event> {
        NonNull::new(event).map(Event)
    }

    /// One of the bindings' `RD_KAFKA_EVENT_*`.
    pub(crate) fn kind(&self) -> i32 {
        // SAFETY: the event is owned and live.
        unsafe { rd::rd_kafka_event_type(self.raw()) }
    }

    /// The event's error code; 0 if it has none.
    pub(crate) fn code(&self) -> i32 {
        // SAFETY: as in `kind`.
        unsafe { ffi::rd_kafka_event_error(self.raw()) }
    }

    /// The sentence that goes with the code.
    pub(crate) fn reason(&self) -> String {
        // SAFETY: as in `kind`; the string belongs to the event and is copied.
        unsafe { text(rd::rd_kafka_event_error_string(self.raw())) }
    }

    /// Whether an error event means that the client can't go on.
    pub(crate) fn is_fatal(&self) -> bool {
        // SAFETY: as in `kind`.
        unsafe { rd::rd_kafka_event_error_is_fatal(self.raw()) != 0 }
    }

    /// The partitions of a rebalance or of a commit's result.
    pub(crate) fn partitions(&self) -> Vec<Entry> {
        // SAFETY: as in `kind`; the list belongs to the event and is copied.
        unsafe { list::entries(rd::rd_kafka_event_topic_partition_list(self.raw())) }
    }

    /// The partition that an error event is about.
    pub(crate) fn partition(&self) -> Option<Entry> {
        // SAFETY: as in `kind`; the element is the caller's, read once and destroyed once.
        unsafe {
            let element = rd::rd_kafka_event_topic_partition(self.raw());
            if element.is_null() {
                return None;
            }
            let entry = (*element.cast::<RawElement>()).copy();
            rd::rd_kafka_topic_partition_destroy(element);
            Some(entry)
        }
    }

    /// Calls `each` with the report of every message of a delivery event.
    pub(crate) fn for_each_report(&self, mut each: impl FnMut(Report<'_>)) {
        if self.kind() != rd::RD_KAFKA_EVENT_DR {
            return;
        }
        loop {
            // SAFETY: the event is owned and live; the call hands out each of its messages once,
            // null at the end.
            let message = unsafe { rd::rd_kafka_event_message_next(self.raw()) };
            let Some(message) = NonNull::new(message.cast_mut()) else {
                return;
            };
            // SAFETY: the message lives as long as the event, which outlives this call of `each`;
            // it is a sent one, handed out for the first time.
            each(unsafe { Report::new(Message::borrow(message)) });
        }
    }

    pub(super) fn raw(&self) -> *mut rd::rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once.
        unsafe { rd::rd_kafka_event_destroy(self.raw()) }
    }
}
