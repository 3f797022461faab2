//! Events as lines: one JSON object each, of bounded length.

use std::io::{self, BufRead};

/// Reads lines; blank ones are passed over.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    number: u64,
    max_bytes: usize,
}

/// A line, with its number from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) text: Text,
}

/// What stands in a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// An event, or what is meant to be one.
    Event(Vec<u8>),
    /// More bytes than an event may have; they are passed over.
    TooLong,
}

impl<R: BufRead> Lines<R> {
    /// Reads lines of up to `max_bytes`.
    pub(crate) fn new(input: R, max_bytes: usize) -> Lines<R> {
        Lines { input, number: 0, max_bytes }
    }

    /// The next line that isn't blank; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let mut text = Vec::new();
            let mut is_too_long = false;
            if !self.read(&mut text, &mut is_too_long)? {
                return Ok(None);
            }
            self.number += 1;
            let number = self.number;
            if is_too_long {
                return Ok(Some(Line { number, text: Text::TooLong }));
            }
            if !text.trim_ascii().is_empty() {
                return Ok(Some(Line { number, text: Text::Event(text) }));
            }
        }
    }

    /// Reads to the end of a line and keeps what is allowed of it; `false` where there is none.
    fn read(&mut self, text: &mut Vec<u8>, is_too_long: &mut bool) -> io::Result<bool> {
        let mut is_line = false;
        loop {
            let bytes = match self.input.fill_buf() {
                Ok([]) => return Ok(is_line),
                Ok(bytes) => bytes,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(cause),
            };
            is_line = true;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if text.len() + part.len() > self.max_bytes {
                *is_too_long = true;
                *text = Vec::new();
            }
            if !*is_too_long {
                text.extend_from_slice(part);
            }
            let taken = end.map_or(bytes.len(), |end| end + 1);
            self.input.consume(taken);
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn lines(text: &str, room: usize) -> Vec<(u64, Option<String>)> {
        let input = io::BufReader::with_capacity(room, text.as_bytes());
        let mut lines = Lines::new(input, 8);
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((
                line.number,
                match line.text {
                    Text::Event(text) => Some(String::from_utf8(text).unwrap()),
                    Text::TooLong => None,
                },
            ));
        }
        all
    }

    #[test]
    fn lines_are_numbered_bounded_and_need_no_end() {
        let some = |text: &str| Some(text.to_owned());
        for room in [1, 3, 1000] {
            let read = lines("a\n\n \r\n12345678\n123456789\n123456789012345\nb", room);
            let wanted =
                [(1, some("a")), (4, some("12345678")), (5, None), (6, None), (7, some("b"))];
            assert_eq!(read, wanted, "{room}");
            assert!(lines("", room).is_empty() && lines("\n\n", room).is_empty());
        }
    }
}
