//! One partition that this process reads: its phase, what waits for the sinks, how far each sink is.

use std::{collections::VecDeque, ops::Range, time::Instant};

use aion_schemas::{
    decode::SchemaId,
    log::{Mark, Offset, Partition},
};
use aion_sinks::batch::Batch;

use super::{
    appeal::{Question, Settled},
    backoff::Backoff,
    journal::Entry,
    marks::Progress,
    recorder::Recording,
    reject_share::RejectShare,
    status::{PartitionState, PartitionStatus},
};

/// Above this many waiting items a partition is paused; more may still be on their way.
const MAX_WAITING: usize = 32;

/// A partition between its assignment and its loss.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) partition: Partition,
    /// The present run; what carries another number is of the past.
    pub(super) run: u64,
    pub(super) phase: Phase,
    /// Each sink's progress, in the order of the job's sinks.
    pub(super) sinks: Vec<Progress>,
    /// What was read and not yet taken by all sinks, in log order.
    pub(super) waiting: VecDeque<Item>,
    /// Whether a sink had no room for the first of them.
    pub(super) is_busy: bool,
    /// What the source was told last.
    pub(super) told: Told,
    /// Waits between tries to assign it.
    pub(super) backoff: Backoff,
    /// What happens once everything that was read is stored; it can't be read again.
    pub(super) once_drained: Option<OnceDrained>,
    /// Whether dead letters or gaps of it could not be written down, for some time at least.
    pub(super) is_unrecorded: bool,
    /// The schema that its next record waits for.
    pub(super) wanted_schema: Option<SchemaId>,
    /// Up to here the log is what it was, when it was found cut.
    pub(super) agreed: Option<Offset>,
    /// So many look-ups are to tell that it is still the same topic whose log was found cut: one made anew
    /// looks like that too.
    looks_left: u8,
    pub(super) reject_share: RejectShare,
    /// What sinks had and have no more, to be written down.
    pub(super) lost: Vec<(&'static str, Range<Offset>)>,
    /// So many offsets that was when it was assigned, summed over the sinks.
    pub(super) lost_offsets: i64,
    /// It stopped and a person is asked something: when to look whether somebody has decided.
    pub(super) asks: Option<(Question, Instant)>,
    /// What somebody decided about the log's having been cut.
    pub(super) settled: Option<Settled>,
    /// Whether that is written down in `aion.gaps`, or waits to be.
    pub(super) is_settled_told: bool,
    /// What is rejected below was accepted by somebody, and isn't counted.
    pub(super) accepted_below: Offset,
    pub(super) high: Option<Offset>,
    /// The log's end as far as it is known to be that of this very topic.
    pub(super) end: Option<Offset>,
    /// What Kafka was told last.
    pub(super) committed: Option<Offset>,
    /// When that was.
    pub(super) committed_at: Option<Instant>,
    assigned_at: Instant,
}

/// Where a partition is on its way from assigned to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The sinks are to be asked for their marks.
    Assigning,
    /// The source was asked for the log's bounds.
    Locating {
        /// When to ask again.
        again_at: Instant,
    },
    /// The topic has no such partition. One that is made later is told of by a look-up alone.
    Absent,
    /// Being read.
    Reading,
    /// The topic is gone, and another has its name: what was read of it is being stored.
    Leaving,
    /// Not read any more, and why: a person has to act.
    Stopped(String),
}

/// What happens to a partition once what was read of it is durable in every sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnceDrained {
    /// The log has lost the next offset: it starts over from the marks.
    StartOver,
    /// The topic is gone: the partition is that of the topic which is there now.
    TakeUpAnew,
}

/// What the source was told to do with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing that keeps it from reading, once started.
    Go,
    /// To fetch no more for now.
    Paused,
    /// To stop reading.
    Halted,
}

/// What waits its turn: entries to be acknowledged, then a batch to be written.
#[derive(Debug)]
pub(super) struct Item {
    /// The last poll that went into it; `None` for what the job itself made of an answer that was gated.
    pub(super) polled: Option<u64>,
    /// Dead letters or gaps, to be acknowledged before any mark passes them; empty while they are being
    /// written down.
    pub(super) entries: Vec<Entry>,
    /// Their being written down.
    pub(super) recording: Option<Recording>,
    /// `None` when there are only entries.
    pub(super) batch: Option<Batch>,
    pub(super) epochs: Vec<(Offset, i32)>,
    pub(super) records: u64,
    pub(super) rejected: u64,
    /// The log's end, as it was told with the batch.
    pub(super) high: Option<Offset>,
    /// Whether its entries are written at each assignment: they are not counted.
    pub(super) is_told_anew: bool,
}

impl Item {
    /// Entries without a batch.
    pub(super) fn of_entries(entries: Vec<Entry>) -> Item {
        Item {
            polled: None,
            entries,
            recording: None,
            batch: None,
            epochs: Vec::new(),
            records: 0,
            rejected: 0,
            high: None,
            is_told_anew: false,
        }
    }
}

