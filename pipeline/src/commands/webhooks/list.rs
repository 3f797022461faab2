//! `aion webhooks list`.

use std::process::ExitCode;

use super::{place::PlaceArgs, print};
use crate::commands::sql::format::Format;

/// The arguments of `aion webhooks list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// How they are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs it.
pub(super) fn run(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let policy = args.place.policy()?;
    for warning in &policy.warnings {
        eprintln!("aion: policy, line {}: {}", warning.line, warning.reason);
    }
    let rows: Vec<_> = policy
        .endpoints
        .iter()
        .map(|one| {
            let texts = one.pattern_texts().join(" ");
            let tried =
                format!("{} times in {}", one.retry.max_attempts, span(one.max_age.as_secs()));
            [one.id.to_string(), one.url.to_string(), texts, tried].map(Some)
        })
        .collect();
    print(args.format, ["endpoint", "url", "topics", "tried"], &rows)
}

/// A time for people: its two greatest units.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}
