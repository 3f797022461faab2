//! What tests do to one writer of a table: stall it, lose its answers, put it to sleep, take a protection out.

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::future::BoxFuture;

use super::clock::Clock;
use crate::store::Put;

/// A protection that a negative control takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// Before each put: every mark is the one that the rows follow.
    Marks,
    /// Whether an entry is ours is decided by its uuid; without it, by an equal mark.
    OwnEntry,
    /// The table's rules in each entry that is read.
    Rules,
    /// A log that was not looked at for an hour is read anew.
    Relist,
    /// Files that vacuum may already have removed are written anew.
    FileAge,
    /// After a put that took long, the entry and its files are looked for.
    SlowPut,
    /// Before each put: nobody has stored meanwhile what the flush retries.
    Origins,
    /// Before a swap of files is put, no other entry may have removed one of them.
    Inputs,
    /// Before a swap is put, the marks that it changes stand as they were seen.
    Standing,
    /// A flush that is due runs on a task of its own; without it, whoever asks for it waits.
    OwnTask,
    /// Ages are told by a clock that runs during suspend; without it, by one that stands still.
    Suspend,
    /// A checkpoint of series is named by the number after that of the one it builds on; without it, by its mark.
    Number,
    /// Series are shown once they are checkpointed; without it, as soon as they are added up.
    Checkpointed,
}

type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

impl Protection {
    const ALL: [Protection; 12] = [
        Protection::Marks,
        Protection::OwnEntry,
        Protection::Rules,
        Protection::Relist,
        Protection::FileAge,
        Protection::SlowPut,
        Protection::Inputs,
        Protection::Standing,
        Protection::OwnTask,
        Protection::Suspend,
        Protection::Number,
        Protection::Checkpointed,
    ];

    /// What `AION_TAKE_OUT` names: for controls with a process of its own.
    fn of_environment() -> BTreeSet<Protection> {
        let named = std::env::var("AION_TAKE_OUT").unwrap_or_default();
        Self::ALL.into_iter().filter(|one| format!("{one:?}") == named).collect()
    }
}

/// The strings on one writer.
pub struct Rig {
    pub(crate) clock: Clock,
    stalled: AtomicBool,
    failing: AtomicUsize,
    unanswered: AtomicUsize,
    off: Mutex<BTreeSet<Protection>>,
    hook: Mutex<Option<Hook>>,
}

impl Default for Rig {
    fn default() -> Rig {
        Rig {
            clock: Clock::default(),
            stalled: AtomicBool::default(),
            failing: AtomicUsize::default(),
            unanswered: AtomicUsize::default(),
            off: Mutex::new(Protection::of_environment()),
            hook: Mutex::default(),
        }
    }
}

impl Rig {
    /// While stalled, the store doesn't answer to puts of log entries.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, SeqCst);
    }

    /// The next puts fail, and nothing is there.
    pub fn fail_puts(&self, count: usize) {
        self.failing.store(count, SeqCst);
    }

    /// The next puts land, and the writer gets an error for an answer.
    pub fn lose_answers(&self, count: usize) {
        self.unanswered.store(count, SeqCst);
    }

    /// Moves the writer's clock on, as a machine does that was suspended.
    pub fn sleep(&self, time: Duration) {
        if !self.is_off(Protection::Suspend) {
            self.clock.sleep(time);
        }
    }

    /// Takes a protection out.
    pub fn take_out(&self, protection: Protection) {
        self.off.lock().unwrap_or_else(PoisonError::into_inner).insert(protection);
    }

    /// Runs once between the writer's last look and its next put.
    pub fn before_next_put(&self, hook: impl FnOnce() -> BoxFuture<'static, ()> + Send + 'static) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    pub(crate) fn is_off(&self, protection: Protection) -> bool {
        self.off.lock().unwrap_or_else(PoisonError::into_inner).contains(&protection)
    }

    pub(crate) async fn before_put(&self, path: &str) -> io::Result<()> {
        while self.stalled.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(hook) = hook {
            hook().await;
        }
        if one_of(&self.failing) {
            return Err(io::Error::other(format!("{path} was not put, by script")));
        }
        Ok(())
    }

    pub(crate) fn after_put(&self, put: io::Result<Put>) -> io::Result<Put> {
        match put {
            Ok(_) if one_of(&self.unanswered) => {
                Err(io::Error::other("the answer was lost, by script"))
            }
            put => put,
        }
    }
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").field("off", &self.off).finish_non_exhaustive()
    }
}

fn one_of(count: &AtomicUsize) -> bool {
    count.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}
