//! What stands in a table: files by date, marks in checkpoints, schema changes, and tables that are refused.

use std::{sync::Arc, time::Duration};

use aion_schemas::log::{Mark, Offset};
use aion_sinks::{
    conformance::{EPOCH_US, Log, marks, schema, settle, take},
    lake::{LakeSink, Settings, testing::Protection},
    sink::{Sink, SinkError},
};
use arrow::{
    array::{AsArray, new_null_array, types},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding},
    file::reader::{FileReader, SerializedFileReader},
};

use crate::shared::{Place, batches, range, settings, spec};

const DAY: Duration = Duration::from_hours(24);

fn hint(result: Result<LakeSink, SinkError>) -> String {
    match result {
        Err(error @ SinkError::Fatal { .. }) => error.to_string(),
        other => panic!("{other:?} should be fatal"),
    }
}

/// The schema of the suite with `extra` before the position columns.
fn wider(extra: &[Field]) -> SchemaRef {
    let schema = schema();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    let at = fields.len() - 5;
    fields.splice(at..at, extra.iter().cloned().map(Arc::new));
    Arc::new(Schema::new(fields))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_back_as_they_were() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut sink, log.batch(0, 0, 2000)).await;
    settle(&mut sink).await;
    let stored = batches(&place.lake).await;
    let stored = arrow::compute::concat_batches(&stored[0].schema(), &stored).unwrap();
    let wanted = log.batch(0, 0, 2000).rows;
    for (column, wanted) in stored.columns().iter().zip(wanted.columns()) {
        assert_eq!(column, wanted);
    }
    let file = &place.snapshot().await.files[0];
    assert_eq!(file.rows, Some(2000));
    assert_eq!(file.ranges["_offset"], (0, 1999));
    assert_eq!(file.ranges["_partition"], (0, 0));
    assert_eq!(file.ranges["at"].0, EPOCH_US);
    assert!(file.ranges["at"].1 - (EPOCH_US + 1999 * 1_000_000) < 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_for_each_date() {
    let (place, log) = (Place::new(), Log::new().with_step(DAY / 4));
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut sink, log.batch(0, 0, 40)).await;
    settle(&mut sink).await;
    let snapshot = place.snapshot().await;
    assert_eq!(snapshot.version, 1);
    let mut dates: Vec<_> = snapshot.files.iter().map(|file| file.date.unwrap()).collect();
    dates.sort_unstable();
    let first = (EPOCH_US / DAY.as_micros() as i64) as i32;
    assert_eq!(dates, (first..first + 11).collect::<Vec<_>>());
    for file in &snapshot.files {
        let days = [file.ranges["at"].0, file.ranges["at"].1].map(|us| us / DAY.as_micros() as i64);
        assert_eq!(days, [i64::from(file.date.unwrap()); 2]);
    }
    assert_eq!(place.offsets(&p0).await, range(0, 40));
}

/// With room for two dates an entry holds two, and each entry's marks pass its own rows and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_beyond_the_open_dates_go_into_further_entries() {
    let (place, log) = (Place::new(), Log::new().with_step(DAY / 3));
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut sink = place.open_with(Settings { max_dates: 2, ..settings() }).await;
    sink.assign(&[p0.clone(), p1.clone()]).await.unwrap();
    take(&mut sink, log.batch(0, 0, 10)).await;
    take(&mut sink, log.batch(0, 10, 20)).await;
    take(&mut sink, log.hollow(0, 20, 25)).await;
    take(&mut sink, log.batch(1, 2, 30)).await;
    let flushed = settle(&mut sink).await;
    assert_eq!(flushed.marks, marks([(&p0, 25), (&p1, 30)]));
    assert_eq!(place.offsets(&p0).await, range(0, 20));
    assert_eq!(place.offsets(&p1).await, range(2, 30));
    let newest = place.snapshot().await.version;
    assert!(newest > 4, "{newest} entries");
    let mut seen = [0, 2];
    for version in 1..=newest {
        let entry = place.entry(version);
        assert!(entry.matches("\"add\"").count() <= 2, "{entry}");
        for line in entry.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(app) = line["txn"]["appId"].as_str() else { continue };
            let Some(at) = [&p0, &p1].iter().position(|p| p.key() == app) else { continue };
            let next = line["txn"]["version"].as_i64().unwrap();
            assert!(next > seen[at], "{app} goes from {} to {next}", seen[at]);
            seen[at] = next;
        }
    }
    assert_eq!(seen, [25, 30]);
}

