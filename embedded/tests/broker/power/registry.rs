//! The registry through a loss of power after each of its steps: it is started on all that the disk may then hold, and
//! must have each schema that it had told, under its id.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use aion_embedded::{
    Error, Registry,
    steps::{self, Step},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Disk;

/// A registry that runs; dropped, it ends as if it were killed.
struct Running {
    address: SocketAddr,
    _runtime: Runtime,
    _registry: Registry,
}

impl Running {
    fn start(folder: &Path) -> Result<Running, Error> {
        let runtime = Runtime::new().unwrap();
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let registry = runtime.block_on(Registry::start(any_port, folder))?;
        Ok(Running { address: registry.address(), _runtime: runtime, _registry: registry })
    }

    fn register(&self, subject: &str, schema: &str) -> u64 {
        let body = json!({ "schema": schema }).to_string();
        self.ask("POST", &format!("/subjects/{subject}/versions"), &body)["id"].as_u64().unwrap()
    }

    fn has(&self, registered: &Registered) -> bool {
        let found = self.ask("GET", &format!("/schemas/ids/{}", registered.id), "");
        found["schema"] == registered.schema
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let bytes = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: registry\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

/// A schema that was answered with its id.
struct Registered {
    id: u64,
    schema: String,
    /// The length of the log with it.
    bytes: u64,
}

/// What a registry did, and what it held at the end.
struct Story {
    above: TempDir,
    steps: Vec<Step>,
    text: Vec<u8>,
    registered: Vec<Registered>,
}

impl Story {
    /// Some schemas, and some more after another start.
    fn tell() -> Story {
        steps::record();
        let above = tempfile::tempdir().unwrap();
        let (folder, mut registered) = (above.path().join("registry"), Vec::new());
        for round in 1..=2 {
            let registry = Running::start(&folder).unwrap();
            for number in 1..=3 {
                let name = format!("s{round}{number}");
                let schema = format!(r#"{{"type":"fixed","name":"{name}","size":4}}"#);
                let id = registry.register(&name, &schema);
                let bytes = fs::metadata(folder.join("registry.log")).unwrap().len();
                let told = Step::Told { file: folder.join("registry.log"), bytes };
                assert_eq!(steps::within(above.path()).last(), Some(&told), "answered untold");
                registered.push(Registered { id, schema, bytes });
            }
        }
        let text = fs::read(folder.join("registry.log")).unwrap();
        Story { steps: steps::within(above.path()), above, text, registered }
    }

    fn folder(&self) -> PathBuf {
        self.above.path().join("registry")
    }

    fn log(&self) -> PathBuf {
        self.folder().join("registry.log")
    }

    /// What is wrong, if the power fails after one of these steps.
    fn first_fault<'a>(&self, steps: impl IntoIterator<Item = &'a Step>) -> Option<String> {
        let (mut disk, mut told, mut seen) = (Disk::default(), 0, BTreeSet::new());
        for step in steps {
            if let Step::Told { bytes, .. } = step {
                told = *bytes;
            } else {
                disk.take(step, self.above.path());
            }
            for log in self.logs(&disk) {
                let fault = || self.fault(log.as_deref(), told);
                if seen.insert((log.clone(), told))
                    && let Some(fault) = fault()
                {
                    return Some(format!("{fault} after {step:?}"));
                }
            }
        }
        None
    }

    /// What the log may be: not there, or what was synced and anything of the rest.
    fn logs(&self, disk: &Disk) -> Vec<Option<Vec<u8>>> {
        let log = self.log();
        let (length, safe) = disk.lengths.get(&log).copied().unwrap_or_default();
        let (whole, safe) = (&self.text[..length as usize], safe as usize);
        let half = usize::midpoint(safe, whole.len());
        let cuts = [safe, safe + 1, half, whole.len().saturating_sub(1), whole.len()];
        let cuts = cuts.into_iter().filter(|cut| (safe..=whole.len()).contains(cut));
        let mut logs: Vec<_> = cuts.map(|cut| Some(whole[..cut].to_vec())).collect();
        // The new length was written, and of the bytes nothing, or only what stands in the last block.
        for lost in [safe..whole.len(), safe..half] {
            let mut zeroed = whole.to_vec();
            zeroed[lost].fill(0);
            logs.push(Some(zeroed));
        }
        let mut names = log.ancestors().take_while(|path| *path != self.above.path());
        if names.any(|path| !disk.names.contains(path)) {
            logs.push(None);
        }
        logs
    }

    /// What is wrong with a registry that starts on this log, and had told what these bytes hold.
    fn fault(&self, log: Option<&[u8]>, told: u64) -> Option<String> {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("registry");
        if let Some(log) = log {
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("registry.log"), log).unwrap();
        }
        let told: Vec<_> = self.registered.iter().filter(|one| one.bytes <= told).collect();
        let mut later: Option<Registered> = None;
        // The second start reads what the first one has written behind a tail that it cut.
        for _ in 1..=2 {
            let registry = match Running::start(&folder) {
                Ok(registry) => registry,
                Err(error) => return Some(error.to_string()),
            };
            let mut all = told.iter().copied().chain(&later);
            if let Some(gone) = all.find(|one| !registry.has(one)) {
                return Some(format!("schema {} is gone", gone.id));
            }
            let schema = r#""bytes""#.to_owned();
            let id = registry.register("later", &schema);
            if told.iter().any(|one| one.id == id) {
                return Some(format!("id {id} is given twice"));
            }
            later = Some(Registered { id, schema, bytes: 0 });
        }
        None
    }
}

#[test]
fn a_loss_of_power_takes_no_schema_that_was_told() {
    let story = Story::tell();
    assert_eq!(story.first_fault(&story.steps), None, "{:#?}", story.steps);
    let ids: BTreeSet<u64> = story.registered.iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), 6);
}

