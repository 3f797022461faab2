//! What readers are told of a table's commits: ranges without a hole or an overlap, whatever upkeep does in between.

use aion_schemas::log::Offset;
use aion_sinks::{
    conformance::{Log, schema, settle, take},
    lake::{
        history::Commit,
        upkeep::{Compaction, TakenBack},
    },
    sink::SinkError,
};
use futures::TryStreamExt;

use crate::shared::{Place, spec};

async fn commits(place: &Place) -> Vec<Commit> {
    let table = place.lake.table("orders").unwrap();
    let last = table.snapshot().await.unwrap().unwrap().version;
    let read: Result<Vec<_>, SinkError> = table.commits(last).try_collect().await;
    read.unwrap()
}

/// Version, partition, first and next offset, rows.
type Range = (i64, i32, Option<i64>, i64, Option<u64>);

async fn ranges(place: &Place) -> Vec<Range> {
    let commits = commits(place).await;
    let all = commits.iter().flat_map(|commit| {
        let version = commit.version;
        commit.moves.iter().map(move |one| {
            (version, one.partition, one.first.map(Offset::get), one.next.get(), one.rows)
        })
    });
    let mut all: Vec<Range> = all.collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_commit_says_what_it_covers_of_each_partition() {
    let (place, log) = (Place::new(), Log::new());
    let mut sink = place.owner(&[log.partition(0), log.partition(1)]).await;
    take(&mut sink, log.batch(0, 7, 10)).await;
    take(&mut sink, log.batch(1, 0, 5)).await;
    settle(&mut sink).await;
    // Records of which none became a row, then two that did.
    take(&mut sink, log.hollow(0, 10, 20)).await;
    take(&mut sink, log.batch(0, 20, 22)).await;
    settle(&mut sink).await;
    take(&mut sink, log.hollow(1, 5, 6)).await;
    settle(&mut sink).await;
    let wanted = [
        (1, 0, Some(7), 10, Some(3)),
        (1, 1, Some(0), 5, Some(5)),
        (2, 0, Some(10), 22, Some(2)),
        (3, 1, Some(5), 6, Some(0)),
    ];
    assert_eq!(ranges(&place).await, wanted);
    let told = commits(&place).await;
    let counts: Vec<_> = told.iter().map(|one| (one.rows, one.files)).collect();
    assert_eq!(counts, [(Some(8), 1), (Some(2), 1), (Some(0), 0)]);
    let stored: u64 = place.snapshot().await.files.iter().map(|file| file.size).sum();
    assert_eq!(told.iter().map(|one| one.bytes).sum::<u64>(), stored);
    assert!(told[0].bytes > 0 && told[1].bytes > 0 && told[2].bytes == 0);
    assert!(told.iter().all(|one| one.operation.as_deref() == Some("STREAMING UPDATE")));
    assert!(told.iter().all(|one| one.committed_ms.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upkeep_changes_no_batch_and_a_cut_is_told() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    for first in [0, 10, 20] {
        take(&mut sink, log.batch(0, first, first + 10)).await;
        settle(&mut sink).await;
    }
    let before = ranges(&place).await;
    let mut upkeep = place.lake.upkeep(spec(schema())).await.unwrap().unwrap();
    let all = Compaction { min_files: 2, ..Compaction::default() };
    assert_eq!(upkeep.compact(&all, |_, _| ()).await.unwrap().removed, 3);
    assert_eq!(place.snapshot().await.version, 4);
    assert_eq!(ranges(&place).await, before, "as they were committed");
    let taken = upkeep.take_back(&p0, Offset(15)..Offset(30)).await.unwrap();
    assert_eq!(taken, TakenBack::Done { rows: 15 });
    let told = ranges(&place).await;
    assert_eq!(told[..3], before[..]);
    assert_eq!(told[3..], [(5, 0, Some(30), 15, None)], "set back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_cleaned_up_is_not_made_up() {
    let (place, log) = (Place::new(), Log::new());
    let mut sink = place.owner(&[log.partition(0)]).await;
    for first in [0, 10, 20, 30] {
        take(&mut sink, log.batch(0, first, first + 10)).await;
        settle(&mut sink).await;
    }
    assert_eq!(ranges(&place).await.len(), 4);
    let table = place.lake.table("orders").unwrap();
    let last = table.snapshot().await.unwrap().unwrap().version;
    // As the writers of other versions leave it.
    let bare = place.entry(4).replace("\"covered\"", "\"other\"");
    place.put_entry(4, &bare);
    assert_eq!(ranges(&place).await[3], (4, 0, Some(30), 40, None), "by the mark before");
    let remove =
        |version| std::fs::remove_file(place.log().join(format!("{version:020}.json"))).unwrap();
    remove(2);
    let hole: Result<Vec<Commit>, SinkError> = table.commits(last).try_collect().await;
    let said = hole.unwrap_err().to_string();
    assert!(
        said.contains("00000000000000000002.json: it isn't there, but older ones are"),
        "{said}"
    );
    for version in [0, 1, 3] {
        remove(version);
    }
    let left: Vec<Commit> = table.commits(last).try_collect().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].moves[0].first, left[0].moves[0].next), (None, Offset(40)));
    let none: Vec<Commit> = table.commits(2).try_collect().await.unwrap();
    assert!(none.is_empty());
}
