//! The log of a topic: all its partitions, read in turn, without a group.

use std::time::{Duration, Instant};

use aion_kafka::{
    Admin, Connection, Error, Isolation, Limits, Purpose, Reader, Reading, Record, Spot,
    TopicPartition, Unread,
};
use aion_schemas::log::Offset;
use anyhow::{anyhow, bail};

use super::place::From;
use crate::exit::{Exit, Failure};

/// How long a broker may take to answer a question.
const ANSWER: Duration = Duration::from_secs(20);
/// How long nothing may come from a log that has more.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one partition is waited for before the next has its turn.
const TURN: Duration = Duration::from_millis(20);
/// Records of one turn.
const FETCH: usize = 256;

/// The partitions of a topic.
pub(super) struct Log {
    connection: Connection,
    admin: Admin,
    reader: Reader,
    parts: Vec<Part>,
    silent_since: Instant,
}

struct Part {
    name: TopicPartition,
    reading: Option<Reading>,
    next: i64,
    /// Where it ends unless one follows: the end as it was at the beginning.
    end: i64,
}

impl Log {
    /// Looks up the partitions and where to begin.
    pub(super) fn open(
        connection: &Connection,
        topic: &str,
        partition: Option<i32>,
        from: From,
    ) -> anyhow::Result<Log> {
        let explain = |error: Error| anyhow!(connection.explain(&error, Purpose::Administer));
        let admin = Admin::open(connection, ANSWER).map_err(explain)?;
        admin.reach().map_err(explain)?;
        let found = admin.topic_ids(&[topic]).map_err(explain)?;
        let count =
            found.first().filter(|found| found.id.is_some()).map_or(0, |one| one.partitions);
        if count == 0 {
            let what = format!("the cluster at {} has no topic {topic:?}", connection.brokers);
            return Err(Failure::new(Exit::Usage, what).into());
        }
        let numbers: Vec<i32> = match partition {
            None => (0..count as i32).collect(),
            Some(number) if (number as usize) < count => vec![number],
            Some(number) => {
                let what = format!("{topic} has no partition {number}: it has {count}");
                return Err(Failure::new(Exit::Usage, what).into());
            }
        };
        let ask = |spot: Spot| {
            let spots: Vec<_> =
                numbers.iter().map(|number| (TopicPartition::new(topic, *number), spot)).collect();
            admin.offsets(&spots, Isolation::Committed).map_err(explain)
        };
        let (first, next) = (ask(Spot::First)?, ask(Spot::Next)?);
        let found = from.spot().map(ask).transpose()?;
        let reader = Reader::open(connection, "aion-tap", Limits::default()).map_err(explain)?;
        let parts = numbers.iter().enumerate().map(|(at, number)| {
            let (first, end) = (first[at].get(), next[at].get());
            let found = found.as_ref().map(|found| found[at].get());
            let next = from.offset(first, end, found);
            Part { name: TopicPartition::new(topic, *number), reading: None, next, end }
        });
        let (connection, silent_since) = (connection.clone(), Instant::now());
        let parts = parts.collect();
        Ok(Log { connection, admin, reader, parts, silent_since })
    }

    /// Gives each partition a turn. `take` answers whether it wants more; so does this.
    pub(super) fn step(
        &mut self,
        follow: bool,
        mut take: impl FnMut(i32, &Record<'_>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let Log { connection, admin, reader, parts, silent_since } = self;
        let failed = |error: &Error| anyhow!(connection.explain(error, Purpose::Consume));
        let (mut has_come, mut has_more) = (false, false);
        for part in parts {
            if !follow && part.next >= part.end {
                part.reading = None;
                continue;
            }
            has_more = true;
            let reading = match &mut part.reading {
                Some(reading) => reading,
                none => {
                    let started = reader.start(&part.name, Offset(part.next));
                    none.insert(started.map_err(|error| failed(&error))?)
                }
            };
            let mut taken = Ok(true);
            let fetched = reading.fetch(FETCH, TURN, |record| {
                let is_beyond = !follow && record.offset.get() >= part.end;
                if !is_beyond && matches!(taken, Ok(true)) {
                    taken = take(part.name.partition, &record);
                }
            });
            match fetched {
                Ok(fetched) => {
                    has_come |= fetched.next.get() > part.next;
                    part.next = fetched.next.get();
                }
                Err(Unread::OutOfRange(wanted)) => {
                    let first =
                        admin.offsets(&[(part.name.clone(), Spot::First)], Isolation::Committed);
                    let first = first.map_err(|error| failed(&error))?[0].get();
                    if first <= wanted.get() {
                        bail!("the log of {} was cut below {wanted} while it was read", part.name);
                    }
                    eprintln!("aion: {}: retention took {wanted}..{first}", part.name);
                    (part.reading, part.next) = (None, first);
                }
                Err(Unread::Failed(error)) => return Err(failed(&error)),
            }
            if !taken? {
                return Ok(false);
            }
        }
        if has_come || !has_more || follow {
            *silent_since = Instant::now();
        } else if silent_since.elapsed() > SILENCE {
            return Err(match reader.complaint() {
                Some(error) => failed(&error),
                None => anyhow!("nothing came for {} s", SILENCE.as_secs()),
            });
        }
        Ok(has_more)
    }
}
