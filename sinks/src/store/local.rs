//! A folder on a local disk: each step that makes something last, in the order that a loss of power needs.
//!
//! | what | is there for sure after |
//! |---|---|
//! | a file's bytes | the file was synced |
//! | a file's or a folder's name | the folder that it is in was synced, by us: whoever made it may have died before |
//! | a log entry | staged and synced under another name, linked, the log's folder synced |

use std::{collections::BTreeSet, fs, io, path::Path};

use bytes::Bytes;
use uuid::Uuid;

use super::Put;
use crate::fault::{self, Step};

/// Makes the folders of a table and its log.
pub(super) fn prepare(root: &Path) -> io::Result<()> {
    make_folders(&root.join("_delta_log"))?;
    sync_folder(root)?;
    root.parent().map_or(Ok(()), sync_folder)
}

/// Puts files under names that nobody has used; after a failure none of them is left.
pub(super) fn put_files(root: &Path, files: &[(String, Bytes)]) -> io::Result<()> {
    let put = || {
        let mut folders = BTreeSet::from([root.to_owned()]);
        for (path, bytes) in files {
            let file = root.join(path);
            let folder = file.parent().unwrap_or(root).to_owned();
            make_folder(&folder)?;
            fault::point("lake.before_file_write");
            write_synced(&file, bytes)?;
            fault::point("lake.after_file_sync");
            folders.insert(folder);
        }
        folders.iter().try_for_each(sync_folder)
    };
    put().inspect_err(|_| {
        for (path, _) in files {
            fs::remove_file(root.join(path)).ok();
        }
    })
}

/// Puts a log entry if its name is free.
pub(super) fn put_entry(root: &Path, path: &str, bytes: &[u8]) -> io::Result<Put> {
    let entry = root.join(path);
    let folder = entry.parent().unwrap_or(root).to_owned();
    let staged = folder.join(format!(".{}.staged", Uuid::new_v4()));
    let put = || {
        fault::point("lake.before_stage");
        write_synced(&staged, bytes)?;
        fault::point("lake.after_stage");
        let put = match fs::hard_link(&staged, &entry) {
            Ok(()) => {
                fault::did(|| Step::Linked { staged: staged.clone(), entry: entry.clone() });
                Put::Created
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Put::Exists,
            Err(e) => return Err(e),
        };
        fault::point("lake.after_link");
        // Also when it exists: it may be an earlier try of ours whose folder was never synced.
        sync_folder(&folder)?;
        Ok(put)
    };
    let put = put();
    fs::remove_file(&staged).ok();
    put
}

/// Puts a file, replacing one that is there.
pub(super) fn replace(root: &Path, path: &str, bytes: &[u8]) -> io::Result<()> {
    let file = root.join(path);
    let folder = file.parent().unwrap_or(root).to_owned();
    let staged = folder.join(format!(".{}.staged", Uuid::new_v4()));
    let replaced = write_synced(&staged, bytes).and_then(|()| fs::rename(&staged, &file));
    if replaced.is_err() {
        fs::remove_file(&staged).ok();
    }
    replaced.and_then(|()| sync_folder(&folder))
}

fn write_synced(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut open = fs::File::create_new(file)?;
    // In two halves, so that a crash can leave half a file behind.
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    io::Write::write_all(&mut open, head)?;
    fault::point("lake.within_write");
    io::Write::write_all(&mut open, tail)?;
    fault::did(|| Step::Written(file.to_owned()));
    fault::point("lake.before_sync");
    open.sync_all()?;
    fault::did(|| Step::Synced(file.to_owned()));
    Ok(())
}

/// Makes durable what somebody else wrote at `file`.
pub(super) fn sync(file: &Path) -> io::Result<()> {
    fs::File::open(file)?.sync_all()?;
    file.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: impl AsRef<Path>) -> io::Result<()> {
    fs::File::open(&folder)?.sync_all()?;
    fault::did(|| Step::FolderSynced(folder.as_ref().to_owned()));
    Ok(())
}

/// Makes one folder where it isn't there. Its parent must exist: a table that was deleted under a writer must
/// not come back without its log.
fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => fault::did(|| Step::FolderMade(folder.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    Ok(())
}

/// Makes a folder and those that lead to it, each synced.
pub(super) fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new("/"));
    make_folders(parent)?;
    make_folder(folder)?;
    sync_folder(parent)
}
