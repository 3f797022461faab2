//! The text of a JSON number, and the 64-bit values that it stands for.

/// A number as it was written, checked against the grammar of RFC 8259.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    /// Its text: ASCII.
    pub(super) text: &'a [u8],
    /// Whether it has neither a fraction nor an exponent.
    pub(super) is_plain: bool,
}

/// Why a number isn't the one that was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberFlaw {
    /// It has a fraction where a whole number is wanted.
    Fraction,
    /// It is beyond 64 bits.
    Range,
}

impl<'a> Number<'a> {
    /// Reads the number that `text` starts with; `None` if it starts with none. What follows it is
    /// the caller's.
    pub(super) fn starting(text: &'a [u8]) -> Option<Number<'a>> {
        let mut at = usize::from(text.first() == Some(&b'-'));
        let whole = digits(&text[at..]);
        if whole == 0 || (whole > 1 && text[at] == b'0') {
            return None;
        }
        at += whole;
        let plain = at;
        if text.get(at) == Some(&b'.') {
            let fraction = digits(&text[at + 1..]);
            if fraction == 0 {
                return None;
            }
            at += 1 + fraction;
        }
        if let Some(b'e' | b'E') = text.get(at) {
            at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(&text[at..]);
            if exponent == 0 {
                return None;
            }
            at += exponent;
        }
        Some(Number { text: &text[..at], is_plain: at == plain })
    }

    /// The value as a whole number, exactly: `5.0` and `50e-1` are 5.
    pub(super) fn integer(self) -> Result<i64, NumberFlaw> {
        let (negative, digits) = self.sign();
        if self.is_plain {
            return exact(negative, digits.iter().copied());
        }
        let (mantissa, exponent) = match digits.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(e) => (&digits[..e], signed(&digits[e + 1..])),
            None => (digits, 0),
        };
        let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
        let places = (mantissa.len() - point).saturating_sub(1) as i64;
        let mantissa = || mantissa.iter().copied().filter(|b| *b != b'.');
        let Some(zeros) = mantissa().rev().position(|b| b != b'0') else {
            return Ok(0);
        };
        let significant = mantissa().count() - zeros;
        // The value is the significant digits, times ten to this power.
        let power = exponent.saturating_sub(places).saturating_add(zeros as i64);
        match power {
            ..0 => Err(NumberFlaw::Fraction),
            0..=19 => {
                let padding = std::iter::repeat_n(b'0', power as usize);
                exact(negative, mantissa().take(significant).chain(padding))
            }
            _ => Err(NumberFlaw::Range),
        }
    }

    /// The nearest double; never an infinity.
    pub(super) fn double(self) -> Result<f64, NumberFlaw> {
        // Invariant of `starting`: ASCII, and a grammar narrower than that of `f64`.
        let value = std::str::from_utf8(self.text).ok().and_then(|text| text.parse::<f64>().ok());
        value.filter(|value| value.is_finite()).ok_or(NumberFlaw::Range)
    }

    fn sign(self) -> (bool, &'a [u8]) {
        match self.text.split_first() {
            Some((b'-', digits)) => (true, digits),
            _ => (false, self.text),
        }
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// An exponent with its sign, held at a size that no message's digits can make up for.
fn signed(text: &[u8]) -> i64 {
    const FAR: i64 = 1 << 40;
    let (negative, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        Some((b'+', digits)) => (false, digits),
        _ => (false, text),
    };
    let size = digits.iter().fold(0, |size: i64, b| (size * 10 + i64::from(b - b'0')).min(FAR));
    if negative { -size } else { size }
}

fn exact(negative: bool, digits: impl Iterator<Item = u8>) -> Result<i64, NumberFlaw> {
    let mut value: i64 = 0;
    for digit in digits {
        // Below zero, because the least integer has no positive counterpart.
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_sub(i64::from(digit - b'0')))
            .ok_or(NumberFlaw::Range)?;
    }
    if negative { Ok(value) } else { value.checked_neg().ok_or(NumberFlaw::Range) }
}

#[cfg(test)]
mod tests;
