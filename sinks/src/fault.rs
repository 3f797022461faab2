//! Named places where a crash test can kill or freeze the process; nothing at all without the feature `testing`.
//!
//! | variable | at the count-th visit of the place |
//! |---|---|
//! | `AION_CRASH_AT=<name>:<count>` | the process is gone, as after `kill -9` |
//! | `AION_FREEZE_AT=<name>:<count>` | it stands still, as after `kill -STOP`, until somebody sends `SIGCONT` |
//!
//! [`did`] notes what was done to a local disk, for a test that asks what a loss of power would leave.
//!
//! Freezing makes the worst of zombies: one that wakes between its last look and its next step.

#[cfg(feature = "testing")]
use std::path::Path;
use std::path::PathBuf;

/// Kills or freezes the process when a plan in the environment says so.
#[cfg(feature = "testing")]
pub fn point(name: &str) {
    use std::sync::LazyLock;

    use plan::Plan;

    static CRASH: LazyLock<Option<Plan>> = LazyLock::new(|| Plan::from("AION_CRASH_AT"));
    static FREEZE: LazyLock<Option<Plan>> = LazyLock::new(|| Plan::from("AION_FREEZE_AT"));

    if CRASH.as_ref().is_some_and(|plan| plan.is_met(name)) {
        eprintln!("crashed at {name}");
        std::process::abort();
    }
    if FREEZE.as_ref().is_some_and(|plan| plan.is_met(name)) {
        eprintln!("frozen at {name}");
        plan::freeze();
    }
}

/// A place where a crash test kills the process; this build has no such tests in it.
#[cfg(not(feature = "testing"))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "an empty function must leave nothing behind")]
pub fn point(_name: &str) {}

/// What was done to a local disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file was made and written.
    Written(PathBuf),
    /// A file's bytes were synced.
    Synced(PathBuf),
    /// A folder was made.
    FolderMade(PathBuf),
    /// The names in a folder were synced.
    FolderSynced(PathBuf),
    /// A staged file got its name as an entry of the log.
    Linked {
        /// The name under which it was written and synced.
        staged: PathBuf,
        /// The name that makes it count.
        entry: PathBuf,
    },
}

/// Notes a step, if a test has asked for that.
#[cfg(feature = "testing")]
pub fn did(step: impl FnOnce() -> Step) {
    if let Some(steps) = steps::all().as_mut() {
        steps.push(step());
    }
}

/// Notes nothing; this build has no tests in it.
#[cfg(not(feature = "testing"))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "an empty function must leave nothing behind")]
pub fn did(_step: impl FnOnce() -> Step) {}

/// From now on steps are noted.
#[cfg(feature = "testing")]
pub fn record_steps() {
    steps::all().get_or_insert_default();
}

/// The steps so far whose paths lie below a folder, in order.
#[cfg(feature = "testing")]
pub fn steps_below(folder: &Path) -> Vec<Step> {
    let is_below = |step: &&Step| match step {
        Step::Written(path)
        | Step::Synced(path)
        | Step::FolderMade(path)
        | Step::FolderSynced(path)
        | Step::Linked { entry: path, .. } => path.starts_with(folder),
    };
    steps::all().iter().flatten().filter(is_below).cloned().collect()
}

#[cfg(feature = "testing")]
mod steps {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    static ALL: Mutex<Option<Vec<super::Step>>> = Mutex::new(None);

    pub(super) fn all() -> MutexGuard<'static, Option<Vec<super::Step>>> {
        ALL.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "testing")]
mod plan {
    use std::{
        process::Command,
        sync::atomic::{AtomicUsize, Ordering},
    };

    /// What is to happen where, and at which visit.
    pub(super) struct Plan {
        at: String,
        left: AtomicUsize,
    }

    impl Plan {
        pub(super) fn from(variable: &str) -> Option<Plan> {
            let plan = std::env::var(variable).ok()?;
            let (at, count) = plan.rsplit_once(':')?;
            Some(Plan { at: at.to_owned(), left: AtomicUsize::new(count.parse().ok()?) })
        }

        /// Whether this is the visit.
        pub(super) fn is_met(&self, name: &str) -> bool {
            self.at == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
        }
    }

    /// Stops every thread of this process. The shell does it, since a signal is an unsafe call.
    pub(super) fn freeze() {
        let stop = format!("kill -STOP {}", std::process::id());
        if let Err(cause) = Command::new("sh").args(["-c", &stop]).status() {
            eprintln!("not frozen: {cause}");
        }
    }
}
