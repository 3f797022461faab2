//! Believable events: a simulated router's life, as messages on standard output or in Kafka.
//!
//! [`Life`] makes events, [`Messages`] encodes them (and breaks some on request), [`run`] is the
//! command, and [`Feed`] sends without end.
//!
//! **Invariant:** the same seed, start, topics and rate give the same bytes, on every platform.

use std::time::SystemTime;

use aion_schemas::log::Timestamp;
use anyhow::Context;
use indicatif::HumanCount;

mod args;
mod audit;
mod avro;
mod broken;
mod container;
mod delivery;
mod event;
mod feed;
mod json;
mod life;
mod messages;
mod metrics;
mod output;
mod pace;
mod proposals;
mod random;
mod task;
mod world;

pub use args::GenerateArgs;
pub use broken::{Breakage, Share};
pub use delivery::Counters;
pub use event::{Event, Fields, Topic, Value};
pub use feed::Feed;
pub use life::Life;
pub use messages::{Encoder, Message, Messages, Tally};
use pace::Pace;
pub use proposals::Proposals;

/// Makes the events and hands them over. Returns when each has been taken, by the reader of
/// standard output or durably by Kafka, and fails where one wasn't. Waits in place, so it isn't
/// for an async runtime's thread.
#[expect(clippy::needless_pass_by_value, reason = "a command ends with its arguments")]
pub fn run(args: GenerateArgs) -> anyhow::Result<()> {
    let (topics, connection) = (args.topics(), args.connection()?);
    let (encoder, file) = args.encoder(connection.as_ref())?;
    let start = args.start(now());
    let life = Life::new(args.seed, start, &topics, args.event_rate());
    let mut messages = Messages::new(life, encoder, args.bad_share);
    let pace = args.rate.map(Pace::new);
    match connection {
        None => output::to_stdout(&mut messages, args.count, pace, file)
            .context("write events to standard output")?,
        Some(connection) => {
            output::check_topics(&connection, &topics)?;
            output::to_kafka(&connection, &mut messages, args.count, pace)?;
        }
    }
    report(&messages.tally(), &args, start);
    Ok(())
}

/// The clock's time; a clock set before 1970 counts as 1970.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}

/// Tells people, on standard error, what was made and how to make it again.
fn report(tally: &Tally, args: &GenerateArgs, start: Timestamp) {
    let topics = Topic::ALL.iter().zip(tally.topics).filter(|(_, count)| *count > 0);
    let topics = topics.map(|(topic, count)| format!("{} {}", HumanCount(count), topic.table()));
    let mut when = Vec::new();
    json::push_time(&mut when, start);
    let when = String::from_utf8_lossy(&when);
    let rate = args.rate.map_or_else(String::new, |rate| format!(" --rate {rate}"));
    let topics = topics.collect::<Vec<_>>().join(", ");
    eprintln!("made {topics}; again with --seed {} --start {when}{rate}", args.seed);
    let broken = Breakage::ALL.iter().zip(tally.broken).filter(|(_, count)| *count > 0);
    let broken = broken.map(|(breakage, count)| format!("{} {breakage}", HumanCount(count)));
    let broken = broken.collect::<Vec<_>>().join(", ");
    if !broken.is_empty() {
        eprintln!("broken on purpose: {broken}");
    }
}

#[cfg(test)]
mod tests;
