//! Committed offsets: an append-only file of checked lines, rewritten when most of it is outdated.
//!
//! **Invariant:** a commit is acknowledged after its line is durable; a torn last line is cut.
//! **Invariant:** offsets belong to a topic *id*, so those of a deleted topic never come back with
//! a new topic of its name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    Error, files,
    flusher::{Durable, Flusher, Waiters, lock},
    lines,
    steps::{self, Step},
    trouble::Trouble,
};

/// The file is rewritten when it is greater than this and mostly outdated.
const REWRITE_BYTES: u64 = 1 << 20;

/// A group's place in one partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) epoch: i32,
    pub(crate) metadata: String,
}

/// One line of the file. Without a place it forgets the group (or, with one, the partition).
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    group: std::borrow::Cow<'a, str>,
    at: Option<(Uuid, i32)>,
    to: Option<Committed>,
}

type Places = BTreeMap<(Uuid, i32), Committed>;

/// All groups' committed offsets.
pub(crate) struct Offsets {
    path: PathBuf,
    flusher: Option<Arc<Flusher>>,
    store: Mutex<Store>,
    trouble: Trouble,
}

struct Store {
    file: Arc<File>,
    bytes: u64,
    /// Bytes when the file was last rewritten; more where that failed, so that it isn't tried again at once.
    dense_bytes: u64,
    groups: HashMap<String, Places>,
    /// Commits written, and commits durable.
    written: u64,
    synced: u64,
    waiters: Waiters,
    queued: bool,
    failed: bool,
}

impl Offsets {
    /// Reads the file, cutting a torn last line.
    pub(crate) fn open(
        path: PathBuf,
        flusher: Option<Arc<Flusher>>,
    ) -> Result<Arc<Offsets>, Error> {
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut file = opened.map_err(Error::io("open", &path))?;
        steps::did(|| Step::Made(path.clone()));
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(Error::io("read", &path))?;
        let mut groups = HashMap::new();
        let mut whole = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Some(line_read) = lines::decode(line) else { break };
            apply(&mut groups, line_read);
            whole += line.len();
        }
        if whole < text.len() {
            let bytes = text.len() - whole;
            tracing::warn!(path = %path.display(), bytes, "cut torn lines of committed offsets");
            file.set_len(whole as u64).map_err(Error::io("cut", &path))?;
        }
        files::sync_data(&file, &path, whole as u64)
            .and_then(|()| files::sync_folder(path.parent().unwrap_or(&path)))
            .map_err(Error::io("sync", &path))?;
        let store = Mutex::new(Store {
            file: Arc::new(file),
            bytes: whole as u64,
            dense_bytes: 0,
            groups,
            written: 0,
            synced: 0,
            waiters: Waiters::default(),
            queued: false,
            failed: false,
        });
        Ok(Arc::new(Offsets { path, flusher, store, trouble: Trouble::default() }))
    }

    /// What can't be written, and since when.
    pub(crate) fn trouble(&self, now: Instant) -> Option<(Instant, String)> {
        self.trouble.told(now)
    }

    /// Notes offsets of a group; acknowledge when [`Offsets::durable`] of the result returns.
    pub(crate) fn commit(
        self: &Arc<Self>,
        group: &str,
        places: Vec<((Uuid, i32), Committed)>,
    ) -> Result<u64, ResponseError> {
        let line = |(at, to)| Line { group: group.into(), at: Some(at), to: Some(to) };
        self.append(places.into_iter().map(line).collect())
    }

    /// Forgets a group.
    pub(crate) fn forget(self: &Arc<Self>, group: &str) -> Result<u64, ResponseError> {
        self.append(vec![Line { group: group.into(), at: None, to: None }])
    }

    fn append(self: &Arc<Self>, new: Vec<Line<'_>>) -> Result<u64, ResponseError> {
        let text: String = new.iter().map(lines::encode).collect();
        let mut store = lock(&self.store);
        if store.failed {
            return Err(ResponseError::KafkaStorageError);
        }
        if let Err(error) = (&*store.file).write_all(text.as_bytes()) {
            self.trouble.failed(&self.error("write to", error));
            let undone = store.file.set_len(store.bytes);
            if let Err(error) = undone {
                self.fail(&mut store, &self.error("take back a half write to", error));
            }
            return Err(ResponseError::KafkaStorageError);
        }
        self.trouble.is_over();
        store.bytes += text.len() as u64;
        steps::did(|| Step::Written { file: self.path.clone(), bytes: store.bytes });
        for line in new {
            apply(&mut store.groups, line);
        }
        store.written += 1;
        if self.flusher.is_none() {
            store.synced = store.written;
            self.told(store.bytes);
        }
        if let (Some(flusher), false) = (&self.flusher, store.queued) {
            store.queued = true;
            flusher.push(Arc::clone(self) as Arc<dyn Durable>);
        }
        Ok(store.written)
    }

    fn error(&self, what: &'static str, error: io::Error) -> Error {
        Error::io(what, &self.path)(error)
    }

    /// Takes nothing more until the file is read again.
    fn fail(&self, store: &mut Store, error: &Error) {
        store.failed = true;
        self.trouble.failed_for_good(error);
    }

    /// Notes that what the first `bytes` hold may be acknowledged.
    fn told(&self, bytes: u64) {
        steps::did(|| Step::Told { file: self.path.clone(), bytes });
    }

    /// Waits until a commit is durable.
    pub(crate) async fn durable(&self, commit: u64) -> Result<(), ResponseError> {
        let waiter = Arc::new(Notify::new());
        loop {
            {
                let mut store = lock(&self.store);
                if store.synced >= commit {
                    return Ok(());
                }
                if store.failed {
                    return Err(ResponseError::KafkaStorageError);
                }
                store.waiters.add(&waiter);
            }
            waiter.notified().await;
        }
    }

    /// One place of a group.
    pub(crate) fn get(&self, group: &str, at: (Uuid, i32)) -> Option<Committed> {
        lock(&self.store).groups.get(group)?.get(&at).cloned()
    }

    /// All places of a group.
    pub(crate) fn places(&self, group: &str) -> Vec<(Uuid, i32)> {
        let store = lock(&self.store);
        store.groups.get(group).map(|places| places.keys().copied().collect()).unwrap_or_default()
    }

    /// The groups that have committed.
    pub(crate) fn groups(&self) -> BTreeSet<String> {
        lock(&self.store).groups.keys().cloned().collect()
    }

    /// Drops the offsets of topics that aren't there, and rewrites the file.
    pub(crate) fn prune(&self, exists: impl Fn(Uuid) -> bool) {
        let mut store = lock(&self.store);
        let before: usize = store.groups.values().map(BTreeMap::len).sum();
        for places in store.groups.values_mut() {
            places.retain(|(id, _), _| exists(*id));
        }
        store.groups.retain(|_, places| !places.is_empty());
        let after: usize = store.groups.values().map(BTreeMap::len).sum();
        if after < before {
            self.rewrite(&mut store);
        }
    }

    /// Replaces the file by what is still true. On failure the old one goes on.
    fn rewrite(&self, store: &mut Store) {
        let mut text = String::new();
        for (group, places) in &store.groups {
            for (at, to) in places {
                let (group, to) = (group.as_str().into(), Some(to.clone()));
                text.push_str(&lines::encode(&Line { group, at: Some(*at), to }));
            }
        }
        let replaced = files::replace(&self.path, text.as_bytes())
            .and_then(|_| OpenOptions::new().append(true).open(&self.path));
        match replaced {
            Ok(file) => {
                store.file = Arc::new(file);
                store.bytes = text.len() as u64;
                store.dense_bytes = store.bytes;
                store.synced = store.written;
            }
            Err(error) if files::leads_to(&self.path, &store.file) => {
                // As on a full disk. It is tried again when the file is twice as long.
                store.dense_bytes = store.bytes / 2;
                self.trouble.failed(&self.error("rewrite", error));
            }
            // The name may lead to either file after a crash.
            Err(error) => self.fail(store, &self.error("rewrite", error)),
        }
    }
}

