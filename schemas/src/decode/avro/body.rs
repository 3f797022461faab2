//! Reads Avro binary value by value, in place.
//!
//! **Invariant:** lengths are checked against what is left before anything is read.

use crate::decode::{
    json,
    reject::{Fault, Reason},
};

/// A place in a body.
#[derive(Debug)]
pub(super) struct Body<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Body<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Body<'a> {
        Body { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.at < self.bytes.len() {
            return Err(self.malformed("bytes after the end of the event"));
        }
        Ok(())
    }

    /// A zigzag varint of at most 64 bits. Like every Avro reader, takes one with needless zero
    /// groups, as long as it stays within ten bytes.
    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Fault> {
        // Branches of unions and most lengths: one byte.
        if let Some(byte @ ..0x80) = self.bytes.get(self.at) {
            self.at += 1;
            return Ok(signed(u64::from(*byte)));
        }
        self.long_of_many()
    }

    fn long_of_many(&mut self) -> Result<i64, Fault> {
        // Most others fit into eight bytes, which are there unless the event ends.
        if let Some(window) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            let word = u64::from_le_bytes(*window);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let len = ends.trailing_zeros() as usize / 8 + 1;
                self.at += len;
                return Ok(signed(joined(word & (u64::MAX >> (64 - 8 * len)))));
            }
        }
        let mut zigzag: u64 = 0;
        for (group, byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            if group == 9 && *byte > 1 {
                return Err(self.malformed("a varint of more than 64 bits"));
            }
            zigzag |= u64::from(byte & 0x7f) << (group * 7);
            if *byte < 0x80 {
                self.at += group + 1;
                return Ok(signed(zigzag));
            }
        }
        Err(self.malformed("a varint without an end"))
    }

    /// Bytes after their own length.
    #[inline]
    pub(super) fn prefixed(&mut self) -> Result<&'a [u8], Fault> {
        match usize::try_from(self.long()?) {
            Ok(len) => self.take(len),
            Err(_) => Err(self.malformed("a length below zero")),
        }
    }

    /// So many bytes.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.saturating_add(len);
        let Some(bytes) = self.bytes.get(self.at..end) else {
            return Err(self.malformed("a length beyond the end"));
        };
        self.at = end;
        Ok(bytes)
    }

    /// The branch of a union that comes next.
    #[inline]
    pub(super) fn branch<'b, T>(&mut self, branches: &'b [T]) -> Result<&'b T, Fault> {
        let branch = usize::try_from(self.long()?).ok().and_then(|branch| branches.get(branch));
        branch.ok_or_else(|| self.malformed("a branch that the union doesn't have"))
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a [u8], Fault> {
        let text = self.prefixed()?;
        if !text.is_ascii() {
            json::check_utf8(text).map_err(|fault| fault.beyond(self.at - text.len()))?;
        }
        Ok(text)
    }

    /// The bytes from the start of a value that was just read, as far as there are enough.
    pub(super) fn window<const N: usize>(&self, value: &[u8]) -> Option<&'a [u8; N]> {
        self.bytes.get(self.at - value.len()..)?.first_chunk()
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let Some(bytes) = self.bytes[self.at..].first_chunk::<N>() else {
            return Err(self.malformed("the event is cut short"));
        };
        self.at += N;
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
        let value = f32::from_le_bytes(self.fixed()?);
        self.finite(f64::from(value))
    }

    pub(super) fn double(&mut self) -> Result<f64, Fault> {
        let value = f64::from_le_bytes(self.fixed()?);
        self.finite(value)
    }

    fn finite(&self, value: f64) -> Result<f64, Fault> {
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

    pub(super) fn malformed(&self, what: &'static str) -> Fault {
        self.fault(Reason::MalformedAvro, what)
    }

    pub(super) fn fault(&self, reason: Reason, what: &'static str) -> Fault {
        Fault::new(reason, self.at, what)
    }
}

fn signed(zigzag: u64) -> i64 {
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}

/// The groups of seven bits in the bytes of a word, as one number.
fn joined(word: u64) -> u64 {
    let pairs = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
    let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4)
}
