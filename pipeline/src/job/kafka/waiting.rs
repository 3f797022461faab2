//! Partitions whose next record waits for its schema.

use std::time::{Duration, Instant};

use super::{book::News, poller::Poller};
use crate::job::source::Event;

/// How often people are told that a partition waits.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Poller {
    /// Asks for the schemas that records wait for, tells decoders what was learned, and goes on where a
    /// partition waited for it.
    pub(super) fn tend_schemas(&mut self, now: Instant) {
        let Some(schemas) = &mut self.schemas else { return };
        for cutter in self.cutters.values_mut() {
            if let Some(wanted) = cutter.wanted
                && cutter.is_new_wait()
            {
                schemas.book.want(wanted.id, now);
                let (partition, run) = (cutter.partition.number, cutter.run);
                let waits = Event::WaitsForSchema { partition, run, id: Some(wanted.id) };
                self.outbox.push_back(waits);
            }
        }
        schemas.tend(now);
        for news in schemas.book.take_news() {
            for cutter in self.cutters.values_mut() {
                match &news {
                    News::Learn(id, writer) => cutter.rows.learn(*id, writer.clone()),
                    News::Forget(id) => cutter.rows.forget(*id),
                }
            }
        }
        let is_over = |id| schemas.book.knows(id);
        let over =
            self.cutters.values().filter(|cutter| cutter.wanted.is_some_and(|w| is_over(w.id)));
        let over: Vec<i32> = over.map(|cutter| cutter.partition.number).collect();
        for number in over {
            self.go_on(number);
        }
        self.tell_of_schemas(now);
    }

    /// The schema is known: reads on from the record that waited for it.
    fn go_on(&mut self, number: i32) {
        let name = self.name(number);
        let Some(cutter) = self.cutters.get_mut(&number) else { return };
        cutter.stop_waiting();
        let (run, at) = (cutter.run, cutter.position());
        if cutter.is_open() && !self.is_holding {
            self.consumer.resume(&name);
        }
        self.outbox.push_back(Event::WaitsForSchema { partition: number, run, id: None });
        if let Err(error) = self.consumer.seek(&name, at.offset, at.epoch) {
            self.trouble(&error);
        }
    }

    fn tell_of_schemas(&mut self, now: Instant) {
        let Some(schemas) = &self.schemas else { return };
        let since = |told: Instant| now.saturating_duration_since(told);
        if self.told_of_schemas.is_some_and(|told| since(told) < TELL_EVERY) {
            return;
        }
        let waits = self.cutters.values().find_map(|cutter| {
            let wanted = cutter.wanted?;
            Some((cutter, wanted, schemas.book.why(wanted.id)?))
        });
        let Some((cutter, wanted, why)) = waits else { return };
        let (partition, id) = (&cutter.partition, wanted.id.0);
        let text =
            format!("{partition} waits at offset {} for schema id {id}: {why}", wanted.offset);
        self.told_of_schemas = Some(now);
        self.outbox.push_back(Event::Trouble(text));
    }
}
