//! `aion tap`: the records of a topic as they are, decoded, with where they stand and how they are written.
//!
//! Topics of the contract are read by the jobs' own decoder, so what is shown as an event becomes a row, and
//! what is shown with a reason becomes a dead letter. Other topics, and internal ones, are shown as what they
//! look like: JSON, Avro by the registry, text, bytes.
//!
//! **Invariant:** it is in no group and commits nothing.

mod decode;
mod place;
mod reading;
mod show;

use std::{
    io::{self, IsTerminal, Write},
    time::Instant,
};

use aion_analytics::Filter;

pub use self::place::From;
use self::{decode::Decoding, reading::Log, show::Shown};
use crate::{
    args::target::TargetArgs,
    config::LogConfig,
    exit::{Exit, Failure},
    logging,
};

/// The arguments of `aion tap`.
#[derive(Debug, clap::Args)]
pub struct TapArgs {
    /// Topic to read, by its name or its table's; any topic of the cluster
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Where to begin: beginning, end, a time in RFC 3339, how long ago (2h), an offset, or -N for the last N
    /// of each partition [default: beginning; with --follow: end]
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    from: Option<From>,
    /// Only this partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Only events for which this is true: SQL over the topic's columns, such as "route = 'cloud'"
    #[arg(long = "where", value_name = "EXPR")]
    condition: Option<String>,
    /// One JSON object a record on standard output
    #[arg(long)]
    json: bool,
    /// Stop after so many
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs `aion tap`.
#[expect(clippy::needless_pass_by_value, reason = "a command owns its arguments")]
pub fn run(args: TapArgs) -> anyhow::Result<()> {
    let target = args.target.find()?;
    logging::start(&LogConfig { filter: "warn".into(), ..LogConfig::default() })?;
    let topic = target.topic(&args.topic);
    let name = topic.map_or(args.topic.as_str(), |topic| &topic.name).to_owned();
    let contract = topic.filter(|topic| !topic.internal);
    let filter = args.condition.as_deref().map(|text| match contract {
        Some(topic) => Filter::new(text, &topic.schema.arrow())
            .map_err(|cause| usage(&format!("--where: {cause}"))),
        None => {
            Err(usage(&format!("--where needs columns, and {name} is no topic of the contract")))
        }
    });
    let filter = filter.transpose()?;
    let default = if args.follow { From::End } else { From::Beginning };
    let from = args.from.unwrap_or(default);
    let mut log = Log::open(&target.connection, &name, args.partition, from)?;
    let mut decoding = Decoding::new(contract, target.registry.clone())?;
    let mut out = Out { json: args.json, color: io::stdout().is_terminal(), left: args.limit };
    loop {
        let step = log.step(args.follow, |partition, record| {
            let tapped = decoding.read(partition, record, Instant::now());
            let is_wanted = match (&filter, &tapped.row) {
                (None, _) => true,
                (Some(filter), Some(row)) => filter.keeps(row)?.first().copied().unwrap_or(false),
                (Some(_), None) => false,
            };
            if is_wanted { out.put(&Shown::new(&tapped)) } else { Ok(true) }
        });
        match step {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(cause) if is_broken_pipe(&cause) => return Ok(()),
            Err(cause) => return Err(cause),
        }
    }
}

/// Where records go, and how many more.
struct Out {
    json: bool,
    color: bool,
    left: Option<u64>,
}

impl Out {
    /// Prints one; answers whether another may follow.
    fn put(&mut self, shown: &Shown<'_>) -> anyhow::Result<bool> {
        let mut out = io::stdout().lock();
        if self.json {
            shown.write_json(&mut out)?;
        } else {
            shown.write_text(&mut out, self.color)?;
        }
        // Who looks on shall see it now.
        out.flush()?;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(self.left != Some(0))
    }
}

fn is_broken_pipe(cause: &anyhow::Error) -> bool {
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}

fn usage(what: &str) -> Failure {
    Failure::new(Exit::Usage, what)
}
