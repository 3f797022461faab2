//! The job: one topic, read once, written to one or more sinks, exactly once per offset.
//!
//! ```text
//! poll -> decode -> gate -> dead letters acknowledged -> every sink -> flush -> Kafka commit
//! '---- source ---'  '----------------------- event_loop ------------------------------'
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`source`] | where batches come from, as the loop sees it |
//! | `event_loop` | the loop: events, time, status |
//! | `assign` | from given to read: marks, bounds, gaps; and back |
//! | `advance` | from read to written |
//! | `durable` | from written to committed |
//! | `reader`, `marks` | one partition; one sink's progress in it |
//! | `gate` | is the topic still the one that was read? |
//! | [`journal`], [`gaps`], [`dead_letters`] | what could not be stored is written down |
//! | `reject_share`, `backoff` | when to stop, when to try again |
//! | [`status`] | what the outside sees |
//!
//! **Invariant:** a sink's own store is the truth about what is durable; a start asks the stores, never
//! Kafka's committed offset, which is a report.
//! **Invariant:** when anything fails for good, nothing is cleaned up that a crash would not leave: the
//! way to go on is the same after both.

use std::sync::Arc;

use aion_sinks::sink::SinkError;

mod advance;
mod assign;
mod backoff;
pub mod dead_letters;
mod durable;
mod event_loop;
pub mod gaps;
mod gate;
pub mod journal;
mod marks;
#[cfg(test)]
mod model;
mod reader;
mod reject_share;
mod rules;
pub mod source;
pub mod status;

/// Why a job stopped: a person has to act.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A sink can't give its guarantee.
    #[error("job {job}: {sink}: {source}")]
    Sink {
        /// The job's name.
        job: Arc<str>,
        /// The sink's name.
        sink: &'static str,
        /// What the sink said, with a hint.
        source: SinkError,
    },
    /// The topic can't be read.
    #[error("job {job}: {cause}; {hint}")]
    Source {
        /// The job's name.
        job: Arc<str>,
        /// What was being done and why it failed.
        cause: String,
        /// What to change.
        hint: String,
    },
}
