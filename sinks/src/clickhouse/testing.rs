//! What tests do to a writer: stall it, put it to sleep at a certain point, take a protection out.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use aion_schemas::log::{Offset, Partition};
use futures::future::BoxFuture;

use super::{ClickHouse, Settings, TableSpec};

/// A protection that a negative control takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// The token is that of the offset: of two writers one lands.
    Token,
    /// The lease runs out.
    Lease,
    /// A lease begins only with a look that finds nothing.
    LeaseOfNothing,
    /// A lease that began within a break ends with it.
    LeaseOfBreak,
    /// What was acknowledged is looked for in the table.
    Verify,
    /// A batch begins at the chain's end, whatever was read first.
    ChainEnd,
    /// The table's first batch is agreed upon before it is written.
    Opening,
    /// The day of a batch is that of the batch before it.
    Day,
    /// What fills a break ends where the break does.
    Cut,
    /// An old break is not filled.
    OldBreaks,
    /// Another token is taken only when nothing can be on its way under the one before.
    SecondToken,
    /// A retry whose record is stored, or may yet be, is left out.
    Origins,
    /// That is looked at again with each lease.
    OriginsAgain,
    /// A lease ends where that couldn't be looked at.
    LeaseOfOrigins,
    /// What fills a break waits for the retries that don't know of it.
    RetriesOnTheirWay,
    /// A batch is one record batch.
    OneBlock,
    /// Several addresses are replicas of one table.
    Replicas,
    /// Into a replicated table one INSERT is sent at a time.
    Turn,
    /// What is refused of a batch is looked for by halves.
    Halves,
    /// No more is sent than the table remembers for long enough.
    Pace,
}

type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// The strings on one writer.
#[derive(Default)]
pub struct Rig {
    stalled: AtomicBool,
    off: Mutex<BTreeSet<Protection>>,
    before_insert: Mutex<Option<Hook>>,
    after_insert: Mutex<Option<Hook>>,
}

impl Rig {
    /// While stalled, nothing is sent.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, SeqCst);
    }

    /// Takes a protection out.
    pub fn turn_off(&self, protection: Protection) {
        self.off.lock().unwrap_or_else(PoisonError::into_inner).insert(protection);
    }

    /// Runs once, when a batch is stamped and about to be sent: the writer sleeps there.
    pub fn before_insert(&self, hook: Hook) {
        *self.before_insert.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    /// Runs once, when a batch was sent and before it is looked for: the writer sleeps there.
    pub fn after_insert(&self, hook: Hook) {
        *self.after_insert.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    pub(super) fn is_off(&self, protection: Protection) -> bool {
        self.off.lock().unwrap_or_else(PoisonError::into_inner).contains(&protection)
    }

    pub(super) async fn pass(&self) {
        while self.stalled.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) async fn about_to_insert(&self) {
        run_once(&self.before_insert).await;
    }

    pub(super) async fn inserted(&self) {
        run_once(&self.after_insert).await;
    }
}

async fn run_once(hook: &Mutex<Option<Hook>>) {
    let hook = hook.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(hook) = hook {
        hook().await;
    }
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rig")
    }
}

impl ClickHouse {
    /// What is asked of all of a table, each with a word for it.
    pub fn questions(&self, spec: TableSpec, of: &Partition) -> [(&'static str, String); 3] {
        let marks = self.marks(&spec.name);
        let ledger = self.table(spec, Settings::default()).ledger;
        [
            ("the chain", ledger.links_sql(of.stream.id, &[of.number])),
            ("a batch", ledger.overlapping_sql(of, (Offset(0), Offset(10)))),
            ("the marks", marks),
        ]
    }
}
