//! Messages: read in batches from a partition's queue, or built for sending.

use std::{
    ffi::{CStr, c_void},
    marker::PhantomData,
    mem::offset_of,
    ptr,
    ptr::NonNull,
    slice,
};

use aion_schemas::log::{Offset, Timestamp};
use rdkafka::bindings::{
    self as rd, rd_kafka_vtype_t as Kind, rd_kafka_vu_s__bindgen_ty_1 as Part,
};

use super::{Client, Queue, client::outcome, cstring, ffi, text};
use crate::{Error, Headers, Placed, Record, TimeKind};

/// A batch of messages that was taken from a queue; destroyed when dropped.
pub(crate) struct Messages<'b> {
    buffer: &'b mut Vec<*mut rd::rd_kafka_message_t>,
}

impl Queue {
    /// Takes what is queued, up to `max` messages, without waiting. `buffer` is scratch space to
    /// reuse.
    ///
    /// Outdated messages (of before a seek, pause or new assignment) are dropped by librdkafka on
    /// the way.
    pub(crate) fn consume<'b>(&self, max: usize, buffer: &'b mut Buffer) -> Messages<'b> {
        let buffer = &mut buffer.0;
        buffer.clear();
        buffer.reserve(max);
        // SAFETY: the queue is live; the buffer has room for `max` pointers, and the call says how
        // many it wrote (-1 on error, which is none). They are owned from here on.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(self.raw(), 0, buffer.as_mut_ptr(), max);
            buffer.set_len(usize::try_from(count).unwrap_or(0));
        }
        Messages { buffer }
    }
}

/// Scratch space for [`Queue::consume`]; empty between calls.
#[derive(Default)]
pub(crate) struct Buffer(Vec<*mut rd::rd_kafka_message_t>);

// SAFETY: between calls the buffer holds no messages (`Messages` destroys them and clears it), so
// there is nothing in it that belongs to a thread.
unsafe impl Send for Buffer {}

impl Messages<'_> {
    /// The messages, in the partition's order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        self.buffer.iter().filter_map(|message| {
            // SAFETY: owned by `self` and live until it is dropped, which the borrow prevents.
            NonNull::new(*message).map(|message| unsafe { Message::borrow(message) })
        })
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        for message in self.buffer.drain(..) {
            // SAFETY: owned, and destroyed once.
            unsafe { rd::rd_kafka_message_destroy(message) }
        }
    }
}

/// `rd_kafka_message_t` with its error code as a plain number (see `ffi`).
#[repr(C)]
struct RawMessage {
    code: i32,
    topic: *mut rd::rd_kafka_topic_t,
    partition: i32,
    payload: *mut c_void,
    len: usize,
    key: *mut c_void,
    key_len: usize,
    offset: i64,
    private: *mut c_void,
}

const _: () = {
    assert!(size_of::<RawMessage>() == size_of::<rd::rd_kafka_message_t>());
    assert!(offset_of!(RawMessage, len) == offset_of!(rd::rd_kafka_message_t, len));
    assert!(offset_of!(RawMessage, key_len) == offset_of!(rd::rd_kafka_message_t, key_len));
    assert!(offset_of!(RawMessage, offset) == offset_of!(rd::rd_kafka_message_t, offset));
};

/// A message, or an error in a message's place, borrowed from its owner.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    message: NonNull<RawMessage>,
    owner: PhantomData<&'a ()>,
}

