//! The journal of the model: entries land in the world, or don't, or do and are not acknowledged.

use aion_schemas::log::Partition;
use aion_sinks::memory::Store;
use serde_json::Value;

use super::{
    seen::Thing,
    sinks::pause,
    world::{JournalFault, SINKS, Shared, ToldGap, World, lock},
};
use crate::job::journal::{Entry, Journal, Ledger, NotAcknowledged, Recorded};

#[derive(Clone)]
pub(super) struct ModelJournal {
    pub(super) world: Shared<World>,
    pub(super) stores: Vec<Store>,
}

impl Journal for ModelJournal {
    fn record(&mut self, entries: Vec<Entry>) -> Recorded {
        Box::pin(self.clone().write(entries))
    }
}

impl ModelJournal {
    async fn write(self, mut entries: Vec<Entry>) -> Result<(), NotAcknowledged> {
        let turns = lock(&self.world).journal_turns;
        for _ in 0..=turns {
            pause().await;
        }
        let fault = self.meet();
        let landed = match fault {
            Some(JournalFault::Refused) => 0,
            Some(JournalFault::Torn) => 1,
            Some(JournalFault::Unacknowledged) | None => entries.len(),
        };
        for entry in entries.iter().take(landed) {
            match entry.ledger {
                Ledger::DeadLetters => self.letter(entry),
                Ledger::Gaps => self.gap(entry),
            }
        }
        for _ in 0..=turns {
            pause().await;
        }
        let Some(fault) = fault else { return Ok(()) };
        let topic = entries[0].ledger.topic();
        if fault == JournalFault::Torn {
            entries.remove(0);
            if entries.is_empty() {
                return Ok(());
            }
        }
        Err(NotAcknowledged { topic, cause: format!("{fault:?}"), entries })
    }

    /// Uses up the fault that is scripted.
    fn meet(&self) -> Option<JournalFault> {
        let mut world = lock(&self.world);
        let fault = world.journal_fault.take()?;
        world.seen.note(Thing::OfJournal(fault), 1);
        Some(fault)
    }

    fn letter(&self, entry: &Entry) {
        let value = std::str::from_utf8(entry.value.as_ref().unwrap()).unwrap();
        let mut world = lock(&self.world);
        world.letters_written += 1;
        world.letters.insert(entry.key.clone(), value.parse().unwrap());
    }

    fn gap(&self, entry: &Entry) {
        let value: Value = serde_json::from_slice(entry.value.as_ref().unwrap()).unwrap();
        let mut world = lock(&self.world);
        let id = value["topic_id"].as_str().unwrap().parse().unwrap();
        let mut stream = world.stream();
        stream.id = id;
        let partition = Partition { stream, number: value["partition"].as_i64().unwrap() as i32 };
        let sinks = std::str::from_utf8(&entry.headers[0].1).unwrap();
        let sinks: Vec<String> = sinks.split(',').map(str::to_owned).collect();
        let has_mark = |sink: &String| {
            let at = SINKS.iter().position(|name| name == sink).unwrap();
            self.stores[at].marks().contains_key(&partition)
        };
        world.gaps.push(ToldGap {
            had_marks: sinks.iter().all(has_mark),
            first: value["first"].as_i64().unwrap(),
            next: value["next"].as_i64().unwrap(),
            diverged: value["reason"] == "diverged",
            deleted: value["reason"] == "topic_deleted",
            partition,
            sinks,
        });
    }
}
