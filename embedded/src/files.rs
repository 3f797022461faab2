//! The data folder: whose it is, who holds it, and how small files are replaced atomically.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Error,
    steps::{self, Step},
};

/// The newest layout of the data folder that this code reads, and the one it writes.
const FORMAT: u32 = 1;
const IDENTITY: &str = "broker.json";
const LOCK: &str = "lock";

#[derive(Serialize, Deserialize)]
struct Identity {
    product: String,
    format: u32,
    cluster_id: Uuid,
}

/// A locked data folder of ours; the lock goes when this is dropped or the process dies.
pub(crate) struct Folder {
    pub(crate) cluster_id: Uuid,
    _lock: File,
}

impl Folder {
    /// Opens or creates the folder, refusing what isn't ours, is newer, or is in use.
    pub(crate) fn open(path: &Path) -> Result<Folder, Error> {
        let identity = path.join(IDENTITY);
        make_folder(path).map_err(Error::io("create the data folder", path))?;
        if !identity.exists() && holds_strangers(path)? {
            return Err(Error::Foreign { path: path.into() });
        }
        let lock = lock(path)?;
        // Read under the lock: the process that held it may have just created the file.
        let cluster_id = match fs::read(&identity) {
            Ok(bytes) => known(&identity, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => found(&identity)?,
            Err(error) => return Err(Error::io("read", &identity)(error)),
        };
        Ok(Folder { cluster_id, _lock: lock })
    }
}

/// Whether more is there than a first start leaves that died: the lock, and an identity that didn't get its name.
fn holds_strangers(path: &Path) -> Result<bool, Error> {
    let entries = fs::read_dir(path).map_err(Error::io("list", path))?;
    let staged = staged(Path::new(IDENTITY)).into_os_string();
    Ok(entries.flatten().any(|entry| {
        let name = entry.file_name();
        name != LOCK && name != staged
    }))
}

fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open the lock", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = file.read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim().parse().ok());
            return Err(Error::Locked { path: folder.into(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
    }
    // Over the one before, which takes no room: the disk may be full.
    file.rewind()
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .and_then(|()| file.stream_position())
        .and_then(|end| file.set_len(end))
        .map_err(Error::io("write the lock", &path))?;
    Ok(file)
}

fn known(path: &Path, bytes: &[u8]) -> Result<Uuid, Error> {
    let foreign = || Error::Foreign { path: path.parent().unwrap_or(path).into() };
    let identity: Identity = serde_json::from_slice(bytes).map_err(|_| foreign())?;
    if identity.product != env!("CARGO_PKG_NAME") {
        return Err(foreign());
    }
    if identity.format > FORMAT {
        return Err(Error::Newer { path: path.into(), found: identity.format, known: FORMAT });
    }
    Ok(identity.cluster_id)
}

fn found(path: &Path) -> Result<Uuid, Error> {
    let cluster_id = Uuid::new_v4();
    let product = env!("CARGO_PKG_NAME").to_owned();
    replace_json(path, &Identity { product, format: FORMAT, cluster_id })?;
    Ok(cluster_id)
}

/// Replaces a file by `value` as JSON; after a crash the old or the new content is there.
pub(crate) fn replace_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::io("encode", path)(io::Error::other(error)))?;
    bytes.push(b'\n');
    replace(path, &bytes).map_err(Error::io("replace", path))?;
    Ok(())
}

/// Reads a JSON file; `None` when it isn't there.
pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let corrupt =
        |error: serde_json::Error| Error::Corrupt { path: path.into(), reason: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(corrupt)
}

/// Writes `bytes` beside `path`, makes them durable, and moves them there; what can't be moved is removed. Returns the
/// open file.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let staged = staged(path);
    let moved = stage(&staged, bytes).and_then(|file| {
        fs::rename(&staged, path)?;
        Ok(file)
    });
    let file = moved.inspect_err(|_| {
        fs::remove_file(&staged).ok();
    })?;
    steps::did(|| Step::Renamed { from: staged.clone(), to: path.to_owned() });
    sync_folder(path.parent().unwrap_or(path))?;
    Ok(file)
}

fn stage(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let length = bytes.len() as u64;
    let mut file = File::create(path)?;
    steps::did(|| Step::Made(path.to_owned()));
    file.write_all(bytes)?;
    steps::did(|| Step::Written { file: path.to_owned(), bytes: length });
    sync_data(&file, path, length)?;
    Ok(file)
}

/// Whether the name leads to this open file.
pub(crate) fn leads_to(path: &Path, file: &File) -> bool {
    let place = |about: fs::Metadata| (about.dev(), about.ino());
    let places = (fs::metadata(path).map(place), file.metadata().map(place));
    matches!(places, (Ok(named), Ok(open)) if named == open)
}

fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    steps::did(|| Step::FolderSynced(path.to_owned()));
    Ok(())
}

/// Makes the first `bytes` of a file durable; they were written before the call.
pub(crate) fn sync_data(file: &File, path: &Path, bytes: u64) -> io::Result<()> {
    file.sync_data()?;
    steps::did(|| Step::Synced { file: path.to_owned(), bytes });
    Ok(())
}

/// Makes a folder, and those above it that are missing, and their names durable. One that is there may have been made
/// by a start that died before its name was durable, so that one is synced too, where that can be done.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let is_new = !path.is_dir();
    if is_new {
        // Nothing stands above `.`, which isn't there once somebody removed the working directory.
        if parent != path {
            make_folder(parent)?;
        }
        fs::create_dir_all(path)?;
        steps::did(|| Step::Made(path.to_owned()));
    }
    match sync_folder(parent) {
        // We may read what we have made: somebody else made this one.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) if may_be_unsynced(error.kind(), is_new) => {
            tracing::warn!(
                path = %parent.display(),
                %error,
                "cannot sync a folder: a name that was made in it lately may be lost when the power fails"
            );
            Ok(())
        }
        synced => synced,
    }
}

/// Whether a folder may lie in one that can't be synced: a mount that is read-only or knows no such thing had it before
/// us, as a rule, and what we have just made there would have to last.
fn may_be_unsynced(error: io::ErrorKind, is_new: bool) -> bool {
    use io::ErrorKind::{InvalidInput, ReadOnlyFilesystem, Unsupported};
    !is_new && matches!(error, InvalidInput | ReadOnlyFilesystem | Unsupported)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn what_cannot_be_moved_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("topics.json");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"[]").is_err(), "a folder has the name");
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [path]);
    }

    /// `/proc` syncs no folder, as some mounts don't.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_is_there_may_lie_in_one_that_cannot_be_synced() {
        let kind = |done: io::Result<()>| done.map_err(|error| error.kind());
        assert_eq!(kind(sync_folder(Path::new("/proc"))), Err(io::ErrorKind::InvalidInput));
        assert_eq!(kind(make_folder(Path::new("/proc/self"))), Ok(()));
    }

    #[test]
    fn what_was_just_made_has_to_be_synced() {
        use io::ErrorKind::{InvalidInput, ReadOnlyFilesystem, StorageFull, Unsupported};
        for kind in [InvalidInput, ReadOnlyFilesystem, Unsupported] {
            assert!(may_be_unsynced(kind, false) && !may_be_unsynced(kind, true), "{kind}");
        }
        assert!(!may_be_unsynced(StorageFull, false), "the disk's own failures are told");
    }
}
