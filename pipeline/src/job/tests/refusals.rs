//! A sink that refuses a row, one of which rows wait, one that has lost what it had, and one that fills breaks.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use aion_schemas::log::{Mark, Marks, Offset, Partition};
use aion_sinks::{
    batch::Batch,
    sink::{Accepted, Flush, Flushed, Refused, Sink, SinkError},
};
use async_trait::async_trait;

use super::{
    Balking, LONG, Open, PATIENCE, TOPIC_ID, chunk, partition, start, start_by, start_without,
    stream,
};
use crate::job::{
    rules::{Rule, Rules},
    source::{Command, Event},
};

/// Refuses the row at offset 3 once it was handed rows; says at each assignment what was stored once, and what is stored
/// beyond its mark.
#[derive(Default)]
struct Choosy {
    mark: i64,
    refuses: bool,
    lost: Vec<(Partition, Range<Offset>)>,
    ahead: Vec<Range<Offset>>,
    last_ahead: Option<Mark>,
    /// The offsets that it was handed.
    handed: Arc<Mutex<Vec<Range<Offset>>>>,
    /// Where logs end, and what was handed over.
    told: Arc<Mutex<Vec<String>>>,
    /// How many partitions the topic has, as it was told last.
    partitions: usize,
    /// The same, when it was handed a batch.
    counted: Arc<Mutex<Vec<usize>>>,
}

#[async_trait]
impl Sink for Choosy {
    fn name(&self) -> &'static str {
        "choosy"
    }

    fn store_id(&self) -> String {
        "choosy".to_owned()
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        let mark = Mark { offset: Offset(self.mark), epoch: -1 };
        Ok(partitions.iter().map(|partition| (partition.clone(), mark)).collect())
    }

    fn topic_has(&mut self, partitions: usize) {
        self.partitions = partitions;
    }

    fn log_ends(&mut self, partition: &Partition, end: Offset) {
        self.told.lock().unwrap().push(format!("{} ends at {end}", partition.number));
    }

    fn take_lost(&mut self) -> Vec<(Partition, Range<Offset>)> {
        self.lost.clone()
    }

    fn stored_ahead(&self, _: &Partition) -> Vec<Range<Offset>> {
        self.ahead.clone()
    }

    fn last_ahead(&self, _: &Partition) -> Option<Mark> {
        self.last_ahead
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        self.told.lock().unwrap().push(format!("rows {}", batch.range.start));
        self.handed.lock().unwrap().push(batch.range);
        self.counted.lock().unwrap().push(self.partitions);
        Ok(Accepted::Taken)
    }

    async fn flush(&mut self, _: Instant, _: Flush) -> Result<Flushed, SinkError> {
        let mut flushed = Flushed::default();
        let is_handed = self.told.lock().unwrap().iter().any(|one| one.starts_with("rows"));
        if is_handed && std::mem::take(&mut self.refuses) {
            let cause = "no such row".to_owned();
            flushed.refused.push(Refused { partition: partition(0), offset: Offset(3), cause });
        }
        Ok(flushed)
    }

    fn revoke(&mut self, _: &[Partition]) {}
}

