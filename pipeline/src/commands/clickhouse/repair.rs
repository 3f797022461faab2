//! `aion clickhouse repair`: what tables had once and have no more, and what they have more than once.

use std::{collections::BTreeMap, time::Duration};

use aion_kafka::{Admin, Connection, Isolation, Purpose, Spot, TopicPartition};
use aion_schemas::{
    catalog::Topic,
    log::{Offset, Timestamp, show},
};
use aion_sinks::clickhouse::{Break, Claim, ClickHouse, Double, Hold, guarantee::Guarantee};
use anyhow::anyhow;
use uuid::Uuid;

use super::{Where, database};
use crate::{
    config::{Config, JobConfig},
    exit::{Exit, Failure},
    job::times::rfc3339,
    platform::{house_spec, sink_failure},
};

/// How long the cluster may take to answer.
const WAIT: Duration = Duration::from_secs(20);
/// For so long a repair that was killed keeps the next one out.
const HELD_FOR: Duration = Duration::from_secs(30);
/// Where Linux tells the host's name.
const HOST: &str = "/proc/sys/kernel/hostname";

/// What is repaired.
#[derive(Debug, clap::Args)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    pub(super) place: Where,
    /// Only these tables; may be repeated [default: all]
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Delete the copies, and have what is missing written again: the jobs do it when they are next started,
    /// as far as the logs still go.
    #[arg(long)]
    yes: bool,
}

/// What was found of all tables.
#[derive(Default)]
struct Found {
    /// Offsets that are missing, and can be had back.
    missing: u64,
    /// Offsets that are missing, of which the logs have none.
    gone: u64,
    /// Breaks of topics that are no more.
    unread: u64,
    /// Copies of batches.
    copies: u64,
    /// Batches that overlap.
    overlaps: u64,
    /// Batches whose copies could not be deleted.
    undeleted: u64,
}

/// Runs `aion clickhouse repair`.
pub(super) async fn run(config: &Config, args: &RepairArgs) -> anyhow::Result<()> {
    let (house, _) = database(config)?;
    if let Some(unknown) = args.tables.iter().find(|name| config.catalog.table(name).is_none()) {
        let what = format!("there is no table {unknown} in the catalog");
        return Err(Failure::new(Exit::Usage, what).into());
    }
    if !args.yes {
        return all(&house, config, args, None).await;
    }
    let hold = hold(&house).await?;
    let done = hold.keep(all(&house, config, args, Some(&hold))).await;
    hold.release().await;
    done
}

/// Sees to it that nobody else repairs meanwhile.
async fn hold(house: &ClickHouse) -> anyhow::Result<Hold> {
    let claim = house.hold_repairs(&who(), HELD_FOR).await.map_err(|cause| sink_failure(&cause))?;
    let by = match claim {
        Claim::Taken(hold) => return Ok(hold),
        Claim::Held(by) => by,
    };
    let at = |seconds: u32| rfc3339(Timestamp(i64::from(seconds) * 1_000_000));
    let what = format!(
        "database {} is being repaired by {}, since {}: try again when that has ended, or, if it was killed, \
         after {}",
        house.database(),
        by.who,
        at(by.since),
        at(by.until)
    );
    Err(Failure::new(Exit::TryAgain, what).into())
}

/// What this process calls itself to others.
fn who() -> String {
    let host = std::fs::read_to_string(HOST).unwrap_or_default();
    let user = std::env::var("USER").map(|user| format!("{user}, ")).unwrap_or_default();
    format!("{user}process {} on {}", std::process::id(), host.trim())
}

/// Repairs the tables that are asked for; without a hold it tells and changes nothing.
async fn all(
    house: &ClickHouse,
    config: &Config,
    args: &RepairArgs,
    hold: Option<&Hold>,
) -> anyhow::Result<()> {
    let jobs = config.jobs.iter().filter(|job| job.is_in_clickhouse());
    let is_asked = |table: &str| args.tables.is_empty() || args.tables.iter().any(|t| t == table);
    let mut found = Found::default();
    for job in jobs.filter(|job| is_asked(&job.topic.table)) {
        let house = &house.asking(job.guarantee);
        let are_gone = doubles(house, &job.topic, hold, &mut found).await?;
        // Breaks can be told from doubles only where those stop nobody.
        if are_gone || job.guarantee == Guarantee::AtLeastOnce {
            breaks(house, config, job, hold.is_some(), &mut found).await?;
        }
    }
    found.conclude(hold.is_some());
    if found.undeleted == 0 {
        return Ok(());
    }
    let what = format!("of {} batches copies could not be deleted, see above", found.undeleted);
    Err(Failure::new(Exit::Guarantee, what).into())
}

