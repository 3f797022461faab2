//! Cuts the records of one partition into chunks: by rows, by bytes, or when the first has waited enough.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aion_kafka::{Fetched, Record};
use aion_schemas::{
    decode::{Outcome, Reason, Reject, SchemaId},
    log::{Mark, Offset, Partition, Timestamp},
};
use aion_sinks::{batch::Batch, budget::Budget};
use bytes::Bytes;

use super::rows::Rows;
use crate::job::source::{Chunk, Rejected};

/// A chunk is cut at this many rows.
const MAX_ROWS: usize = 65_536;
/// A chunk is cut at this many bytes of columns and rejected records.
const MAX_BYTES: usize = 8 << 20;
/// A chunk is cut when its first record has waited this long.
const LINGER: Duration = Duration::from_millis(50);
/// Records taken from the client at a time.
const MAX_FETCH: usize = 4096;

/// One partition between [`Command::Start`](crate::job::source::Command::Start) and its halt.
pub(super) struct Cutter {
    pub(super) partition: Partition,
    pub(super) run: u64,
    /// Whether the job asked for a pause.
    pub(super) is_paused: bool,
    /// The offset that the log's next record gets, as far as known.
    pub(super) high: Offset,
    /// Whether records wait for schemas that aren't known; else they are rejected.
    pub(super) asks: bool,
    /// The record that waits for its schema: it and those behind it are fetched again.
    pub(super) wanted: Option<Wanted>,
    /// The record that finds no room in `rows`: it and those behind it are fetched again, too.
    left: Option<Offset>,
    pub(super) rows: Box<dyn Rows>,
    /// Records whose rows a sink refuses, and what it says of them.
    pub(super) refused: BTreeMap<Offset, String>,
    from: Offset,
    next: Offset,
    /// The offset after the last record.
    after_last: Offset,
    /// The epoch of the last record below `next`, as a [`Mark`] has it.
    epoch: i32,
    since: Option<Instant>,
    polled: u64,
    appended: Option<(Timestamp, Timestamp)>,
    epochs: Vec<(Offset, i32)>,
    records: u64,
    rejected: Vec<Rejected>,
    rejected_bytes: usize,
}

/// A schema that a record can't be read without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) id: SchemaId,
    pub(super) offset: Offset,
    is_new: bool,
}

impl Cutter {
    /// A partition that is read from `at`.
    pub(super) fn new(partition: Partition, run: u64, at: Mark, rows: Box<dyn Rows>) -> Cutter {
        Cutter {
            partition,
            run,
            is_paused: false,
            high: at.offset,
            asks: false,
            wanted: None,
            left: None,
            rows,
            refused: BTreeMap::new(),
            from: at.offset,
            next: at.offset,
            after_last: at.offset,
            epoch: at.epoch,
            since: None,
            polled: 0,
            appended: None,
            epochs: Vec::new(),
            records: 0,
            rejected: Vec::new(),
            rejected_bytes: 0,
        }
    }

    /// How many more records may come before the next cut.
    pub(super) fn room(&self) -> usize {
        MAX_ROWS.saturating_sub(self.records as usize).min(MAX_FETCH)
    }

    /// Takes one record in.
    pub(super) fn take(&mut self, record: &Record<'_>) {
        if self.wanted.is_some() || self.left.is_some() {
            return;
        }
        if self.rows.is_full() {
            self.left = Some(record.offset);
            return;
        }
        let mut outcome = match self.refused.get(&record.offset) {
            Some(cause) => Outcome::Rejected(Reject::refused(cause)),
            None => self.rows.push(record),
        };
        if let Outcome::Rejected(reject) = &mut outcome
            && reject.reason == Reason::UnknownSchema
            && let Some(id) = self.rows.wants(record)
        {
            if self.asks && is_given(id) {
                self.wanted = Some(Wanted { id, offset: record.offset, is_new: true });
                return;
            }
            if !self.asks {
                reject.detail.push_str(": no registry is configured, see [registry]");
            }
        }
        self.records += 1;
        if self.epochs.last().is_none_or(|(_, epoch)| *epoch != record.epoch) {
            self.epochs.push((record.offset, record.epoch));
        }
        (self.epoch, self.after_last) = (record.epoch, record.offset.next());
        match outcome {
            Outcome::Row => {
                let time = record.append_time;
                let (least, greatest) = self.appended.unwrap_or((time, time));
                self.appended = Some((least.min(time), greatest.max(time)));
            }
            Outcome::Tombstone => {}
            Outcome::Rejected(reject) => {
                let bytes = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
                let rejected = Rejected {
                    offset: record.offset,
                    append_time: record.append_time,
                    key: bytes(record.key),
                    value: bytes(record.value),
                    reason: reject.reason.code(),
                    field: reject.field,
                    detail: reject.detail,
                    schema_id: record.value.and_then(SchemaId::of).map(|id| id.0),
                    retry: self.rows.retry_of(record),
                };
                self.rejected_bytes += record.value.map_or(0, <[u8]>::len);
                self.rejected_bytes += record.key.map_or(0, <[u8]>::len);
                self.rejected.push(rejected);
            }
        }
    }