/// Negative control: without the bound an entry has a file, held in memory, for every date that waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_bound_an_entry_holds_every_date() {
    let (place, log) = (Place::new(), Log::new().with_step(DAY));
    let mut sink = place.open_with(Settings { max_dates: usize::MAX, ..settings() }).await;
    sink.assign(&[log.partition(0)]).await.unwrap();
    take(&mut sink, log.batch(0, 0, 300)).await;
    settle(&mut sink).await;
    assert_eq!(place.snapshot().await.version, 1);
    assert_eq!(place.entry(1).matches("\"add\"").count(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_and_files_survive_checkpoints_and_log_cleaning() {
    let (place, log) = (Place::new(), Log::new());
    let (p0, p1) = (log.partition(0), log.partition(1));
    let mut sink = place.open_with(Settings { checkpoint_every: 4, ..settings() }).await;
    sink.assign(&[p0.clone(), p1.clone()]).await.unwrap();
    take(&mut sink, log.batch(1, 0, 3)).await;
    for round in 0..4 {
        take(&mut sink, log.batch(0, round, round + 1)).await;
        settle(&mut sink).await;
    }
    let checkpoint = place.log().join(format!("{:020}.checkpoint.parquet", 4));
    let announced = place.log().join("_last_checkpoint");
    for _ in 0..20_000 {
        if announced.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(checkpoint.exists());
    for version in 0..4 {
        std::fs::remove_file(place.log().join(format!("{version:020}.json"))).unwrap();
    }
    let snapshot = place.snapshot().await;
    let epoch = |offset| Some(Mark { offset: Offset(offset), epoch: 1 });
    assert_eq!(snapshot.mark(p0.stream.id, 0), epoch(4));
    assert_eq!(snapshot.mark(p1.stream.id, 1), epoch(3));
    let mut next = place.open().await;
    let found = next.assign(&[p0.clone(), p1.clone()]).await.unwrap();
    assert_eq!(found, marks([(&p0, 4), (&p1, 3)]));
    assert_eq!(place.offsets(&p0).await, range(0, 4));
    assert_eq!(place.offsets(&p1).await, range(0, 3));
}

/// A reader that asks again reads the new entries only, and sees what a new reader sees.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_advance() {
    let (place, log) = (Place::new(), Log::new());
    let table = place.lake.table("orders").unwrap();
    assert!(table.snapshot().await.unwrap().is_none(), "no table so far");
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    let empty = table.snapshot().await.unwrap().unwrap();
    assert_eq!((empty.version, empty.rows()), (0, Some(0)));
    for round in 1..4 {
        take(&mut sink, log.batch(0, (round - 1) * 10, round * 10)).await;
        settle(&mut sink).await;
        let advanced = table.snapshot().await.unwrap().unwrap();
        let anew = place.snapshot().await;
        assert_eq!(advanced.version, round);
        assert_eq!(advanced.rows(), Some(10 * round as u64));
        assert_eq!(advanced.marks, anew.marks);
        let mut locations =
            [&advanced, &anew].map(|s| s.files.iter().map(|f| &f.location).collect::<Vec<_>>());
        for of in &mut locations {
            of.sort();
        }
        assert_eq!(locations[0], locations[1]);
    }
    assert_eq!(empty.rows(), Some(0), "an older snapshot stays as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_are_added_and_older_writers_stop() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut old = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut old, log.batch(0, 0, 5)).await;
    settle(&mut old).await;
    let newer = wider(&[Field::new("score", DataType::Float64, false)]);
    let new = place.lake.sink(spec(Arc::clone(&newer)), settings()).await.unwrap();
    drop(new);
    let snapshot = place.snapshot().await;
    assert_eq!(snapshot.version, 2);
    let score = snapshot.schema.field_with_name("score").unwrap();
    assert_eq!((score.data_type(), score.is_nullable()), (&DataType::Float64, true));
    place.lake.sink(spec(newer), settings()).await.unwrap();
    assert_eq!(place.snapshot().await.version, 2, "nothing to add the second time");
    let refused = hint(place.lake.sink(spec(schema()), settings()).await);
    assert!(refused.contains("column score is not in this program's contract"), "{refused}");
    take(&mut old, log.batch(0, 5, 8)).await;
    let now = std::time::Instant::now();
    let why = aion_sinks::sink::Flush::Now { deadline: now + Duration::from_secs(10) };
    let stopped = old.flush(now, why).await;
    assert!(matches!(stopped, Err(SinkError::Fatal { .. })), "{stopped:?}");
    assert_eq!(place.offsets(&p0).await, range(0, 5));
}

/// Negative control: a writer that doesn't look at the rules writes on under a protocol it doesn't know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feature_switched_on_stops_the_writer() {
    for take_out in [false, true] {
        let (place, log) = (Place::new(), Log::new());
        let p0 = log.partition(0);
        let mut sink = place.owner(std::slice::from_ref(&p0)).await;
        if take_out {
            sink.rig().take_out(Protection::Rules);
        }
        place.put_entry(1, PROTOCOL);
        take(&mut sink, log.batch(0, 0, 5)).await;
        let now = std::time::Instant::now();
        let why = aion_sinks::sink::Flush::Now { deadline: now + Duration::from_secs(10) };
        let flushed = sink.flush(now, why).await;
        assert_eq!(flushed.is_ok(), take_out, "{flushed:?}");
        assert_eq!(place.log().join(format!("{:020}.json", 2)).exists(), take_out);
    }
}

const PROTOCOL: &str = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["columnMapping"],"writerFeatures":["columnMapping","appendOnly"]}}"#;

