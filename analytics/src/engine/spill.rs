//! Where temporary files go: a folder of the process in that of the system, locked as long as it runs. What a killed
//! process left in its own is removed by the next, so that kills don't fill a disk; and who tidies the system's folder by age
//! passes over locked ones.
//!
//! **Invariant:** only folders of this host are removed. On a network's file system a lock may hold on its host alone, and
//! another host's process would look as if it didn't run.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// What every such folder's name begins with; the host, the process and the time follow.
const PREFIX: &str = "aion-spill-";

/// Where Linux tells the host's name; containers have names of their own.
const HOST: &str = "/proc/sys/kernel/hostname";

/// Others that begin at the same time take a new folder so often at most.
const TRIES: usize = 16;

static FOLDER: Mutex<Option<Folder>> = Mutex::new(None);

/// The process's folder. `None` where none can be made: who spills is told then.
pub(super) fn folder() -> Option<PathBuf> {
    let mut folder = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    if folder.is_none() {
        let base = std::env::temp_dir();
        remove_forsaken(&base);
        *folder = Folder::new(&base).ok();
    }
    folder.as_ref().map(|folder| folder.path.clone())
}

/// Removes the process's folder, at its end.
pub fn clear() {
    drop(FOLDER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Locked: the process runs.
    _lock: File,
}

impl Folder {
    fn new(base: &Path) -> io::Result<Folder> {
        for _ in 0..TRIES {
            let since = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
            let name = format!("{}-{}-{}", of_host(), std::process::id(), since.as_nanos());
            let path = base.join(name);
            DirBuilder::new().mode(0o700).create(&path)?;
            match locked(&path) {
                Ok(None) => {}
                Ok(Some(lock)) => return Ok(Folder { path, _lock: lock }),
                Err(cause) => {
                    // Empty, and the next process removes what can't be removed now.
                    drop(fs::remove_dir(&path));
                    return Err(cause);
                }
            }
        }
        Err(io::Error::other("others take each new folder for forsaken"))
    }
}

/// A new folder's lock. `None` where whoever begins at the same time has taken it for forsaken before.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let lock = match File::open(path) {
        Ok(lock) => lock,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(cause),
    };
    match lock.try_lock() {
        Ok(()) => Ok(path.exists().then_some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        // No more locks are to be had, or this file system has none.
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The next process removes what can't be removed now.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// What names of this host's folders begin with, up to the process.
fn of_host() -> String {
    let host = fs::read_to_string(HOST).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let host: String = host.trim().chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    format!("{PREFIX}{}", if host.is_empty() { "local" } else { &host })
}

/// Removes the folders of this host's processes that don't run any more.
fn remove_forsaken(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let ours = of_host();
    for entry in entries.flatten() {
        let name = entry.file_name();
        // A host's name may have the sign that stands between the parts.
        let host = name.to_str().and_then(|name| name.rsplitn(3, '-').nth(2));
        if host == Some(ours.as_str())
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(folder) = File::open(entry.path())
            && folder.try_lock().is_ok()
        {
            // Another's can't be removed, and isn't ours to remove.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir_all(path.join("datafusion-1")).unwrap();
            fs::write(path.join("datafusion-1").join("file"), b"rows").unwrap();
            path
        };
        let forsaken = folder(&format!("{}-1-1", of_host()));
        let others = [
            format!("{}-2-1-1", of_host()),
            "aion-spill-1-1".to_owned(),
            "datafusion-2".to_owned(),
        ];
        let others = others.map(|name| folder(&name));
        let running = Folder::new(base.path()).unwrap();
        remove_forsaken(base.path());
        assert!(!forsaken.exists());
        assert!(others.iter().all(|path| path.join("datafusion-1").join("file").exists()));
        assert!(running.path.exists());
        let path = running.path.clone();
        drop(running);
        assert!(!path.exists());
    }

    #[test]
    fn what_another_has_taken_before_the_lock_is_made_anew_and_all_else_is_an_error() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("aion-spill-3-1");
        assert!(locked(&path).unwrap().is_none(), "removed");
        fs::create_dir(&path).unwrap();
        let held = locked(&path).unwrap();
        assert!(held.is_some());
        assert!(locked(&path).unwrap().is_none(), "another is about to remove it");
        let file = base.path().join("file");
        fs::write(&file, b"").unwrap();
        let cause = locked(&file.join("no-folder")).unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told_by_its_absence() {
        assert!(Folder::new(Path::new("/nowhere/at/all")).is_err());
    }
}
