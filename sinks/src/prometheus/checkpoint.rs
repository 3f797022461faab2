//! Checkpoints: what a partition adds up to and its mark, in one object, numbered from 1.
//!
//! `<topic id>/<partition>/<number>.json.gz` below the topic's folder. The newest is the one with the greatest number.
//!
//! **Invariant:** a number is put only if it is free, and is the one after that which the series build on. So of two
//! that go on from the same checkpoint one is refused. By any other name, as the mark, both would be let in, and a
//! series could fall.
//! **Invariant:** checkpoints are removed only when they are [`KEPT`] older than the one of the greatest number, by the store's own times,
//! and a writer that has not looked for half as long looks before it puts: a number that was free because its
//! object was removed is never taken for a new one.

use std::{
    io::{Read, Write},
    time::Duration,
};

use aion_schemas::log::{Mark, Offset, Partition};
use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::State;
use crate::{
    sink::SinkError,
    store::{Put, Store},
};

/// How long older checkpoints stay.
pub(super) const KEPT: Duration = Duration::from_mins(15);

/// The form of what is stored. Since 2 a level and a histogram may have one name; the releases that know 1 alone would
/// add them up as one, so they are to refuse it.
const VERSION: u32 = 2;
/// The oldest form that is read: all that it can say the present one says as well, and in the same words.
const OLDEST: u32 = 1;

/// One checkpoint as stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    v: u32,
    topic: String,
    partition: String,
    offset: i64,
    epoch: i32,
    /// Which flush wrote it.
    pub(super) flush: Uuid,
    pub(super) state: State,
}

/// A checkpoint and its number.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) checkpoint: Checkpoint,
}

impl Checkpoint {
    pub(super) fn mark(&self) -> Mark {
        Mark { offset: Offset(self.offset), epoch: self.epoch }
    }
}

/// What a flush stores of a partition: compressed text.
pub(super) fn encode(
    partition: &Partition,
    (mark, flush): (Mark, Uuid),
    state: &State,
) -> Result<Bytes, SinkError> {
    #[derive(Serialize)]
    struct Borrowed<'a> {
        v: u32,
        topic: &'a str,
        partition: String,
        offset: i64,
        epoch: i32,
        flush: Uuid,
        state: &'a State,
    }
    let whole = Borrowed {
        v: VERSION,
        topic: &partition.stream.topic,
        partition: partition.key(),
        offset: mark.offset.get(),
        epoch: mark.epoch,
        flush,
        state,
    };
    let failed = |cause: String| SinkError::Fatal {
        doing: format!("write the series of {partition} as text"),
        cause,
        hint: "this is a fault of the program, please report it".to_owned(),
    };
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut out, &whole).map_err(|e| failed(e.to_string()))?;
    out.write_all(b"\n").map_err(|e| failed(e.to_string()))?;
    out.finish().map(Bytes::from).map_err(|e| failed(e.to_string()))
}

/// Why a checkpoint can't be used, and what to do.
#[derive(Debug)]
struct Unusable {
    cause: String,
    hint: &'static str,
}

impl Unusable {
    /// What is no checkpoint any more, whoever wrote it.
    fn damaged(error: &impl ToString) -> Unusable {
        let hint = "move it away: the series then go on from the one before it";
        Unusable { cause: error.to_string(), hint }
    }

    /// What is whole and of a release that isn't this one. The ones before it are of the same, as a rule: who moves
    /// them away until none is left counts from the log's start, and what retention took is counted by nobody.
    fn of_version(v: u32) -> Unusable {
        let cause = format!("it has version {v}, and this program knows {OLDEST} to {VERSION}");
        Unusable { cause, hint: "start the release that wrote it" }
    }
}

fn decode(bytes: &[u8]) -> Result<Checkpoint, Unusable> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let mut text = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut text).map_err(|e| Unusable::damaged(&e))?;
    // By itself: what else a later form has is unknown, and its version is what is to be told.
    let Versioned { v } = serde_json::from_slice(&text).map_err(|e| Unusable::damaged(&e))?;
    if !(OLDEST..=VERSION).contains(&v) {
        return Err(Unusable::of_version(v));
    }
    serde_json::from_slice(&text).map_err(|e| Unusable::damaged(&e))
}

/// The checkpoints of one topic.
#[derive(Debug)]
pub(super) struct Checkpoints {
    pub(super) store: Store,
}

impl Checkpoints {
    pub(super) fn new(store: Store) -> Checkpoints {
        Checkpoints { store }
    }

    /// Makes the place of a partition.
    pub(super) async fn prepare(&self, partition: &Partition) -> Result<(), SinkError> {
        self.store.make_folder(&partition.key()).await
    }

    /// The number of the newest checkpoint of a partition, 0 where there is none.
    pub(super) async fn newest(&self, partition: &Partition) -> Result<u64, SinkError> {
        let listed = self.store.list(&format!("{}/", partition.key())).await?;
        Ok(listed.iter().filter_map(|one| number(one.location.filename()?)).max().unwrap_or(0))
    }

    /// The newest checkpoint of a partition.
    pub(super) async fn load(&self, partition: &Partition) -> Result<Option<Numbered>, SinkError> {
        loop {
            let number = self.newest(partition).await?;
            if number == 0 {
                return Ok(None);
            }
            // Gone: so much newer ones are there by now that it was removed.
            if let Some(checkpoint) = self.read(partition, number).await? {
                return Ok(Some(Numbered { number, checkpoint }));
            }
        }
    }

