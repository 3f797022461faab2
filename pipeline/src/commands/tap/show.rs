//! Records as people and programs see them.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use aion_kafka::TimeKind;
use serde::Serialize;
use serde_json::value::RawValue;

use super::decode::{Body, Tapped};
use crate::{event_text::text_of, job::times::rfc3339};

/// A record, ready to be written.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    partition: i32,
    offset: i64,
    /// RFC 3339; by the broker's clock, unless `time_of` says otherwise.
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_of: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(&'a str, Option<String>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    /// Why it is no event.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// The value, where it is no event: text, or `\x` and hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

impl<'a> Shown<'a> {
    /// Prepares a record.
    pub(super) fn new(tapped: &'a Tapped<'a>) -> Shown<'a> {
        let event = match &tapped.body {
            Body::Json(text) => serde_json::from_str(text).ok(),
            _ => None,
        };
        let (reason, field, detail) = match &tapped.body {
            Body::Rejected(reject) => {
                (Some(reject.reason.code()), reject.field.as_deref(), Some(reject.detail.as_str()))
            }
            Body::Unreadable(why) => (Some("unreadable"), None, Some(why.as_str())),
            _ => (None, None, None),
        };
        let version = tapped.schema.as_ref().and_then(|schema| schema.version.as_ref());
        let header = |(name, value): (&'a str, Option<&[u8]>)| (name, value.map(text_of));
        Shown {
            partition: tapped.partition,
            offset: tapped.offset,
            time: rfc3339(tapped.time),
            time_of: match tapped.time_kind {
                TimeKind::LogAppend => None,
                TimeKind::Create => Some("producer"),
                TimeKind::Unknown => Some("nobody"),
            },
            key: tapped.key.map(text_of),
            encoding: encoding(tapped),
            schema_id: tapped.schema.as_ref().map(|schema| schema.id.0),
            subject: version.map(|(subject, _)| subject.as_str()),
            version: version.map(|(_, version)| *version),
            headers: tapped.headers.iter().map(header).collect(),
            value: if event.is_some() { None } else { tapped.value.map(text_of) },
            event,
            reason,
            field,
            detail,
        }
    }

    /// Writes one JSON object on a line.
    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }

    /// Writes a line for people: place, time, how it is written, and what it says.
    pub(super) fn write_text(&self, out: &mut impl Write, color: bool) -> io::Result<()> {
        let (dim, red, plain) =
            if color { ("\x1b[2m", "\x1b[31m", "\x1b[0m") } else { ("", "", "") };
        let mut how = self.encoding.to_owned();
        if let Some(id) = self.schema_id {
            // Writing to a string doesn't fail.
            let _ok = write!(how, " id {id}");
        }
        if let Some(version) = self.version {
            let _ok = write!(how, " v{version}");
        }
        let (partition, offset, time) = (self.partition, self.offset, &self.time);
        write!(out, "{dim}{partition}/{offset} {time} {how}{plain} ")?;
        if let Some(reason) = self.reason {
            let field = self.field.map_or_else(String::new, |field| format!(" {field}"));
            let detail = harmless(self.detail.unwrap_or_default(), color);
            write!(out, "{red}{reason}{field}: {detail}{plain} ")?;
        }
        match (self.event, &self.value) {
            (Some(event), _) => write!(out, "{}", harmless(event.get(), color))?,
            (None, Some(value)) => write!(out, "{}", harmless(value, color))?,
            (None, None) => {}
        }
        for (name, value) in &self.headers {
            let value = value.as_deref().unwrap_or("null");
            write!(out, " {dim}{}={}{plain}", harmless(name, color), harmless(value, color))?;
        }
        out.write_all(b"\n")
    }
}

fn encoding(tapped: &Tapped<'_>) -> &'static str {
    match (&tapped.body, tapped.value) {
        (Body::Tombstone, _) | (_, None) => "tombstone",
        (_, Some(_)) if tapped.schema.is_some() => "avro",
        (Body::Text, _) => "text",
        (Body::Bytes, _) => "bytes",
        (Body::Json(_), _) => "json",
        (Body::Rejected(_) | Body::Unreadable(_), Some(value)) => {
            let first = value.trim_ascii_start().first();
            if first == Some(&b'{') { "json" } else { "unknown" }
        }
    }
}

/// Text without the characters that a terminal obeys, on one line.
fn harmless(text: &str, terminal: bool) -> Cow<'_, str> {
    let obeyed = |c: char| if terminal { c.is_control() } else { c == '\n' || c == '\r' };
    if text.contains(obeyed) {
        Cow::Owned(text.replace(obeyed, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}
