//! What `aion generate` is told, checked as it is read.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use aion_kafka::Connection;
use aion_schemas::{
    catalog::{self, Catalog},
    decode::SchemaId,
    log::Timestamp,
    schema::NAMESPACE,
};
use anyhow::Context;
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;

use super::{broken::Share, container::Container, event::Topic, messages::Encoder};
use crate::{
    args::{kafka::KafkaArgs, target},
    data_folder::{running_broker, running_registry},
    exit::{Exit, Failure},
    publish::contract_id,
    registry::Registry,
};

/// Events a second of a life that isn't paced.
const UNPACED_RATE: f64 = 200.0;

/// Arguments of `aion generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// Topic to fill, by its name or its table's; may be repeated [default: all]
    #[arg(long = "topic", value_name = "TOPIC", default_value = "all", hide_default_value = true)]
    topics: Vec<Selection>,
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(super) count: u64,
    /// Where the randomness starts: the same seed, start, topics and rate give the same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Events a second, by the clock and in the events' times; without it, as fast as they are
    /// taken, and 200 a second in the events' times
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(super) rate: Option<f64>,
    /// Time of the first event, in RFC 3339, or `now` [default: with --rate now, else such that
    /// the last event is about now]
    #[arg(long, value_name = "TIME")]
    start: Option<Start>,
    /// Encoding of the messages
    #[arg(long, value_enum, default_value_t = Encoding::Json)]
    encoding: Encoding,
    /// The schema registry that has the topics' schemas, for `--encoding avro`; several URLs of
    /// one with commas [default: that of the `aion dev` whose broker gets the messages]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    registry: Vec<String>,
    /// Data folder of a running `aion dev`, whose registry is used when its broker is named
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Id of the topic's schema, for `--encoding avro` where no registry is to be asked; with one
    /// topic
    #[arg(long, value_name = "N", conflicts_with = "registry")]
    schema_id: Option<u32>,
    /// Share of messages to break in believable ways, from 0 to 1: for trying out dead letters
    #[arg(long, value_name = "SHARE", default_value = "0")]
    pub(super) bad_share: Share,
    /// Kafka broker to send to, several with commas; without it, one line an event, or an Avro file
    /// of one topic, on standard output
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

impl GenerateArgs {
    /// The topics that were named, each once, in the catalog's order.
    pub(super) fn topics(&self) -> Vec<Topic> {
        let named = |topic: &Topic| {
            let named = |name: &Selection| [Selection::All, Selection::One(*topic)].contains(name);
            self.topics.iter().any(named)
        };
        Topic::ALL.into_iter().filter(named).collect()
    }

    /// Events a second in the events' own times.
    pub(super) fn event_rate(&self) -> f64 {
        self.rate.unwrap_or(UNPACED_RATE)
    }

    /// The time of the first event.
    pub(super) fn start(&self, now: Timestamp) -> Timestamp {
        match self.start {
            Some(Start::At(start)) => start,
            Some(Start::Now) => now,
            None if self.rate.is_some() => now,
            None => {
                Timestamp(now.0.saturating_sub((self.count as f64 / UNPACED_RATE * 1e6) as i64))
            }
        }
    }

    /// How to reach Kafka, if that is where the messages go.
    pub(super) fn connection(&self) -> anyhow::Result<Option<Connection>> {
        self.kafka.connection(self.to.as_deref())
    }

    /// What writes the messages' bodies, and the file that they are put into where they aren't lines or sent.
    pub(super) fn encoder(
        &self,
        to: Option<&Connection>,
    ) -> anyhow::Result<(Encoder, Option<Container>)> {
        if self.encoding == Encoding::Json {
            return Ok((Encoder::Json, None));
        }
        let Some(to) = to else {
            let (encoder, file) = self.file()?;
            return Ok((encoder, Some(file)));
        };
        let (catalog, topics) = (Catalog::builtin(), self.topics());
        if self.schema_id.is_some() && topics.len() != 1 {
            return usage("--schema-id belongs to one topic: name it with --topic");
        }
        let ids = self.ids(to)?;
        let mut schemas = Vec::with_capacity(topics.len());
        for topic in topics {
            let stated = catalog.topic(topic.name()).context("not in the built-in catalog")?;
            schemas.push((topic, &*stated.schema, ids.of(stated)?));
        }
        Ok((Encoder::avro(schemas), None))
    }