impl Reader {
    /// A partition that was just given to this process.
    pub(super) fn new(partition: Partition, sinks: usize) -> Reader {
        Reader {
            partition,
            run: 0,
            phase: Phase::Assigning,
            sinks: (0..sinks).map(|_| Progress::default()).collect(),
            waiting: VecDeque::new(),
            is_busy: false,
            told: Told::Go,
            backoff: Backoff::default(),
            once_drained: None,
            is_unrecorded: false,
            wanted_schema: None,
            agreed: None,
            looks_left: 0,
            reject_share: RejectShare::default(),
            lost: Vec::new(),
            lost_offsets: 0,
            asks: None,
            settled: None,
            is_settled_told: false,
            accepted_below: Offset::ZERO,
            high: None,
            end: None,
            committed: None,
            committed_at: None,
            assigned_at: Instant::now(),
        }
    }

    /// Forgets what was read and starts over from the sinks' stores.
    pub(super) fn restart(&mut self) {
        self.phase = Phase::Assigning;
        self.waiting.clear();
        self.is_busy = false;
        self.told = Told::Go;
        self.is_unrecorded = false;
        self.asks = None;
        self.is_settled_told = false;
        self.wanted_schema = None;
        self.once_drained.take_if(|then| *then == OnceDrained::StartOver);
    }

    /// The log was found cut. The first look-up that comes back may have started before that, the second
    /// has not.
    pub(super) fn cut(&mut self, agreed: Offset) {
        self.agreed = Some(agreed);
        self.looks_left = 2;
    }

    /// Whether the log was found cut, and nothing was done about it so far.
    pub(super) fn is_cut(&self) -> bool {
        self.phase == Phase::Reading && self.agreed.is_some()
    }

    /// A look-up told that the topic is still the same; whether it certainly is.
    pub(super) fn looked(&mut self) -> bool {
        self.looks_left = self.looks_left.saturating_sub(1);
        self.looks_left == 0
    }

    /// The topic is gone: reads no more, and keeps of what waits the part that was proven to be of it.
    pub(super) fn leave(&mut self, is_proven: impl Fn(u64) -> bool) {
        let is_foreign = |item: &Item| item.polled.is_some_and(|polled| !is_proven(polled));
        let proven = self.waiting.iter().position(is_foreign).unwrap_or(self.waiting.len());
        self.waiting.truncate(proven);
        for item in &mut self.waiting {
            item.polled = None;
        }
        if !matches!(self.phase, Phase::Reading | Phase::Leaving | Phase::Stopped(_)) {
            self.give_up();
        }
        if !matches!(self.phase, Phase::Stopped(_)) {
            self.phase = Phase::Leaving;
        }
        self.once_drained = Some(OnceDrained::TakeUpAnew);
    }

    /// Whether it will stand for a partition of another topic.
    pub(super) fn is_leaving(&self) -> bool {
        self.once_drained == Some(OnceDrained::TakeUpAnew)
    }

    /// Expects nothing more of what sinks were handed.
    pub(super) fn give_up(&mut self) {
        self.waiting.clear();
        for sink in &mut self.sinks {
            sink.give_up();
        }
    }

