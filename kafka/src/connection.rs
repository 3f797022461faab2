//! How to reach a cluster, and the librdkafka properties that follow from it for each kind of
//! client.
//!
//! **Invariant:** properties pass through except those that a guarantee rests on; these are refused
//! by name with the reason, so that no configuration file can turn exactly-once into something
//! else.

use std::{collections::BTreeMap, fmt};

use crate::Error;

/// The brokers of a cluster and librdkafka's properties to talk to them (`security.protocol`,
/// `sasl.*`, `ssl.*`, ...).
///
/// `Debug` hides the values of secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// librdkafka's properties, passed through as they are. One list serves consumers, producers
    /// and administration.
    pub properties: BTreeMap<String, String>,
}

impl Connection {
    /// A connection without further properties.
    pub fn to(brokers: impl Into<String>) -> Connection {
        Connection { brokers: brokers.into(), properties: BTreeMap::new() }
    }

    /// Checks the properties by name, without connecting.
    pub fn check(&self) -> Result<(), Error> {
        if self.brokers.trim().is_empty() {
            return Err(Error::configuration("connect to Kafka", "no broker is named"));
        }
        for property in self.properties.keys() {
            if let Some((_, why)) = REFUSED.iter().find(|(name, _)| name == property) {
                return Err(Error::Refused { property: property.clone(), why });
            }
        }
        Ok(())
    }

    /// Properties of a group member.
    pub(crate) fn consumer(&self, group: &str, limits: &Limits) -> Result<Properties, Error> {
        self.check()?;
        limits.check()?;
        let mut all = Properties::default();
        all.set("client.id", group);
        self.reading(&mut all, limits);
        all.set("group.id", group);
        all.set("partition.assignment.strategy", "cooperative-sticky");
        Ok(all)
    }

    /// Properties of a consumer that belongs to no group.
    pub(crate) fn reader(&self, name: &str, limits: &Limits) -> Result<Properties, Error> {
        self.check()?;
        limits.check()?;
        let mut all = Properties::default();
        all.set("client.id", name);
        self.reading(&mut all, limits);
        // 500 by default: the broker answers for one partition that has nothing more before it is
        // asked for the next.
        all.set("fetch.wait.max.ms", "20");
        Ok(all)
    }

    /// What all consumers have in common.
    fn reading(&self, all: &mut Properties, limits: &Limits) {
        // A flipped bit is found here, not in a decoder that happens to accept it.
        all.set("check.crcs", "true");
        // 1 s by default: a reader that drained its queue would idle.
        all.set("fetch.queue.backoff.ms", "10");
        all.pass(self);
        all.set("enable.auto.commit", "false");
        all.set("enable.auto.offset.store", "false");
        all.set("enable.partition.eof", "true");
        all.set("auto.offset.reset", "error");
        all.set("isolation.level", "read_committed");
        all.set("queued.max.messages.kbytes", limits.queued_bytes.div_ceil(1024).to_string());
        all.set("fetch.message.max.bytes", limits.partition_fetch_bytes.to_string());
        all.set("fetch.max.bytes", limits.fetch_bytes.to_string());
        // A broker sends one batch whole, however much greater than asked for: it must fit, or the
        // client asks for it for ever.
        let response = LARGEST_RESPONSE_BYTES.max(limits.fetch_bytes + 1024 * 1024);
        all.set("receive.message.max.bytes", response.to_string());
    }

    /// Properties of an idempotent producer.
    pub(crate) fn producer(&self, name: &str) -> Result<Properties, Error> {
        self.check()?;
        let mut all = Properties::default();
        all.set("client.id", name);
        all.set("partitioner", "murmur2_random"); // as Java clients place keys, so that both agree
        all.set("queue.buffering.max.kbytes", "65536");
        // A message that came compressed leaves compressed: the broker's limit is on what it takes.
        all.set("compression.type", "zstd");
        all.pass(self);
        // The broker's limit holds; this one would stop what the broker takes.
        all.set("message.max.bytes", LARGEST_MESSAGE_BYTES.to_string());
        all.set("enable.idempotence", "true");
        all.set("acks", "all");
        Ok(all)
    }