/// Negative control: an answer that goes out before the sync.
#[test]
fn told_before_it_is_synced_a_schema_is_gone() {
    let story = Story::tell();
    let one = &story.registered[1];
    let is_told = |step: &Step| matches!(step, Step::Told { bytes, .. } if *bytes == one.bytes);
    let is_synced = |step: &Step| matches!(step, Step::Synced { .. });
    let at = story.steps.iter().position(is_told).unwrap();
    let before = story.steps[..at].iter().rposition(is_synced).unwrap();
    let mut others = story.steps.clone();
    others[before..=at].rotate_right(1);
    let fault = story.first_fault(&others);
    let expected = format!("schema {} is gone", one.id);
    assert!(fault.as_ref().is_some_and(|fault| fault.contains(&expected)), "{fault:?}");
}

/// Negative control: without the syncs of any one kind there is a moment at which a schema is gone.
#[test]
fn without_a_sync_a_schema_is_gone() {
    let story = Story::tell();
    for path in [story.log(), story.folder(), story.above.path().to_owned()] {
        let is_left_out = |step: &Step| match step {
            Step::Synced { file: of, .. } | Step::FolderSynced(of) => *of == path,
            _ => false,
        };
        let others: Vec<&Step> = story.steps.iter().filter(|step| !is_left_out(step)).collect();
        assert!(others.len() < story.steps.len(), "{}: never synced", path.display());
        let fault = story.first_fault(others);
        let is_gone = fault.as_ref().is_some_and(|fault| fault.contains("is gone"));
        assert!(is_gone, "without the sync of {}: {fault:?}", path.display());
    }
}

/// Whoever was killed between its write and its sync leaves a line that the next start reads and tells of: it syncs first.
#[test]
fn a_start_syncs_what_a_killed_one_had_only_written() {
    let story = Story::tell();
    let last = &story.registered[2];
    let is_told = |step: &Step| matches!(step, Step::Told { bytes, .. } if *bytes == last.bytes);
    let is_synced = |step: &Step| matches!(step, Step::Synced { .. });
    let mut steps = story.steps.clone();
    let told = steps.iter().position(is_told).unwrap();
    let synced = steps[..told].iter().rposition(is_synced).unwrap();
    steps.remove(told);
    steps.remove(synced);
    assert_eq!(story.first_fault(&steps), None, "{steps:#?}");
    // Negative control: a start that doesn't.
    let next = steps[synced..].iter().position(is_synced).unwrap();
    steps.remove(synced + next);
    let fault = story.first_fault(&steps);
    let expected = format!("schema {} is gone", last.id);
    assert!(fault.as_ref().is_some_and(|fault| fault.contains(&expected)), "{fault:?}");
}
