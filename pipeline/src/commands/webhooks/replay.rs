//! `aion webhooks replay`: deliveries once more, with the ids that they had.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use aion_kafka::{Isolation, Spot, TopicPartition};
use anyhow::Context;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use uuid::Uuid;

use super::place::{Place, PlaceArgs};
use crate::{
    audit::Since,
    exit::{Exit, Failure},
    job::times::parse_rfc3339,
    small_topic,
    webhooks::{
        control::{Control, RedoRange},
        pattern::any_matches,
        records::Letter,
        topics::DEAD_LETTERS,
    },
};

/// Dead letters of one control record: a quarter of a cursor's holes.
const LETTERS: usize = 256;
/// Ranges of one control record, each for a cursor of its own.
const RANGES: usize = 1_000;
/// How often the progress is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The arguments of `aion webhooks replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// The endpoint.
    endpoint: String,
    /// Events that were appended since: a time in RFC 3339, or how long ago, such as 2h. With --dead-letters:
    /// those that were given up since.
    #[arg(long, value_name = "TIME", required_unless_present = "dead_letters")]
    from: Option<Since>,
    /// And before this time; without it, up to what it has got so far.
    #[arg(long, value_name = "TIME", conflicts_with = "dead_letters")]
    to: Option<Since>,
    /// Its dead letters, from the letters themselves: their topics may have dropped the events.
    #[arg(long)]
    dead_letters: bool,
    /// Ask for it, and don't wait until it is done.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs it.
pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let place = args.place.open()?;
    let endpoint = Arc::clone(&place.endpoint(&args.endpoint)?.id);
    let (controls, count) = if args.dead_letters {
        letters(args, &place, &endpoint)?
    } else {
        ranges(args, &place, &endpoint)?
    };
    if controls.is_empty() {
        println!("there is nothing to deliver once more");
        return Ok(ExitCode::SUCCESS);
    }
    let before = place.controls()?.next;
    place.ask(&endpoint, &controls)?;
    println!("{} events are delivered to {endpoint} once more", HumanCount(count));
    if !args.no_wait {
        wait(&place, &endpoint, before, count)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The offsets of a stretch of time, of every partition that the endpoint has a cursor in.
fn ranges(
    args: &ReplayArgs,
    place: &Place,
    endpoint: &Arc<str>,
) -> anyhow::Result<(Vec<Control>, u64)> {
    let config = place.endpoint(endpoint)?;
    let names = place.admin.topics()?;
    let is_its = |name: &&String| any_matches(&config.patterns, name, &place.catalog);
    let names: Vec<_> = names.iter().filter(is_its).map(String::as_str).collect();
    let from = args.from.map_or(Spot::First, |since| Spot::At(since.time()));
    let to = args.to.map_or(Spot::Next, |since| Spot::At(since.time()));
    let (mut ranges, mut count) = (Vec::new(), 0);
    for topic in place.admin.topic_ids(&names)? {
        let Some(topic_id) = topic.id else { continue };
        let at = |spot| -> Vec<_> {
            let partitions =
                (0..topic.partitions as i32).map(|n| TopicPartition::new(&topic.topic, n));
            partitions.map(|partition| (partition, spot)).collect()
        };
        let firsts = place.admin.offsets(&at(from), Isolation::Committed)?;
        let nexts = place.admin.offsets(&at(to), Isolation::Committed)?;
        for ((partition, from), to) in (0..).zip(firsts).zip(nexts) {
            if from < to {
                count += (to - from).unsigned_abs();
                ranges.push(RedoRange { topic_id, partition, from: from.get(), to: to.get() });
            }
        }
    }
    let control = |ranges: &[RedoRange]| Control::Redo {
        endpoint: Arc::clone(endpoint),
        ranges: ranges.to_vec(),
    };
    Ok((ranges.chunks(RANGES).map(control).collect(), count))
}

/// The place of the dead letter of each offset.
type Events = BTreeMap<i64, (i32, i64)>;

/// The endpoint's dead letters: the last of each event.
fn letters(
    args: &ReplayArgs,
    place: &Place,
    endpoint: &Arc<str>,
) -> anyhow::Result<(Vec<Control>, u64)> {
    let since = args.from.map(Since::time);
    let mut found: BTreeMap<(Uuid, i32), Events> = BTreeMap::new();
    let numbers = place.admin.topic_ids(&[DEAD_LETTERS])?;
    let count = numbers.first().map_or(0, |one| one.partitions) as i32;
    // The reader doesn't say which partition a record is of.
    for number in 0..count {
        let mut current = -1;
        small_topic::each(
            &place.connection,
            &place.admin,
            DEAD_LETTERS,
            |_, partition| {
                Some(if partition == number {
                    aion_schemas::log::Offset(0)
                } else {
                    aion_schemas::log::Offset(i64::MAX)
                })
            },
            |record| {
                current = record.offset.get();
                let letter = serde_json::from_slice::<Letter>(record.value.unwrap_or_default());
                let Ok(letter) = letter else { return };
                let is_since = since.is_none_or(|since| {
                    parse_rfc3339(&letter.buried_at).is_some_and(|at| at >= since)
                });
                if letter.endpoint != **endpoint || !is_since {
                    return;
                }
                if let Ok(topic_id) = letter.topic_id.parse() {
                    let events = found.entry((topic_id, letter.partition)).or_default();
                    events.insert(letter.offset, (number, current));
                }
            },
        )
        .context("read the dead letters of webhooks")?;
    }
    let (mut controls, mut count) = (Vec::new(), 0);
    for ((topic_id, partition), events) in found {
        let events: Vec<_> = events.into_iter().map(|(offset, (p, o))| (offset, p, o)).collect();
        count += events.len() as u64;
        controls.extend(events.chunks(LETTERS).map(|letters| Control::Letters {
            endpoint: Arc::clone(endpoint),
            topic_id,
            partition,
            letters: letters.to_vec(),
        }));
    }
    Ok((controls, count))
}

/// Waits until nothing is left of it, as the stored cursors say.
fn wait(place: &Place, endpoint: &str, asked_at: i64, count: u64) -> anyhow::Result<()> {
    let bar =
        if io::stderr().is_terminal() { ProgressBar::new(count) } else { ProgressBar::hidden() };
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {human_pos} of {human_len}, {eta} left")
    {
        bar.set_style(style);
    }
    let start = Instant::now();
    loop {
        std::thread::sleep(LOOK);
        let (mut left, mut has_obeyed) = (0, false);
        for stored in place.cursors()?.iter().filter(|one| one.about.endpoint == endpoint) {
            has_obeyed |= stored.cursor.control > asked_at;
            left += stored
                .cursor
                .redo
                .iter()
                .map(|one| (one.end - one.start).unsigned_abs())
                .sum::<u64>();
            left += stored.cursor.holes.len() as u64;
        }
        bar.set_position(count.saturating_sub(left));
        if has_obeyed && left == 0 {
            bar.finish_and_clear();
            println!("done in {:.1} s", start.elapsed().as_secs_f64());
            return Ok(());
        }
        let controls = place.controls()?;
        let config = place.endpoint(endpoint)?;
        if let Some(reason) = controls.disabled(endpoint, &config.fingerprint()) {
            bar.finish_and_clear();
            let what =
                format!("{endpoint} is disabled ({reason}): it is delivered once it is enabled");
            return Err(Failure::new(Exit::Failed, what).into());
        }
    }
}
