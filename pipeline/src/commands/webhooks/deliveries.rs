//! `aion webhooks deliveries`: the end of the attempts' topic. For more, table `deliveries` has them all.

use std::{collections::VecDeque, process::ExitCode};

use aion_schemas::log::Offset;
use anyhow::Context;
use serde::Deserialize;

use super::{place::PlaceArgs, print};
use crate::{commands::sql::format::Format, small_topic, webhooks::topics::ATTEMPTS};

/// The arguments of `aion webhooks deliveries`.
#[derive(Debug, clap::Args)]
pub(super) struct DeliveriesArgs {
    /// The endpoint, or the id of an event.
    id: String,
    /// Those that failed only.
    #[arg(long)]
    failed: bool,
    /// So many of them, the last ones.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// How they are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "they are those of the topic's schema")]
struct Attempt {
    endpoint: String,
    event_id: String,
    topic: String,
    partition: i32,
    offset: i64,
    attempt: u32,
    outcome: String,
    status: Option<u16>,
    error: Option<String>,
    latency_ms: f64,
    attempted_at: String,
}

/// Runs it.
pub(super) fn run(args: &DeliveriesArgs) -> anyhow::Result<ExitCode> {
    let place = args.place.open()?;
    let mut last: VecDeque<Attempt> = VecDeque::new();
    let mut wanted = Vec::new();
    small_topic::each(
        &place.connection,
        &place.admin,
        ATTEMPTS,
        |_, _| None::<Offset>,
        |record| {
            let Ok(attempt) = serde_json::from_slice::<Attempt>(record.value.unwrap_or_default())
            else {
                return;
            };
            let is_its = attempt.endpoint == args.id || attempt.event_id == args.id;
            if is_its && (!args.failed || attempt.outcome != "delivered") {
                wanted.push(attempt);
            }
            // Partitions are read one after the other: the last of each are enough.
            if wanted.len() > 4 * args.limit.max(256) {
                keep_last(&mut wanted, args.limit);
            }
        },
    )
    .context("read the attempts")?;
    keep_last(&mut wanted, args.limit);
    last.extend(wanted);
    let rows: Vec<_> = last.into_iter().map(row).collect();
    let names = [
        "attempted_at",
        "endpoint",
        "event_id",
        "place",
        "attempt",
        "outcome",
        "status",
        "ms",
        "error",
    ];
    print(args.format, names, &rows)
}

fn keep_last(attempts: &mut Vec<Attempt>, limit: usize) {
    attempts.sort_by(|one, other| one.attempted_at.cmp(&other.attempted_at));
    let more = attempts.len().saturating_sub(limit);
    attempts.drain(..more);
}

fn row(one: Attempt) -> [Option<String>; 9] {
    [
        Some(one.attempted_at),
        Some(one.endpoint),
        Some(one.event_id),
        Some(format!("{}/{}@{}", one.topic, one.partition, one.offset)),
        Some(one.attempt.to_string()),
        Some(one.outcome),
        one.status.map(|status| status.to_string()),
        Some(format!("{:.1}", one.latency_ms)),
        one.error,
    ]
}
