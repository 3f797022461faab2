//! `aion dead-letters accept`: a partition stopped since too much of it was rejected, and a person says that this
//! is how it is.

use std::time::Duration;

use aion_kafka::{Admin, Connection, Isolation, Outgoing, Producer, Purpose, Spot, TopicPartition};
use aion_schemas::{
    catalog::DECISIONS,
    log::{Partition, Stream},
};
use anyhow::{anyhow, bail};
use serde_json::json;

use super::place::PlaceArgs;
use crate::{
    audit::now,
    exit::{Exit, Failure},
    job::{appeal, times::rfc3339},
};

/// How long the cluster may take to answer.
const WAIT: Duration = Duration::from_secs(20);

/// The arguments of `aion dead-letters accept`.
#[derive(Debug, clap::Args)]
pub(super) struct AcceptArgs {
    /// The job that stopped.
    job: String,
    /// Its topic.
    topic: String,
    /// The partition.
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// The first offset that isn't accepted any more [default: the log's end]
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    below: Option<i64>,
    /// Why, for whoever asks later.
    #[arg(long, value_name = "TEXT")]
    because: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs it.
pub(super) fn run(args: &AcceptArgs) -> anyhow::Result<()> {
    let place = args.place.open()?;
    let job = place.job(&args.job)?;
    if *args.topic != *job.topic.name {
        let message = format!("job {} reads {}, not {}", job.name, job.topic.name, args.topic);
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let connection = place.brokers("a decision")?;
    let explain = |error| anyhow!(connection.explain(&error, Purpose::Administer));
    let admin = Admin::open(connection, WAIT).map_err(explain)?;
    admin.reach().map_err(explain)?;
    let found = admin.topic_ids(&[&args.topic, DECISIONS]).map_err(explain)?;
    let [topic, decisions] = &found[..] else { bail!("look up {}: no answer", args.topic) };
    if decisions.id.is_none() {
        bail!("there is no topic {DECISIONS}: `aion bootstrap` makes it");
    }
    let Some(id) = topic.id.filter(|_| (args.partition as usize) < topic.partitions) else {
        let message = format!("there is no partition {}/{}", args.topic, args.partition);
        return Err(Failure::new(Exit::Usage, message).into());
    };
    let at = TopicPartition::new(&args.topic, args.partition);
    let end = admin.offsets(&[(at, Spot::Next)], Isolation::Committed).map_err(explain)?;
    let end = end.first().map_or(0, |end| end.get());
    let below = args.below.unwrap_or(end);
    let stream = Stream { topic: args.topic.as_str().into(), id };
    let partition = Partition { stream, number: args.partition };
    decide(connection, args, &partition, below)?;
    println!(
        "Job {} accepts what is rejected of {partition} below {below}. If it has stopped there, it goes on within \
         seconds; what it rejects is in the dead letters.",
        args.job
    );
    Ok(())
}

/// Writes the decision down, and waits until it is durable.
fn decide(
    connection: &Connection,
    args: &AcceptArgs,
    partition: &Partition,
    below: i64,
) -> anyhow::Result<()> {
    let mut decision = json!({
        "job": args.job, "topic": args.topic, "topic_id": partition.stream.id,
        "partition": args.partition, "decision": "accept", "below": below,
        "decided_at": rfc3339(now()),
    });
    if let Some(because) = &args.because {
        decision["reason"] = json!(because);
    }
    let (key, value) = (appeal::key(&args.job, partition), decision.to_string());
    let explain = |error| anyhow!(connection.explain(&error, Purpose::Produce));
    let producer = Producer::open(connection, "aion-dead-letters").map_err(explain)?;
    let message = Outgoing {
        topic: DECISIONS,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        ..Outgoing::default()
    };
    producer.send(&message, |_| {}).map_err(explain)?;
    producer.flush(WAIT).map_err(explain)
}
