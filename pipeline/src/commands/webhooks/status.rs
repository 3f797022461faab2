//! `aion webhooks status`: what the stored cursors say, held against the ends of the logs.

use std::{collections::BTreeMap, process::ExitCode};

use aion_kafka::{Isolation, Spot, TopicPartition};

use super::{
    list::span,
    place::{Place, PlaceArgs, Stored},
    print,
};
use crate::{
    commands::sql::format::Format,
    webhooks::{control::Controls, engine::now, topics::GROUP},
};

/// The arguments of `aion webhooks status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// How it is printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    place: PlaceArgs,
}

/// One endpoint's.
#[derive(Default)]
struct Sum {
    lag: i64,
    lost: i64,
    failing: usize,
    oldest: Option<i64>,
    state: Option<String>,
    error: Option<String>,
    stored_at: Option<String>,
}

/// Runs it.
pub(super) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let place = args.place.open()?;
    let (cursors, controls) = (place.cursors()?, place.controls()?);
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for endpoint in &place.policy.endpoints {
        sums.insert(endpoint.id.to_string(), Sum::default());
    }
    let ends = ends(&place, &cursors);
    for stored in &cursors {
        add(sums.entry(stored.about.endpoint.clone()).or_default(), stored, &ends);
    }
    let lost = place.lost()?;
    for (id, sum) in &mut sums {
        sum.lost = lost.get(&format!("{GROUP}-{id}")).copied().unwrap_or(0);
    }
    let rows: Vec<_> = sums.into_iter().map(|(id, sum)| row(&place, &controls, id, sum)).collect();
    let names =
        ["endpoint", "state", "waiting", "failing", "lost", "oldest", "last_error", "as_of"];
    print(args.format, names, &rows)
}

/// The ends of the logs, by topic id and partition: of topics that are still the same.
fn ends(place: &Place, cursors: &[Stored]) -> BTreeMap<(String, i32), i64> {
    let mut names: Vec<_> = cursors.iter().map(|one| one.about.topic.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut ends = BTreeMap::new();
    for topic in place.admin.topic_ids(&names).unwrap_or_default() {
        let Some(id) = topic.id else { continue };
        let at = |number: i32| (TopicPartition::new(&topic.topic, number), Spot::Next);
        let spots: Vec<_> = (0..topic.partitions as i32).map(at).collect();
        let found = place.admin.offsets(&spots, Isolation::Committed).unwrap_or_default();
        for ((partition, _), end) in spots.into_iter().zip(found) {
            ends.insert((id.to_string(), partition.partition), end.get());
        }
    }
    ends
}

fn add(sum: &mut Sum, stored: &Stored, ends: &BTreeMap<(String, i32), i64>) {
    let Stored { about, cursor } = stored;
    let end = ends.get(&(about.topic_id.clone(), about.partition));
    // Where the topic is gone, what is known of its log's end.
    let behind = (end.copied().unwrap_or(about.end) - cursor.next).max(0);
    let redo: i64 = cursor.redo.iter().map(|range| range.end - range.start).sum();
    sum.lag += behind + redo + cursor.holes.len() as i64;
    let tried = || cursor.holes.values().filter(|hole| hole.attempts > 0);
    sum.failing += tried().count();
    sum.oldest = sum.oldest.into_iter().chain(tried().map(|hole| hole.first_at)).min();
    if sum.stored_at.as_deref() < Some(about.stored_at.as_str()) {
        sum.stored_at = Some(about.stored_at.clone());
        sum.state = Some(about.state.clone());
        sum.error.clone_from(&about.error);
    }
}

fn row(place: &Place, controls: &Controls, id: String, sum: Sum) -> [Option<String>; 8] {
    let endpoint = place.policy.endpoint(&id);
    let disabled = endpoint.and_then(|one| controls.disabled(&id, &one.fingerprint()));
    let (state, error) = match (endpoint, disabled) {
        (None, _) => ("not in the policy".to_owned(), sum.error),
        (_, Some(reason)) => ("disabled".to_owned(), Some(reason.to_owned())),
        // It is newer than the last cursor, which may be of before.
        _ if sum.state.as_deref() == Some("disabled") => ("live".to_owned(), None),
        _ => (sum.state.unwrap_or_else(|| "nothing delivered yet".to_owned()), sum.error),
    };
    let age = sum.oldest.map(|at| span((now() - at).max(0).unsigned_abs() / 1_000));
    let [lag, failing, lost] =
        [sum.lag.to_string(), sum.failing.to_string(), sum.lost.to_string()].map(Some);
    [Some(id), Some(state), lag, failing, lost, age, error, sum.stored_at]
}
