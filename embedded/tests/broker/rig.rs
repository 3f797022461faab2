//! A broker over a temporary folder, and clients for it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use aion_embedded::{Broker, Settings};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    indexmap::IndexMap,
    messages::{ApiKey, RequestHeader, ResponseHeader, TopicName},
    protocol::{Decodable, Encodable, Request, StrBytes},
    records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};
use rdkafka::{
    ClientConfig, Message,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rig {
    pub runtime: Runtime,
    broker: Option<Broker>,
    settings: Settings,
    _folder: TempDir,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(|_| {})
    }

    pub fn with(adjust: impl FnOnce(&mut Settings)) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(folder.path().join("kafka"));
        // Retention runs when a test says so.
        settings.retention_check = Duration::from_hours(1);
        adjust(&mut settings);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let broker = runtime.block_on(Broker::start(settings.clone())).unwrap();
        // A restarted broker has to be where its clients look for it.
        settings.listen = broker.address();
        Rig { runtime, broker: Some(broker), settings, _folder: folder }
    }

    pub fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.settings.listen
    }

    pub fn data(&self) -> PathBuf {
        self.settings.data.clone()
    }

    pub fn stop(&mut self) {
        self.runtime.block_on(self.broker.take().unwrap().stop()).unwrap();
    }

    pub fn start(&mut self) {
        self.broker = Some(self.runtime.block_on(Broker::start(self.settings.clone())).unwrap());
    }

    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub fn config(&self, set: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address().to_string());
        for (name, value) in set {
            config.set(*name, *value);
        }
        config
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config(&[]).create().unwrap()
    }

    pub fn create(&self, topic: &str, partitions: i32, set: &[(&str, &str)]) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = set.iter().fold(new, |new, (name, value)| new.set(name, value));
        let admin = self.admin();
        let made = self.runtime.block_on(admin.create_topics(&[new], &AdminOptions::new()));
        for result in made.unwrap() {
            result.unwrap();
        }
    }

    /// Sends `values` to partition 0 and waits for the acknowledgements.
    pub fn send(&self, topic: &str, values: &[&str]) {
        let producer: BaseProducer =
            self.config(&[("enable.idempotence", "true")]).create().unwrap();
        for value in values {
            let record = BaseRecord::<(), str>::to(topic).partition(0).payload(value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        assert_eq!(producer.in_flight_count(), 0);
    }

    pub fn consumer(&self, group: &str, set: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.config(&[
            ("group.id", group),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "100"),
        ]);
        for (name, value) in set {
            config.set(*name, *value);
        }
        config.create().unwrap()
    }

    /// The values of partition 0 from its first offset on.
    pub fn values(&self, topic: &str, count: usize) -> Vec<String> {
        let consumer = self.consumer("values", &[]);
        let mut place = rdkafka::TopicPartitionList::new();
        place.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
        consumer.assign(&place).unwrap();
        let message = |_| {
            let message = poll(&consumer);
            String::from_utf8(message.payload().unwrap_or_default().to_vec()).unwrap()
        };
        (0..count).map(message).collect()
    }

    pub fn watermarks(&self, topic: &str) -> (i64, i64) {
        self.consumer("watermarks", &[]).fetch_watermarks(topic, 0, PATIENCE).unwrap()
    }

    /// Speaks one request by hand.
    pub fn ask<R: Request>(&self, version: i16, request: &R) -> R::Response {
        Wire::connect(self.address()).ask(version, request)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.broker.is_some() {
            self.stop();
        }
    }
}

/// The next message, or a failed test.
pub fn poll(consumer: &BaseConsumer) -> rdkafka::message::OwnedMessage {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            return message.unwrap().detach();
        }
    }
    panic!("no message within {PATIENCE:?}");
}

/// A connection that speaks the protocol by hand.
pub struct Wire(TcpStream);

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire(stream)
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        let key = ApiKey::try_from(R::KEY).unwrap();
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(Some("wire".into()));
        header.encode(&mut frame, key.request_header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        self.frame(&frame);
    }

    pub fn frame(&mut self, frame: &[u8]) {
        self.0.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
        self.0.write_all(frame).unwrap();
    }

    /// The next answer's bytes; `None` when the broker closed.
    pub fn answer(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        Some(frame.into())
    }

    pub fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let key = ApiKey::try_from(R::KEY).unwrap();
        let mut frame = self.answer().unwrap_or_else(|| panic!("{key:?} {version}: closed"));
        let header = ResponseHeader::decode(&mut frame, key.response_header_version(version));
        assert_eq!(header.unwrap().correlation_id, 77, "{key:?} {version}");
        let answer = R::Response::decode(&mut frame, version).unwrap();
        assert_eq!(frame.remaining(), 0, "{key:?} {version}: more than the answer");
        answer
    }

    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version)
    }
}

pub fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// An uncompressed batch with these timestamps, of producer (id, epoch, first sequence).
pub fn batch(timestamps: &[i64], (producer, epoch, sequence): (i64, i16, i32)) -> Bytes {
    let record = |(at, timestamp): (usize, &i64)| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: producer,
        producer_epoch: epoch,
        timestamp_type: TimestampType::Creation,
        offset: at as i64,
        // The encoder begins a batch wherever offsets and sequence numbers part.
        sequence: sequence + at as i32,
        timestamp: *timestamp,
        key: None,
        value: Some(Bytes::from(format!("value {at}"))),
        headers: IndexMap::new(),
    };
    let records: Vec<Record> = timestamps.iter().enumerate().map(record).collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}
