//! Partitions that the group took away, for as long as it isn't known whether their topic went with them.
//!
//! A group notices by itself that a topic is gone, before look-ups do or after them, and takes its partitions away. Then
//! nobody is left who reads on, and says what is missing. So it is kept how far each of them was known to reach, and when it
//! shows that the topic is gone, what no store has up to there is written down.
//!
//! | look-ups find | the partitions |
//! |---|---|
//! | the same topic, by one that began later | are another process's, and forgotten here |
//! | another topic of that name | went with theirs |
//! | none, for ten minutes | the same |
//!
//! What the stores have they are asked for then: this process may have slept while another one read on.
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
/// Of the look-ups that come back once a partition has left, the first may have begun before, the second has not.
const LOOKS: u8 = 2;
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
    /// So many more look-ups are to find the topic.
    looks: u8,
}

impl Departed {
    /// Such a partition is read here again.
    pub(super) fn is_back(&mut self, number: i32) {
        self.left.remove(&number);
    }

    /// A look-up found the topic that they are of.
    pub(super) fn topic_found(&mut self) {
        self.left.retain(|_, left| {
            left.looks = left.looks.saturating_sub(1);
            left.looks > 0
        });
    }

    /// Their topic is gone.
    pub(super) fn topic_gone(&mut self) {
        self.gone.extend(std::mem::take(&mut self.left).into_values());
    }

    /// Whether something is to be said that no later start could say.
    pub(super) fn owes(&self) -> bool {
        !self.gone.is_empty() || !self.entries.is_empty() || self.recording.is_some()
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

impl<S: Source, J: Journal> Job<S, J> {
    /// Notes how far partitions are that leave. One that was never located tells nothing.
    pub(super) fn note_departures(&mut self, numbers: &[i32]) {
        for number in numbers {
            let Some(reader) = self.readers.get(number) else { continue };
            let Some(end) = reader.end else { continue };
            let had = reader.sinks.iter().map(Progress::has).collect();
            let partition = reader.partition.clone();
            let left = Left { partition, had, end, looks: LOOKS };
            if !reader.is_leaving() {
                self.departed.left.insert(*number, left);
            } else if !reader.is_drained() {
                self.departed.gone.push(left);
            }
        }
    }

    /// Says what is missing of partitions that went with their topic.
    pub(super) async fn tell_departed(&mut self, now: Instant) -> Result<(), JobError> {
        if self.gate.is_missing_for(MISSING_FOR) {
            self.departed.topic_gone();
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
        // Of what a reader still stands for, sinks hold rows, or are about to.
        let holds = |one: &Reader| !(one.is_leaving() && one.is_drained());
        let is_held = |left: &Left| {
            let mut readers = self.readers.values();
            readers.any(|one| one.partition == left.partition && holds(one))
        };
        let (held, mut gone): (Vec<Left>, Vec<Left>) =
            std::mem::take(&mut self.departed.gone).into_iter().partition(is_held);
        self.departed.gone = held;
        if gone.is_empty() {
            return Ok(());
        }
        let partitions: Vec<Partition> = gone.iter().map(|left| left.partition.clone()).collect();
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            let answer = place.sink.assign(&partitions).await;
            drop(place.sink.take_lost()); // nobody can fill it any more, and it was told before
            place.sink.revoke(&partitions);
            match answer {
                Ok(marks) => {
                    for left in &mut gone {
                        let mark = marks.get(&left.partition).map(|mark| mark.offset);
                        left.had[at] = left.had[at].max(mark);
                    }
                }
                Err(error) if error.passes() => {
                    let cause = format!("{}: {error}", place.name);
                    self.departed.gone.extend(gone);
                    self.departed.backoff.failed(now);
                    self.note_trouble(cause);
                    return Ok(());
                }
                Err(error) => return Err(self.sink_failed(self.places[at].name, error)),
            }
        }
        self.departed.backoff.succeeded();
        for left in &gone {
            self.tell_missing(left);
        }
        Ok(())
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
