//! What takes data away: retention, deletion, and truncation for tests.

use std::{fs, io};

use kafka_protocol::ResponseError;

use super::{
    Partition,
    segment::Segment,
    state::{Health, Log, Past},
};
use crate::{Error, files, topics::Rules};

impl Partition {
    /// Deletes whole segments that are too old or too much. Returns how many went.
    pub(crate) fn retain(&self, rules: &Rules, now: i64) -> usize {
        let mut log = self.log();
        if log.health != Health::Good || !rules.deletes {
            return 0;
        }
        // A producer may send no time at all; then that of the segment counts.
        let newest = |segment: &Segment| match segment.max_timestamp {
            0.. => segment.max_timestamp,
            _ => segment.since,
        };
        let old = |segment: &Segment| {
            rules.retention_ms.is_some_and(|limit| newest(segment) < now - limit)
        };
        let active = log.active();
        if active.size > 0 && old(active) && self.roll(&mut log).is_err() {
            return 0;
        }
        let mut total: u64 = log.segments.iter().map(|segment| segment.size).sum();
        let mut gone = 0;
        while log.segments.len() - gone > 1 {
            let segment = &log.segments[gone];
            let over = |limit| total - segment.size >= limit;
            if !old(segment) && !rules.retention_bytes.is_some_and(over) {
                break;
            }
            total -= segment.size;
            gone += 1;
        }
        drop_segments(&mut log, gone);
        gone
    }

    /// Makes `start` the first offset (-1: the high watermark) and returns it.
    pub(crate) fn delete_below(&self, start: i64) -> Result<i64, ResponseError> {
        let mut log = self.log();
        log.good()?;
        let start = if start == -1 { log.high } else { start };
        if start < 0 || start > log.high {
            return Err(ResponseError::OffsetOutOfRange);
        }
        if start > log.start() {
            let mut past = log.past.clone();
            past.begin_at(start);
            self.remember(&mut log, past)?;
            let whole = log.segments.partition_point(|segment| segment.base <= start);
            drop_segments(&mut log, whole.saturating_sub(1));
        }
        Ok(log.start())
    }

    fn remember(&self, log: &mut Log, past: Past) -> Result<(), ResponseError> {
        let path = self.folder.join("partition.json");
        files::replace_json(&path, &past).map_err(|error| {
            tracing::error!(%error, "cannot keep the partition's start and epochs");
            ResponseError::KafkaStorageError
        })?;
        log.past = past;
        Ok(())
    }

    /// Forgets the batches from the one that holds `to` on and begins a new leader epoch, as an
    /// unclean election does. Returns the new end. For tests.
    pub(crate) fn truncate(&self, to: i64) -> Result<i64, Error> {
        let mut log = self.log();
        let failed = |_| Error::io("truncate", &self.folder)(io::ErrorKind::InvalidInput.into());
        let at = log.holder(to);
        let segment = &log.segments[at];
        if to < log.end {
            let (position, header) = self.healthy(segment.locate(to)).map_err(failed)?;
            for later in &log.segments[at + 1..] {
                fs::remove_file(&later.path).map_err(Error::io("delete", &later.path))?;
            }
            let cut = segment.file.set_len(position);
            cut.map_err(Error::io("truncate", &segment.path))?;
            let epoch = log.epoch() + 1;
            let mut past = log.past.clone();
            past.epochs.retain(|(_, start)| *start <= header.base_offset);
            past.epochs.push((epoch, header.base_offset));
            self.remember(&mut log, past).map_err(failed)?;
            let mut waiters = std::mem::take(&mut log.waiters);
            let queued = log.queued;
            *log = Log::open(&self.folder, self.flusher.is_some())?;
            log.queued = queued;
            waiters.wake();
        }
        Ok(log.end)
    }

    /// Ends the partition: its folder goes, and those who wait are told.
    pub(crate) fn delete(&self) {
        let mut log = self.log();
        log.health = Health::Deleted;
        log.waiters.wake();
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::error!(path = %self.folder.display(), %error, "cannot delete a partition");
        }
    }
}

/// Removes the first `count` segments, and with them the leader epochs that ended there.
fn drop_segments(log: &mut Log, count: usize) {
    for segment in log.segments.drain(..count) {
        tracing::info!(path = %segment.path.display(), "delete a segment: its time is over");
        if let Err(error) = fs::remove_file(&segment.path) {
            tracing::error!(path = %segment.path.display(), %error, "cannot delete a segment");
        }
    }
    if count > 0 {
        let start = log.start();
        log.past.begin_at(start);
        log.waiters.wake();
    }
}
