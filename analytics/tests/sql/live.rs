//! Live and stored rows in one snapshot, while rows are written, committed and compacted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use aion_analytics::{Engine, Tail};
use aion_schemas::log::{Marks, Offset, Partition, Stream, Timestamp};
use aion_sinks::{
    batch::Batch,
    budget::{Budget, Reservation},
    lake::{self, upkeep::Compaction},
    sink::{Accepted, Flush, Flushed, Sink, SinkError},
};
use arrow::{array::AsArray, datatypes::Int64Type};
use async_trait::async_trait;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::lake::{TestLake, ask, decision, number, shown};

/// A job's end of a table: a sink of the lake, shown.
struct Writer {
    sink: Box<dyn Sink>,
    lake: Arc<TestLake>,
    next: i64,
}

impl Writer {
    async fn open(lake: &Arc<TestLake>, tail: &Tail, settings: lake::Settings) -> Writer {
        let sink = lake.open().sink(lake.spec("decisions"), settings).await.unwrap();
        Writer::of(lake, tail, Box::new(sink)).await
    }

    async fn of(lake: &Arc<TestLake>, tail: &Tail, sink: Box<dyn Sink>) -> Writer {
        let sink = tail.of(&"decisions".into(), sink);
        let mut writer = Writer { sink: Box::new(sink), lake: Arc::clone(lake), next: 0 };
        writer.start_over().await;
        writer
    }

    /// Reads on from the store's mark, as a job does after a failure that left it in doubt of what the sink has.
    async fn start_over(&mut self) {
        let marks = self.sink.assign(&[self.lake.partition("decisions")]).await.unwrap();
        self.next = marks.values().next().map_or(0, |mark| mark.offset.get());
    }

    fn batch(&self, rows: &[Value], memory: Reservation) -> Batch {
        Batch {
            partition: self.lake.partition("decisions"),
            range: Offset(self.next)..Offset(self.next + rows.len() as i64),
            epoch: 0,
            appended: Some((Timestamp(0), Timestamp(0))),
            rows: self.lake.rows("decisions", self.next, rows),
            memory,
        }
    }

    async fn write(&mut self, rows: &[Value], memory: Reservation) {
        let mut batch = self.batch(rows, memory);
        let end = batch.range.end.get();
        loop {
            match self.sink.write(batch).await.unwrap() {
                Accepted::Taken => break,
                Accepted::Busy(back) => batch = back,
            }
            self.due().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.next = end;
    }

    async fn due(&mut self) {
        self.sink.flush(Instant::now(), Flush::Due).await.unwrap();
    }

    async fn commit(&mut self) {
        let why = Flush::Now { deadline: Instant::now() + Duration::from_mins(1) };
        self.sink.flush(Instant::now(), why).await.unwrap();
    }
}

/// A sink that fails a write once it is told to.
struct Failing {
    sink: Box<dyn Sink>,
    fails: Arc<AtomicBool>,
}

#[async_trait]
impl Sink for Failing {
    fn name(&self) -> &'static str {
        self.sink.name()
    }

    fn store_id(&self) -> String {
        self.sink.store_id()
    }

    async fn assign(&mut self, partitions: &[Partition]) -> Result<Marks, SinkError> {
        self.sink.assign(partitions).await
    }

    async fn write(&mut self, batch: Batch) -> Result<Accepted, SinkError> {
        if self.fails.swap(false, Ordering::SeqCst) {
            let cause = "wanted by the test".to_owned();
            return Err(SinkError::Retry { doing: "take rows".to_owned(), cause });
        }
        self.sink.write(batch).await
    }

    async fn flush(&mut self, now: Instant, why: Flush) -> Result<Flushed, SinkError> {
        self.sink.flush(now, why).await
    }

    fn revoke(&mut self, partitions: &[Partition]) {
        self.sink.revoke(partitions);
    }
}

async fn live() -> (Arc<TestLake>, Writer, Engine) {
    let (lake, tail) = (Arc::new(TestLake::new()), Tail::default());
    let writer = Writer::open(&lake, &tail, lake::Settings::default()).await;
    let mut settings = lake.settings();
    settings.tail = tail;
    let engine = Engine::open(settings).unwrap();
    (lake, writer, engine)
}

#[tokio::test]
async fn rows_are_seen_before_they_are_stored_and_once_afterwards() {
    let (lake, mut writer, engine) = live().await;
    let rows = [decision("a", "small", "10:00:00"), decision("b", "large", "11:00:00")];
    writer.write(&rows, Reservation::none()).await;
    let all = "select task_id, route, timestamp, _partition, _offset, _append_time, _origin, _date \
               from decisions order by _offset";
    let before = shown(&engine, all).await;
    assert!(
        before.contains("| b       | large | 2026-11-25T11:00:00Z | 0          | 1 "),
        "{before}"
    );
    assert_eq!(number(&lake.engine(), "select count(*) from decisions").await, 0, "not stored");
    writer.commit().await;
    assert_eq!(shown(&engine, all).await, before);
    assert_eq!(shown(&lake.engine(), all).await, before);
}

