//! Topics, their ids and settings, offsets, access rules, and whether a cluster can be reached.

mod acls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use aion_schemas::log::{Offset, Timestamp};
use rdkafka::bindings::{self as rd, rd_kafka_admin_op_t as Op, rd_kafka_resp_err_t as Code};
use uuid::Uuid;

pub use self::acls::{Acl, Operation, Resource};
use crate::{
    Connection, Error, TopicPartition,
    native::{AdminRequest, Client, Kind, NewTopicSpec, PartitionList, Queue, TopicResult},
};

/// A topic to create.
#[derive(Clone, Copy, Debug)]
pub struct NewTopic<'a> {
    /// Its name.
    pub topic: &'a str,
    /// The number of its partitions.
    pub partitions: i32,
    /// The number of its replicas.
    pub replication: i32,
    /// Its settings, such as `("retention.ms", "604800000")`.
    pub configs: &'a [(&'a str, &'a str)],
}

/// What became of one topic of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was so already: the topic exists (create), doesn't (delete), or has that many partitions.
    Already,
    /// It was not done.
    Failed(Error),
}

/// A topic's identity, as the cluster has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicIdentity {
    /// The topic's name.
    pub topic: String,
    /// Its id, another one after each creation; none if there is no such topic.
    pub id: Option<Uuid>,
    /// The number of its partitions.
    pub partitions: usize,
}

/// Which offset of a partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// The first that the log still has.
    First,
    /// The next that will be written (read uncommitted), or the last stable one (read committed).
    Next,
    /// The first whose record has this time or a later one.
    At(Timestamp),
}

/// Whether records of open transactions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the last stable offset only: what a consumer of this crate can read.
    Committed,
    /// Up to the high watermark.
    Uncommitted,
}

/// A client that asks and administers. Its calls wait for the answer, up to the time given with
/// `open`.
pub struct Admin {
    client: Arc<Client>,
    events: Queue,
    brokers: String,
    wait: Duration,
    /// Id of a broker that answered; -1 when none is known.
    answering: AtomicI32,
}

impl Admin {
    /// Opens a client whose requests wait up to `wait`. Connects in the background; see
    /// [`Admin::reach`].
    pub fn open(connection: &Connection, wait: Duration) -> Result<Admin, Error> {
        let properties = connection.admin("aion-admin")?;
        let client = Arc::new(Client::new(Kind::Producer, &properties, rd::RD_KAFKA_EVENT_ERROR)?);
        let events = Queue::main(&client)?;
        let (brokers, answering) = (connection.brokers.clone(), AtomicI32::new(UNKNOWN));
        Ok(Admin { client, events, brokers, wait, answering })
    }

    /// Checks that the cluster answers; returns the number of its brokers, or the reason, as far as
    /// the client knows.
    pub fn reach(&self) -> Result<usize, Error> {
        let doing = format!("connect to Kafka at {}", self.brokers);
        let deadline = Instant::now() + self.wait;
        loop {
            // In steps, since wrong credentials show as an event at once, while the question waits
            // for ever.
            let step = deadline.saturating_duration_since(Instant::now()).min(STEP);
            let code = match self.client.brokers(step) {
                Ok((brokers, _)) => return Ok(brokers),
                Err(code) => code,
            };
            let complaint = self.complaint(&doing);
            if let Some(error @ Error::Authentication { .. }) = complaint {
                return Err(error);
            }
            if Instant::now() >= deadline {
                let last = complaint.unwrap_or_else(|| Error::of(code, &*doing, ""));
                return Err(with_advice(last));
            }
        }
    }

    /// Creates topics; those that exist are left as they are. One outcome for each topic, in the
    /// order asked.
    pub fn create_topics(&self, topics: &[NewTopic<'_>]) -> Result<Vec<Outcome>, Error> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let specs: Vec<_> = topics
            .iter()
            .map(|new| NewTopicSpec {
                topic: new.topic,
                partitions: new.partitions,
                replication: new.replication,
                configs: new.configs,
            })
            .collect();
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_CREATETOPICS, "create topics".into())?;
        let results = request.create_topics(&specs)?;
        let exists = Code::RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS;
        let names = topics.iter().map(|new| new.topic);
        Ok(outcomes(names, &results, exists, "create topic"))
    }

