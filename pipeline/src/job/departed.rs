//! Partitions that the group took away, for as long as it isn't known whether their topic went with them.
//!
//! A group notices by itself that a topic is gone, before look-ups do or after them, and takes its partitions away. Then
//! nobody is left who reads on, and says what is missing. So it is kept how far each of them was known to reach, and when it
//! shows that the topic is gone, what no store has up to there is written down.
//!
//! | look-ups find | the partitions |
//! |---|---|
//! | the same topic, ten minutes after they left | are another process's, and forgotten here |
//! | another topic of that name | went with theirs |
//! | none, for ten minutes | the same |
//!
//! What the stores have they are asked for three minutes later: another process may have read on until then, and what is on
//! its way into a store when a topic goes may still land. Only a stop can't wait for that. Where another process says what
//! is missing, too, each writes it down as far as it knew the log to reach.
//!
//! Deliberately absent: what outlives the process. Kafka forgets a group's offsets with the topic, and no store knows how far a
//! log reached, so nothing true can be said of a topic that went while nobody read it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aion_schemas::log::{Offset, Partition};

use super::{
    JobError,
    backoff::Backoff,
    event_loop::Job,
    gaps::{Gap, GapKind, RECORDED},
    journal::{Entry, Journal},
    marks::Progress,
    reader::Reader,
    recorder::Recording,
    source::Source,
};

/// So long no look-up finds a topic that is gone though no other has its name.
const MISSING_FOR: Duration = Duration::from_mins(10);
/// Within this another process knows how far the log of a partition reaches that left here: a group is shared out within
/// `max.poll.interval.ms` (5 minutes), and then the stores are asked, each for two minutes at most.
const TAKEN_UP_WITHIN: Duration = Duration::from_mins(10);
/// Within this what was on its way when a topic went lands, or never: the longest is an INSERT of ClickHouse, with a lease and
/// the time that it may take, of a minute each, and some to spare.
const LANDS_WITHIN: Duration = Duration::from_mins(3);
/// What is written down here belongs to no partition that is being read.
const NO_PARTITION: i32 = -1;

/// Partitions that have left, and what is to be said of them.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// The topic may be there.
    left: BTreeMap<i32, Left>,
    /// It is gone, and the stores are to be asked.
    gone: Vec<Left>,
    backoff: Backoff,
    entries: Vec<Entry>,
    /// Entries that are being written down.
    pub(super) recording: Option<Recording>,
}

/// How far a partition was.
#[derive(Debug)]
struct Left {
    partition: Partition,
    /// Below these offsets the sinks miss nothing; `None` of one that never had any of it.
    had: Vec<Option<Offset>>,
    /// How far the log was known to reach.
    end: Offset,
    /// When it left; once its topic is gone, when that was known.
    since: Instant,
}

impl Departed {
    /// Such a partition is read here again.
    pub(super) fn is_back(&mut self, number: i32) {
        self.left.remove(&number);
    }

    /// A look-up found the topic that they are of.
    pub(super) fn topic_found(&mut self, now: Instant) {
        self.left.retain(|_, left| !left.is_older_than(TAKEN_UP_WITHIN, now));
    }

    /// Their topic is gone.
    pub(super) fn topic_gone(&mut self, now: Instant) {
        let left = std::mem::take(&mut self.left).into_values();
        self.gone.extend(left.map(|left| Left { since: now, ..left }));
    }

    /// Whether something is to be said that no later start could say.
    pub(super) fn owes(&self) -> bool {
        !self.gone.is_empty() || !self.entries.is_empty() || self.recording.is_some()
    }

    /// What that is of, for people.
    pub(super) fn owed(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.gone.iter().map(|left| left.partition.to_string()).collect();
        all.extend(self.entries.iter().map(|entry| entry.key.clone()));
        all.extend(self.recording.map(|one| format!("{} on their way to aion.gaps", one.count)));
        all
    }

    /// Whether these entries are being written down.
    pub(super) fn is_recording(&self, ticket: u64) -> bool {
        self.recording.is_some_and(|recording| recording.ticket == ticket)
    }

