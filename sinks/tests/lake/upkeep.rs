//! Upkeep beside writers and beside other upkeep: nothing missing, nothing twice, nothing removed too early.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use aion_schemas::log::Partition;
use aion_sinks::{
    conformance::{Log, marks, schema, settle, take},
    lake::{
        LakeSink,
        testing::Protection,
        upkeep::{Compacted, Compaction, Swept, Upkeep},
    },
    sink::Sink,
};

use crate::shared::{Place, age, range, spec};

const DAY: Duration = Duration::from_hours(24);

fn all() -> Compaction {
    Compaction { min_files: 2, ..Compaction::default() }
}

async fn upkeep(place: &Place) -> Upkeep {
    place.lake.upkeep(spec(schema())).await.unwrap().unwrap()
}

/// A table of so many small files, ten rows each, and its writer.
async fn small_files(place: &Place, log: &Log, count: i64) -> (LakeSink, Partition) {
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    for number in 0..count {
        take(&mut sink, log.batch(0, number * 10, number * 10 + 10)).await;
        settle(&mut sink).await;
    }
    (sink, p0)
}

fn parquet_files(folder: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("_delta_log") {
            count += parquet_files(&path);
        }
        count += usize::from(path.extension().is_some_and(|end| end == "parquet"));
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_not_there_is_not_made() {
    let place = Place::new();
    assert!(place.lake.upkeep(spec(schema())).await.unwrap().is_none());
    assert!(!place.table().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_become_one_and_the_writer_goes_on() {
    let (place, log) = (Place::new(), Log::new());
    let (mut sink, p0) = small_files(&place, &log, 6).await;
    let mut upkeep = upkeep(&place).await;
    let before = upkeep.status().await.unwrap();
    assert_eq!((before.files, before.small_files, before.rows), (6, 6, Some(60)));
    let mut told = Vec::new();
    let done = upkeep.compact(&all(), |done, of| told.push((done, of))).await.unwrap();
    assert_eq!(done, Compacted { removed: 6, added: 1, given_up: 0 });
    assert_eq!(told, [(0, 1), (1, 1)]);
    let after = upkeep.status().await.unwrap();
    assert_eq!((after.files, after.small_files, after.rows), (1, 0, Some(60)));
    assert_eq!((after.version, &after.dates), (before.version + 1, &before.dates));
    assert_eq!(place.offsets(&p0).await, range(0, 60));
    let file = &place.snapshot().await.files[0];
    assert_eq!(file.ranges["_offset"], (0, 59), "readers pass over it by its statistics");
    assert_eq!(upkeep.compact(&all(), |_, _| ()).await.unwrap(), Compacted::default());
    take(&mut sink, log.batch(0, 60, 70)).await;
    assert_eq!(settle(&mut sink).await.marks, marks([(&p0, 70)]));
    assert_eq!(place.offsets(&p0).await, range(0, 70));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_in_between_is_kept() {
    let (place, log) = (Place::new(), Log::new());
    let (mut sink, p0) = small_files(&place, &log, 3).await;
    let mut upkeep = upkeep(&place).await;
    let batch = log.batch(0, 30, 40);
    upkeep.rig().before_next_put(move || {
        Box::pin(async move {
            take(&mut sink, batch).await;
            settle(&mut sink).await;
        })
    });
    let done = upkeep.compact(&all(), |_, _| ()).await.unwrap();
    assert_eq!((done.removed, done.given_up), (3, 0));
    assert_eq!(place.offsets(&p0).await, range(0, 40));
}

/// Another compactor is done between this one's last look and its put.
async fn two_compactors(take_out: Option<Protection>) -> (Compacted, Vec<i64>) {
    let (place, log) = (Place::new(), Log::new());
    let (_, p0) = small_files(&place, &log, 4).await;
    let (mut one, mut two) = (upkeep(&place).await, upkeep(&place).await);
    if let Some(protection) = take_out {
        one.rig().take_out(protection);
    }
    one.rig().before_next_put(move || {
        Box::pin(async move {
            assert_eq!(two.compact(&all(), |_, _| ()).await.unwrap().removed, 4);
        })
    });
    let done = one.compact(&all(), |_, _| ()).await.unwrap();
    (done, place.offsets(&p0).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_compactors_double_nothing() {
    let (done, offsets) = two_compactors(None).await;
    assert_eq!(done, Compacted { given_up: 1, ..Compacted::default() });
    assert_eq!(offsets, range(0, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_look_at_the_inputs_they_would() {
    let (_, offsets) = two_compactors(Some(Protection::Inputs)).await;
    assert_eq!(offsets.len(), 80, "every row twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_no_second_compaction() {
    let (place, log) = (Place::new(), Log::new());
    let (_, p0) = small_files(&place, &log, 4).await;
    let mut upkeep = upkeep(&place).await;
    upkeep.rig().lose_answers(1);
    assert!(upkeep.compact(&all(), |_, _| ()).await.is_err());
    assert_eq!(upkeep.compact(&all(), |_, _| ()).await.unwrap(), Compacted::default());
    assert_eq!(place.offsets(&p0).await, range(0, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_compactors_beside_a_writer() {
    let (place, log) = (Place::new(), Log::new());
    let (mut sink, p0) = small_files(&place, &log, 8).await;
    let mut rivals = Vec::new();
    for _ in 0..4 {
        let mut upkeep = upkeep(&place).await;
        rivals.push(tokio::spawn(async move {
            for _ in 0..5 {
                upkeep.compact(&all(), |_, _| ()).await.unwrap();
            }
        }));
    }
    for number in 8..20 {
        take(&mut sink, log.batch(0, number * 10, number * 10 + 10)).await;
        settle(&mut sink).await;
    }
    for rival in rivals {
        rival.await.unwrap();
    }
    assert_eq!(place.offsets(&p0).await, range(0, 200));
    assert!(place.snapshot().await.files.len() < 20);
}

/// Four files a day on three days, six hours and one row apart.
async fn three_days(place: &Place) -> Partition {
    let log = Log::new().with_step(Duration::from_hours(6));
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    // The first row is at ten in the morning.
    for row in 0..11 {
        take(&mut sink, log.batch(0, row, row + 1)).await;
        settle(&mut sink).await;
    }
    p0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_old_dates_leave_the_table_and_marks_stay() {
    let place = Place::new();
    let p0 = three_days(&place).await;
    let mut upkeep = upkeep(&place).await;
    let dates = upkeep.status().await.unwrap().dates.unwrap();
    assert_eq!(dates, ("2026-03-01".to_owned(), "2026-03-03".to_owned()));
    // Today is the day of the newest append, however late this machine says that it is.
    assert_eq!(upkeep.expire(3).await.unwrap(), 0);
    assert_eq!(place.snapshot().await.expired_before, None);
    assert_eq!(upkeep.expire(2).await.unwrap(), 3);
    assert_eq!(place.offsets(&p0).await, range(3, 11));
    let second_of_march = 20_514;
    assert_eq!(place.snapshot().await.expired_before, Some(second_of_march));
    assert_eq!(upkeep.expire(1).await.unwrap(), 4);
    assert_eq!(place.offsets(&p0).await, range(7, 11));
    // A checkpoint keeps it.
    upkeep.checkpoint().await.unwrap();
    assert_eq!(upkeep.expire(2).await.unwrap(), 0);
    assert_eq!(place.snapshot().await.expired_before, Some(second_of_march + 1));
    let mut sink = place.open().await;
    assert_eq!(sink.assign(std::slice::from_ref(&p0)).await.unwrap(), marks([(&p0, 11)]));
}

/// While the first of three dates is about to be put, somebody takes two of them out by one entry.
async fn expired_meanwhile(take_out: Option<Protection>) -> (Compacted, Vec<i64>) {
    let place = Place::new();
    let p0 = three_days(&place).await;
    let (mut one, mut two) = (upkeep(&place).await, upkeep(&place).await);
    if let Some(protection) = take_out {
        one.rig().take_out(protection);
    }
    one.rig().before_next_put(move || {
        Box::pin(async move { assert_eq!(two.expire(1).await.unwrap(), 7) })
    });
    let done = one.compact(&all(), |_, _| ()).await.unwrap();
    (done, place.offsets(&p0).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_group_looks_at_its_own_inputs() {
    let (done, offsets) = expired_meanwhile(None).await;
    assert_eq!(done, Compacted { removed: 4, added: 1, given_up: 2 });
    assert_eq!(offsets, range(7, 11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_it_rows_come_back() {
    let (_, offsets) = expired_meanwhile(Some(Protection::Inputs)).await;
    assert_eq!(offsets, range(0, 11));
}

/// The put of a compaction hangs for so long that its new file is vacuumed meanwhile.
async fn a_file_vanishes(take_out: Option<Protection>) -> (Compacted, usize, Place) {
    let (place, log) = (Place::new(), Log::new());
    small_files(&place, &log, 4).await;
    let mut upkeep = upkeep(&place).await;
    if let Some(protection) = take_out {
        upkeep.rig().take_out(protection);
    }
    let before: Vec<_> = place.snapshot().await.files.iter().map(|f| f.location.clone()).collect();
    let (rig, folder) = (upkeep.rig(), place.table());
    upkeep.rig().before_next_put(move || {
        Box::pin(async move {
            rig.sleep(Duration::from_hours(1));
            let day = folder.join(before[0].as_ref().rsplit('/').nth(1).unwrap());
            for entry in std::fs::read_dir(day).unwrap() {
                let path = entry.unwrap().path();
                if !before.iter().any(|known| {
                    known.as_ref().ends_with(path.file_name().unwrap().to_str().unwrap())
                }) {
                    std::fs::remove_file(path).unwrap();
                }
            }
        })
    });
    let done = upkeep.compact(&all(), |_, _| ()).await.unwrap();
    let snapshot = place.snapshot().await;
    let objects = place.lake.table("orders").unwrap().objects();
    let mut missing = 0;
    for file in &snapshot.files {
        missing += usize::from(
            object_store::ObjectStoreExt::head(&*objects, &file.location).await.is_err(),
        );
    }
    (done, missing, place)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_long_put_a_file_that_vanished_is_taken_back() {
    let (done, missing, place) = a_file_vanishes(None).await;
    assert_eq!((done.given_up, missing), (1, 0));
    assert_eq!(place.snapshot().await.files.len(), 4);
    let (_, missing, _) = a_file_vanishes(Some(Protection::SlowPut)).await;
    assert_eq!(missing, 1, "without the look, the table counts on a file that isn't there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_table_is_not_swept() {
    let (place, log) = (Place::new(), Log::new());
    small_files(&place, &log, 3).await;
    let mut upkeep = upkeep(&place).await;
    let gone = place.snapshot().await.files[0].location.to_string();
    std::fs::remove_file(format!("/{gone}")).unwrap();
    // As if the file had been written yesterday; the table says so in its log.
    for version in 1..=3 {
        let entry = place.entry(version);
        let at = entry.find("modificationTime\":").unwrap() + "modificationTime\":".len();
        let stamp = entry[at..].split([',', '}']).next().unwrap().to_owned();
        place.put_entry(version, &entry.replace(&stamp, "1700000000000"));
    }
    let error = upkeep.vacuum(false).await.unwrap_err().to_string();
    assert!(error.contains("isn't there"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vacuum_removes_what_nothing_uses_once_it_is_old() {
    let (place, log) = (Place::new(), Log::new());
    let (mut sink, p0) = small_files(&place, &log, 4).await;
    let mut upkeep = upkeep(&place).await;
    let folder = place.table();
    age(&folder, 30 * DAY);
    let old_snapshot = place.snapshot().await;
    upkeep.compact(&all(), |_, _| ()).await.unwrap();
    assert_eq!(upkeep.vacuum(false).await.unwrap(), Swept::default(), "removed just now");
    // As if the compaction had been eight days ago.
    let version = place.snapshot().await.version;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let (entry, then) = (place.entry(version), now.saturating_sub(8 * DAY).as_millis());
    let removed_at = entry.find("deletionTimestamp\":").unwrap() + "deletionTimestamp\":".len();
    let stamp = entry[removed_at..].split([',', '}']).next().unwrap().to_owned();
    place.put_entry(version, &entry.replace(&stamp, &then.to_string()));
    // An old file that no entry has, and a young one that a flush is about to commit.
    let date = old_snapshot.files[0].location.as_ref();
    let day = folder.join(date.rsplit('/').nth(1).unwrap());
    for (name, old) in [("left.parquet", true), ("young.parquet", false)] {
        std::fs::write(day.join(name), b"PAR1").unwrap();
        if old {
            age(&day.join(name), 8 * DAY);
        }
    }
    let before = parquet_files(&folder);
    let counted = upkeep.vacuum(true).await.unwrap();
    assert_eq!((counted.files, parquet_files(&folder)), (5, before), "a dry run removes nothing");
    assert_eq!(upkeep.vacuum(false).await.unwrap(), counted);
    assert_eq!(parquet_files(&folder), before - 5);
    assert!(day.join("young.parquet").exists());
    assert_eq!(place.offsets(&p0).await, range(0, 40));
    // A reader of the old version finds out, instead of counting less.
    let table = place.lake.table("orders").unwrap();
    let gone = table.objects();
    for file in &old_snapshot.files {
        assert!(object_store::ObjectStoreExt::get(&*gone, &file.location).await.is_err());
    }
    take(&mut sink, log.batch(0, 40, 50)).await;
    settle(&mut sink).await;
    assert_eq!(place.offsets(&p0).await, range(0, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_cleaned_behind_an_old_checkpoint_only() {
    let (place, log) = (Place::new(), Log::new());
    let (mut sink, p0) = small_files(&place, &log, 5).await;
    let mut upkeep = upkeep(&place).await;
    age(&place.log(), 30 * DAY);
    assert_eq!(upkeep.clean_log(false).await.unwrap(), Swept::default(), "there is no checkpoint");
    assert_eq!(upkeep.checkpoint().await.unwrap(), 5);
    assert_eq!(upkeep.clean_log(false).await.unwrap(), Swept::default(), "it is young");
    age(&place.log(), 30 * DAY);
    std::fs::write(place.log().join(".x.staged"), b"half").unwrap();
    take(&mut sink, log.batch(0, 50, 60)).await;
    settle(&mut sink).await;
    let swept = upkeep.clean_log(false).await.unwrap();
    assert_eq!(swept.files, 5, "entries 0 to 4; what is being staged stays");
    assert!(place.log().join(".x.staged").exists());
    assert_eq!(place.offsets(&p0).await, range(0, 60));
    let mut second = place.open().await;
    assert_eq!(second.assign(std::slice::from_ref(&p0)).await.unwrap(), marks([(&p0, 60)]));
    take(&mut second, log.batch(0, 60, 70)).await;
    settle(&mut second).await;
    assert_eq!(place.offsets(&p0).await, range(0, 70));
}
