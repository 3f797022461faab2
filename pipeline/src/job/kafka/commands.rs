//! What the reader thread does when the job says so.

use std::time::{Duration, Instant};

use aion_kafka::{Error, Wait};
use aion_schemas::log::{Mark, Offset, Partition};
use aion_sinks::fault;

use super::{cutter::Cutter, poller::Poller};
use crate::job::source::Command;

/// How long a commit may hold the thread up when partitions are leaving.
const COMMIT_WAIT: Duration = Duration::from_secs(5);

impl Poller {
    /// Does what the job said.
    pub(super) fn obey(&mut self, command: Command) {
        let outcome = match command {
            Command::Locate { partition, run } => {
                self.locating.want(partition, run, Instant::now());
                Ok(())
            }
            Command::Start { partition, run, at } => self.start(partition, run, at),
            Command::Refuse { partition, offset, cause } => {
                self.refused.entry(partition).or_default().insert(offset, cause);
                Ok(())
            }
            Command::Halt(number) => self.halt(number),
            Command::Pause(number) | Command::Resume(number) => {
                self.pause(number, matches!(command, Command::Pause(_)));
                Ok(())
            }
            Command::Consult { partition, key } => {
                // When a question is out, the job asks again.
                self.lookups.ask_decision(partition, key);
                Ok(())
            }
            Command::Look => {
                self.look.is_wanted = true;
                Ok(())
            }
            Command::Commit { marks, wait } => {
                self.commit(marks, wait);
                Ok(())
            }
            Command::Release(numbers) => {
                let partitions: Vec<_> = numbers.iter().map(|at| self.name(*at)).collect();
                for number in numbers {
                    self.forget(number);
                }
                self.consumer.release(&partitions)
            }
        };
        match outcome {
            Ok(()) => {}
            // Its partitions are somebody else's by now; the group says so in an event of its own.
            Err(error @ Error::NotMember { .. }) => tracing::debug!(%error),
            Err(error) => self.trouble(&error),
        }
    }

    fn start(&mut self, partition: Partition, run: u64, at: Mark) -> Result<(), Error> {
        let name = self.name(partition.number);
        match self.consumer.position(&name) {
            Some(_) => self.consumer.seek(&name, at.offset, at.epoch)?,
            None => self.consumer.start(&name, at.offset, at.epoch)?,
        }
        if self.is_holding {
            self.consumer.pause(&name);
        } else {
            self.consumer.resume(&name);
        }
        let number = partition.number;
        self.locating.forget(number);
        // What lies below a mark is settled.
        self.refused.retain(|of, offsets| {
            if *of == partition {
                *offsets = offsets.split_off(&at.offset);
            }
            !offsets.is_empty()
        });
        let refused = self.refused.get(&partition).cloned().unwrap_or_default();
        let mut cutter = Cutter::new(partition, run, at, (self.make_rows)());
        cutter.refused = refused;
        if let Some(schemas) = &self.schemas {
            cutter.asks = true;
            for (id, writer) in schemas.book.known() {
                cutter.rows.learn(id, writer.clone());
            }
        }
        self.cutters.insert(number, cutter);
        Ok(())
    }

    /// Stops reading a partition that stays owned. One that was never started gets its answer by this.
    fn halt(&mut self, number: i32) -> Result<(), Error> {
        self.forget(number);
        let name = self.name(number);
        if self.consumer.position(&name).is_some() {
            self.consumer.pause(&name);
            return Ok(());
        }
        self.consumer.release(&[name])
    }

    fn pause(&mut self, number: i32, pause: bool) {
        let name = self.name(number);
        let Some(cutter) = self.cutters.get_mut(&number) else { return };
        cutter.is_paused = pause;
        if !cutter.is_open() || self.is_holding {
            self.consumer.pause(&name);
        } else {
            self.consumer.resume(&name);
        }
    }

    fn commit(&mut self, marks: Vec<(i32, Offset, String)>, wait: bool) {
        let numbers = marks.iter().map(|(number, ..)| *number).collect();
        let named = |(number, offset, text)| (self.name(number), offset, text);
        let marks: Vec<_> = marks.into_iter().map(named).collect();
        let wait = if wait { Wait::UpTo(COMMIT_WAIT) } else { Wait::Async };
        fault::point("job.before_offset_commit");
        if let Err(error) = self.consumer.commit(&marks, wait) {
            self.commit_failed(numbers, &error);
        }
        fault::point("job.after_offset_commit");
    }

    /// Nothing holds for these partitions any more: neither what is being read nor what is asked.
    pub(super) fn forget(&mut self, number: i32) {
        self.cutters.remove(&number);
        self.locating.forget(number);
    }
}
