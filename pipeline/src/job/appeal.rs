//! A partition that stopped waits for a person. What is decided is written to `aion.operator-decisions`, and the
//! owner of the partition, whichever process that is by then, goes on by it.
//!
//! | it stopped because | a person may decide |
//! |---|---|
//! | too much was rejected | `accept`: what is rejected below an offset is dead letters |
//! | the log was cut below what is stored | `keep`: what is stored stays, and the log's records there are passed over; `replace`: the rows were taken out of the store, and the log's records take their place |
//!
//! Asked is only for partitions that stopped, every few seconds. A decision covers offsets: so it holds after a
//! restart and for the next owner too, and not for what comes later.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use aion_schemas::log::{Offset, Partition};
use serde::{Deserialize, Serialize};

use super::{
    event_loop::Job,
    journal::Journal,
    reader::Phase,
    source::{Command, Source},
};

/// How often it is looked whether somebody has decided.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether what is rejected may be dead letters.
    Rejects,
    /// What becomes of stored rows whose records the log has lost.
    Divergence,
}

/// What a person has decided, as the topic has it beside who, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// What is rejected stops nothing.
    Accept {
        /// The first offset that isn't covered.
        below: i64,
    },
    /// What is stored of a cut log stays.
    Keep {
        /// Where the log was cut.
        first: i64,
        /// The mark.
        below: i64,
    },
    /// What was stored of a cut log is out of the store, and its mark is at the cut.
    Replace {
        /// Where the log was cut.
        first: i64,
        /// Where the mark was.
        below: i64,
    },
}

/// What was decided about a log that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The rows of these offsets stay.
    Kept(Range<Offset>),
    /// They are gone, for those of the log.
    Replaced(Range<Offset>),
}

/// The key under which the answers to a question about a partition stand.
pub fn key(job: &str, partition: &Partition, question: Question) -> String {
    let about = match question {
        Question::Rejects => "",
        Question::Divergence => ":diverged",
    };
    format!("{job}:{}:{}{about}", partition.stream.id, partition.number)
}

impl<S: Source, J: Journal> Job<S, J> {
    /// Looks for decisions about partitions that wait for one.
    pub(super) async fn consult(&mut self, now: Instant) {
        let mut due = Vec::new();
        for reader in self.readers.values_mut() {
            let Some((question, ask_at)) = &mut reader.asks else { continue };
            if matches!(reader.phase, Phase::Stopped(_)) && *ask_at <= now {
                *ask_at = now + ASK_EVERY;
                due.push((reader.partition.clone(), *question));
            }
        }
        for (partition, question) in due {
            let key = key(&self.plan.job, &partition, question);
            self.source.command(Command::Consult { partition, key }).await;
        }
    }

    /// Somebody has decided. What was known before has not helped: the partition has stopped all the same.
    pub(super) async fn decided(
        &mut self,
        partition: &Partition,
        decision: &Decision,
        now: Instant,
    ) {
        let Some(reader) = self.readers.get_mut(&partition.number) else { return };
        let Some((question, _)) = reader.asks else { return };
        if reader.partition != *partition {
            return;
        }
        let what = match *decision {
            Decision::Accept { below } => {
                let below = Offset(below);
                if question != Question::Rejects || below <= reader.accepted_below {
                    return;
                }
                reader.accepted_below = below;
                format!("accepts what is rejected below {below}")
            }
            Decision::Keep { first, below } | Decision::Replace { first, below } => {
                let range = Offset(first)..Offset(below);
                let (settled, does) = match decision {
                    Decision::Keep { .. } => (Settled::Kept(range), "keeps"),
                    _ => (Settled::Replaced(range), "has taken back"),
                };
                if question != Question::Divergence || reader.settled.as_ref() == Some(&settled) {
                    return;
                }
                reader.settled = Some(settled);
                format!("{does} what is stored of {first}..{below}")
            }
        };
        tracing::warn!(
            job = %self.plan.job, topic = %partition.stream.topic, partition = partition.number,
            "an operator {what}"
        );
        self.restart(partition.number, now).await;
    }
}
