//! What each commit of a table covered, as far back as the table's log goes.
//!
//! An entry is read when its turn has come and then forgotten, so that a week of them takes no more memory than a few.
//! Entries that move no mark cover nothing: what compaction and retention do to files changes no batch.
//!
//! **Invariant:** where a range begins is what its writer said, or the mark that the entries before it left; after an
//! entry that was cleaned up no mark counts as known. One that is missing above older ones is an error.

use std::{collections::BTreeMap, future::ready, ops::RangeInclusive};

use aion_schemas::log::Offset;
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::ObjectMeta;
use uuid::Uuid;

use super::{
    actions::{self, CommitInfo, Line, Stats, entry_path},
    read::partition_of,
};
use crate::{sink::SinkError, store::Store};

/// So many entries are fetched ahead from a disk.
const AHEAD: usize = 8;
/// And from an object store, which takes its time for each.
const AHEAD_OF_OBJECTS: usize = 64;

/// The digits of a version in the name of its entry.
const VERSION_DIGITS: usize = 20;

/// An entry of a table's log that moved marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The version of the table that it made.
    pub version: i64,
    /// When it was put, in milliseconds since 1970, by its writer's clock; `None` where that isn't said.
    pub committed_ms: Option<i64>,
    /// What was done, in Delta's words, such as `STREAMING UPDATE`; `None` where that isn't said.
    pub operation: Option<String>,
    /// The files that it added.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows; `None` where one of them doesn't say.
    pub rows: Option<u64>,
    /// The partitions whose marks it moved.
    pub moves: Vec<Move>,
}

/// What an entry covers of one partition: the offsets `first..next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Id of the topic's incarnation.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The first offset; `None` where nothing in the log says it. Above `next`, the mark was set back.
    pub first: Option<Offset>,
    /// The offset after the last.
    pub next: Offset,
    /// Rows of the partition among those of the files; `None` where the writer didn't say.
    pub rows: Option<u64>,
}

/// Marks by topic id and partition, as far as the entries read so far say them.
type Known = BTreeMap<(Uuid, i32), Offset>;

/// A version and its lines; `None` where it was cleaned up since the log was listed.
type Entry = (i64, Option<Vec<Line>>);

/// The commits up to a version, oldest first.
pub(super) fn commits(store: Store, last: i64) -> BoxStream<'static, Result<Commit, SinkError>> {
    let listed = store.clone();
    let oldest = async move { oldest(&listed, last).await };
    stream::once(oldest)
        .map_ok(move |first| entries(store.clone(), first..=last))
        .try_flatten()
        .scan(Known::new(), |known, read| {
            let commit = read.map(|(version, lines)| {
                let Some(lines) = lines else {
                    known.clear();
                    return None;
                };
                commit(known, version, &lines)
            });
            ready(Some(commit))
        })
        .try_filter_map(|commit| ready(Ok(commit)))
        .boxed()
}

/// The oldest version whose entry is still there, the one after `last` at most.
async fn oldest(store: &Store, last: i64) -> Result<i64, SinkError> {
    let files = store.listed("_delta_log")?;
    let older = |oldest: i64, file: ObjectMeta| {
        let version = file.location.filename().and_then(version_of);
        ready(Ok(version.map_or(oldest, |version| version.min(oldest))))
    };
    files.try_fold(last.saturating_add(1), older).await
}

/// The version whose entry has that name; checkpoints and what else lies in a log have none.
fn version_of(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".json").filter(|digits| digits.len() == VERSION_DIGITS)?;
    digits.parse().ok().filter(|version| *version >= 0)
}

/// Entries in order.
fn entries(
    store: Store,
    versions: RangeInclusive<i64>,
) -> impl Stream<Item = Result<Entry, SinkError>> {
    let ahead = if store.root().scheme() == "file" { AHEAD } else { AHEAD_OF_OBJECTS };
    stream::iter(versions).map(move |version| entry(store.clone(), version)).buffered(ahead)
}

async fn entry(store: Store, version: i64) -> Result<Entry, SinkError> {
    let path = entry_path(version);
    if let Some(bytes) = store.get(&path).await? {
        return Ok((version, Some(actions::parse(&path, &bytes)?)));
    }
    // Clean-up goes from the oldest, so it hasn't taken one that older ones stand below.
    if oldest(&store, version).await? < version {
        return Err(SinkError::Fatal {
            doing: format!("read log entry {path}"),
            cause: "it isn't there, but older ones are".to_owned(),
            hint: "the log is damaged: restore the entry, or the table from a copy".to_owned(),
        });
    }
    Ok((version, None))
}

