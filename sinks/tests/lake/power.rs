//! What a loss of power may take: everything that wasn't synced. At no moment may an entry of the log be there, by
//! chance or for sure, whose files aren't; and a mark is told only when its entry is there for sure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use aion_sinks::{
    conformance::{Log, settle, take},
    fault::{self, Step},
};

use crate::shared::Place;

/// A disk that keeps what was synced, and of the rest nothing that one could rely on.
#[derive(Default)]
struct Disk {
    /// Files whose bytes are safe.
    bytes: BTreeSet<PathBuf>,
    /// Files and folders whose names are safe.
    names: BTreeSet<PathBuf>,
    /// By folder: names that may be gone.
    unsafe_names: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    entries: BTreeSet<PathBuf>,
}

impl Disk {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Written(path) | Step::FolderMade(path) => self.name(path),
            Step::Synced(path) => drop(self.bytes.insert(path.clone())),
            Step::Linked { staged, entry } => {
                self.name(entry);
                self.entries.insert(entry.clone());
                if self.bytes.contains(staged) {
                    self.bytes.insert(entry.clone());
                }
            }
            Step::FolderSynced(folder) => {
                self.names.extend(self.unsafe_names.remove(folder).unwrap_or_default());
            }
        }
    }

    fn name(&mut self, path: &Path) {
        let folder = path.parent().unwrap().to_owned();
        self.unsafe_names.entry(folder).or_default().insert(path.to_owned());
    }

    /// What is wrong if the power fails now.
    fn fault(&self, table: &Path) -> Option<String> {
        self.entries.iter().find_map(|entry| {
            if !self.bytes.contains(entry) {
                return Some(format!("{} may be empty", entry.display()));
            }
            added(entry).iter().map(|file| table.join(file)).find_map(|file| {
                let folder = file.parent().unwrap();
                let is_named = self.names.contains(&file) && self.names.contains(folder);
                let is_there = is_named && self.bytes.contains(&file);
                (!is_there).then(|| format!("{} may be gone", file.display()))
            })
        })
    }
}

/// The files that an entry adds to the table.
fn added(entry: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(entry).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["add"]["path"].as_str().map(str::to_owned)).collect()
}

/// What is wrong at any moment of these steps, or when they are over and the marks were told.
fn first_fault(steps: &[Step], table: &Path) -> Option<String> {
    let mut disk = Disk::default();
    for step in steps {
        disk.take(step);
        if let Some(fault) = disk.fault(table) {
            return Some(fault);
        }
    }
    let is_named = |path: &Path| disk.names.contains(path);
    let mut told = disk.entries.iter();
    let lost = told
        .find(|entry| !is_named(entry) || !is_named(entry.parent().unwrap()) || !is_named(table));
    lost.map(|entry| format!("{} was told and may be gone", entry.display()))
}

/// The steps of a new table and three flushes; in between somebody else makes these folders.
async fn three_flushes(place: &Place, made_by_others: &[&str]) -> Vec<Step> {
    let (log, lake) = (Log::new(), place.table().parent().unwrap().to_owned());
    fault::record_steps();
    let mut sink = place.owner(&[log.partition(0)]).await;
    let opened = fault::steps_below(&lake).len();
    let mut made = Vec::new();
    for name in made_by_others {
        let folder = place.table().join(name);
        std::fs::create_dir(&folder).unwrap();
        made.push(Step::FolderMade(folder));
    }
    for round in 0..3 {
        take(&mut sink, log.batch(0, round * 5, round * 5 + 5)).await;
        assert_eq!(settle(&mut sink).await.marks.len(), 1);
    }
    let mut steps = fault::steps_below(&lake);
    steps.splice(opened..opened, made);
    steps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_of_power_takes_nothing_that_was_told() {
    let place = Place::new();
    let (steps, table) = (three_flushes(&place, &[]).await, place.table());
    assert_eq!(first_fault(&steps, &table), None, "{steps:#?}");
}

/// Another writer made the folder of a date and died before it was synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_there_may_be_gone_all_the_same() {
    let place = Place::new();
    let (steps, table) = (three_flushes(&place, &["_date=2026-03-01"]).await, place.table());
    assert_eq!(first_fault(&steps, &table), None, "{steps:#?}");
}

/// Negative control: if each writer synced only the names that it made itself, nobody would have synced this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_sync_of_anothers_folder_it_is_gone() {
    let place = Place::new();
    let (steps, table) = (three_flushes(&place, &["_date=2026-03-01"]).await, place.table());
    let made = steps.iter().rposition(|step| matches!(step, Step::FolderMade(_))).unwrap();
    let is_left_out =
        |at: usize, step: &Step| at > made && *step == Step::FolderSynced(table.clone());
    let others = steps.iter().enumerate().filter(|(at, step)| !is_left_out(*at, step));
    let others: Vec<Step> = others.map(|(_, step)| step.clone()).collect();
    assert!(others.len() < steps.len(), "the table's folder is never synced");
    let fault = first_fault(&others, &table);
    assert!(fault.as_ref().is_some_and(|fault| fault.ends_with("may be gone")), "{fault:?}");
}

type IsOfKind<'a> = &'a dyn Fn(&Path) -> bool;

/// Negative control: without the syncs of any one kind, there is a moment at which something is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sync_something_is_gone() {
    let place = Place::new();
    let (steps, table) = (three_flushes(&place, &[]).await, place.table());
    let named =
        |path: &Path, part: &str| path.file_name().unwrap().to_string_lossy().contains(part);
    let kinds: [(&str, IsOfKind<'_>); 6] = [
        ("the files", &|path| named(path, ".parquet")),
        ("the folders of dates", &|path| named(path, "_date=")),
        ("the staged entries", &|path| named(path, ".staged")),
        ("the folder of the log", &|path| named(path, "_delta_log")),
        ("the table's folder", &|path| path == table),
        ("the lake's folder", &|path| Some(path) == table.parent()),
    ];
    for (what, is_of) in kinds {
        let is_left_out = |step: &Step| match step {
            Step::Synced(path) | Step::FolderSynced(path) => is_of(path),
            _ => false,
        };
        let others: Vec<Step> = steps.iter().filter(|step| !is_left_out(step)).cloned().collect();
        assert!(others.len() < steps.len(), "{what} are never synced");
        assert!(first_fault(&others, &table).is_some(), "nothing is gone without {what}");
    }
}
