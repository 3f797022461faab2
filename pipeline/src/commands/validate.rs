//! `aion validate`: whether a configuration can be used, and which guarantee each job can give with it.
//!
//! Without `--connect` nothing is asked of anybody: what the file says is held against what it needs. With it the
//! cluster, the lake and ClickHouse are looked at, and nothing is changed.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | every job can give what it promises |
//! | 2 | the configuration can't be used |
//! | 6 | a job can't give its guarantee; the message says what to change |
//! | 1 | somebody didn't answer, so that it isn't known |

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use aion_kafka::{Admin, Connection, Purpose};
use aion_schemas::catalog::Topic;
use aion_sinks::{
    clickhouse::{
        ClickHouse,
        check::{Fit, far_off},
        guarantee::Guarantee,
    },
    lake::Lake,
    sink::SinkError,
};
use anyhow::Context;
use clap::Args;

use crate::{
    access::policy::Policy,
    config::{ClickHouseConfig, Config, JobConfig, SinkKind},
    exit::{Exit, Failure},
    platform::{house_settings, house_spec, part_bytes, refuse_too_small, sink_failure},
    preflight::Partitions,
    webhooks,
};

/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The setting of a topic that says whose times its records have.
const TIMES: &str = "message.timestamp.type";

/// Arguments of `aion validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "aion.toml")]
    config: PathBuf,
    /// Ask the cluster, the lake and ClickHouse as well; nothing is changed.
    #[arg(long)]
    connect: bool,
}

/// What is known of a job's promise in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// It can be given, and which it is.
    Holds(Guarantee, String),
    /// It can't, and why.
    Broken(String),
    /// Nobody answered.
    Unknown(String),
}

/// A job, a place, and what is known.
struct Line {
    job: String,
    table: Arc<str>,
    place: &'static str,
    known: Known,
    /// What is asked of the place.
    asked: Guarantee,
    /// The best that a table of ClickHouse can give as it is, where it was looked at.
    best: Option<Guarantee>,
}

/// Runs it.
pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    access(&config)?;
    if let Some(webhooks) = &config.webhooks {
        let checked = webhooks::check(&webhooks.policy, &config.catalog);
        checked.map_err(|cause| Failure::new(Exit::Usage, cause))?;
    }
    let lines = if args.connect {
        let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
        runtime.block_on(looked(&config))?
    } else {
        refuse_too_small(&config, &Partitions::new())?;
        promised(&config)
    };
    print(&lines);
    if is_too_little(&lines) {
        println!(
            "\nEach table of ClickHouse of which at least once is asked can give exactly once: `guarantee` can go."
        );
    }
    if !args.connect {
        println!("\n{} can be used; --connect asks whether it holds.", args.config.display());
    }
    Ok(exit(&lines))
}

/// Whether the access policy can be used, and commands can be signed where they are taken in.
fn access(config: &Config) -> Result<(), Failure> {
    let Some(path) = &config.access.policy else { return Ok(()) };
    let policy = Policy::load(path, &config.commands);
    let policy = policy.map_err(|cause| Failure::new(Exit::Usage, cause.to_string()))?;
    if config.inbound.is_some() && policy.signing.is_empty() {
        let what = format!("{}: [inbound] needs secrets under `signing`", path.display());
        return Err(Failure::new(Exit::Usage, what));
    }
    Ok(())
}

fn exit(lines: &[Line]) -> ExitCode {
    let is_broken = |line: &Line| matches!(line.known, Known::Broken(_));
    let is_unknown = |line: &Line| matches!(line.known, Known::Unknown(_));
    if lines.iter().any(is_broken) {
        return Exit::Guarantee.into();
    }
    if lines.iter().any(is_unknown) { Exit::Failed.into() } else { ExitCode::SUCCESS }
}

/// Whether less is asked of tables of ClickHouse than each of them can give.
fn is_too_little(lines: &[Line]) -> bool {
    let asks_less = |line: &&Line| line.asked == Guarantee::AtLeastOnce;
    let mut asked_less = lines.iter().filter(asks_less).peekable();
    asked_less.peek().is_some() && asked_less.all(|line| line.best == Some(Guarantee::ExactlyOnce))
}

fn print(lines: &[Line]) {
    let width = |of: fn(&Line) -> usize| lines.iter().map(of).max().unwrap_or(0);
    let (jobs, tables) = (width(|line| line.job.len()), width(|line| line.table.len()));
    for Line { job, table, place, known, .. } in lines {
        let (word, text) = match known {
            Known::Holds(guarantee, text) => (guarantee.words(), text),
            Known::Broken(text) => ("NOT GIVEN", text),
            Known::Unknown(text) => ("not known", text),
        };
        println!("{job:jobs$}  {place:10}  {table:tables$}  {word}: {text}");
    }
}

