//! What reading costs: `Consumer::fetch` of many records and nothing else, in CPU time per record.
//!
//! The broker runs in a process of its own, so this process' time is the client's: the calling
//! thread (poll, fetch) and librdkafka's threads (socket, parsing). `AION_MESSAGES` sets the number
//! of records (1,000,000 by default), `AION_COMPRESSION` the producer's codec (none). Runs three
//! times and prints each.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use aion_embedded::{Broker, Fsync, Settings};
use aion_kafka::{
    Admin, Connection, Consumer, Error, Event, Limits, NewTopic, Outgoing, Producer, TopicPartition,
};
use aion_schemas::log::Offset;

const PARTITIONS: i32 = 4;
const WAIT: Duration = Duration::from_mins(2);

fn main() {
    if std::env::args().any(|argument| argument == "broker") {
        return serve();
    }
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let messages: usize = setting("AION_MESSAGES", "1000000").parse().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("broker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let connection = Connection::to(address.trim());
    fill(&connection, messages, setting("AION_COMPRESSION", "none"));
    for round in 1..=3 {
        drain(&connection, &format!("bench-{round}"), messages);
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Runs the broker until the parent closes the pipe.
fn serve() {
    let data = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(data.path());
    settings.fsync = Fsync::Never;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(settings)).unwrap();
    println!("{}", broker.address());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    runtime.block_on(broker.stop()).unwrap();
}

fn fill(connection: &Connection, messages: usize, compression: String) {
    let admin = Admin::open(connection, WAIT).unwrap();
    let topic = NewTopic { topic: "bench", partitions: PARTITIONS, replication: 1, configs: &[] };
    admin.create_topics(&[topic]).unwrap();
    let mut connection = connection.clone();
    connection.properties.insert("compression.type".into(), compression);
    let producer = Producer::open(&connection, "bench").unwrap();
    let value = [b'x'; 450];
    for number in 0..messages {
        let key = format!("{number:036}");
        let message = Outgoing {
            topic: "bench",
            key: Some(key.as_bytes()),
            value: Some(&value),
            ..Outgoing::default()
        };
        while let Err(error) = producer.send(&message, |placed| assert!(placed.is_ok())) {
            assert!(matches!(error, Error::Full { .. }), "{error}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(WAIT).unwrap();
}

fn drain(connection: &Connection, group: &str, messages: usize) {
    let mut consumer = Consumer::open(connection, group, &["bench"], Limits::default()).unwrap();
    let started: Vec<TopicPartition> = loop {
        if let Some(Event::Assigned(partitions)) = consumer.poll(WAIT) {
            break partitions;
        }
    };
    let (began, process, thread) = (Instant::now(), process_ms(), thread_ns());
    for partition in &started {
        consumer.start(partition, Offset::ZERO, -1).unwrap();
    }
    let (mut count, mut bytes, mut calls) = (0, 0, 0);
    while count < messages {
        assert_eq!(consumer.poll(WAIT), None);
        for partition in &started {
            let fetched = consumer.fetch(partition, 4096, |record| {
                bytes += record.value.map_or(0, <[u8]>::len);
            });
            count += fetched.count;
            calls += usize::from(fetched.count > 0);
        }
    }
    let (wall, all) = (began.elapsed(), (process_ms() - process) * 1_000_000);
    let own = thread_ns() - thread;
    let each = |ns: u64| ns / messages as u64;
    println!(
        "{group}: {count} records, {} MB, {:.2} s, {} records a fetch; \
         CPU ns/record: {} calling thread, {} in all",
        bytes / 1_000_000,
        wall.as_secs_f64(),
        count / calls.max(1),
        each(own),
        each(all),
    );
}

/// CPU time of this process; the kernel counts in steps of 10 ms.
fn process_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks * 10
}

/// CPU time of this thread.
fn thread_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}
