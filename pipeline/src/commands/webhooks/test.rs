//! `aion webhooks test`.

use std::process::ExitCode;

use aion_schemas::log::Timestamp;
use anyhow::Context;
use uuid::Uuid;

use super::place::{PlaceArgs, endpoint};
use crate::{
    exit::Exit,
    webhooks::{
        client::{Answer, Client, Network},
        engine::now,
        wire::{Data, Place, envelope, headers},
    },
};

/// The type of the event, in place of a topic.
const TOPIC: &str = "aion.webhooks.test";

/// The arguments of `aion webhooks test`.
#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// The endpoint.
    endpoint: String,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs it.
pub(super) fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let policy = args.place.policy()?;
    let endpoint = endpoint(&policy, &args.endpoint)?;
    let at = now();
    let place = Place { topic_id: Uuid::new_v4(), partition: 0, offset: 0 };
    let data = format!(r#"{{"endpoint":"{}","test":true}}"#, endpoint.id);
    let time = Timestamp(at.saturating_mul(1_000));
    let body = envelope(TOPIC, &place, time, None, Data::Json(&data));
    let mut all = headers(&place.event_id(), &body, &endpoint.secrets, at / 1_000);
    all.extend(endpoint.headers.iter().cloned());
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let client = Client::open(endpoint, &Network::of_system());
    let client = client.map_err(|cause| anyhow::anyhow!("webhook {}: {cause}", endpoint.id))?;
    let start = std::time::Instant::now();
    let answer = runtime.block_on(client.send(all, body));
    let took = start.elapsed().as_millis();
    let (id, url) = (place.event_id(), &endpoint.url);
    match answer {
        Answer::Taken(status) => {
            println!("{url} took {id} with HTTP {status} in {took} ms");
            Ok(ExitCode::SUCCESS)
        }
        Answer::Gone => {
            Ok(refused(&format!("{url} answered 410 Gone: a delivery would disable it")))
        }
        Answer::Refused { status, excerpt, .. } => {
            Ok(refused(&format!("{url} answered HTTP {status} in {took} ms: {excerpt}")))
        }
        Answer::Failed(why) => Ok(refused(&format!("{url} gave no answer: {why}"))),
    }
}

fn refused(why: &str) -> ExitCode {
    eprintln!("aion: {why}");
    Exit::Failed.into()
}
