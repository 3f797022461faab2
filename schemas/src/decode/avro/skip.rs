//! Passing over values that the contract doesn't have, checking that they are well formed.

use super::body::Body;
use crate::decode::reject::Fault;

/// How a value is passed over.
#[derive(Debug)]
pub(super) enum Skip {
    Boolean,
    Varint,
    Text,
    Prefixed,
    Fixed(usize),
    /// A varint below the number of symbols.
    Enum(usize),
    Union(Box<[Skip]>),
    Record(Box<[Skip]>),
    /// Blocks of items.
    Array(Box<Skip>),
    /// Blocks of names and values.
    Map(Box<Skip>),
}

impl Skip {
    /// Passes over one value. Nests no deeper than the schema, which is bounded when it is compiled.
    pub(super) fn pass(&self, body: &mut Body<'_>) -> Result<(), Fault> {
        match self {
            Skip::Boolean => body.boolean().map(|_| ()),
            Skip::Varint => body.long().map(|_| ()),
            Skip::Text => body.text().map(|_| ()),
            Skip::Prefixed => body.prefixed().map(|_| ()),
            Skip::Fixed(len) => body.take(*len).map(|_| ()),
            Skip::Enum(symbols) => {
                let symbol = usize::try_from(body.long()?).unwrap_or(usize::MAX);
                if symbol >= *symbols {
                    return Err(body.malformed("a symbol that the enum doesn't have"));
                }
                Ok(())
            }
            Skip::Union(branches) => body.branch(branches)?.pass(body),
            Skip::Record(fields) => fields.iter().try_for_each(|field| field.pass(body)),
            Skip::Array(item) => pass_blocks(body, |body| item.pass(body)),
            Skip::Map(value) => pass_blocks(body, |body| {
                body.text()?;
                value.pass(body)
            }),
        }
    }
}

/// Blocks, each a count and that many items, up to a count of 0; a count below zero is followed by
/// the block's size in bytes.
fn pass_blocks(
    body: &mut Body<'_>,
    item: impl Fn(&mut Body<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    loop {
        let count = body.long()?;
        if count == 0 {
            return Ok(());
        }
        if count < 0 && body.long()? < 0 {
            return Err(body.malformed("a length below zero"));
        }
        for _ in 0..count.unsigned_abs() {
            let before = body.at();
            item(body)?;
            // Items without bytes are all alike, so a great count of them must not cost time.
            if body.at() == before {
                break;
            }
        }
    }
}
