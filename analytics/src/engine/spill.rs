//! Where temporary files go: a folder of the process in that of the system, locked as long as it runs. What a killed
//! process left in its own is removed by the next, so that kills don't fill a disk; and who tidies the system's folder by age
//! passes over locked ones.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// What every such folder's name begins with.
const PREFIX: &str = "aion-spill-";

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
        loop {
            let since = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
            let name = format!("{PREFIX}{}-{}", std::process::id(), since.as_nanos());
            let path = base.join(name);
            DirBuilder::new().mode(0o700).create(&path)?;
            // Whoever begins at the same time may have taken it for forsaken before the lock.
            if let Ok(lock) = File::open(&path)
                && lock.try_lock().is_ok()
                && path.exists()
            {
                return Ok(Folder { path, _lock: lock });
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The next process removes what can't be removed now.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Removes the folders of processes that don't run any more.
fn remove_forsaken(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_ours
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
        let forsaken = folder("aion-spill-1-1");
        let foreign = folder("datafusion-2");
        let running = Folder::new(base.path()).unwrap();
        remove_forsaken(base.path());
        assert!(!forsaken.exists());
        assert!(foreign.join("datafusion-1").join("file").exists());
        assert!(running.path.exists());
        let path = running.path.clone();
        drop(running);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told_by_its_absence() {
        assert!(Folder::new(Path::new("/nowhere/at/all")).is_err());
    }
}
