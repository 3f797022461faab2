//! What the broker and the registry did to the disk, noted for a test that asks what a loss of power would leave; nothing at all
//! without the feature `testing`.

use std::path::PathBuf;

/// One step, noted after it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file or a folder was made, or was there when it was to be made.
    Made(PathBuf),
    /// A file was written up to this length.
    Written {
        /// The file.
        file: PathBuf,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A file's first bytes were synced, those that were there when the sync began.
    Synced {
        /// The file.
        file: PathBuf,
        /// How many bytes.
        bytes: u64,
    },
    /// A file got another name, and took the place of what had it.
    Renamed {
        /// The name before.
        from: PathBuf,
        /// The name since.
        to: PathBuf,
    },
    /// The names in a folder were synced.
    FolderSynced(PathBuf),
    /// From now on what the first bytes of a file hold may be served and acknowledged.
    Told {
        /// The file; of a partition's log the last one, and all of those before it with it.
        file: PathBuf,
        /// How many bytes.
        bytes: u64,
    },
}

/// Notes a step, if a test has asked for that.
#[cfg(feature = "testing")]
pub(crate) fn did(step: impl FnOnce() -> Step) {
    if let Some(steps) = all::lock().as_mut() {
        steps.push(step());
    }
}

/// Notes nothing; this build has no tests in it.
#[cfg(not(feature = "testing"))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "an empty function must leave nothing behind")]
pub(crate) fn did(_step: impl FnOnce() -> Step) {}

/// From now on steps are noted.
#[cfg(feature = "testing")]
pub fn record() {
    all::lock().get_or_insert_default();
}

/// The steps so far within a folder, in order.
#[cfg(feature = "testing")]
pub fn within(folder: &std::path::Path) -> Vec<Step> {
    let is_within = |step: &&Step| match step {
        Step::Made(path)
        | Step::FolderSynced(path)
        | Step::Written { file: path, .. }
        | Step::Synced { file: path, .. }
        | Step::Told { file: path, .. }
        | Step::Renamed { to: path, .. } => path.starts_with(folder),
    };
    all::lock().iter().flatten().filter(is_within).cloned().collect()
}

#[cfg(feature = "testing")]
mod all {
    use std::sync::{Mutex, MutexGuard};

    use super::Step;
    use crate::flusher;

    static ALL: Mutex<Option<Vec<Step>>> = Mutex::new(None);

    pub(super) fn lock() -> MutexGuard<'static, Option<Vec<Step>>> {
        flusher::lock(&ALL)
    }
}