    /// Whether all that was read is durable in every sink, and written down.
    pub(super) fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.sinks.iter().all(|sink| sink.unwritten().is_none())
    }

    /// The end of the last batch that waits.
    pub(super) fn waiting_end(&self) -> Option<Offset> {
        self.waiting.iter().rev().find_map(|item| Some(item.batch.as_ref()?.range.end))
    }

    /// Stops for good, until a person acts or the partition is given anew.
    pub(super) fn stop(&mut self, why: String) {
        self.restart();
        self.phase = Phase::Stopped(why);
    }

    /// Whether entries of its first item are being written down, or wait for that: the journal may be left alone just then.
    pub(super) fn waits_for_journal(&self) -> bool {
        let waits = |item: &Item| item.recording.is_some() || !item.entries.is_empty();
        self.waiting.front().is_some_and(waits)
    }

    /// Whether the source should pause, `None` when it should do as it does. Where it `is_crowded`, nothing more shall wait
    /// behind its first item.
    pub(super) fn wants_pause(&self, is_crowded: bool) -> Option<bool> {
        let held_up = self.is_busy || self.is_unrecorded || is_crowded;
        let pause = self.phase == Phase::Reading && (held_up || self.waiting.len() > MAX_WAITING);
        let resume = self.waiting.is_empty();
        match self.told {
            Told::Go if pause => Some(true),
            Told::Paused if resume => Some(false),
            _ => None,
        }
    }

    /// The least offset that a sink wants; `None` before the bounds are known to all.
    pub(super) fn position(&self) -> Option<Offset> {
        self.sinks.iter().map(|sink| sink.wanted).min().flatten()
    }

    /// The mark to start reading at: the least of those wanted, with its epoch where it is a stored one.
    ///
    /// Of sinks that are at the same place one may not know the epoch, or know it of a log that was cut since. So the
    /// least that is known is compared with the log, and of the same that of a record right before it.
    pub(super) fn start_mark(&self) -> Mark {
        let offset = self.position().unwrap_or(Offset::ZERO);
        let stored = self.sinks.iter().filter_map(|sink| sink.stored);
        let known = stored.filter(|mark| mark.offset == offset && mark.record_epoch().is_some());
        let least = known.min_by_key(|mark| (mark.record_epoch(), mark.is_behind_hole()));
        least.unwrap_or(Mark::at(offset))
    }

    /// Whether a mark is where somebody said that what is stored below it stays.
    pub(super) fn is_kept(&self, mark: Offset) -> bool {
        matches!(&self.settled, Some(Settled::Kept(kept)) if mark <= kept.end)
    }

    /// Takes the marks of sinks for proven of which everything is kept; whether these are all.
    pub(super) fn trust_kept(&mut self) -> bool {
        let Some(Settled::Kept(kept)) = &self.settled else { return false };
        let mut all = true;
        for sink in &mut self.sinks {
            match sink.reaches() {
                Some(end) if end <= kept.end => sink.unproven = None,
                Some(_) => all = false,
                None => {}
            }
        }
        all
    }

    /// Whether the log has yet to reach what was kept of it when it was cut.
    pub(super) fn waits_for_the_log(&self) -> bool {
        let Some(Settled::Kept(kept)) = &self.settled else { return false };
        let at = self.start_mark().offset;
        at <= kept.end && self.high.is_some_and(|high| high < at)
    }

    /// The bytes of the batches that wait.
    pub(super) fn bytes(&self) -> usize {
        self.waiting.iter().filter_map(|item| item.batch.as_ref()).map(Batch::bytes).sum()
    }

    /// This partition, for the status.
    pub(super) fn status(&self, sinks: &[&'static str]) -> PartitionStatus {
        let state = match &self.phase {
            Phase::Assigning | Phase::Locating { .. } if self.backoff.is_failing() => {
                PartitionState::Paused("a sink can't say what it has")
            }
            Phase::Locating { .. } if self.waits_for_the_log() => {
                PartitionState::Paused("what was kept of a cut log reaches beyond its end")
            }
            Phase::Assigning | Phase::Locating { .. } => PartitionState::Starting,
            Phase::Absent => PartitionState::Paused("the topic has no such partition"),
            Phase::Stopped(why) => PartitionState::Stopped(why.clone()),
            Phase::Reading | Phase::Leaving if self.is_unrecorded => {
                PartitionState::Paused("dead letters or gaps can't be written down")
            }
            Phase::Leaving => {
                PartitionState::Paused("its topic is gone, its rows are being stored")
            }
            Phase::Reading if self.is_busy => PartitionState::Paused("a sink has no room"),
            Phase::Reading if self.wanted_schema.is_some() => {
                PartitionState::Paused("its next record waits for its schema")
            }
            Phase::Reading => PartitionState::Reading,
        };
        let marks: Vec<_> = sinks
            .iter()
            .zip(&self.sinks)
            .map(|(name, sink)| (*name, sink.stored.map(|mark| mark.offset)))
            .collect();
        let durable = self.sinks.iter().map(Progress::has);
        let least = durable.min().flatten();
        PartitionStatus {
            partition: self.partition.number,
            state,
            position: self.position(),
            high: self.high,
            lag: self.high.zip(least).map(|(high, least)| (high - least).max(0)),
            newest: self.sinks.iter().map(|sink| sink.newest).min().flatten(),
            assigned_at: self.assigned_at,
            committed_at: self.committed_at,
            wanted_schema: self.wanted_schema,
            lost: (self.phase != Phase::Assigning).then_some(self.lost_offsets),
            marks,
        }
    }
}

#[cfg(test)]
mod tests {
    use aion_schemas::log::Stream;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn reading_starts_at_the_least_mark_with_what_is_known_there() {
        let start = |marks: &[Option<Mark>]| {
            let stream = Stream { topic: "t".into(), id: Uuid::nil() };
            let mut reader = Reader::new(Partition { stream, number: 0 }, marks.len());
            for (sink, mark) in reader.sinks.iter_mut().zip(marks) {
                sink.assigned(*mark, Vec::new(), None);
            }
            reader.start_mark()
        };
        let plain = |offset, epoch| Some(Mark { offset: Offset(offset), epoch });
        let behind = |epoch| Some(Mark::behind_hole(Offset(7), Some(epoch)));
        assert_eq!(Some(start(&[plain(9, 1), plain(7, 2)])), plain(7, 2));
        assert_eq!(Some(start(&[plain(7, -1), plain(9, 1)])), plain(7, -1), "none of elsewhere");
        assert_eq!(start(&[plain(7, 2), None]), Mark::at(Offset::ZERO));
        for marks in
            [[plain(7, -1), plain(7, 2)], [plain(7, 2), plain(7, 3)], [behind(2), plain(7, 2)]]
        {
            assert_eq!(Some(start(&marks)), plain(7, 2));
            assert_eq!(Some(start(&[marks[1], marks[0]])), plain(7, 2));
        }
        assert_eq!(Some(start(&[behind(1), plain(7, 2)])), behind(1));
    }
}