impl<'a> Message<'a> {
    /// Borrows a message.
    ///
    /// # Safety
    /// `message` is live for `'a`, and used from one thread.
    pub(super) unsafe fn borrow(message: NonNull<rd::rd_kafka_message_t>) -> Message<'a> {
        Message { message: message.cast(), owner: PhantomData }
    }

    fn fields(self) -> &'a RawMessage {
        // SAFETY: live for 'a, of the same layout (asserted above), and changed by nobody:
        // librdkafka changes only what is behind `private`.
        unsafe { self.message.as_ref() }
    }

    fn raw(self) -> *mut rd::rd_kafka_message_t {
        self.message.as_ptr().cast()
    }

    pub(crate) fn code(self) -> i32 {
        self.fields().code
    }

    pub(crate) fn offset(self) -> Offset {
        Offset(self.fields().offset)
    }

    pub(crate) fn partition(self) -> i32 {
        self.fields().partition
    }

    /// The sentence that goes with an error in a message's place.
    pub(crate) fn reason(self) -> String {
        // SAFETY: the message is live; the string belongs to it and is copied.
        unsafe { text(rd::rd_kafka_message_errstr(self.raw())) }
    }

    /// The topic's name.
    pub(crate) fn topic(self) -> String {
        let topic = self.fields().topic;
        if topic.is_null() {
            return String::new();
        }
        // SAFETY: a message's topic lives as long as the message; its name is copied.
        unsafe { text(rd::rd_kafka_topic_name(topic)) }
    }

    /// The message as a record.
    pub(crate) fn record(self) -> Record<'a> {
        let fields = self.fields();
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is live; `kind` is written with one of the three values that its enum
        // has.
        let (time, epoch) = unsafe {
            (
                rd::rd_kafka_message_timestamp(self.raw(), &raw mut kind),
                rd::rd_kafka_message_leader_epoch(self.raw()),
            )
        };
        let time_kind = match kind {
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => TimeKind::Unknown,
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => TimeKind::Create,
            rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => {
                TimeKind::LogAppend
            }
        };
        Record {
            // SAFETY: payload and key are null or as long as stated, and live as long as the
            // message.
            key: unsafe { bytes(fields.key, fields.key_len) },
            // SAFETY: as above.
            value: unsafe { bytes(fields.payload, fields.len) },
            offset: Offset(fields.offset),
            epoch,
            append_time: if time < 0 { Timestamp(0) } else { Timestamp::from_millis(time) },
            time_kind,
            headers: Headers::of(HeaderSource(self)),
        }
    }
}

/// What becomes of a sent message: called once.
pub(crate) type Done = Box<dyn FnOnce(Result<Placed, Error>) + Send>;

/// The delivery report of a message.
pub(crate) struct Report<'a> {
    pub(crate) message: Message<'a>,
    pub(crate) done: Option<Done>,
}

impl<'a> Report<'a> {
    /// Takes back what `send` gave away with the message.
    ///
    /// # Safety
    /// `message` was sent by [`Client::send`], and this is called once for it.
    pub(super) unsafe fn new(message: Message<'a>) -> Report<'a> {
        let opaque = message.fields().private;
        // SAFETY: `send` made the pointer of such a box and gave it away; by the contract nobody
        // else takes it.
        let done = (!opaque.is_null()).then(|| *unsafe { Box::from_raw(opaque.cast::<Done>()) });
        Report { message, done }
    }
}

/// Borrows bytes; none for null.
///
/// # Safety
/// `bytes` is null or points to `len` bytes that live for `'a`.
unsafe fn bytes<'a>(bytes: *const c_void, len: usize) -> Option<&'a [u8]> {
    if bytes.is_null() {
        return None;
    }
    // SAFETY: not null, and of that length by the contract.
    Some(unsafe { slice::from_raw_parts(bytes.cast(), len) })
}

/// A message whose headers can be read.
#[derive(Clone, Copy)]
pub(crate) struct HeaderSource<'a>(Message<'a>);

impl<'a> HeaderSource<'a> {
    /// The header at `index`; none past the end.
    pub(crate) fn get(self, index: usize) -> Option<(&'a str, Option<&'a [u8]>)> {
        let mut headers = ptr::null_mut();
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the message is live and used from one thread (`Message` isn't `Send`), so the
        // first call may parse the headers into it; they live as long as the message. On success
        // `name` is a NUL-terminated string and `value` null or `size` bytes long.
        unsafe {
            let none = rd::rd_kafka_message_headers(self.0.raw(), &raw mut headers);
            if none as i32 != ffi::NO_ERROR {
                return None;
            }
            let past = rd::rd_kafka_header_get_all(
                headers,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            );
            if past as i32 != ffi::NO_ERROR {
                return None;
            }
            let name = CStr::from_ptr(name).to_bytes();
            Some((valid_part(name), bytes(value, size)))
        }
    }
}

impl std::fmt::Debug for HeaderSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeaderSource")
    }
}

/// The bytes up to the first that isn't UTF-8.
fn valid_part(bytes: &[u8]) -> &str {
    match bytes.utf8_chunks().next() {
        Some(chunk) => chunk.valid(),
        None => "",
    }
}

