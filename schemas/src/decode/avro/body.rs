//! Reads Avro binary value by value.
//!
//! Most values are short, and a copy or a check of a fixed size is a few instructions where one of any
//! size is a call: so values are read through windows, and a short body is padded to have one everywhere.
//!
//! **Invariant:** lengths are checked against what is left before anything is read.

use crate::decode::{
    columns::Texts,
    json,
    reject::{Fault, Reason},
};

/// A place in a body.
#[derive(Debug)]
pub(super) struct Body<'a> {
    /// The body, and beyond `end` padding.
    bytes: &'a [u8],
    end: usize,
    at: usize,
}

/// Bytes of the smaller and of the larger window.
const NARROW: usize = 32;
const WIDE: usize = 64;
/// Bodies of up to so many bytes are copied to be padded.
const MAX_PADDED: usize = 4096;

impl<'a> Body<'a> {
    pub(super) fn new(body: &'a [u8], padded: &'a mut Vec<u8>) -> Body<'a> {
        let end = body.len();
        if end > MAX_PADDED {
            return Body { bytes: body, end, at: 0 };
        }
        padded.clear();
        padded.extend_from_slice(body);
        padded.extend_from_slice(&[0; WIDE]);
        Body { bytes: padded, end, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.at < self.end {
            return Err(self.malformed("bytes after the end of the event"));
        }
        Ok(())
    }

    /// A zigzag varint of at most 64 bits. Like every Avro reader, takes one with needless zero
    /// groups, as long as it stays within ten bytes.
    #[expect(
        clippy::inline_always,
        reason = "two instructions in each place, a sixth of the decoder as a call"
    )]
    #[inline(always)]
    pub(super) fn long(&mut self) -> Result<i64, Fault> {
        // Branches of unions and most lengths: one byte.
        if let Some(byte @ ..0x80) = self.bytes.get(self.at)
            && self.at < self.end
        {
            self.at += 1;
            return Ok(signed(u64::from(*byte)));
        }
        self.long_of_many()
    }

    #[inline(never)]
    fn long_of_many(&mut self) -> Result<i64, Fault> {
        // Most others fit into eight bytes, which are there unless the event ends.
        if let Some(window) = self.window() {
            let word = u64::from_le_bytes(*window);
            let ends = !word & 0x8080_8080_8080_8080;
            let len = ends.trailing_zeros() as usize / 8 + 1;
            if ends != 0 && len <= self.end - self.at {
                self.at += len;
                return Ok(signed(joined(word & (u64::MAX >> (64 - 8 * len)))));
            }
        }
        let mut zigzag: u64 = 0;
        for (group, byte) in self.bytes[self.at..self.end].iter().take(10).enumerate() {
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
        if len > self.end - self.at {
            return Err(self.malformed("a length beyond the end"));
        }
        let bytes = &self.bytes[self.at..self.at + len];
        self.at += len;
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

    pub(super) fn no_branch(&self) -> Fault {
        self.malformed("a branch that the union doesn't have")
    }

    /// Reads a text into its column.
    #[inline]
    pub(super) fn text_into(&mut self, texts: &mut Texts) -> Result<(), Fault> {
        let start = self.at;
        let len = self.length()?;
        if len <= NARROW && self.short_into::<NARROW>(len, texts)
            || len <= WIDE && self.short_into::<WIDE>(len, texts)
        {
            return Ok(());
        }
        self.at = start;
        texts.push(self.text()?);
        Ok(())
    }

    /// Takes a text of `len` bytes through a window, if there is one and all of it is ASCII.
    #[inline]
    fn short_into<const N: usize>(&mut self, len: usize, texts: &mut Texts) -> bool {
        if len > self.end - self.at {
            return false;
        }
        let Some(window) = self.window::<N>().filter(|window| starts_in_ascii(window, len)) else {
            return false;
        };
        texts.push_from(window, len);
        self.at += len;
        true
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], Fault> {
        let text = self.prefixed()?;
        if !text.is_ascii() {
            json::check_utf8(text).map_err(|fault| fault.beyond(self.at - text.len()))?;
        }
        Ok(text)
    }

    /// The next bytes, be they beyond the end.
    #[inline]
    fn window<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.bytes.get(self.at..)?.first_chunk()
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let Some(bytes) = self.bytes[self.at..self.end].first_chunk::<N>() else {
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

/// Whether the first `len` bytes of `window` are ASCII; `len` isn't above `N`, which is at most `WIDE`.
#[inline]
fn starts_in_ascii<const N: usize>(window: &[u8; N], len: usize) -> bool {
    const HIGH_THEN_NONE: [u8; 2 * WIDE] = {
        let mut mask = [0; 2 * WIDE];
        let mut at = 0;
        while at < WIDE {
            mask[at] = 0x80;
            at += 1;
        }
        mask
    };
    let mask = &HIGH_THEN_NONE[WIDE - len..][..N];
    window.iter().zip(mask).fold(0, |found, (byte, mask)| found | (byte & mask)) == 0
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
