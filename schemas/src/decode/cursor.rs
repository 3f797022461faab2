//! Reads JSON text (RFC 8259) token by token, in place.
//!
//! **Invariant:** the text was checked to be UTF-8 before; a cursor stops between characters only.
//! **Invariant:** nothing recurses deeper than [`MAX_DEPTH`], whatever the text.

use super::{
    MAX_DEPTH,
    number::Number,
    reject::{Fault, Reason},
};

/// A place in a JSON text.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

/// What stood between the quotes of a string.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted<'a> {
    raw: &'a [u8],
    has_escapes: bool,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Takes `expected` if it comes next.
    pub(super) fn eat(&mut self, expected: &[u8]) -> bool {
        let comes = self.text[self.at..].starts_with(expected);
        if comes {
            self.at += expected.len();
        }
        comes
    }

    /// Takes one byte of structure, or says what was wanted.
    pub(super) fn expect(&mut self, byte: u8, wanted: &'static str) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(self.malformed(wanted));
        }
        self.at += 1;
        Ok(())
    }

    /// Passes over white space.
    pub(super) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Passes over the colon between a name and its value, and the white space around it.
    pub(super) fn colon(&mut self) -> Result<(), Fault> {
        self.space();
        self.expect(b':', "wanted a colon")?;
        self.space();
        Ok(())
    }

    /// After a member or element: whether another one follows, or `close` came.
    pub(super) fn another(&mut self, close: u8) -> Result<bool, Fault> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.malformed("wanted a comma or the end of the list")),
        }
    }

    /// After the opening bracket: whether there is a first member or element.
    pub(super) fn first(&mut self, close: u8) -> bool {
        self.space();
        !self.eat(&[close])
    }

    /// Passes over white space, after which the text must end.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.malformed("text after the end of the value")),
        }
    }

    /// Reads a string.
    pub(super) fn string(&mut self) -> Result<Quoted<'a>, Fault> {
        self.expect(b'"', "wanted a string")?;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            self.at += plain_len(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    // The escaped byte may be a quote; what it is gets checked when it is unescaped.
                    self.at = (self.at + 2).min(self.text.len());
                }
                Some(_) => return Err(self.malformed("a control character within a string")),
                None => return Err(self.malformed("a string without an end")),
            }
        }
        let raw = &self.text[start..self.at];
        self.at += 1;
        Ok(Quoted { raw, has_escapes, at: start })
    }

    /// Reads a number.
    pub(super) fn number(&mut self) -> Result<Number<'a>, Fault> {
        let number = Number::starting(&self.text[self.at..])
            .ok_or_else(|| self.malformed("a number that JSON doesn't have"))?;
        self.at += number.text.len();
        Ok(number)
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        if self.eat(b"true") {
            Ok(true)
        } else if self.eat(b"false") {
            Ok(false)
        } else {
            Err(self.malformed("wanted true or false"))
        }
    }

    /// Reads `null`.
    pub(super) fn null(&mut self) -> Result<(), Fault> {
        if self.eat(b"null") { Ok(()) } else { Err(self.malformed("wanted null")) }
    }

    /// Passes over a value of any type that stands `depth` levels deep, checking it like one that
    /// is kept. `scratch` is room for unescaping.
    pub(super) fn skip(&mut self, depth: usize, scratch: &mut Vec<u8>) -> Result<(), Fault> {
        match self.peek() {
            Some(b'{') => self.skip_list(b'}', depth, scratch),
            Some(b'[') => self.skip_list(b']', depth, scratch),
            Some(b'"') => self.string()?.check(scratch),
            Some(b't' | b'f') => self.boolean().map(|_| ()),
            Some(b'n') => self.null(),
            _ => self.number().map(|_| ()),
        }
    }

    fn skip_list(&mut self, close: u8, depth: usize, scratch: &mut Vec<u8>) -> Result<(), Fault> {
        self.enter(depth)?;
        let mut more = self.first(close);
        while more {
            if close == b'}' {
                self.string()?.check(scratch)?;
                self.colon()?;
            }
            self.skip(depth + 1, scratch)?;
            more = self.another(close)?;
        }
        Ok(())
    }

    /// Takes an opening bracket, unless that goes too deep.
    pub(super) fn enter(&mut self, depth: usize) -> Result<(), Fault> {
        if depth >= MAX_DEPTH {
            return Err(self.fault(Reason::TooDeep, "nested too deep"));
        }
        self.at += 1;
        Ok(())
    }

    /// A value of another type stands here than the one that was wanted, or none at all.
    pub(super) fn mismatch(&self, wanted: &'static str) -> Fault {
        match self.peek() {
            Some(b'"' | b'{' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => {
                self.fault(Reason::WrongType, wanted)
            }
            _ => self.malformed("wanted a value"),
        }
    }

    pub(super) fn malformed(&self, what: &'static str) -> Fault {
        self.fault(Reason::MalformedJson, what)
    }

    fn fault(&self, reason: Reason, what: &'static str) -> Fault {
        Fault::new(reason, self.at, what)
    }
}

