//! Killing a writer at each named point, then going on: every offset once.

use std::{path::Path, process::Command, time::Duration};

use aion_sinks::{
    conformance::{Log, schema, settle, take},
    lake::{Lake, Settings, StoreOptions},
    sink::Sink,
};
use url::Url;
use uuid::Uuid;

use crate::shared::{range, rows, settings, spec};

const POINTS: [&str; 11] = [
    "lake.before_file_write",
    "lake.within_write",
    "lake.before_sync",
    "lake.after_file_sync",
    "lake.before_commit",
    "lake.before_stage",
    "lake.after_stage",
    "lake.after_link",
    "lake.after_commit",
    "lake.before_checkpoint",
    "lake.after_checkpoint",
];
const TOPIC: Uuid = Uuid::from_u128(0x1234_5678);
const END: i64 = 60;

fn lake(folder: &Path) -> Lake {
    Lake::open(&Url::from_directory_path(folder).unwrap(), &StoreOptions::default()).unwrap()
}

/// The process that is killed: writes two partitions to their end, from wherever the table has them.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    let Ok(folder) = std::env::var("AION_TEST_LAKE") else { return };
    let folder = Path::new(&folder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = Log::of(TOPIC);
        let partitions = [log.partition(0), log.partition(1)];
        let settings = Settings { checkpoint_every: 3, ..settings() };
        let mut sink = lake(folder).sink(spec(schema()), settings).await.unwrap();
        let found = sink.assign(&partitions).await.unwrap();
        let mut next = [0, 1].map(|at| found.get(&partitions[at]).map_or(0, |m| m.offset.0));
        while next.iter().min() < Some(&END) {
            for (at, next) in next.iter_mut().enumerate() {
                let end = (*next + 10).min(END);
                take(&mut sink, log.batch(at as i32, *next, end)).await;
                *next = end;
            }
            assert!(settle(&mut sink).await.moved.is_empty());
        }
        if std::env::var_os("AION_CRASH_AT").is_some() {
            // Give the checkpoint, which runs on its own, time to meet its end.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    });
}

fn run_child(folder: &Path, crash_at: Option<String>) -> std::process::Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "crash::child", "--ignored", "--nocapture"]);
    child.env("AION_TEST_LAKE", folder).env_remove("AION_CRASH_AT");
    if let Some(crash_at) = crash_at {
        child.env("AION_CRASH_AT", crash_at);
    }
    child.output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_point_every_offset_is_there_once() {
    for point in POINTS {
        for count in [1, 3] {
            let folder = tempfile::tempdir().unwrap();
            let killed = run_child(folder.path(), Some(format!("{point}:{count}")));
            let is_optional = point.ends_with("checkpoint") && count > 1;
            assert!(!killed.status.success() || is_optional, "{point}:{count} was never reached");
            let went_on = run_child(folder.path(), None);
            assert!(went_on.status.success(), "{point}:{count}: {went_on:?}");
            let mut stored: Vec<_> = rows(&lake(folder.path())).await;
            stored.sort_unstable();
            let wanted = [0, 1].map(|number| {
                range(0, END).into_iter().map(move |offset| (TOPIC.to_string(), number, offset))
            });
            let wanted: Vec<_> = wanted.into_iter().flatten().collect();
            assert_eq!(stored, wanted, "{point}:{count}");
        }
    }
}
