//! Writers that slept for hours or days: version numbers that clean-up freed, files that vacuum removed.

use std::{sync::Arc, time::Duration};

use aion_schemas::log::Partition;
use aion_sinks::{
    conformance::{Log, marks, settle, take},
    lake::{LakeSink, Settings, testing::Protection},
    sink::{Flushed, Sink},
};

use crate::shared::{Place, range, settings};

const HOUR: Duration = Duration::from_hours(1);

/// Waits until the checkpoint that a commit started is announced.
async fn checkpointed(place: &Place, at_least: i64) {
    for _ in 0..20_000 {
        let text =
            std::fs::read_to_string(place.log().join("_last_checkpoint")).unwrap_or_default();
        let hint: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        if hint.and_then(|hint| hint["version"].as_i64()).is_some_and(|v| v >= at_least) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("no checkpoint of version {at_least}");
}

/// Another writer commits five entries, makes a checkpoint, and the log before it is cleaned up.
async fn others_go_on_and_clean_up(place: &Place, log: &Log) {
    let mut other = place.open_with(Settings { checkpoint_every: 5, ..settings() }).await;
    other.assign(&[log.partition(1)]).await.unwrap();
    for round in 0..5 {
        take(&mut other, log.batch(1, round, round + 1)).await;
        settle(&mut other).await;
    }
    checkpointed(place, 5).await;
    for version in 0..5 {
        std::fs::remove_file(place.log().join(format!("{version:020}.json"))).unwrap();
    }
}

async fn sleeper(place: &Place, log: &Log, take_out: Option<Protection>) -> (Partition, LakeSink) {
    let p0 = log.partition(0);
    let mut sleeper = place.owner(std::slice::from_ref(&p0)).await;
    if let Some(protection) = take_out {
        sleeper.rig().take_out(protection);
    }
    take(&mut sleeper, log.batch(0, 0, 10)).await;
    (p0, sleeper)
}

/// Sleeps before the flush, so that the version it would put next has been used, cleaned up and freed.
async fn slept_before_the_flush(take_out: Option<Protection>) -> (Flushed, Vec<i64>) {
    let (place, log) = (Place::new(), Log::new());
    let (p0, mut sleeper) = sleeper(&place, &log, take_out).await;
    others_go_on_and_clean_up(&place, &log).await;
    sleeper.rig().sleep(2 * HOUR);
    let flushed = settle(&mut sleeper).await;
    assert_eq!(place.offsets(&log.partition(1)).await, range(0, 5));
    (flushed, place.offsets(&p0).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freed_version_is_not_used_again() {
    let (flushed, stored) = slept_before_the_flush(None).await;
    assert_eq!(flushed.marks.len(), 1);
    assert_eq!(stored, range(0, 10));
}

/// Negative control: an entry under a freed version is invisible, and its rows are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_reading_anew_rows_are_lost() {
    let (flushed, stored) = slept_before_the_flush(Some(Protection::Relist)).await;
    assert_eq!(flushed.marks.len(), 1, "it believes that they are durable");
    assert_eq!(stored, [0_i64; 0]);
}

/// Negative control: by a clock that stands still during suspend nothing has grown old, so nothing is read anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_clock_that_stands_still_rows_are_lost() {
    let (flushed, stored) = slept_before_the_flush(Some(Protection::Suspend)).await;
    assert_eq!(flushed.marks.len(), 1, "it believes that they are durable");
    assert_eq!(stored, [0_i64; 0]);
    let (flushed, stored) = slept_within_the_put(Some(Protection::Suspend)).await;
    assert_eq!((flushed.marks.len(), stored), (1, vec![]));
}

/// Sleeps between the last look and the put.
async fn slept_within_the_put(take_out: Option<Protection>) -> (Flushed, Vec<i64>) {
    let (place, log) = (Arc::new(Place::new()), Log::new());
    let (p0, mut sleeper) = sleeper(&place, &log, take_out).await;
    let (rig, elsewhere, same) = (sleeper.rig(), Arc::clone(&place), log.clone());
    sleeper.rig().before_next_put(move || {
        Box::pin(async move {
            others_go_on_and_clean_up(&elsewhere, &same).await;
            rig.sleep(2 * HOUR);
        })
    });
    let flushed = settle(&mut sleeper).await;
    assert_eq!(place.offsets(&log.partition(1)).await, range(0, 5));
    (flushed, place.offsets(&p0).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_put_in_ones_sleep_is_looked_for() {
    let (flushed, stored) = slept_within_the_put(None).await;
    assert_eq!(flushed.marks.len(), 1);
    assert_eq!(stored, range(0, 10));
}

/// Negative control: believing a put that took hours loses its rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_looking_again_rows_are_lost() {
    let (flushed, stored) = slept_within_the_put(Some(Protection::SlowPut)).await;
    assert_eq!(flushed.marks.len(), 1, "it believes that they are durable");
    assert_eq!(stored, [0_i64; 0]);
}

/// Removes data files that no version uses, as vacuum does after the retention.
fn vacuum(place: &Place, live: &[String]) -> usize {
    let mut removed = 0;
    for folder in std::fs::read_dir(place.table()).unwrap().map(Result::unwrap) {
        if folder.file_name() == "_delta_log" {
            continue;
        }
        for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            if !live.iter().any(|name| *name == file.file_name().to_string_lossy()) {
                std::fs::remove_file(file.path()).unwrap();
                removed += 1;
            }
        }
    }
    removed
}

async fn live(place: &Place) -> Vec<String> {
    let files = place.snapshot().await.files.clone();
    files.iter().map(|file| file.location.filename().unwrap().to_owned()).collect()
}

/// The first put fails, the files lie about for days, vacuum takes them, then the flush is tried again.
async fn slept_with_files(take_out: Option<Protection>) -> (Place, Partition, Flushed) {
    let (place, log) = (Place::new(), Log::new());
    let (p0, mut sleeper) = sleeper(&place, &log, take_out).await;
    sleeper.rig().take_out(Protection::SlowPut);
    sleeper.rig().fail_puts(1);
    let now = std::time::Instant::now();
    let flush = aion_sinks::sink::Flush::Now { deadline: now + Duration::from_secs(30) };
    assert!(sleeper.flush(now, flush).await.is_err());
    assert_eq!(vacuum(&place, &live(&place).await), 1);
    sleeper.rig().sleep(4 * 24 * HOUR);
    let flushed = settle(&mut sleeper).await;
    (place, p0, flushed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_files_are_written_anew() {
    let (place, p0, flushed) = slept_with_files(None).await;
    assert_eq!(flushed.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// Negative control: a file that vacuum has removed is committed, and the table can't be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_their_age_vacuumed_files_are_committed() {
    let (place, _, flushed) = slept_with_files(Some(Protection::FileAge)).await;
    assert_eq!(flushed.marks.len(), 1, "it believes that they are durable");
    let names = live(&place).await;
    assert_eq!(vacuum(&place, &names), 0);
    let folders = std::fs::read_dir(place.table()).unwrap().map(Result::unwrap);
    let found: Vec<_> = folders.filter(|f| f.path().join(&names[0]).exists()).collect();
    assert!(found.is_empty(), "the live file should be gone");
}

/// The machine sleeps within the put, vacuum takes the files meanwhile, and the put lands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_vanish_during_a_put_are_restored() {
    let (place, log) = (Arc::new(Place::new()), Log::new());
    let (p0, mut sleeper) = sleeper(&place, &log, None).await;
    let (rig, elsewhere) = (sleeper.rig(), Arc::clone(&place));
    sleeper.rig().before_next_put(move || {
        Box::pin(async move {
            assert_eq!(vacuum(&elsewhere, &live(&elsewhere).await), 1);
            rig.sleep(8 * 24 * HOUR);
        })
    });
    let flushed = settle(&mut sleeper).await;
    assert_eq!(flushed.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
    take(&mut sleeper, log.batch(0, 10, 12)).await;
    assert_eq!(settle(&mut sleeper).await.marks, marks([(&p0, 12)]));
    assert_eq!(place.offsets(&p0).await, range(0, 12));
}
