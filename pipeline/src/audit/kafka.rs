//! The log's side: which topics there are, which offsets they have, and the records themselves.
//!
//! **Invariant:** it belongs to no group and commits nothing; what it reads is what any reader of
//! committed records gets.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use aion_kafka::{
    Admin, Connection, Error, Isolation, Limits, Purpose, Reader, Reading, Record, Spot,
    TopicIdentity, TopicPartition, Unread,
};
use aion_schemas::log::{Offset, Timestamp};
use anyhow::{anyhow, bail};
use tokio_util::sync::CancellationToken;

use super::{
    account::{Holes, Run, Window},
    retries::Sent,
};

/// How long a broker may take to answer a question.
const ANSWER: Duration = Duration::from_secs(20);
/// How long nothing may come from a log that has more, while brokers restart.
const SILENCE: Duration = Duration::from_mins(2);
/// Between looks at whether the audit is to stop.
const STEP: Duration = Duration::from_millis(500);
/// Records of one fetch: of each, its offset waits here.
const FETCH: usize = 8192;
const NAME: &str = "aion-audit";

/// A cluster, open for questions.
pub(super) struct Cluster {
    connection: Connection,
    admin: Admin,
    reader: Reader,
    cancel: CancellationToken,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Opens the clients and checks that the cluster answers.
    pub(super) fn open(
        connection: &Connection,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Cluster> {
        let explain = |error: Error| anyhow!(connection.explain(&error, Purpose::Administer));
        let admin = Admin::open(connection, ANSWER).map_err(explain)?;
        admin.reach().map_err(explain)?;
        let reader = Reader::open(connection, NAME, Limits::default()).map_err(explain)?;
        let (connection, cancel) = (connection.clone(), cancel.clone());
        Ok(Cluster { connection, admin, reader, cancel })
    }

    /// The topic as it is now.
    pub(super) fn identity(&self, topic: &str) -> anyhow::Result<TopicIdentity> {
        let mut found = self.admin.topic_ids(&[topic]).map_err(|error| self.asked(&error))?;
        found.pop().ok_or_else(|| anyhow!("look up topic {topic}: no answer"))
    }

    /// The offsets that each partition has now, and the first appended since.
    pub(super) fn bounds(
        &self,
        topic: &TopicIdentity,
        since: Option<Timestamp>,
    ) -> anyhow::Result<Vec<Bounds>> {
        let numbers = 0..topic.partitions as i32;
        let at = |spot: Spot| -> Vec<_> {
            let named = numbers.clone().map(|number| TopicPartition::new(&topic.topic, number));
            named.map(|partition| (partition, spot)).collect()
        };
        let ask = |spot| {
            let found = self.admin.offsets(&at(spot), Isolation::Committed);
            found.map_err(|error| self.asked(&error))
        };
        let (first, next) = (ask(Spot::First)?, ask(Spot::Next)?);
        let since = since.map(|since| ask(Spot::At(since))).transpose()?;
        let since = since.unwrap_or_else(|| first.clone());
        let bounds = first.into_iter().zip(next).zip(since);
        let bounds = bounds.map(|((first, next), since)| Bounds {
            first: first.get(),
            next: next.get(),
            since: since.get().max(first.get()),
        });
        Ok(bounds.collect())
    }

    /// What a row means where the topic has no record.
    pub(super) fn holes(&self, topic: &str) -> Holes {
        let settings = match self.admin.describe_configs(topic) {
            Ok(settings) => settings,
            Err(error) => {
                tracing::warn!("{}", self.connection.explain(&error, Purpose::Administer));
                return Holes::Unknown;
            }
        };
        let policy = settings.into_iter().find(|(name, _, _)| name == "cleanup.policy");
        match policy.and_then(|(_, value, _)| value) {
            None => Holes::Unknown,
            Some(policy) if policy.contains("compact") => Holes::Compacted,
            Some(_) => Holes::Final,
        }
    }

    /// A log to read window by window, from an offset.
    pub(super) fn log(&self, topic: &str, partition: i32, from: i64) -> Log<'_> {
        Log {
            cluster: self,
            partition: TopicPartition::new(topic, partition),
            reading: None,
            waiting: VecDeque::new(),
            sent: None,
            certain: from,
            start: from,
        }
    }

