//! Events as JSON objects: one pass over the text, values straight into columns.
//!
//! Producers write their names in the same order nearly always, so each name is guessed from the one
//! before it and compared in place; the general look-up is for names that the guess missed. A guess
//! is only ever confirmed by the whole name and its quotes, so it can't change what is read.

use std::sync::Arc;

use super::{
    canonical::Canonical,
    columns::{Column, Columns, Values},
    cursor::Cursor,
    number::{Number, NumberFlaw},
    reject::{Fault, Reason},
    time,
    unknown::Unknown,
};
use crate::schema::Field;

/// Reads events in JSON.
#[derive(Debug)]
pub(super) struct Events {
    names: Vec<Name>,
    /// For the start of an event, then for each name: the name that came next the last time.
    next: Vec<usize>,
    canonical: Canonical,
    scratch: Vec<u8>,
}

/// A name that events may have, the present one of a field or a former one.
#[derive(Debug)]
struct Name {
    column: usize,
    plain: Arc<str>,
    /// The name between quotes.
    quoted: Box<[u8]>,
}

impl Events {
    pub(super) fn new(fields: &[Field]) -> Events {
        let name = |(column, plain): (usize, &Arc<str>)| Name {
            column,
            plain: Arc::clone(plain),
            quoted: format!("\"{plain}\"").into_bytes().into(),
        };
        let present = fields.iter().map(|field| &field.name).enumerate();
        let former = fields.iter().enumerate();
        let former = former.flat_map(|(at, field)| field.aliases.iter().map(move |one| (at, one)));
        let names: Vec<Name> = present.chain(former).map(name).collect();
        Events {
            next: (0..=names.len()).collect(),
            names,
            canonical: Canonical::default(),
            scratch: Vec::new(),
        }
    }

    /// Reads one event into `columns`, up to the end of `payload`.
    pub(super) fn read(
        &mut self,
        payload: &[u8],
        columns: &mut Columns,
        unknown: &mut Unknown,
    ) -> Result<(), Fault> {
        check_utf8(payload)?;
        let mut cursor = Cursor::new(payload);
        cursor.space();
        cursor.expect(b'{', "wanted an object")?;
        let mut before = 0;
        let mut more = cursor.first(b'}');
        while more {
            let at = cursor.at();
            if let Some(name) = self.field(&mut cursor, before, unknown)? {
                before = name + 1;
                cursor.colon()?;
                let index = self.names[name].column;
                let column = columns.open(index, at).map_err(|fault| fault.within(index))?;
                self.value(&mut cursor, column).map_err(|fault| fault.within(index))?;
            } else {
                cursor.colon()?;
                cursor.skip(0, &mut self.scratch)?;
            }
            more = cursor.another(b'}')?;
        }
        cursor.end()?;
        columns.fill(cursor.at())
    }

    /// Reads a name; `None` if the contract doesn't have it.
    fn field(
        &mut self,
        cursor: &mut Cursor<'_>,
        before: usize,
        unknown: &mut Unknown,
    ) -> Result<Option<usize>, Fault> {
        let guess = self.next[before];
        if let Some(name) = self.names.get(guess)
            && cursor.eat(&name.quoted)
        {
            return Ok(Some(guess));
        }
        let name = cursor.string()?;
        let name = name.text(&mut self.scratch)?;
        let index = self.names.iter().position(|known| known.plain.as_bytes() == name);
        match index {
            Some(index) => self.next[before] = index,
            None => unknown.count(name),
        }
        Ok(index)
    }

    fn value(&mut self, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), Fault> {
        if cursor.peek() == Some(b'n') {
            cursor.null()?;
            return column.push_null(cursor.at());
        }
        match &mut column.values {
            Values::Text(texts) => {
                let text = quoted(cursor, "wanted a string")?;
                text.append_to(texts.open())?;
                texts.close();
            }
            Values::Time(times) => {
                let text = quoted(cursor, "wanted a time, which is a string")?;
                let (text, at) = (text.text(&mut self.scratch)?, text.at());
                times.push(
                    time::parse(text).map_err(|(reason, what)| Fault::new(reason, at, what))?,
                );
            }
            Values::Integer(values) => {
                let (number, at) = (number(cursor, "wanted a whole number")?, cursor.at());
                values.push(number.integer().map_err(|flaw| number_fault(flaw, at))?);
            }
            Values::Number(values) => {
                let (number, at) = (number(cursor, "wanted a number")?, cursor.at());
                values.push(number.double().map_err(|flaw| number_fault(flaw, at))?);
            }
            Values::Boolean(values) => match cursor.peek() {
                Some(b't' | b'f') => values.append(cursor.boolean()?),
                _ => return Err(cursor.mismatch("wanted true or false")),
            },
            Values::Object(texts) => match cursor.peek() {
                Some(b'{') => {
                    self.canonical.object(cursor, texts.open())?;
                    texts.close();
                }
                _ => return Err(cursor.mismatch("wanted an object")),
            },
            // Bytes have no agreed form in JSON; internal topics, which have them, are Avro.
            Values::Bytes(_) => return Err(cursor.mismatch("bytes, which JSON can't carry")),
        }
        Ok(())
    }
}

/// Reads the text of a free object that came as a string, and appends its canonical form to `out`.
pub(super) fn object_text(
    text: &[u8],
    canonical: &mut Canonical,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut cursor = Cursor::new(text);
    cursor.space();
    if cursor.peek() != Some(b'{') {
        return Err(Fault::new(
            Reason::WrongType,
            cursor.at(),
            "wanted the JSON text of an object",
        ));
    }
    canonical.object(&mut cursor, out)?;
    cursor.end()
}

/// Checks that `text` is UTF-8.
pub(super) fn check_utf8(text: &[u8]) -> Result<(), Fault> {
    let flaw = |flaw: std::str::Utf8Error| {
        Fault::new(Reason::InvalidUtf8, flaw.valid_up_to(), "text that isn't UTF-8")
    };
    // The quicker of the two; where the flaw is, only the standard library tells.
    if simdutf8::basic::from_utf8(text).is_ok() {
        return Ok(());
    }
    std::str::from_utf8(text).map(|_| ()).map_err(flaw)
}

fn quoted<'a>(
    cursor: &mut Cursor<'a>,
    wanted: &'static str,
) -> Result<super::cursor::Quoted<'a>, Fault> {
    if cursor.peek() == Some(b'"') { cursor.string() } else { Err(cursor.mismatch(wanted)) }
}

fn number<'a>(cursor: &mut Cursor<'a>, wanted: &'static str) -> Result<Number<'a>, Fault> {
    match cursor.peek() {
        Some(b'-' | b'0'..=b'9') => cursor.number(),
        _ => Err(cursor.mismatch(wanted)),
    }
}

fn number_fault(flaw: NumberFlaw, at: usize) -> Fault {
    match flaw {
        NumberFlaw::Fraction => {
            Fault::new(Reason::WrongType, at, "a fraction where a whole number is wanted")
        }
        NumberFlaw::Range => Fault::new(Reason::NumberOutOfRange, at, "a number beyond 64 bits"),
    }
}
