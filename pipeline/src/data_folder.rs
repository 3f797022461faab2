//! The folder of `aion dev`: the broker's log, the lake, and a marker that says whose folder it is.
//!
//! ```text
//! data/
//!   aion-dev.json   the marker: format version
//!   lock            held while a process uses the folder
//!   kafka.address   where its broker listens, while the lock is held
//!   registry.address   the same of its schema registry
//!   http.address    the same of its HTTP surface
//!   kafka/          the embedded broker's log
//!   registry/       the embedded schema registry's log
//!   lake/           one Delta table per topic
//!   exports/        training exports
//!   access/         who may command, with secrets to try it
//! ```
//!
//! **Invariant:** a folder that isn't ours is never written to.

use std::{
    fs::{self, File, TryLockError},
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    exit::{Exit, Failure},
    place,
};

const MARKER: &str = "aion-dev.json";
const LOCK: &str = "lock";
const ADDRESS: &str = "kafka.address";
const REGISTRY_ADDRESS: &str = "registry.address";
const HTTP_ADDRESS: &str = "http.address";
const FORMAT: u32 = 1;
/// How often a lock is tried again, and how long after.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(30);

/// An open data folder; the lock is held until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
}

impl DataFolder {
    /// Opens the folder, or makes it where nothing is there yet, and locks it.
    pub fn open(path: &Path) -> anyhow::Result<DataFolder> {
        let path = place::full(path).with_context(|| format!("data folder {}", path.display()))?;
        if is_vacant(&path)? {
            create(&path).with_context(|| format!("create data folder {}", path.display()))?;
        } else {
            check_marker(&path)?;
        }
        let lock = lock(&path)?;
        Ok(DataFolder { path, _lock: lock })
    }

    /// Says where the broker on this folder listens, to [`running_broker`].
    pub fn announce(&self, broker: SocketAddr) -> anyhow::Result<()> {
        self.write_address(ADDRESS, broker)
    }

    /// Says where the schema registry on this folder listens, to [`running_registry`].
    pub fn announce_registry(&self, registry: SocketAddr) -> anyhow::Result<()> {
        self.write_address(REGISTRY_ADDRESS, registry)
    }

    /// Says where the process on this folder answers over HTTP, to [`running_http`].
    pub fn announce_http(&self, http: SocketAddr) -> anyhow::Result<()> {
        self.write_address(HTTP_ADDRESS, http)
    }

    fn write_address(&self, file: &str, address: SocketAddr) -> anyhow::Result<()> {
        let (path, text) = (self.path.join(file), address.to_string());
        // As it was before: the disk may be full, and then there is no room to write it again.
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the broker keeps its log.
    pub fn kafka(&self) -> PathBuf {
        self.path.join("kafka")
    }

    /// Where the schema registry keeps its log.
    pub fn registry(&self) -> PathBuf {
        self.path.join("registry")
    }

    /// Where the lake is.
    pub fn lake(&self) -> PathBuf {
        self.path.join("lake")
    }

    /// Where exports go.
    pub fn exports(&self) -> PathBuf {
        exports(&self.path)
    }
}

impl DataFolder {
    /// Where the access policy for commands is, and what it refers to.
    pub fn access(&self) -> PathBuf {
        self.path.join("access")
    }
}

/// Where the exports of a data folder are.
pub fn exports(path: &Path) -> PathBuf {
    path.join("exports")
}

/// The address of the broker that runs on a data folder; `None` when none runs.
pub fn running_broker(path: &Path) -> Option<String> {
    running(path, ADDRESS)
}

/// The URL of the schema registry that runs on a data folder; `None` when none runs.
pub fn running_registry(path: &Path) -> Option<String> {
    running(path, REGISTRY_ADDRESS).map(|address| format!("http://{address}"))
}

/// The URL at which the process on a data folder answers; `None` when none runs.
pub fn running_http(path: &Path) -> Option<String> {
    running(path, HTTP_ADDRESS).map(|address| format!("http://{address}/"))
}

fn running(path: &Path, file: &str) -> Option<String> {
    let lock = File::open(path.join(LOCK)).ok()?;
    // What a killed process left behind says nothing: only the lock shows that one runs.
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => fs::read_to_string(path.join(file)).ok(),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn is_vacant(path: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(path) {
        // A kill between the folder and its marker leaves nothing, or the temporary marker.
        Ok(entries) => Ok(entries
            .filter_map(Result::ok)
            .all(|entry| entry.file_name() == temporary(MARKER).as_str())),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(cause) => Err(refuse(path, &format!("can't be read: {cause}")).into()),
    }
}

fn create(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path)?;
    let text = serde_json::to_string(&Marker { format: FORMAT })?;
    let temporary = path.join(temporary(MARKER));
    fs::write(&temporary, text)?;
    File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, path.join(MARKER))?;
    File::open(path)?.sync_all()?;
    Ok(())
}

