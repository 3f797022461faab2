//! `aion diverged`: an unclean election cut a log below what is stored, its partition stopped, and a person settles
//! which of the two stands.
//!
//! `keep` writes the decision down, and the job goes on from its mark. `replace` first takes the rows out of the lake,
//! mark and all in one entry, then takes the mark of the series back, then writes the decision down. In between the
//! partition stays stopped; a second run goes on where the first was killed.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use aion_kafka::{Admin, Connection, Limits, Purpose, Reader, TopicPartition};
use aion_schemas::{
    catalog::GAPS,
    log::{Mark, Offset, Partition, show},
};
use aion_sinks::{
    lake::{Lake, upkeep::TakenBack},
    prometheus::Series,
    sink::SinkError,
};
use anyhow::{Context, anyhow, bail};
use serde::Deserialize;

use super::decision::{DecisionArgs, Found};
use crate::{
    args::jobs::Place,
    config::{JobConfig, LogConfig, SinkKind},
    exit::{Exit, Failure},
    job::appeal::Decision,
    logging,
    platform::table_spec,
    small_topic,
};

/// How long the cluster may take to answer.
const WAIT: Duration = Duration::from_secs(20);

/// The arguments of `aion diverged`.
#[derive(Debug, clap::Args)]
pub struct DivergedCommand {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// What is stored stays. What the log has now at the same offsets is passed over, and named in table `gaps`.
    Keep(DecisionArgs),
    /// What the log has now takes the place of what is stored, which is taken out of the lake. What series have counted
    /// stays counted.
    Replace(DecisionArgs),
}

/// The part of a gap's record that is of use here.
#[derive(Deserialize)]
struct Gap {
    job: String,
    topic_id: String,
    partition: i32,
    first: i64,
    next: i64,
    reason: String,
    recorded_at: String,
}

/// Runs `aion diverged`.
pub fn run(command: &DivergedCommand) -> anyhow::Result<()> {
    logging::start(&LogConfig { filter: "error".into(), ..LogConfig::default() })?;
    let (Task::Keep(args) | Task::Replace(args)) = &command.task;
    let place = args.place.open()?;
    let job = args.job(&place)?;
    let connection = place.brokers("a decision")?;
    let found = args.find(connection)?;
    let gap = diverged(connection, &args.job, &found.partition)?;
    let shown = show(&gap);
    match &command.task {
        Task::Keep(_) => {
            let decision = Decision::Keep { first: gap.start.get(), below: gap.end.get() };
            args.write(connection, &found.partition, &decision)?;
            println!(
                "What is stored of {} at {shown} stays. Job {} goes on within seconds; what the log has there now is \
                 not stored, and `aion audit` can't prove it.",
                found.partition, job.name
            );
        }
        Task::Replace(_) => {
            let (from, rows) = take_back((&place, connection), job, &found, &gap)?;
            let decision = Decision::Replace { first: from.get(), below: gap.end.get() };
            args.write(connection, &found.partition, &decision)?;
            let partition = &found.partition;
            if job.sinks.contains(&SinkKind::Lake) {
                println!("{rows} rows of {partition} from {from} on are out of the lake.");
            }
            if job.sinks.contains(&SinkKind::Prometheus) {
                println!(
                    "What series have counted of {partition} stays counted: no counter falls."
                );
            }
            println!(
                "Job {} goes on within seconds and stores what the log has from {from} on now.",
                job.name
            );
        }
    }
    Ok(())
}

/// The newest gap that says that a partition's log was cut, of those that nobody has settled.
fn diverged(
    connection: &Connection,
    job: &str,
    partition: &Partition,
) -> anyhow::Result<Range<Offset>> {
    let explain = |error| anyhow!(connection.explain(&error, Purpose::Administer));
    let admin = Admin::open(connection, WAIT).map_err(explain)?;
    let id = partition.stream.id.to_string();
    let mut newest = BTreeMap::new();
    let read = small_topic::each(
        connection,
        &admin,
        GAPS,
        |_, _| None,
        |record| {
            let value = record.value.unwrap_or_default();
            let Ok(gap) = serde_json::from_slice::<Gap>(value) else { return };
            let is_it = gap.job == job && gap.topic_id == id && gap.partition == partition.number;
            if is_it && gap.reason.starts_with("diverged") {
                // Times are of one length, so their order is that of the text.
                newest.insert(gap.recorded_at, (gap.reason, Offset(gap.first)..Offset(gap.next)));
            }
        },
    );
    read.map_err(|error| anyhow!(connection.explain(&error, Purpose::Consume)))?;
    match newest.into_values().next_back() {
        Some((reason, range)) if reason == "diverged" => Ok(range),
        Some((_, range)) => {
            let message = format!("the cut of {partition} at {} is settled already", show(&range));
            Err(Failure::new(Exit::Usage, message).into())
        }
        None => {
            let message =
                format!("job {job} has never found the log of {partition} cut: nothing to settle");
            Err(Failure::new(Exit::Usage, message).into())
        }
    }
}

