//! Reads Avro binary value by value.
//!
//! Most values are short, and a copy or a check of a fixed size is a few instructions where one of any
//! size is a call: so fields are read through windows where they can be (`near`), and the end of a body is
//! padded to have one everywhere.
//!
//! **Invariant:** lengths are checked against what is left before anything is read.

use super::{Null, near};
use crate::decode::{
    json,
    reject::{Fault, Reason},
};

/// A place in a body. Small, and copied where reading is handed on: what has an address lives in memory,
/// and what changes with each value should live in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'a> {
    /// What is still to be read; in the tail, and a window after it.
    rest: &'a [u8],
    /// The tail is gone over to once not more than so many bytes are left; 0 when it was.
    tail_bytes: usize,
    tail: &'a Tail,
}

/// The last bytes of a body, with a window after each of them.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: [u8; TAIL + WINDOW],
    /// Length of the body.
    len: usize,
}

/// The longest text that is read through a window: a UUID is 36.
pub(super) const TEXT: usize = 48;
/// Bytes of a window: the branch of a union, a length of one byte, and what may be of that length.
pub(super) const WINDOW: usize = 2 + TEXT;
/// The last bytes of a body. A field that begins before has a window, and another one after what it takes of it.
const TAIL: usize = 2 * WINDOW;

impl Default for Tail {
    fn default() -> Tail {
        Tail { bytes: [0; TAIL + WINDOW], len: 0 }
    }
}