/// Tells of batches that a table has more than once, and deletes copies with a hold; whether none are left.
async fn doubles(
    house: &ClickHouse,
    topic: &Topic,
    hold: Option<&Hold>,
    found: &mut Found,
) -> anyhow::Result<bool> {
    let spec = || house_spec(topic, None);
    let mut left = house.doubles(spec()).await.map_err(|cause| sink_failure(&cause))?;
    let copies: Vec<Double> = left.iter().filter(|one| one.is_copy).cloned().collect();
    for one in &copies {
        found.copies += 1;
        println!("{}: the batch {} is there more than once", topic.table, place(one));
        // Breaks, and the other tables, are looked at all the same.
        if let Some(hold) = hold
            && let Err(cause) = house.delete_copies(spec(), one, hold).await
        {
            found.undeleted += 1;
            println!("{}: not deleted: {cause}", topic.table);
        }
    }
    if hold.is_some() && !copies.is_empty() {
        // One that was there again may overlap another one too.
        left = house.doubles(spec()).await.map_err(|cause| sink_failure(&cause))?;
    }
    for one in left.iter().filter(|one| !one.is_copy) {
        found.overlaps += 1;
        println!(
            "{}: the batch {} has offsets in common with one before it: {}",
            topic.table,
            place(one),
            one.delete
        );
    }
    Ok(left.is_empty())
}

/// Which batch.
fn place(one: &Double) -> String {
    let Double { topic_id, partition, range, .. } = one;
    format!("{} of partition {partition}, topic id {topic_id}", show(range))
}

/// Tells of breaks, and asks for those that the log can fill if it may.
async fn breaks(
    house: &ClickHouse,
    config: &Config,
    job: &JobConfig,
    may_ask: bool,
    found: &mut Found,
) -> anyhow::Result<()> {
    let topic = &job.topic;
    let spec = || house_spec(topic, None);
    let breaks = house.breaks(spec()).await.map_err(|cause| sink_failure(&cause))?;
    if breaks.is_empty() {
        return Ok(());
    }
    let connection = config.kafka.clone();
    let names: Vec<String> = job.topics().map(|topic| topic.name.to_string()).collect();
    // Not here, where a hold is renewed meanwhile.
    let begins = tokio::task::spawn_blocking(move || begins(&connection, &names)).await??;
    for one in breaks {
        let Break { topic_id, partition, range } = &one;
        let Some(begin) = begins.get(&(*topic_id, *partition)) else {
            found.unread += 1;
            continue;
        };
        let what = match begin {
            begin if *begin >= range.end => "; the log has none of them",
            begin if *begin > range.start => "; the log has only the last of them",
            _ => "",
        };
        let (table, offsets) = (&topic.table, show(range));
        println!("{table}: {offsets} of partition {partition}, topic id {topic_id}{what}");
        if *begin >= range.end {
            found.gone += 1;
            continue;
        }
        found.missing += 1;
        if may_ask {
            let asked = house.request_repair(spec(), &one).await;
            asked.map_err(|cause| sink_failure(&cause))?;
        }
    }
    Ok(())
}

/// Where the logs of topics begin, by topic id and partition. A table may have rows of other ids, of topics that were
/// deleted: nobody reads them.
fn begins(
    connection: &Connection,
    names: &[String],
) -> anyhow::Result<BTreeMap<(Uuid, i32), Offset>> {
    let explain = |error| anyhow!(connection.explain(&error, Purpose::Administer));
    let admin = Admin::open(connection, WAIT).map_err(explain)?;
    admin.reach().map_err(explain)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut begins = BTreeMap::new();
    for topic in admin.topic_ids(&names).map_err(explain)? {
        let Some(id) = topic.id else { continue };
        let numbers = 0..topic.partitions as i32;
        let at = |number| (TopicPartition::new(&topic.topic, number), Spot::First);
        let spots: Vec<_> = numbers.clone().map(at).collect();
        let firsts = admin.offsets(&spots, Isolation::Committed).map_err(explain)?;
        begins.extend(numbers.zip(firsts).map(|(number, first)| ((id, number), first)));
    }
    Ok(begins)
}

impl Found {
    /// Says what to do, or what was done.
    fn conclude(&self, yes: bool) {
        let Found { missing, gone, unread, copies, overlaps, undeleted } = self;
        if missing + gone + copies + overlaps == 0 {
            println!("No table has a break that nobody has asked to be filled, nor offsets twice.");
        }
        if *unread > 0 {
            println!(
                "{unread} breaks are of topics that were deleted or made anew: nobody reads them."
            );
        }
        if *overlaps > 0 {
            println!(
                "\nOf batches that overlap one is wrong: an account that may delete rows runs its DELETE, or that of the \
                 other. What it leaves is a break: run this again."
            );
        }
        let done = if *undeleted == 0 { "Copies are deleted, and what" } else { "What" };
        match (missing + copies - undeleted, yes) {
            (0, _) => {}
            (_, true) => println!(
                "\n{done} is missing is asked for. Restart `aion run` within a day: a job fills \
                 its table's breaks when it begins, as far as the topic's log still goes."
            ),
            (_, false) => println!(
                "\nWhat is missing was stored once: erased, or lost with a disk. `aion clickhouse repair --yes` has it \
                 written again, and deletes copies."
            ),
        }
    }
}