    /// They are, but for those that failed, which are tried again; how many are.
    pub(super) fn recorded(&mut self, failed: Vec<Entry>) -> u64 {
        let count = self.recording.take().map_or(0, |recording| recording.count);
        let written = count.saturating_sub(failed.len());
        self.entries.extend(failed);
        written as u64
    }
}

impl Left {
    fn is_older_than(&self, time: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= time
    }
}

impl<S: Source, J: Journal> Job<S, J> {
    /// Notes how far partitions are that leave. One that was never located tells nothing.
    pub(super) fn note_departures(&mut self, numbers: &[i32], now: Instant) {
        for number in numbers {
            let Some(reader) = self.readers.get(number) else { continue };
            let Some(end) = reader.end else { continue };
            let had = reader.sinks.iter().map(Progress::has).collect();
            let partition = reader.partition.clone();
            let left = Left { partition, had, end, since: now };
            if !reader.is_leaving() {
                self.departed.left.insert(*number, left);
            } else if !reader.is_drained() {
                self.departed.gone.push(left);
            }
        }
    }

    /// Says what is missing of partitions that went with their topic. Safe to drop while it waits.
    pub(super) async fn tell_departed(&mut self, now: Instant) -> Result<(), JobError> {
        if self.gate.is_missing_for(MISSING_FOR) {
            self.departed.topic_gone(now);
        }
        self.ask_stores(now).await?;
        let Departed { recording, entries, .. } = &mut self.departed;
        if recording.is_none() {
            *recording = self.recorder.begin(NO_PARTITION, entries, now);
        }
        Ok(())
    }

    /// Asks the stores how far they have what went with its topic; what they lack is to be written down.
    async fn ask_stores(&mut self, now: Instant) -> Result<(), JobError> {
        if self.departed.backoff.waits(now) {
            return Ok(());
        }
        let partitions = self.to_ask_for(now);
        if partitions.is_empty() {
            return Ok(());
        }
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            match place.sink.marks_of(&partitions).await {
                Ok(marks) => {
                    for left in &mut self.departed.gone {
                        let mark = marks.get(&left.partition).map(|mark| mark.offset);
                        left.had[at] = left.had[at].max(mark);
                    }
                }
                Err(error) if error.passes() => {
                    let cause = format!("{}: {error}", place.name);
                    self.departed.backoff.failed(now);
                    self.note_trouble(cause);
                    return Ok(());
                }
                Err(error) => return Err(self.sink_failed(self.places[at].name, error)),
            }
        }
        self.departed.backoff.succeeded();
        let gone = std::mem::take(&mut self.departed.gone).into_iter();
        let (told, others): (Vec<Left>, Vec<Left>) =
            gone.partition(|left| partitions.contains(&left.partition));
        self.departed.gone = others;
        for left in &told {
            self.tell_missing(left);
        }
        Ok(())
    }

    /// Partitions whose topic is gone, once nothing can be on its way into a store; a stop can't wait for that.
    fn to_ask_for(&self, now: Instant) -> Vec<Partition> {
        // Of what a reader still stands for, sinks hold rows, or are about to.
        let holds = |one: &Reader| !(one.is_leaving() && one.is_drained());
        let is_held = |left: &Left| {
            let mut readers = self.readers.values();
            readers.any(|one| one.partition == left.partition && holds(one))
        };
        let is_last = self.stop_by.is_some();
        let is_due =
            |left: &&Left| (is_last || left.is_older_than(LANDS_WITHIN, now)) && !is_held(left);
        let due = self.departed.gone.iter().filter(is_due);
        due.map(|left| left.partition.clone()).collect()
    }

    fn tell_missing(&mut self, left: &Left) {
        let noted_at = self.clock.wall();
        let missing = left.had.iter().zip(&self.places).filter_map(|(had, place)| {
            let range = (*had)?..left.end;
            (range.start < range.end).then_some((place.name, range))
        });
        for gap in Gap::gather(GapKind::TopicDeleted, missing) {
            gap.tell(&self.plan.job, &left.partition, RECORDED);
            self.departed.entries.push(gap.entry(&self.plan.job, &left.partition, noted_at));
        }
    }
}
