//! Maps and records of a free object, as JSON text.
//!
//! The text is of the form that a producer in JSON would have sent, which is then made canonical like
//! any other: numbers as their shortest decimal text, symbols of enums as strings, the value of a union
//! without its type, logical types as what they lie over.
//!
//! **Invariant:** the text of one value is bounded, since a few bytes of Avro may stand for much of it.

use std::fmt::Debug;

use super::{body::Body, node::Node};
use crate::decode::{
    MAX_OBJECT_BYTES,
    canonical::write_string,
    reject::{Fault, Reason},
};

impl Node {
    /// Reads one value and appends its JSON text to `out`.
    pub(super) fn write(&self, body: &mut Body<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        if out.len() > MAX_OBJECT_BYTES {
            return Err(body.fault(Reason::TooLarge, "an object of too much text"));
        }
        match self {
            Node::Null => out.extend_from_slice(b"null"),
            Node::Boolean => {
                let text: &[u8] = if body.boolean()? { b"true" } else { b"false" };
                out.extend_from_slice(text);
            }
            Node::Int => push_number(out, &body.int()?),
            Node::Long => push_number(out, &body.long()?),
            Node::Float => push_number(out, &body.single()?),
            Node::Double => push_number(out, &body.double()?),
            Node::Text => write_string(body.text()?, out),
            Node::Enum(symbols) => write_string(body.symbol(symbols)?.as_bytes(), out),
            Node::Union(branches) => body.branch(branches)?.write(body, out)?,
            Node::Record(fields) => {
                out.push(b'{');
                for (at, (name, field)) in fields.iter().enumerate() {
                    push_comma(out, at > 0);
                    write_string(name.as_bytes(), out);
                    out.push(b':');
                    field.write(body, out)?;
                }
                out.push(b'}');
            }
            Node::Array(item) => {
                out.push(b'[');
                write_blocks(body, out, |body, out| item.write(body, out))?;
                out.push(b']');
            }
            Node::Map(value) => {
                out.push(b'{');
                write_blocks(body, out, |body, out| {
                    write_string(body.text()?, out);
                    out.push(b':');
                    value.write(body, out)
                })?;
                out.push(b'}');
            }
            // Plans have no such nodes where text is wanted.
            Node::Bytes | Node::Fixed(_) => {
                return Err(body.fault(Reason::WrongType, "bytes, which JSON can't carry"));
            }
        }
        Ok(())
    }
}

fn write_blocks(
    body: &mut Body<'_>,
    out: &mut Vec<u8>,
    item: impl Fn(&mut Body<'_>, &mut Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut is_first = true;
    while let Some(count) = body.block()? {
        for _ in 0..count {
            push_comma(out, !is_first);
            item(body, out)?;
            is_first = false;
        }
    }
    Ok(())
}

fn push_comma(out: &mut Vec<u8>, wanted: bool) {
    if wanted {
        out.push(b',');
    }
}

/// Appends a finite number: in its debug form it is what JSON takes, and no longer than it has to be.
fn push_number(out: &mut Vec<u8>, number: &impl Debug) {
    out.extend_from_slice(format!("{number:?}").as_bytes());
}
