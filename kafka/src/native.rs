//! Owned, safe handles over librdkafka's C objects. All of the crate's `unsafe` is in this module's
//! files.
//!
//! **Invariant:** every handle keeps its client alive (`Arc<Client>`), so nothing is used after
//! `rd_kafka_destroy`.
//! **Invariant:** error codes cross the border as `i32`: a broker may send a code that this build
//! doesn't know, which the bindings' enum couldn't hold.

mod allocator;
mod client;
mod event;
pub(crate) mod ffi;
pub(crate) mod groups;
mod list;
mod message;
#[cfg(any(test, feature = "testing"))]
mod mock;
mod priority;
mod queue;
mod request;
mod started;

pub use allocator::bound_arenas;
pub(crate) use client::{Client, Kind, first_failure};
pub(crate) use event::Event;
pub(crate) use list::{Entry, PartitionList};
pub(crate) use message::{Buffer, HeaderSource, Message, NewMessage, Report};
#[cfg(any(test, feature = "testing"))]
pub(crate) use mock::Mock;
pub use priority::give_way;
pub(crate) use queue::Queue;
pub(crate) use request::{AdminRequest, NewTopicSpec, Rule, TopicResult};
pub(crate) use started::Started;

use std::{
    ffi::{CStr, CString, c_char, c_int},
    time::Duration,
};

use crate::Error;

/// A C string, or an error that names what it was for.
fn cstring(text: &str, what: &str) -> Result<CString, Error> {
    CString::new(text)
        .map_err(|_| Error::configuration(format!("name {what} {text:?}"), "it has a NUL byte"))
}

/// Copies a C string; nothing for null.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string that lives through the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and NUL-terminated by the contract above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Milliseconds as librdkafka takes them, rounded up so that a short wait isn't turned into a busy
/// loop.
fn millis(wait: Duration) -> c_int {
    let ms = wait.as_micros().div_ceil(1000);
    c_int::try_from(ms).unwrap_or(c_int::MAX)
}

/// librdkafka's name and sentence for a code, for example `Broker: Not leader for partition
/// (NOT_LEADER_FOR_PARTITION)`.
pub(crate) fn describe(code: i32) -> String {
    // SAFETY: both functions accept any code and return static, NUL-terminated strings (for an
    // unknown code one from a static ring of buffers, which is copied at once).
    let (text, name) = unsafe {
        (
            CStr::from_ptr(ffi::rd_kafka_err2str(code)).to_string_lossy().into_owned(),
            CStr::from_ptr(ffi::rd_kafka_err2name(code)).to_string_lossy().into_owned(),
        )
    };
    format!("{text} ({name})")
}
