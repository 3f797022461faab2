//! The broker's process is killed while an idempotent producer sends: nothing is lost, doubled or
//! out of order. One that isn't idempotent shows that the kills would double. And a disk that is full costs
//! nothing that was acknowledged.
//!
//! `AION_KILLS` sets the number of kills (3), `AION_MESSAGES` that of messages (1,000,000),
//! `AION_SEED` the seed of their times, which is printed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use aion_embedded::{Broker, Settings};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};

const PARTITIONS: i32 = 4;

/// The process that is killed: this test binary once more.
#[test]
#[ignore = "the broker's process, started by the other tests"]
fn broker_process() {
    let mut settings = Settings::new(std::env::var("AION_BROKER_DATA").unwrap());
    settings.listen = std::env::var("AION_BROKER_LISTEN").unwrap().parse().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let broker = runtime.block_on(Broker::start(settings)).unwrap();
    println!("listens on {}", broker.address());
    loop {
        thread::park();
    }
}

struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts the broker; `limit_kib` makes the disk look full for files of that size.
    fn start(data: &Path, listen: &str, limit_kib: Option<u64>) -> Process {
        // Somebody's connection may have the port of one that was killed, for a moment.
        for _ in 0..100 {
            if let Some(process) = Process::try_start(data, listen, limit_kib) {
                return process;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("the broker did not start on {listen}");
    }

    fn try_start(data: &Path, listen: &str, limit_kib: Option<u64>) -> Option<Process> {
        let binary = std::env::current_exe().unwrap();
        let limit =
            limit_kib.map_or_else(String::new, |kib| format!("trap '' XFSZ; ulimit -f {kib}; "));
        let script = format!(
            "{limit}exec {} --ignored --exact broker_process --nocapture",
            binary.display()
        );
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .env("AION_BROKER_DATA", data)
            .env("AION_BROKER_LISTEN", listen)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addresses = lines.filter_map(|line| {
            line.unwrap().split_once("listens on ").map(|(_, address)| address.to_owned())
        });
        let address = addresses.next();
        if address.is_none() {
            child.wait().unwrap();
        }
        address.map(|address| Process { child, address })
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already dead when the test went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[derive(Clone, Default)]
struct Counts {
    acked: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    fatal: Arc<AtomicU64>,
}

impl ClientContext for Counts {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            eprintln!("fatal: {error} {reason}");
            self.fatal.fetch_add(1, Relaxed);
        }
    }
}

impl ProducerContext for Counts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.acked } else { &self.refused };
        count.fetch_add(1, Relaxed);
    }
}

/// Whether a producer numbers its batches, so that the broker knows one that it has already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbered {
    Yes,
    No,
}

fn producer(address: &str, counts: &Counts, numbered: Numbered) -> BaseProducer<Counts> {
    ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("enable.idempotence", (numbered == Numbered::Yes).to_string())
        // What a numbering one has at most.
        .set("max.in.flight.requests.per.connection", "5")
        .set("linger.ms", "2")
        // Requests of some 10 kB: many are under way, and some fit a disk that is nearly full.
        .set("batch.num.messages", "100")
        .set("message.timeout.ms", "120000")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.ms", "20")
        .set("log_level", "0")
        .create_with_context(counts.clone())
        .unwrap()
}

fn create(address: &str, partitions: i32) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", address).create().unwrap();
    let new = NewTopic::new("t", partitions, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for made in runtime.block_on(admin.create_topics(&[new], &AdminOptions::new())).unwrap() {
        made.unwrap();
    }
}

fn send(producer: &BaseProducer<Counts>, partition: i32, payload: &str) {
    let mut record = BaseRecord::<(), str>::to("t").partition(partition).payload(payload);
    while let Err((error, same)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(10));
        record = same;
    }
}

/// Reads each partition to its end and checks that it holds 0, 1, 2, ... without gap or repeat.
/// Returns how many messages there are.
fn read_all(address: &str, partitions: i32) -> u64 {
    let read = read_numbers(address, partitions);
    for (partition, numbers) in read.iter().enumerate() {
        let wrong = (0_u64..).zip(numbers).find(|(wanted, number)| wanted != *number);
        assert_eq!(wrong, None, "wanted and found in partition {partition}");
    }
    read.iter().map(|numbers| numbers.len() as u64).sum()
}

/// Reads each partition to its end. Returns the numbers that stand there, by partition.
fn read_numbers(address: &str, partitions: i32) -> Vec<Vec<u64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "check")
        .set("check.crcs", "true")
        .create()
        .unwrap();
    let mut assigned = TopicPartitionList::new();
    let mut wanted = 0;
    for partition in 0..partitions {
        assigned.add_partition_offset("t", partition, Offset::Beginning).unwrap();
        let (low, high) =
            consumer.fetch_watermarks("t", partition, Duration::from_secs(20)).unwrap();
        assert_eq!(low, 0);
        wanted += high;
    }
    consumer.assign(&assigned).unwrap();
    let mut numbers = vec![Vec::new(); partitions as usize];
    let until = Instant::now() + Duration::from_mins(1);
    for read in 0..wanted {
        let message = loop {
            assert!(Instant::now() < until, "{read} of {wanted} read");
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                break message.unwrap();
            }
        };
        let text = std::str::from_utf8(message.payload().unwrap()).unwrap();
        numbers[message.partition() as usize].push(text.parse().unwrap());
    }
    numbers
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// xorshift64*: times that a printed seed brings back.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