#[tokio::test]
async fn filters_hold_for_live_rows_as_for_stored_ones() {
    let (_, mut writer, engine) = live().await;
    let day = |day: u32, task: &str| decision(task, "small", &format!("2026-11-{day}T10:00:00Z"));
    writer.write(&[day(23, "a"), day(24, "b")], Reservation::none()).await;
    writer.commit().await;
    writer.write(&[day(24, "c"), day(25, "d"), day(25, "e")], Reservation::none()).await;
    for (filter, count) in [
        ("true", 5),
        ("_date = '2026-11-24'", 2),
        ("_date >= '2026-11-24' and task_id <> 'e'", 3),
        ("timestamp > '2026-11-24T12:00:00Z'", 2),
        ("task_id in ('a', 'd')", 2),
        ("_offset = 2", 1),
        ("upper(route) = 'SMALL' and _date < '2026-11-24'", 1),
    ] {
        let counted = format!("select count(*) from decisions where {filter}");
        assert_eq!(number(&engine, &counted).await, count, "{filter}");
        let listed = format!("select task_id from decisions where {filter}");
        let rows = ask(&engine, &listed).await.unwrap();
        assert_eq!(rows.iter().map(|rows| rows.num_rows() as i64).sum::<i64>(), count, "{filter}");
    }
    let latest = "select task_id from decisions order by _offset desc limit 1";
    assert!(shown(&engine, latest).await.contains("| e "));
}

/// The number of rows, of distinct rows, and the offset after the last.
async fn look(engine: &Engine) -> [i64; 3] {
    let sql =
        "select count(*), count(distinct _offset), coalesce(max(_offset) + 1, 0) from decisions";
    let rows = ask(engine, sql).await.unwrap();
    let column = |at: usize| rows[0].column(at).as_primitive::<Int64Type>();
    [0, 1, 2].map(|at| column(at).value(0))
}

#[tokio::test]
async fn no_count_falls_while_rows_are_read_again_after_a_failure() {
    let (lake, tail, fails) = (Arc::new(TestLake::new()), Tail::default(), Arc::default());
    let sink = lake.open().sink(lake.spec("decisions"), lake::Settings::default()).await.unwrap();
    let sink = Failing { sink: Box::new(sink), fails: Arc::clone(&fails) };
    let mut writer = Writer::of(&lake, &tail, Box::new(sink)).await;
    let mut settings = lake.settings();
    settings.tail = tail;
    let engine = Engine::open(settings).unwrap();
    let rows = |count: usize| vec![decision("a", "small", "10:00:00"); count];
    writer.write(&rows(3), Reservation::none()).await;
    writer.commit().await;
    writer.write(&rows(5), Reservation::none()).await;
    assert_eq!(look(&engine).await, [8; 3]);

    fails.store(true, Ordering::SeqCst);
    let refused = writer.batch(&rows(2), Reservation::none());
    assert!(writer.sink.write(refused).await.is_err());
    assert_eq!(look(&engine).await, [8; 3]);
    writer.start_over().await;
    assert_eq!((writer.next, look(&engine).await), (3, [8; 3]), "shown until they are read again");
    writer.write(&rows(2), Reservation::none()).await;
    assert_eq!(look(&engine).await, [8; 3], "those that were read again are seen once");
    // What is stored meanwhile is the part that was read again.
    writer.commit().await;
    assert_eq!((look(&lake.engine()).await, look(&engine).await), ([5; 3], [8; 3]));
    writer.write(&rows(5), Reservation::none()).await;
    assert_eq!(look(&engine).await, [10; 3]);
    writer.commit().await;
    assert_eq!((look(&lake.engine()).await, look(&engine).await), ([10; 3], [10; 3]));
}

/// Sends the record at an offset of the partition again, by a job of retries.
async fn retry(lake: &TestLake, offset: i64) {
    let (record, id) = (lake.partition("decisions"), Uuid::from_u128(8));
    let stream = Stream { topic: "aion.retries.decisions".into(), id };
    let partition = Partition { stream, number: 0 };
    let mut row = decision("again", "small", "10:00:00");
    row["_topic_id"] = json!(id);
    row["_origin"] = json!(format!("{}/{offset}", record.key()));
    let opened = lake.open();
    let sink = opened.sink(lake.spec("decisions"), lake::Settings::default());
    let mut sink = sink.await.unwrap();
    sink.assign(std::slice::from_ref(&partition)).await.unwrap();
    let batch = Batch {
        partition,
        range: Offset(0)..Offset(1),
        epoch: 0,
        appended: Some((Timestamp(0), Timestamp(0))),
        rows: lake.rows("decisions", 0, &[row]),
        memory: Reservation::none(),
    };
    assert!(matches!(sink.write(batch).await.unwrap(), Accepted::Taken));
    let why = Flush::Now { deadline: Instant::now() + Duration::from_mins(1) };
    sink.flush(Instant::now(), why).await.unwrap();
}