    /// Properties of a client that only asks and administers.
    pub(crate) fn admin(&self, name: &str) -> Result<Properties, Error> {
        self.check()?;
        let mut all = Properties::default();
        all.set("client.id", name);
        all.pass(self);
        Ok(all)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&String, &String)| {
            (name.clone(), if is_secret(name) { "***".to_owned() } else { value.clone() })
        };
        f.debug_struct("Connection")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.iter().map(shown).collect::<BTreeMap<_, _>>())
            .finish()
    }
}

/// Whether the value of a librdkafka property is a secret by the property's name.
pub fn is_secret(property: &str) -> bool {
    SECRET.iter().any(|part| property.contains(part))
}

/// What a response may have: more than any batch that a topic of the catalog takes.
const LARGEST_RESPONSE_BYTES: usize = 160 << 20;
/// What one message may have before it is compressed; a producer's whole queue takes 64 MiB.
const LARGEST_MESSAGE_BYTES: usize = 60 << 20;

/// Parts of property names whose values are never shown.
const SECRET: &[&str] = &["password", "secret", ".pem", "jaas", "oauthbearer.config"];

/// Properties that callers can't set, and why.
const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "the brokers are a setting of their own"),
    ("metadata.broker.list", "the brokers are a setting of their own"),
    ("group.id", "the group is the job's name"),
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("auto.commit.interval.ms", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("offset.store.method", COMMITS),
    ("auto.offset.reset", "a missing offset is a gap to record, never a silent jump"),
    ("isolation.level", "rows of aborted transactions would be stored"),
    ("enable.partition.eof", "marks advance over transaction markers by it"),
    ("partition.assignment.strategy", REBALANCE),
    ("group.protocol", REBALANCE),
    ("group.remote.assignor", REBALANCE),
    ("queued.max.messages.kbytes", LIMITS),
    ("fetch.message.max.bytes", LIMITS),
    ("max.partition.fetch.bytes", LIMITS),
    ("fetch.max.bytes", LIMITS),
    ("receive.message.max.bytes", LIMITS),
    ("message.max.bytes", "the topic's max.message.bytes decides"),
    ("enable.idempotence", "retries would store a message twice, or in another order"),
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("transactional.id", "producers here are idempotent, not transactional"),
    ("plugin.library.paths", "a plug-in can change messages on their way"),
];

const COMMITS: &str = "offsets are committed by the job only, after the rows are durable";
const REBALANCE: &str = "rebalances are answered by the cooperative-sticky protocol";
const LIMITS: &str = "it follows from the job's memory limits";
const ACKS: &str = "a message that one broker has can be lost with it";

/// The memory a consumer may hold in librdkafka, and the sizes it fetches in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes queued for one partition before its fetching stops, at least 1 KiB; one more fetch may
    /// pass it.
    pub queued_bytes: usize,
    /// Bytes of one partition in one fetch; a greater record is fetched alone.
    pub partition_fetch_bytes: usize,
    /// Bytes of one fetch over all partitions of a broker.
    pub fetch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            queued_bytes: 8 * 1024 * 1024,
            partition_fetch_bytes: 1024 * 1024,
            fetch_bytes: 16 * 1024 * 1024,
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), Error> {
        let doing = "set the consumer's memory limits";
        if self.queued_bytes < 1024 || self.partition_fetch_bytes < 1024 {
            return Err(Error::configuration(doing, "a partition needs at least 1 KiB"));
        }
        if self.partition_fetch_bytes > self.fetch_bytes {
            let detail = "one partition's share of a fetch is greater than the fetch";
            return Err(Error::configuration(doing, detail));
        }
        if self.fetch_bytes > 1_000_000_000 || self.queued_bytes > 1_000_000_000 {
            return Err(Error::configuration(doing, "more than 1 GB"));
        }
        Ok(())
    }
}

/// The properties of one client, by name; a later value replaces an earlier one.
#[derive(Default)]
pub(crate) struct Properties(pub(crate) BTreeMap<String, String>);

impl Properties {
    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn pass(&mut self, connection: &Connection) {
        self.0.extend(connection.properties.clone());
        self.set("bootstrap.servers", connection.brokers.clone());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
