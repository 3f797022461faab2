//! What a loss of power may take: everything that wasn't synced. What the broker has told, by its high watermark or an
//! acknowledged commit, must be there for sure at the moment when it is told: the bytes, the names of the files and
//! folders that hold them, and the list that names the topic. `registry` asks the same of the registry.

mod registry;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use aion_embedded::{
    Fsync,
    steps::{self, Step},
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
};

use crate::{
    rig::{Rig, batch},
    wire::{now_ms, put},
};

/// A disk that keeps what was synced, and of the rest nothing that one could rely on.
#[derive(Default)]
struct Disk {
    /// The length of each file in bytes, and how much of it is safe.
    lengths: BTreeMap<PathBuf, (u64, u64)>,
    /// Files and folders whose names are safe.
    names: BTreeSet<PathBuf>,
    /// By folder: names that may be gone.
    unsafe_names: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
}

impl Disk {
    /// Takes a step; what is wrong if the power fails right after it.
    fn take(&mut self, step: &Step, data: &Path) -> Option<String> {
        match step {
            Step::Made(path) => self.name(path),
            Step::Written { file, bytes } => {
                self.lengths.entry(file.clone()).or_default().0 = *bytes;
            }
            Step::Synced { file, bytes } => {
                let (_, safe) = self.lengths.entry(file.clone()).or_default();
                *safe = (*safe).max(*bytes);
            }
            Step::Renamed { from, to } => {
                let lengths = self.lengths.remove(from).unwrap_or_default();
                self.lengths.insert(to.clone(), lengths);
                self.name(to);
            }
            Step::FolderSynced(folder) => {
                self.names.extend(self.unsafe_names.remove(folder).unwrap_or_default());
            }
            Step::Told { file, bytes } => return self.fault(file, *bytes, data),
        }
        None
    }

    fn name(&mut self, path: &Path) {
        if !self.names.contains(path) {
            let folder = path.parent().unwrap().to_owned();
            self.unsafe_names.entry(folder).or_default().insert(path.to_owned());
        }
    }

    /// What was told and may be gone.
    fn fault(&self, told: &Path, bytes: u64, data: &Path) -> Option<String> {
        let of_a_log = told.parent() != Some(data);
        let is_earlier = |file: &Path| file.parent() == told.parent() && file < told;
        let earlier = self.lengths.iter().filter(|(file, _)| of_a_log && is_earlier(file));
        let topics = data.join("topics.json");
        let named = self.lengths.get_key_value(&topics).filter(|_| of_a_log);
        let whole = earlier.chain(named).map(|(file, (length, _))| (file.as_path(), *length));
        whole.chain([(told, bytes)]).find_map(|(file, bytes)| {
            let safe = self.lengths.get(file).map_or(0, |(_, safe)| *safe);
            if safe < bytes {
                return Some(format!("{} may end at byte {safe}, not {bytes}", file.display()));
            }
            let above = data.parent().unwrap();
            let mut path = file.ancestors().take_while(|path| *path != above);
            let lost = path.find(|path| !self.names.contains(*path));
            lost.map(|path| format!("{} may be gone", path.display()))
        })
    }
}

fn first_fault<'a>(steps: impl IntoIterator<Item = &'a Step>, data: &Path) -> Option<String> {
    let mut disk = Disk::default();
    steps.into_iter().find_map(|step| disk.take(step, data))
}

/// A topic whose log gets several segments, commits of a group, and all of it once more after a restart.
fn story(fsync: Fsync) -> (Rig, Vec<Step>) {
    steps::record();
    let mut rig = Rig::with(|settings| settings.fsync = fsync);
    rig.create("t", 1, &[("segment.bytes", "1024")]);
    for round in 1..=2 {
        for _ in 0..5 {
            let answer = put(&rig, "t", batch(&[now_ms(); 20], (-1, -1, -1)));
            assert_eq!(answer.error_code, 0);
        }
        let consumer = rig.consumer("group", &[]);
        let mut places = TopicPartitionList::new();
        places.add_partition_offset("t", 0, Offset::Offset(round * 50)).unwrap();
        consumer.commit(&places, CommitMode::Sync).unwrap();
        drop(consumer);
        rig.restart();
    }
    assert_eq!(rig.watermarks("t"), (0, 200));
    let steps = steps::within(rig.data().parent().unwrap());
    (rig, steps)
}

