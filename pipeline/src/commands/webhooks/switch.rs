//! `aion webhooks enable` and `disable`.

use std::{process::ExitCode, sync::Arc};

use super::place::PlaceArgs;
use crate::webhooks::control::Control;

/// The arguments of `aion webhooks enable` and `disable`.
#[derive(Debug, clap::Args)]
pub(super) struct SwitchArgs {
    /// The endpoint.
    endpoint: String,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs it.
pub(super) fn run(args: &SwitchArgs, is_on: bool) -> anyhow::Result<ExitCode> {
    let place = args.place.open()?;
    let endpoint = Arc::clone(&place.endpoint(&args.endpoint)?.id);
    let (control, word) = if is_on {
        (Control::Enable { endpoint: Arc::clone(&endpoint) }, "enabled: it gets what it missed")
    } else {
        let reason = "an operator said so".to_owned();
        let control = Control::Disable { endpoint: Arc::clone(&endpoint), reason, entry: None };
        (control, "disabled: what comes waits in its topics")
    };
    place.ask(&endpoint, &[control])?;
    println!("{endpoint} is {word}");
    Ok(ExitCode::SUCCESS)
}
