//! Passing over values that the contract doesn't have, checking that they are well formed.

use super::{body::Body, node::Node};
use crate::decode::reject::Fault;

impl Node {
    /// Passes over one value. Nests no deeper than the schema, which is bounded when it is compiled.
    pub(super) fn pass(&self, body: &mut Body<'_>) -> Result<(), Fault> {
        match self {
            Node::Null => Ok(()),
            Node::Boolean => body.boolean().map(|_| ()),
            Node::Int => body.int().map(|_| ()),
            Node::Long => body.long().map(|_| ()),
            Node::Float => body.take(4).map(|_| ()),
            Node::Double => body.take(8).map(|_| ()),
            Node::Text => body.text().map(|_| ()),
            Node::Bytes => body.prefixed().map(|_| ()),
            Node::Fixed(len) => body.take(*len).map(|_| ()),
            Node::Enum(symbols) => body.symbol(symbols).map(|_| ()),
            Node::Union(branches) => body.branch(branches)?.pass(body),
            Node::Record(fields) => fields.iter().try_for_each(|(_, field)| field.pass(body)),
            Node::Array(item) => pass_blocks(body, |body| item.pass(body)),
            Node::Map(value) => pass_blocks(body, |body| {
                body.text()?;
                value.pass(body)
            }),
        }
    }
}

fn pass_blocks(
    body: &mut Body<'_>,
    item: impl Fn(&mut Body<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    while let Some(count) = body.block()? {
        for _ in 0..count {
            let before = body.at();
            item(body)?;
            // Items without bytes are all alike, so a great count of them must not cost time.
            if body.at() == before {
                break;
            }
        }
    }
    Ok(())
}
