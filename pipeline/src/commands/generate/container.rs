//! An Avro object container file: the schema first, then blocks of bodies, as every tool for Avro reads it.
//!
//! The writer of crate `apache_avro` would make another marker each time, and loses bytes where a pipe takes only a part
//! of what it is given.

use std::io::{self, Write};

use super::{avro::push_long, random::Random};

/// Bytes of bodies after which a block ends.
const BLOCK_BYTES: usize = 16 << 10;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Container {
    /// What stands before the first block, until it is written.
    head: Vec<u8>,
    /// What ends each block.
    marker: [u8; 16],
    block: Vec<u8>,
    events: i64,
}

impl Container {
    /// A file of events by a schema, which is Avro's JSON text. The same seed gives the same bytes.
    pub(super) fn new(schema: &str, seed: u64) -> Container {
        let mut random = Random::new(seed);
        let marker = (u128::from(random.next()) << 64) | u128::from(random.next());
        let marker = marker.to_be_bytes();
        let mut head = b"Obj\x01".to_vec();
        push_long(&mut head, 2); // so many pairs
        for text in ["avro.schema", schema, "avro.codec", "null"] {
            push_long(&mut head, text.len() as i64);
            head.extend_from_slice(text.as_bytes());
        }
        push_long(&mut head, 0); // no more pairs
        head.extend_from_slice(&marker);
        Container { head, marker, block: Vec::new(), events: 0 }
    }

    /// Adds an event's body, and writes the block once it is full.
    pub(super) fn push(&mut self, out: &mut impl Write, body: &[u8]) -> io::Result<()> {
        self.block.extend_from_slice(body);
        self.events += 1;
        if self.block.len() < BLOCK_BYTES { Ok(()) } else { self.end_block(out) }
    }

    /// Writes all that waits, so that a reader can have it.
    pub(super) fn end_block(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut start = std::mem::take(&mut self.head);
        if self.events == 0 {
            return out.write_all(&start);
        }
        push_long(&mut start, std::mem::take(&mut self.events));
        push_long(&mut start, self.block.len() as i64);
        out.write_all(&start)?;
        out.write_all(&self.block)?;
        self.block.clear();
        out.write_all(&self.marker)
    }
}
