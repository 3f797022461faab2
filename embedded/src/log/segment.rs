//! One file of a partition's log: record batches as they go over the wire, one after another.
//!
//! **Invariant:** offsets within a segment have no gaps, so a batch with an unexpected base offset
//! is damage. The index is sparse, in memory, and rebuilt from the headers alone.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Error,
    batch::{HEADER_BYTES, Header},
    files,
    steps::{self, Step},
};

/// Bytes of log per index entry.
const INDEX_BYTES: u64 = 8 << 10;

/// A segment: batches from offset `base` on.
pub(super) struct Segment {
    pub(super) base: i64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) size: u64,
    /// Greatest timestamp of all batches, and where its batch lies.
    pub(super) max_timestamp: i64,
    max_timestamp_at: u64,
    /// When the first byte was written, by the broker's clock.
    pub(super) since: i64,
    index: Vec<Entry>,
}

/// A batch start, with the greatest timestamp of the batches before it.
#[derive(Clone, Copy)]
struct Entry {
    offset: i64,
    position: u64,
    max_before: i64,
}

/// How the end of a segment looks when it is read from disk.
pub(super) enum Tail {
    Whole,
    /// From this position on there is no whole batch.
    Torn(u64),
}

impl Segment {
    /// Creates an empty segment.
    pub(super) fn create(folder: &Path, base: i64, now: i64) -> io::Result<Segment> {
        let path = folder.join(format!("{base:020}.log"));
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
        steps::did(|| Step::Made(path.clone()));
        Ok(Segment::empty(path, file, base, now))
    }

    fn empty(path: PathBuf, file: File, base: i64, since: i64) -> Segment {
        Segment {
            base,
            path,
            file: Arc::new(file),
            size: 0,
            max_timestamp: i64::MIN,
            max_timestamp_at: 0,
            since,
            index: Vec::new(),
        }
    }

    /// The offset that a segment file's name says; `None` for other files.
    pub(super) fn base_of(path: &Path) -> Option<i64> {
        let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
        name.parse().ok().filter(|base| *base >= 0)
    }

    /// Opens a segment, handing each batch header to `seen`. With `checksums` the batches' contents
    /// are checked as well.
    pub(super) fn open(
        path: PathBuf,
        base: i64,
        checksums: bool,
        mut seen: impl FnMut(&Header),
    ) -> Result<(Segment, Tail), Error> {
        let opened = OpenOptions::new().read(true).append(true).open(&path);
        let file = opened.map_err(Error::io("open", &path))?;
        let about = file.metadata().map_err(Error::io("look at", &path))?;
        let since = about.created().or_else(|_| about.modified()).map_or(0, super::millis);
        let mut segment = Segment::empty(path, file, base, since);
        let mut batch = Vec::new();
        let mut next = base;
        while segment.size < about.len() {
            let found = segment
                .header(segment.size)
                .map_err(Error::io("read", &segment.path))?
                .filter(|header| header.base_offset == next)
                .filter(|header| segment.size + header.size as u64 <= about.len());
            let Some(header) = found else {
                return Ok((segment, Tail::Torn(about.len())));
            };
            if checksums {
                batch.resize(header.size, 0);
                let read = segment.file.read_exact_at(&mut batch, segment.size);
                read.map_err(Error::io("read", &segment.path))?;
                if !header.intact(&batch) {
                    return Ok((segment, Tail::Torn(about.len())));
                }
            }
            seen(&header);
            segment.note(&header);
            next = header.next_offset();
        }
        Ok((segment, Tail::Whole))
    }

    /// Appends a batch: its patched header and the rest of its bytes.
    pub(super) fn append(
        &mut self,
        header: &Header,
        head: &[u8; HEADER_BYTES],
        records: &[u8],
    ) -> io::Result<()> {
        let mut file = &*self.file;
        let written = file.write_vectored(&[IoSlice::new(head), IoSlice::new(records)])?;
        if written < HEADER_BYTES {
            file.write_all(&head[written..])?;
        }
        file.write_all(&records[written.saturating_sub(HEADER_BYTES)..])?;
        self.note(header);
        steps::did(|| Step::Written { file: self.path.clone(), bytes: self.size });
        Ok(())
    }

    /// Makes all of it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        files::sync_data(&self.file, &self.path, self.size)
    }

    /// Takes back what an append that failed may have written.
    pub(super) fn undo(&self) -> io::Result<()> {
        self.file.set_len(self.size)
    }

    /// Cuts the file to what was read as whole.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.size)?;
        self.file.sync_all()
    }

    fn note(&mut self, header: &Header) {
        let due = |last: &Entry| self.size - last.position >= INDEX_BYTES;
        if self.index.last().is_none_or(due) {
            self.index.push(Entry {
                offset: header.base_offset,
                position: self.size,
                max_before: self.max_timestamp,
            });
        }
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_at = self.size;
        }
        self.size += header.size as u64;
    }

    /// The header at a position; `None` at the end or when there is none.
    fn header(&self, position: u64) -> io::Result<Option<Header>> {
        let mut bytes = [0; HEADER_BYTES];
        match self.file.read_exact_at(&mut bytes, position) {
            Ok(()) => Ok(Header::parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first batch from a position on that `wanted` takes, and where it lies.
    fn find(
        &self,
        mut position: u64,
        wanted: impl Fn(&Header) -> bool,
    ) -> io::Result<Option<(u64, Header)>> {
        while position < self.size {
            let Some(header) = self.header(position)? else {
                break;
            };
            if wanted(&header) {
                return Ok(Some((position, header)));
            }
            position += header.size as u64;
        }
        Ok(None)
    }

    /// The batch that holds an offset.
    pub(super) fn locate(&self, offset: i64) -> io::Result<Option<(u64, Header)>> {
        let at = self.index.partition_point(|entry| entry.offset <= offset);
        let from = at.checked_sub(1).map_or(0, |at| self.index[at].position);
        self.find(from, |header| header.next_offset() > offset)
    }

    /// How many bytes to read from a batch start at `position`: whole batches up to `limit` (a
    /// batch end) and about `max`, but at least the first batch, `first` bytes.
    pub(super) fn span(&self, position: u64, limit: u64, first: u64, max: u64) -> u64 {
        if limit - position <= max {
            return limit - position;
        }
        let at = self.index.partition_point(|entry| entry.position <= position + max);
        let end = at.checked_sub(1).map_or(0, |at| self.index[at].position);
        if end > position { end.min(limit) - position } else { first }
    }

    /// The first record with a timestamp of at least `from`, as (offset, timestamp).
    pub(super) fn first_at(&self, from: i64) -> io::Result<Option<(i64, i64)>> {
        let at = self.index.partition_point(|entry| entry.max_before < from);
        let start = at.checked_sub(1).map_or(0, |at| self.index[at].position);
        let found = self.find(start, |header| header.max_timestamp >= from)?;
        found.map(|(position, header)| self.record_at(position, &header, from)).transpose()
    }

    /// The first record with the greatest timestamp of the segment.
    pub(super) fn newest(&self) -> io::Result<Option<(i64, i64)>> {
        let at = self.max_timestamp_at;
        let Some(header) = self.header(at)?.filter(|_| self.size > 0) else {
            return Ok(None);
        };
        self.record_at(at, &header, self.max_timestamp).map(Some)
    }

    fn record_at(&self, position: u64, header: &Header, from: i64) -> io::Result<(i64, i64)> {
        let mut batch = vec![0; header.size];
        self.file.read_exact_at(&mut batch, position)?;
        Ok(header.first_at(&batch, from))
    }
}