#[tokio::test]
async fn a_refused_row_is_read_again_as_a_rejected_record() {
    let job = start(Box::new(Choosy { refuses: true, ..Choosy::default() }), Open);
    job.script.give(&[0], 5);
    let deadline = Instant::now() + PATIENCE;
    let said = Arc::clone(&job.script.said);
    let order = || {
        let said = said.lock().unwrap();
        let at = |is: fn(&Command) -> bool| said.iter().rposition(is);
        let refused = at(|one| {
            matches!(one, Command::Refuse { partition, offset, cause }
                if partition.number == 0 && *offset == Offset(3) && cause == "choosy: no such row")
        });
        refused.zip(at(|one| matches!(one, Command::Start { .. })))
    };
    while order().is_none_or(|(refused, started)| started < refused) {
        assert!(Instant::now() < deadline, "{:?}", said.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    job.script.stop(Duration::from_secs(5));
    drop(job.end().await);
}

/// Its rows at 2 and 4 wait for something, which comes nearer at each try, or never. Every other try may fail otherwise.
struct Waiting {
    comes_nearer: bool,
    fails_between: bool,
    is_handed: bool,
    tries: Arc<AtomicUsize>,
}

#[async_trait]
impl Sink for Waiting {
    fn name(&self) -> &'static str {
        "waiting"
    }

    fn store_id(&self) -> String {
        "waiting".to_owned()
    }

    async fn assign(&mut self, _: &[Partition]) -> Result<Marks, SinkError> {
        self.is_handed = false;
        Ok(Marks::new())
    }

    async fn write(&mut self, _: Batch) -> Result<Accepted, SinkError> {
        self.is_handed = true;
        Ok(Accepted::Taken)
    }

    async fn flush(&mut self, _: Instant, _: Flush) -> Result<Flushed, SinkError> {
        if !self.is_handed {
            return Ok(Flushed::default());
        }
        let tries = self.tries.fetch_add(1, SeqCst);
        let at = if self.comes_nearer { tries } else { 0 };
        let row = |offset| Refused {
            partition: partition(0),
            offset: Offset(offset),
            cause: format!("it is at {at}"),
        };
        let (doing, cause) = ("store".to_owned(), "rows wait".to_owned());
        if self.fails_between && tries % 2 == 1 {
            return Err(SinkError::Retry { doing, cause });
        }
        Err(SinkError::Waits { doing, cause, rows: vec![row(2), row(4)] })
    }

    fn revoke(&mut self, _: &[Partition]) {}
}

/// The offsets that are to be read again as rejected ones, once the sink was tried some times.
async fn refused_of_those_that_wait(
    wait_at_most: Duration,
    comes_nearer: bool,
    fails_between: bool,
) -> Vec<Offset> {
    let tries = Arc::<AtomicUsize>::default();
    let sink = Waiting { comes_nearer, fails_between, is_handed: false, tries: Arc::clone(&tries) };
    let mut job = start_by((Rules::default(), 1.0, wait_at_most), Box::new(sink), Open);
    job.script.give(&[0], 5);
    let said = Arc::clone(&job.script.said);
    let refused = || {
        let said = said.lock().unwrap();
        let refused = said.iter().filter_map(|one| match one {
            Command::Refuse { offset, cause, .. } => {
                assert_eq!(cause, "waiting: it is at 0");
                Some(*offset)
            }
            _ => None,
        });
        refused.collect::<Vec<_>>()
    };
    let told = tokio::time::timeout(PATIENCE, job.status.wait_for(|now| now.trouble.is_some()));
    assert!(told.await.is_ok(), "{:#?}", job.status.now());
    assert_eq!(job.status.now().trouble.as_deref(), Some("waiting: store: rows wait"));
    let deadline = Instant::now() + PATIENCE;
    while refused().is_empty() && tries.load(SeqCst) < 5 {
        assert!(Instant::now() < deadline, "{:?}", said.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = refused();
    job.script.stop(Duration::from_secs(1));
    drop(job.end().await);
    refused
}

#[tokio::test]
async fn rows_that_wait_in_vain_are_read_again_as_rejected_records() {
    let soon = Duration::from_millis(300);
    let both = [Offset(2), Offset(4)];
    assert_eq!(refused_of_those_that_wait(soon, false, false).await, both);
    let between = refused_of_those_that_wait(soon, false, true).await;
    assert_eq!(between, both, "that the sink fails between doesn't begin the time anew");
}

#[tokio::test]
async fn rows_wait_for_long_and_on_while_something_comes() {
    let none = Vec::<Offset>::new();
    assert_eq!(refused_of_those_that_wait(LONG, false, false).await, none);
    let soon = Duration::from_millis(300);
    let refused = refused_of_those_that_wait(soon, true, false).await;
    assert_eq!(refused, none, "something came at each try");
}

#[tokio::test]
async fn sinks_know_where_the_log_ends_before_they_are_handed_anything_again() {
    let sink = Choosy { refuses: true, ..Choosy::default() };
    let told = Arc::clone(&sink.told);
    let job = start(Box::new(sink), Open);
    job.script.give(&[0], 5);
    let deadline = Instant::now() + PATIENCE;
    while told.lock().unwrap().iter().filter(|one| *one == "0 ends at 100").count() < 2 {
        assert!(Instant::now() < deadline, "{:?}", told.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(told.lock().unwrap()[..2], ["0 ends at 100", "rows 0"]);
    job.script.stop(Duration::from_secs(5));
    drop(job.end().await);
}

#[tokio::test]
async fn sinks_know_how_many_partitions_there_are_before_they_are_handed_anything() {
    let sink = Choosy::default();
    let counted = Arc::clone(&sink.counted);
    let job = start(Box::new(sink), Open);
    job.script.give(&[0], 5);
    let deadline = Instant::now() + PATIENCE;
    while counted.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "{:#?}", job.status.now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(counted.lock().unwrap()[0], 9, "as the look-up says that its batch waited for");
    job.script.stop(Duration::from_secs(5));
    drop(job.end().await);
}

/// It is shown, and not counted: it is found so at each assignment, by each process, for as long as it is left alone. That
/// it is written anew does no harm, since its key is the same.
#[tokio::test]
async fn what_a_sink_has_lost_is_written_down_as_a_gap() {
    let journal = Balking::default();
    let calls: Arc<Mutex<Vec<Vec<String>>>> = Arc::clone(&journal.calls);
    let lost = vec![(partition(0), Offset(10)..Offset(20))];
    let sink = Choosy { mark: 20, lost, refuses: true, ..Choosy::default() };
    let handed = Arc::clone(&sink.handed);
    let job = start(Box::new(sink), journal);
    job.script.tell(Event::Assigned { stream: stream(), partitions: vec![0] });
    job.script.tell(Event::Chunk(chunk(0, 1, 20..30)));
    let key = format!("test:{}:0:10:sink_lost", partition(0).stream.id);
    let deadline = Instant::now() + PATIENCE;
    // The row that it refuses has it assigned again.
    while calls.lock().unwrap().len() < 2 {
        assert!(Instant::now() < deadline, "{:#?}", job.status.now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(calls.lock().unwrap()[..2], [[key.clone()], [key]]);
    assert_eq!(handed.lock().unwrap()[0], Offset(20)..Offset(30), "once the first is acknowledged");
    let status = job.status.clone();
    job.script.stop(Duration::from_secs(5));
    drop(job.end().await);
    let status = status.now();
    let lost: Vec<_> = status.partitions.iter().map(|partition| partition.lost).collect();
    assert_eq!((status.gaps, lost), (0, vec![Some(10)]));
}

#[tokio::test]
async fn a_break_below_the_log_is_what_the_sink_lost_and_not_all_that_lies_behind_it() {
    let journal = Balking::default();
    let calls: Arc<Mutex<Vec<Vec<String>>>> = Arc::clone(&journal.calls);
    let ahead = vec![Offset(20)..Offset(40), Offset(50)..Offset(60)];
    let sink = Choosy { mark: 10, ahead, ..Choosy::default() };
    let handed = Arc::clone(&sink.handed);
    let mut job = start(Box::new(sink), journal);
    *job.script.begin.lock().unwrap() = 80;
    job.script.give(&[0], 0);
    let counted = tokio::time::timeout(PATIENCE, job.status.wait_for(|status| status.gaps == 3));
    assert!(matches!(counted.await, Ok(Some(_))), "{:#?}", job.status.now());
    let id = partition(0).stream.id;
    let keys = ["10:sink_lost", "40:sink_lost", "60:retention"];
    let keys = keys.map(|end| format!("test:{id}:0:{end}"));
    assert_eq!(calls.lock().unwrap()[0], keys);
    // Its mark goes over all of it, and it is read on where the log begins.
    let deadline = Instant::now() + PATIENCE;
    while handed.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(handed.lock().unwrap()[0], Offset(10)..Offset(80));
    let said = Arc::clone(&job.script.said);
    let reads_on =
        |one: &Command| matches!(one, Command::Start { at, .. } if at.offset == Offset(80));
    assert!(said.lock().unwrap().iter().any(reads_on), "{:?}", said.lock().unwrap());
    job.script.stop(Duration::from_secs(5));
    drop(job.end().await);
}

/// A sink that fills the break 20..30, and has 30..100 of epoch 0: of a log that was cut at 60 meanwhile, and has grown to
/// 120 in epoch 1. What it is handed, and what is written down.
async fn of_a_log_that_was_cut_behind_a_break(
    without: Option<Rule>,
) -> (Vec<Range<Offset>>, Vec<String>) {
    let journal = Balking::default();
    let calls: Arc<Mutex<Vec<Vec<String>>>> = Arc::clone(&journal.calls);
    let (ahead, last) = (vec![Offset(30)..Offset(100)], Mark { offset: Offset(100), epoch: 0 });
    let sink = Choosy { mark: 20, ahead, last_ahead: Some(last), ..Choosy::default() };
    let handed = Arc::clone(&sink.handed);
    let job = start_without(without, Box::new(sink), journal);
    *job.script.end.lock().unwrap() = Some(120);
    job.script.tell(Event::Assigned { stream: stream(), partitions: vec![0] });
    for (range, epoch) in [(20..60, 0), (60..120, 1)] {
        let mut read = chunk(0, 1, range);
        read.batch.epoch = epoch;
        read.epochs = vec![(read.batch.range.start, epoch)];
        job.script.tell(Event::Chunk(read));
    }
    let is_over = || !calls.lock().unwrap().is_empty() || handed.lock().unwrap().len() == 2;
    let deadline = Instant::now() + PATIENCE;
    while !is_over() {
        assert!(Instant::now() < deadline, "{:#?}", job.status.now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    job.script.stop(Duration::from_secs(5));
    drop(job.end().await);
    (handed.lock().unwrap().clone(), calls.lock().unwrap().concat())
}

#[tokio::test]
async fn a_log_that_was_cut_behind_a_break_stops_before_what_would_be_left_out_as_stored() {
    let (handed, keys) = of_a_log_that_was_cut_behind_a_break(None).await;
    assert_eq!(handed, [Offset(20)..Offset(60)], "what it still has fills the break");
    assert_eq!(keys, [format!("test:{TOPIC_ID}:0:60:diverged")]);
}

/// Negative control: the records from 60 to 100 are handed over, where the sink has others and leaves them out.
#[tokio::test]
async fn without_the_epoch_behind_a_break_records_are_left_out_as_stored() {
    let without = Some(Rule::EveryMarkChecked);
    let (handed, keys) = of_a_log_that_was_cut_behind_a_break(without).await;
    assert_eq!(handed, [Offset(20)..Offset(60), Offset(60)..Offset(120)]);
    assert_eq!(keys, Vec::<String>::new(), "and nobody is told");
}