/// What an entry covers; `None` where it moves no mark.
fn commit(known: &mut Known, version: i64, lines: &[Line]) -> Option<Commit> {
    let said = CommitInfo::default();
    let info = lines.iter().find_map(|line| line.commit_info.as_ref()).unwrap_or(&said);
    let mut moves = Vec::new();
    for txn in lines.iter().filter_map(|line| line.txn.as_ref()) {
        let Some(key) = partition_of(&txn.app_id) else { continue };
        let next = Offset(txn.version);
        let before = known.insert(key, next);
        let covered = info.covered.get(&txn.app_id);
        moves.push(Move {
            topic_id: key.0,
            partition: key.1,
            first: covered.map(|covered| Offset(covered.first)).or(before),
            next,
            rows: covered.map(|covered| covered.rows),
        });
    }
    if moves.is_empty() {
        return None;
    }
    let adds = || lines.iter().filter_map(|line| line.add.as_ref());
    let mut rows = adds().map(|add| {
        let stats = add.stats.as_deref().and_then(|text| serde_json::from_str::<Stats>(text).ok());
        stats.unwrap_or_default().num_records
    });
    Some(Commit {
        version,
        committed_ms: Some(info.timestamp).filter(|ms| *ms > 0),
        operation: Some(info.operation.clone()).filter(|word| !word.is_empty()),
        files: adds().count() as u64,
        // Whoever wrote the entry may have said anything.
        bytes: adds().map(|add| add.size.max(0) as u64).fold(0, u64::saturating_add),
        rows: rows.try_fold(0_u64, |all, rows| Some(all.saturating_add(rows?))),
        moves,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000-0000-0000-0000-000000000007";

    fn read(known: &mut Known, version: i64, entry: &str) -> Option<Commit> {
        let lines = actions::parse("entry", entry.as_bytes()).expect("lines");
        commit(known, version, &lines)
    }

    #[test]
    fn a_commit_covers_what_its_writer_said_else_what_follows_the_mark_before() {
        let mut known = Known::new();
        let ranges = |commit: Option<Commit>| {
            let moves = commit.expect("a commit").moves.into_iter();
            let range = |one: Move| (one.first.map(Offset::get), one.next.get(), one.rows);
            moves.map(range).collect::<Vec<_>>()
        };
        let older = format!(r#"{{"txn":{{"appId":"{ID}/0","version":40}}}}"#);
        assert_eq!(ranges(read(&mut known, 3, &older)), [(None, 40, None)], "nothing says more");
        let said = format!(
            "{{\"commitInfo\":{{\"covered\":{{\"{ID}/0\":{{\"first\":40,\"rows\":9}}}}}}}}\n\
             {{\"txn\":{{\"appId\":\"{ID}/0\",\"version\":50}}}}\n\
             {{\"txn\":{{\"appId\":\"{ID}/0/epoch\",\"version\":2}}}}"
        );
        assert_eq!(ranges(read(&mut known, 4, &said)), [(Some(40), 50, Some(9))]);
        let back = format!(r#"{{"txn":{{"appId":"{ID}/0","version":45}}}}"#);
        assert_eq!(ranges(read(&mut known, 5, &back)), [(Some(50), 45, None)], "set back");
        let swap = r#"{"remove":{"path":"a","dataChange":false}}"#;
        assert_eq!(read(&mut known, 6, swap), None, "a compaction covers nothing");
        let expired = r#"{"txn":{"appId":"aion/expired","version":20000}}"#;
        assert_eq!(read(&mut known, 7, expired), None);
    }

    #[test]
    fn counts_of_an_entry_that_says_anything_end_at_the_greatest() {
        let txn = format!(r#"{{"txn":{{"appId":"{ID}/0","version":40}}}}"#);
        let add = |stats: &str| {
            let add = serde_json::json!({"add": {
                "path": "a", "partitionValues": {}, "size": i64::MAX, "modificationTime": 0,
                "dataChange": true, "stats": stats
            }});
            format!("\n{add}")
        };
        let most = format!(r#"{{"numRecords":{}}}"#, u64::MAX);
        let entry = txn + &add(&most).repeat(3);
        let told = read(&mut Known::new(), 3, &entry).expect("a commit");
        assert_eq!((told.files, told.bytes, told.rows), (3, u64::MAX, Some(u64::MAX)));
        let told = read(&mut Known::new(), 3, &(entry + &add("{}"))).expect("a commit");
        assert_eq!((told.files, told.rows), (4, None));
    }

    #[test]
    fn only_entries_have_a_version() {
        assert_eq!(version_of("00000000000000000017.json"), Some(17));
        for other in [
            "00000000000000000017.checkpoint.parquet",
            "00000000000000000001.00000000000000000009.compacted.json",
            "_last_checkpoint",
            "17.json",
            "-0000000000000000017.json",
        ] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }
}
