//! Where `aion generate` puts its messages: lines on standard output, or Kafka.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use aion_kafka::{Admin, Connection};
use anyhow::{Context, bail};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::{
    container::Container,
    delivery::{Counters, Delivery},
    event::Topic,
    messages::Messages,
    pace::Pace,
};

/// How long the cluster may take to answer before the first message.
const REACH: Duration = Duration::from_secs(10);
/// How long to wait where the producer's queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(2);

/// One line an event, or an Avro file of them. A reader that has seen enough (`| head`) isn't a failure.
pub(super) fn to_stdout(
    messages: &mut Messages,
    count: u64,
    pace: Option<Pace>,
    file: Option<Container>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match write(&mut out, messages, count, pace, file).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

pub(super) fn write(
    out: &mut impl Write,
    messages: &mut Messages,
    count: u64,
    pace: Option<Pace>,
    mut file: Option<Container>,
) -> io::Result<()> {
    let started = Instant::now();
    for number in 0..count {
        if let Some(wait) = pace.and_then(|pace| pace.wait(number, started.elapsed())) {
            if let Some(file) = &mut file {
                file.end_block(out)?;
            }
            out.flush()?;
            thread::sleep(wait);
        }
        let Some(message) = messages.make() else { break };
        if let Some(file) = &mut file {
            file.push(out, message.body)?;
        } else {
            out.write_all(message.body)?;
            out.write_all(b"\n")?;
        }
    }
    file.map_or(Ok(()), |mut file| file.end_block(out))
}

/// Sends messages and waits for every acknowledgement; fails if one is missing.
pub(super) fn to_kafka(
    connection: &Connection,
    messages: &mut Messages,
    count: u64,
    pace: Option<Pace>,
) -> anyhow::Result<()> {
    let counters = Arc::new(Counters::default());
    let delivery = Delivery::open(connection, Arc::clone(&counters))?;
    let mut progress = Progress::new(count);
    send(&delivery, messages, count, pace, &mut progress)?;
    while delivery.producer().outstanding() > 0 && delivery.producer().fatal().is_none() {
        // What failed is in the counters; here an error only says that some are still on their way.
        let _on_their_way = delivery.producer().flush(Progress::REDRAW);
        progress.show(&delivery);
    }
    progress.finish(&counters);
    let missing = count - counters.acked();
    if missing > 0 {
        let cause = counters.first_failure().or_else(|| delivery.producer().fatal());
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        bail!(
            "{} of {} messages were not acknowledged{cause}",
            HumanCount(missing),
            HumanCount(count)
        );
    }
    Ok(())
}

fn send(
    delivery: &Delivery,
    messages: &mut Messages,
    count: u64,
    pace: Option<Pace>,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let started = Instant::now();
    for number in 0..count {
        while let Some(wait) = pace.and_then(|pace| pace.wait(number, started.elapsed())) {
            thread::sleep(wait.min(Progress::REDRAW));
            progress.show(delivery);
        }
        let Some(message) = messages.make() else { break };
        while !delivery.offer(message) {
            if let Some(error) = delivery.producer().fatal() {
                return Err(error).context("send events");
            }
            thread::sleep(QUEUE_FULL);
            progress.show(delivery);
        }
        if number % 1024 == 0 {
            progress.show(delivery);
        }
    }
    Ok(())
}

/// Refuses to start towards a cluster that doesn't answer or lacks the topics, which would show
/// minutes later.
pub(super) fn check_topics(connection: &Connection, topics: &[Topic]) -> anyhow::Result<()> {
    let admin = Admin::open(connection, REACH)?;
    admin.reach()?;
    let names: Vec<&str> = topics.iter().map(|topic| topic.name()).collect();
    let found = admin.topic_ids(&names)?;
    let missing = found.iter().filter(|topic| topic.id.is_none());
    let missing: Vec<&str> = missing.map(|topic| topic.topic.as_str()).collect();
    if !missing.is_empty() {
        let (names, brokers) = (missing.join(", "), &connection.brokers);
        bail!("the cluster at {brokers} lacks topics, create them first: {names}");
    }
    Ok(())
}

/// How far it is: a bar on a terminal, a line now and then elsewhere; on standard error.
struct Progress {
    bar: ProgressBar,
    count: u64,
    started: Instant,
    shown: Instant,
    every: Duration,
}

impl Progress {
    const REDRAW: Duration = Duration::from_millis(200);
    const PLAIN: Duration = Duration::from_secs(5);

    fn new(count: u64) -> Progress {
        let terminal = io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(count) } else { ProgressBar::hidden() };
        let template = "{bar:30} {percent:>3} %, {human_pos} of {human_len} acknowledged, {per_sec:0}, \
                        {eta} left {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let every = if terminal { Progress::REDRAW } else { Progress::PLAIN };
        let started = Instant::now();
        Progress { bar, count, started, shown: started, every }
    }

    fn show(&mut self, delivery: &Delivery) {
        if self.shown.elapsed() < self.every {
            return;
        }
        self.shown = Instant::now();
        let (acked, failed) = (delivery.counters().acked(), delivery.counters().failed());
        let mut message =
            if failed > 0 { format!("({} failed) ", HumanCount(failed)) } else { String::new() };
        if acked == self.bar.position()
            && let Some(complaint) = delivery.producer().complaint()
        {
            message = format!("{message}({complaint})"); // why nothing moves
        }
        self.bar.set_position(acked);
        self.bar.set_message(message.clone());
        if self.bar.is_hidden() {
            let (acked, count) = (HumanCount(acked), HumanCount(self.count));
            eprintln!("{acked} of {count} acknowledged {message}");
        }
    }

    fn finish(&self, counters: &Counters) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = counters.acked() as f64 / seconds.max(1e-9);
        eprintln!(
            "{} of {} messages acknowledged in {seconds:.1} s ({} a second), {} failed",
            HumanCount(counters.acked()),
            HumanCount(self.count),
            HumanCount(rate as u64),
            HumanCount(counters.failed()),
        );
    }
}
