//! A partition's log: segments, the high watermark, leader epochs, retention.
//!
//! **Invariant:** the high watermark moves only over what an fsync covered (when fsync is on), and
//! nobody is told of, or served, anything at or above it.
//! **Invariant:** a full segment is synced before the next one is made, so only the last segment
//! can have a torn tail, and the high watermark lies in it; the tail is cut at open. Damage
//! anywhere else stops the start.
//! **Invariant:** after a failed fsync nothing is appended until the log has been read again: what
//! the disk holds is unknown.

mod producers;
mod segment;
mod state;
mod upkeep;

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kafka_protocol::error::ResponseError;
use tokio::sync::Notify;

use self::{
    producers::Verdict,
    segment::Segment,
    state::{Health, Log},
};
use crate::{
    Error,
    batch::{HEADER_BYTES, Header},
    files,
    flusher::{Durable, Flusher, lock},
    steps::{self, Step},
    topics::Rules,
    trouble::Trouble,
};

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Now, by the broker's clock.
pub(crate) fn now_ms() -> i64 {
    millis(SystemTime::now())
}

/// One partition of one topic id.
pub(crate) struct Partition {
    folder: PathBuf,
    /// Who syncs; `None` when the operating system decides.
    flusher: Option<Arc<Flusher>>,
    log: Mutex<Log>,
    trouble: Trouble,
}

/// Where an appended batch lies; `next` is what has to be durable before it is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) base: i64,
    pub(crate) next: i64,
    /// -1 with `CreateTime`.
    pub(crate) append_time: i64,
    pub(crate) start: i64,
}

/// The bounds of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) start: i64,
    pub(crate) high: i64,
    pub(crate) epoch: i32,
}

/// Stored batches to send as they are.
pub(crate) struct Slice {
    pub(crate) file: Arc<File>,
    pub(crate) position: u64,
    pub(crate) bytes: usize,
}

impl Partition {
    /// Opens the partition in `folder`, making it if it isn't there.
    pub(crate) fn open(
        folder: PathBuf,
        flusher: Option<Arc<Flusher>>,
    ) -> Result<Arc<Partition>, Error> {
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        steps::did(|| Step::Made(folder.clone()));
        let log = Mutex::new(Log::open(&folder, flusher.is_some())?);
        Ok(Arc::new(Partition { folder, flusher, log, trouble: Trouble::default() }))
    }