/// The files that something was told of, in the order of their names.
fn told(steps: &[Step]) -> Vec<PathBuf> {
    let file = |step: &Step| match step {
        Step::Told { file, .. } => Some(file.clone()),
        _ => None,
    };
    steps.iter().filter_map(file).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn a_loss_of_power_takes_nothing_that_was_told() {
    let (rig, steps) = story(Fsync::Always);
    assert_eq!(first_fault(&steps, &rig.data()), None, "{steps:#?}");
    let told = told(&steps);
    assert!(told.len() > 4, "several segments, and the offsets: {told:#?}");
    assert!(told.contains(&rig.data().join("offsets.log")), "{told:#?}");
}

/// Negative control: the setting that leaves it to the operating system.
#[test]
fn without_fsync_a_loss_of_power_takes_what_was_told() {
    let (rig, steps) = story(Fsync::Never);
    let fault = first_fault(&steps, &rig.data());
    assert!(fault.as_ref().is_some_and(|fault| fault.contains("may end at byte 0")), "{fault:?}");
}

/// Negative control: if the high watermark moved before the sync, there would be a moment at which it is too high.
#[test]
fn told_before_it_is_synced_it_is_gone() {
    let (rig, steps) = story(Fsync::Always);
    for file in told(&steps) {
        let is_told = |step: &Step| match step {
            Step::Told { file: of, bytes } => *bytes > 0 && *of == file,
            _ => false,
        };
        let Some(at) = steps.iter().position(is_told) else { continue };
        let is_synced = |step: &Step| matches!(step, Step::Synced { file: of, .. } if *of == file);
        let before = steps[..at].iter().rposition(is_synced).unwrap();
        let mut others = steps.clone();
        others[before..=at].rotate_right(1);
        assert!(first_fault(&others, &rig.data()).is_some(), "{} was not gone", file.display());
    }
}

type IsOfKind<'a> = &'a dyn Fn(&Path) -> bool;

/// Negative control: without the syncs of any one kind, there is a moment at which something is gone.
#[test]
fn without_a_sync_something_is_gone() {
    let (rig, steps) = story(Fsync::Always);
    let (data, told) = (rig.data(), told(&steps));
    let logs: Vec<&PathBuf> =
        told.iter().filter(|file| file.parent() != Some(data.as_path())).collect();
    let (first, last) = (logs[0].as_path(), logs[logs.len() - 1].as_path());
    let kinds: [(&str, IsOfKind<'_>); 8] = [
        ("a segment that is full", &|path| path == first),
        ("the segment that is written to", &|path| path == last),
        ("committed offsets", &|path| path == data.join("offsets.log")),
        ("the list of topics", &|path| path == data.join("topics.json.new")),
        ("the folder of a partition", &|path| Some(path) == first.parent()),
        ("the folder of all partitions", &|path| path == data.join("topics")),
        ("the data folder", &|path| path == data),
        ("the folder above it", &|path| Some(path) == data.parent()),
    ];
    for (what, is_of) in kinds {
        let is_left_out = |step: &Step| match step {
            Step::Synced { file: path, .. } | Step::FolderSynced(path) => is_of(path),
            _ => false,
        };
        let others: Vec<&Step> = steps.iter().filter(|step| !is_left_out(step)).collect();
        assert!(others.len() < steps.len(), "{what}: never synced");
        assert!(first_fault(others, &data).is_some(), "nothing is gone without {what}");
    }
}
