//! Believable events: a simulated router's life, as messages on standard output or in Kafka.
//!
//! [`Life`] makes events, [`Messages`] encodes them (and breaks some on request), [`run`] is the
//! command.
//!
//! **Invariant:** the same seed, start, topics and rate give the same bytes, on every platform.

use std::{
    io::{self, BufWriter, Write},
    str::FromStr,
    thread,
    time::{Instant, SystemTime},
};

use aion_schemas::log::Timestamp;
use anyhow::{Context, bail};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use indicatif::HumanCount;

mod audit;
mod avro;
mod broken;
mod event;
mod json;
mod life;
mod messages;
mod metrics;
mod pace;
mod random;
mod task;
mod world;

pub use broken::{Breakage, Share};
pub use event::{Event, Fields, Topic, Value};
pub use life::Life;
pub use messages::{Encoder, Message, Messages, Tally};
use pace::Pace;

/// Events a second of a life that isn't paced.
const UNPACED_RATE: f64 = 200.0;

/// What `aion generate` is told.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// Topic to fill, by its name or its table's; may be repeated [default: all]
    #[arg(long = "topic", value_name = "TOPIC", default_value = "all", hide_default_value = true)]
    topics: Vec<Selection>,
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    count: u64,
    /// Where the randomness starts: the same seed and start give the same bytes
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Events a second; without it, as fast as they are taken
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,
    /// Time of the first event, in RFC 3339, or `now` [default: with --rate now, else so that the
    /// last is about now]
    #[arg(long, value_name = "TIME")]
    start: Option<Start>,
    /// Encoding of the bodies
    #[arg(long, value_enum, default_value_t = Encoding::Json)]
    encoding: Encoding,
    /// Id under which the schema registry has the topic's schema; needed for Avro, of one topic, to
    /// a broker
    #[arg(long, value_name = "ID", required_if_eq("encoding", "avro"))]
    schema_id: Option<u32>,
    /// Share of messages to break, from 0 to 1: for trying out dead letters
    #[arg(long, value_name = "P", default_value = "0")]
    bad_share: Share,
}

/// An encoding by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Encoding {
    /// JSON text, one object an event
    Json,
    /// Avro by the contract's schema, in the registry's framing
    Avro,
}

/// What a `--topic` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selection {
    All,
    One(Topic),
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Selection, String> {
        if text == "all" {
            return Ok(Selection::All);
        }
        let named =
            Topic::ALL.into_iter().find(|topic| [topic.name(), topic.table()].contains(&text));
        named.map(Selection::One).ok_or_else(|| {
            let known = Topic::ALL.map(|topic| format!("{} ({})", topic.name(), topic.table()));
            format!("known are all, {}", known.join(", "))
        })
    }
}

/// When a life starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Now,
    At(Timestamp),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Start, String> {
        if text == "now" {
            return Ok(Start::Now);
        }
        let nanos = string_to_timestamp_nanos(text)
            .map_err(|_| "not a time such as 2026-01-31T12:00:00Z".to_owned())?;
        Ok(Start::At(Timestamp(nanos.div_euclid(1000))))
    }
}

fn positive(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(rate) if (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0.001 to 10000000"),
    }
}

/// Makes the events and hands them over; returns when each has been taken.
pub fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let topics = selected(&args.topics);
    if args.encoding == Encoding::Avro {
        bail!("Avro messages have no line form: send them to a broker");
    }
    let rate = args.rate.unwrap_or(UNPACED_RATE);
    let now = now()?;
    let start = match args.start {
        Some(Start::At(start)) => start,
        Some(Start::Now) => now,
        None if args.rate.is_some() => now,
        None => Timestamp(now.0 - (args.count as f64 / rate * 1e6) as i64),
    };
    let life = Life::new(args.seed, start, &topics, rate);
    let mut messages = Messages::new(life, Encoder::Json, args.bad_share);
    to_stdout(&mut messages, args.count, args.rate.map(Pace::new))
        .context("write to standard output")?;
    report(&messages.tally(), args.seed, start);
    Ok(())
}

fn selected(named: &[Selection]) -> Vec<Topic> {
    let wanted =
        |topic: &Topic| named.contains(&Selection::All) || named.contains(&Selection::One(*topic));
    Topic::ALL.into_iter().filter(wanted).collect()
}

fn now() -> anyhow::Result<Timestamp> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("this machine's clock is before 1970")?;
    Ok(Timestamp(since.as_micros() as i64))
}

/// One line an event. A reader that has seen enough (`| head`) isn't a failure.
fn to_stdout(messages: &mut Messages, count: u64, pace: Option<Pace>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match write_lines(&mut out, messages, count, pace).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn write_lines(
    out: &mut impl Write,
    messages: &mut Messages,
    count: u64,
    pace: Option<Pace>,
) -> io::Result<()> {
    let started = Instant::now();
    for number in 0..count {
        if let Some(wait) = pace.and_then(|pace| pace.wait(number, started.elapsed())) {
            out.flush()?;
            thread::sleep(wait);
        }
        let Some(message) = messages.make() else { break };
        out.write_all(message.body)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Tells people, on standard error, what was made and how to make it again.
fn report(tally: &Tally, seed: u64, start: Timestamp) {
    let mut when = Vec::new();
    json::push_time(&mut when, start);
    let topics = Topic::ALL.iter().zip(tally.topics).filter(|(_, count)| *count > 0);
    let topics: Vec<_> =
        topics.map(|(topic, count)| format!("{} {}", HumanCount(count), topic.table())).collect();
    eprintln!(
        "made {} (--seed {seed} --start {})",
        topics.join(", "),
        String::from_utf8_lossy(&when)
    );
    let broken = Breakage::ALL.iter().zip(tally.broken).filter(|(_, count)| *count > 0);
    let broken: Vec<_> =
        broken.map(|(breakage, count)| format!("{} {breakage}", HumanCount(count))).collect();
    if !broken.is_empty() {
        eprintln!("broken on purpose: {}", broken.join(", "));
    }
}