/// What the file promises.
fn promised(config: &Config) -> Vec<Line> {
    each(config, |kind, job| {
        let guarantee = job.guarantee_in(kind);
        let how = match (kind, guarantee) {
            (SinkKind::Lake, _) => "rows and mark are one entry of the table's log",
            (SinkKind::ClickHouse, Guarantee::ExactlyOnce) => {
                "one row per offset, by MergeTree's token, lease and ledger"
            }
            (SinkKind::ClickHouse, Guarantee::AtLeastOnce) => {
                "no offset is missing, by the ledger; one may be there twice"
            }
            (SinkKind::Prometheus, _) => "series and mark are one checkpoint",
        };
        Known::Holds(guarantee, how.to_owned())
    })
}

fn each(config: &Config, known: impl Fn(SinkKind, &JobConfig) -> Known) -> Vec<Line> {
    let of = |job: &JobConfig| {
        let line = |kind: &SinkKind| Line {
            job: job.name.clone(),
            table: Arc::clone(&job.topic.table),
            place: kind.name(),
            known: known(*kind, job),
            asked: job.guarantee_in(*kind),
            best: None,
        };
        job.sinks.iter().map(line).collect::<Vec<_>>()
    };
    config.jobs.iter().flat_map(of).collect()
}

/// What those say who have to keep the promise.
async fn looked(config: &Config) -> anyhow::Result<Vec<Line>> {
    let topics: Vec<Arc<Topic>> = config.jobs.iter().flat_map(JobConfig::topics).cloned().collect();
    let connection = config.kafka.clone();
    let cluster = tokio::task::spawn_blocking(move || kafka(&connection, &topics));
    let cluster = cluster.await.context("look at the cluster")?;
    refuse_too_small(config, &found(&cluster))?;
    let lake = match Lake::open(&config.lake.url, &config.lake.options) {
        Ok(lake) => lake.probe().await,
        Err(cause) => Err(cause),
    };
    let house = config.clickhouse.as_ref();
    let opened = house.map(|house| ClickHouse::new(house.server.clone())).transpose();
    let opened = opened.map_err(|cause| sink_failure(&cause))?;
    let mut lines = each(config, |kind, job| Known::Holds(job.guarantee_in(kind), String::new()));
    for (line, (job, kind)) in lines.iter_mut().zip(config.jobs.iter().flat_map(kinds)) {
        let place = match (kind, house.zip(opened.as_ref())) {
            (SinkKind::ClickHouse, Some((settings, house))) => {
                let partitions = partitions_of(&cluster, &job.topic);
                let (known, best) = in_house(config, job, settings, house, partitions).await;
                line.best = best;
                known
            }
            _ => match &lake {
                Ok(()) => {
                    let what = "the lake answers, and puts if absent".to_owned();
                    Known::Holds(Guarantee::ExactlyOnce, what)
                }
                Err(cause) => known(cause),
            },
        };
        line.known = match (place, of_topic(&cluster, &job.topic)) {
            (Known::Holds(guarantee, place), Some(Known::Holds(_, note))) => {
                Known::Holds(guarantee, format!("{place}; {note}"))
            }
            (place @ Known::Broken(_), _) | (place, None | Some(Known::Holds(..))) => place,
            (_, Some(topic)) => topic,
        };
    }
    Ok(lines)
}

fn kinds(job: &JobConfig) -> impl Iterator<Item = (&JobConfig, SinkKind)> {
    job.sinks.iter().map(move |kind| (job, *kind))
}

/// Whether a table of ClickHouse can give it, and the best that it can.
async fn in_house(
    config: &Config,
    job: &JobConfig,
    settings: &ClickHouseConfig,
    house: &ClickHouse,
    partitions: Option<usize>,
) -> (Known, Option<Guarantee>) {
    let asked = job.guarantee;
    let settings = house_settings(settings, part_bytes(config));
    match house.asking(asked).fit(house_spec(&job.topic, partitions), settings).await {
        Ok(fit) => (Known::Holds(asked, describe(&fit, asked)), Some(fit.best())),
        Err(cause) => (known(&cause), None),
    }
}