    /// Deletes topics. One outcome for each, in the order asked.
    pub fn delete_topics(&self, topics: &[&str]) -> Result<Vec<Outcome>, Error> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_DELETETOPICS, "delete topics".into())?;
        let results = request.delete_topics(topics)?;
        let unknown = Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        Ok(outcomes(topics.iter().copied(), &results, unknown, "delete topic"))
    }

    /// Raises the number of a topic's partitions to `total`.
    pub fn create_partitions(&self, topic: &str, total: usize) -> Result<Outcome, Error> {
        let doing = format!("raise the partitions of topic {topic} to {total}");
        if let Some(known) = self.topic_ids(&[topic])?.first()
            && known.partitions == total
        {
            return Ok(Outcome::Already);
        }
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS, doing)?;
        let results = request.create_partitions(topic, total)?;
        let none = Code::RD_KAFKA_RESP_ERR_NO_ERROR;
        let all = outcomes([topic].into_iter(), &results, none, "raise the partitions of topic");
        Ok(all.into_iter().next().unwrap_or(Outcome::Done))
    }

    /// Asks for the names of all topics that this account may see, Kafka's own included; sorted.
    pub fn topics(&self) -> Result<Vec<String>, Error> {
        let doing = "list the topics";
        let found = self.client.topics(self.wait).map_err(|code| Error::of(code, doing, ""));
        let mut names = found.inspect_err(|_| self.ask_another())?;
        names.sort_unstable();
        Ok(names)
    }

    /// Asks the cluster, not a cache, for the ids of topics; in the order asked.
    pub fn topic_ids(&self, topics: &[&str]) -> Result<Vec<TopicIdentity>, Error> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let doing = format!("look up topics {}", topics.join(", "));
        let request = self.question(Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, doing)?;
        let found = request.describe_topics(topics).inspect_err(|_| self.ask_another())?;
        let find = |topic: &&str| {
            let doing = format!("look up topic {topic}");
            let Some(one) = found.iter().find(|one| one.topic == **topic) else {
                return Err(Error::of(UNKNOWN_TOPIC, doing, "the broker left it out"));
            };
            if one.code == UNKNOWN_TOPIC {
                return Ok(TopicIdentity { topic: one.topic.clone(), id: None, partitions: 0 });
            }
            if one.code != 0 {
                return Err(Error::of(one.code, doing, &*one.reason));
            }
            if one.id == (0, 0) {
                let detail = "the broker gives topics no ids: Kafka 2.8 or later is needed";
                return Err(Error::configuration(doing, detail));
            }
            let id = Uuid::from_u64_pair(one.id.0 as u64, one.id.1 as u64);
            Ok(TopicIdentity { topic: one.topic.clone(), id: Some(id), partitions: one.partitions })
        };
        topics.iter().map(find).collect()
    }

    /// Reads a topic's settings: name, value, and whether it is the topic's own (not a default).
    pub fn describe_configs(
        &self,
        topic: &str,
    ) -> Result<Vec<(String, Option<String>, bool)>, Error> {
        let doing = format!("read the settings of topic {topic}");
        let request = self.question(Op::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, doing)?;
        let settings = request.describe_configs(topic).inspect_err(|_| self.ask_another())?;
        Ok(settings.into_iter().map(|one| (one.name, one.value, one.own)).collect())
    }

    /// Changes some of a topic's settings and leaves the others; a value of none takes one back to
    /// its default.
    pub fn alter_configs(
        &self,
        topic: &str,
        changes: &[(&str, Option<&str>)],
    ) -> Result<(), Error> {
        let doing = format!("change the settings of topic {topic}");
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS, doing)?;
        request.alter_configs(topic, changes)
    }

    /// Asks for one offset of each partition (named once only), in the order asked. For a time
    /// after the last record: the next offset.
    pub fn offsets(
        &self,
        spots: &[(TopicPartition, Spot)],
        isolation: Isolation,
    ) -> Result<Vec<Offset>, Error> {
        if spots.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.list_offsets(spots, isolation)?;
        let none_left: Vec<_> = spots
            .iter()
            .zip(&found)
            .filter(|(_, offset)| offset.get() < 0)
            .map(|((partition, _), _)| (partition.clone(), Spot::Next))
            .collect();
        if none_left.is_empty() {
            return Ok(found);
        }
        let mut next = self.list_offsets(&none_left, isolation)?.into_iter();
        let fill = |offset: Offset| {
            if offset.get() < 0 { next.next() } else { Some(offset) }
        };
        Ok(found.into_iter().filter_map(fill).collect())
    }

    /// Asks for the first and the next offset of a partition, records of open transactions
    /// included.
    pub fn watermarks(&self, partition: &TopicPartition) -> Result<(Offset, Offset), Error> {
        let (first, next) = self.client.watermarks(partition, self.wait)?;
        Ok((Offset(first), Offset(next)))
    }

    fn list_offsets(
        &self,
        spots: &[(TopicPartition, Spot)],
        isolation: Isolation,
    ) -> Result<Vec<Offset>, Error> {
        let doing = "ask for the offsets of";
        let mut list = PartitionList::with_capacity(spots.len());
        for (partition, spot) in spots {
            let which = match spot {
                Spot::First => -2,
                Spot::Next => -1,
                Spot::At(time) => time.0.div_euclid(1000).max(0),
            };
            list.push(partition, which, -1)?;
        }
        let what = format!("{doing} {} partitions", spots.len());
        let request = self.request(Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS, what)?;
        let found = request.list_offsets(&list, isolation == Isolation::Committed)?;
        let find = |(partition, _): &(TopicPartition, Spot)| {
            let doing = format!("{doing} {partition}");
            match found.iter().find(|entry| entry.partition == *partition) {
                Some(entry) if entry.failed() => Err(Error::of(entry.code, doing, "")),
                Some(entry) => Ok(Offset(entry.offset)),
                None => Err(Error::timed_out(doing)),
            }
        };
        spots.iter().map(find).collect()
    }

    fn request(&self, op: Op, doing: String) -> Result<AdminRequest<'_>, Error> {
        AdminRequest::new(&self.client, op, self.wait, doing)
    }

    /// A request that changes nothing: every broker can answer it.
    ///
    /// By default it would go to the controller that the client knows. When that one is gone, the client
    /// waits for it without looking for another, and two of its threads keep a core busy meanwhile.
    fn question(&self, op: Op, doing: String) -> Result<AdminRequest<'_>, Error> {
        let known = self.answering.load(Relaxed);
        let id = if known == UNKNOWN {
            let (_, from) =
                self.client.brokers(self.wait).map_err(|code| Error::of(code, &*doing, ""))?;
            self.answering.store(from, Relaxed);
            from
        } else {
            known
        };
        Ok(self.request(op, doing)?.sent_to(id))
    }

    /// After a failure the next question goes to whoever answers then.
    fn ask_another(&self) {
        self.answering.store(UNKNOWN, Relaxed);
    }

    /// The most telling of the client's complaints so far.
    fn complaint(&self, doing: &str) -> Option<Error> {
        let mut told = None;
        while let Some(event) = self.events.poll(Duration::ZERO) {
            if event.kind() != rd::RD_KAFKA_EVENT_ERROR {
                continue;
            }
            let error = Error::of(event.code(), doing, event.reason());
            let all_down = Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN as i32;
            match told {
                Some(Error::Authentication { .. }) => {}
                // "All brokers are down" follows every reason and says less than it.
                Some(_) if event.code() == all_down => {}
                _ => told = Some(error),
            }
        }
        told
    }
}

const UNKNOWN: i32 = -1;
const STEP: Duration = Duration::from_millis(500);
const UNKNOWN_TOPIC: i32 = Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32;

/// A cluster that can't be reached says little; these are the usual reasons.
fn with_advice(error: Error) -> Error {
    match error {
        Error::Retriable { doing, detail } => {
            let advice = "is the address right and the broker up, and does security.protocol fit \
                          the listener (a wrong one shows as a closed connection only)?";
            Error::Retriable { doing, detail: format!("{detail}; {advice}") }
        }
        other => other,
    }
}

/// Pairs the topics asked for with the broker's answers.
fn outcomes<'a>(
    topics: impl Iterator<Item = &'a str>,
    results: &[TopicResult],
    already: Code,
    doing: &str,
) -> Vec<Outcome> {
    let outcome = |topic: &str| {
        let doing = format!("{doing} {topic}");
        match results.iter().find(|result| result.topic == topic) {
            None => Outcome::Failed(Error::timed_out(doing)),
            Some(result) if result.code == 0 => Outcome::Done,
            Some(result) if result.code == already as i32 => Outcome::Already,
            Some(result) => Outcome::Failed(Error::of(result.code, doing, &*result.reason)),
        }
    };
    topics.map(outcome).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