/// A process died between the record's dead letter and its mark, its schema became known, and the record is retried while the next
/// process holds it as a row.
#[tokio::test]
async fn a_record_that_lands_by_a_retry_before_its_mark_is_seen_once() {
    let (lake, mut writer, engine) = live().await;
    let rows = |count: usize| vec![decision("a", "small", "10:00:00"); count];
    writer.write(&rows(3), Reservation::none()).await;
    writer.commit().await;
    writer.write(&rows(3), Reservation::none()).await;
    writer.write(&rows(2), Reservation::none()).await;
    let (all, again) = ("select count(*) from decisions", " where task_id = 'again'");
    let both = async |engine: &Engine| {
        [number(engine, all).await, number(engine, &format!("{all}{again}")).await]
    };
    assert_eq!(both(&engine).await, [8, 0]);
    retry(&lake, 4).await;
    assert_eq!(both(&lake.engine()).await, [4, 1], "it is stored");
    assert_eq!(both(&engine).await, [8, 1], "in the live row's place");
    let live = "select _offset from decisions where _origin is null and _offset > 2 order by 1";
    let shown = ask(&engine, live).await.unwrap();
    let offsets: Vec<i64> = shown
        .iter()
        .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    assert_eq!(offsets, [3, 5, 6, 7], "its neighbours are live on");
    writer.commit().await;
    assert_eq!(both(&engine).await, [8, 1], "and no count falls");
    assert_eq!(both(&lake.engine()).await, [8, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_row_once_under_load() {
    let (lake, tail) = (Arc::new(TestLake::new()), Tail::default());
    let quick = lake::Settings {
        flush_age: Duration::from_millis(15),
        checkpoint_every: 10,
        ..lake::Settings::default()
    };
    let mut writer = Writer::open(&lake, &tail, quick).await;
    let mut settings = lake.settings();
    settings.tail = tail;
    let engine = Arc::new(Engine::open(settings).unwrap());
    let (written, ended) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (engine, written, ended) =
                (Arc::clone(&engine), Arc::clone(&written), Arc::clone(&ended));
            tokio::spawn(async move {
                let (mut before, mut looks) = (0, 0);
                while !ended.load(Ordering::SeqCst) {
                    let least = written.load(Ordering::SeqCst).max(before);
                    let seen = look(&engine).await;
                    assert_eq!([seen[0]; 3], seen, "each row once, none missing");
                    assert!(seen[0] >= least, "{} rows, {least} were seen before", seen[0]);
                    (before, looks) = (seen[0], looks + 1);
                }
                looks
            })
        })
        .collect();
    let compactor = {
        let (lake, ended) = (Arc::clone(&lake), Arc::clone(&ended));
        tokio::spawn(async move {
            let mut removed = 0;
            while !ended.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(40)).await;
                let upkeep = lake.open().upkeep(lake.spec("decisions")).await.unwrap();
                let Some(mut table) = upkeep else { continue };
                let done = table.compact(&Compaction::default(), |_, _| ()).await.unwrap();
                removed += done.removed;
            }
            removed
        })
    };
    let until = Instant::now() + Duration::from_secs(5);
    let row = decision("a", "small", "10:00:00");
    while Instant::now() < until {
        writer.write(&vec![row.clone(); 20], Reservation::none()).await;
        written.store(writer.next, Ordering::SeqCst);
        writer.due().await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    writer.commit().await;
    ended.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 10, "readers look often");
    }
    assert!(compactor.await.unwrap() > 0, "files were compacted meanwhile");
    assert_eq!(look(&engine).await, [writer.next; 3]);
    assert_eq!(look(&lake.engine()).await, [writer.next; 3], "all of it is stored in the end");
}

#[tokio::test]
async fn a_slow_query_holds_no_budget() {
    let (_, mut writer, engine) = live().await;
    let budget = Budget::new(1 << 20);
    let rows: Vec<_> =
        (0..40_000).map(|n| decision(&format!("task-{n}"), "s", "10:00:00")).collect();
    writer.write(&rows, budget.take(500_000)).await;
    assert!(budget.held() > 0);
    // More rows than fit between the query and its reader.
    let answer = engine.query("select task_id, route, reason from decisions").await.unwrap();
    writer.commit().await;
    assert_eq!(budget.held(), 0);
    let rows = crate::lake::collect(answer).await.unwrap();
    assert_eq!(rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 40_000);
}

#[tokio::test]
async fn live_rows_count_as_the_querys_own_memory() {
    let (lake, mut writer, _) = live().await;
    let tail = Tail::default();
    drop(writer);
    writer = Writer::open(&lake, &tail, lake::Settings::default()).await;
    let mut settings = lake.settings();
    (settings.tail, settings.memory_bytes) = (tail, 1 << 20);
    let engine = Engine::open(settings).unwrap();
    let long = "x".repeat(500);
    let rows: Vec<_> =
        (0..4000).map(|n| decision(&format!("{n}{long}"), "s", "10:00:00")).collect();
    writer.write(&rows, Reservation::none()).await;
    let error = ask(&engine, "select task_id from decisions").await.unwrap_err();
    assert!(error.to_string().contains("more than the 1 MiB"), "{error}");
    assert_eq!(number(&engine, "select count(*) from decisions").await, 4000);
}