impl Durable for Offsets {
    fn sync(&self) -> bool {
        let (file, written, bytes) = {
            let store = lock(&self.store);
            (Arc::clone(&store.file), store.written, store.bytes)
        };
        let synced = files::sync_data(&file, &self.path, bytes);
        let mut store = lock(&self.store);
        match synced {
            Ok(()) => {
                store.synced = store.synced.max(written);
                self.told(bytes);
            }
            Err(error) => self.fail(&mut store, &self.error("sync", error)),
        }
        if store.bytes > REWRITE_BYTES.max(4 * store.dense_bytes) && !store.failed {
            self.rewrite(&mut store);
        }
        store.waiters.wake();
        store.queued = store.synced < store.written && !store.failed;
        store.queued
    }
}

fn apply(groups: &mut HashMap<String, Places>, line: Line<'_>) {
    match (line.at, line.to) {
        (Some(at), Some(to)) => {
            groups.entry(line.group.into_owned()).or_default().insert(at, to);
        }
        (Some(at), None) => {
            if let Some(places) = groups.get_mut(&*line.group) {
                places.remove(&at);
            }
        }
        (None, _) => {
            groups.remove(&*line.group);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::fs;

    use super::*;

    /// As on a full disk: the file that is there goes on, and lacks nothing.
    #[test]
    fn a_rewrite_that_fails_costs_no_offset() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offsets.log");
        let (gone, kept) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let open = || Offsets::open(path.clone(), None).unwrap();
        let at = |id, offset| {
            let committed = Committed { offset, epoch: 0, metadata: String::new() };
            ((id, 0), committed)
        };
        let offsets = open();
        offsets.commit("group", vec![at(gone, 1), at(kept, 1)]).unwrap();
        let in_the_way = folder.path().join("offsets.log.new");
        fs::create_dir(&in_the_way).unwrap();
        offsets.prune(|id| id == kept);
        let told = offsets.trouble(Instant::now()).unwrap().1;
        assert!(told.starts_with(&format!("rewrite {}", path.display())), "{told}");
        offsets.commit("group", vec![at(kept, 2)]).unwrap();
        assert_eq!(offsets.trouble(Instant::now()), None);

        let offset = |offsets: &Offsets| offsets.get("group", (kept, 0)).map(|place| place.offset);
        assert_eq!(offset(&open()), Some(2));
        fs::remove_dir(in_the_way).unwrap();
        let again = open();
        again.prune(|id| id == kept);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1, "it was rewritten");
        assert_eq!(offset(&open()), Some(2));
    }
}
