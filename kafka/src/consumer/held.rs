//! A started partition: its queue, its position, and whether it can be read now.

use std::time::Instant;

use aion_schemas::log::Offset;
use rdkafka::bindings::rd_kafka_resp_err_t as Code;

use super::{
    Event, Fetched, RETRY,
    place::{Below, Place},
};
use crate::{
    Error, TopicPartition,
    native::{Message, Queue, describe},
};

/// A partition between `start` and `release`.
pub(super) struct Held {
    pub(super) queue: Queue,
    place: Place,
    pub(super) paused: bool,
    /// librdkafka fetches nothing of it yet.
    pub(super) gated: bool,
    state: State,
    /// Seeks that failed one after the other.
    failures: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// librdkafka has to be told to start at the target.
    Starting,
    /// librdkafka reads there.
    Reading,
    /// librdkafka has to be brought to the target first, not before this time.
    Settling(Instant),
    /// The position isn't in the log; the caller has to seek.
    Stopped,
    /// The group takes it back; the caller has to release it.
    Leaving,
}

const MANY: u32 = 20;
pub(crate) const END: i32 = Code::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32;
pub(crate) const NO_OFFSET: i32 = Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET as i32;
pub(crate) const TRUNCATED: i32 = Code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION as i32;
/// After these librdkafka goes on behind the records that it couldn't read.
pub(crate) const UNREADABLE: [i32; 4] = [
    Code::RD_KAFKA_RESP_ERR__BAD_MSG as i32,
    Code::RD_KAFKA_RESP_ERR__BAD_COMPRESSION as i32,
    Code::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED as i32,
    Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as i32,
];

impl Held {
    /// A partition that librdkafka is to be told to start at this position.
    pub(super) fn new(queue: Queue, position: Offset, epoch: i32) -> Held {
        let state = State::Starting;
        let place = Place::new(position, epoch);
        Held { queue, place, paused: false, gated: false, state, failures: 0 }
    }

    /// The next wanted offset.
    pub(super) fn position(&self) -> Offset {
        self.place.position()
    }

    /// Where librdkafka is to read, and the leader epoch to compare the log with; -1 for none.
    pub(super) fn target(&self) -> (Offset, i32) {
        self.place.target()
    }

    pub(super) fn is_starting(&self) -> bool {
        self.state == State::Starting
    }

    /// Notes that librdkafka was told to start, and holds the partition back.
    ///
    /// A seek follows, since librdkafka compares leader epochs on a seek but not on a start; what
    /// it would fetch before could be answered with "out of range", and hide that the log was cut.
    pub(super) fn started(&mut self) {
        (self.gated, self.failures) = (true, 0);
        self.state = State::Settling(Instant::now());
    }

    pub(super) fn is_reading(&self) -> bool {
        self.state == State::Reading
    }

    /// Whether `poll` should return for this partition.
    pub(super) fn has_records(&self) -> bool {
        self.is_reading() && !self.paused && self.queue.len() > 0
    }

