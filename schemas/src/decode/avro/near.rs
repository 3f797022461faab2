//! Fields as nearly all are: one window of a fixed size has the branch of the union, the length and the text.
//!
//! **Invariant:** `None` has changed nothing: the field is then read in the general way, which says what is wrong.
//! **Invariant:** what is taken has a whole window after it, so all of it is the body's and none of the padding.

#![expect(
    clippy::inline_always,
    reason = "the loop over fields is made of these: each as a call is a tenth of the decoder"
)]

use super::{
    Null, Value, Wire,
    body::{TEXT, WINDOW, joined, signed},
};
use crate::decode::{
    columns::{Column, Values},
    time,
};

impl Value {
    /// Reads a value, or the null in its place, from the first window of `left` bytes; answers how many it took.
    #[inline(always)]
    pub(super) fn read_near(
        self,
        window: &[u8; WINDOW],
        left: usize,
        column: &mut Column,
    ) -> Option<usize> {
        const ZIGZAG_ONE: u8 = 2;
        let fits = |taken: usize| (left >= taken + WINDOW).then_some(taken);
        let mut at = 0;
        if self.null != Null::Never {
            let is_second = window[0] == ZIGZAG_ONE;
            if !is_second && window[0] != 0 {
                return None;
            }
            at = 1;
            if is_second == (self.null == Null::Second) {
                fits(at)?;
                column.push_null(0).ok()?;
                return Some(at);
            }
        }
        match (&mut column.values, self.wire) {
            (Values::Text(texts), Wire::Text) => {
                // A length of one byte, not below zero.
                let len = usize::from(window[at] >> 1);
                let text = window[at + 1..].first_chunk::<TEXT>()?;
                if window[at] & 0x81 != 0 || len > TEXT || !starts_in_ascii(text, len) {
                    return None;
                }
                let taken = fits(at + 1 + len)?;
                texts.push_from(text, len);
                Some(taken)
            }
            (Values::Integer(values), Wire::Long) => {
                let (value, len) = long(window[at..].first_chunk()?)?;
                let taken = fits(at + len)?;
                values.push(value);
                Some(taken)
            }
            (Values::Time(times), Wire::TimeMicros) => {
                let (micros, len) = long(window[at..].first_chunk()?)?;
                let taken = fits(at + len)?;
                times.push(time::within_era(micros).ok()?);
                Some(taken)
            }
            (Values::Number(values), Wire::Double) => {
                let value = f64::from_le_bytes(*window[at..].first_chunk()?);
                let taken = fits(at + size_of::<f64>())?;
                values.push(Some(value).filter(|value| value.is_finite())?);
                Some(taken)
            }
            _ => None,
        }
    }
}

/// A varint of at most eight bytes, and how many it takes.
#[inline(always)]
pub(super) fn long(window: &[u8; 8]) -> Option<(i64, usize)> {
    if window[0] < 0x80 {
        return Some((signed(u64::from(window[0])), 1));
    }
    let word = u64::from_le_bytes(*window);
    let ends = !word & 0x8080_8080_8080_8080;
    if ends == 0 {
        return None;
    }
    let bits = ends.trailing_zeros() + 1;
    Some((signed(joined(word & (u64::MAX >> (64 - bits)))), bits as usize / 8))
}

/// Whether the first `len` bytes of `text` are ASCII; `len` isn't above [`TEXT`].
#[inline(always)]
fn starts_in_ascii(text: &[u8; TEXT], len: usize) -> bool {
    const HIGH_THEN_NONE: [u8; 2 * TEXT] = {
        let mut mask = [0; 2 * TEXT];
        let mut at = 0;
        while at < TEXT {
            mask[at] = 0x80;
            at += 1;
        }
        mask
    };
    let mask = &HIGH_THEN_NONE[TEXT - len..][..TEXT];
    text.iter().zip(mask).fold(0, |found, (byte, mask)| found | (byte & mask)) == 0
}