/// What a new table says of itself.
const CONFIGURATION: &str = r#""configuration":{"delta.logRetentionDuration":"interval 7 days"}"#;

/// Why a table is refused whose first entry has the last `from` replaced.
async fn refusal(from: &str, to: &str) -> String {
    let place = Place::new();
    drop(place.open().await);
    let entry = place.entry(0);
    let at = entry.rfind(from).unwrap_or_else(|| panic!("{from} should be in {entry}"));
    place.put_entry(0, &format!("{}{to}{}", &entry[..at], &entry[at + from.len()..]));
    hint(place.lake.sink(spec(schema()), settings()).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_cannot_be_written_safely_are_refused() {
    let said = refusal(r#""minWriterVersion":2"#, r#""minWriterVersion":4"#).await;
    assert!(said.contains("writer 4"), "{said}");
    let expiry = r#""configuration":{"delta.setTransactionRetentionDuration":"interval 1 days"}"#;
    let said = refusal(CONFIGURATION, expiry).await;
    assert!(said.contains("marks would expire"), "{said}");
    let hasty = r#""configuration":{"delta.deletedFileRetentionDuration":"interval 0 hours"}"#;
    let said = refusal(CONFIGURATION, hasty).await;
    assert!(said.contains("less than an hour"), "{said}");
    let number = r#"\"value\",\"type\":\"double\""#;
    let said = refusal(number, r#"\"value\",\"type\":\"long\""#).await;
    assert!(said.contains("column value is"), "{said}");
    let note = r#"\"note\",\"type\":\"string\",\"nullable\":true"#;
    let said = refusal(note, r#"\"note\",\"type\":\"string\",\"nullable\":false"#).await;
    assert!(said.contains("may not be null"), "{said}");
    let guard = r#"\"nullable\":false,\"metadata\":{\"delta.invariants\":\"{}\"}"#;
    let said = refusal(r#"\"nullable\":false,\"metadata\":{}"#, guard).await;
    assert!(said.contains("delta.invariants"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_removed_under_its_writer_stays_removed() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    std::fs::remove_dir_all(place.table()).unwrap();
    take(&mut sink, log.batch(0, 0, 5)).await;
    let now = std::time::Instant::now();
    let why = aion_sinks::sink::Flush::Now { deadline: now + Duration::from_secs(10) };
    let stopped = sink.flush(now, why).await;
    assert!(matches!(stopped, Err(SinkError::Fatal { .. })), "{stopped:?}");
    assert!(!place.table().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_flush_leaves_no_files_and_no_staged_entries() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut sink, log.batch(0, 0, 5)).await;
    // A file where the date's folder should be.
    let blocked = place.table().join("_date=2026-03-01");
    std::fs::write(&blocked, "").unwrap();
    let now = std::time::Instant::now();
    let why = aion_sinks::sink::Flush::Now { deadline: now + Duration::from_secs(10) };
    assert!(sink.flush(now, why).await.is_err());
    std::fs::remove_file(&blocked).unwrap();
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 5)]));
    let names = std::fs::read_dir(place.log()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    assert!(names.iter().all(|name| !name.contains("staged")), "{names:?}");
    assert_eq!(std::fs::read_dir(&blocked).unwrap().count(), 1);
}

/// The leader epoch goes with the mark, and changes when it changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_go_with_their_marks() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    let mut end = 0;
    for epoch in [3, 3, 7, -1] {
        let mut batch = log.batch(0, end, end + 2);
        batch.epoch = epoch;
        take(&mut sink, batch).await;
        settle(&mut sink).await;
        end += 2;
        let wanted = Mark { offset: Offset(end), epoch };
        assert_eq!(place.snapshot().await.mark(p0.stream.id, 0), Some(wanted));
        let mut other = place.open().await;
        assert_eq!(other.assign(std::slice::from_ref(&p0)).await.unwrap()[&p0], wanted);
    }
    assert_eq!(place.entry(2).matches("/epoch").count(), 0, "only what changes is written");
    let rows = batches(&place.lake).await;
    let epochs = rows[0].column_by_name("_leader_epoch").unwrap();
    assert_eq!(epochs.as_primitive::<types::Int32Type>().value(0), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_are_encoded_by_what_they_hold() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    take(&mut sink, log.batch(0, 0, 5000)).await;
    settle(&mut sink).await;
    let file = place.snapshot().await.files[0].location.clone();
    let bytes = std::fs::read(format!("/{file}")).unwrap();
    let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let row_group = reader.metadata().row_group(0);
    let column = |name: &str| {
        let columns = row_group.columns().iter();
        columns.into_iter().find(|column| column.column_path().string() == name).unwrap()
    };
    let has = |name: &str, encoding| column(name).encodings().any(|e| e == encoding);
    for name in ["at", "_partition", "_offset", "_append_time", "_leader_epoch"] {
        assert!(has(name, Encoding::DELTA_BINARY_PACKED), "{name}");
    }
    assert!(has("value", Encoding::PLAIN) && !has("value", Encoding::BYTE_STREAM_SPLIT));
    assert!(column("id").dictionary_page_offset().is_none(), "ids are all different");
    assert!(column("note").dictionary_page_offset().is_some());
    assert!(column("_topic_id").dictionary_page_offset().is_some());
    for column in row_group.columns() {
        assert!(matches!(column.compression(), Compression::ZSTD(_)));
        let name = column.column_path().string();
        let filtered = ["at", "_append_time", "_offset", "_partition", "_origin"];
        let is_filtered = filtered.contains(&&*name);
        assert_eq!(column.statistics().is_some(), is_filtered, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_without_event_time_has_the_date_of_its_append() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
    fields[1] = Arc::new(Field::new("at", fields[1].data_type().clone(), true));
    let nullable = Arc::new(Schema::new(fields));
    let mut sink = place.lake.sink(spec(Arc::clone(&nullable)), settings()).await.unwrap();
    sink.assign(std::slice::from_ref(&p0)).await.unwrap();
    let mut batch = log.batch(0, 0, 3);
    let mut columns = batch.rows.columns().to_vec();
    columns[1] = new_null_array(columns[1].data_type(), 3);
    batch.rows = RecordBatch::try_new(nullable, columns).unwrap();
    take(&mut sink, batch).await;
    settle(&mut sink).await;
    let file = Arc::clone(&place.snapshot().await.files[0]);
    assert_eq!(file.date, Some((EPOCH_US / DAY.as_micros() as i64) as i32));
    assert!(!file.ranges.contains_key("at"), "there is no range of nothing");
}