fn temporary(name: &str) -> String {
    format!("{name}.new")
}

fn check_marker(path: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(path.join(MARKER))
        .map_err(|_| refuse(path, "holds something else; choose another folder with --data"))?;
    let marker: Marker = serde_json::from_str(&text)
        .map_err(|cause| refuse(path, &format!("has a damaged {MARKER}: {cause}")))?;
    if marker.format > FORMAT {
        let problem = format!(
            "was written by a newer release (format {}, this one knows {FORMAT}); \
             use that release, or another folder with --data",
            marker.format
        );
        return Err(refuse(path, &problem));
    }
    Ok(())
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let name = path.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .with_context(|| format!("open {}", name.display()))?;
    // Whoever only looks whether one runs holds it for a moment.
    let mut locked = file.try_lock();
    for _ in 0..LOOKS {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        thread::sleep(LOOK);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(refuse(
            path,
            "is in use by another `aion dev`; stop that one, or choose another folder with --data",
        )
        .into()),
        Err(TryLockError::Error(cause)) => {
            Err(cause).with_context(|| format!("lock {}", name.display()))
        }
    }
}

fn refuse(path: &Path, problem: &str) -> Failure {
    Failure::new(Exit::Data, format!("data folder {} {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::exit::code_of;

    fn refused(path: &Path) -> String {
        let error = DataFolder::open(path).unwrap_err();
        assert_eq!(code_of(&error), Exit::Data, "{error}");
        error.to_string()
    }

    #[test]
    fn a_new_folder_is_made_and_opened_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        drop(DataFolder::open(&path).unwrap());
        DataFolder::open(&path).unwrap();
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let _open = DataFolder::open(folder.path()).unwrap();
        assert!(refused(folder.path()).contains("in use"));
    }

    #[test]
    fn the_broker_is_found_only_while_it_runs() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        assert_eq!(running_broker(&path), None);
        let open = DataFolder::open(&path).unwrap();
        open.announce("127.0.0.1:9092".parse().unwrap()).unwrap();
        assert_eq!(running_broker(&path).as_deref(), Some("127.0.0.1:9092"));
        drop(open);
        assert_eq!(running_broker(&path), None);
    }

    #[test]
    fn a_look_at_the_lock_keeps_nobody_out() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        drop(DataFolder::open(&path).unwrap());
        let look = File::open(path.join(LOCK)).unwrap();
        look.try_lock_shared().unwrap();
        let looking = thread::spawn(move || {
            thread::sleep(2 * LOOK);
            drop(look);
        });
        DataFolder::open(&path).unwrap();
        looking.join().unwrap();
    }

    #[test]
    fn a_foreign_folder_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
        assert!(refused(folder.path()).contains("holds something else"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_folder_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MARKER), r#"{"format":99}"#).unwrap();
        assert!(refused(folder.path()).contains("newer release"));
    }

    #[test]
    fn a_kill_before_the_marker_stood_is_harmless() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(temporary(MARKER)), "{").unwrap();
        DataFolder::open(folder.path()).unwrap();
    }
}
