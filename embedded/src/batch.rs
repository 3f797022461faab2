//! The header of a record batch (message format 2): what the broker reads and patches.
//!
//! **Invariant:** records are never decompressed and never rewritten. Only the base offset and the
//! leader epoch (both outside the checksum) and, with `LogAppendTime`, the timestamp type and the
//! greatest timestamp (inside it) change.

use kafka_protocol::error::ResponseError;

/// Bytes before the first record.
pub(crate) const HEADER_BYTES: usize = 61;
/// Bytes before what the length field counts.
const LENGTH_END: usize = 12;
/// Where the checksummed part starts.
const CHECKED_FROM: usize = 21;

const COMPRESSION: i16 = 0x07;
const APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// The header's fields, as stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) base_offset: i64,
    pub(crate) size: usize,
    pub(crate) attributes: i16,
    pub(crate) last_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) count: i32,
    magic: i8,
    checksum: u32,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

impl Header {
    /// Reads a header; `None` when `bytes` are too few or can't be a batch of format 2.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Header> {
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        let length = i32::from_be_bytes(field(bytes, 8));
        let header = Header {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            size: LENGTH_END + usize::try_from(length).ok()?,
            magic: i8::from_be_bytes(field(bytes, 16)),
            checksum: u32::from_be_bytes(field(bytes, 17)),
            attributes: i16::from_be_bytes(field(bytes, CHECKED_FROM)),
            last_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            count: i32::from_be_bytes(field(bytes, 57)),
        };
        let sane = header.magic == 2
            && header.size >= HEADER_BYTES
            && header.count > 0
            && header.last_delta >= 0;
        sane.then_some(header)
    }

    /// The offset after the batch's last record.
    pub(crate) fn next_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_delta) + 1
    }

    /// The sequence number of the batch's last record; numbers wrap after `i32::MAX`.
    pub(crate) fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }

    /// Whether the checksum over `batch`, the whole batch of this header, is right.
    pub(crate) fn intact(&self, batch: &[u8]) -> bool {
        batch.len() == self.size && crc32c::crc32c(&batch[CHECKED_FROM..]) == self.checksum
    }

    /// Whether the broker's clock stamped the batch.
    pub(crate) fn is_append_time(&self) -> bool {
        self.attributes & APPEND_TIME != 0
    }

    /// Checks what a producer sent as the records of one partition: exactly one intact data batch.
    pub(crate) fn check(records: &[u8]) -> Result<Header, ResponseError> {
        if records.len() > 16 && records[16] < 2 {
            return Err(ResponseError::UnsupportedForMessageFormat);
        }
        let header = Header::parse(records).ok_or(ResponseError::CorruptMessage)?;
        if header.size > records.len() || !header.intact(&records[..header.size]) {
            return Err(ResponseError::CorruptMessage);
        }
        let one = header.size == records.len() && header.count - 1 == header.last_delta;
        if !one || header.attributes & CONTROL != 0 {
            return Err(ResponseError::InvalidRecord);
        }
        if header.attributes & TRANSACTIONAL != 0 {
            return Err(ResponseError::InvalidTxnState);
        }
        Ok(header)
    }

    /// Makes the header that is stored in front of the records of `batch`: offset, epoch and, when
    /// given, the append time. Updates `self` alike.
    pub(crate) fn stamp(
        &mut self,
        batch: &[u8],
        epoch: i32,
        append_time: Option<i64>,
    ) -> [u8; HEADER_BYTES] {
        let mut bytes: [u8; HEADER_BYTES] = field(batch, 0);
        bytes[..8].copy_from_slice(&self.base_offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
        if let Some(now) = append_time {
            self.attributes |= APPEND_TIME;
            self.max_timestamp = now;
            bytes[CHECKED_FROM..23].copy_from_slice(&self.attributes.to_be_bytes());
            bytes[35..43].copy_from_slice(&now.to_be_bytes());
            let head = crc32c::crc32c(&bytes[CHECKED_FROM..]);
            self.checksum = crc32c::crc32c_append(head, &batch[HEADER_BYTES..]);
            bytes[17..CHECKED_FROM].copy_from_slice(&self.checksum.to_be_bytes());
        }
        bytes
    }

    /// The first record of `batch` with a timestamp of at least `from` as (offset, timestamp).
    ///
    /// Exact for append time and for batches that aren't compressed; of a compressed batch the
    /// first record is named, since the broker has no decompressor: a reader gets a few more.
    pub(crate) fn first_at(&self, batch: &[u8], from: i64) -> (i64, i64) {
        let first = (self.base_offset, self.max_timestamp);
        if self.is_append_time() || self.attributes & COMPRESSION != 0 {
            return first;
        }
        let mut rest = &batch[HEADER_BYTES..];
        while let Some((length, body)) = varint(rest) {
            let Some(record) = usize::try_from(length).ok().and_then(|n| body.get(..n)) else {
                break;
            };
            // Attributes (one byte), timestamp delta, offset delta.
            let times = record.get(1..).and_then(varint);
            let Some((since, offsets)) = times else { break };
            let Some((delta, _)) = varint(offsets) else {
                break;
            };
            if self.base_timestamp + since >= from {
                return (self.base_offset + delta, self.base_timestamp + since);
            }
            rest = &body[record.len()..];
        }
        first
    }
}

/// Reads a zigzag number and what follows it.
fn varint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let number = (value >> 1).cast_signed() ^ -((value & 1).cast_signed());
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}
