//! A Kafka cluster in memory for tests: librdkafka's mock, with its group delay set to 0.
//!
//! Fit for rebalances, retries and injected errors. It keeps 5 MiB per partition and drops older
//! data silently, has no administration, no transactions' markers and no durability: for those,
//! tests need the embedded broker or Kafka.

use std::time::Duration;

use rdkafka::bindings::rd_kafka_resp_err_t as Code;

use crate::{Connection, Error, Outgoing, Producer, native::Mock};

/// A mock cluster on loopback ports; its brokers end with it.
pub struct Cluster {
    mock: Mock,
}

/// Requests that errors can be injected into, by their number in Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's")]
#[repr(i16)]
pub enum Request {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    SyncGroup = 14,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
}

/// Errors that brokers can be made to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's")]
#[repr(i32)]
pub enum Injected {
    /// The broker closes the connection instead of answering.
    Transport = Code::RD_KAFKA_RESP_ERR__TRANSPORT as i32,
    OffsetOutOfRange = Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE as i32,
    UnknownTopicOrPartition = Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32,
    NotLeader = Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as i32,
    TimedOut = Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as i32,
    MessageTooLarge = Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as i32,
    CoordinatorNotAvailable = Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE as i32,
    NotCoordinator = Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR as i32,
    IllegalGeneration = Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION as i32,
    UnknownMember = Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID as i32,
    RebalanceInProgress = Code::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS as i32,
    TopicAuthorizationFailed = Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as i32,
    GroupAuthorizationFailed = Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED as i32,
}

impl Cluster {
    /// Starts `brokers` brokers.
    pub fn start(brokers: i32) -> Result<Cluster, Error> {
        Ok(Cluster { mock: Mock::new(brokers)? })
    }

    /// How to reach it.
    pub fn connection(&self) -> Connection {
        Connection::to(self.mock.bootstraps())
    }

    /// Creates a topic; without this, topics appear with 4 partitions when they are asked for.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        self.mock.create_topic(topic, partitions)
    }

    /// Lets the next requests of a kind fail with these errors, one each.
    pub fn fail(&self, request: Request, errors: &[Injected]) {
        let codes: Vec<i32> = errors.iter().map(|error| *error as i32).collect();
        self.mock.push_errors(request as i16, &codes);
    }

    /// Takes injected errors back that were not met yet.
    pub fn stop_failing(&self, request: Request) {
        self.mock.clear_errors(request as i16);
    }

    /// Cuts all connections and accepts no new ones.
    pub fn down(&self) {
        self.mock.set_up(false);
    }

    /// Accepts connections again.
    pub fn up(&self) {
        self.mock.set_up(true);
    }

    /// Delays every answer.
    pub fn round_trip(&self, delay: Duration) {
        self.mock.set_round_trip(i32::try_from(delay.as_millis()).unwrap_or(i32::MAX));
    }

    /// Moves a partition to another broker (from 1), which raises its leader epoch.
    pub fn move_leader(&self, topic: &str, partition: i32, broker: i32) -> Result<(), Error> {
        self.mock.set_leader(topic, partition, broker)
    }

    /// Writes values to a partition, without keys, and waits until they are there.
    pub fn write<'a>(
        &self,
        topic: &str,
        partition: i32,
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), Error> {
        let producer = Producer::open(&self.connection(), "test")?;
        for value in values {
            let partition = Some(partition);
            let message = Outgoing { topic, partition, value: Some(value), ..Outgoing::default() };
            producer.send(&message, drop)?;
        }
        producer.flush(Duration::from_secs(20))
    }
}
