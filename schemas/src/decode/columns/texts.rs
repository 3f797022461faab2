//! Values of varying length, one after another.

#![expect(
    clippy::inline_always,
    reason = "what a value costs is a few instructions, a tenth of the Avro decoder each as a call"
)]

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, StringArray},
    buffer::{Buffer, NullBuffer, OffsetBuffer},
};

use super::renew;

/// How much room is made at once for values of a fixed size.
const ROOM: usize = 4096;

/// A column of texts.
///
/// **Invariant:** the values are the first `end` bytes. What lies behind is room, or a value that was begun.
#[derive(Debug)]
pub(in crate::decode) struct Texts {
    bytes: Vec<u8>,
    end: usize,
    /// Where each value ends; an extra 0 comes first.
    ends: Vec<i32>,
}

impl Texts {
    pub(super) fn new() -> Texts {
        Texts { bytes: Vec::new(), end: 0, ends: vec![0] }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    pub(super) fn size(&self) -> usize {
        self.end + self.ends.len() * size_of::<i32>()
    }

    /// Where the next value's bytes go, behind what is there; [`Texts::close`] ends it.
    pub(in crate::decode) fn open(&mut self) -> &mut Vec<u8> {
        self.bytes.truncate(self.end);
        &mut self.bytes
    }

    /// Ends the value that was opened.
    pub(in crate::decode) fn close(&mut self) {
        self.end_at(self.bytes.len());
    }

    /// The decoder's bound on payload bytes keeps this within 31 bits.
    #[inline(always)]
    fn end_at(&mut self, end: usize) {
        self.end = end;
        self.ends.push(end as i32);
    }

    /// Appends a value.
    pub(in crate::decode) fn push(&mut self, value: &[u8]) {
        let end = self.end + value.len();
        if let Some(room) = self.bytes.get_mut(self.end..end) {
            room.copy_from_slice(value);
            self.end_at(end);
        } else {
            self.open().extend_from_slice(value);
            self.close();
        }
    }

    /// Appends a value of no bytes.
    #[inline]
    pub(super) fn push_empty(&mut self) {
        self.end_at(self.end);
    }

    /// Appends the first `len` bytes of `window`: a copy of a fixed size is a few instructions, where one
    /// of any size is a call.
    #[inline(always)]
    pub(in crate::decode) fn push_from<const N: usize>(&mut self, window: &[u8; N], len: usize) {
        if self.bytes.len() < self.end + N {
            self.make_room(N);
        }
        if let Some(room) = self.bytes.get_mut(self.end..self.end + N) {
            room.copy_from_slice(window);
        }
        self.end_at(self.end + len);
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, least: usize) {
        self.bytes.truncate(self.end);
        self.bytes.reserve(least);
        // No more than the vector has anyway: room isn't counted.
        let room = ROOM.max(least).min(self.bytes.capacity() - self.end);
        self.bytes.resize(self.end + room, 0);
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.end = self.ends.last().map_or(0, |end| *end as usize);
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        self.bytes.truncate(self.end);
        self.end = 0;
        let ends = renew(&mut self.ends);
        self.ends.push(0);
        (OffsetBuffer::new(ends.into()), Buffer::from_vec(renew(&mut self.bytes)))
    }

    pub(super) fn finish_text(&mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        let (ends, bytes) = self.take();
        Arc::new(StringArray::new(ends, bytes, nulls))
    }

    pub(super) fn finish_bytes(&mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        let (ends, bytes) = self.take();
        Arc::new(BinaryArray::new(ends, bytes, nulls))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    #[test]
    fn values_stand_one_after_another_whichever_way_they_came() {
        let mut texts = Texts::new();
        let mut expected: Vec<Option<String>> = Vec::new();
        for n in 0..2_000_usize {
            let text = format!("{n}-{}", "x".repeat(n * 7 % 50));
            match n % 5 {
                0 => texts.push(text.as_bytes()),
                1 => {
                    texts.open().extend_from_slice(text.as_bytes());
                    texts.close();
                }
                _ => {
                    let mut window = [b'!'; 56];
                    window[..text.len()].copy_from_slice(text.as_bytes());
                    texts.push_from(&window, text.len());
                }
            }
            expected.push(Some(text));
            if n % 11 == 0 {
                texts.push_empty();
                texts.truncate(n + 1);
            }
            // What was begun, and a whole value, are taken back.
            texts.open().extend_from_slice(b"begun");
            if n % 3 == 0 {
                texts.push_from(b"taken back", 7);
            }
            texts.truncate(n + 1);
        }
        texts.push_empty();
        expected.push(Some(String::new()));
        assert_eq!(texts.len(), expected.len());
        for _ in 0..2 {
            let array = texts.finish_text(None);
            let found: Vec<_> = array.as_string::<i32>().iter().collect();
            assert_eq!(found, expected.iter().map(Option::as_deref).collect::<Vec<_>>());
            // The next batch begins with nothing of this one.
            assert_eq!((texts.len(), texts.end), (0, 0));
            for text in expected.iter().flatten() {
                texts.push(text.as_bytes());
            }
        }
    }
}