    /// One checkpoint, where it is there.
    pub(super) async fn read(
        &self,
        partition: &Partition,
        number: u64,
    ) -> Result<Option<Checkpoint>, SinkError> {
        let path = path(partition, number);
        let Some(bytes) = self.store.get(&path).await? else { return Ok(None) };
        decode(&bytes).map(Some).map_err(|Unusable { cause, hint }| SinkError::Fatal {
            doing: format!("read {path} of {}", self.store.root()),
            cause,
            hint: hint.to_owned(),
        })
    }

    /// Puts a checkpoint if its number is free.
    pub(super) async fn put(
        &self,
        partition: &Partition,
        number: u64,
        bytes: Bytes,
    ) -> Result<Put, SinkError> {
        self.store.put_entry(&path(partition, number), bytes).await
    }

    /// Removes checkpoints that nobody needs any more: whatever the clock does, never the newest.
    pub(super) async fn clean(&self, partition: &Partition) -> Result<(), SinkError> {
        let listed = self.store.list(&format!("{}/", partition.key())).await?;
        let numbered =
            listed.iter().filter_map(|one| Some((number(one.location.filename()?)?, one)));
        let mut all: Vec<_> = numbered.collect();
        all.sort_by_key(|(number, _)| *number);
        let Some((_, newest)) = all.pop() else { return Ok(()) };
        for (_, one) in all {
            let age = (newest.last_modified - one.last_modified).to_std().unwrap_or_default();
            if age > KEPT {
                self.store.remove(&one.location).await?;
            }
        }
        Ok(())
    }
}

fn path(partition: &Partition, number: u64) -> String {
    format!("{}/{number:020}.json.gz", partition.key())
}

fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".json.gz")?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::{fs::File, time::SystemTime};

    use aion_schemas::log::Stream;
    use url::Url;

    use super::*;
    use crate::store::StoreOptions;

    /// What the releases that know version 1 wrote.
    const FIRST: &str = r#"{"v":1,"topic":"t","partition":"00000000-0000-0000-0000-000000000001/0","offset":7,"epoch":2,"flush":"00000000-0000-0000-0000-000000000002","state":{"families":[{"name":"aion_runtime_wait","kind":"histogram","help":"\"wait\" as components report it.","bounds":[1.0,2.0],"written":["wait"],"series":[{"labels":"component=\"c\"","value":{"histogram":{"counts":[1,0,0],"sum":0.5}}}],"folded":0}],"outcomes":{"counted":1},"newest":5}}"#;

    fn compressed(text: &str) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    }

    fn partition() -> Partition {
        let stream = Stream { topic: "t".into(), id: Uuid::from_u128(1) };
        Partition { stream, number: 0 }
    }

    /// Version 1 is read, and what is written of it has a version that those who know 1 alone refuse.
    #[test]
    fn what_a_release_before_wrote_is_read_and_written_as_it_refuses_it() {
        let read = decode(&compressed(FIRST)).unwrap();
        assert_eq!(read.mark(), Mark { offset: Offset(7), epoch: 2 });
        let now = encode(&partition(), (read.mark(), read.flush), &read.state).unwrap();
        let mut text = String::new();
        GzDecoder::new(&now[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text.trim_end(), FIRST.replacen("\"v\":1", "\"v\":2", 1));
        assert_eq!(decode(&now).unwrap().state, read.state);
    }

    #[test]
    fn a_version_that_is_not_known_is_refused_by_its_number() {
        for v in [0, 3] {
            let other = compressed(&format!(r#"{{"v":{v},"what it has":"nobody knows"}}"#));
            let refused = decode(&other).unwrap_err();
            let wanted = format!("it has version {v}, and this program knows 1 to 2");
            assert_eq!(
                (&*refused.cause, refused.hint),
                (&*wanted, "start the release that wrote it")
            );
        }
    }

    #[test]
    fn only_what_is_damaged_is_to_be_moved_away() {
        let whole = compressed(FIRST);
        let cut = &whole[..whole.len() / 2];
        for damaged in [cut, &compressed("{}"), &compressed(r#"{"v":2}"#)] {
            assert!(decode(damaged).unwrap_err().hint.starts_with("move it away"));
        }
    }

    #[tokio::test]
    async fn old_ones_go_and_the_greatest_number_stays_whatever_the_clock_did() {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(folder.path()).unwrap();
        let checkpoints = Checkpoints::new(Store::open(&url, &StoreOptions::default()).unwrap());
        let partition = partition();
        checkpoints.prepare(&partition).await.unwrap();
        let minutes = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_mins(1_000_000 + n);
        let put = async |number, at| {
            checkpoints.put(&partition, number, Bytes::from("x")).await.unwrap();
            let file =
                File::options().write(true).open(folder.path().join(path(&partition, number)));
            file.unwrap().set_modified(minutes(at)).unwrap();
        };
        let left = async || {
            let listed = checkpoints.store.list(&format!("{}/", partition.key())).await.unwrap();
            let mut left: Vec<_> = listed
                .iter()
                .map(|one| number(one.location.filename().unwrap()).unwrap())
                .collect();
            left.sort_unstable();
            left
        };
        for (number, at) in [(1, 0), (2, 10), (3, 20)] {
            put(number, at).await;
        }
        checkpoints.clean(&partition).await.unwrap();
        assert_eq!(left().await, [2, 3]);
        // The clock was set back by an hour.
        put(4, 0).await;
        checkpoints.clean(&partition).await.unwrap();
        assert_eq!(left().await, [2, 3, 4]);
        assert_eq!(checkpoints.newest(&partition).await.unwrap(), 4);
        put(5, 30).await;
        checkpoints.clean(&partition).await.unwrap();
        assert_eq!(left().await, [3, 5]);
    }
}