/// A message to send, borrowed; librdkafka copies it.
pub(crate) struct NewMessage<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [(&'a str, Option<&'a [u8]>)],
    pub(crate) time_ms: Option<i64>,
}

impl Client {
    /// Queues a message without waiting; `done` comes back with its report, or is dropped on error.
    pub(crate) fn send(&self, message: &NewMessage<'_>, done: Done) -> Result<(), (i32, String)> {
        let topic = cstring(message.topic, "topic").map_err(|e| (INVALID, e.to_string()))?;
        let headers = OwnedHeaders::new(message.headers).map_err(|e| (INVALID, e.to_string()))?;
        // A box of a box: librdkafka's pointer is thin.
        let opaque = Box::into_raw(Box::new(done));
        let mut parts = [rd::rd_kafka_vu_t {
            vtype: Kind::RD_KAFKA_VTYPE_MSGFLAGS,
            u: Part { i: rd::RD_KAFKA_MSG_F_COPY },
        }; 8];
        let mut count = 1;
        let mut add = |vtype, u| {
            parts[count] = rd::rd_kafka_vu_t { vtype, u };
            count += 1;
        };
        add(Kind::RD_KAFKA_VTYPE_TOPIC, Part { cstr: topic.as_ptr() });
        add(Kind::RD_KAFKA_VTYPE_OPAQUE, Part { ptr: opaque.cast() });
        add(Kind::RD_KAFKA_VTYPE_KEY, Part { mem: memory(message.key) });
        add(Kind::RD_KAFKA_VTYPE_VALUE, Part { mem: memory(message.value) });
        if let Some(partition) = message.partition {
            add(Kind::RD_KAFKA_VTYPE_PARTITION, Part { i32_: partition });
        }
        if let Some(time) = message.time_ms {
            add(Kind::RD_KAFKA_VTYPE_TIMESTAMP, Part { i64_: time });
        }
        if let Some(headers) = &headers {
            add(Kind::RD_KAFKA_VTYPE_HEADERS, Part { headers: headers.0.as_ptr() });
        }
        // SAFETY: the client is live; `count` parts are initialised, each with the union's field
        // that its type wants; their pointers live through the call, which copies topic, key and
        // value.
        let error = unsafe { rd::rd_kafka_produceva(self.raw(), parts.as_ptr(), count) };
        // SAFETY: `error` is null or owned by the caller.
        let outcome = unsafe { outcome(error) };
        match outcome {
            // The headers are librdkafka's now.
            Ok(()) => std::mem::forget(headers),
            // SAFETY: the message was refused, so the box is still ours alone.
            Err(_) => drop(unsafe { Box::from_raw(opaque) }),
        }
        outcome
    }
}

const INVALID: i32 = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__INVALID_ARG as i32;

fn memory(bytes: Option<&[u8]>) -> rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
    let (ptr, size) = match bytes {
        Some(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
        None => (ptr::null_mut(), 0),
    };
    rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size }
}

struct OwnedHeaders(NonNull<rd::rd_kafka_headers_t>);

impl OwnedHeaders {
    fn new(headers: &[(&str, Option<&[u8]>)]) -> Result<Option<OwnedHeaders>, Error> {
        if headers.is_empty() {
            return Ok(None);
        }
        // SAFETY: any count is accepted.
        let list = unsafe { rd::rd_kafka_headers_new(headers.len()) };
        let Some(list) = NonNull::new(list).map(OwnedHeaders) else {
            return Ok(None);
        };
        for (name, value) in headers {
            let name = cstring(name, "header")?;
            let value = memory(*value);
            // SAFETY: the list is owned and live; name and value live through the call, which
            // copies them.
            unsafe {
                rd::rd_kafka_header_add(
                    list.0.as_ptr(),
                    name.as_ptr(),
                    -1,
                    value.ptr,
                    value.size as isize,
                );
            }
        }
        Ok(Some(list))
    }
}

impl Drop for OwnedHeaders {
    fn drop(&mut self) {
        // SAFETY: owned, and destroyed once (it is forgotten when librdkafka took it over).
        unsafe { rd::rd_kafka_headers_destroy(self.0.as_ptr()) }
    }
}