/// Takes the rows out of the lake that the log doesn't have any more, and the marks of the job's sinks back; from where
/// on, and how many rows they were.
fn take_back(
    (place, connection): (&Place, &Connection),
    job: &JobConfig,
    found: &Found,
    gap: &Range<Offset>,
) -> anyhow::Result<(Offset, u64)> {
    if job.sinks.contains(&SinkKind::ClickHouse) {
        let message = format!(
            "job {} writes to ClickHouse, and this takes rows out of the lake only: keep what is stored, or take it out of \
             the table by hand (docs/kafka.md, \"A log that was cut\"). Beside other sinks, give each place a job of its own",
            job.name
        );
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let lake = Lake::open(&place.lake, &place.lake_options).map_err(failure)?;
    let mut taken = None;
    if job.sinks.contains(&SinkKind::Lake) {
        let at = (place, connection, &lake);
        taken = Some(runtime.block_on(out_of_the_lake(at, job, found, gap))?);
    }
    if !job.sinks.contains(&SinkKind::Prometheus) {
        return Ok(taken.unwrap_or((gap.start, 0)));
    }
    let partition = &found.partition;
    runtime.block_on(async {
        let series = Series::open(&lake).await.map_err(failure)?;
        let (from, rows) = match (taken, series.mark(partition).await.map_err(failure)?) {
            (Some(taken), _) => taken,
            (None, None) => bail!("there are no series of {partition}: nothing of it is counted"),
            (None, Some(mark)) if mark.offset <= gap.start => (mark.offset, 0),
            (None, Some(mark)) => (cut(connection, found, gap, mark)?, 0),
        };
        series.rewind(partition, from).await.map_err(failure)?;
        Ok((from, rows))
    })
}

async fn out_of_the_lake(
    (place, connection, lake): (&Place, &Connection, &Lake),
    job: &JobConfig,
    found: &Found,
    gap: &Range<Offset>,
) -> anyhow::Result<(Offset, u64)> {
    let partition = &found.partition;
    let table = place.catalog.table(&job.topic.table).unwrap_or(&job.topic);
    let upkeep = lake.upkeep(table_spec(table)).await.map_err(failure)?;
    let Some(mut upkeep) = upkeep else { bail!("there is no table {} in the lake", table.table) };
    let Some(mark) = upkeep.mark(partition) else {
        bail!("the lake has no mark of {partition}: nothing of it is stored")
    };
    if mark.offset <= gap.start {
        return Ok((mark.offset, 0)); // an earlier run got as far as this
    }
    let from = cut(connection, found, gap, mark)?;
    // The gap ends where the sink was that was furthest; series may have been ahead of the lake.
    let end = if job.sinks.len() > 1 { mark.offset.min(gap.end) } else { gap.end };
    match upkeep.take_back(partition, from..end).await.map_err(failure)? {
        TakenBack::Done { rows } => Ok((from, rows)),
        TakenBack::Moved { mark } => {
            let mark = mark.map_or("gone".to_owned(), |mark| format!("at {mark}"));
            bail!(
                "the lake's mark of {partition} is {mark}, not where the job stopped: nothing was taken out"
            )
        }
    }
}

/// Where the stored rows begin to differ. The gap says it where the job saw it happen; a job that only found the log
/// too short doesn't know, so the log is asked where its epochs pass that of the last stored record.
fn cut(
    connection: &Connection,
    found: &Found,
    gap: &Range<Offset>,
    mark: Mark,
) -> anyhow::Result<Offset> {
    let Some(epoch) = mark.record_epoch() else { return Ok(gap.start) };
    let reader = Reader::open(connection, "aion-diverged", Limits::default())
        .map_err(|error| anyhow!(connection.explain(&error, Purpose::Consume)))?;
    let at = TopicPartition::new(&found.partition.stream.topic, found.partition.number);
    // Epochs never fall along a log: the first record above the stored one is found by halves.
    let (mut low, mut high) = (found.log.start, gap.start.min(found.log.end));
    while low < high {
        let middle = Offset(low.get() + (high.get() - low.get()) / 2);
        match first_from(&reader, &at, middle)? {
            Some((offset, newer)) if newer <= epoch => low = offset.next(),
            Some(_) | None => high = middle,
        }
    }
    Ok(low.min(gap.start))
}

/// The offset and epoch of the first record from an offset on, where there is one.
fn first_from(
    reader: &Reader,
    partition: &TopicPartition,
    at: Offset,
) -> anyhow::Result<Option<(Offset, i32)>> {
    let mut reading = reader.start(partition, at)?;
    let deadline = Instant::now() + WAIT;
    let mut first = None;
    while Instant::now() < deadline {
        let fetched = reading.fetch(1, Duration::from_millis(200), |record| {
            first.get_or_insert((record.offset, record.epoch));
        })?;
        if first.is_some() || fetched.end.is_some() {
            return Ok(first);
        }
    }
    bail!("{partition} brought nothing at {at} within {} s", WAIT.as_secs())
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn failure(cause: SinkError) -> Failure {
    Failure::new(Exit::Guarantee, cause.to_string())
}