    /// When librdkafka is to be brought to the position, if it has to be.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Settling(due) => Some(due),
            _ => None,
        }
    }

    /// Notes the outcome of bringing librdkafka to the position.
    pub(super) fn sought(&mut self, done: bool, again: Instant) {
        self.gated &= !done;
        self.failures = if done { 0 } else { self.failures + 1 };
        self.state = match self.failures {
            0 => State::Reading,
            1..MANY => State::Settling(again),
            // It may have given up for a reason that nobody has read; it has to begin anew.
            MANY.. => State::Starting,
        };
    }

    /// Moves to another position.
    pub(super) fn go_to(&mut self, position: Offset, epoch: i32) {
        self.place = Place::new(position, epoch);
        self.state = match self.state {
            State::Leaving => State::Leaving,
            // librdkafka doesn't seek where it gave up.
            State::Stopped | State::Starting => State::Starting,
            State::Reading | State::Settling(_) => State::Settling(Instant::now()),
        };
    }

    /// Makes librdkafka read from the target again, unless the caller has to act first.
    pub(super) fn go_back(&mut self) {
        if self.is_reading() {
            self.state = State::Settling(Instant::now());
        }
    }

    pub(super) fn leave(&mut self) {
        self.state = State::Leaving;
    }

    pub(super) fn nothing(&self) -> Fetched {
        Fetched { count: 0, next: self.position(), end: None }
    }

    /// Notes that everything below `next` was handed over.
    pub(super) fn passed(&mut self, next: Offset, epoch: i32) {
        self.place.passed(next, epoch);
    }

    /// Takes note of a record below the position, which isn't handed over.
    pub(super) fn below(
        &mut self,
        partition: &TopicPartition,
        offset: Offset,
        epoch: i32,
    ) -> Option<Event> {
        match self.place.below(offset, epoch) {
            Below::Agreed => None,
            Below::Strayed => {
                self.go_back();
                None
            }
            Below::Cut { end } => {
                self.state = State::Stopped;
                let wanted = self.position();
                let detail = format!(
                    "the record at {offset}, below {wanted}, is of leader epoch {epoch}, later than all that were read"
                );
                let (partition, end) = (partition.clone(), Some(end));
                Some(Event::Truncated { partition, wanted, end, detail })
            }
        }
    }

    /// The end of the partition, if this is what the message in a record's place says. An end below the position is
    /// none.
    pub(super) fn end_of_partition(&mut self, message: Message<'_>) -> Option<Offset> {
        let is_end = message.code() == END && self.place.ended(message.offset());
        is_end.then(|| self.position())
    }

    /// An error in a record's place, as an event unless the caller has nothing to do with it; may stop the partition.
    pub(super) fn error(
        &mut self,
        partition: &TopicPartition,
        message: Message<'_>,
    ) -> Option<Event> {
        let (code, detail) = (message.code(), message.reason());
        if code == NO_OFFSET || code == TRUNCATED {
            let event = self.no_offset(partition, detail);
            let goes_on = match &event {
                Event::Truncated { end, .. } => self.place.search(*end),
                // Of where it is looked for a cut the log has nothing any more: that can't be told.
                _ => self.place.is_searching() && self.place.search(None),
            };
            if goes_on {
                // librdkafka doesn't seek where it gave up.
                self.state = State::Starting;
                return None;
            }
            self.state = State::Stopped;
            return Some(event);
        }
        if code == END {
            self.state = State::Stopped;
            let (partition, wanted) = (partition.clone(), Some(self.position()));
            return Some(Event::OutOfRange { partition, wanted });
        }
        if UNREADABLE.contains(&code) {
            self.state = State::Settling(Instant::now() + RETRY);
        }
        let doing = format!("read {partition} at {}", self.position());
        Some(Event::Failed(Error::of(code, doing, detail)))
    }

    fn no_offset(&self, partition: &TopicPartition, detail: String) -> Event {
        let partition = partition.clone();
        // The reason is told in words only: the sentence ends in the description of the code.
        let truncation = describe(TRUNCATED);
        let words = truncation.split(" (").next().unwrap_or(&truncation);
        if detail.contains(words) {
            let end = number_after(&detail, "broker end offset is ").filter(|end| *end >= 0);
            return Event::Truncated {
                partition,
                wanted: self.position(),
                end: end.map(Offset),
                detail,
            };
        }
        Event::OutOfRange { partition, wanted: Some(self.position()) }
    }
}

/// The number that follows `words` in a sentence.
fn number_after(sentence: &str, words: &str) -> Option<i64> {
    let rest = &sentence[sentence.find(words)? + words.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_common_log_is_read_from_the_sentence() {
        let sentence =
            "detected at offset 9 (leader epoch 2): broker end offset is 7 (offset leader";
        assert_eq!(number_after(sentence, "broker end offset is "), Some(7));
        assert_eq!(number_after("broker end offset is -1", "broker end offset is "), Some(-1));
        assert_eq!(number_after("something else", "broker end offset is "), None);
    }
}