impl<'a> Body<'a> {
    pub(super) fn new(body: &'a [u8], tail: &'a mut Tail) -> Body<'a> {
        tail.len = body.len();
        if let Some(last) = body.last_chunk::<TAIL>() {
            tail.bytes[..TAIL].copy_from_slice(last);
            return Body { rest: body, tail_bytes: TAIL, tail };
        }
        tail.bytes[..body.len()].copy_from_slice(body);
        Body { rest: &tail.bytes[..body.len() + WINDOW], tail_bytes: 0, tail }
    }

    /// Goes over to the tail once only that is left. To be called before each field.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.rest.len() <= self.tail_bytes {
            self.rest = &self.tail.bytes[TAIL - self.rest.len()..];
            self.tail_bytes = 0;
        }
    }

    /// The next window, and the bytes that are left, padding among them.
    #[inline]
    pub(super) fn window(self) -> Option<(&'a [u8; WINDOW], usize)> {
        Some((self.rest.first_chunk()?, self.rest.len()))
    }

    /// Passes over what was read from a window.
    #[inline]
    pub(super) fn pass(&mut self, taken: usize) {
        self.rest = &self.rest[taken..];
    }

    /// The bytes of `rest` that are none of the body's.
    fn padding(self) -> usize {
        if self.tail_bytes == 0 { WINDOW } else { 0 }
    }

    pub(super) fn at(self) -> usize {
        self.tail.len + self.padding() - self.rest.len()
    }

    /// What is still to be read.
    fn left(self) -> &'a [u8] {
        &self.rest[..self.rest.len() - self.padding()]
    }

    pub(super) fn end(self) -> Result<(), Fault> {
        if self.left().is_empty() {
            return Ok(());
        }
        Err(self.malformed("bytes after the end of the event"))
    }

    /// A zigzag varint of at most 64 bits. Like every Avro reader, takes one with needless zero
    /// groups, as long as it stays within ten bytes.
    pub(super) fn long(&mut self) -> Result<i64, Fault> {
        if let Some((window, left)) = self.window()
            && let Some((value, len)) = window.first_chunk().and_then(near::long)
            && left >= len + WINDOW
        {
            self.rest = &self.rest[len..];
            return Ok(value);
        }
        let (value, len) = varint(self.left()).map_err(|what| self.malformed(what))?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    /// Whether null comes next, in what may be a union of it and another type.
    pub(super) fn is_null(&mut self, null: Null) -> Result<bool, Fault> {
        if null == Null::Never {
            return Ok(false);
        }
        match self.long()? {
            0 => Ok(null == Null::First),
            1 => Ok(null == Null::Second),
            _ => Err(self.no_branch()),
        }
    }

    /// Bytes after their own length.
    #[inline]
    pub(super) fn prefixed(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.length()?;
        self.take(len)
    }

    #[inline]
    fn length(&mut self) -> Result<usize, Fault> {
        usize::try_from(self.long()?).map_err(|_| self.malformed("a length below zero"))
    }

    /// So many bytes.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let Some(bytes) = self.left().get(..len) else {
            return Err(self.malformed("a length beyond the end"));
        };
        self.rest = &self.rest[len..];
        Ok(bytes)
    }

    /// The branch of a union that comes next.
    #[inline]
    pub(super) fn branch<'b, T>(&mut self, branches: &'b [T]) -> Result<&'b T, Fault> {
        let branch = usize::try_from(self.long()?).ok().and_then(|branch| branches.get(branch));
        branch.ok_or_else(|| self.no_branch())
    }

    /// The symbol of an enum that comes next.
    pub(super) fn symbol<'b>(&mut self, symbols: &'b [Box<str>]) -> Result<&'b str, Fault> {
        let symbol = usize::try_from(self.long()?).ok().and_then(|symbol| symbols.get(symbol));
        symbol
            .map(|symbol| &**symbol)
            .ok_or_else(|| self.malformed("a symbol that the enum doesn't have"))
    }

    /// How many items the next block has; `None` after the last. A count below zero is followed by the
    /// block's size in bytes.
    pub(super) fn block(&mut self) -> Result<Option<u64>, Fault> {
        let count = self.long()?;
        if count < 0 && self.long()? < 0 {
            return Err(self.malformed("a length below zero"));
        }
        Ok((count != 0).then_some(count.unsigned_abs()))
    }

    pub(super) fn no_branch(self) -> Fault {
        self.malformed("a branch that the union doesn't have")
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], Fault> {
        let text = self.prefixed()?;
        if !text.is_ascii() {
            json::check_utf8(text).map_err(|fault| fault.beyond(self.at() - text.len()))?;
        }
        Ok(text)
    }

    #[inline]
    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let Some(bytes) = self.left().first_chunk::<N>() else {
            return Err(self.malformed("the event is cut short"));
        };
        self.rest = &self.rest[N..];
        Ok(*bytes)
    }

    /// A varint of at most 32 bits.
    pub(super) fn int(&mut self) -> Result<i64, Fault> {
        let value = self.long()?;
        if i32::try_from(value).is_err() {
            return Err(self.malformed("an int of more than 32 bits"));
        }
        Ok(value)
    }

    pub(super) fn float(&mut self) -> Result<f64, Fault> {
        self.single().map(f64::from)
    }

    pub(super) fn single(&mut self) -> Result<f32, Fault> {
        let value = f32::from_le_bytes(self.fixed()?);
        self.finite(f64::from(value))?;
        Ok(value)
    }

    pub(super) fn double(&mut self) -> Result<f64, Fault> {
        let value = f64::from_le_bytes(self.fixed()?);
        self.finite(value)
    }

    #[inline]
    fn finite(self, value: f64) -> Result<f64, Fault> {
        if value.is_finite() {
            return Ok(value);
        }
        // As in JSON, which has neither: what is accepted must not depend on the encoding.
        Err(self.fault(Reason::NumberOutOfRange, "a number that isn't finite"))
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.fixed()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err(self.malformed("a boolean that is neither 0 nor 1")),
        }
    }

    pub(super) fn malformed(self, what: &'static str) -> Fault {
        self.fault(Reason::MalformedAvro, what)
    }

    pub(super) fn fault(self, reason: Reason, what: &'static str) -> Fault {
        Fault::new(reason, self.at(), what)
    }
}

/// The varint that comes first, and how many bytes it takes; or what is wrong with it.
fn varint(left: &[u8]) -> Result<(i64, usize), &'static str> {
    let mut zigzag: u64 = 0;
    for (group, byte) in left.iter().take(10).enumerate() {
        if group == 9 && *byte > 1 {
            return Err("a varint of more than 64 bits");
        }
        zigzag |= u64::from(byte & 0x7f) << (group * 7);
        if *byte < 0x80 {
            return Ok((signed(zigzag), group + 1));
        }
    }
    Err("a varint without an end")
}

pub(super) fn signed(zigzag: u64) -> i64 {
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}

/// The groups of seven bits in the bytes of a word, as one number.
pub(super) fn joined(word: u64) -> u64 {
    let pairs = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
    let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4)
}
