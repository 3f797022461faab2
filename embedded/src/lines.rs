//! Files of checked lines: the checksum of a line's JSON in eight digits, a blank, the JSON.

use std::fmt::Write as _;

use serde::{Serialize, de::DeserializeOwned};

/// The line for `value`, with its end.
pub(crate) fn encode(value: &impl Serialize) -> String {
    // Strings, numbers and ids always encode; an empty line would read as torn.
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut text = String::with_capacity(json.len() + 10);
    let sum = crc32c::crc32c(json.as_bytes());
    let _ok = writeln!(text, "{sum:08x} {json}");
    text
}

/// The value of a line that is whole.
pub(crate) fn decode<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (sum, json) = text.split_once(' ')?;
    let right = u32::from_str_radix(sum, 16).ok()? == crc32c::crc32c(json.as_bytes());
    right.then(|| serde_json::from_str(json).ok()).flatten()
}
