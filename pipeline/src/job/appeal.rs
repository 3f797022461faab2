//! A partition of which too much was rejected waits for a person: who decides that the rejected may be dead
//! letters writes so to `aion.operator-decisions`, and the owner of the partition, whichever process that is
//! by then, goes on.
//!
//! Asked is only for partitions that stopped, every few seconds. A decision covers the offsets below one: so
//! it holds after a restart and for the next owner too, and not for what comes later.

use std::time::{Duration, Instant};

use aion_schemas::log::{Offset, Partition};

use super::{
    event_loop::Job,
    journal::Journal,
    reader::Phase,
    source::{Command, Source},
};

/// How often it is looked whether somebody has decided.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// The key under which decisions about a partition stand.
pub fn key(job: &str, partition: &Partition) -> String {
    format!("{job}:{}:{}", partition.stream.id, partition.number)
}

impl<S: Source, J: Journal> Job<S, J> {
    /// Looks for decisions about partitions that wait for one.
    pub(super) async fn consult(&mut self, now: Instant) {
        let mut due = Vec::new();
        for reader in self.readers.values_mut() {
            let Some(ask_at) = &mut reader.asks_at else { continue };
            if matches!(reader.phase, Phase::Stopped(_)) && *ask_at <= now {
                *ask_at = now + ASK_EVERY;
                due.push(reader.partition.clone());
            }
        }
        for partition in due {
            let key = key(&self.plan.job, &partition);
            self.source.command(Command::Consult { partition, key }).await;
        }
    }

    /// Somebody decided that what is rejected below an offset stops nothing. What was known before has not
    /// helped: the partition has stopped all the same.
    pub(super) async fn decided(&mut self, partition: &Partition, below: Offset, now: Instant) {
        let Some(reader) = self.readers.get_mut(&partition.number) else { return };
        let is_news = below > reader.accepted_below;
        if reader.partition != *partition || reader.asks_at.is_none() || !is_news {
            return;
        }
        tracing::warn!(
            job = %self.plan.job, topic = %partition.stream.topic, partition = partition.number,
            offset = below.get(), "an operator accepts what is rejected below the offset"
        );
        reader.accepted_below = below;
        self.restart(partition.number, now).await;
    }
}