fn describe(fit: &Fit, asked: Guarantee) -> String {
    let Fit { version, window: (window, needed), kept, findings, clocks } = fit;
    let mut told =
        vec![format!("server {version}, window {window} of at least {needed}, rows kept {kept}")];
    told.extend(findings.iter().map(|one| format!("{} ({})", one.what, one.hint)));
    if asked != fit.best() {
        told.push(format!("as it is it gives {}", fit.best().words()));
    }
    told.extend(far_off(clocks));
    told.join("; ")
}

fn known(cause: &SinkError) -> Known {
    match cause {
        SinkError::Retry { .. } | SinkError::Waits { .. } => Known::Unknown(cause.to_string()),
        SinkError::Fatal { .. } => Known::Broken(cause.to_string()),
    }
}

/// What the cluster says of topics.
type Cluster = Result<Vec<Seen>, String>;

/// What the cluster says of a topic.
struct Seen {
    topic: Arc<str>,
    /// How many partitions it has, where it is there: perhaps more than the catalog's.
    partitions: Option<usize>,
    /// What keeps a job from its promise, or is worth a word.
    known: Option<Known>,
}

fn of_topic(cluster: &Cluster, topic: &Topic) -> Option<Known> {
    match cluster {
        Err(cause) => Some(Known::Unknown(cause.clone())),
        Ok(topics) => topics.iter().find(|one| one.topic == topic.name)?.known.clone(),
    }
}

fn partitions_of(cluster: &Cluster, topic: &Topic) -> Option<usize> {
    cluster.as_ref().ok()?.iter().find(|one| one.topic == topic.name)?.partitions
}

/// The partitions of the topics that are there.
fn found(cluster: &Cluster) -> Partitions {
    let of = |one: &Seen| Some((Arc::clone(&one.topic), one.partitions?));
    cluster.iter().flatten().filter_map(of).collect()
}

fn kafka(connection: &Connection, topics: &[Arc<Topic>]) -> Cluster {
    let explain = |error| connection.explain(&error, Purpose::Administer);
    let admin = Admin::open(connection, PATIENCE).map_err(explain)?;
    admin.reach().map_err(explain)?;
    let mut told = Vec::new();
    for topic in topics {
        let found = admin.topic_ids(&[&topic.name]).map_err(explain)?;
        let is_there = found.iter().any(|one| one.id.is_some());
        let known = if is_there {
            producers_times(&admin, topic).map(|value| {
                let what = format!(
                    "exports of it are refused, since its {TIMES} is {value}: `aion bootstrap` sets LogAppendTime"
                );
                Known::Holds(Guarantee::ExactlyOnce, what)
            })
        } else {
            let what = format!("there is no topic {}: `aion bootstrap` makes it", topic.name);
            Some(Known::Broken(what))
        };
        let partitions = is_there.then(|| found.iter().map(|one| one.partitions).sum());
        told.push(Seen { topic: Arc::clone(&topic.name), partitions, known });
    }
    Ok(told)
}

/// How a topic gets its times, where they aren't the log's own. An account that may not look is told nothing.
fn producers_times(admin: &Admin, topic: &Topic) -> Option<String> {
    let settings = admin.describe_configs(&topic.name).ok()?;
    let (.., value, _) = settings.into_iter().find(|(name, ..)| name == TIMES)?;
    value.filter(|value| value != "LogAppendTime" && !topic.internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_less_need_not_be_asked_for_is_said_of_all_tables_or_not_at_all() {
        use Guarantee::{AtLeastOnce, ExactlyOnce};
        let line = |kind: SinkKind, asked: Guarantee, best: Option<Guarantee>| Line {
            job: "job".to_owned(),
            table: "table".into(),
            place: kind.name(),
            known: Known::Unknown(String::new()),
            asked,
            best,
        };
        let is_said = |asked, best: &[Option<Guarantee>]| {
            let house = best.iter().map(|best| line(SinkKind::ClickHouse, asked, *best));
            let others = [
                line(SinkKind::Lake, ExactlyOnce, None),
                line(SinkKind::ClickHouse, ExactlyOnce, Some(ExactlyOnce)),
            ];
            is_too_little(&house.chain(others).collect::<Vec<Line>>())
        };
        assert!(is_said(AtLeastOnce, &[Some(ExactlyOnce); 2]));
        assert!(!is_said(AtLeastOnce, &[Some(ExactlyOnce), Some(AtLeastOnce)]));
        assert!(!is_said(AtLeastOnce, &[Some(ExactlyOnce), None]), "who knows");
        assert!(!is_said(AtLeastOnce, &[]));
        assert!(!is_said(ExactlyOnce, &[Some(ExactlyOnce)]));
    }
}
