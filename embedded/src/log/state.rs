//! A log's state in memory, and how it is read from its folder.

use std::{fs, path::Path};

use kafka_protocol::ResponseError;
use serde::{Deserialize, Serialize};

use super::{
    now_ms,
    producers::Producers,
    segment::{Segment, Tail},
};
use crate::{
    Error, files,
    flusher::Waiters,
    steps::{self, Step},
};

/// One partition's log.
pub(super) struct Log {
    /// Never empty; the last one is written to.
    pub(super) segments: Vec<Segment>,
    pub(super) end: i64,
    /// Next offset after what is durable, and where in the file that lies.
    pub(super) high: i64,
    pub(super) high_at: u64,
    pub(super) past: Past,
    pub(super) producers: Producers,
    pub(super) waiters: Waiters,
    pub(super) health: Health,
    pub(super) queued: bool,
}

/// What the batches don't say: file `partition.json`.
///
/// Retention doesn't write it, or on a full disk nothing could go. The file may say more than is so, and a log is
/// opened with [`Past::begin_at`]; the segments that a loss of power brings back find the epochs they were written in.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Past {
    /// The first offset that is still served, if greater than the first segment's.
    pub(super) start: i64,
    /// Leader epochs and their first offsets, ascending.
    pub(super) epochs: Vec<(i32, i64)>,
}

impl Past {
    /// Makes `start` the first offset that is served: leader epochs that ended below it are forgotten, and the one in
    /// force there begins there, as in Kafka.
    pub(super) fn begin_at(&mut self, start: i64) {
        self.start = start;
        let begun = self.epochs.partition_point(|(_, first)| *first <= start);
        if begun > 0 {
            self.epochs.drain(..begun - 1);
            self.epochs[0].1 = start;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Failed,
    Deleted,
}

impl Log {
    pub(super) fn start(&self) -> i64 {
        self.past.start.max(self.segments[0].base)
    }

    pub(super) fn epoch(&self) -> i32 {
        self.past.epochs.last().map_or(0, |(epoch, _)| *epoch)
    }

    pub(super) fn active(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    /// The segment that holds an offset below the end.
    pub(super) fn holder(&self, offset: i64) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }

    pub(super) fn raise(&mut self, high: i64, at: u64) {
        self.high = high;
        self.high_at = at;
        steps::did(|| Step::Told { file: self.active().path.clone(), bytes: at });
        self.waiters.wake();
    }

    pub(super) fn good(&self) -> Result<(), ResponseError> {
        match self.health {
            Health::Good => Ok(()),
            Health::Failed => Err(ResponseError::KafkaStorageError),
            Health::Deleted => Err(ResponseError::UnknownTopicOrPartition),
        }
    }

    /// Reads a log from its folder; makes an empty one if there is none.
    pub(super) fn open(folder: &Path, sync: bool) -> Result<Log, Error> {
        let listed = fs::read_dir(folder).map_err(Error::io("list", folder))?;
        let paths = listed.flatten().map(|entry| entry.path());
        let mut found: Vec<_> = paths.filter_map(|p| Some((Segment::base_of(&p)?, p))).collect();
        found.sort();
        let mut producers = Producers::default();
        let mut segments: Vec<Segment> = Vec::new();
        let mut end = found.first().map_or(0, |(base, _)| *base);
        let count = found.len();
        for (at, (base, path)) in found.into_iter().enumerate() {
            let last = at + 1 == count;
            if base != end {
                let reason = format!("a segment from offset {end} to {base} is missing");
                return Err(Error::Corrupt { path, reason });
            }
            let (segment, tail) = Segment::open(path, base, last, |header| {
                producers.stored(header);
                end = header.next_offset();
            })?;
            if let Tail::Torn(length) = tail {
                mend(&segment, length, end, last)?;
            }
            segments.push(segment);
        }
        if segments.is_empty() {
            let made = Segment::create(folder, 0, now_ms()).map_err(Error::io("create", folder))?;
            segments.push(made);
        }
        let last = &segments[segments.len() - 1];
        if sync {
            last.sync().map_err(Error::io("sync", &last.path))?;
            files::sync_folder(folder).map_err(Error::io("sync", folder))?;
        }
        if last.size > 0 {
            steps::did(|| Step::Told { file: last.path.clone(), bytes: last.size });
        }
        let past: Option<Past> = files::read_json(&folder.join("partition.json"))?;
        let mut past = past.unwrap_or_else(|| Past { start: 0, epochs: vec![(0, 0)] });
        let start = past.start.max(segments[0].base);
        past.begin_at(start);
        Ok(Log {
            high_at: last.size,
            segments,
            end,
            high: end,
            past,
            producers,
            waiters: Waiters::default(),
            health: Health::Good,
            queued: false,
        })
    }
}

/// Cuts a torn tail, which a crash during a write leaves; what it held was never acknowledged.
fn mend(segment: &Segment, length: u64, end: i64, last: bool) -> Result<(), Error> {
    let path = &segment.path;
    if !last {
        let reason = format!("no whole batch at byte {}, offset {end}", segment.size);
        return Err(Error::Corrupt { path: path.clone(), reason });
    }
    let bytes = length - segment.size;
    tracing::warn!(path = %path.display(), offset = end, bytes, "cut a torn tail of the log");
    segment.cut().map_err(Error::io("cut the torn tail of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_starts_later_forgets_the_epochs_that_ended_below() {
        let begun = |start| {
            let epochs = vec![(0, 0), (2, 10), (3, 15), (4, 15), (5, 20)];
            let mut past = Past { start: 0, epochs };
            past.begin_at(start);
            assert_eq!(past.start, start);
            past.epochs
        };
        assert_eq!(begun(0), [(0, 0), (2, 10), (3, 15), (4, 15), (5, 20)]);
        assert_eq!(begun(9), [(0, 9), (2, 10), (3, 15), (4, 15), (5, 20)]);
        assert_eq!(begun(10), [(2, 10), (3, 15), (4, 15), (5, 20)]);
        assert_eq!(begun(15), [(4, 15), (5, 20)], "nothing was written in epoch 3");
        assert_eq!(begun(19), [(4, 19), (5, 20)]);
        assert_eq!(begun(30), [(5, 30)]);
    }
}
