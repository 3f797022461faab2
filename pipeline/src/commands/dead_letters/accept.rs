//! `aion dead-letters accept`: a partition stopped since too much of it was rejected, and a person says that this
//! is how it is.

use crate::{commands::decision::DecisionArgs, job::appeal::Decision};

/// The arguments of `aion dead-letters accept`.
#[derive(Debug, clap::Args)]
pub(super) struct AcceptArgs {
    #[command(flatten)]
    which: DecisionArgs,
    /// The first offset that isn't accepted any more [default: the log's end]
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    below: Option<i64>,
}

/// Runs it.
pub(super) fn run(args: &AcceptArgs) -> anyhow::Result<()> {
    let place = args.which.place.open()?;
    let job = args.which.job(&place)?;
    let connection = place.brokers("a decision")?;
    let found = args.which.find(connection)?;
    let below = args.below.unwrap_or(found.log.end.get());
    args.which.write(connection, &found.partition, &Decision::Accept { below })?;
    println!(
        "Job {} accepts what is rejected of {} below {below}. If it has stopped there, it goes on within \
         seconds; what it rejects is in the dead letters.",
        job.name, found.partition
    );
    Ok(())
}