    /// What can't be written, and since when.
    pub(crate) fn trouble(&self, now: Instant) -> Option<(Instant, String)> {
        self.trouble.told(now)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// The log's bounds.
    pub(crate) fn bounds(&self) -> Bounds {
        let log = self.log();
        Bounds { start: log.start(), high: log.high, epoch: log.epoch() }
    }

    /// Wakes `waiter` when the high watermark moves or the partition goes.
    pub(crate) fn watch(&self, waiter: &Arc<Notify>) {
        self.log().waiters.add(waiter);
    }

    /// Appends what a producer sent, or finds it stored already. It is durable, and may be
    /// acknowledged, when [`Partition::durable`] returns.
    pub(crate) fn append(
        self: &Arc<Self>,
        records: &[u8],
        rules: &Rules,
    ) -> Result<Appended, ResponseError> {
        if records.len() as u64 > rules.max_message_bytes {
            return Err(ResponseError::MessageTooLarge);
        }
        let mut header = Header::check(records)?;
        let now = now_ms();
        if !rules.append_time && !rules.takes(header.base_timestamp, header.max_timestamp, now) {
            return Err(ResponseError::InvalidTimestamp);
        }
        let mut log = self.log();
        log.good()?;
        let start = log.start();
        if let Verdict::Duplicate { base_offset: base, timestamp: append_time } =
            log.producers.judge(&header, start > 0)?
        {
            let next = base + i64::from(header.count);
            return Ok(Appended { base, next, append_time, start });
        }
        header.base_offset = log.end;
        let head = header.stamp(records, log.epoch(), rules.append_time.then_some(now));
        self.write(&mut log, &header, &head, &records[HEADER_BYTES..], rules)?;
        log.producers.stored(&header);
        log.end = header.next_offset();
        self.wrote(&mut log);
        let append_time = if rules.append_time { now } else { -1 };
        Ok(Appended { base: header.base_offset, next: log.end, append_time, start })
    }

    fn write(
        &self,
        log: &mut Log,
        header: &Header,
        head: &[u8; HEADER_BYTES],
        records: &[u8],
        rules: &Rules,
    ) -> Result<(), ResponseError> {
        let active = log.active();
        let full = active.size + header.size as u64 > rules.segment_bytes;
        let old = now_ms() - active.since > rules.segment_ms;
        if active.size > 0 && (full || old) {
            self.roll(log)?;
        }
        let active = log.active();
        let Err(error) = active.append(header, head, records) else {
            self.trouble.is_over();
            return Ok(());
        };
        self.trouble.failed(&Error::io("write to", &active.path)(error));
        let undone = active.undo().map_err(Error::io("take back a half write to", &active.path));
        if let Err(error) = undone {
            self.fail(log, &error);
        }
        Err(ResponseError::KafkaStorageError)
    }

    /// Has the log take nothing more until it is read again.
    fn fail(&self, log: &mut Log, error: &Error) {
        log.health = Health::Failed;
        self.trouble.failed_for_good(error);
    }

    /// Starts a new segment once the present one is durable.
    fn roll(&self, log: &mut Log) -> Result<(), ResponseError> {
        let end = log.end;
        if self.flusher.is_some()
            && let Err(error) = log.active().sync()
        {
            let error = Error::io("sync", &log.active().path)(error);
            self.fail(log, &error);
            return Err(ResponseError::KafkaStorageError);
        }
        let segment = self.make_segment(end).map_err(|error| {
            self.trouble.failed(&Error::io("start a segment in", &self.folder)(error));
            ResponseError::KafkaStorageError
        })?;
        log.segments.push(segment);
        log.raise(end, 0);
        Ok(())
    }

    fn make_segment(&self, base: i64) -> io::Result<Segment> {
        let segment = Segment::create(&self.folder, base, now_ms())?;
        // Left there, its name would be taken at every further try.
        let taken_back = |_: &_| drop(fs::remove_file(&segment.path));
        files::sync_folder(&self.folder).inspect_err(taken_back)?;
        Ok(segment)
    }

    fn wrote(self: &Arc<Self>, log: &mut Log) {
        let Some(flusher) = &self.flusher else {
            let (end, at) = (log.end, log.active().size);
            return log.raise(end, at);
        };
        if !log.queued {
            log.queued = true;
            flusher.push(Arc::clone(self) as Arc<dyn Durable>);
        }
    }

    /// Waits until everything below `next` is durable.
    pub(crate) async fn durable(&self, next: i64) -> Result<(), ResponseError> {
        let waiter = Arc::new(Notify::new());
        loop {
            {
                let mut log = self.log();
                if log.high >= next {
                    return Ok(());
                }
                log.good()?;
                log.waiters.add(&waiter);
            }
            waiter.notified().await;
        }
    }

    /// What to send to a reader that wants `from`: whole batches of about `max` bytes, none if the
    /// first one is greater and not `forced`; `None` when there is nothing yet.
    pub(crate) fn slice(
        &self,
        from: i64,
        max: usize,
        forced: bool,
    ) -> Result<Option<Slice>, ResponseError> {
        let log = self.log();
        if log.health == Health::Deleted {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        if from < log.start() || from > log.end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        if from >= log.high {
            return Ok(None);
        }
        let holder = log.holder(from);
        let segment = &log.segments[holder];
        let (position, first) = self.healthy(segment.locate(from))?;
        let last = holder + 1 == log.segments.len();
        let limit = if last { log.high_at } else { segment.size };
        let bytes = segment.span(position, limit, first.size as u64, max as u64) as usize;
        if bytes > max && !forced {
            return Ok(None);
        }
        Ok(Some(Slice { file: Arc::clone(&segment.file), position, bytes }))
    }

    /// Turns a failed or fruitless search within the log into an error that clients understand.
    fn healthy<T>(&self, found: io::Result<Option<T>>) -> Result<T, ResponseError> {
        let failed = |error: io::Error| {
            tracing::error!(path = %self.folder.display(), %error, "cannot read the log");
            ResponseError::KafkaStorageError
        };
        found.map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
    }

    /// The first record with a timestamp of at least `from`, as (offset, timestamp).
    pub(crate) fn first_at(&self, from: i64) -> Result<Option<(i64, i64)>, ResponseError> {
        let log = self.log();
        let Some(segment) = log.segments.iter().find(|s| s.size > 0 && s.max_timestamp >= from)
        else {
            return Ok(None);
        };
        let (offset, timestamp) = self.healthy(segment.first_at(from))?;
        Ok((offset < log.high).then_some((offset.max(log.start()), timestamp)))
    }

    /// The first record with the greatest timestamp, as (offset, timestamp); none until it is durable.
    pub(crate) fn newest(&self) -> Result<Option<(i64, i64)>, ResponseError> {
        let log = self.log();
        let filled = log.segments.iter().filter(|segment| segment.size > 0);
        let Some(segment) = filled.rev().max_by_key(|segment| segment.max_timestamp) else {
            return Ok(None);
        };
        let found = self.healthy(segment.newest())?;
        Ok((found.0 < log.high).then_some(found))
    }

    /// The end of a leader epoch, as Kafka tells it: (the greatest known epoch not above it, its end). Of one that
    /// ended below the log's start it is known no better than that: as its end counts where the log starts. Said to be
    /// unknown, it would look to a client as if the log had been cut.
    pub(crate) fn epoch_end(&self, epoch: i32) -> (i32, i64) {
        let log = self.log();
        let epochs = &log.past.epochs;
        let next = epochs.partition_point(|(known, _)| *known <= epoch);
        let end = epochs.get(next).map_or(log.high, |(_, start)| *start);
        match next.checked_sub(1) {
            Some(at) => (epochs[at].0, end),
            None if epoch >= 0 => (epoch, end),
            None => (-1, -1),
        }
    }
}

impl Durable for Partition {
    fn sync(&self) -> bool {
        let (file, path, end, at) = {
            let mut log = self.log();
            let end = log.end;
            let active = log.active();
            (Arc::clone(&active.file), active.path.clone(), end, active.size)
        };
        let synced = files::sync_data(&file, &path, at);
        let mut log = self.log();
        if let (Err(error), true) = (synced, log.health == Health::Good) {
            self.fail(&mut log, &Error::io("sync", &path)(error));
        }
        if log.health != Health::Good {
            log.waiters.wake();
            log.queued = false;
            return false;
        }
        // A new segment (its predecessor was synced) or a truncation may have come meanwhile.
        if Arc::ptr_eq(&log.active().file, &file) && end > log.high {
            log.raise(end, at);
        }
        log.queued = log.end > log.high;
        log.queued
    }
}