    /// Reads every record of a run.
    pub(super) fn each(
        &self,
        partition: &TopicPartition,
        run: Run,
        mut take: impl FnMut(&Record<'_>),
    ) -> anyhow::Result<()> {
        let mut log = self.log(&partition.topic, partition.partition, run.start);
        while log.certain < run.end {
            log.step(|record| {
                if record.offset.get() < run.end {
                    take(record);
                }
            })?;
        }
        Ok(())
    }

    fn first(&self, partition: &TopicPartition) -> anyhow::Result<i64> {
        let asked = self.admin.offsets(&[(partition.clone(), Spot::First)], Isolation::Committed);
        let found = asked.map_err(|error| self.asked(&error))?;
        found.first().map(|first| first.get()).ok_or_else(|| anyhow!("{partition} has no start"))
    }

    fn asked(&self, error: &Error) -> anyhow::Error {
        anyhow!(self.connection.explain(error, Purpose::Administer))
    }

    fn reading(&self, error: &Error) -> anyhow::Error {
        anyhow!(self.connection.explain(error, Purpose::Consume))
    }
}

/// The offsets of a partition: the first that the log has, the next that it gets (its last stable
/// offset), and the first to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) first: i64,
    pub(super) next: i64,
    pub(super) since: i64,
}

/// The log of one partition, read in order.
pub(super) struct Log<'a> {
    cluster: &'a Cluster,
    partition: TopicPartition,
    reading: Option<Reading>,
    /// Records read beyond the last window: offset, and whether the value is null; one fetch at
    /// most.
    waiting: VecDeque<(i64, bool)>,
    /// Of a topic of retries: what its records say, from the first that no window took.
    sent: Option<VecDeque<Sent>>,
    /// Everything below was read, or isn't there.
    certain: i64,
    /// Below it the log wasn't read: it didn't have it any more.
    start: i64,
}

impl Log<'_> {
    /// Has it keep what records of retries say, for [`Log::sent`].
    pub(super) fn of_retries(mut self) -> Self {
        self.sent = Some(VecDeque::new());
        self
    }

    /// What the retries below `next` say that were not asked for before.
    pub(super) fn sent(&mut self, next: i64) -> Vec<Sent> {
        let Some(sent) = &mut self.sent else { return Vec::new() };
        let count = sent.partition_point(|one| one.offset < next);
        sent.drain(..count).collect()
    }

    /// Notes the records of a window, which must lie in the log; windows come in order.
    pub(super) fn fill(&mut self, window: &mut Window) -> anyhow::Result<()> {
        let run = window.run();
        loop {
            while let Some((offset, is_null)) = self.waiting.front().copied() {
                if offset >= run.end {
                    break;
                }
                window.record(offset, is_null);
                self.waiting.pop_front();
            }
            if self.certain >= run.end || !self.waiting.is_empty() {
                break;
            }
            let mut waiting = std::mem::take(&mut self.waiting);
            let mut sent = self.sent.take();
            let step = self.step(|record| {
                waiting.push_back((record.offset.get(), record.value.is_none()));
                if let Some(sent) = &mut sent {
                    sent.push_back(Sent::of(record));
                }
            });
            (self.waiting, self.sent) = (waiting, sent);
            step?;
        }
        window.was_read(self.start.min(run.end)..run.end);
        Ok(())
    }

    /// Takes what comes next.
    fn step(&mut self, mut take: impl FnMut(&Record<'_>)) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if self.cluster.cancel.is_cancelled() {
                bail!("the audit was stopped");
            }
            let reading = match &mut self.reading {
                Some(reading) => reading,
                none => {
                    let started = self.cluster.reader.start(&self.partition, Offset(self.certain));
                    none.insert(started.map_err(|error| self.cluster.reading(&error))?)
                }
            };
            match reading.fetch(FETCH, STEP, |record| take(&record)) {
                Ok(fetched) if fetched.next.get() > self.certain => {
                    self.certain = fetched.next.get();
                    return Ok(());
                }
                Ok(_) if began.elapsed() > SILENCE => return Err(self.silent()),
                Ok(_) => {}
                Err(Unread::OutOfRange(wanted)) => return self.went_on_without(wanted.get()),
                Err(Unread::Failed(error)) => return Err(self.cluster.reading(&error)),
            }
        }
    }

    /// The log doesn't have what comes next: retention was faster, or it was cut.
    fn went_on_without(&mut self, wanted: i64) -> anyhow::Result<()> {
        let first = self.cluster.first(&self.partition)?;
        if first <= wanted {
            bail!("the log of {} was cut below {wanted} while it was read", self.partition);
        }
        (self.reading, self.start, self.certain) = (None, first, first);
        Ok(())
    }

    fn silent(&self) -> anyhow::Error {
        let doing = format!("read {} at {}", self.partition, self.certain);
        match self.cluster.reader.complaint() {
            Some(error) => self.cluster.reading(&error).context(doing),
            None => anyhow!("{doing}: nothing came for {} s", SILENCE.as_secs()),
        }
    }
}
