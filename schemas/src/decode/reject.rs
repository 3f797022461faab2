//! Why a record can't become a row: a stable code for machines, a sentence for people.

use std::{fmt, sync::Arc};

/// Why a record was rejected. The codes are part of the dead-letter format and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The text isn't JSON as RFC 8259 has it, or something follows the event.
    MalformedJson,
    /// The bytes aren't what their Avro schema says: cut short, overlong, or with bytes left over.
    MalformedAvro,
    /// A required field is missing or null.
    MissingField,
    /// A field holds another type than the contract says.
    WrongType,
    /// A number beyond what its column can hold: 64 bits for integers, finite doubles for numbers.
    NumberOutOfRange,
    /// A time that isn't RFC 3339.
    BadTime,
    /// A time before 1970 or after 2261, or an event time too far from the append time.
    TimeOutOfBounds,
    /// Text that isn't UTF-8.
    InvalidUtf8,
    /// A value nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// A field of the contract, or a name within a free object, that stands there twice.
    DuplicateKey,
    /// The payload is neither framed Avro nor a JSON object.
    UnknownEncoding,
    /// Framed Avro whose schema id isn't known.
    UnknownSchema,
    /// Framed Avro whose schema can't be read as the contract's.
    IncompatibleSchema,
    /// Framed Avro whose schema is registered, and not for this topic.
    ForeignSchema,
    /// A payload larger than [`MAX_RECORD_BYTES`](super::MAX_RECORD_BYTES), or an object of more text
    /// than [`MAX_OBJECT_BYTES`](super::MAX_OBJECT_BYTES).
    TooLarge,
    /// A record in a topic of retries whose headers don't say what it is a retry of.
    NoOrigin,
    /// A place that takes rows refuses this one for what it holds.
    Refused,
    /// The decoder was full and should have been finished: a mistake of the caller, not of the record.
    BatchFull,
}

impl Reason {
    /// Every reason, for metrics and docs.
    pub const ALL: [Reason; 18] = [
        Reason::MalformedJson,
        Reason::MalformedAvro,
        Reason::MissingField,
        Reason::WrongType,
        Reason::NumberOutOfRange,
        Reason::BadTime,
        Reason::TimeOutOfBounds,
        Reason::InvalidUtf8,
        Reason::TooDeep,
        Reason::DuplicateKey,
        Reason::UnknownEncoding,
        Reason::UnknownSchema,
        Reason::IncompatibleSchema,
        Reason::ForeignSchema,
        Reason::TooLarge,
        Reason::NoOrigin,
        Reason::Refused,
        Reason::BatchFull,
    ];

    /// The stable code, in snake case.
    pub const fn code(self) -> &'static str {
        match self {
            Reason::MalformedJson => "malformed_json",
            Reason::MalformedAvro => "malformed_avro",
            Reason::MissingField => "missing_field",
            Reason::WrongType => "wrong_type",
            Reason::NumberOutOfRange => "number_out_of_range",
            Reason::BadTime => "bad_time",
            Reason::TimeOutOfBounds => "time_out_of_bounds",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::TooDeep => "too_deep",
            Reason::DuplicateKey => "duplicate_key",
            Reason::UnknownEncoding => "unknown_encoding",
            Reason::UnknownSchema => "unknown_schema",
            Reason::IncompatibleSchema => "incompatible_schema",
            Reason::ForeignSchema => "foreign_schema",
            Reason::TooLarge => "too_large",
            Reason::NoOrigin => "no_origin",
            Reason::Refused => "refused",
            Reason::BatchFull => "batch_full",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A record that can't become a row, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The reason, for machines.
    pub reason: Reason,
    /// The contract's field it is about, where it is about one.
    pub field: Option<Arc<str>>,
    /// What was wrong and where, for people: at most [`MAX_DETAIL_BYTES`] bytes, and never a value
    /// of the event, so that it may be logged.
    pub detail: String,
}

/// The most bytes that [`Reject::detail`] has.
pub const MAX_DETAIL_BYTES: usize = 300;

impl Reject {
    /// A record whose row a place refuses, with as much as is kept of what it says.
    pub fn refused(cause: &str) -> Reject {
        let mut end = cause.len().min(MAX_DETAIL_BYTES);
        while !cause.is_char_boundary(end) {
            end -= 1;
        }
        Reject { reason: Reason::Refused, field: None, detail: cause[..end].to_owned() }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{}, field {field}: {}", self.reason, self.detail),
            None => write!(f, "{}: {}", self.reason, self.detail),
        }
    }
}

/// A [`Reject`] in the making. Boxed: every value that is read comes as a `Result` with it, and goes by
/// registers when that is small.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault(Box<Flaw>);

/// What a [`Fault`] is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) reason: Reason,
    pub(super) field: Option<u16>,
    /// Where in the payload.
    pub(super) at: u32,
    pub(super) what: &'static str,
}

impl Fault {
    #[cold]
    pub(super) fn new(reason: Reason, at: usize, what: &'static str) -> Fault {
        Fault(Box::new(Flaw { reason, field: None, at: at as u32, what }))
    }

    /// Names the field that was being read.
    pub(super) fn within(mut self, field: usize) -> Fault {
        self.0.field = Some(field as u16);
        self
    }

    /// Moves the place by `base` bytes: the fault was found in a part that starts there.
    pub(super) fn beyond(mut self, base: usize) -> Fault {
        self.0.at = self.0.at.saturating_add(base as u32);
        self
    }
}

impl std::ops::Deref for Fault {
    type Target = Flaw;

    fn deref(&self) -> &Flaw {
        &self.0
    }
}