    /// An Avro file, and what writes the bodies in it.
    fn file(&self) -> anyhow::Result<(Encoder, Container)> {
        let &[topic] = self.topics().as_slice() else {
            return usage(
                "an Avro file has one schema: name its topic with --topic, or send with --to",
            );
        };
        if self.schema_id.is_some() || !self.registry.is_empty() {
            return usage(
                "an Avro file has its schema in it, not an id: --schema-id and --registry go with --to",
            );
        }
        if self.bad_share != Share::default() {
            return usage(
                "one broken event would break all of an Avro file: --bad-share goes with --to",
            );
        }
        let catalog = Catalog::builtin();
        let schema = &catalog.topic(topic.name()).context("not in the built-in catalog")?.schema;
        let file = Container::new(&schema.avro_text(NAMESPACE), self.seed);
        Ok((Encoder::bare_avro(topic, schema), file))
    }

    /// Where the ids of schemas come from.
    fn ids(&self, to: &Connection) -> anyhow::Result<Ids> {
        if let Some(id) = self.schema_id {
            return Ok(Ids::Given(SchemaId(id)));
        }
        let mut urls = self.registry.clone();
        let brokers = to.brokers.replace("localhost", "127.0.0.1");
        if urls.is_empty() && running_broker(&self.data).is_some_and(|dev| dev == brokers) {
            urls.extend(running_registry(&self.data));
        }
        if urls.is_empty() {
            return usage(
                "Avro messages carry the id of their schema: name the registry that has it with \
                 --registry, or the folder of a running `aion dev` with --data, or give --schema-id",
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Ids::Registry(target::of_urls(&urls)?, runtime.context("start the runtime")?))
    }
}

/// Where the ids of schemas come from.
enum Ids {
    Given(SchemaId),
    Registry(Arc<Registry>, tokio::runtime::Runtime),
}

impl Ids {
    fn of(&self, topic: &catalog::Topic) -> Result<SchemaId, Failure> {
        match self {
            Ids::Given(id) => Ok(*id),
            Ids::Registry(registry, runtime) => {
                runtime.block_on(contract_id(Some(registry), topic))
            }
        }
    }
}

fn usage<T>(message: &str) -> anyhow::Result<T> {
    Err(Failure::new(Exit::Usage, message).into())
}

/// An encoding by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Encoding {
    /// JSON text
    Json,
    /// Avro by the contract's schema: framed for a broker, a file on standard output
    Avro,
}

/// What a `--topic` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selection {
    All,
    One(Topic),
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Selection, String> {
        if text == "all" {
            return Ok(Selection::All);
        }
        let named =
            Topic::ALL.into_iter().find(|topic| [topic.name(), topic.table()].contains(&text));
        named.map(Selection::One).ok_or_else(|| {
            let known = Topic::ALL.map(|topic| format!("{} ({})", topic.name(), topic.table()));
            format!("known are all, {}", known.join(", "))
        })
    }
}

/// When a life starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Now,
    At(Timestamp),
}

impl FromStr for Start {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Start, Self::Err> {
        if text == "now" {
            return Ok(Start::Now);
        }
        let nanos = string_to_timestamp_nanos(text);
        let nanos = nanos.map_err(|_| "not `now` and not a time such as 2026-01-31T12:00:00Z")?;
        Ok(Start::At(Timestamp(nanos.div_euclid(1000))))
    }
}

fn rate(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(rate) if (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0.001 to 10000000"),
    }
}