impl<'a> Quoted<'a> {
    /// Where in the text it begins, after the quote.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The characters that it stands for; `scratch` holds them if they aren't there as they are.
    pub(super) fn text<'b>(&self, scratch: &'b mut Vec<u8>) -> Result<&'b [u8], Fault>
    where
        'a: 'b,
    {
        if !self.has_escapes {
            return Ok(self.raw);
        }
        scratch.clear();
        self.unescape(scratch)?;
        Ok(scratch)
    }

    /// Appends the characters that it stands for.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.has_escapes {
            return self.unescape(out);
        }
        out.extend_from_slice(self.raw);
        Ok(())
    }

    fn check(&self, scratch: &mut Vec<u8>) -> Result<(), Fault> {
        self.text(scratch).map(|_| ())
    }

    fn unescape(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut rest = self.raw;
        while let Some(plain) = rest.iter().position(|b| *b == b'\\') {
            out.extend_from_slice(&rest[..plain]);
            let at = self.at + (self.raw.len() - rest.len()) + plain;
            let escape = &rest[plain + 1..];
            let taken = unescape_one(escape, out).ok_or(Fault::new(
                Reason::MalformedJson,
                at,
                "an escape that JSON doesn't have",
            ))?;
            rest = &escape[taken..];
        }
        out.extend_from_slice(rest);
        Ok(())
    }
}

/// Appends the character that an escape stands for; the bytes it took after the backslash.
fn unescape_one(escape: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let byte = match escape.first()? {
        byte @ (b'"' | b'\\' | b'/') => *byte,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unescape_unicode(escape, out),
        _ => return None,
    };
    out.push(byte);
    Some(1)
}

/// `u` and four hex digits, twice if the first is half of a surrogate pair. A half alone stands for
/// no character, so it can't become UTF-8.
fn unescape_unicode(escape: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let first = hex4(escape.get(1..5)?)?;
    let (code, taken) = match first {
        0xd800..0xdc00 => {
            let pair = escape.get(5..11)?.strip_prefix(b"\\u")?;
            let second = hex4(pair).filter(|half| (0xdc00..0xe000).contains(half))?;
            (0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00), 11)
        }
        _ => (first, 5),
    };
    let character = char::from_u32(code)?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(taken)
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
}

/// How many bytes come before the first quote, backslash or control character.
fn plain_len(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let special = tail.iter().position(|b| matches!(b, b'"' | b'\\' | ..0x20));
    words.len() * 8 + special.unwrap_or(tail.len())
}

/// Sets the high bit of bytes that end a plain stretch. The lowest bit set is right; a borrow can
/// set bits above it.
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let is_control = word.wrapping_sub(ONES * 0x20) & !word;
    (is_quote | is_backslash | is_control) & HIGH
}
