//! The registry's log: one checked line for each change, on disk before it is answered.
//!
//! **Invariant:** a line that isn't whole is cut if it is the last, and stops the start elsewhere.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::schema::Schema;
use crate::{
    Error, files, lines,
    steps::{self, Step},
};

/// The newest layout of the log that this code reads, and the one it writes.
const FORMAT: u32 = 1;
const LOG: &str = "registry.log";

/// One change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// The first line.
    Format(u32),
    /// A subject has a new version; with the schema where its id is new.
    Registered { subject: String, version: u32, id: u32, schema: Option<Schema> },
    /// Versions are softly deleted, or gone.
    Deleted { subject: String, versions: Vec<u32>, permanent: bool },
    /// The level of a subject, or of all others, is set; or, with none, taken away.
    Level { subject: Option<String>, level: Option<aion_schemas::compatibility::Level> },
}

/// The open log; its lock goes when this is dropped or the process dies.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Set when it isn't known what the file holds.
    failed: bool,
}

impl Journal {
    /// Opens the log in a folder, which is made if it isn't there, and gives its changes in order.
    pub(super) fn open(folder: &Path, mut apply: impl FnMut(Change)) -> Result<Journal, Error> {
        let made = files::make_folder(folder);
        made.map_err(Error::io("create the registry's folder", folder))?;
        let path = folder.join(LOG);
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut file = opened.map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path, pid: None }),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        steps::did(|| Step::Made(path.clone()));
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(Error::io("read", &path))?;
        let mut whole = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            match lines::decode(line) {
                Some(Change::Format(found)) if found > FORMAT => {
                    return Err(Error::Newer { path, found, known: FORMAT });
                }
                Some(change) => apply(change),
                None if whole + line.len() == text.len() => break,
                None => {
                    let reason = format!("the line at byte {whole} isn't what was written");
                    return Err(Error::Corrupt { path, reason });
                }
            }
            whole += line.len();
        }
        if whole < text.len() {
            let bytes = text.len() - whole;
            tracing::warn!(path = %path.display(), bytes, "cut a torn line of the registry's log");
            file.set_len(whole as u64).map_err(Error::io("cut", &path))?;
        }
        let mut journal = Journal { path, file, bytes: whole as u64, failed: false };
        if whole == 0 {
            let written = journal.write(&Change::Format(FORMAT));
            written.map_err(Error::io("write", &journal.path))?;
        }
        // A process that was killed may have left a line that is whole and not durable.
        let synced = files::sync_data(&journal.file, &journal.path, journal.bytes)
            .and_then(|()| files::sync_folder(folder));
        synced.map_err(Error::io("sync", &journal.path))?;
        journal.told();
        Ok(journal)
    }

    /// Writes a change; it is on disk when this returns.
    pub(super) fn append(&mut self, change: &Change) -> io::Result<()> {
        self.write(change)?;
        self.told();
        Ok(())
    }

    fn write(&mut self, change: &Change) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write failed; start again"));
        }
        let text = lines::encode(change);
        let bytes = self.bytes + text.len() as u64;
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            self.failed = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        steps::did(|| Step::Written { file: self.path.clone(), bytes });
        if let Err(error) = files::sync_data(&self.file, &self.path, bytes) {
            // Nobody knows what is on disk now; a start reads it anew.
            self.failed = true;
            return Err(error);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Notes that what the log holds may be answered.
    fn told(&self) {
        steps::did(|| Step::Told { file: self.path.clone(), bytes: self.bytes });
    }

    /// The file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
