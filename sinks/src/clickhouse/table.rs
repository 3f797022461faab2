//! A table, what its writers share, and how far it is.

#[cfg(feature = "testing")]
use std::sync::Arc;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Instant,
};

use aion_schemas::log::{Offset, show};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

#[cfg(feature = "testing")]
use super::testing::{Protection, Rig};
use super::{
    Settings, TableSpec,
    failure::Failure,
    guarantee::Guarantee,
    ledger::Ledger,
    plan,
    survey::{Found, Kept, Link, Notes, Youth, misses_some, survey, without_overlaps},
};
use crate::sink::SinkError;

/// A table and what writers of it share.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) ledger: Ledger,
    pub(super) spec: TableSpec,
    pub(super) settings: Settings,
    /// After how many days the table's rows go, as it was found; 0 is never.
    pub(super) kept_days: AtomicU32,
    /// Whether its parts and tokens are kept by Keeper, as it was found.
    pub(super) is_replicated: AtomicBool,
    #[cfg(feature = "testing")]
    pub(super) rig: Arc<Rig>,
}

/// How far a table has some partitions of a topic.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) found: BTreeMap<i32, Found>,
    /// Until when what follows on it may be inserted, by the server's clock, and when this was learnt.
    pub(super) lease: (u32, Instant),
    /// When it was looked at, by the server's clock.
    pub(super) now: u32,
}

impl Table {
    pub(super) fn new(ledger: Ledger, spec: TableSpec, settings: Settings) -> Table {
        Table {
            ledger,
            spec,
            settings,
            kept_days: 0.into(),
            is_replicated: false.into(),
            #[cfg(feature = "testing")]
            rig: Arc::default(),
        }
    }

    /// Waits until an INSERT may be sent; it is over when this is dropped. Of a replicated table one is on its way at a time,
    /// also where retries have a writer of their own: a quorum that waits for another is refused.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        if !self.is_replicated.load(Relaxed) || off!(self, Turn) {
            return None;
        }
        self.ledger.client.turn(&self.spec.name).await
    }

    #[cfg(feature = "testing")]
    pub(super) fn is_off(&self, protection: Protection) -> bool {
        self.rig.is_off(protection)
    }

    /// What is asked of it.
    pub(super) fn guarantee(&self) -> Guarantee {
        self.ledger.client.server().guarantee
    }

    /// Whether batches that are there twice stop nobody.
    pub(super) fn takes_doubles(&self) -> bool {
        self.guarantee() == Guarantee::AtLeastOnce
    }

    /// Looks how far the table has these partitions of a topic.
    pub(super) async fn survey(
        &self,
        topic_id: Uuid,
        numbers: &[i32],
    ) -> Result<Survey, SinkError> {
        let doing = || format!("look how far {} has topic {topic_id}", self.spec.name);
        let failed = |failure: Failure| failure.error(&doing());
        let asked = Instant::now();
        // Notes first: what was noted by then is in the table by now, or is missing from it.
        let notes = self.ledger.notes(topic_id, numbers).await.map_err(failed)?;
        let mut look = self.ledger.links(topic_id, numbers).await.map_err(failed)?;
        if self.takes_doubles() {
            self.put_up_with_doubles(&mut look.found);
        }
        let mut youth = Youth {
            now: look.now,
            lease_s: self.settings.lease.as_secs() as u32,
            window_s: self.settings.repair_window.as_secs() as u32,
        };
        if off!(self, OldBreaks) {
            youth.window_s = u32::MAX;
        }
        let none = Notes::default();
        let of = |number: &i32| {
            let links = look.found.get(number).map_or(&[][..], Vec::as_slice);
            (links, notes.get(number).unwrap_or(&none))
        };
        let is_short = |number: &i32| {
            let (links, notes) = of(number);
            misses_some(links, notes)
        };
        let kept = if numbers.iter().any(is_short) {
            self.kept().await.map_err(failed)?
        } else {
            Kept::Forever
        };
        let mut found = BTreeMap::new();
        for number in numbers {
            let (links, notes) = of(number);
            let at = survey(links, notes, youth, kept).map_err(|double| {
                overlap(&format!("{topic_id}/{number}"), &self.spec.name, double.0)
            })?;
            found.insert(*number, at);
        }
        let lease = (look.now.saturating_add(youth.lease_s), asked);
        Ok(Survey { found, lease, now: look.now })
    }

    fn put_up_with_doubles(&self, found: &mut BTreeMap<i32, Vec<Link>>) {
        for (partition, links) in found {
            if let Some(range) = without_overlaps(links) {
                tracing::warn!(
                    table = self.spec.name,
                    partition,
                    offsets = show(&range),
                    "these are there more than once, as `guarantee` in the configuration allows; `aion audit` lists them all"
                );
            }
        }
    }

    /// How long the table keeps rows, as it is now: somebody may have changed that since it was checked.
    async fn kept(&self) -> Result<Kept, Failure> {
        let live = plan::live(&self.ledger.client, &self.spec.name).await?;
        Ok(live.map_or(Kept::Unknown, |live| live.kept()))
    }
}

/// Asks whether a test has taken a protection out; never true in a build without tests.
macro_rules! off {
    ($table:expr, $protection:ident) => {{
        #[cfg(feature = "testing")]
        {
            $table.is_off($crate::clickhouse::testing::Protection::$protection)
        }
        #[cfg(not(feature = "testing"))]
        {
            let _ = &$table;
            false
        }
    }};
}
pub(super) use off;

/// Two batches that have offsets in common, or are the same.
pub(super) fn overlap(partition: &str, table: &str, range: std::ops::Range<Offset>) -> SinkError {
    SinkError::Fatal {
        doing: format!("look what {table} has of {partition}"),
        cause: format!("offsets {} are there more than once", show(&range)),
        hint: "a protection of the table was taken out while it was written, or rows were loaded again: run \
               `aion clickhouse plan`, then `aion clickhouse repair`, which names the batches, deletes copies (--yes), \
               and says how to delete what isn't one"
            .to_owned(),
    }
}