/// Sends numbered messages to all partitions while the broker is killed at times that the seed gives. Returns a broker
/// that was started once more; every message was acknowledged.
fn sent_through_kills(
    folder: &Path,
    numbered: Numbered,
    (kills, messages): (u64, u64),
    seed: u64,
) -> Process {
    let mut random_state = seed;
    let mut broker = Process::start(folder, "127.0.0.1:0", None);
    let address = broker.address.clone();
    create(&address, PARTITIONS);
    let counts = Counts::default();
    let producer = producer(&address, &counts, numbered);
    // One kill somewhere in each of as many equal parts.
    let part = messages / kills.max(1);
    let mut at = random(&mut random_state) % part;
    let mut killed = 0;
    for number in 0..messages {
        let partition = (number % PARTITIONS as u64) as i32;
        send(&producer, partition, &format!("{:0>100}", number / PARTITIONS as u64));
        if number == at && killed < kills {
            // Let a random number of requests get under way, and die among them.
            let pause = Duration::from_micros(random(&mut random_state) % 30_000);
            producer.poll(pause);
            broker.kill();
            broker = Process::start(folder, &address, None);
            killed += 1;
            at = killed * part + random(&mut random_state) % part;
        }
    }
    producer.flush(Duration::from_mins(2)).unwrap();
    assert_eq!(killed, kills);
    assert_eq!(counts.fatal.load(Relaxed), 0);
    assert_eq!((counts.acked.load(Relaxed), counts.refused.load(Relaxed)), (messages, 0));
    broker.kill();
    Process::start(folder, &address, None)
}

#[test]
fn kills_lose_double_and_reorder_nothing() {
    let kills = setting("AION_KILLS", 3);
    let messages = setting("AION_MESSAGES", 1_000_000);
    let seed = setting("AION_SEED", u64::from(std::process::id())).max(1);
    println!("AION_SEED={seed} AION_KILLS={kills} AION_MESSAGES={messages}");
    let folder = tempfile::tempdir().unwrap();
    let broker = sent_through_kills(folder.path(), Numbered::Yes, (kills, messages), seed);
    assert_eq!(read_all(&broker.address, PARTITIONS), messages);
    println!(
        "{messages} sent and acknowledged, {messages} read: 0 lost, 0 doubled, 0 out of order"
    );
}

/// Negative control: the same kills hit batches that are written and not answered, which are sent again. It is the
/// look at their numbers that keeps them from being there twice.
#[test]
fn without_numbers_what_a_kill_left_unanswered_is_doubled() {
    const KILLS: u64 = 10;
    const MESSAGES: u64 = 200_000;
    let seed = setting("AION_SEED", u64::from(std::process::id())).max(1);
    println!("AION_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let broker = sent_through_kills(folder.path(), Numbered::No, (KILLS, MESSAGES), seed);
    let read = read_numbers(&broker.address, PARTITIONS);
    let distinct = |numbers: &Vec<u64>| numbers.iter().collect::<HashSet<_>>().len() as u64;
    assert_eq!(read.iter().map(distinct).sum::<u64>(), MESSAGES, "acknowledged, so there");
    let count: u64 = read.iter().map(|numbers| numbers.len() as u64).sum();
    println!("{} of {MESSAGES} messages more than were sent", count - MESSAGES);
    assert!(count > MESSAGES, "no kill hit a batch that was written and not answered");
}

#[test]
fn a_full_disk_refuses_and_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    // Files of at most 256 KiB, as on a disk with no more room.
    let mut broker = Process::start(folder.path(), "127.0.0.1:0", Some(256));
    let address = broker.address.clone();
    create(&address, 1);
    let counts = Counts::default();
    let producer = producer(&address, &counts, Numbered::Yes);
    for number in 0..10_000 {
        send(&producer, 0, &format!("{number:0>100}"));
    }
    let until = Instant::now() + Duration::from_secs(20);
    let mut before = u64::MAX;
    // Until half a second brings no further acknowledgement.
    while before != counts.acked.load(Relaxed) || before == 0 {
        assert!(Instant::now() < until);
        before = counts.acked.load(Relaxed);
        producer.poll(Duration::from_millis(500));
    }
    assert!((100..10_000).contains(&before), "{before}");
    // It is still there for readers, with all that was acknowledged and nothing torn.
    assert!(read_all(&address, 1) >= before);
    // With room again the same producer goes on where it was.
    broker.kill();
    let broker = Process::start(folder.path(), &address, None);
    producer.flush(Duration::from_mins(1)).unwrap();
    assert_eq!((counts.acked.load(Relaxed), counts.fatal.load(Relaxed)), (10_000, 0));
    assert_eq!(read_all(&broker.address, 1), 10_000);
}