    /// Notes the end of a fetch, which was poll number `polled`.
    pub(super) fn fetched(&mut self, fetched: Fetched, polled: u64, now: Instant) {
        let untaken = self.wanted.map(|wanted| wanted.offset).or(self.left);
        let next = untaken.unwrap_or(fetched.next);
        if next > self.next {
            self.next = next;
            if self.next > self.after_last {
                // What lies between, a marker or what compaction took, may be of a later leader.
                self.epoch = Mark::behind_hole(next, self.position().record_epoch()).epoch;
            }
            self.polled = polled;
            self.since.get_or_insert(now);
        }
        self.high = self.high.max(self.next).max(fetched.end.unwrap_or(Offset::ZERO));
    }

    /// Where to fetch again, if records of the last fetch found no room.
    pub(super) fn take_left(&mut self) -> Option<Mark> {
        self.left.take().map(|_| self.position())
    }

    /// Whether more may be fetched.
    pub(super) fn is_open(&self) -> bool {
        !self.is_paused && self.wanted.is_none()
    }

    /// Whether a wait has begun that was not asked about so far.
    pub(super) fn is_new_wait(&mut self) -> bool {
        self.wanted.as_mut().is_some_and(|wanted| std::mem::replace(&mut wanted.is_new, false))
    }

    /// What it waited for is known.
    pub(super) fn stop_waiting(&mut self) {
        self.wanted = None;
    }

    /// Where it goes on, and the epoch before.
    pub(super) fn position(&self) -> Mark {
        Mark { offset: self.next, epoch: self.epoch }
    }

    /// Whether it is time to cut.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let waited = self.since.is_some_and(|since| now.saturating_duration_since(since) >= LINGER);
        waited || self.room() == 0 || self.bytes() >= MAX_BYTES || self.rows.is_full()
    }

    /// Cuts what was read since the last cut; `None` if that is nothing.
    pub(super) fn cut(&mut self, budget: &Budget) -> Option<Chunk> {
        if self.next == self.from {
            return None;
        }
        let bytes = self.bytes();
        let Partition { stream, number } = &self.partition;
        let batch = Batch {
            range: self.from..self.next,
            epoch: self.epoch,
            appended: self.appended.take(),
            rows: self.rows.finish(stream.id, *number),
            memory: budget.take(bytes),
            partition: self.partition.clone(),
        };
        self.from = self.next;
        self.since = None;
        self.rejected_bytes = 0;
        Some(Chunk {
            run: self.run,
            polled: self.polled,
            batch,
            epochs: std::mem::take(&mut self.epochs),
            records: std::mem::take(&mut self.records),
            rejected: std::mem::take(&mut self.rejected),
            unknown_fields: self.rows.take_unknown_fields(),
            high: self.high,
        })
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.rejected_bytes
    }
}

