//! `aion dead-letters retry`: sends originals to the topics of retries.
//!
//! **Invariant:** sending twice is harmless: the job's sink stores a record once. So a retry that was killed is
//! simply run again; those that wait or are stored are left out, to spare work. So are those that would wait in
//! ClickHouse, since others would wait behind them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use aion_kafka::{Admin, Connection, Error, Outgoing, Producer, Purpose};
use aion_schemas::{decode::Retry, log::Origin};
use anyhow::{Context, anyhow, bail};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::{
    Filter,
    columns::{bytes, integers, texts},
    fate,
    letters::{self, Case, Record, State, each, parse_key, quoted},
};
use crate::{
    args::jobs::{Place, PlaceArgs},
    config::JobConfig,
    exit::{Exit, Failure},
    job::retries,
};

/// How long the cluster may take to answer.
const WAIT: Duration = Duration::from_secs(20);
/// How long acknowledgements may take once all is sent.
const DELIVERY: Duration = Duration::from_mins(5);

/// The arguments of `aion dead-letters retry`.
#[derive(Debug, clap::Args)]
pub(super) struct RetryArgs {
    /// Their keys, as `list` has them; without any, those of --where, --job and --since.
    keys: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Every open dead letter.
    #[arg(long)]
    all: bool,
    /// Send without asking.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs it.
pub(super) fn run(args: &RetryArgs) -> anyhow::Result<ExitCode> {
    let condition = condition(args)?;
    let place = args.place.open()?;
    let connection = place.brokers("sending records again")?.clone();
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let ((cases, sees_waiting), ahead) = runtime.block_on(async {
        args.filter.check(&place).await?;
        let found = letters::find(&place, &condition).await?;
        let ahead = fate::ahead(&place, &found.0).await?;
        anyhow::Ok((found, ahead))
    })?;
    if let Some(key) =
        args.keys.iter().find(|key| !cases.iter().any(|one| one.letter.key() == **key))
    {
        println!("{key}: there is no such dead letter, or a newer one of the same record");
    }
    if !sees_waiting {
        bail!("the broker doesn't answer; nothing was sent");
    }
    let chosen = choose(&place, &cases, &ahead);
    if chosen.is_empty() {
        println!("Nothing to send.");
        return Ok(ExitCode::SUCCESS);
    }
    check_topics(&connection, chosen.values())?;
    if !args.yes && !is_wanted(chosen.len())? {
        println!("Nothing was sent.");
        return Ok(ExitCode::SUCCESS);
    }
    let mut sending = Sending::open(&connection, chosen)?;
    runtime.block_on(sending.send_all(&place, &condition))?;
    sending.end(&connection)
}

/// The condition on letters; somebody must have chosen.
fn condition(args: &RetryArgs) -> Result<String, Failure> {
    let Filter { condition, job, since } = &args.filter;
    let is_filtered = condition.is_some() || job.is_some() || since.is_some();
    if args.keys.is_empty() && !is_filtered && !args.all {
        let message = "which ones? Name keys, or --where, --job, --since, or --all";
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut keys = Vec::with_capacity(args.keys.len());
    for key in &args.keys {
        let Some((job, at)) = parse_key(key) else {
            let message = format!("{key:?} is no key: job:topic id:partition:offset is wanted");
            return Err(Failure::new(Exit::Usage, message));
        };
        keys.push(format!(
            "(job = {} and topic_id = '{}' and \"partition\" = {} and \"offset\" = {})",
            quoted(job),
            at.topic_id,
            at.partition,
            at.offset
        ));
    }
    let named = if keys.is_empty() { "true".to_owned() } else { keys.join(" or ") };
    Ok(format!("{} and ({named})", args.filter.sql()))
}

/// A dead letter as its job knows it.
type Key = (Arc<str>, Origin);

/// What is sent: to which topic, as the retry of which record.
#[derive(Clone, Debug)]
struct Chosen {
    topic: Arc<str>,
    retry: Retry,
}

/// The cases to send, by the letter that has the record; says what is left out, and what is sent.
fn choose(place: &Place, cases: &[Case], ahead: &HashSet<Record>) -> HashMap<Key, Chosen> {
    let mut chosen = HashMap::new();
    let mut counts = BTreeMap::<(Arc<str>, Arc<str>), u64>::new();
    let (mut partial, mut foreign, mut deaf, mut done, mut early) = (0, 0, 0, 0, 0);
    for Case { letter, state, .. } in cases {
        let topic = place.topic(&letter.topic).and_then(|topic| place.catalog.retries_of(topic));
        if *state != State::Open {
            done += 1;
        } else if !letter.is_whole() {
            partial += 1;
        } else if !reads_retries(&place.jobs, &letter.job) {
            deaf += 1;
        } else if ahead.contains(&letter.record()) {
            early += 1;
        } else if let Some(topic) = topic {
            let count = counts.entry((Arc::clone(&topic.name), Arc::clone(&letter.reason)));
            *count.or_default() += 1;
            let one = Chosen { topic: topic.name, retry: letter.first };
            chosen.insert((Arc::clone(&letter.job), letter.at), one);
        } else {
            foreign += 1;
        }
    }
    let left_out = [
        (done, "wait already, or are stored"),
        (
            partial,
            "are kept in part only, since they were greater than the dead-letter topic takes",
        ),
        (foreign, "are of topics that the catalog doesn't have, or that have no retries"),
        (
            deaf,
            "are of jobs that read no retries, or that aren't in this configuration (--config names another)",
        ),
        (
            early,
            "are of records that ClickHouse isn't past yet: run it again in a minute, or once their job goes on. Of a topic \
             that was deleted or made anew it never will be past them: docs/dead-letters.md says what to do",
        ),
    ];
    for (count, why) in left_out.iter().filter(|(count, _)| *count > 0) {
        println!("{} left out: they {why}", HumanCount(*count));
    }
    for ((topic, reason), count) in counts {
        println!("{} to {topic}: {reason}", HumanCount(count));
    }
    chosen
}

/// Whether a retry of this job's dead letter would be read: every other job passes it over.
fn reads_retries(jobs: &[JobConfig], name: &str) -> bool {
    jobs.iter().any(|job| job.name == name && job.retries.is_some())
}

/// A missing topic would be noticed only when the client gives up.
fn check_topics<'a>(
    connection: &Connection,
    chosen: impl Iterator<Item = &'a Chosen>,
) -> anyhow::Result<()> {
    let explain = |error| anyhow!(connection.explain(&error, Purpose::Administer));
    let admin = Admin::open(connection, WAIT).map_err(explain)?;
    let topics: HashSet<&str> = chosen.map(|one| &*one.topic).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    for found in admin.topic_ids(&topics).map_err(explain)? {
        if found.id.is_none() {
            bail!("there is no topic {}: `aion bootstrap` makes it", found.topic);
        }
    }
    Ok(())
}

fn is_wanted(count: usize) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        let message = "nobody is here to ask: --yes sends without asking";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    print!("Send {} again? [y/N] ", HumanCount(count as u64));
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Records on their way.
struct Sending {
    producer: Producer,
    /// Those that were not met yet.
    chosen: HashMap<Key, Chosen>,
    outcome: Arc<Outcome>,
    bar: ProgressBar,
}

#[derive(Default)]
struct Outcome {
    acked: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<Error>>,
}

impl Outcome {
    fn failed(&self, error: Error) {
        self.failed.fetch_add(1, Relaxed);
        self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

impl Sending {
    fn open(connection: &Connection, chosen: HashMap<Key, Chosen>) -> anyhow::Result<Sending> {
        let producer = Producer::open(connection, "aion-dead-letters");
        let producer =
            producer.map_err(|error| anyhow!(connection.explain(&error, Purpose::Produce)))?;
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(chosen.len() as u64)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {human_pos} of {human_len} sent, {eta} left")
        {
            bar.set_style(style);
        }
        Ok(Sending { producer, chosen, outcome: Arc::default(), bar })
    }

    /// Reads the originals and sends those that were chosen, each once.
    async fn send_all(&mut self, place: &Place, condition: &str) -> anyhow::Result<()> {
        let sql = format!(
            "select job, topic_id, \"partition\", \"offset\", key, value from dead_letters_raw \
             where {condition}"
        );
        each(place, &sql, |rows| {
            let (jobs, ids) = (texts(rows, 0)?, texts(rows, 1)?);
            let (numbers, offsets) = (integers(rows, 2)?, integers(rows, 3)?);
            let (keys, values) = (bytes(rows, 4)?, bytes(rows, 5)?);
            for row in 0..rows.num_rows() {
                let at = [&ids[row].clone().unwrap_or_default(), "/"].concat();
                let (number, offset) = (numbers[row].unwrap_or(-1), offsets[row].unwrap_or(-1));
                let Ok(at) = format!("{at}{number}/{offset}").parse() else { continue };
                let job: Arc<str> = jobs[row].as_deref().unwrap_or_default().into();
                if let Some(one) = self.chosen.remove(&(Arc::clone(&job), at)) {
                    self.send(&job, &one, keys[row].as_deref(), values[row].as_deref());
                }
            }
            Ok(())
        })
        .await
    }

    fn send(&self, job: &str, one: &Chosen, key: Option<&[u8]>, value: Option<&[u8]>) {
        let origin = retries::headers(&one.retry);
        let mut headers = vec![(retries::JOB, Some(job.as_bytes()))];
        headers.extend(origin.iter().map(|(name, value)| (*name, Some(&value[..]))));
        let message =
            Outgoing { topic: &one.topic, key, value, headers: &headers, ..Outgoing::default() };
        loop {
            let outcome = Arc::clone(&self.outcome);
            let done = move |placed: Result<_, Error>| match placed {
                Ok(_) => drop(outcome.acked.fetch_add(1, Relaxed)),
                Err(error) => outcome.failed(error),
            };
            match self.producer.send(&message, done) {
                Ok(()) => break,
                Err(Error::Full { .. }) => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => break self.outcome.failed(error),
            }
        }
        self.bar.set_position(self.outcome.acked.load(Relaxed));
    }

    /// Waits for every acknowledgement, and says what came of it.
    fn end(self, connection: &Connection) -> anyhow::Result<ExitCode> {
        let flushed = self.producer.flush(DELIVERY);
        self.bar.finish_and_clear();
        let (acked, failed) = (self.outcome.acked.load(Relaxed), self.outcome.failed.load(Relaxed));
        let lost = self.chosen.len() as u64;
        let first =
            self.outcome.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = first.or(flushed.err()) {
            let why = connection.explain(&error, Purpose::Produce);
            bail!("{acked} were sent and {failed} failed: {why}; run it again for the others");
        }
        println!(
            "{} sent. `aion dead-letters list` shows what becomes of them.",
            HumanCount(acked)
        );
        if lost > 0 {
            bail!("{lost} left the lake while they were read: they were not sent");
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use aion_schemas::catalog::Catalog;

    use super::reads_retries;
    use crate::config::{SinkKind, default_jobs};

    #[test]
    fn only_jobs_that_read_retries_are_sent_any() {
        let catalog = Catalog::builtin();
        let mut jobs = default_jobs(&catalog, SinkKind::Lake);
        jobs.extend(default_jobs(&catalog, SinkKind::ClickHouse));
        assert!(reads_retries(&jobs, "decisions-lake"));
        assert!(reads_retries(&jobs, "decisions-clickhouse"));
        assert!(!reads_retries(&jobs, "dead_letters-lake"));
        assert!(!reads_retries(&jobs, "a-job-of-last-year"));
    }
}