/// Whether registries give ids like this one; others are no ids, and not waited for.
fn is_given(id: SchemaId) -> bool {
    i32::try_from(id.0).is_ok_and(|id| id > 0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use aion_kafka::{Headers, TimeKind};
    use aion_schemas::{
        catalog::Catalog,
        decode::{Decoder, MAX_BATCH_BYTES},
        log::Stream,
    };
    use uuid::Uuid;

    use super::*;

    fn cutter(at: Mark) -> Cutter {
        cutter_full_at(MAX_BATCH_BYTES, at)
    }

    fn cutter_full_at(payload_bytes: usize, at: Mark) -> Cutter {
        let stream = Stream { topic: "t".into(), id: Uuid::nil() };
        let catalog = Catalog::builtin();
        let mut decoder = Decoder::new(&catalog.table("tasks").unwrap().schema);
        decoder.fill_at(payload_bytes);
        Cutter::new(Partition { stream, number: 0 }, 1, at, Box::new(decoder))
    }

    fn tombstone(offset: i64, epoch: i32) -> Record<'static> {
        Record {
            key: None,
            value: None,
            offset: Offset(offset),
            epoch,
            append_time: Timestamp(0),
            time_kind: TimeKind::LogAppend,
            headers: Headers::NONE,
        }
    }

    /// The mark of what is cut once these records were read, and all up to `next`.
    fn mark_after(cutter: &mut Cutter, records: &[(i64, i32)], next: i64) -> Mark {
        for (offset, epoch) in records {
            cutter.take(&tombstone(*offset, *epoch));
        }
        let fetched = Fetched { count: records.len(), next: Offset(next), end: None };
        cutter.fetched(fetched, 1, Instant::now());
        let chunk = cutter.cut(&Budget::new(1 << 20)).unwrap();
        assert_eq!(cutter.position(), chunk.batch.mark());
        chunk.batch.mark()
    }

    #[test]
    fn a_mark_behind_a_hole_keeps_the_epoch_of_the_last_record() {
        let behind = |offset, epoch| Mark::behind_hole(Offset(offset), Some(epoch));
        let plain = |offset, epoch| Mark { offset: Offset(offset), epoch };
        let mut from_start = cutter(Mark::at(Offset::ZERO));
        let cut = &mut from_start;
        assert_eq!(mark_after(cut, &[], 2), Mark::at(Offset(2)), "no record so far");
        assert_eq!(mark_after(cut, &[(2, 0), (3, 1)], 4), plain(4, 1));
        assert_eq!(mark_after(cut, &[(4, 1), (6, 3)], 8), behind(8, 3));
        assert_eq!(mark_after(cut, &[], 9), behind(9, 3), "another marker");
        assert_eq!(mark_after(cut, &[(9, 3)], 10), plain(10, 3), "a record again");
        // What was known at the start is known behind a hole.
        assert_eq!(mark_after(&mut cutter(plain(10, 3)), &[], 11), behind(11, 3));
        assert_eq!(mark_after(&mut cutter(behind(10, 3)), &[], 11), behind(11, 3));
        assert_eq!(mark_after(&mut cutter(behind(10, 3)), &[(10, 4)], 11), plain(11, 4));
    }

    /// Two events are full. What comes behind them is taken in the next round: be it a tombstone, which would find room.
    #[test]
    fn what_finds_no_room_is_left_for_the_next_cut() {
        let event = br#"{"task_id":"t","status":"s","timestamp":"1970-01-01T00:00:01Z"}"#;
        let values: [Option<&[u8]>; 8] = [
            Some(event),
            Some(event),
            None,
            Some(event),
            Some(event),
            Some(b"poison"),
            Some(event),
            None,
        ];
        let (end, now) = (values.len(), Instant::now());
        let mut cutter = cutter_full_at(2 * event.len(), Mark::at(Offset::ZERO));
        let (mut from, mut cut) = (0, Vec::new());
        while from < end {
            for (offset, value) in values.iter().enumerate().skip(from) {
                cutter.take(&Record { value: *value, ..tombstone(offset as i64, 0) });
            }
            let next = Offset(end as i64);
            cutter.fetched(Fetched { count: end - from, next, end: None }, 1, now);
            let left = cutter.take_left();
            assert_eq!(cutter.is_due(now), left.is_some(), "what is full is cut at once");
            let chunk = cutter.cut(&Budget::new(1 << 20)).unwrap();
            assert_eq!(left.unwrap_or(chunk.batch.mark()), chunk.batch.mark());
            let reasons: Vec<_> = chunk.rejected.iter().map(|one| one.reason).collect();
            from = chunk.batch.range.end.get() as usize;
            cut.push((chunk.records, chunk.batch.rows.num_rows(), from, reasons));
        }
        let poison = vec!["unknown_encoding"];
        assert_eq!(cut, [(2, 2, 2, vec![]), (3, 2, 5, vec![]), (3, 1, 8, poison)]);
    }
}
